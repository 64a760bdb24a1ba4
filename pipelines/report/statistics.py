"""Corpus statistics of one part, and how two merge: integers and small samples, so that no order of merging shows.

Made on the workers, one JSON file a part; the launcher merges them into stats.json, from which the report is drawn.
Histograms count documents. Hosts are the largest of each part (`_HOSTS`), so a host's count is a lower bound in runs of many
parts. Sample documents are those with the smallest hash of their id, the same on any engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from pipelines.cluster_parts import id_bytes, ids_or, part_ids
from pipelines.parts import Part, content_of
from pipelines.recipe import Recipe
from pipelines.schema import KEEP
from pipelines.store import Store, read_columns, reading_table, stage_key
from quality import sampling

VERSION = 1
QUALITY_BINS = 50
LENGTH_BINS = 32  # documents of [2^i, 2^(i+1)) bytes; bin 0 holds 0 and 1
SIZE_BINS = 24  # clusters of [2^i, 2^(i+1)) members
_HOSTS = 200
_SAMPLES = 2
_EXCERPT = 300  # characters of a sample document

Statistics = dict[str, Any]  # plain JSON, see `part_statistics`


def statistics_path(part: Part) -> str:
    return f"statistics/{part.source}/{part.name}.json"


def statistics_key(store: Store, recipe: Recipe, part: Part) -> str:
    variants = sorted(recipe.variants)
    made_from = content_of(store, [part.path("clusters"), part.path("signals"), *map(part.decisions, variants)])
    return stage_key("statistics", VERSION, [variants, recipe.seed], [part.sha256, made_from])


def part_statistics(store: Store, part: Part, variants: Sequence[str], seed: int) -> Statistics:
    """All that the report shows of one part. Every value is an integer, a list of them, or a sample document."""
    documents = read_columns(store, part.path("documents"), ["doc_id", "url"])
    signals = read_columns(store, part.path("signals"), ["text_bytes", "language", "quality", "n_tokens"])
    clusters = read_columns(store, part.path("clusters"), ["exact_cluster", "exact_size", "near_cluster", "near_size"])
    dropped = read_columns(store, part.path("clusters"), ["dropped_paragraphs"]).column(0).combine_chunks()
    judged = signals.column("text_bytes").to_numpy()
    statistics: Statistics = {
        "documents": part.rows,
        "text_bytes": part.text_bytes,
        "judged_bytes": int(judged.sum()),
        "tokens": int(signals.column("n_tokens").to_numpy().sum(dtype=np.int64)),
        "dropped_paragraphs": len(dropped.flatten()),
        "hosts": _hosts(documents.column("url")),
        "clusters": {kind: _sizes(documents, clusters, kind) for kind in ("exact", "near")},
        "all": _profile(signals, np.ones(part.rows, bool)),
        "variants": {},
    }
    draws = sampling.uniform(id_bytes(np.stack(part_ids(documents.column("doc_id")), axis=1)), seed, "report sample")
    wanted: dict[int, list[tuple[str, str]]] = {}
    for variant in variants:
        verdicts = read_columns(store, part.decisions(variant), ["verdict"]).column(0)
        values = np.asarray(verdicts.to_numpy(zero_copy_only=False), str)
        statistics["variants"][variant] = {"kept": _profile(signals, values == KEEP), "samples": {}}
        for reason in np.unique(values):
            places = np.flatnonzero(values == reason)
            for place in places[np.argsort(draws[places], kind="stable")][:_SAMPLES]:
                wanted.setdefault(int(place), []).append((variant, str(reason)))
    excerpts = _excerpts(store, part, sorted(wanted))
    for place, uses in wanted.items():
        for variant, reason in uses:
            samples = statistics["variants"][variant]["samples"].setdefault(reason, [])
            samples.append([int(draws[place] * 2**53), *excerpts[place]])
    return _sorted_samples(statistics)


def _profile(signals: pa.Table, chosen: np.ndarray) -> dict[str, Any]:
    """Histograms over the chosen documents."""
    lengths = signals.column("text_bytes").to_numpy()[chosen]
    labels = np.asarray(signals.column("language").to_numpy(zero_copy_only=False)[chosen], str)
    quality = signals.column("quality").to_numpy()[chosen]
    quality = quality[~np.isnan(quality.astype(np.float64))].astype(np.float64)
    names, counts = np.unique(labels, return_counts=True)
    steps = np.minimum(np.rint(quality * 1e4).astype(np.int64) * QUALITY_BINS // 10_000, QUALITY_BINS - 1)
    return {
        "documents": int(chosen.sum()),
        "bytes": int(lengths.sum()),
        "lengths": _log_histogram(lengths, LENGTH_BINS),
        "languages": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        "quality": np.bincount(steps, minlength=QUALITY_BINS).tolist(),
    }


def _log_histogram(values: np.ndarray, bins: int) -> list[int]:
    exponents = np.frexp(np.maximum(values, 1).astype(np.float64))[1] - 1  # floor(log2), exact
    return np.bincount(np.minimum(exponents, bins - 1), minlength=bins).tolist()  # type: ignore[no-any-return]


def _sizes(documents: pa.Table, clusters: pa.Table, kind: str) -> list[int]:
    """Histogram of cluster sizes, each cluster counted where its smallest member lies."""
    own = np.stack(part_ids(documents.column("doc_id")), axis=1)
    column = clusters.column(f"{kind}_cluster")
    first = (ids_or(column, own) == own).all(axis=1) & np.asarray(column.is_valid())
    return _log_histogram(clusters.column(f"{kind}_size").to_numpy()[first], SIZE_BINS)


def _hosts(urls: pa.ChunkedArray) -> dict[str, int]:
    counts: dict[str, int] = {}
    for url in urls.to_pylist():
        if url:
            host = host_of(url)
            counts[host] = counts.get(host, 0) + 1
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_HOSTS]
    return dict(sorted(largest))


def host_of(url: str) -> str:
    """The host of a URL, lower-cased, without port; "" where there is none to be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _excerpts(store: Store, part: Part, places: Sequence[int]) -> dict[int, list[str]]:
    """place -> [doc_id, locator, start of the text]."""
    found: dict[int, list[str]] = {}
    first = 0
    with reading_table(store, part.path("documents")) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            here = [place for place in places if first <= place < first + rows]
            if here:
                table = file.read_row_group(group, ["doc_id", "locator", "text"], use_threads=False)
                for row, place in zip(
                    table.take(pa.array([p - first for p in here])).to_pylist(), here, strict=True
                ):
                    found[place] = [row["doc_id"].hex(), row["locator"], row["text"][:_EXCERPT]]
            first += rows
    return found


