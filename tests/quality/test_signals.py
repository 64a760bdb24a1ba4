"""The signals kernel against its plain-Python statement (`signals_reference`), integer for integer.

The statement itself is held to counts worked by hand from Rae et al. 2021 (Gopher), Raffel et al. 2020 and the code that
made C4, Penedo et al. 2024 (FineWeb) and Chen et al. 2021 (code).
"""

import gzip
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality import signals
from quality.signals import SIGNAL_FIELDS, Signals
from quality.signals_kernel import count, new_scratch
from quality.signals_reference import COUNTERS, POLICY, counters

GOPHER = "- item one...\n\u2022 item two\u2026\nplain # line\n\nplain # line"
C4 = "\n".join(
    [
        "One two three four five.",
        'It works, he said. "Really?" Yes: quite well!',
        "\u201cA quote that closes ends a line as well\u201d",
        "Only four words here.",
        "No end mark at the end of this",
        "An ellipsis ends this line too...",
        "Please enable JavaScript in your browser.",
        "We use cookies to improve your visit.",
        "See our Privacy Policy for more details.",
        f"A {'x' * 1001} word is far too long.",
        f"A {'x' * 1000} word is just not too long.",
    ]
)
EDGES = [
    "",
    "\n",
    "\n\n \n",
    "\u3000\n\u2003 \n",
    "a",
    "  a b  ",
    " \n \n  a\n \nb \n\n \n",
    "the of and to be",
    "The the be to of and that have with",
    "Turn on javaScript\nLorem  ipsum, lorem ipsum dolor",
    "a\n\n\na\n\na",
    "a\n\nb\nc\n\nb\nc\n\n\nb\nc",
    "word " * 300,
    "\u2028x\x1cy\u3000z\x85",
    "\u0130stanbul KELVIN \u212a javascr\u0130pt \u0130 lorem \u0130psum",
    "\n".join("We use cookies every single day, we do.".replace("k", sign) for sign in ("\u212a", "\u212b", "\u2126")),
    "abcdefghb abcdefgha\0 abcdefgh\0 abcdefgh \0 \0\0 abcdefghb abcdefgha\0",
    "x" * 200,
    "x" * 5000 + " y",
    "x" * 1000 + " a b c d.\n" + "\u00e9" * 1001 + " a b c d.",
    "\U0001f600 " * 70,
    "{ } # ## . .. ... .... ...... \u2026 \u201cEnd.\u201d",
    'He said "yes." "No?" \u201cOh!\u201d yes.) no." \nWhat?! A b c d. e f. ',
    "x." * 40 + "." * 70 + "y",
    "\u00bd \u2167 \u0663 \u4e00 a1 1a #1 \u00b2",
    GOPHER,
    C4,
]
# Every phrase, cut by the border of a block at every place, and with one letter missing.
COOKIES = "use cookies".replace("k", "\u212a")  # KELVIN SIGN, of which str.lower() makes a k
PHRASES = ("JavaScript", "lorem ipsum", *POLICY, COOKIES, "uses cooties", "\u201ct?\u201d", "\u3000...", "\u2026")
CUT = [f"{'x' * shift} {phrase} and so it goes on." for shift in range(40, 64) for phrase in PHRASES]

MILLION = 1_000_000


def large(texts):
    return pa.array(texts, pa.large_string())


def counted(texts):
    return count(large(texts), new_scratch(max(len(text.encode()) for text in texts))).tolist()


def expected(texts):
    return [list(counters(text).values()) for text in texts]


def named(text):
    """The counters of one text, by the kernel, which must agree with the reference."""
    assert counted([text]) == expected([text])
    return counters(text)


def check(found, **numbers):
    assert {name: found[name] for name in numbers} == numbers


# -- the definitions, by hand -----------------------------------------------------------------------------------------------


def test_gophers_symbols_lines_and_repeated_parts():
    check(
        named(GOPHER),
        characters=52,
        words=12,
        word_characters=40,
        alphabetic_words=8,
        hashes=2,
        ellipses=2,
        lines=5,
        line_characters=48,
        bullet_lines=2,
        ellipsis_lines=2,
        body_lines=4,
        duplicate_lines=1,
        duplicate_line_characters=12,
        paragraphs=2,
        duplicate_paragraphs=0,
        distinct_stop_words=0,
    )
    check(named("the The of the be-to with."), distinct_stop_words=2)
    check(named("a\n\nb\nc\n\nb\nc\n\n\nb\nc"), paragraphs=4, duplicate_paragraphs=2, duplicate_paragraph_characters=6)


def test_gophers_ngrams():
    """"a b c" three times: nine words of one character each in seventeen characters."""
    found = named("a b c a b c a b c")
    check(
        found,
        top_2_gram_characters=9,  # "a b", three times, before "b c", which is as frequent
        top_3_gram_characters=15,  # "a b c"
        top_4_gram_characters=14,  # "a b c a", twice
        duplicate_5_gram_characters=5,  # the one from the fourth word on; four words are left
        duplicate_6_gram_characters=6,
        duplicate_7_gram_characters=0,
    )
    check(named("one two three"), top_2_gram_characters=7, top_3_gram_characters=13, top_4_gram_characters=0)
    check(named("ab c x a bc y"), top_2_gram_characters=4)  # "ab c" is not "a bc"
    check(named("a " * 12), duplicate_5_gram_characters=10, duplicate_10_gram_characters=10)  # never counted twice


