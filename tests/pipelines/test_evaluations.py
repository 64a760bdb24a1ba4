"""Overlap with evaluation sets against a plain search for tuples of words."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.evaluations import NGRAM, SHORTEST, build_index, overlaps
from pipelines.dedup.words import words_reference

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
        mask = 0
        for hit in hits:
            mask |= hit
        found.append((len(hits), mask))
    return found


@given(st.lists(text(), max_size=6), st.dictionaries(st.sampled_from("pqr"), st.lists(text(most=16), max_size=4)), st.data())
@settings(max_examples=80)
def test_counts_and_sets_are_those_of_a_plain_search(documents, sets, data):
    """Some documents hold an evaluation text, with other gaps and in capitals."""
    flat = [one for texts in sets.values() for one in texts]
    if flat and documents:
        chosen = data.draw(st.sampled_from(flat))
        documents[0] += " " + chosen.upper().replace(",", " ;") + documents[-1]
    counts, masks = overlaps(pa.array(documents, pa.large_string()), build_index(sets))
    expected = _brute(documents, sets)
    assert [(int(c), int(m)) for c, m in zip(counts, masks, strict=True)] == expected


def test_a_long_document_is_searched_across_the_batches_of_its_words():
    """Words come 512 at a time; an overlap that lies across a border counts once."""
    words = [f"w{n}" for n in range(3000)]
    sets = {"one": [" ".join(words[505:518])], "two": [" ".join(words[1020:1040])], "short": [" ".join(words[7:15])]}
    counts, masks = overlaps(pa.array([" ".join(words), " ".join(words[506:])], pa.large_string()), build_index(sets))
    assert counts.tolist() == [1 + 8 + 1, 8]
    assert masks.tolist() == [0b111, 0b100]  # one, short, two in the order of their names


def test_texts_under_eight_words_are_counted_and_not_looked_for():
    index = build_index({"x": ["only seven words are in this text", "eight words are what it takes to look", ""]})
    assert index.texts == {"x": (3, 2)}
    assert index.lengths.tolist() == [8]
    assert overlaps(pa.array(["Only seven words are in this text!"], pa.large_string()), index)[0].tolist() == [0]


def test_nothing_to_look_for():
    counts, masks = overlaps(pa.array(["a text"], pa.large_string()), build_index({}))
    assert (counts.tolist(), masks.tolist()) == ([0], [0])


def test_sixty_four_sets_are_told_apart_and_no_more():
    texts = {f"s{n:02d}": [" ".join(f"t{n}w{i}" for i in range(9))] for n in range(64)}
    _, masks = overlaps(pa.array([texts["s63"][0], texts["s00"][0]], pa.large_string()), build_index(texts))
    assert masks.tolist() == [1 << 63, 1]
    with pytest.raises(ValueError, match="65 evaluation sets; at most 64"):
        build_index({**texts, "more": []})
