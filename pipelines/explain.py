"""explain: any record leads to its shard and offset, or to one stage, one reason and one number, in every variant.

A name is a doc_id, a locator or a URL. Documents are found by the index. A record that never became a document is found in
rejects/ by its locator: a reject of several records covers the numbers from its own on, since only consecutive records with
one reason are joined, and one whose rest is unreadable covers all that follow.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines import against, index, removal
from pipelines.errors import NotFound
from pipelines.finished import MANIFEST, open_run
from pipelines.parts import Part, shard_of
from pipelines.schema import KEEP
from pipelines.store import SIDECAR, Store, read_columns, reading_table

_DOCUMENT = ["doc_id", "source", "locator", "source_id", "url", "title", "date", "license", "content_hash"]
_CLUSTERS = ["exact_cluster", "exact_size", "near_cluster", "near_size", "jaccard", "dropped_paragraphs"]
DECISION = ["verdict", "stage", "value", "threshold", "duplicate_of", "duplicate_run", "split"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one variant did with the document; `prefix`, `position` and `offset` only where it is kept."""

    variant: str
    verdict: str
    stage: str | None
    value: float | None
    threshold: float | None
    duplicate_of: str | None
    split: str
    duplicate_run: str | None = None  # the other run that has `duplicate_of`
    keeper: str | None = None  # source and locator of `duplicate_of`; null where its run is not to be found
    prefix: str | None = None
    position: int | None = None  # the document's number in the shard
    offset: int | None = None  # of its first token, in tokens from the shard's start


