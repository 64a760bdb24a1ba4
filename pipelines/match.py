"""match: which documents of this run are copies of what other runs keep (`against`); exact and near, for every variant at once.

Near is what it is in `cluster`: the same buckets, stars, verification and rounds, over the kept documents of the other runs and
all of this one. The other runs' parts come first, so that of every bucket that both have a part in, the hub is one of their
documents; buckets of one side only are left out. An edge from such a hub to a document of this run that is verified is a
copy. clusters/ stay as they are: what was found for one member holds for all members of its near cluster, whose similarity
to the other run's document is then estimated too.

    both -> content hashes -> groups                    -> exact copies
         -> LSH buckets    -> stars -> verify (ROUNDS)  -> near copies -> seeds  \\
    ours -> members of near clusters                                              > inherited copies
    exact + near + inherited copies, by part                                     -> against/

Bytes that cross a shuffle: of both sides 40 a document (exact), 16 a document and band (near); of those that meet 16 an edge and
bucket, 32 + 2 x permutations a candidate pair, 36 a copy; 24 a document of ours in a near cluster, 40 + 2 x permutations a
near copy in one, 28 + 2 x permutations a member of its cluster (tests/end_to_end/test_against.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np

from pipelines import against
from pipelines.against import Earlier
from pipelines.beam_parts import Each, Scatter, packed, spread, unpacked
from pipelines.cluster_parts import Kind, near_signatures, part_ids
from pipelines.dedup.minhash import agreement
from pipelines.dedup.near import BUCKET_ROW, EDGE, ROUNDS, shared_buckets, unique_edges
from pipelines.match_parts import (
    COPY,
    MEMBER_ROW,
    ROW_MASK,
    Make,
    Rows,
    Settings,
    Side,
    band_rows,
    both_sides,
    copies_of,
    exact_copies,
    hash_rows,
    inherited_copies,
    matches_table,
    meeting_edges,
    near_clusters,
    partition,
    run_numbers,
    write_matches,
)
from pipelines.parts import ROW_BITS, Part, content_of
from pipelines.recipe import Recipe
from pipelines.store import Store, read_columns, stage_key

VERSION = 1
_PARTITION_BYTES = 64 << 20


def match_key(store: Store, recipe: Recipe, parts: Sequence[Part], identities: Sequence[Sequence[str]]) -> str:
    """One key for all against parts: any document of theirs can have a copy in any of ours."""
    made_from = [content_of(store, [part.path(table) for part in parts]) for table in ("documents", "clusters")]
    return stage_key("match", VERSION, repr(Settings.of(recipe)), [*made_from, [part.source for part in parts], *identities])


# -- near ---------------------------------------------------------------------------------------------------------------------


def _edges_of(group: tuple[int, Iterable[bytes]], first_own: int) -> Iterator[tuple[int, bytes]]:
    edges = meeting_edges(np.frombuffer(b"".join(group[1]), BUCKET_ROW), first_own)
    if len(edges):
        yield from packed(edges["hub"] >> ROW_BITS, edges)


@dataclass(frozen=True, slots=True)
class _AttachHub:
    """(hub's side, edges) -> edges with the hub's doc_id and signature, keyed by the spoke's side."""

    sides: tuple[Side, ...]
    settings: Settings

    def start(self) -> Callable[[Any], Iterator[tuple[int, bytes]]]:
        return self._work

    def _work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        side, rows = self.sides[element[0]], unpacked(element[1], EDGE, ("hub", "spoke"))
        edges = unique_edges(rows["hub"], rows["spoke"])
        places = edges["hub"] & ROW_MASK
        high, low = part_ids(read_columns(side.store, side.part.path("documents"), ["doc_id"]).column(0))
        pairs = np.empty(len(edges), self.settings.pair)
        pairs["hub"], pairs["spoke"], pairs["high"], pairs["low"] = edges["hub"], edges["spoke"], high[places], low[places]
        pairs["signature"] = near_signatures(side.store, side.part, self.settings.permutations)[places]
        yield from packed(pairs["spoke"] >> ROW_BITS, pairs)


class _Verify(beam.DoFn):
    """(spoke's side, pairs) -> copies; seeds of our near clusters; buckets of failed pairs for the next round."""

    SEEDS, FAILED = "seeds", "failed"

    def __init__(self, sides: tuple[Side, ...], settings: Settings, partitions: int) -> None:
        self._sides, self._settings, self._partitions = sides, settings, partitions
        self._runs = run_numbers(sides)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        side, settings = self._sides[element[0]], self._settings
        pairs = unpacked(element[1], settings.pair, ("hub", "spoke"))
        spokes = near_signatures(side.store, side.part, settings.permutations)[pairs["spoke"] & ROW_MASK]
        likeness = agreement(pairs["signature"], spokes)
        alike = likeness >= np.float32(settings.least(side))
        failed = shared_buckets(
            pairs["signature"][~alike], spokes[~alike], pairs["spoke"][~alike], settings.bands, settings.rows
        )
        for item in packed(partition(failed["bucket"], self._partitions), failed) if len(failed) else ():
            yield beam.pvalue.TaggedOutput(self.FAILED, item)
        if side.run < 0 and alike.any():
            found = pairs[alike]
            copies = copies_of(Kind.NEAR, found["spoke"], self._runs[found["hub"] >> ROW_BITS], found, likeness[alike])
            yield element[0], copies.tobytes()
            for item in _seeds(side, copies, found["signature"], settings, self._partitions):
                yield beam.pvalue.TaggedOutput(self.SEEDS, item)


# -- near clusters of this run ------------------------------------------------------------------------------------------------
# Seeds and members meet in one shuffle, copies and inherited ones in another: the first byte of a value tells them apart.

_SEED, _MEMBER, _COPY, _INHERITED = b"s", b"m", b"c", b"i"


def _tagged(tag: bytes, items: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    return ((key, tag + value) for key, value in items)


def _of(tag: bytes, values: Iterable[bytes]) -> list[bytes]:
    return [value[1:] for value in values if value[:1] == tag]


def _seeds(
    side: Side, copies: np.ndarray, signatures: np.ndarray, settings: Settings, partitions: int
) -> Iterator[tuple[int, bytes]]:
    """A seed of each copy in a near cluster. signatures: uint16 [copies, permutations] of the other run's documents."""
    clusters, clustered = near_clusters(side)
    places = copies["row"] & ROW_MASK
    some = clustered[places]
    out = np.empty(int(some.sum()), settings.seed)
    out["cluster_high"], out["cluster_low"] = clusters[places[some]].T
    for name in ("run", "jaccard", "high", "low"):
        out[name] = copies[name][some]
    out["signature"] = signatures[some]
    if len(out):
        yield from _tagged(_SEED, packed(partition(out["cluster_high"], partitions), out))


@dataclass(frozen=True, slots=True)
class _Members:
    """Our side -> MEMBER_ROW of its documents in near clusters, keyed by a partition of their cluster."""

    partitions: int

    def start(self) -> Callable[[Side], Iterator[tuple[np.ndarray, np.ndarray]]]:
        return self._work

    def _work(self, side: Side) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        clusters, clustered = near_clusters(side)
        places = np.flatnonzero(clustered)
        out = np.empty(len(places), MEMBER_ROW)
        out["cluster_high"], out["cluster_low"] = clusters[places].T
        out["row"] = (side.index << ROW_BITS) + places
        yield partition(out["cluster_high"], self.partitions), out


def _inherited_of(group: tuple[int, Iterable[bytes]], settings: Settings) -> Iterator[tuple[int, bytes]]:
    values = list(group[1])
    found = inherited_copies(_of(_SEED, values), _of(_MEMBER, values), settings)
    if len(found):
        yield from _tagged(_INHERITED, packed(found["row"] >> ROW_BITS, found))


# -- writing ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Write:
    """(our side, what was found for its documents) -> against/"""

    sides: tuple[Side, ...]
    identities: list[list[str]]  # name and identity of each other run
    settings: Settings
    key: str

    def start(self) -> Callable[[Any], None]:
        return self._work

    def _work(self, element: tuple[int, Iterable[bytes]]) -> None:
        side, values = self.sides[element[0]], list(element[1])
        direct = np.frombuffer(b"".join(_of(_COPY, values)), COPY)
        inherited = unpacked(_of(_INHERITED, values), self.settings.inherited, ("row",))
        likeness = np.empty(0, np.float32)
        if len(inherited):
            own = near_signatures(side.store, side.part, self.settings.permutations)[inherited["row"] & ROW_MASK]
            likeness = agreement(inherited["signature"], own)
        later = copies_of(Kind.NEAR, inherited["row"], inherited["run"], inherited, likeness)
        table = matches_table(direct, later, side.part.rows, [name for name, _ in self.identities])
        write_matches(side.store, side.part, table, self.key, self.identities)


def wire(
    pipeline: beam.Pipeline, store: Store, recipe: Recipe, parts: tuple[Part, ...], earlier: tuple[Earlier, ...], key: str
) -> None:
    """documents/ of both sides, decisions/ of the other runs, clusters/ -> against/"""
    settings, sides = Settings.of(recipe), both_sides(store, parts, earlier)
    ours = [side for side in sides if side.run < 0]
    first_own = (len(sides) - len(ours)) << ROW_BITS
    documents = sum(side.part.rows for side in sides)
    partitions = max(8, math.ceil(documents * settings.bands * BUCKET_ROW.itemsize / _PARTITION_BYTES))
    listed, listed_ours = spread(pipeline, "Parts", sides), spread(pipeline, "OwnParts", ours)

    def scattered(label: str, columns: tuple[str, ...], make: Make, hashed: str) -> beam.PCollection:  # (partition, [bytes])
        rows = Rows(columns, make, hashed, partitions, settings)
        return listed | f"{label}Rows" >> beam.ParDo(Scatter(rows)) | f"{label}Groups" >> beam.GroupByKey()

    runs = run_numbers(sides)
    exact = scattered("Exact", ("content_hash", "doc_id"), hash_rows, "hash_high") | "ExactCopies" >> beam.FlatMap(
        lambda group: _by_part(exact_copies(group[1], runs))
    )  # (our side, COPY bytes)
    buckets = scattered("Band", ("signature",), band_rows, "bucket")  # (partition, [BUCKET_ROW bytes])
    near, seeds = [], []
    for number in range(ROUNDS):
        judged = (
            buckets
            | f"Stars{number}" >> beam.FlatMap(partial(_edges_of, first_own=first_own))
            | f"HubParts{number}" >> beam.GroupByKey()
            | f"AttachHub{number}" >> beam.ParDo(Each(_AttachHub(sides, settings)))
            | f"SpokeParts{number}" >> beam.GroupByKey()
            | f"Verify{number}"
            >> beam.ParDo(_Verify(sides, settings, partitions)).with_outputs(_Verify.SEEDS, _Verify.FAILED, main="copies")
        )
        near.append(judged.copies)
        seeds.append(judged[_Verify.SEEDS])
        if number + 1 < ROUNDS:
            buckets = judged[_Verify.FAILED] | f"Failed{number}" >> beam.GroupByKey()
    members = (
        listed_ours
        | "Members" >> beam.ParDo(Scatter(_Members(partitions)))
        | "TagMembers" >> beam.MapTuple(lambda key, value: (key, _MEMBER + value))
    )
    inherited = (
        (*seeds, members)
        | "SeedsAndMembers" >> beam.Flatten()
        | "ByCluster" >> beam.GroupByKey()
        | "Inherited" >> beam.FlatMap(partial(_inherited_of, settings=settings))
    )
    copies = (
        (exact, *near) | "Copies" >> beam.Flatten() | "TagCopies" >> beam.MapTuple(lambda key, value: (key, _COPY + value))
    )
    every = pipeline | "EveryPart" >> beam.Create([(side.index, _COPY) for side in ours], reshuffle=False)
    (
        (copies, inherited, every)
        | "Found" >> beam.Flatten()
        | "ByPart" >> beam.GroupByKey()
        | "Write" >> beam.ParDo(Each(_Write(sides, against.identities(earlier), settings, key)))
    )


def _by_part(copies: np.ndarray) -> Iterator[tuple[int, bytes]]:
    if len(copies):
        yield from packed(copies["row"] >> ROW_BITS, copies)
