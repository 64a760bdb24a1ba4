"""How extract cuts records into batches: what is held at once is bounded, whatever the fields beside a text hold."""

from __future__ import annotations

import pytest

from pipelines.extract import BATCH_CHARACTERS, _batches
from pipelines.records import Record, Reject


def _sizes(records):
    return [len(taken) for taken, _ in _batches(iter(records))]


def test_batches_are_bounded_in_documents_and_in_text():
    """Fields of ordinary length do not move a cut: parts of a corpus stay what they are."""
    assert _sizes(Record(f"x#{n}", "a", str(n), "u" * 4000, "t" * 4000, "2024") for n in range(5000)) == [2000, 2000, 1000]
    assert _sizes(Record(f"x#{n}", "a" * 1000) for n in range(3000)) == [2000, 1000]
    assert _sizes(Record(f"x#{n}", "a" * (BATCH_CHARACTERS // 2)) for n in range(5)) == [2, 2, 1]


@pytest.mark.parametrize("name", ["source_id", "url", "title", "date", "license"])
def test_long_fields_count_as_text(name):
    sizes = _sizes(Record(f"x#{n}", "a", **{name: "t" * 60_000}) for n in range(100))
    assert sum(sizes) == 100
    assert max(sizes) * 60_001 < BATCH_CHARACTERS + 60_001


@pytest.mark.parametrize("name", ["source_id", "url", "title", "date", "license"])
def test_fields_longer_than_any_are_a_reject_that_says_so(name):
    """Two thousand of them could be as many records of the limit's 64 MiB."""
    fitting, over = Record("x#0", "a", **{name: "t" * 65_536}), Record("x#1", "a", merged=2, **{name: "t" * 65_537})
    ((taken, rejected),) = _batches(iter([fitting, over]))
    assert taken == [fitting]
    assert rejected == [Reject("x#1", "too_large", "65537 characters beside the text, over 65536", 3)]