@dataclass(frozen=True, slots=True)
class Explanation:
    """One document, its signals, its clusters, and every variant's verdict."""

    document: dict[str, Any]
    signals: dict[str, Any]
    clusters: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    removed_by: str | None = None  # the kind of entry of the recipe's list that takes it back
    purged: bool = False  # neither text nor signals are left

    def to_json(self) -> dict[str, Any]:
        verdicts = [{name: getattr(one, name) for name in Verdict.__slots__} for one in self.verdicts]
        taken = {"removed_by": self.removed_by, "purged": self.purged}
        return {"document": self.document, "signals": self.signals, "clusters": self.clusters, "verdicts": verdicts, **taken}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of rejects/: the `count` records from `locator` on, none of which became a document."""

    source: str
    locator: str
    reason: str
    detail: str | None  # of the first of them
    count: int
    unknown_rest: bool

    def to_json(self) -> dict[str, Any]:
        return {"reject": {name: getattr(self, name) for name in self.__slots__}}


def explain(folder: str, name: str) -> list[Explanation]:
    """Every document of a run that goes by `name` (hex doc_id, locator or URL); none is NotFound, no run a UserError."""
    found = list(_documents(open_run(folder), name))
    if not found:
        raise NotFound(f"{folder}: no document goes by {name!r}; give a doc_id, a locator or a URL")
    return found


def trace(folder: str, name: str, most: int | None = None) -> list[Explanation | Rejected]:
    """Documents as `explain` finds them, and rejects whose records `name`, a locator, is one of; neither is NotFound.
    most: how many are looked for, the first ones."""
    store = open_run(folder)
    found: list[Explanation | Rejected] = list(islice(_documents(store, name), most))
    found = [*found, *_rejects(store, name)][:most]
    if not found:
        merged = "; records of its input were merged into documents" if _merging(store, name) else ""
        raise NotFound(
            f"{folder}: no document or reject goes by {name!r}{merged}; give a doc_id, a locator (path#number) or a URL"
        )
    return found


# -- documents --------------------------------------------------------------------------------------------------------------


def _documents(store: Store, name: str) -> Iterator[Explanation]:
    rows: dict[tuple[str, str], list[int]] = {}
    with index.opened(store) as known:
        for source, part_name, row in known.find(name):
            rows.setdefault((source, part_name), []).append(row)
    for (source, part_name), some in rows.items():
        part = _part(store, source, part_name)
        for row, document in zip(some, rows_of(store, part.path("documents"), _DOCUMENT, some), strict=True):
            if name in (document["doc_id"], document["locator"], document["url"]):
                yield _explain(store, part, row, document)


def _part(store: Store, source: str, name: str) -> Part:
    sidecar = store.sidecar(f"documents/{source}/{name}.parquet")
    assert sidecar is not None
    return Part(-1, source, name, sidecar["rows"], sidecar["text_bytes"], sidecar["sha256"])


def _explain(store: Store, part: Part, row: int, document: dict[str, Any]) -> Explanation:
    with reading_table(store, part.path("signals")) as file:
        names = [name for name in file.schema_arrow.names if name != "token_ids"]
    (signals,) = rows_of(store, part.path("signals"), names, [row])
    (clusters,) = rows_of(store, part.path("clusters"), _CLUSTERS, [row])
    recipe = store.read_json(MANIFEST)["recipe"]
    verdicts = tuple(_verdict(store, part, row, variant, recipe["tokens"]["shards"]) for variant in recipe["variants"])
    removed_by = removal.kind_of(removal.found_in(store, part), row)
    purged = removal.kind_of(removal.purged(store, part), row) is not None
    return Explanation(document, signals, clusters, verdicts, removed_by, purged)


def rows_of(store: Store, path: str, columns: list[str], rows: list[int]) -> list[dict[str, Any]]:
    """Rows of a part as plain values, ids in hex."""
    found = read_columns(store, path, columns).take(rows).to_pylist()
    return [{key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()} for row in found]


def _verdict(store: Store, part: Part, row: int, variant: str, shards: int) -> Verdict:
    (found,) = rows_of(store, part.decisions(variant), DECISION, [row])
    if found["verdict"] == KEEP:
        return Verdict(variant, **found, **_place(store, part, row, variant, found["split"], shards))
    keeping = _store_of(store, found["duplicate_run"])
    return Verdict(variant, **found, keeper=None if keeping is None else _name_of(keeping, found["duplicate_of"]))


def _store_of(store: Store, run: str | None) -> Store | None:
    """The run that this one calls `run`: itself for None; None where that one is no longer complete, or elsewhere."""
    if run is None:
        return store
    (url,) = (one["url"] for one in store.read_json("plan.json")[against.NAMED] if one["name"] == run)
    other = Store(url)
    return other if other.exists(MANIFEST) else None


def _name_of(store: Store, doc_id: str | None) -> str | None:
    """Source and locator of a document."""
    if doc_id is None:
        return None
    with index.opened(store) as known:
        places = known.find(doc_id)
    for source, part_name, row in places:
        (found,) = rows_of(store, f"documents/{source}/{part_name}.parquet", ["doc_id", "locator"], [row])
        if found["doc_id"] == doc_id:
            return f"{source} {found['locator']}"
    return None


def _place(store: Store, part: Part, row: int, variant: str, split: str, shards: int) -> dict[str, Any]:
    """Where a kept document lies: the shard's parts before its own, in order, then the rows before it."""
    number = shard_of(part, shards)
    documents = tokens = 0
    named = [replace(part, name=one["name"]) for one in store.read_json(index.PARTS) if one["source"] == part.source]
    for other in named:
        if shard_of(other, shards) != number or other.name > part.name:
            continue
        decisions = read_columns(store, other.decisions(variant), ["verdict", "split"])
        kept = pc.and_(pc.equal(decisions.column("verdict"), KEEP), pc.equal(decisions.column("split"), split))
        chosen = np.asarray(kept)
        if other.name == part.name:
            chosen = chosen[:row]
        counts = read_columns(store, other.path("signals"), ["n_tokens"]).column(0).to_numpy()[: len(chosen)]
        documents += int(chosen.sum())
        tokens += int(counts[chosen].sum(dtype=np.int64)) + int(chosen.sum())
    prefix = f"tokens/{variant}/{split}/{part.source}-{number:05d}-of-{shards:05d}"
    assert store.exists(prefix + ".idx" + SIDECAR)
    return {"prefix": prefix, "position": documents, "offset": tokens}


# -- rejects ----------------------------------------------------------------------------------------------------------------


def _rejects(store: Store, name: str) -> list[Rejected]:
    """Rejects that cover the record that the locator `name` names; none for anything that is no locator."""
    path, number = _split(name)
    if number is None:
        return []
    found = []
    for task in _tasks(store, path):
        rows = read_columns(store, f"rejects/{task['source']}/{task['name']}.parquet", list(Rejected.__slots__))
        mine = rows.filter(pc.starts_with(rows.column("locator"), path + "#"))
        for row in mine.to_pylist():
            start, first = _split(row["locator"])
            if start == path and first is not None and first <= number and (
                number < first + row["count"] or row["unknown_rest"]
            ):
                found.append(Rejected(**row))
    return found