def test_c4s_lines_and_sentences():
    check(
        named(C4),
        lines=11,
        nonblank_lines=11,
        terminal_lines=10,
        javascript_lines=1,
        c4_lines=4,
        c4_sentences=1 + 3 + 1 + 1,
        lorem_ipsum=0,
        curly_brackets=0,
    )
    check(named("Lorem IPSUM {}{"), lorem_ipsum=1, curly_brackets=2)
    for notice in POLICY:
        check(named(f"It is said that {notice.upper()}, as they do."), c4_lines=0)
        check(named(f"It is said that {notice[:-1]}, as they do."), c4_lines=1)
    check(named(f"We {COOKIES} every single day."), c4_lines=0)


def test_finewebs_lines_and_those_of_code():
    text = "\n".join(["x" * 29, "", "  " + "x" * 29 + "\t", "x" * 29 + ".", "y = [1, 2]"])
    check(
        named(text),
        lines=5,
        nonblank_lines=4,
        terminal_lines=1,
        short_lines=3,
        longest_line=32,
        alphanumerics=4 * 29 - 29 + 3,
        digits=2,
    )


def test_columns_are_counters_and_their_fractions():
    row = Signals()(large([GOPHER])).to_pylist()[0]
    assert list(row) == [field.name for field in SIGNAL_FIELDS]
    assert (row["characters"], row["lines"]) == (52, 5)
    for name, fraction in (("bullet_lines", 2 / 5), ("hash_ratio", 2 / 12), ("mean_line_length", 48 / 5)):
        assert row[name] == float(np.float32(fraction))
    assert (row["duplicate_lines"], row["duplicate_paragraphs"]) == (0.25, 0.0)
    empty = Signals()(large([""])).to_pylist()[0]
    assert {name for name, value in empty.items() if value} == {"lines"}  # the empty text has one line, and nothing else


# -- the kernel against the reference ---------------------------------------------------------------------------------------


def test_edges():
    assert counted(EDGES) == expected(EDGES)


def test_what_is_cut_by_the_border_of_a_block():
    assert counted(CUT) == expected(CUT)


def test_the_only_characters_that_become_ascii_in_lower_case():
    """What the matching of phrases rests on, by the running Python."""
    lowered = {chr(code): chr(code).lower() for code in range(128, 0x110000)}
    found = {character: lower for character, lower in lowered.items() if any(letter.isascii() for letter in lower)}
    assert found == {"\u0130": "i\u0307", "\u212a": "k"}


def of_pieces(pieces, most):
    return st.lists(st.sampled_from(pieces), max_size=most).map("".join)


WORDS = of_pieces(["a ", "b ", "a\n", "the ", "\u00e9t\u00e9 ", "longer-than-eight ", "much-longer-than-sixteen "], 90)
LINES = of_pieces(["a\n", "b\n", "\n", "\n\n", " \n", "a b\n", " a", "\t", "\u3000\n"], 40)
MARKS = of_pieces(
    ["a", " ", "\n", ".", "...", "?", '"', "\u201d", "\u2026", "-", "\u2022", "{", "#", "9", "\u3000", "\u00bd", "\U0001f600"], 150
)
NOTICES = of_pieces(
    ["java", "Script", "lorem", " ", " ipsum", "use", "s", " of", " co", "okie", "o\u212aie", " policy", "privacy", "a b c.\n"],
    60,
)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)


@pytest.mark.parametrize("texts", [WORDS, LINES, MARKS, NOTICES, ANY], ids=["words", "lines", "marks", "notices", "any"])
def test_any_text_equals_the_reference(texts):
    @given(st.lists(texts, min_size=1, max_size=4))
    def holds(batch):
        assert counted(batch) == expected(batch)

    holds()


@pytest.mark.parametrize(
    ("name", "documents", "step"),
    [("bench/multi.jsonl.gz", 2300, 8), ("bench/docs.jsonl.gz", 6000, 40), ("web/newsgroups20.jsonl.gz", 4000, 40)],
)
def test_real_texts(real_data, name, documents, step):
    with gzip.open(real_data / name) as lines:
        texts = [json.loads(line)["text"] for line in itertools.islice(lines, 0, documents, step)]
    assert counted(texts) == expected(texts)


def test_slices_and_narrow_strings():
    first, last = 3, len(EDGES) - 2
    assert Signals()(large(EDGES).slice(first, last - first)).equals(Signals()(large(EDGES[first:last])))
    assert Signals()(pa.array(EDGES, pa.string())).equals(Signals()(large(EDGES)))
    assert Signals()(large([])).num_rows == 0


