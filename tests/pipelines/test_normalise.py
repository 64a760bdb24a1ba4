"""pipelines.normalise: the kernel against its plain-Python reference, the reference against examples and Unicode."""

import gzip
import json
import os
import pathlib
import random
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import normalise as module
from pipelines.normalise import normalise, normalise_reference

FORMS = ("prose", "verbatim")
SPECIFICATION = pathlib.Path(__file__).parents[2] / "docs" / "normalisation.md"

# Everything that some rule is about, beside plain letters; weighted so that runs of them are common.
NASTY = [
    *[" ", "\t", "\n", "\r", "\r\n", "\0", "\x0b", "\x0c", "\x1f", "\x7f", "\x84", "\x85", "\x86", "\x9f", "\ufeff"],
    *["\u00a0", "\u00a1", "\u1680", "\u2000", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"],
    *["e", "\u0301", "\u0323", "\u00e9", "\u212b", "\u1100", "\u1161", "\u11a8", "\u0958", "\u2019", "\uff01", "😀"],
]
nasty_text = st.lists(st.sampled_from([*NASTY, "x", "word ", "y" * 61]), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("text", "prose", "verbatim"),
    [
        ("", "", ""),
        ("\r\n \t\n", "", "\n \t\n"),
        ("a\r\nb\rc\r\r\nd", "a\nb\nc\nd", "a\nb\rc\nd"),
        ("a\u2028b\u2029c\x85d", "a\nb\nc\nd", "a\u2028b\u2029c\x85d"),
        ("a\0b\x07c\x7fd\x9fe\ufefff", "abcdef", "ab\x07c\x7fd\x9fe\ufefff"),
        (
            "\ufeff  indented \t\u00a0\u3000\n\n\nend\n\n",
            "  indented\n\n\nend",
            "\ufeff  indented \t\u00a0\u3000\n\n\nend\n\n",
        ),
        ("page one\x0c\x0bpage two", "page onepage two", "page one\x0c\x0bpage two"),
        ("e\0\u0301", "\u00e9", "e\u0301"),
        ("\r\0\n", "", "\n"),
        (
            "می\u200cخواهم 👩\u200d💻 a\u00adb\u200bc",
            "می\u200cخواهم 👩\u200d💻 a\u00adb\u200bc",
            "می\u200cخواهم 👩\u200d💻 a\u00adb\u200bc",
        ),
    ],
)
def test_examples_written_by_hand(text, prose, verbatim):
    for form, expected in (("prose", prose), ("verbatim", verbatim)):
        assert normalise([text], form).to_pylist() == [expected]
        assert normalise_reference(text, form) == expected


@pytest.mark.parametrize("form", FORMS)
@given(texts=st.lists(nasty_text | st.text(max_size=80).filter(lambda t: t.isprintable()), max_size=8))
def test_kernel_equals_reference_and_twice_equals_once(form, texts):
    once = normalise(texts, form)
    assert once.to_pylist() == [normalise_reference(text, form) for text in texts]
    once.validate(full=True)
    assert normalise(once.to_pylist(), form).equals(once)


@pytest.mark.parametrize("form", FORMS)
def test_kernel_equals_reference_across_block_edges(form):
    """Each nasty pair at every place around the edges of the first two 64-byte blocks."""
    rng = random.Random(1)
    texts = [
        "x" * place + rng.choice(NASTY) + rng.choice(NASTY) + rng.choice(["", "z", "\n", "z" * 70])
        for place in [*range(54, 68), *range(120, 132)]
        for _ in range(150)
    ]
    assert normalise(texts, form).to_pylist() == [normalise_reference(text, form) for text in texts]


@pytest.mark.parametrize("form", FORMS)
def test_kernel_equals_reference_on_edge_texts(form):
    texts = ["\n" * 300 + "a", " " * 300, "a" + " " * 300 + "\n" * 300, "\r" * 200, "\0" * 200, "a" * 5000]
    texts += ["\u3000" * 100 + "\n\n\n" + "字" * 100, "😀" * 50, "\u00a0" * 100 + "\nx", " " * 64 + "\n\nx"]
    assert normalise(texts, form).to_pylist() == [normalise_reference(text, form) for text in texts]


def test_composition_makes_nothing_that_earlier_steps_would_change():
    """Why prose is idempotent, for every code point of the running Python's Unicode; blanks may become other blanks."""
    blanks = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Zs"} | {"\t"}
    changed = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0xFEFF, 0x2028, 0x2029)} | blanks
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        composed = unicodedata.normalize("NFC", chr(code))
        if composed != chr(code):
            assert changed.isdisjoint(composed) or (chr(code) in blanks and blanks.issuperset(composed)), hex(code)


