"""The proof that every record is accounted for, counted from the tables, never from metrics.

    records read = documents + rejects + merged                 per source
    documents    = kept + dropped, one reason each               per source and variant
    kept         = documents in the shards, token for token      per source, variant and split

Equal texts among them are held to what `copies` promises.

What is counted twice is counted in two places: the extract's own record of a task against the tables that it wrote, the
decisions against the documents, the shards' indexes against the decisions and the signals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.copies import Copies
from pipelines.errors import CheckError
from pipelines.parts import Part, task_record, task_rejects
from pipelines.plan import Plan, Task
from pipelines.recipe import Recipe
from pipelines.schema import KEEP
from pipelines.store import Store, read_columns
from pipelines.tokenize import SPLITS, list_shards


@dataclass(slots=True)
class SourceAccount:
    """What became of one source's records."""

    records: int = 0
    documents: int = 0
    merged: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    unknown_rests: int = 0  # unreadable tails that may hide more records

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "documents": self.documents,
            "merged": self.merged,
            "rejects": dict(sorted(self.rejects.items())),
            "unknown_rests": self.unknown_rests,
        }


@dataclass(slots=True)
class VariantAccount:
    """What one variant did with one source's documents."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)  # kept, by split
    tokens: Counter[str] = field(default_factory=Counter)  # kept, by split, end-of-document tokens included

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "documents": {split: self.documents[split] for split in SPLITS},
            "tokens": {split: self.tokens[split] for split in SPLITS},
        }


@dataclass(slots=True)
class Accounts:
    """The whole table: sources, and variants by source."""

    sources: dict[str, SourceAccount]
    variants: dict[str, dict[str, VariantAccount]]

    def to_json(self) -> dict[str, Any]:
        return {
            "sources": {name: account.to_json() for name, account in self.sources.items()},
            "variants": {v: {s: a.to_json() for s, a in by.items()} for v, by in self.variants.items()},
        }


def account(store: Store, recipe: Recipe, plan: Plan, parts: Sequence[Part]) -> Accounts:
    """Counts every table of a run and proves that they agree; a violation is a CheckError that names source and numbers."""
    sources = {name: SourceAccount() for name in sorted(recipe.sources)}
    hashes = list(store.each(parts, lambda part: read_columns(store, part.path("documents"), ["content_hash"]).column(0)))
    for part, column in zip(parts, hashes, strict=True):
        sources[part.source].documents += len(column)

    def read_task(task: Task) -> tuple[Any, pa.Table]:
        return store.read_json(task_record(task)), read_columns(store, task_rejects(task), ["reason", "count", "unknown_rest"])

    for task, (record, rejects) in zip(plan.tasks, store.each(plan.tasks, read_task), strict=True):
        chosen = sources[task.source]
        chosen.records += record["records"]
        chosen.merged += record["merged"]
        for reason, count, unknown in zip(*(rejects.column(i).to_pylist() for i in range(3)), strict=True):
            chosen.rejects[reason] += count
            chosen.unknown_rests += unknown
    for name, source in sources.items():
        out = source.documents + source.merged + source.rejects.total()
        _agree(f"sources.{name}: records read", source.records, "documents + rejects + merged", out)
    copies = Copies(hashes)
    variants = {name: _variant(store, recipe, parts, name, sources, copies) for name in recipe.variants}
    return Accounts(sources, variants)


def _variant(
    store: Store, recipe: Recipe, parts: Sequence[Part], variant: str, sources: dict[str, SourceAccount], copies: Copies
) -> dict[str, VariantAccount]:
    accounts = {name: VariantAccount() for name in sources}
    repeated: dict[str, list[np.ndarray]] = {split: [np.empty(0, np.int64)] for split in SPLITS}

    def read_part(part: Part) -> tuple[pa.Table, np.ndarray]:
        n_tokens = read_columns(store, part.path("signals"), ["n_tokens"]).column(0).to_numpy()
        return read_columns(store, part.decisions(variant), ["verdict", "split"]), n_tokens.astype(np.int64)

    for number, (decisions, n_tokens) in enumerate(store.each(parts, read_part)):
        chosen = accounts[parts[number].source]
        for verdict, count in _counts(decisions.column("verdict")):
            if verdict == KEEP:
                chosen.kept += count
            else:
                chosen.dropped[verdict] += count
        kept = np.asarray(pc.equal(decisions.column("verdict"), KEEP))
        for split in SPLITS:
            here = kept & np.asarray(pc.equal(decisions.column("split"), split))
            chosen.documents[split] += int(here.sum())
            chosen.tokens[split] += int(n_tokens[here].sum() + here.sum())
            repeated[split].append(copies.of(number, here))
    together = {split: np.concatenate(texts) for split, texts in repeated.items()}
    copies.hold(f"variants.{variant}", "exact" in recipe.variants[variant].dedup, together)
    for name, chosen in accounts.items():
        where = f"variants.{variant}, source {name}"
        _agree(f"{where}: documents", sources[name].documents, "kept + dropped", chosen.kept + chosen.dropped.total())
        for split in SPLITS:
            documents, tokens = _in_shards(store, recipe, variant, name, split)
            _agree(f"{where}: kept for {split}", chosen.documents[split], "documents in shards", documents)
            _agree(f"{where}: tokens for {split}", chosen.tokens[split], "tokens in shards", tokens)
    return accounts


def _counts(column: Any) -> list[tuple[str, int]]:
    return [(row["values"].as_py(), row["counts"].as_py()) for row in pc.value_counts(column.combine_chunks())]


def _in_shards(store: Store, recipe: Recipe, variant: str, source: str, split: str) -> tuple[int, int]:
    documents = tokens = 0
    for shard in list_shards(recipe, ()):
        if shard.source == source:
            sidecar = store.sidecar(f"tokens/{variant}/{shard.prefix(split)}.idx")
            assert sidecar is not None
            documents += sidecar["documents"]
            tokens += sidecar["tokens"]
    return documents, tokens


def _agree(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise CheckError(f"conservation violated: {left_name} is {left}, {right_name} is {right}; please report this run")
