"""What the readers' tests share: an input from a path, and what a reader makes of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from pipelines.records import Input, Limits, Record, Reject
from pipelines.sources import SourceOptions, count_records, reader


def read(kind: str, path: Path, span=None, limit=1 << 20, **fields: str) -> list[Record | Reject]:
    return list(reader(kind)(_input(path), SourceOptions(**fields), Limits(limit), span))


def recount(kind: str, path: Path) -> int:
    return count_records(kind, _input(path), SourceOptions())


def _input(path: Path) -> Input:
    content = path.read_bytes() if path.is_file() else b""
    return Input(path.name, str(path), len(content), hashlib.sha256(content).hexdigest())


def texts(found: list[Record | Reject]) -> list[str]:
    return [one.text for one in found if isinstance(one, Record)]


def rejects(found: list[Record | Reject]) -> dict[str, int]:
    """reason -> records."""
    counts: Counter[str] = Counter()
    for one in found:
        if isinstance(one, Reject):
            counts[str(one.reason)] += one.count
    return dict(counts)


def records(found: list[Record | Reject]) -> int:
    """How many records were read, whatever became of them."""
    return sum(one.count if isinstance(one, Reject) else 1 + one.merged for one in found)
