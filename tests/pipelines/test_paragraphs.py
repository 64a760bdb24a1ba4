"""pipelines.dedup.paragraphs and .exact: kernels against plain Python, the loose form against CCNet's paper."""

import gzip
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.characters import fold_character, fold_table
from pipelines.dedup.exact import content_hashes
from pipelines.dedup.paragraphs import (
    NEVER_DROPPED,
    paragraph_hash_reference,
    paragraph_table,
    without,
    without_reference,
)
from pipelines.normalise import normalise, normalise_reference
from pipelines.schema import DOCUMENTS

SPECIFICATION = pathlib.Path(__file__).parents[2] / "docs" / "normalisation.md"
PIECES = [
    "\n",
    "\n",
    "\n\n",
    " ",
    "\t",
    "Word",
    "9",
    "٣",
    ".",
    "—",
    "$",
    "é",
    "e\u0301",
    "Å",
    "Σς",
    "İ",
    "ß",
    "한",
    "漢",
    "ｶ",
]
PIECES += ["\0", "\x85", "\u2028", "\u00a0", "\u200d", "😀", "Ⱥ", "\u0ccb", "\U0001d15e", "x" * 61]
piece_text = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
EDGES = ["", "\n", "\n" * 300, "a" * 5000, "é" * 3000, "Ⱥ" * 700 + "\n", " " * 200, "." * 130, "\0", "😀" * 50 + "\nb"]
EDGES += ["x" * place + "\n" + piece + "\ny" for place in range(60, 67) for piece in PIECES]


def large(texts):
    return pa.array(texts, pa.large_string())


def lists(rows):
    return pa.array(rows, pa.list_(pa.int32()))


def assert_table_equals_reference(texts):
    hashes, lengths = paragraph_table(large(texts))
    assert hashes.type == DOCUMENTS.field("paragraph_hashes").type
    assert lengths.type == DOCUMENTS.field("paragraph_bytes").type
    lines = [text.split("\n") for text in texts]
    assert hashes.to_pylist() == [[paragraph_hash_reference(line) for line in text] for text in lines]
    assert lengths.to_pylist() == [[len(line.encode()) for line in text] for text in lines]


def random_marks(texts, rng):
    """For every text null, nothing, all or some of its lines, ascending."""
    counts = [text.count("\n") + 1 for text in texts]
    return [
        rng.choice([None, [], list(range(count)), sorted(rng.sample(range(count), rng.randint(1, count)))])
        for count in counts
    ]


# -- hashes ------------------------------------------------------------------------------------------------------------


@given(st.lists(piece_text, max_size=8))
def test_table_equals_reference(texts):
    assert_table_equals_reference(texts)


def test_table_equals_reference_on_edge_texts():
    assert_table_equals_reference(EDGES)


def test_table_of_a_slice_is_the_slice_of_the_table():
    array = large(EDGES)
    hashes, lengths = paragraph_table(array)
    for first, stop in ((5, 60), (3, 3), (0, 1)):
        part_hashes, part_lengths = paragraph_table(array[first:stop])
        assert part_hashes.equals(hashes[first:stop])
        assert part_lengths.equals(lengths[first:stop])


def test_folded_characters_are_the_same_in_table_and_reference():
    table = fold_table()
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        folded = fold_character(chr(code))
        assert len(folded) <= 1, hex(code)
        assert table[code] == (ord(folded) if folded else 0), hex(code)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Copyright 2019 ACME, Inc.", "copyright 2024 acme inc"),  # case, digits, punctuation
        ("Café Ångström naïve Ελλάδα", "cafe angstrom naive ελλαδα"),  # accents
        ("e\u0301te\u0301", "été"),  # whichever way they are written
        ("«Привет» — мир!", "привет мир"),  # Unicode's punctuation
        ("  a\t b\u00a0\u3000c ", "a b c"),  # white space
        ("\u0661\u0662\u0663 \uff11\uff12\uff13 123", "000 000 000"),  # digits of all scripts
    ],
)
def test_paragraphs_that_are_the_same(left, right):
    assert paragraph_hash_reference(left) == paragraph_hash_reference(right) != NEVER_DROPPED


@pytest.mark.parametrize(("left", "right"), [("a b", "ab"), ("12", "123"), ("a+b", "ab"), ("C$", "C"), ("ab", "ba")])
def test_paragraphs_that_are_not_the_same(left, right):
    assert paragraph_hash_reference(left) != paragraph_hash_reference(right)


@pytest.mark.parametrize("line", ["", " \t\u00a0", "* * *", "-----", "—…!?「」", "\u0301", "\0\x07"])
def test_lines_of_which_nothing_is_left_are_never_dropped(line):
    assert paragraph_table(large([line]))[0].to_pylist() == [[NEVER_DROPPED]]


