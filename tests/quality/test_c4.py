"""C4's cleaning: by hand, against a second plain reading of the paper's rules, and against our own rules on the cleaned text.

`c4_like`: no published C4 file is at hand, so the rules are run over real saved pages.
"""

from __future__ import annotations

import re
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality import c4, rules
from quality.c4 import BadWords, clean, judge_line
from quality.signals import Signals

GOOD = "This line has enough words. It ends as it should. So does this one."


@pytest.mark.parametrize(
    ("line", "text", "removed", "condemns"),
    [
        ("It has an end mark, Dr. Roberts!", "It has an end mark, Dr. Roberts!", None, None),
        ("  Blanks around it do not matter?\t", "Blanks around it do not matter?", None, None),
        ('"A quotation ends it as well"', '"A quotation ends it as well"', None, None),
        ("“A quotation ends it as well”", "“A quotation ends it as well”", None, None),
        ("A menu | and no end mark", "A menu | and no end mark", "no_end_mark", None),
        ("An ellipsis is not an end...", "An ellipsis is not an end...", "no_end_mark", None),
        ("Another ellipsis is not one either…", "Another ellipsis is not one either…", "no_end_mark", None),
        ("", "", "no_end_mark", None),
        ("Four words, no more.", "Four words, no more.", "few_words", None),
        ("Five words are just enough.", "Five words are just enough.", None, None),
        ("a b c d " + "e" * 1000 + ".", "a b c d " + "e" * 1000 + ".", "long_word", None),
        ("a b c d " + "e" * 999 + ".", "a b c d " + "e" * 999 + ".", None, None),
        ("a b c d " + "e" * 998 + "[1].", "a b c d " + "e" * 998 + "[1].", "long_word", None),
        ("The cited[12] line ends well[citation needed].[edit]", "The cited line ends well.", None, None),
        ("Empty markers go from it too[].", "Empty markers go from it too.", None, None),
        ("Other notes stay in it [note 1].", "Other notes stay in it [note 1].", None, None),
        ("A blank is left behind it. [3]", "A blank is left behind it. ", "no_end_mark", None),
        ("One two three four [1].", "One two three four .", None, None),
        ("Please enable JavaScript to see this.", "Please enable JavaScript to see this.", "javascript", None),
        ("You agree to our Terms of Use.", "You agree to our Terms of Use.", "policy", None),
        ("See also the new privacy policy.", "See also the new privacy policy.", "policy", None),
        ("See also the new Cookie Policy.", "See also the new Cookie Policy.", "policy", None),
        ("This site of ours uses cookies.", "This site of ours uses cookies.", "policy", None),
        ("You accept our use of cookies.", "You accept our use of cookies.", "policy", None),
        ("We use cookies on this site.", "We use cookies on this site.", "policy", None),
        ("Here is Lorem Ipsum dolor sit.", "Here is Lorem Ipsum dolor sit.", None, "c4_lorem_ipsum"),
        ("function f(a) { it is code. }.", "function f(a) { it is code. }.", None, "c4_curly_bracket"),
        ("It closes with } and no more.", "It closes with } and no more.", None, None),
        # The order of the rules shows where two of them meet.
        ("Lorem ipsum needs javascript { in it.", "Lorem ipsum needs javascript { in it.", None, "c4_lorem_ipsum"),
        ("This javascript is { a block of it.", "This javascript is { a block of it.", "javascript", None),
        ("We use cookies { in this block.", "We use cookies { in this block.", None, "c4_curly_bracket"),
        ("lorem ipsum { with no end mark", "lorem ipsum { with no end mark", "no_end_mark", None),
    ],
)
def test_a_line(line, text, removed, condemns):
    assert judge_line(line) == (text, removed, condemns)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("I asked him for assistance with my cutlass.", False),
        ("He put it on his ass and went.", True),
        ("Ass is what they call the animal.", True),
        ('Another word for it is "ass".', True),
        ("It is the animal that we call ass", False),  # the line goes, and what it says goes with it
        ("The class of 3ass4 is as good.", True),
        ("It is a grey  donkey here, I say.", False),
        ("It is a grey donkey here, I say.", True),
        ("It costs what S&M costs, I say.", True),
        ("A dot is no wildcard: axb and more.", False),
    ],
)
def test_bad_words_stand_alone(line, found):
    listed = BadWords(["Ass", "  grey donkey ", "", "s&m", "a.b"])
    assert (judge_line(line, listed).condemns == "c4_bad_words") == found


@given(
    st.lists(st.text("ab &.🖕", min_size=1, max_size=5), min_size=1, max_size=5).filter(lambda words: any(map(str.strip, words))),
    st.text("ab &.🖕", max_size=40),
)
def test_bad_words_are_found_as_one_pattern_would(words, text):
    """Reference: the alternation that the code of C4 uses, with no character wanted at the ends."""
    pattern = "|".join(re.escape(word.strip()) for word in words if word.strip())
    assert BadWords(words).found_in(text) == bool(re.search(f"(?<![a-z])(?:{pattern})(?![a-z])", text))


