"""The pure side of match: what a part of either side lends, which documents are copies, and the table that a part gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import against
from pipelines.against import MATCHES, Earlier
from pipelines.beam_parts import unpacked
from pipelines.cluster_parts import Kind, id_array, part_ids
from pipelines.dedup.minhash import band_hashes, unpack
from pipelines.dedup.near import BUCKET_ROW, stars
from pipelines.parts import ROW_BITS, Part
from pipelines.recipe import Recipe
from pipelines.store import Store, TableWriter, read_columns, reading_table

ROW_MASK = (1 << ROW_BITS) - 1
_OURS = np.iinfo(np.int32).max  # in the place of a run's number: after all other runs

HASH_ROW = np.dtype([("hash_high", "<u8"), ("hash_low", "<u8"), ("high", "<u8"), ("low", "<u8"), ("row", "<i8")])
# A document of this run in a near cluster, which is named by its smallest doc_id.
MEMBER_ROW = np.dtype([("cluster_high", "<u8"), ("cluster_low", "<u8"), ("row", "<i8")])
# row: of this run; run: number of the run that keeps the document high, low.
COPY = np.dtype([("row", "<i8"), ("kind", "<i4"), ("run", "<i4"), ("high", "<u8"), ("low", "<u8"), ("jaccard", "<f4")])


@dataclass(frozen=True, slots=True)
class Settings:
    """What match reads of the recipe; and the rows that hold a signature, uint16 [permutations]."""

    permutations: int
    bands: int
    rows: int
    min_jaccard: float
    stricter: tuple[tuple[str, float], ...] = ()  # sources of this run with a threshold of their own

    @staticmethod
    def of(recipe: Recipe) -> Settings:
        bands, rows = recipe.near.banding()
        run = recipe.near.min_jaccard
        stricter = sorted((name, own) for name, own in recipe.min_jaccards().items() if own > run)
        return Settings(recipe.near.permutations, bands, rows, run, tuple(stricter))

    def least(self, side: Side) -> float:
        """What a copy among the documents of a side has at least; another run's own thresholds are not asked for."""
        return dict(self.stricter).get(side.source, self.min_jaccard) if side.run < 0 else self.min_jaccard

    @property
    def pair(self) -> np.dtype:
        """An edge with doc_id and signature of its hub."""
        return self._signed(hub="<i8", spoke="<i8", high="<u8", low="<u8")

    @property
    def seed(self) -> np.dtype:
        """A near cluster of this run, with what was found for one of its members."""
        return self._signed(cluster_high="<u8", cluster_low="<u8", run="<i4", jaccard="<f4", high="<u8", low="<u8")

    @property
    def inherited(self) -> np.dtype:
        """A document of this run, with what was found for a member of its near cluster."""
        return self._signed(row="<i8", run="<i4", high="<u8", low="<u8")

    def _signed(self, **fields: str) -> np.dtype:
        return np.dtype([*fields.items(), ("signature", "<u2", (self.permutations,))])


# -- both sides ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """A part of either side; `index` is its place among those of both, the other runs' first."""

    index: int
    store: Store
    part: Part
    run: int = -1  # the number of the other run; -1 for this one
    variant: str = ""  # of the other run
    decided: str = ""  # sha256 of the other run's decisions

    @property
    def source(self) -> str:
        return self.part.source

    @property
    def name(self) -> str:
        return self.part.name

    def chosen(self) -> np.ndarray:
        """bool [rows]: the documents that take part; all of ours, of theirs those that are kept."""
        if self.run < 0:
            return np.ones(self.part.rows, bool)
        return against.kept(self.store, self.part, self.variant, self.decided)


def both_sides(store: Store, parts: Sequence[Part], earlier: Sequence[Earlier]) -> tuple[Side, ...]:
    sides = [
        Side(0, one.store, part, number, one.variant, decided)
        for number, one in enumerate(earlier)
        for part, decided in zip(one.parts, one.decided, strict=True)
    ]
    sides += [Side(0, store, part) for part in parts]
    return tuple(replace(side, index=index) for index, side in enumerate(sides))