def test_vectors_of_the_specification():
    vectors = json.loads(SPECIFICATION.read_text().split("```json\n")[1].split("```")[0])
    assert len(vectors["paragraph_hash"]) == 5
    for vector in vectors["paragraph_hash"]:
        assert paragraph_hash_reference(vector["line"]) == vector["hash"]
        assert paragraph_table(large([vector["line"]]))[0].to_pylist() == [[vector["hash"]]]
    hashes = content_hashes(large([vector["text"] for vector in vectors["content_hash"]]))
    assert [value.hex() for value in hashes.to_pylist()] == [vector["hex"] for vector in vectors["content_hash"]]


# -- leaving out -------------------------------------------------------------------------------------------------------


@given(st.lists(piece_text, max_size=8), st.integers(0, 2**32))
def test_without_equals_reference(texts, seed):
    dropped = random_marks(texts, random.Random(seed))
    left = without(large(texts), lists(dropped))
    left.validate(full=True)
    assert left.to_pylist() == [without_reference(t, marks or []) for t, marks in zip(texts, dropped, strict=True)]


def test_without_equals_reference_on_edge_texts_and_slices():
    dropped = random_marks(EDGES, random.Random(9))
    expected = [without_reference(text, marks or []) for text, marks in zip(EDGES, dropped, strict=True)]
    assert without(large(EDGES), lists(dropped)).to_pylist() == expected
    assert without(large(EDGES)[7:80], lists(dropped)[7:80]).to_pylist() == expected[7:80]


def test_without_written_by_hand():
    texts = large(["a\nb\nc", "a\nb\nc", "a\nb\nc", "a\n\nc", "", "keep\nme", "\nas\n"])
    dropped = lists([[0], [1, 2], [0, 1, 2], [1], [0], None, []])
    assert without(texts, dropped).to_pylist() == ["b\nc", "a", "", "a\nc", "", "keep\nme", "\nas\n"]


@given(st.lists(piece_text, max_size=8), st.integers(0, 2**32))
def test_what_is_left_of_a_normalised_text_is_normalised(texts, seed):
    """Blank lines beside lost ones: "a", a blank line and "b" without "b" is "a". By the specification's rules, 1.1."""
    assert without(large(["a\n\nb", "a\n\nb\n\nc", "a\n\n\nb\nc"]), lists([[2], [0, 4], [0]])).to_pylist() == ["a", "b", "b\nc"]
    texts = normalise(texts, "prose").to_pylist()
    left = without(large(texts), lists(random_marks(texts, random.Random(seed)))).to_pylist()
    assert left == [normalise_reference(text, "prose") for text in left]


def test_a_null_list_drops_nothing_whatever_lies_under_it():
    under = pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), pa.array([0, 0], pa.int32()), mask=pa.array([True, False])
    )
    assert without(large(["a\nb", "a\nb"]), under).to_pylist() == ["a\nb", "b"]


@pytest.mark.parametrize("marks", [[2], [-1], [1, 0], [0, 0], [0, 5]])
def test_lists_that_do_not_fit_their_text_are_refused(marks):
    with pytest.raises(ValueError, match="text 1: paragraphs to drop"):
        without(large(["fine", "a\nb"]), lists([[0], marks]))


# -- both, and exact hashes --------------------------------------------------------------------------------------------


def test_eight_threads_agree():
    rng = random.Random(10)
    texts = ["".join(rng.choices([*PIECES, "plain words "], k=80)) for _ in range(400)]
    array, dropped = large(texts), lists(random_marks(texts, rng))
    expected = (*paragraph_table(array), without(array, dropped), content_hashes(array))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(
            lambda _: (*paragraph_table(array), without(array, dropped), content_hashes(array)), range(32)
        ):
            assert all(one.equals(other) for one, other in zip(found, expected, strict=True))


def test_content_hashes_are_blake2b_of_the_text():
    hashes = content_hashes(large(EDGES)[4:])
    assert hashes.type == DOCUMENTS.field("content_hash").type
    assert hashes.to_pylist() == [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in EDGES[4:]]


def test_kernels_equal_references_on_real_texts(real_data):
    with gzip.open(real_data / "bench" / "multi.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][::20]
    assert_table_equals_reference(texts)
    dropped = random_marks(texts, random.Random(11))
    expected = [without_reference(text, marks or []) for text, marks in zip(texts, dropped, strict=True)]
    assert without(large(texts), lists(dropped)).to_pylist() == expected


def test_distinct_lines_of_real_texts_do_not_collide(real_data):
    """As many hashes as loose forms."""
    with gzip.open(real_data / "bench" / "multi.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][::4]
    hashes = np.unique(paragraph_table(large(texts))[0].values.to_numpy())
    forms = {" ".join("".join(map(fold_character, line)).split(" ")) for text in texts for line in text.split("\n")}
    assert len(hashes) == len({" ".join(form.split()) for form in forms})


def test_kernels_stay_within_their_arrays(tmp_path):
    """The comparisons with the reference once more, with numba's bounds checks on."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "equals_reference"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
