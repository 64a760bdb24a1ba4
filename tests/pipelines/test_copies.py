"""The proof that copies stay together, against plain counting over the texts."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.copies import Copies
from pipelines.errors import CheckError
from pipelines.schema import content_hash

_documents = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["train", "validation"]), st.booleans(), st.booleans())
_parts = st.lists(st.lists(_documents, max_size=5), max_size=4)  # (text, split, kept by one variant, by another)


def _said(parts, variant, once, copies):
    """What the proof says of a variant; "" where it holds."""
    kept = {}
    for split in ("train", "validation"):
        chosen = [np.array([one[variant] and one[1] == split for one in part], bool) for part in parts]
        kept[split] = np.concatenate([np.empty(0, np.int64), *(copies.of(n, mask) for n, mask in enumerate(chosen))])
    try:
        copies.hold("it", once, kept)
    except CheckError as error:
        return str(error)
    return ""


@given(_parts, st.booleans())
def test_it_holds_where_counting_the_texts_says_so(parts, once):
    copies = Copies([pa.chunked_array([[content_hash(one[0].encode()) for one in part]], pa.binary(16)) for part in parts])
    documents = [one for part in parts for one in part]
    sides = defaultdict(set)
    for variant in (2, 3):
        kept = [one for one in documents if one[variant]]
        twice = sum(count > 1 for count in Counter(text for text, *_ in kept).values())
        said = _said(parts, variant, once, copies)
        if once and twice:
            assert said.startswith(f"it: {twice} texts are kept more than once")
            return
        for text, split, *_ in kept:
            sides[text].add(split)
        both = sum(len(found) > 1 for found in sides.values())
        assert said.startswith(f"it: {both} texts are kept both for") if both else said == ""
        if both:
            return


def test_texts_of_different_variants_are_held_together():
    """Kept for training by the one and held out by the other: a model of the one is measured by what it has seen."""
    copies = Copies([pa.chunked_array([[content_hash(b"same")] * 2], pa.binary(16))])
    first, second = (copies.of(0, np.array(mask)) for mask in ([True, False], [False, True]))
    none = np.empty(0, np.int64)
    copies.hold("variants.one", True, {"train": first, "validation": none})
    with pytest.raises(CheckError, match=r"variants.two: 1 texts are kept both for training and for validation"):
        copies.hold("variants.two", True, {"train": none, "validation": second})