def run_numbers(sides: Sequence[Side]) -> np.ndarray:
    """int64 [sides]: the number of each side's run, -1 for ours."""
    return np.array([side.run for side in sides], np.int64)


def partition(hashes: np.ndarray, partitions: int) -> np.ndarray:
    return ((hashes >> np.uint64(32)) % np.uint64(partitions)).astype(np.int64)


Make = Callable[[Any, np.ndarray, np.ndarray, Settings], np.ndarray]


@dataclass(frozen=True, slots=True)
class Rows:
    """A side -> rows keyed by a partition of their hash, in batches of its row groups."""

    columns: tuple[str, ...]
    make: Make
    hashed: str
    partitions: int
    settings: Settings

    def start(self) -> Callable[[Side], Iterator[tuple[np.ndarray, np.ndarray]]]:
        return self._work

    def _work(self, side: Side) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        chosen, first = side.chosen(), 0
        with reading_table(side.store, side.part.path("documents")) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, list(self.columns), use_threads=False).combine_chunks()
                places = np.arange(first, first + table.num_rows, dtype=np.int64)
                first += table.num_rows
                out = self.make(table, places + (side.index << ROW_BITS), chosen[places], self.settings)
                yield partition(out[self.hashed], self.partitions), out


def hash_rows(table: Any, rows: np.ndarray, chosen: np.ndarray, settings: Settings) -> np.ndarray:
    """HASH_ROW of the chosen documents of a row group."""
    out = np.empty(len(rows), HASH_ROW)
    out["hash_high"], out["hash_low"] = part_ids(table.column("content_hash"))
    out["high"], out["low"] = part_ids(table.column("doc_id"))
    out["row"] = rows
    return out[chosen]


def band_rows(table: Any, rows: np.ndarray, chosen: np.ndarray, settings: Settings) -> np.ndarray:
    """BUCKET_ROW of the chosen documents of a row group that have a signature."""
    minima, valid = unpack(table.column("signature"), settings.permutations)
    valid &= chosen
    buckets = band_hashes(minima[valid], settings.bands, settings.rows)
    out = np.empty(buckets.size, BUCKET_ROW)
    out["bucket"], out["row"] = buckets.ravel(), np.repeat(rows[valid], settings.bands)
    return out


def near_clusters(side: Side) -> tuple[np.ndarray, np.ndarray]:
    """(cluster uint64 [rows, 2], bool [rows]: in one) of the documents of one of our parts."""
    column = read_columns(side.store, side.part.path("clusters"), ["near_cluster"]).column(0)
    return np.stack(part_ids(column), axis=1), np.asarray(column.is_valid())


# -- who is a copy ------------------------------------------------------------------------------------------------------------


def copies_of(kind: Kind, rows: np.ndarray, runs: np.ndarray, keepers: np.ndarray, jaccard: np.ndarray | float) -> np.ndarray:
    """COPY [n] of our `rows`; keepers has fields high and low."""
    out = np.empty(len(rows), COPY)
    out["row"], out["kind"], out["run"], out["jaccard"] = rows, kind, runs, jaccard
    out["high"], out["low"] = keepers["high"], keepers["low"]
    return out


def _leaders(high: np.ndarray, low: np.ndarray, order: Sequence[np.ndarray]) -> np.ndarray:
    """int64 [n]: of each row's group (high, low), the place of the first row by `order`, the weightiest key last."""
    places = np.lexsort((*order, low, high))
    high, low = high[places], low[places]
    fresh = np.ones(len(places), bool)
    fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    leaders = np.empty(len(places), np.int64)
    leaders[places] = places[fresh][np.cumsum(fresh) - 1] if len(places) else places
    return leaders


