"""cluster: who is a copy of whom, once per run, for every variant: exact, near, and repeated paragraphs.

Only hashes and row numbers travel, packed as bytes; parts stay where they are and lend their signatures to the few
candidate pairs. Clusters hold all members; who keeps is decided later, among those that a variant still wants.

    documents/ -> content hashes   -> groups                                   -> exact members   \\
               -> LSH buckets      -> stars -> verify (ROUNDS) -> components   -> near members     > clusters/
               -> paragraph hashes -> every copy but the smallest doc_id's     -> dropped         /

Equal texts are always in one near cluster, or in none: a document is held out with all its copies. Equal signatures see to it where
all sources have one threshold. Where a hub is alike enough for one source and not for the other, content hashes do: `exact_edges`.

Bytes that cross a shuffle: 40 a document (exact), 16 a document and band (near), 36 a paragraph of sources that deduplicate
paragraphs; then, for the few that are alike, 16 an edge and bucket, 16 an exact copy under another threshold, 16 + 2 x permutations
a candidate pair, 32 + 2 x permutations a member of a near cluster, and 40 for each thing that is written to a part
(tests/invariants/test_shuffle_bytes.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from pipelines.beam_parts import Each, Scatter, packed, spread, unpacked
from pipelines.cluster_parts import MEMBER, Kind, near_signatures, part_ids, write_clusters
from pipelines.dedup.minhash import agreement, band_hashes, unpack
from pipelines.dedup.near import BUCKET_ROW, EDGE, ROUNDS, components, shared_buckets, stars, unique_edges
from pipelines.parts import ROW_BITS, Part, content_of
from pipelines.recipe import Recipe
from pipelines.store import Store, read_columns, reading_table, stage_key

VERSION = 1
_JOINED_VERSION = 2  # of runs whose sources have different thresholds
_PARTITION_BYTES = 64 << 20
_ROW_MASK = (1 << ROW_BITS) - 1

EXACT_ROW = np.dtype([("hash_high", "<u8"), ("hash_low", "<u8"), ("high", "<u8"), ("low", "<u8"), ("row", "<i8")])
PARAGRAPH_ROW = np.dtype([("hash", "<u8"), ("high", "<u8"), ("low", "<u8"), ("row", "<i8"), ("place", "<i4")])
ROOTED = np.dtype([("root", "<i8"), ("row", "<i8")])


@dataclass(frozen=True, slots=True)
class Settings:
    """What cluster reads of the recipe."""

    permutations: int
    bands: int
    rows: int
    min_jaccard: float
    stricter: tuple[tuple[str, float], ...]  # sources with a threshold of their own
    paragraph_sources: tuple[str, ...]

    @staticmethod
    def of(recipe: Recipe) -> Settings:
        bands, rows = recipe.near.banding()
        chosen = sorted(name for name, source in recipe.sources.items() if source.paragraphs)
        run = recipe.near.min_jaccard
        stricter = sorted((name, own) for name, own in recipe.min_jaccards().items() if own > run)
        return Settings(recipe.near.permutations, bands, rows, run, tuple(stricter), tuple(chosen))

    def least(self, parts: Sequence[Part]) -> np.ndarray:
        """float32 [parts]: what a near duplicate in a part has at least."""
        own = dict(self.stricter)
        return np.array([own.get(part.source, self.min_jaccard) for part in parts], np.float32)


def cluster_key(store: Store, recipe: Recipe, parts: Sequence[Part]) -> str:
    """One key for all cluster parts: any document can be a copy of any other."""
    made_from, settings = content_of(store, [part.path("documents") for part in parts]), Settings.of(recipe)
    version = _JOINED_VERSION if settings.stricter else VERSION
    return stage_key("cluster", version, repr(settings), [made_from, [part.source for part in parts]])


# -- rows that leave a part ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rows:
    """A part -> rows keyed by partition, in batches of its row groups."""

    store: Store
    partitions: int
    columns: tuple[str, ...]
    make: Callable[[_Rows, Part, Any, np.ndarray], tuple[np.ndarray, np.ndarray]]
    settings: Settings

    def start(self) -> Callable[[Part], Iterator[tuple[np.ndarray, np.ndarray]]]:
        return self._work

    def _work(self, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = part.index << ROW_BITS
        with reading_table(self.store, part.path("documents")) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, list(self.columns), use_threads=False).combine_chunks()
                rows = np.arange(first, first + table.num_rows, dtype=np.int64)
                first += table.num_rows
                keys, values = self.make(self, part, table, rows)
                yield keys, values

    def partition(self, hashes: np.ndarray) -> np.ndarray:
        return ((hashes >> np.uint64(32)) % np.uint64(self.partitions)).astype(np.int64)


def _exact_rows(work: _Rows, part: Part, table: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = np.empty(len(rows), EXACT_ROW)
    out["hash_high"], out["hash_low"] = part_ids(table.column("content_hash"))
    out["high"], out["low"] = part_ids(table.column("doc_id"))
    out["row"] = rows
    return work.partition(out["hash_high"]), out


def _band_rows(work: _Rows, part: Part, table: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    minima, valid = unpack(table.column("signature"), work.settings.permutations)
    buckets = band_hashes(minima[valid], work.settings.bands, work.settings.rows)
    out = np.empty(buckets.size, BUCKET_ROW)
    out["bucket"] = buckets.ravel()
    out["row"] = np.repeat(rows[valid], work.settings.bands)
    return work.partition(out["bucket"]), out


def _paragraph_rows(work: _Rows, part: Part, table: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lists = table.column("paragraph_hashes").combine_chunks()
    counts: np.ndarray = np.diff(np.asarray(lists.offsets, np.int64))
    hashes = np.asarray(lists.flatten(), np.uint64)
    high, low = part_ids(table.column("doc_id"))
    out = np.empty(len(hashes), PARAGRAPH_ROW)
    # A paragraph is repeated within its source only.
    salt = np.uint64(int.from_bytes(hashlib.blake2b(part.source.encode(), digest_size=8).digest(), "big"))
    out["hash"] = hashes ^ salt
    out["high"], out["low"] = np.repeat(high, counts), np.repeat(low, counts)
    out["row"] = np.repeat(rows, counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    out["place"] = np.arange(len(hashes)) - starts
    out = out[hashes != 0]  # paragraphs of nothing but punctuation are never dropped
    return work.partition(out["hash"]), out


# -- groups -> members ----------------------------------------------------------------------------------------------------------


def _to_parts(members: np.ndarray) -> Iterator[tuple[int, bytes]]:
    if len(members):
        yield from packed(members["row"] >> ROW_BITS, members)


def exact_members(values: Iterable[bytes]) -> np.ndarray:
    """All EXACT_ROW of a partition -> MEMBER of every document whose content stands more than once."""
    rows = unpacked(values, EXACT_ROW, ("hash_high", "hash_low", "high", "low", "row"))
    first, group = _groups(rows, ("hash_high", "hash_low"))
    keep = np.bincount(group)[group] > 1
    return _members(Kind.EXACT, rows["row"], rows["high"][first], rows["low"][first], group)[keep]


def exact_edges(values: Iterable[bytes], least: np.ndarray) -> np.ndarray:
    """All EXACT_ROW of a partition -> EDGE [m]: of texts that stand under different thresholds, the smallest row to the others.

    least: float32 [parts], as `Settings.least` gives it.
    """
    rows = unpacked(values, EXACT_ROW, ("hash_high", "hash_low", "row"))
    first, group = _groups(rows, ("hash_high", "hash_low"))
    own, hubs = least[rows["row"] >> ROW_BITS], rows["row"][first][group]
    mixed = np.bincount(group, own != own[first][group])[group] > 0
    return unique_edges(hubs[mixed], rows["row"][mixed])


def repeated_paragraphs(values: Iterable[bytes]) -> np.ndarray:
    """All PARAGRAPH_ROW of a partition -> MEMBER of every copy but the one with the smallest doc_id and place."""
    rows = unpacked(values, PARAGRAPH_ROW, ("hash", "high", "low", "place"))
    first, group = _groups(rows, ("hash",))
    members = _members(Kind.PARAGRAPH, rows["row"], rows["high"][first], rows["low"][first], group)
    members["place"] = rows["place"]
    return np.delete(members, first)


def near_members(values: Iterable[bytes], permutations: int) -> np.ndarray:
    """All `_identified` rows of a partition -> MEMBER with the similarity to each cluster's smallest doc_id."""
    rows = unpacked(values, _identified(permutations), ("root", "high", "low", "row"))
    first, group = _groups(rows, ("root",))
    members = _members(Kind.NEAR, rows["row"], rows["high"][first], rows["low"][first], group)
    members["jaccard"] = agreement(rows["signature"], rows["signature"][first][group])
    return members


