"""The documents of one variant that a comparison trains on, as narrow rows: what arms are drawn from.

Only documents of the training split and of the wanted sources stand here. Rows are in the order of parts and rows, so that a pool
drawn from them does not depend on how it was drawn.

Shapes: R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.finished import open_run
from pipelines.parts import ROW_BITS, Part, list_parts
from pipelines.recipe import Recipe
from pipelines.recipe_file import RECIPE as RECIPE_FILE
from pipelines.recipe_file import parse
from pipelines.schema import KEEP, TRAIN
from pipelines.store import Store, read_columns, reading_table
from pipelines.verify import load_plan
from pipelines.written import written


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its store, recipe and parts."""

    store: Store
    recipe: Recipe
    parts: tuple[Part, ...]

    @classmethod
    def open(cls, folder: str) -> Run:
        """The run in `folder`. Raises UserError where it is none, or not finished."""
        store = open_run(folder)
        recipe = parse(store.read(RECIPE_FILE).decode(), store.url(RECIPE_FILE))
        return cls(store, recipe, list_parts(store, load_plan(store)))


@dataclass(frozen=True, slots=True)
class Rows:
    """Documents: `row` is part index << 32 | row, ascending; `tokens` count the end-of-document token."""

    sources: tuple[str, ...]
    source_R: np.ndarray  # int64, place in sources
    row_R: np.ndarray  # int64
    tokens_R: np.ndarray  # int64
    quality_R: np.ndarray  # float32, nan where there is none
    doc_id_R: np.ndarray  # uint8 [R, 16]

    def __len__(self) -> int:
        return len(self.row_R)

    @property
    def tokens(self) -> int:
        return int(self.tokens_R.sum())

    def take(self, chosen: np.ndarray) -> Rows:
        """The rows at these places (int64) or where this mask is true, in their order."""
        places = np.flatnonzero(chosen) if chosen.dtype == bool else np.sort(chosen)
        columns = (self.source_R, self.row_R, self.tokens_R, self.quality_R, self.doc_id_R)
        source_R, row_R, tokens_R, quality_R, doc_id_R = (column[places] for column in columns)
        return Rows(self.sources, source_R, row_R, tokens_R, quality_R, doc_id_R)

    def with_quality(self, quality_R: np.ndarray) -> Rows:
        """The same rows, judged by another classifier."""
        return replace(self, quality_R=quality_R)

    def by_source(self) -> dict[str, dict[str, int]]:
        """{source: {documents, tokens}} of the sources that have any."""
        counts = np.bincount(self.source_R, minlength=len(self.sources))
        tokens = np.bincount(self.source_R, self.tokens_R, len(self.sources)).astype(np.int64)
        return {
            source: {"documents": int(counts[place]), "tokens": int(tokens[place])}
            for place, source in enumerate(self.sources)
            if counts[place]
        }


def read_rows(run: Run, variant: str, sources: Iterable[str]) -> Rows:
    """The documents that `variant` keeps of these sources for training."""
    names = tuple(sorted(set(sources)))
    found: list[tuple[np.ndarray, ...]] = []
    for part in run.parts:
        if part.source not in names:
            continue
        decisions = read_columns(run.store, part.decisions(variant), ["verdict", "split"])
        kept = pc.and_(pc.equal(decisions.column("verdict"), KEEP), pc.equal(decisions.column("split"), TRAIN))
        rows = np.flatnonzero(kept.to_numpy())
        signals = read_columns(run.store, part.path("signals"), ["n_tokens", "quality"])
        ids = read_columns(run.store, part.path("documents"), ["doc_id"]).column("doc_id").combine_chunks()
        doc_ids = np.frombuffer(b"".join(ids.to_pylist()), np.uint8).reshape(-1, 16)
        found.append(
            (
                np.full(len(rows), names.index(part.source), np.int64),
                (np.int64(part.index) << ROW_BITS) + rows,
                signals.column("n_tokens").to_numpy().astype(np.int64)[rows] + 1,
                signals.column("quality").to_numpy().astype(np.float32)[rows],
                doc_ids[rows],
            )
        )
    empty = (np.zeros(0, np.int64),) * 3 + (np.zeros(0, np.float32), np.zeros((0, 16), np.uint8))
    source_R, row_R, tokens_R, quality_R, doc_id_R = (np.concatenate(columns) for columns in zip(empty, *found, strict=True))
    return Rows(names, source_R, row_R, tokens_R, quality_R, doc_id_R)


def rows_of_part(rows: Rows, part: Part) -> np.ndarray:
    """int64: which rows of a part are among these."""
    first, stop = np.searchsorted(rows.row_R, [part.index << ROW_BITS, (part.index + 1) << ROW_BITS])
    return rows.row_R[first:stop] & ((1 << ROW_BITS) - 1)


def read_texts(run: Run, rows: Rows) -> Iterator[pa.Array]:
    """The texts of the rows in their order, as they were judged (large_string, a batch a row group)."""
    for part in run.parts:
        wanted = rows_of_part(rows, part)
        if not len(wanted):
            continue
        first = 0
        with (
            reading_table(run.store, part.path("documents")) as documents,
            reading_table(run.store, part.path("clusters")) as clusters,
        ):
            for group in range(documents.num_row_groups):
                texts = documents.read_row_group(group, ["text"], use_threads=False).column(0).combine_chunks()
                dropped = clusters.read_row_group(group, ["dropped_paragraphs"], use_threads=False).column(0).combine_chunks()
                mine = wanted[(wanted >= first) & (wanted < first + len(texts))] - first
                first += len(texts)
                if len(mine):
                    yield written(texts.take(mine), dropped.take(mine), run.recipe.sources[part.source].mask)[0]


def is_within(some: Rows, others: Rows) -> bool:
    """Whether every document of `some` is one of `others`, both of one run."""
    return bool(np.isin(some.row_R, others.row_R, assume_unique=True).all())


def steps_between(run: Run, first: str, second: str, sources: Sequence[str]) -> tuple[str, ...]:
    """The steps of judgement in which two variants of a run treat these sources differently, in the order of judgement."""
    found: set[str] = set()
    dedup = [set(run.recipe.variants[name].dedup) for name in (first, second)]
    found.update(dedup[0] ^ dedup[1])
    for source in sources:
        policies = [run.recipe.policy(name, source) for name in (first, second)]
        for step in ("languages", "rules", "perplexity", "decontaminate", "quality", "min_bytes"):
            if getattr(policies[0], step) != getattr(policies[1], step):
                found.add(step)
    order = ("languages", "rules", "perplexity", "decontaminate", "exact", "near", "quality", "min_bytes")
    return tuple(step for step in order if step in found)
