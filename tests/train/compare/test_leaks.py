"""train.compare.leaks: against sets of tuples of words in plain Python, and texts built to stand on both sides of a threshold."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.words import words_reference
from train.compare.leaks import Leak, find_leaks

word = st.sampled_from("a b c the The ever über ÜBER 漢 x1 naïve".split())
gap = st.sampled_from([" ", ", ", "\n", " - ", "... "])


@st.composite
def text(draw, most=30):
    return "".join(draw(word) + draw(gap) for _ in range(draw(st.integers(0, most))))


@st.composite
def evaluation(draw):
    """A short text, or one of 190 to 210 words: a few of them, again and again."""
    if draw(st.booleans()):
        return draw(text())
    some, size = draw(st.lists(word, min_size=1, max_size=25)), draw(st.integers(190, 210))
    return " ".join((some * size)[:size])


def batch(*texts):
    return pa.array(texts, pa.large_string())


def grams(words, size):
    return {tuple(words[first : first + size]) for first in range(len(words) - size + 1)}


def shingles(words):
    return grams(words, min(5, len(words))) if words else set()


def brute(texts, documents):
    """The rule as the issue says it, with sets of tuples and exact fractions."""
    held, found = [words_reference(one) for one in documents], []
    for one in texts:
        words = words_reference(one)
        size = 13 if len(words) >= 200 else 8
        shared = grams(words, size) & set().union(*(grams(other, size) for other in held))
        mine, best = shingles(words), Fraction(0)
        for other in map(shingles, held):
            if mine and other:
                best = max(best, Fraction(len(mine & other), len(mine | other)))
        similar = Leak("jaccard", float(best)) if best >= Fraction(7, 10) else None
        found.append(Leak("ngram", len(shared)) if shared else similar)
    return found


def numbered(first, count, mark="w"):
    return " ".join(f"{mark}{number}" for number in range(first, first + count))


def one(text, *documents):
    (found,) = find_leaks([text], [batch(*documents)])
    return found


# -- against the reference ----------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.lists(evaluation(), max_size=5), st.lists(st.one_of(text(), text(60)), max_size=6), st.data())
def test_every_text_is_judged_as_by_sets_of_words(texts, documents, data):
    """Documents are also made of pieces of the texts, whole ones and cut ones, so that runs and likenesses are found."""
    for source in data.draw(st.lists(st.sampled_from(texts), max_size=4)) if texts else []:
        words = source.split()
        begin, stop = sorted(data.draw(st.tuples(st.integers(0, len(words)), st.integers(0, len(words)))))
        documents.append(data.draw(text(3)) + " ".join(words[begin:stop]) + data.draw(st.sampled_from(["", " end of it"])))
    cut = data.draw(st.integers(0, len(documents)))
    assert find_leaks(texts, [batch(*documents[:cut]), batch(*documents[cut:])]) == brute(texts, documents)


def test_the_reference_is_met_where_likeness_alone_decides():
    """Texts of three to seven words of an alphabet of two: thousands of pairs on both sides of .7, no run long enough."""
    draw = np.random.Generator(np.random.PCG64(3))
    texts = [" ".join(draw.choice(list("ab"), draw.integers(1, 8))) for _ in range(300)]
    documents = [" ".join(draw.choice(list("abc"), draw.integers(1, 12))) for _ in range(300)]
    found = find_leaks(texts, [batch(*documents)])
    assert found == brute(texts, documents)
    kinds = {leak and leak.kind for leak in found}
    assert kinds == {None, "jaccard"}


# -- runs of words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "run"), [(200, 13), (1000, 13), (199, 8), (20, 8), (8, 8)])
def test_a_run_leaks_from_its_length_on(words, run):
    mine = numbered(0, words)
    for begin in {0, (words - run) // 2, words - run}:
        shared = numbered(begin, run)
        assert one(mine, f"before it {shared} behind it") == Leak("ngram", 1)
        assert one(mine, f"before it {shared.rsplit(' ', 1)[0]} behind it") is None
        assert one(mine, f"before it {shared.split(' ', 1)[1]} behind it") is None


def test_twelve_shared_words_of_a_long_text_are_none_however_often():
    mine, pieces = numbered(0, 240), [numbered(begin, 12) for begin in range(0, 240, 12)]
    assert one(mine, " x ".join(pieces[::2]), " y ".join(pieces[1::2])) is None


def test_a_run_stands_within_one_document():
    mine = numbered(0, 100)
    assert find_leaks([mine], [batch(numbered(0, 7), numbered(7, 7)), batch(numbered(14, 7))]) == [None]


def test_the_number_is_of_distinct_runs_in_the_whole_corpus():
    mine = numbered(0, 30) + " " + numbered(0, 30)  # every run of the first half stands twice
    documents = ["so " + numbered(0, 10), numbered(1, 10) + " on", numbered(0, 10) + " " + numbered(0, 10)]
    assert one(mine, *documents) == Leak("ngram", 4)
    assert find_leaks([mine], [batch(document) for document in documents[::-1]]) == [Leak("ngram", 4)]


def test_a_run_that_many_texts_hold_marks_them_all():
    shared = numbered(0, 9, "common")
    texts = [f"{numbered(10 * number, 5)} {shared} {numbered(10 * number + 5, 5)}" for number in range(50)]
    mixed = [*texts, numbered(1000, 30), f"{shared} {numbered(0, 300, 'z')}"]
    assert find_leaks(mixed, [batch(f"see {shared}")]) == [Leak("ngram", 2)] * 50 + [None, None]  # the last one is long: 13


def test_case_punctuation_and_spacing_decide_nothing():
    assert one("It was the best of times, it was -- the WORST", "IT WAS THE... best of\ttimes; it\n\nwas") == Leak("ngram", 1)
    assert one("Élan Über ΣΊΣΥΦΟΣ naïve Ōsaka ÇA Ñu Żółw", "élan über σίσυφοσ naïve ōsaka ça ñu żółw") == Leak("ngram", 1)


def test_in_scripts_without_spaces_every_character_is_a_word():
    assert one("春眠不覚暁処処聞啼鳥", "詩:春眠不覚。暁処処聞!") == Leak("ngram", 1)
    assert one("春眠不覚暁処処聞啼鳥", "詩:春眠不覚。暁処処!") is None


# -- likeness -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "other", "shared", "union"),
    [  # letters are words; found by search: no run of eight in common
        ("aaabbaabaaaba", "aaabaaabbaaa", 7, 10),
        ("bbabbbbabbabb", "aababbabbbbbbbabbb", 7, 10),  # one within the other
        ("aabaaababaababbb", "baabababaaabaab", 9, 12),
        ("aaabbabbbababbaa", "babbabababbbabbb", 9, 13),
        ("aaabbaabbba", "aaabbbaabbab", 6, 9),
    ],
)
def test_the_threshold_itself_is_a_likeness(mine, other, shared, union):
    """Seven of ten is enough, nine of thirteen (.692) is not; whichever of the two is the evaluation text."""
    expected = Leak("jaccard", shared / union) if shared * 10 >= union * 7 else None
    assert one(" ".join(mine), " ".join(other)) == expected
    assert one(" ".join(other), " ".join(mine)) == expected


def test_a_shingle_that_stands_again_counts_once():
    assert one("a a a a a b", "a a a a a a a a a a b") == Leak("jaccard", 1.0)  # aaaaa and aaaab, both
    assert one("a a a a a b", "a a a a a a a a a a") is None  # one of two
    assert one("c b a a a a b", "c b a a a a a a a b") == Leak("jaccard", 0.75)  # aaaaa, thrice, is the one that is not shared


def test_the_best_document_is_told():
    mine = numbered(0, 7)
    assert one(mine, mine + " x", mine, "x " + mine) == Leak("jaccard", 1.0)
    assert one(mine, "nothing", mine + " x", "x " + mine + " x") == Leak("jaccard", 0.75)


@pytest.mark.parametrize("words", range(1, 8))
def test_a_text_too_short_for_a_run_leaks_as_a_whole_document_only(words):
    mine = numbered(0, words)
    assert one(mine, mine.upper() + "!") == Leak("jaccard", 1.0)
    assert one(mine, f"so {mine} is said by everybody here every day of the week") is None


def test_a_long_text_without_a_run_of_thirteen_can_be_like():
    """Of one word said 230 times six are as good as all; of a block of twelve words over and over the block alone is not."""
    block = numbered(0, 12)
    mine = " ".join(f"{block} {mark}" for mark in "pq" * 9)
    other = " ".join(f"{block} {mark}" for mark in "p")
    assert len(words_reference(mine)) == 234
    assert find_leaks([mine], [batch(other)]) == brute([mine], [other]) == [Leak("ngram", 1)]
    inner = f"{block} "
    assert find_leaks([mine], [batch(inner)]) == brute([mine], [inner]) == [None]  # 8 shingles of 18
    few = " ".join(["a"] * 230)
    assert find_leaks([few], [batch("a a a a a a")]) == brute([few], ["a a a a a a"]) == [Leak("jaccard", 1.0)]


def test_many_texts_that_share_all_their_shingles_are_all_named():
    texts = ["a a a a a", *["a " * size for size in range(5, 60)], "a a a a a b"]
    assert find_leaks(texts, [batch("A, a; a! a? a.")]) == [Leak("jaccard", 1.0)] * 56 + [None]


# -- edges --------------------------------------------------------------------------------------------------------------------


def test_nothing_leaks_out_of_nothing():
    assert find_leaks([], [batch("a b c")]) == []
    assert find_leaks(["a b c", ""], []) == [None, None]
    assert find_leaks(["a b c", "", "?!"], [batch(), batch("", "...", "?!")]) == [None, None, None]
    assert find_leaks(["", "?!"], [batch("a b c")]) == [None, None]


def test_slices_and_narrow_strings_are_read_as_they_are():
    mine = numbered(0, 20)
    whole = pa.array(["first", mine, "last"], pa.string())
    assert find_leaks([mine], [whole.slice(1, 1)]) == [Leak("ngram", 13)]
    assert find_leaks([mine], [whole.slice(2)]) == [None]


def test_the_corpus_passes_by_once_and_is_not_kept():
    """A batch is gone when the next one but one is asked for, so that memory does not grow with the corpus."""
    alive, words = [], numbered(0, 20_000)

    def stream():
        for _ in range(12):
            alive.append(pa.total_allocated_bytes())
            yield batch(words)

    assert find_leaks([numbered(500, 8)], stream()) == [Leak("ngram", 1)]
    assert max(alive) - alive[0] < 2.5 * len(words)


def test_more_texts_than_are_hashed_at_once_keep_their_places():
    texts = [numbered(5000 * number, 5000) for number in range(60)]  # 2 MB
    shared = [numbered(5000 * number + 77, 13) for number in (0, 31, 59)]
    found = find_leaks(texts, [batch(*shared)])
    assert [place for place, leak in enumerate(found) if leak] == [0, 31, 59]
    assert {leak for leak in found if leak} == {Leak("ngram", 1)}