def test_a_list_without_a_word_is_an_error():
    with pytest.raises(ValueError, match="without a word"):
        BadWords(["", "  "])


def test_the_published_list(real_data):
    """The list that C4 names: every entry is found, alone and between blanks, and inside no longer word."""
    words = (real_data / "evals" / "ldnoobw-en.txt").read_text().splitlines()
    listed = BadWords(words)
    assert len(words) == 403
    for word in words:
        assert listed.found_in(word.lower())
        assert judge_line(f"There was {word} in the text.", listed).condemns == "c4_bad_words"
        assert listed.found_in(f"x{word.lower()}x") is False or re.search(r"[^a-z]", word)


PAGE = f"""{GOOD}
Home | About | Contact
You have JavaScript disabled and that means you can't see this page.
And some of these lines end with citations.[3]
Too few words.
You'd better follow our terms of use!
"""


def test_a_page():
    kept = f"{GOOD}\nAnd some of these lines end with citations."
    assert clean(PAGE) == (kept, None)
    assert clean(PAGE.replace("\n", "\r\n")) == (kept, None)
    assert clean(kept) == (kept, None)


@pytest.mark.parametrize(
    ("text", "kept", "reason"),
    [
        ("", "", "c4_sentences"),
        ("Two of them are here. One more follows.", "Two of them are here. One more follows.", "c4_sentences"),
        ("This is no end... It is one sentence.", "This is no end... It is one sentence.", "c4_sentences"),
        (f"{GOOD}\nThere was a {{ in it.\nHome", f"{GOOD}\nThere was a {{ in it.", "c4_curly_bracket"),
        (f"{GOOD}\nThere was a lorem ipsum here.", f"{GOOD}\nThere was a lorem ipsum here.", "c4_lorem_ipsum"),
        (f"{GOOD}\nThere was a donkey in it.", f"{GOOD}\nThere was a donkey in it.", "c4_bad_words"),
        (f"{GOOD}\n{{ lorem ipsum donkey", GOOD, None),
        ("A { in this line.\nSome lorem ipsum is here.", "A { in this line.\nSome lorem ipsum is here.", "c4_lorem_ipsum"),
    ],
)
def test_a_page_that_goes_keeps_the_lines_that_condemn_it(text, kept, reason):
    assert clean(text, BadWords(["donkey"])) == (kept, reason)


# -- a second plain reading -------------------------------------------------------------------------------------------------


def reading(text, words=()):
    """C4's rules read once more, as the code does it: drops at once, counts what it does. (text or None, counts)."""
    counts = Counter()
    kept, number = [], 0
    for line in text.splitlines():
        line = line.strip()
        if [word for word in line.split() if len(word) > 1000]:
            counts["long_word"] += 1
            continue
        line = re.sub(r"\[(\d*|edit|citation needed)\]", "", line)
        if line == "" or line[-1] not in '.?!"”' or line[-3:] == "...":
            counts["no_end_mark"] += 1
            continue
        if len(re.findall(r"\S+", line)) < 5:
            counts["few_words"] += 1
            continue
        lower = line.lower()
        if lower.find("lorem ipsum") >= 0:
            return None, counts + Counter(page=1)
        if lower.find("javascript") >= 0:
            counts["javascript"] += 1
            continue
        if "{" in line:
            return None, counts + Counter(page=1)
        if re.search(r"terms of use|privacy policy|cookie policy|uses? cookies|use of cookies", lower):
            counts["policy"] += 1
            continue
        padded = f" {lower} "
        for word in words:
            at = padded.find(word)
            while at >= 0:
                if not ("a" <= padded[at - 1] <= "z" or "a" <= padded[at + len(word)] <= "z"):
                    return None, counts + Counter(page=1)
                at = padded.find(word, at + 1)
        # Sentences by their marks: a mark, perhaps a closing quote, then a blank; and the line's own end.
        number += len(re.findall(r'[.?!]["”]?(?=\s+\S)', line)) + 1
        kept.append(line)
    if number < 3:
        return None, counts + Counter(few=1)
    return "\n".join(kept).strip(), counts


_PIECES = st.sampled_from(
    "word|two words|end.|end!|said.\"|so...|…|[1]|[edit]|[citation needed]|{|lorem ipsum|Lorem|javascript|terms of use|use cookies"
    "|uses|cookies|ass|class|?|\n|\n|\r\n|\u2028|é|”".split("|")
)


@given(st.lists(st.tuples(_PIECES, st.sampled_from(["", " ", " ", " ", "\t"])), max_size=60))
def test_a_second_reading_agrees(parts):
    text = "".join(piece + blank for piece, blank in parts)
    found, reason = clean(text, BadWords(["ass"]))
    expected, _ = reading(text, ["ass"])
    assert (reason is None) == (expected is not None)
    if expected is not None:
        assert found == expected


