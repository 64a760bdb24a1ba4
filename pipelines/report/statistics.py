"""Corpus statistics of one part, and how two merge: integers and small samples, so that no order of merging shows.

Made on the workers, one JSON file a part; the launcher merges them into stats.json, from which the report is drawn.
Histograms count documents. Of hosts each part names its largest (`_HOSTS`) and counts the documents of the others under
`hosts.others`: where that is not 0, a host's count is a lower bound; so it is with licenses (`_LICENSES`). Sample documents are
those with the smallest hash of their id, the same on any engine; of clusters the largest are shown, each where its smallest member
lies. Of documents that are taken back neither title nor text is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cluster_parts import id_bytes, ids_or, part_ids
from pipelines.parts import Part, content_of
from pipelines.recipe import Recipe
from pipelines.report.stated import UNDETERMINED
from pipelines.schema import KEEP, Reason
from pipelines.store import Store, read_columns, reading_table, stage_key
from quality import sampling

VERSION = 4
QUALITY_BINS = 50
LENGTH_BINS = 32  # documents of [2^i, 2^(i+1)) bytes; bin 0 holds 0 and 1
SIZE_BINS = 24  # clusters of [2^i, 2^(i+1)) members
_HOSTS = 200
_LICENSES = 100
_STATEMENT = 200  # characters of a license's statement; those that begin alike are counted together
_SAMPLES = 3  # documents shown per variant and verdict, and clusters per kind
_EXCERPT = 300  # characters of a sample document

_DECISION = ["verdict", "value", "threshold"]
_SIGNALS = ["text_bytes", "language", "quality", "perplexity", "emails", "ip_addresses", "n_tokens", "contaminated_by", "terms"]

Statistics = dict[str, Any]  # plain JSON, see `part_statistics`


def statistics_path(part: Part) -> str:
    return f"statistics/{part.source}/{part.name}.json"


def statistics_key(store: Store, recipe: Recipe, part: Part) -> str:
    variants = sorted(recipe.variants)
    made_from = content_of(store, [part.path("clusters"), part.path("signals"), *map(part.decisions, variants)])
    return stage_key("statistics", VERSION, [variants, recipe.seed], [part.sha256, made_from])


def part_statistics(store: Store, part: Part, variants: Sequence[str], seed: int) -> Statistics:
    """All that the report shows of one part. Every value is an integer, a list of them, or a sample document."""
    documents = read_columns(store, part.path("documents"), ["doc_id", "url", "license"])
    signals = read_columns(store, part.path("signals"), _SIGNALS)
    clusters = read_columns(store, part.path("clusters"), ["exact_cluster", "exact_size", "near_cluster", "near_size"])
    dropped = read_columns(store, part.path("clusters"), ["dropped_paragraphs"]).column(0).combine_chunks()
    own = np.stack(part_ids(documents.column("doc_id")), axis=1)
    heads = {kind: _heads(own, clusters, kind) for kind in ("exact", "near")}
    decisions = {variant: read_columns(store, part.decisions(variant), _DECISION) for variant in variants}
    draws = sample_order(own, seed)
    shown = {variant: _shown(table, draws) for variant, table in decisions.items()}
    largest = {kind: _largest(own, *head) for kind, head in heads.items()}
    places = [place for by_verdict in shown.values() for some in by_verdict.values() for place in some]
    sample = _samples(store, part, sorted({*places, *largest["exact"], *largest["near"]}))
    _withhold(sample, decisions.values())
    tokens = signals.column("n_tokens").to_numpy()
    return {
        "documents": part.rows,
        "text_bytes": part.text_bytes,
        "judged_bytes": int(signals.column("text_bytes").to_numpy().sum()),
        "tokens": int(tokens.sum(dtype=np.int64)),
        "dropped_paragraphs": len(dropped.flatten()),
        "hosts": _hosts(documents.column("url")),
        "licenses": _licenses(documents.column("license")),
        "without_perplexity": _languages(signals, np.asarray(signals.column("perplexity").is_null())),
        "clusters": {kind: _log_histogram(sizes, SIZE_BINS) for kind, (_, sizes) in heads.items()},
        "clustered": {kind: int(sizes.sum(dtype=np.int64)) for kind, (_, sizes) in heads.items()},
        "largest": {
            kind: [{"order": -size, "size": size, **sample[place]} for place, size in found.items()]
            for kind, found in largest.items()
        },
        "all": _profile(signals, np.ones(part.rows, bool)),
        "variants": {
            variant: {
                "kept": _profile(signals, np.asarray(pc.equal(table.column("verdict"), KEEP))),
                "tokens": _tokens(table.column("verdict"), tokens),
                "samples": {
                    verdict: [{"order": int(draws[place]), **sample[place], **_number(table, place)} for place in some]
                    for verdict, some in shown[variant].items()
                },
            }
            for variant, table in decisions.items()
        },
    }


def sample_order(ids: np.ndarray, seed: int) -> np.ndarray:
    """int64 [rows]: the order in which documents are shown, a hash of the ids (uint64 [rows, 2]): the first are a random sample."""
    return (sampling.uniform(id_bytes(ids), seed, "report sample") * 2**53).astype(np.int64)


def _shown(decisions: pa.Table, draws: np.ndarray) -> dict[str, list[int]]:
    """verdict -> places of its sample documents, by the smallest draws (int64 [rows])."""
    verdicts = decisions.column("verdict").combine_chunks().dictionary_encode()
    codes = verdicts.indices.to_numpy()
    found = {}
    for code, verdict in enumerate(verdicts.dictionary.to_pylist()):
        places = np.flatnonzero(codes == code)
        found[verdict] = places[np.argsort(draws[places], kind="stable")][:_SAMPLES].tolist()
    return dict(sorted(found.items()))


def _withhold(sample: dict[int, dict[str, Any]], decisions: Iterable[pa.Table]) -> None:
    """Leaves nothing but doc_id and locator of the sample documents that are taken back."""
    for table in decisions:
        for place, shown in sample.items():
            if table.column("verdict")[place].as_py() == Reason.REMOVED:
                shown.update(title=None, text="", cut=False)


def _number(decisions: pa.Table, place: int) -> dict[str, Any]:
    """What was judged of one document and what it was held against; None where there was no number."""
    return {name: decisions.column(name)[place].as_py() for name in ("value", "threshold")}


def _tokens(verdicts: pa.ChunkedArray, tokens: np.ndarray) -> dict[str, int]:
    """verdict -> tokens of its documents (int [rows])."""
    table = pa.table({"verdict": verdicts, "tokens": pa.array(tokens.astype(np.int64))})
    summed = table.group_by("verdict", use_threads=False).aggregate([("tokens", "sum")]).to_pylist()
    return {row["verdict"]: row["tokens_sum"] for row in sorted(summed, key=lambda row: str(row["verdict"]))}


def _profile(signals: pa.Table, chosen: np.ndarray) -> dict[str, Any]:
    """Histograms over the chosen documents, and the addresses in their texts before any is masked."""
    lengths = signals.column("text_bytes").to_numpy()[chosen]
    quality = signals.column("quality").to_numpy()[chosen].astype(np.float64)
    quality = quality[~np.isnan(quality)]
    steps = np.minimum(np.rint(quality * 1e4).astype(np.int64) * QUALITY_BINS // 10_000, QUALITY_BINS - 1)
    return {
        "documents": int(chosen.sum()),
        "bytes": int(lengths.sum()),
        "lengths": _log_histogram(lengths, LENGTH_BINS),
        "languages": _languages(signals, chosen),
        "quality": np.bincount(steps, minlength=QUALITY_BINS).tolist(),
        "emails": int(signals.column("emails").to_numpy()[chosen].sum(dtype=np.int64)),
        "ip_addresses": int(signals.column("ip_addresses").to_numpy()[chosen].sum(dtype=np.int64)),
        **_found(signals.select(["contaminated_by", "terms"]).filter(pa.array(chosen))),
    }


def _found(signals: pa.Table) -> dict[str, Any]:
    """Documents that overlap with evaluation sets, in all and by set; places where terms begin, by list of terms."""
    sets = [names.split(",") for names in signals.column("contaminated_by").drop_null().to_pylist()]
    terms = signals.column("terms").drop_null().combine_chunks()
    by_list = terms.flatten().to_numpy().reshape(len(terms), -1) if len(terms) else np.zeros((0, 0))
    return {
        "overlapping": len(sets),
        "contaminated": dict(sorted(Counter(name for names in sets for name in names).items())),
        "terms": by_list.sum(axis=0, dtype=np.int64).tolist(),
    }


def _languages(signals: pa.Table, chosen: np.ndarray) -> dict[str, int]:
    """Language -> how many of the chosen documents (bool [rows])."""
    labels = signals.column("language").fill_null(UNDETERMINED).to_numpy(zero_copy_only=False)[chosen].astype(str)
    names, counts = np.unique(labels, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _log_histogram(values: np.ndarray, bins: int) -> list[int]:
    exponents = np.frexp(np.maximum(values, 1).astype(np.float64))[1] - 1  # floor(log2), exact
    return np.bincount(np.minimum(exponents, bins - 1), minlength=bins).tolist()


def _heads(own: np.ndarray, clusters: pa.Table, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(places, sizes) of the clusters whose smallest member lies in this part. own: uint64 [rows, 2], doc_ids."""
    column = clusters.column(f"{kind}_cluster")
    first = np.flatnonzero((ids_or(column, own) == own).all(axis=1) & np.asarray(column.is_valid()))
    return first, clusters.column(f"{kind}_size").to_numpy()[first].astype(np.int64)


