"""Overlap with evaluation sets against a plain search for tuples of words; files of sets against what `json` reads."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup import phrases
from pipelines.dedup.evaluations import NGRAM, SHORTEST, build_index, overlaps, read_texts
from pipelines.dedup.words import word_hash_reference, words_reference
from pipelines.errors import UserError

word = st.sampled_from("a b c the The ever über 漢 x1 naïve".split())
gap = st.sampled_from([" ", ", ", "\n", " - "])


@st.composite
def text(draw, least=0, most=40):
    return "".join(draw(word) + draw(gap) for _ in range(draw(st.integers(least, most))))


def _brute(documents, sets):
    names = sorted(sets)
    grams = {}
    for number, name in enumerate(names):
        for one in sets[name]:
            words = words_reference(one)
            length = min(NGRAM, len(words))
            for first in range(len(words) - length + 1):
                if length >= SHORTEST:
                    key = tuple(words[first : first + length])
                    grams[key] = grams.get(key, 0) | 1 << number
    lengths = {len(gram) for gram in grams}
    found = []
    for document in documents:
        words = words_reference(document)
        hits = [
            grams[gram]
            for length in lengths
            for first in range(len(words) - length + 1)
            if (gram := tuple(words[first : first + length])) in grams
        ]
        shared = [name for number, name in enumerate(names) if any(hit >> number & 1 for hit in hits)]
        found.append((len(hits), ",".join(shared) or None))
    return found


@given(st.lists(text(), max_size=6), st.dictionaries(st.sampled_from("pqr"), st.lists(text(most=16), max_size=4)), st.data())
@settings(max_examples=80)
def test_counts_and_sets_are_those_of_a_plain_search(documents, sets, data):
    """Some documents hold an evaluation text, with other gaps and in capitals."""
    flat = [one for texts in sets.values() for one in texts]
    if flat and documents:
        chosen = data.draw(st.sampled_from(flat))
        documents[0] += " " + chosen.upper().replace(",", " ;") + documents[-1]
    counts, names = overlaps(pa.array(documents, pa.large_string()), build_index(sets))
    assert list(zip(counts.tolist(), names, strict=True)) == _brute(documents, sets)


@given(st.lists(st.tuples(text(), st.integers(0, 16)), max_size=6))
@settings(max_examples=40)
def test_keys_are_those_of_plain_python(chosen):
    texts, lengths = [one for one, _ in chosen], [length for _, length in chosen]
    hashes, offsets = phrases.word_hashes(pa.array(texts, pa.large_string()))
    expected = [[word_hash_reference(word) for word in words_reference(one)] for one in texts]
    assert [hashes[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected
    keys = [
        phrases.ngram_key_reference(words[first : first + length])
        for words, length in zip(expected, lengths, strict=True)
        for first in range(len(words) - length + 1)
        if length
    ]
    assert phrases.ngram_keys(hashes, offsets, np.array(lengths, np.int64)).tolist() == keys


def test_a_set_of_many_batches_is_the_same_as_of_one(monkeypatch):
    texts = [" ".join(f"w{n * 31 % 97}" for n in range(start, start + 25)) for start in range(0, 400, 7)]
    whole = phrases.save(build_index({"a": texts, "b": texts[::2]}))
    monkeypatch.setattr(phrases, "_BATCH", 100)
    assert phrases.save(build_index({"a": texts, "b": texts[::2]})) == whole


def test_a_long_document_is_searched_across_the_batches_of_its_words():
    """Words come 512 at a time; an overlap that lies across a border counts once."""
    words = [f"w{n}" for n in range(3000)]
    sets = {"one": [" ".join(words[505:518])], "two": [" ".join(words[1020:1040])], "short": [" ".join(words[7:15])]}
    counts, names = overlaps(pa.array([" ".join(words), " ".join(words[506:])], pa.large_string()), build_index(sets))
    assert counts.tolist() == [1 + 8 + 1, 8]
    assert names == ["one,short,two", "two"]


def test_texts_under_eight_words_are_counted_and_not_looked_for():
    index = build_index({"x": ["only seven words are in this text", "eight words are what it takes to look", ""]})
    assert index.texts == {"x": (3, 2)}
    assert index.lengths.tolist() == [8]
    assert overlaps(pa.array(["Only seven words are in this text!"], pa.large_string()), index)[0].tolist() == [0]


def test_nothing_to_look_for():
    counts, names = overlaps(pa.array(["a text"], pa.large_string()), build_index({}))
    assert (counts.tolist(), names) == ([0], [None])


def test_sixty_four_sets_are_told_apart_and_no_more():
    texts = {f"s{n:02d}": [" ".join(f"t{n}w{i}" for i in range(9))] for n in range(64)}
    _, names = overlaps(pa.array([texts["s63"][0], texts["s00"][0]], pa.large_string()), build_index(texts))
    assert names == ["s63", "s00"]
    with pytest.raises(ValueError, match="65 lists; at most 64"):
        build_index({**texts, "more": []})


# -- files ------------------------------------------------------------------------------------------------------------------

ROWS = [
    {"question": "Who?", "choices": ["a man", "a woman"], "answer": 1, "deep": {"er": [["x", {"y": "z"}], None, True, 2.5]}},
    "a bare string",
    {"naïve": "über \u6f22", "empty": ""},
]
STRINGS = ["Who?", "a man", "a woman", "x", "z", "a bare string", "über \u6f22", ""]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress])
def test_every_string_value_is_a_text_in_the_order_of_the_file(tmp_path, compress):
    content = b"\xef\xbb\xbf" + "\n\n".join(json.dumps(row) for row in ROWS).encode()
    (tmp_path / "set").write_bytes(compress(content))
    assert list(read_texts(str(tmp_path / "set"))) == STRINGS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": "b"}\n{"a": ', r"set: line 2: no JSON \(.*\); an evaluation set is JSON lines$"),
        (b'{"a": "\xff"}', r"set: line 1: no JSON"),
        (b'{"a": 1}\n', r"set: no text in it; an evaluation set is JSON lines with strings among their values$"),
        (b"", r"set: no text in it"),
        (gzip.compress(b'{"a": "b"}\n', mtime=0)[:-6], r"set: cannot be read to its end \(.*\); mend the evaluation set$"),
    ],
)
def test_a_file_that_is_no_set_is_one_line(tmp_path, content, said):
    (tmp_path / "set").write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        list(read_texts(str(tmp_path / "set")))
    assert "\n" not in str(raised.value)


# -- the artefact -----------------------------------------------------------------------------------------------------------


def test_an_index_is_read_back_and_equal_ones_are_equal_bytes():
    sets = {"b": ["one two three four five six seven eight nine", "short"], "a": ["a b c d e f g h"]}
    index = build_index(sets)
    data = phrases.save(index)
    assert data == phrases.save(build_index(dict(reversed(sets.items()))))
    again = phrases.load(data, "x")
    assert (again.names, again.texts) == (("a", "b"), {"a": (1, 0), "b": (2, 1)})
    for field in ("keys", "lists", "lengths"):
        assert getattr(again, field).tolist() == getattr(index, field).tolist()


def test_what_is_no_index_is_said_to_be_none():
    data = phrases.save(build_index({"a": ["a b c d e f g h"]}))
    for broken in (b"", data[:40], data[:-8], b"\x00" * 100):
        with pytest.raises(UserError, match=r"^models/x: not an index of phrases: .*; build the run again$"):
            phrases.load(broken, "models/x")
    with pytest.raises(UserError, match="an index of format 2, not 1; build the run again"):
        phrases.load(data.replace(b'\\"format\\": 1', b'\\"format\\": 2'), "models/x")