def test_every_character_alone_and_at_the_end_of_a_line_matches_the_reference():
    characters = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x30000), 0x10FFFF)]
    for form in FORMS:
        texts = [f"a{character}\n{character}b" for character in characters]
        assert normalise(texts, form).to_pylist() == [normalise_reference(text, form) for text in texts]


marks = st.sampled_from(["\u0300", "\u0327", "\u0344", "\u0f73", "\u0f71", "\u0f72", "\u3099", "\u05b0", "\U0001d165", "\u1ab0"])


@given(st.sampled_from(["", "a", "\u00e9", "\u1faf", "\u4e2d", "\u0ccb"]), st.lists(marks, min_size=25, max_size=90).map("".join))
def test_long_runs_of_combining_marks_are_those_of_unicodedata(base, run):
    """On both sides of the bound, with marks that stand for several and bases that hold some."""
    texts = [base + run, run[:31] + base + run + "b", run + "\u1100" + run[:30]]
    assert normalise(texts, "prose").to_pylist() == [normalise_reference(text, "prose") for text in texts]


def test_a_million_marks_take_no_longer_than_other_text():
    """By insertion they would take most of an hour; Unicode's canonical order is that of their classes, 202 before 230."""
    count = 500_000
    (found,) = normalise(["a" + "\u0300\u0327" * count], "prose").to_pylist()
    assert found == unicodedata.normalize("NFC", "a" + "\u0327" * count + "\u0300" * count)


def test_marks_are_the_characters_that_begin_with_one_when_they_are_decomposed():
    expected = [code for code in range(0x110000) if unicodedata.combining(unicodedata.normalize("NFD", chr(code))[0])]
    assert module._marks().nonzero()[0].tolist() == expected


def test_lone_surrogate_is_refused_by_index():
    with pytest.raises(ValueError, match="text 2 holds a lone surrogate"):
        normalise(["fine", "😀", "bad \ud800"], "prose")


def test_no_texts():
    assert len(normalise([], "prose")) == 0


def test_eight_threads_agree():
    rng = random.Random(2)
    texts = ["".join(rng.choices([*NASTY, "plain words here "], k=60)) for _ in range(500)]
    expected = normalise(texts, "prose")
    with ThreadPoolExecutor(8) as pool:
        assert all(result.equals(expected) for result in pool.map(lambda _: normalise(texts, "prose"), range(32)))


def test_vectors_of_the_specification():
    vectors = json.loads(SPECIFICATION.read_text().split("```json\n")[1].split("```")[0])["normalise"]
    assert len(vectors) == 6
    for vector in vectors:
        for form in FORMS:
            assert normalise([vector["text"]], form).to_pylist() == [vector[form]]
            assert normalise_reference(vector["text"], form) == vector[form]


@pytest.mark.parametrize("name", ["bench/multi.jsonl.gz", "web/openwebtext-1000.jsonl.gz", "web/spamassassin.jsonl.gz"])
def test_kernel_equals_reference_on_real_texts(real_data, name):
    with gzip.open(real_data / name, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(1500), strict=False)]
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    for form in FORMS:
        assert normalise(texts, form).to_pylist() == [normalise_reference(text, form) for text in texts]


def test_kernels_stay_within_their_arrays(tmp_path):
    """The comparisons with the reference once more, with numba's bounds checks on."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    chosen = "equals_reference and not real"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