@given(st.lists(st.tuples(_PIECES, st.sampled_from(["", " ", " ", " ", "\t"])), max_size=60))
def test_the_rules_give_the_cleaned_text_the_same_verdict(parts):
    """The compiled signals and the family `c4`, as annotate and select use them, on the text after normalisation."""
    found, reason = clean("".join(piece + blank for piece, blank in parts))
    assert _verdict([found]) == [reason]


@given(st.lists(st.tuples(_PIECES, st.sampled_from(["", " ", " ", " ", "\t"])), max_size=60))
def test_the_rules_give_the_cleaned_text_the_same_verdict_by_a_list(parts):
    listed = BadWords(["word", "uses cookies", "s&m", "{"])
    found, reason = clean("".join(piece + blank for piece, blank in parts), listed)
    assert _verdict([found], listed) == [reason]


@given(st.lists(st.sampled_from(["ass", "Ass", "grass", "grey donkey", "grey\ndonkey", "s&m", "\n", " ", ".", "É"]), max_size=20))
def test_lines_with_a_bad_word_are_counted(parts):
    """As one search a line counts them; "a\nb" is no "a b"."""
    text = "".join(parts)
    pattern = re.compile(r"(?<![a-z])(?:ass|grey donkey|s&m)(?![a-z])")
    (count,) = Signals(BadWords(["Ass", "grey donkey", "s&m"]))(pa.array([text], pa.large_string())).column("bad_words").to_pylist()
    assert count == sum(pattern.search(line.lower()) is not None for line in text.split("\n"))
    assert Signals()(pa.array([text], pa.large_string())).column("bad_words").to_pylist() == [0]


def _verdict(texts, listed=None):
    from pipelines.normalise import normalise

    failed, _, _ = rules.judge(Signals(listed)(normalise(texts, "prose")), rules.C4)
    return [rules.C4[index].name if index >= 0 else None for index in failed]


# -- real pages -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def c4_like(real_data):
    """The texts of 853 saved pages, as the WARC reader delivers them."""
    from pipelines.records import Input, Limits, Record
    from pipelines.sources import SourceOptions, reader

    texts = []
    for name in ("web-recipes", "web-trafilatura"):
        one = Input(name, str(real_data / "web" / f"{name}.warc.gz"), 0, "")
        found = reader("warc")(one, SourceOptions(), Limits(), None)
        texts += [record.text for record in found if isinstance(record, Record)]
    return texts


def test_real_pages_by_both_readings(c4_like, real_data):
    words = (real_data / "evals" / "ldnoobw-en.txt").read_text().splitlines()
    listed = BadWords(words)
    lowered = sorted({word.lower() for word in words})
    reasons, lines = Counter(), Counter()
    for text in c4_like:
        found, reason = clean(text, listed)
        expected, _ = reading(text, lowered)
        assert (found if reason is None else None) == expected
        reasons[reason] += 1
        lines.update(judge_line(line, listed).removed for line in text.splitlines())
    assert reasons == {None: 779, "c4_sentences": 40, "c4_bad_words": 32, "c4_curly_bracket": 1, "c4_lorem_ipsum": 1}
    assert lines == {"no_end_mark": 66302, "few_words": 1143, "policy": 21, "javascript": 11, None: 17549}


def test_real_pages_get_the_same_verdict_by_the_rules(c4_like, real_data):
    for listed in (None, BadWords((real_data / "evals" / "ldnoobw-en.txt").read_text().splitlines())):
        cleaned = [clean(text, listed) for text in c4_like]
        assert _verdict([text for text, _ in cleaned], listed) == [reason for _, reason in cleaned]


def test_cleaning_twice_changes_no_real_page_that_stays(c4_like):
    for text in c4_like:
        found, reason = clean(text)
        if reason is None:
            again, still = clean(found)
            assert still is None
            assert [line.strip() for line in again.split("\n")] == [line.strip() for line in found.split("\n")]


def test_constants_are_the_papers():
    assert (c4.MIN_SENTENCES, c4.C4_WORDS, c4.C4_LONGEST_WORD) == (3, 5, 1000)
    assert tuple(rule.name for rule in rules.C4) == c4.PAGE_REASONS
    assert pa.types.is_integer(Signals()(pa.array([""], pa.large_string())).schema.field("c4_sentences").type)


def test_rows_of_the_published_corpus_are_json_lines(tmp_path):
    """The schema of the published files: text, timestamp, url; no published file is at hand."""
    import gzip
    import json

    from pipelines.records import Input, Limits, Record
    from pipelines.sources import SourceOptions, reader

    row = {"text": GOOD, "timestamp": "2019-04-25T12:57:54Z", "url": "https://a.example/page"}
    path = tmp_path / "c4-train.00000-of-01024.json.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
    found = list(reader("jsonl")(Input(path.name, str(path), 0, ""), SourceOptions(date="timestamp"), Limits(), None))
    assert found == [Record(f"{path.name}#0", GOOD, url=row["url"], date=row["timestamp"])]