def _largest(own: np.ndarray, places: np.ndarray, sizes: np.ndarray) -> dict[int, int]:
    """place -> size of the largest of the clusters at `places`, by doc_id where sizes are equal."""
    chosen = np.lexsort((own[places, 1], own[places, 0], -sizes))[:_SAMPLES]
    return dict(zip(places[chosen].tolist(), sizes[chosen].tolist(), strict=True))


def _hosts(urls: pa.ChunkedArray) -> dict[str, Any]:
    """The hosts with the most documents, how many documents the others have, and how many have no readable host."""
    counts = Counter(host_of(url) for url in urls.to_pylist() if url)
    without = len(urls) - counts.total() + counts.pop("", 0)
    return top_hosts({"largest": dict(counts), "others": 0, "without": without})


def top_hosts(hosts: dict[str, Any]) -> dict[str, Any]:
    """Hosts cut to the largest; the documents of those that are left out are counted under `others`."""
    return _cut(hosts, _HOSTS)


def _licenses(statements: pa.ChunkedArray) -> dict[str, Any]:
    """The licenses that most records state, in their own words; how many documents have others, and how many state none."""
    counts = Counter(" ".join(one.split())[:_STATEMENT] for one in statements.to_pylist() if one)
    without = len(statements) - counts.total() + counts.pop("", 0)
    return top_licenses({"largest": dict(counts), "others": 0, "without": without})