def _sorted_samples(statistics: Statistics) -> Statistics:
    for variant in statistics["variants"].values():
        variant["samples"] = {
            reason: sorted(samples)[:_SAMPLES] for reason, samples in sorted(variant["samples"].items())
        }
    return statistics


def merge(left: Statistics, right: Statistics) -> Statistics:
    """Sums integers, lists by position and mappings by key; sample documents: the smallest hashes of both."""
    return _sorted_samples(_merge(left, right))


def _merge(left: Any, right: Any) -> Any:
    if isinstance(left, dict):
        return {
            key: _merge(left[key], right[key]) if key in left and key in right else left.get(key, right.get(key))
            for key in sorted(set(left) | set(right))
        }
    if isinstance(left, list):
        if left and isinstance(left[0], list) or right and isinstance(right[0], list):
            return sorted(left + right)
        return [a + b for a, b in zip(left, right, strict=True)]
    return left + right


@dataclass(frozen=True, slots=True)
class StatisticsWorker:
    """(part, key) -> statistics/<source>/<part>.json"""

    store: Store
    variants: tuple[str, ...]
    seed: int

    def start(self) -> Callable[[tuple[Part, str]], None]:
        return self._work

    def _work(self, element: tuple[Part, str]) -> None:
        part, key = element
        path = statistics_path(part)
        self.store.begin(path)
        published = self.store.publish_json(path, part_statistics(self.store, part, self.variants, self.seed))
        self.store.finish(published, key)


