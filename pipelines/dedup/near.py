"""Near-duplicate candidates: star edges within LSH buckets, and what becomes of those that fail verification.

A bucket (documents whose signatures agree in one whole band) is connected as a star to its smallest row, so a bucket of n
costs n - 1 edges, never n squared. Every edge is verified against the signatures; documents whose edge failed are not like
the hub, but may be like each other: they form a new, smaller star in the next round. `ROUNDS` bounds this; what still fails
then stays apart and is counted.

Rows are the documents' row numbers (part index << 32 | row), int64. Nothing depends on the order of arrival.
"""

from __future__ import annotations

import numpy as np

from pipelines.dedup.minhash import band_hashes
from quality.text import kernel

ROUNDS = 3

BUCKET_ROW = np.dtype([("bucket", "<u8"), ("row", "<i8")])  # 16 bytes a document and band
EDGE = np.dtype([("hub", "<i8"), ("spoke", "<i8")])


def stars(bucket_rows: np.ndarray, least: np.ndarray | None = None) -> np.ndarray:
    """BUCKET_ROW [n] -> EDGE [m], unique and sorted: from each bucket's smallest row to every other row of it.

    least (float32 [n]): the threshold of each row's source, where not all have the same. The smallest row of the lowest threshold
    is then the hub of its bucket, and within each threshold the smallest row is one too. So rows of one threshold get the edges
    that they would get without the others, in every round.
    """
    if len(bucket_rows) == 0:
        return np.empty(0, EDGE)
    if least is None:
        least = np.zeros(len(bucket_rows), np.float32)
    order = np.lexsort((bucket_rows["row"], least, bucket_rows["bucket"]))
    buckets, rows, least = bucket_rows["bucket"][order], bucket_rows["row"][order], least[order]
    first = np.r_[True, buckets[1:] != buckets[:-1]]
    hubs = rows[np.flatnonzero(first)][np.cumsum(first) - 1]
    alone = first | np.r_[True, least[1:] != least[:-1]]
    if (alone == first).all():
        return unique_edges(hubs, rows)
    own = rows[np.flatnonzero(alone)][np.cumsum(alone) - 1]
    return unique_edges(np.concatenate([hubs, own]), np.concatenate([rows, rows]))


def unique_edges(hubs: np.ndarray, spokes: np.ndarray) -> np.ndarray:
    """EDGE [m], sorted, without repetitions and without rows joined to themselves."""
    order = np.lexsort((spokes, hubs))
    edges = np.empty(len(order), EDGE)
    edges["hub"], edges["spoke"] = hubs[order], spokes[order]
    fresh = np.ones(len(edges), bool)
    fresh[1:] = (edges["hub"][1:] != edges["hub"][:-1]) | (edges["spoke"][1:] != edges["spoke"][:-1])
    return edges[fresh & (edges["hub"] != edges["spoke"])]


def shared_buckets(hubs: np.ndarray, spokes: np.ndarray, rows: np.ndarray, bands: int, band_rows: int) -> np.ndarray:
    """BUCKET_ROW of each spoke in every bucket that it shares with its hub: where it looks for another hub if this one failed.

    hubs, spokes: signatures uint16 [pairs, permutations]; rows: int64 [pairs] of the spokes. Buckets of minima that are cut to
    16 bits have other names than those of whole ones, and the same members but for one chance in 65,536 a minimum.
    """
    left = band_hashes(hubs.astype(np.uint32), bands, band_rows)
    right = band_hashes(spokes.astype(np.uint32), bands, band_rows)
    pair, band = np.nonzero(left == right)
    out = np.empty(len(pair), BUCKET_ROW)
    out["bucket"], out["row"] = right[pair, band], rows[pair]
    return out


@kernel
def _union(left: np.ndarray, right: np.ndarray, parent: np.ndarray) -> None:
    """Joins left[i] with right[i]; parents point to smaller numbers, paths are halved; at the end all point to their root."""
    for i in range(left.shape[0]):
        a = left[i]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        b = right[i]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for i in range(parent.shape[0]):
        root = np.int64(i)
        while parent[root] != root:
            root = parent[root]
        parent[i] = root


def components(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """EDGE [n] -> (rows [m], roots [m]), both int64 and sorted by row: the smallest row that each row is connected to."""
    nodes, places = np.unique(np.concatenate([edges["hub"], edges["spoke"]]), return_inverse=True)
    parent = np.arange(len(nodes))
    _union(places[: len(edges)], places[len(edges) :], parent)
    return nodes, nodes[parent]
