"""The parts' side of cluster: what a part lends (ids, signatures) and what it gets (its members, written row for row)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dedup.minhash import unpack
from pipelines.parts import Part
from pipelines.schema import CLUSTERS
from pipelines.store import Store, TableWriter, read_columns, reading_table


class Kind(IntEnum):
    """What a MEMBER row says of its document."""

    EXACT = 0
    NEAR = 1
    PARAGRAPH = 2


# high, low: the doc_id of the cluster's smallest member, as two big-endian halves; size: its members; place: the paragraph
# that is dropped.
MEMBER = np.dtype(
    [
        ("kind", "<i4"),
        ("place", "<i4"),
        ("row", "<i8"),
        ("high", "<u8"),
        ("low", "<u8"),
        ("jaccard", "<f4"),
        ("size", "<i4"),
    ]
)


def part_ids(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(high, low) uint64 [rows] of a binary(16) column; comparing (high, low) is comparing the bytes."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    data = np.frombuffer(array.buffers()[1] or b"", ">u8")[2 * array.offset : 2 * (array.offset + len(array))]
    halves = data.reshape(-1, 2).astype("<u8")
    return halves[:, 0], halves[:, 1]


def id_array(high: np.ndarray, low: np.ndarray, valid: np.ndarray) -> pa.Array:
    """The binary(16) array of (high, low) uint64 [rows]; null where not `valid`."""
    halves = np.stack([high, low], axis=1).astype(">u8")
    bitmap = np.packbits(valid, bitorder="little")
    return pa.Array.from_buffers(
        pa.binary(16), len(high), [pa.py_buffer(bitmap.tobytes()), pa.py_buffer(halves.tobytes())]
    )


def ids_or(column: pa.ChunkedArray, otherwise: np.ndarray) -> np.ndarray:
    """uint64 [rows, 2] of a binary(16) column, with the row of `otherwise` (uint64 [rows, 2]) where it is null."""
    halves = np.stack(part_ids(column), axis=1)
    return np.where(np.asarray(column.is_valid())[:, None], halves, otherwise)


def id_bytes(halves: np.ndarray) -> np.ndarray:
    """uint64 [rows, 2] -> uint8 [rows, 16], the bytes of the ids."""
    return np.ascontiguousarray(halves.astype(">u8")).view(np.uint8).reshape(-1, 16)


def near_signatures(store: Store, part: Part, permutations: int) -> np.ndarray:
    """uint16 [rows, permutations]: the low halves of a part's minima. Two bytes tell unequal minima apart but for 1 in 65,536."""
    column = read_columns(store, part.path("documents"), ["signature"]).column("signature")
    minima, _ = unpack(column, permutations)
    return minima.astype(np.uint16)


def write_clusters(store: Store, part: Part, values: Iterable[bytes], key: str) -> None:
    """Publishes a part's clusters table: one row a document, in the documents' order and row groups."""
    from pipelines.beam_parts import unpacked  # not by who only looks at a run: it imports Beam

    path = part.path("clusters")
    if store.is_finished(path, key):
        return
    members = unpacked(values, MEMBER, ("row", "kind", "place"))
    table = _table(members, part)
    store.begin(path)
    with store.publishing(path) as sink:
        writer = TableWriter(sink, CLUSTERS)
        with reading_table(store, part.path("documents")) as documents:
            first = 0
            for group in range(documents.num_row_groups):
                count = documents.metadata.row_group(group).num_rows
                writer.write(table.slice(first, count).combine_chunks().to_batches()[0])
                first += count
        writer.close()
    assert sink.result is not None
    store.finish(sink.result, key, rows=part.rows, paragraphs=dropped_digest(table.column("dropped_paragraphs")))


def dropped_digest(paragraphs: pa.ChunkedArray) -> str:
    """What annotate takes of a clusters part into its key: a hash of the paragraphs to leave out (list<int32>), "" for none."""
    if paragraphs.null_count == len(paragraphs):
        return ""
    return hashlib.sha256(str(paragraphs.to_pylist()).encode()).hexdigest()


def _table(members: np.ndarray, part: Part) -> pa.Table:
    places = (members["row"] & 0xFFFFFFFF).astype(np.int64)
    columns: list[Any] = []
    for kind in (Kind.EXACT, Kind.NEAR):
        chosen = members["kind"] == kind
        high, low = np.zeros(part.rows, np.uint64), np.zeros(part.rows, np.uint64)
        valid = np.zeros(part.rows, bool)
        high[places[chosen]], low[places[chosen]] = members["high"][chosen], members["low"][chosen]
        valid[places[chosen]] = True
        size = np.zeros(part.rows, np.int32)
        size[places[chosen]] = members["size"][chosen]
        columns += [id_array(high, low, valid), pa.array(size, pa.int32(), mask=~valid)]
    near = members["kind"] == Kind.NEAR
    jaccard = np.full(part.rows, np.nan, np.float32)
    jaccard[places[near]] = members["jaccard"][near]
    columns.append(pa.array(jaccard, pa.float32(), from_pandas=True))
    columns.append(_dropped(members[members["kind"] == Kind.PARAGRAPH], part.rows))
    return pa.Table.from_arrays(columns, schema=CLUSTERS)


def _dropped(members: np.ndarray, rows: int) -> pa.Array:
    """list<int32> [rows]: sorted places of dropped paragraphs, null where none."""
    counts = np.bincount(members["row"] & 0xFFFFFFFF, minlength=rows)
    offsets = np.zeros(rows + 1, np.int32)
    offsets[1:] = np.cumsum(counts)
    mask = pa.array(counts == 0)
    return pa.ListArray.from_arrays(offsets, pa.array(members["place"], pa.int32()), mask=mask)