def top_licenses(licenses: dict[str, Any]) -> dict[str, Any]:
    """Licenses cut as hosts are."""
    return _cut(licenses, _LICENSES)


def _cut(named: dict[str, Any], limit: int) -> dict[str, Any]:
    ordered = sorted(named["largest"].items(), key=lambda item: (-item[1], item[0]))
    left_out = sum(count for _, count in ordered[limit:])
    return {"largest": dict(sorted(ordered[:limit])), "others": named["others"] + left_out, "without": named["without"]}


def host_of(url: str) -> str:
    """The host of a URL, lower-cased, without port; "" where there is none to be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _samples(store: Store, part: Part, places: Sequence[int]) -> dict[int, dict[str, Any]]:
    """place -> doc_id, locator, title and the start of the text."""
    found: dict[int, dict[str, Any]] = {}
    first = 0
    with reading_table(store, part.path("documents")) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            here = [place for place in places if first <= place < first + rows]
            if here:
                table = file.read_row_group(group, ["doc_id", "locator", "title", "text"], use_threads=False)
                chosen = table.take(pa.array([place - first for place in here])).to_pylist()
                for row, place in zip(chosen, here, strict=True):
                    found[place] = {
                        "doc_id": row["doc_id"].hex(),
                        "locator": row["locator"],
                        "title": row["title"] and row["title"][:_EXCERPT],
                        "text": row["text"][:_EXCERPT],
                        "cut": len(row["text"]) > _EXCERPT,
                    }
            first += rows
    return found


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Sums integers, lists by position and mappings by key; of documents shown, the first by `order` and doc_id stay.

    Every part is added to one sum and then let go: what many parts cost is what they hold, whatever the sum has grown to.
    """
    total: Statistics = {}
    for part in parts:
        _add(total, part)
    return total


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _add(total.setdefault(key, {}), value)
        elif isinstance(value, list):
            total[key] = _added(total.get(key, []), value)
        else:
            total[key] = total.get(key, 0) + value


def _added(left: list[Any], right: list[Any]) -> list[Any]:
    if any(isinstance(one, dict) for one in left + right):
        return sorted(left + right, key=lambda one: (one["order"], one["doc_id"]))[:_SAMPLES]
    if not left or not right:
        return left + right  # terms of a part in which a variant keeps nothing, or nothing is left
    return [a + b for a, b in zip(left, right, strict=True)]


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
        if self.store.is_finished(path, key):
            return
        self.store.begin(path)
        published = self.store.publish_json(path, part_statistics(self.store, part, self.variants, self.seed))
        self.store.finish(published, key)