def test_scratch_keeps_nothing_of_a_text_for_the_next():
    """One object for all texts, in both orders, against a new one for each; then a batch that needs more than is kept."""
    texts, kept = EDGES + CUT[:40], Signals()
    alone = [Signals()(large([text])) for text in texts]
    assert [kept(large([text])) for text in texts] == alone
    assert [kept(large([text])) for text in texts[::-1]] == alone[::-1]
    longer = kept(large(["word " * MILLION, GOPHER]))
    assert longer.slice(1).equals(kept(large([GOPHER])))
    assert longer.column("words").to_pylist() == [MILLION, 12]


def test_eight_threads_at_once():
    batches = [EDGES[number:] + CUT[number::8] for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(counted, batches))
    assert found == [expected(batch) for batch in batches]


@pytest.mark.parametrize(("floor", "factor"), [(1, 1), (2**31 - 40, 0x9E3779B97F4A7C15), (2**31 - 1, 3)])
def test_names_do_not_depend_on_the_table(floor, factor):
    """The factor 1 puts all n-grams of common words into one place; at 2^31 the table is emptied and begins anew."""
    scratch = new_scratch(max(len(text.encode()) for text in EDGES))
    scratch.names.state[:] = floor, factor
    for _ in range(3):
        assert count(large(EDGES), scratch).tolist() == expected(EDGES)
    assert scratch.names.state[0] < 2**31


def test_bounds_are_kept(tmp_path):
    """In a process with numba's bounds checks on, and scratch that is no larger than the longest text asks for."""
    program = (
        "from tests.quality import test_signals as t\n"
        "for texts in (t.EDGES, t.CUT, *([text] for text in t.EDGES)):\n"
        "    assert t.counted(texts) == t.expected(texts)"
    )
    # A cache folder of its own: the cached kernels were compiled without checks.
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()


# -- texts made to hurt: closed forms, since the reference would take minutes ------------------------------------------------



def large_counts(text):
    scratch = new_scratch(len(text))
    arrays = [part for part in (*scratch, *scratch.names) if isinstance(part, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 31 * len(text) + 4096
    row = count(pa.array([text.decode()], pa.large_string()), scratch)[0].tolist()
    return dict(zip(COUNTERS, row, strict=True))


def test_a_million_equal_words():
    check(
        large_counts(b"word " * MILLION),
        words=MILLION,
        alphabetic_words=MILLION,
        word_characters=4 * MILLION,
        top_2_gram_characters=9 * (MILLION - 1),
        top_4_gram_characters=19 * (MILLION - 3),
        duplicate_5_gram_characters=20 * ((MILLION - 1) // 5),
        duplicate_10_gram_characters=40 * ((MILLION - 1) // 10),
        longest_line=5 * MILLION,
        body_lines=1,
    )


def test_a_million_different_words():
    check(
        large_counts(b" ".join(b"%x" % number for number in range(MILLION))),
        words=MILLION,
        top_2_gram_characters=3,  # "0 1": nothing repeats, so the first is as frequent as any
        top_3_gram_characters=5,
        duplicate_5_gram_characters=0,
        alphanumerics=sum(len(f"{number:x}") for number in range(MILLION)),
    )


def test_a_line_of_sixty_megabytes():
    size = 60 * MILLION
    found = large_counts(b"x" * (size - 8) + b" a b c d")
    check(found, characters=size, words=5, lines=1, longest_line=size, body_lines=1, c4_lines=0, alphanumerics=size - 4)


def test_nothing_but_line_feeds_and_nothing_but_one_letter_lines():
    check(large_counts(b"\n" * (5 * MILLION)), lines=5 * MILLION + 1, nonblank_lines=0, words=0, body_lines=0, paragraphs=0)
    check(
        large_counts(b"a\n" * MILLION + b"\n\n" + b"a\n\n" * MILLION),
        lines=3 * MILLION + 3,
        words=2 * MILLION,
        body_lines=2 * MILLION,
        duplicate_lines=2 * MILLION - 1,
        paragraphs=MILLION + 1,
        duplicate_paragraphs=MILLION - 1,
        duplicate_paragraph_characters=MILLION - 1,
    )


def test_marks_and_phrases_without_end():
    check(large_counts(b"." * (3 * MILLION)), ellipses=MILLION, terminal_lines=1, ellipsis_lines=1, words=1)
    check(
        large_counts(b"javascript cool f u lor y p " * MILLION),
        javascript_lines=1,
        words=7 * MILLION,
        lorem_ipsum=0,
        top_2_gram_characters=15 * MILLION,
    )


def test_nothing_that_is_ascii():
    text = "\u00e9\u4e00\u0301\U00020000\u3000\u2026\u201d\u2003".encode() * MILLION
    check(
        large_counts(text),
        characters=8 * MILLION,
        words=2 * MILLION,
        alphabetic_words=MILLION,
        alphanumerics=3 * MILLION,
        ellipses=MILLION,
        word_characters=6 * MILLION,
        top_2_gram_characters=7 * MILLION,
    )


def test_a_text_that_does_not_fit_int32_is_refused(monkeypatch):
    monkeypatch.setattr(signals, "LONGEST_TEXT", 3)
    assert Signals()(large(["abc"])).column("characters").to_pylist() == [3]
    with pytest.raises(ValueError, match="a text of 4 bytes; the longest that can be counted has 3"):
        Signals()(large(["abc", "abcd"]))
