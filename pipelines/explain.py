"""explain: any document leads to its shard and offset, or to one stage, one reason and one number, in every variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines import index
from pipelines.errors import UserError
from pipelines.parts import Part
from pipelines.schema import KEEP
from pipelines.store import SIDECAR, Store, read_columns
from pipelines.tokenize import shard_of

_DOCUMENT = ["doc_id", "source", "locator", "source_id", "url", "title", "date", "license"]


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

    def to_json(self) -> dict[str, Any]:
        verdicts = [{name: getattr(one, name) for name in Verdict.__slots__} for one in self.verdicts]
        return {"document": self.document, "signals": self.signals, "clusters": self.clusters, "verdicts": verdicts}


def explain(folder: str, name: str) -> list[Explanation]:
    """Every document of a run that goes by `name` (hex doc_id, locator or URL); none, or no run, is a UserError."""
    store = open_run(folder)
    found = []
    for source, part_name, row in index.find(store, name):
        part = _part(store, source, part_name)
        document = _row(store, part.path("documents"), _DOCUMENT, row)
        if name in (document["doc_id"], document["locator"], document["url"]):
            found.append(_explain(store, part, row, document))
    if not found:
        raise UserError(f"{folder}: no document goes by {name!r}; give a doc_id, a locator or a URL (rejects are in rejects/)")
    return found


def open_run(folder: str) -> Store:
    """The store of a complete run; anything else is a UserError."""
    store = Store(folder)
    if not store.exists("manifest.json"):
        raise UserError(f"{folder}: no complete run (manifest.json is missing); run winnow build")
    return store


def _part(store: Store, source: str, name: str) -> Part:
    sidecar = store.sidecar(f"documents/{source}/{name}.parquet")
    assert sidecar is not None
    return Part(-1, source, name, sidecar["rows"], sidecar["text_bytes"], sidecar["sha256"])


def _explain(store: Store, part: Part, row: int, document: dict[str, Any]) -> Explanation:
    from pipelines.annotate import SIGNALS

    signals = _row(store, part.path("signals"), [field for field in SIGNALS.names if field != "token_ids"], row)
    clusters = _row(store, part.path("clusters"), ["exact_cluster", "near_cluster", "jaccard", "dropped_paragraphs"], row)
    variants = store.read_json("manifest.json")["recipe"]["variants"]
    verdicts = tuple(_verdict(store, part, row, variant) for variant in variants)
    return Explanation(document, signals, clusters, verdicts)


def _row(store: Store, path: str, columns: list[str], row: int) -> dict[str, Any]:
    values = read_columns(store, path, columns).slice(row, 1).to_pylist()[0]
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()}


def _verdict(store: Store, part: Part, row: int, variant: str) -> Verdict:
    columns = ["verdict", "stage", "value", "threshold", "duplicate_of", "split"]
    found = _row(store, part.decisions(variant), columns, row)
    if found["verdict"] != KEEP:
        return Verdict(variant, **found)
    return Verdict(variant, **found, **_place(store, part, row, variant, found["split"]))


def _place(store: Store, part: Part, row: int, variant: str, split: str) -> dict[str, Any]:
    """Where a kept document lies: the shard's parts before its own, in order, then the rows before it."""
    shards = store.read_json("manifest.json")["recipe"]["tokens"]["shards"]
    number = shard_of(part, shards)
    documents = tokens = 0
    for name in sorted(path.rsplit("/", 1)[-1] for path in store.files(f"documents/{part.source}")):
        if not name.endswith(".parquet"):
            continue
        other = _part(store, part.source, name.removesuffix(".parquet"))
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


# -- text -------------------------------------------------------------------------------------------------------------------


def to_text(found: Explanation) -> str:
    """The explanation as a person reads it: the document, the verdicts, then the numbers."""
    document = found.document
    lines = [f"{document['doc_id']}  {document['source']}  {document['locator']}"]
    lines += [f"  {key}: {document[key]}" for key in ("url", "title", "date", "source_id", "license") if document[key]]
    lines += [_verdict_line(one) for one in found.verdicts]
    if found.clusters["near_cluster"]:
        lines.append(f"near cluster {found.clusters['near_cluster']}, Jaccard {found.clusters['jaccard']:.2f} to it")
    if found.clusters["exact_cluster"]:
        lines.append(f"exact cluster {found.clusters['exact_cluster']}")
    if found.clusters["dropped_paragraphs"]:
        lines.append(f"paragraphs left out: {', '.join(map(str, found.clusters['dropped_paragraphs']))}")
    lines.append("signals: " + ", ".join(f"{key} {_short(value)}" for key, value in found.signals.items()))
    return "\n".join(lines)


def _verdict_line(one: Verdict) -> str:
    if one.verdict == KEEP:
        return f"{one.variant}: kept, document {one.position} of {one.prefix} (token {one.offset})"
    number = "" if one.value is None else f", {_short(one.value)}"
    held = "" if one.threshold is None else f" against {_short(one.threshold)}"
    keeper = f", in favour of {one.duplicate_of}" if one.duplicate_of else ""
    return f"{one.variant}: dropped at {one.stage}: {one.verdict}{number}{held}{keeper}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
