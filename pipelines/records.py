"""What a source yields: records of text and rejects, nothing else, so that every record read is accounted for.

A reader is a generator of `Record | Reject` over one input. The record's number counts every record of the input from 0,
read or rejected, so a locator stays what it is when a neighbour turns bad. A reader never raises for bad input: what
cannot be read becomes a Reject with a reason of `schema.RejectReason`, and the rest of the input goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.schema import RejectReason


@dataclass(frozen=True, slots=True)
class Input:
    """One file of a source. `path` is its place below the source's root, with `/`; `url` is where to open it."""

    path: str
    url: str
    size: int
    sha256: str  # of the content; for remote stores, of what the store reports as identity
    stamp: str | None = field(default=None, compare=False)  # of its files here, when the plan was made: see `sources.stamp`


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a splittable input that one task reads: bytes of JSON lines, row groups of Parquet."""

    start: int
    stop: int
    first_record: int


@dataclass(frozen=True, slots=True)
class Record:
    """One document's text before normalisation. `merged` counts further records that were folded into it."""

    locator: str  # "<path>#<number>", or "<path>!<member>#<number>" inside archives
    text: str
    source_id: str | None = None
    url: str | None = None
    title: str | None = None
    date: str | None = None
    license: str | None = None
    merged: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """`count` records that became no document. `unknown_rest`: the input's unreadable tail may hide more of them."""

    locator: str
    reason: RejectReason
    detail: str = ""
    count: int = 1
    unknown_rest: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold for any input. They are counts, never clocks: a clock must not decide a byte."""

    record_bytes: int = 64 << 20  # one record, decompressed


def short(detail: object) -> str:
    """One line of at most 200 characters for a Reject's detail: what stands in the data must not fill the table."""
    return " ".join(str(detail).split())[:200]