def _groups(rows: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(index of each group's first row, group number of each row) of sorted rows."""
    fresh = np.zeros(len(rows), bool)
    for name in names:
        fresh[1:] |= rows[name][1:] != rows[name][:-1]
    if len(rows):
        fresh[0] = True
    return np.flatnonzero(fresh), np.cumsum(fresh) - 1


def _members(kind: Kind, rows: np.ndarray, high: np.ndarray, low: np.ndarray, group: np.ndarray) -> np.ndarray:
    members = np.zeros(len(rows), MEMBER)
    members["kind"], members["row"] = kind, rows
    members["high"], members["low"] = high[group], low[group]
    members["size"] = np.bincount(group)[group] if len(group) else 0
    return members


def _identified(permutations: int) -> np.dtype:
    return np.dtype(
        [("root", "<i8"), ("row", "<i8"), ("high", "<u8"), ("low", "<u8"), ("signature", "<u2", (permutations,))]
    )


def _pair(permutations: int) -> np.dtype:
    return np.dtype([("hub", "<i8"), ("spoke", "<i8"), ("signature", "<u2", (permutations,))])


# -- near: candidates meet signatures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _AttachHub:
    """(hub's part, edges) -> edges with the hub's signature, keyed by the spoke's part."""

    store: Store
    parts: tuple[Part, ...]
    settings: Settings

    def start(self) -> Callable[[Any], Iterator[tuple[int, bytes]]]:
        return self._work

    def _work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        index, values = element
        rows = unpacked(values, EDGE, ("hub", "spoke"))
        edges = unique_edges(rows["hub"], rows["spoke"])
        signatures = near_signatures(self.store, self.parts[index], self.settings.permutations)
        pairs = np.empty(len(edges), _pair(self.settings.permutations))
        pairs["hub"], pairs["spoke"] = edges["hub"], edges["spoke"]
        pairs["signature"] = signatures[edges["hub"] & _ROW_MASK]
        yield from packed(pairs["spoke"] >> ROW_BITS, pairs)


class _Verify(beam.DoFn):
    """(spoke's part, edges with the hub's signature) -> verified edges; buckets of failed ones for the next round."""

    FAILED = "failed"

    def __init__(self, store: Store, parts: tuple[Part, ...], settings: Settings, partitions: int) -> None:
        self._store, self._parts, self._settings, self._partitions = store, parts, settings, partitions
        self._least = settings.least(parts)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        index, values = element
        settings = self._settings
        pairs = unpacked(values, _pair(settings.permutations), ("hub", "spoke"))
        spokes = near_signatures(self._store, self._parts[index], settings.permutations)[pairs["spoke"] & _ROW_MASK]
        # Of two sources the stricter one decides: its documents are copies of nothing that is less alike, whosoever it is.
        alike = agreement(pairs["signature"], spokes) >= np.maximum(self._least[pairs["hub"] >> ROW_BITS], self._least[index])
        edges = unique_edges(pairs["hub"][alike], pairs["spoke"][alike])
        if len(edges):
            yield 0, edges.tobytes()
        failed = shared_buckets(
            pairs["signature"][~alike], spokes[~alike], pairs["spoke"][~alike], settings.bands, settings.rows
        )
        if len(failed):
            keys = (failed["bucket"] >> np.uint64(32)) % np.uint64(self._partitions)
            for item in packed(keys.astype(np.int64), failed):
                yield beam.pvalue.TaggedOutput(self.FAILED, item)


def _edges_of(values: Iterable[bytes], least: np.ndarray) -> Iterator[tuple[int, bytes]]:
    rows = np.frombuffer(b"".join(values), BUCKET_ROW)
    edges = stars(rows, least[rows["row"] >> ROW_BITS])
    if len(edges):
        yield from packed(edges["hub"] >> ROW_BITS, edges)


def _exact_edges_of(values: Iterable[bytes], least: np.ndarray) -> Iterator[tuple[int, bytes]]:
    edges = exact_edges(values, least)
    if len(edges):
        yield 0, edges.tobytes()


def _components_of(values: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    rows, roots = components(np.frombuffer(b"".join(values), EDGE))
    out = np.empty(len(rows), ROOTED)
    out["root"], out["row"] = roots, rows
    yield from packed(rows >> ROW_BITS, out)


@dataclass(frozen=True, slots=True)
class _Identify:
    """(part, its rows in near clusters) -> rows with doc_id and signature, keyed by a partition of the roots."""

    store: Store
    parts: tuple[Part, ...]
    settings: Settings
    partitions: int

    def start(self) -> Callable[[Any], Iterator[tuple[int, bytes]]]:
        return self._work

    def _work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        index, values = element
        members = unpacked(values, ROOTED, ("row",))
        table = read_columns(self.store, self.parts[index].path("documents"), ["doc_id", "signature"])
        minima, signed = unpack(table.column("signature"), self.settings.permutations)
        members = members[signed[members["row"] & _ROW_MASK]]  # equal texts without a word are exact copies only
        places = members["row"] & _ROW_MASK
        out = np.empty(len(members), _identified(self.settings.permutations))
        out["root"], out["row"] = members["root"], members["row"]
        high, low = part_ids(table.column("doc_id"))
        out["high"], out["low"] = high[places], low[places]
        out["signature"] = minima[places].astype(np.uint16)
        yield from packed(out["root"] % self.partitions, out)


# -- wiring -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Write:
    store: Store
    parts: tuple[Part, ...]
    key: str

    def start(self) -> Callable[[Any], None]:
        return lambda element: write_clusters(self.store, self.parts[element[0]], element[1], self.key)


def wire(pipeline: beam.Pipeline, store: Store, recipe: Recipe, parts: tuple[Part, ...], key: str) -> None:
    """documents/ -> clusters/"""
    settings = Settings.of(recipe)
    least = settings.least(parts)
    documents = sum(part.rows for part in parts)
    partitions = max(8, math.ceil(documents * settings.bands * BUCKET_ROW.itemsize / _PARTITION_BYTES))
    listed = spread(pipeline, "Parts", parts)

    def scattered(
        label: str, source: beam.PCollection, columns: tuple[str, ...], make: Any
    ) -> beam.PCollection:  # (partition, [bytes])
        rows = _Rows(store, partitions, columns, make, settings)
        return source | f"{label}Rows" >> beam.ParDo(Scatter(rows)) | f"{label}Groups" >> beam.GroupByKey()

    copies = scattered("Exact", listed, ("content_hash", "doc_id"), _exact_rows)
    exact = copies | "ExactMembers" >> beam.FlatMap(lambda group: _to_parts(exact_members(group[1])))  # (part, MEMBER bytes)
    marked = []
    paragraph_parts = [part for part in parts if part.source in settings.paragraph_sources]
    if paragraph_parts:
        listed_paragraphs = spread(pipeline, "ParagraphParts", paragraph_parts)
        marked.append(
            scattered("Paragraph", listed_paragraphs, ("doc_id", "paragraph_hashes"), _paragraph_rows)
            | "RepeatedParagraphs" >> beam.FlatMap(lambda group: _to_parts(repeated_paragraphs(group[1])))
        )  # (part, MEMBER bytes)

    buckets = scattered("Band", listed, ("signature",), _band_rows)  # (partition, [BUCKET_ROW bytes])
    verified = []
    for number in range(ROUNDS):
        judged = (
            buckets
            | f"Stars{number}" >> beam.FlatMap(lambda group: _edges_of(group[1], least))
            | f"HubParts{number}" >> beam.GroupByKey()
            | f"AttachHub{number}" >> beam.ParDo(Each(_AttachHub(store, parts, settings)))
            | f"SpokeParts{number}" >> beam.GroupByKey()
            | f"Verify{number}"
            >> beam.ParDo(_Verify(store, parts, settings, partitions)).with_outputs(_Verify.FAILED, main="alike")
        )
        verified.append(judged.alike)
        if number + 1 < ROUNDS:
            buckets = judged[_Verify.FAILED] | f"Failed{number}" >> beam.GroupByKey()
    if settings.stricter:
        verified.append(copies | "ExactEdges" >> beam.FlatMap(lambda group: _exact_edges_of(group[1], least)))
    near = (
        tuple(verified)
        | "Edges" >> beam.Flatten()
        | "AllEdges" >> beam.GroupByKey()
        | "Components" >> beam.FlatMap(lambda group: _components_of(group[1]))
        | "MemberParts" >> beam.GroupByKey()
        | "Identify" >> beam.ParDo(Each(_Identify(store, parts, settings, partitions)))
        | "Roots" >> beam.GroupByKey()
        | "NearMembers" >> beam.FlatMap(lambda group: _to_parts(near_members(group[1], settings.permutations)))
    )  # (part, MEMBER bytes)
    every = pipeline | "EveryPart" >> beam.Create([(part.index, b"") for part in parts], reshuffle=False)
    (
        (exact, near, *marked, every)
        | "Members" >> beam.Flatten()
        | "ByPart" >> beam.GroupByKey()
        | "Write" >> beam.ParDo(Each(_Write(store, parts, key)))
    )
