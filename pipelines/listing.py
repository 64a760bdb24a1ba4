"""documents: what a variant keeps or drops, by verdict, to be looked at: the first of them are a random sample.

The order is a hash of the ids (`report.statistics.sample_order`), the same on any machine and however the documents lie in parts;
the report's sample documents are the first of it. Verdict, number and threshold are what `explain` says, the text is the one that
was judged. Of documents that are taken back there is no more to see than doc_id and locator. Of every part narrow columns are read,
of the documents that are shown their row groups; no more than `limit` documents are held.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cluster_parts import part_ids
from pipelines.errors import UserError
from pipelines.explain import DECISION, Verdict, rows_of, verdict_line
from pipelines.parts import Part
from pipelines.report.statistics import sample_order
from pipelines.report.words import visible
from pipelines.schema import KEEP, Reason
from pipelines.store import read_columns, reading_table
from pipelines.variant import Variant
from pipelines.written import written

_EXCERPT = 200  # characters of a text
_DOCUMENT = ["doc_id", "source", "locator", "url", "title"]
_SIGNALS = ["language", "quality"]
_WITHHELD = ("url", "title", "language", "quality")  # of documents that are taken back


@dataclass(frozen=True, slots=True)
class Listed:
    """One document: its names, the verdict without its place, `language`, `quality`, and the beginning of its text."""

    document: dict[str, Any]
    verdict: Verdict
    text: str

    def to_json(self) -> dict[str, Any]:
        return {**self.document, **{name: getattr(self.verdict, name) for name in DECISION}, "text": self.text}

    def to_text(self) -> str:
        """Whatever it holds, one line for each thing that is said."""
        shown = {key: _line(value) for key, value in self.document.items() if value is not None}
        lines = [f"{shown['doc_id']}  {shown['source']}  {shown['locator']}"]
        lines += [f"  {key}: {shown[key]}" for key in ("url", "title", "language", "quality") if key in shown]
        lines.append(f"  {verdict_line(self.verdict)}")
        lines += textwrap.wrap(self.text, 100, initial_indent="  | ", subsequent_indent="  | ")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Listing:
    """The first documents of a variant, of one verdict or of all, and how many there are."""

    variant: str
    verdict: str | None
    matching: int
    documents: tuple[Listed, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "verdict": self.verdict,
            "matching": self.matching,
            "documents": [one.to_json() for one in self.documents],
        }

    def to_text(self) -> str:
        of = f", {self.verdict}" if self.verdict else ""
        head = f"{self.variant}{of}: {len(self.documents):,} of {self.matching:,} documents"
        return "\n\n".join([head, *(one.to_text() for one in self.documents)])


def list_documents(
    folder: str, variant: str, verdict: str | None = None, sources: Iterable[str] = (), limit: int = 20
) -> Listing:
    """The first `limit` documents of a variant, of these sources or all. A verdict that no document has is a UserError."""
    run = Variant.open(folder, variant, sources)
    counts = _counts(run)
    if verdict is not None and verdict not in counts:
        there = ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        raise UserError(f"{folder}: no document of {variant} has the verdict {verdict!r}; there are {there or 'none at all'}")
    parts = run.parts()
    chosen = _first(run, parts, verdict, limit)
    found: dict[tuple[int, int], Listed] = {}
    for place in sorted({place for place, _ in chosen}):
        rows = sorted(row for other, row in chosen if other == place)
        found |= {(place, row): one for row, one in zip(rows, _shown(run, parts[place], rows), strict=True)}
    matching = sum(counts.values()) if verdict is None else counts[verdict]
    return Listing(variant, verdict, matching, tuple(found[one] for one in chosen))


def _counts(run: Variant) -> dict[str, int]:
    """Verdict -> documents, of those that there are."""
    total: dict[str, int] = {}
    for source in run.sources:
        account = run.account(source)
        for verdict, count in {KEEP: account["kept"], **account["dropped"]}.items():
            total[verdict] = total.get(verdict, 0) + count
    return {verdict: count for verdict, count in total.items() if count}


def _first(run: Variant, parts: Sequence[Part], verdict: str | None, limit: int) -> list[tuple[int, int]]:
    """(place in parts, row) of the first documents, in their order."""
    seed = run.manifest["recipe"]["seed"]
    best = np.empty((0, 5), np.uint64)  # order, id (two halves), place, row
    for place, part in enumerate(parts):
        ids = np.stack(part_ids(read_columns(run.store, part.path("documents"), ["doc_id"]).column(0)), axis=1)
        verdicts = read_columns(run.store, part.decisions(run.name), ["verdict"]).column(0)
        rows = np.arange(len(ids)) if verdict is None else np.flatnonzero(np.asarray(pc.equal(verdicts, verdict)))
        order = sample_order(ids[rows], seed).astype(np.uint64)
        some = np.column_stack([order, ids[rows], np.full(len(rows), place, np.uint64), rows.astype(np.uint64)])
        both = np.concatenate([best, some])
        best = both[np.lexsort((both[:, 2], both[:, 1], both[:, 0]))[:limit]]
    return [(int(place), int(row)) for place, row in best[:, 3:]]


# -- what is shown ----------------------------------------------------------------------------------------------------------


def _shown(run: Variant, part: Part, rows: list[int]) -> list[Listed]:
    """The documents at these rows (ascending) of a part."""
    documents = rows_of(run.store, part.path("documents"), _DOCUMENT, rows)
    signals = rows_of(run.store, part.path("signals"), _SIGNALS, rows)
    decisions = rows_of(run.store, part.decisions(run.name), DECISION, rows)
    found = []
    for document, signal, decision, text in zip(documents, signals, decisions, _texts(run, part, rows), strict=True):
        known = {**document, **signal}
        if decision["verdict"] == Reason.REMOVED:
            known, text = {**known, **dict.fromkeys(_WITHHELD)}, ""
        if known["quality"] is not None:
            known["quality"] = round(known["quality"], 4)
        found.append(Listed(known, Verdict(run.name, **decision), _beginning(text)))
    return found


def _texts(run: Variant, part: Part, rows: Sequence[int]) -> list[str]:
    """The texts at these rows (ascending), as they were judged."""
    wanted, texts, first = np.array(rows, np.int64), [], 0
    with reading_table(run.store, part.path("documents")) as documents, reading_table(run.store, part.path("clusters")) as clusters:
        for group in range(documents.num_row_groups):
            count = documents.metadata.row_group(group).num_rows
            mine = pa.array(wanted[(wanted >= first) & (wanted < first + count)] - first)
            first += count
            if len(mine):
                found = documents.read_row_group(group, ["text"], use_threads=False).column(0).take(mine).combine_chunks()
                dropped = clusters.read_row_group(group, ["dropped_paragraphs"], use_threads=False).column(0).take(mine)
                texts += written(found, dropped.combine_chunks(), run.masks(part.source))[0].to_pylist()
    return texts


def _beginning(text: str) -> str:
    """The first characters of a text in one line."""
    return _line(text[: 2 * _EXCERPT])[:_EXCERPT]


def _line(value: Any) -> str:
    """A value in one line, control and bidirectional characters shown as boxes."""
    return visible(" ".join(str(value).split()))
