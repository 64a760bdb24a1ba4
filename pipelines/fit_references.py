"""The two classes of LLaMA's reference classifier: the web's documents that the wikis cite, and a sample of those that they do not.

Both classes come from the same sources, so no source can be left out to see what the classifier knows beyond them. What can be
left out is sites: the documents of each class are dealt by a hash of their site (`urls.site`) into `FOLDS` groups, and a group is
left out of both classes at once; what is held out for the slice and for calibration is held out by site too. So no page is
judged by a model that has seen another page of its site.

Duplicates are not sampled but for the smallest of their cluster, whose URL then decides for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import models
from pipelines.errors import UserError
from pipelines.parts import Part
from pipelines.recipe import QualityFit, Recipe
from pipelines.store import Store, reading_table
from pipelines.urls import site
from quality import sampling
from quality.classifier_fit import Example

FOLDS = 4  # groups of sites, each left out once
LEAST = 100  # cited documents that a class can be learned from

_COLUMNS = ["doc_id", "url", "text", "cited"]


def examples(store: Store, recipe: Recipe, parts: Sequence[Part]) -> tuple[list[Example], dict[str, Any]]:
    """Both classes by group of sites, and what the classifier's card says of them. Too few cited documents are a UserError."""
    chosen = recipe.fit.quality
    assert chosen is not None
    web = [part for part in parts if part.source in chosen.web]
    facts = _facts(store, chosen, web)
    draws, sizes = _cited(store, web, recipe.seed)
    if len(draws) < LEAST:
        raise UserError(
            f"fit.quality.cited_in: {facts['documents_cited']:,} documents of {', '.join(chosen.web)} are cited by"
            f" {', '.join(chosen.cited_in)} ({facts['urls_cited']:,} URLs), and {len(draws):,} of them can be learned from"
            f" (no copies, not held out); at least {LEAST} are needed: give more of the crawl, or name fit.quality.curated instead"
        )
    table = _table(store, web, _limit(draws, sizes, chosen.sample_mb * 1e6), recipe.seed)
    names = [site(url) for url in table.column("url").to_pylist()]
    ids = table.column("doc_id").to_pylist()
    units = [one if name is None else blake2b(name.encode(), digest_size=16).digest() for one, name in zip(ids, names, strict=True)]
    folds = np.array([_fold(unit, recipe.seed) for unit in units], np.int64)
    cited = np.array(table.column("cited").to_pylist(), bool)
    unit_column = pa.array(units, pa.binary(16))
    found = []
    for is_cited in (True, False):
        for fold in range(FOLDS):
            rows = pa.array(np.flatnonzero((cited == is_cited) & (folds == fold)))
            taken = table.take(rows)
            name = f"{'cited' if is_cited else 'not cited'}, sites {fold + 1} of {FOLDS}"
            columns = (taken.column("text").combine_chunks(), taken.column("doc_id").combine_chunks())
            found.append(Example(name, is_cited, *columns, unit_column.take(rows), fold))
    if cited.all():
        raise UserError(f"fit.quality.web: {', '.join(chosen.web)} has no document that is not cited; give more of the crawl")
    for key, rows in (("cited", cited), ("not_cited", ~cited)):
        facts[f"learned_{key}"] = int(rows.sum())
        facts[f"sites_{key}"] = len({unit for unit, one in zip(units, rows, strict=True) if one})
    return found, facts


def _facts(store: Store, chosen: QualityFit, web: Sequence[Part]) -> dict[str, Any]:
    counted = store.sidecar(models.REFERENCES)
    samples = [store.sidecar(part.path("samples")) or {} for part in web]
    return {
        "cited_in": chosen.cited_in,
        "urls_cited": 0 if counted is None else counted["urls"],
        "documents": sum(part.rows for part in web),
        "documents_cited": sum(sidecar["cited"] for sidecar in samples),
    }


def _fold(unit: bytes, seed: int) -> int:
    return blake2b(unit + seed.to_bytes(8, "big"), digest_size=8, person=b"fit sites").digest()[-1] % FOLDS


def _draws(ids: pa.ChunkedArray, seed: int) -> np.ndarray:
    return sampling.uniform(np.frombuffer(b"".join(ids.to_pylist()), np.uint8).reshape(-1, 16), seed, "fit cited")


def _cited(store: Store, parts: Sequence[Part], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(draw, bytes of text) of every cited document of the samples, without holding a text."""
    draws, sizes = [np.empty(0)], [np.empty(0, np.int64)]
    for part in parts:
        with reading_table(store, part.path("samples")) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, ["doc_id", "text", "for_quality", "cited"], use_threads=False)
                table = table.filter(pc.and_(table.column("for_quality"), table.column("cited")))
                draws.append(_draws(table.column("doc_id"), seed))
                sizes.append(pc.binary_length(table.column("text")).to_numpy().astype(np.int64))
    return np.concatenate(draws), np.concatenate(sizes)


def _limit(draws: np.ndarray, sizes: np.ndarray, most: float) -> float:
    """The draw up to which cited documents are taken: in its order they have `most` bytes, the one that reaches it included."""
    order = np.argsort(draws, kind="stable")
    place = np.searchsorted(np.cumsum(sizes[order]), most)
    return 1.0 if place >= len(order) else float(draws[order[place]])


def _table(store: Store, parts: Sequence[Part], limit: float, seed: int) -> pa.Table:
    """The documents that are learned from, of both classes, in order."""
    tables = []
    for part in parts:
        with reading_table(store, part.path("samples")) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, [*_COLUMNS, "for_quality"], use_threads=False)
                table = table.filter(table.column("for_quality"))
                spare = np.array(table.column("cited").to_pylist(), bool) & (_draws(table.column("doc_id"), seed) > limit)
                tables.append(table.filter(pa.array(~spare)).select(_COLUMNS))
    return pa.concat_tables(tables)