def exact_copies(values: Iterable[bytes], runs: np.ndarray) -> np.ndarray:
    """All HASH_ROW of a partition -> COPY of our documents; each names the first run that keeps its text, and its smallest doc_id.

    runs: as `run_numbers` gives them.
    """
    rows = np.frombuffer(b"".join(values), HASH_ROW)
    run = runs[rows["row"] >> ROW_BITS]
    rank = np.where(run < 0, _OURS, run)
    leader = _leaders(rows["hash_high"], rows["hash_low"], (rows["row"], rows["low"], rows["high"], rank))
    found = np.flatnonzero((run < 0) & (run[leader] >= 0))
    keeper = leader[found]
    return copies_of(Kind.EXACT, rows["row"][found], run[keeper], rows[keeper], 1.0)


def meeting_edges(bucket_rows: np.ndarray, first_own: int) -> np.ndarray:
    """BUCKET_ROW [n] -> EDGE [m]: stars of the buckets that have rows of both sides; ours are those from `first_own` on."""
    ours = bucket_rows["row"] >= first_own
    both = np.intersect1d(bucket_rows["bucket"][ours], bucket_rows["bucket"][~ours])
    return stars(bucket_rows[np.isin(bucket_rows["bucket"], both)])


def inherited_copies(seeds: Sequence[bytes], members: Sequence[bytes], settings: Settings) -> np.ndarray:
    """Seeds and MEMBER_ROW of a partition -> Settings.inherited of every member of a cluster with a seed: its most alike one."""
    seed = unpacked(seeds, settings.seed, ("run", "high", "low"))
    member = unpacked(members, MEMBER_ROW, ("row",))
    one, both = len(seed), len(seed) + len(member)
    place = np.arange(both)
    likeness = np.r_[seed["jaccard"], np.full(len(member), -1, np.float32)]  # members come after seeds
    high, low = (np.concatenate([seed[name], member[name]]) for name in ("cluster_high", "cluster_low"))
    leader = _leaders(high, low, (place, -likeness))
    found = place[one:][leader[one:] < one]
    out = np.empty(len(found), settings.inherited)
    out["row"] = member["row"][found - one]
    for name in ("run", "high", "low", "signature"):
        out[name] = seed[name][leader[found]]
    return out


def matches_table(direct: np.ndarray, inherited: np.ndarray, rows: int, names: Sequence[str]) -> pa.Table:
    """The MATCHES rows of a part, from COPY [n] found for its documents and for members of their near clusters; names of runs.

    Of several for one document that counts which was found for itself, then the exact one (which is a near one too), then the
    most alike, then the first run and doc_id.
    """
    copies = np.concatenate([direct, inherited])
    late = np.arange(len(copies)) >= len(direct)
    copies = copies[
        np.lexsort((copies["low"], copies["high"], copies["run"], -copies["jaccard"], copies["kind"], late, copies["row"]))
    ]
    columns: list[pa.Array] = []
    for kinds in ((Kind.EXACT,), (Kind.EXACT, Kind.NEAR)):
        some = copies[np.isin(copies["kind"], kinds)]
        places, first = np.unique(some["row"] & ROW_MASK, return_index=True)
        some = some[first]
        valid, run = np.zeros(rows, bool), np.zeros(rows, np.int64)
        high, low = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
        jaccard = np.zeros(rows, np.float32)
        valid[places], run[places], jaccard[places] = True, some["run"], some["jaccard"]
        high[places], low[places] = some["high"], some["low"]
        columns += [pa.array(names, pa.string()).take(pa.array(run, mask=~valid)), id_array(high, low, valid)]
    columns.append(pa.array(jaccard, mask=~valid))
    return pa.Table.from_arrays(columns, schema=MATCHES)


def write_matches(store: Store, part: Part, table: pa.Table, key: str, identities: Sequence[Sequence[str]]) -> None:
    """Publishes a part's MATCHES; identities: as `against.identities` gives them."""
    path = against.path(part)
    if store.is_finished(path, key):
        return
    store.begin(path)
    with store.publishing(path) as sink:
        writer = TableWriter(sink, MATCHES)
        for batch in table.combine_chunks().to_batches():
            writer.write(batch)
        writer.close()
    assert sink.result is not None
    store.finish(sink.result, key, rows=part.rows, **{against.NAMED: identities})