def _split(locator: str) -> tuple[str, int | None]:
    """(path, number) of "path#number"; (locator, None) of anything else."""
    path, mark, number = locator.rpartition("#")
    return (path, int(number)) if mark and number.isascii() and number.isdigit() else (locator, None)


def _tasks(store: Store, path: str) -> list[dict[str, Any]]:
    """The tasks that read the input `path`, or the archive that holds it."""
    tasks = store.read_json("plan.json")["tasks"]
    return [t for t in tasks if any(path == one["path"] or path.startswith(one["path"] + "!") for one in t["inputs"])]


def _merging(store: Store, name: str) -> bool:
    """Whether records of the input of `name`, a locator, were merged into documents."""
    tasks = _tasks(store, _split(name)[0])
    return any(store.read_json(f"documents/{task['source']}/{task['name']}.json")["merged"] for task in tasks)


# -- text -------------------------------------------------------------------------------------------------------------------


def to_text(found: Explanation | Rejected) -> str:
    """The explanation as a person reads it: the document, the verdicts, then the numbers."""
    if isinstance(found, Rejected):
        return _reject_text(found)
    document, clusters = found.document, found.clusters
    lines = [f"{document['doc_id']}  {document['source']}  {document['locator']}"]
    lines += [f"  {key}: {document[key]}" for key in ("url", "title", "date", "source_id", "license") if document[key]]
    lines.append(f"  content_hash: {document['content_hash']}")
    if found.removed_by is not None:
        left = "; purged: neither text nor signals are left" if found.purged else ""
        lines.append(f"  taken back by {found.removed_by}{left}")
    lines += [verdict_line(one) for one in found.verdicts]
    if clusters["exact_cluster"]:
        lines.append(f"exact cluster of {clusters['exact_size']}: {clusters['exact_cluster']}")
    if clusters["near_cluster"]:
        likeness = f"Jaccard {clusters['jaccard']:.2f} to its first member"
        lines.append(f"near cluster of {clusters['near_size']}: {clusters['near_cluster']}, {likeness}")
    if clusters["dropped_paragraphs"]:
        lines.append(f"paragraphs left out: {', '.join(map(str, clusters['dropped_paragraphs']))}")
    if found.purged:
        return "\n".join(lines)
    signals = ", ".join(f"{key} {_short(value)}" for key, value in found.signals.items() if value is not None)
    lines += textwrap.wrap(f"signals: {signals}", 100, subsequent_indent="  ", break_long_words=False)
    return "\n".join(lines)


def verdict_line(one: Verdict) -> str:
    """The verdict of one variant in a line, with as much as is known of it."""
    if one.verdict == KEEP:
        place = f", document {one.position} of {one.prefix} (token {one.offset})" if one.prefix else f" for {one.split}"
        return f"{one.variant}: kept{place}"
    number = "" if one.value is None else f", {_short(one.value)}"
    held = "" if one.threshold is None else f" against {_short(one.threshold)}"
    keeper = f", in favour of {_keeper(one)}" if one.duplicate_of else ""
    return f"{one.variant}: dropped at {one.stage}: {one.verdict}{number}{held}{keeper}"


def _keeper(one: Verdict) -> str:
    """`doc_id (source locator)`; of a document of another run `run:doc_id (source locator)`, the last where it is to be found."""
    named = f"{one.duplicate_run}:{one.duplicate_of}" if one.duplicate_run else str(one.duplicate_of)
    return f"{named} ({one.keeper})" if one.keeper else named


def _reject_text(found: Rejected) -> str:
    detail = f" ({found.detail})" if found.detail else ""
    lines = [f"{found.source}  {found.locator}", f"  rejected: {found.reason}{detail}"]
    if found.count > 1:
        path, first = _split(found.locator)
        assert first is not None
        lines.append(f"  with all records up to {path}#{first + found.count - 1}, for the same reason")
    if found.unknown_rest:
        lines.append("  the input is unreadable from here on")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
