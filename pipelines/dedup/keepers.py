"""Who stays of a cluster: among the documents that passed every earlier step, by source priority, quality, then doc_id.

A duplicate is dropped in favour of a document that a variant still wants, so a cluster gets one ticket in the quality draw
and never vanishes because its keeper failed an earlier rule. Exact copies are settled first, near ones among their keepers.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Kind(IntEnum):
    """Kinds of copies; a bit of `dedup` each."""

    EXACT = 0
    NEAR = 1


# One standing member of a cluster in one variant. group: near cluster, or the exact one where there is no signature;
# exact: exact cluster, or the document itself. Bits of `dedup`: what the variant deduplicates by (1 << Kind).
STANDING_ROW = np.dtype(
    [
        ("variant", "<i4"),
        ("dedup", "<i4"),
        ("priority", "<i4"),
        ("quality", "<f4"),
        ("group_high", "<u8"),
        ("group_low", "<u8"),
        ("exact_high", "<u8"),
        ("exact_low", "<u8"),
        ("high", "<u8"),
        ("low", "<u8"),
        ("row", "<i8"),
    ]
)
LOSER = np.dtype([("variant", "<i4"), ("kind", "<i4"), ("row", "<i8"), ("high", "<u8"), ("low", "<u8")])


def losers(rows: np.ndarray) -> np.ndarray:
    """STANDING_ROW [n], all of the clusters that they touch -> LOSER [m], each with the doc_id of its keeper."""
    exact, kept = _settle(rows, Kind.EXACT, ("exact_high", "exact_low"))
    near, _ = _settle(kept, Kind.NEAR, ("group_high", "group_low"))
    return np.concatenate([exact, near])


def _settle(rows: np.ndarray, kind: Kind, cluster: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """(losers of this kind, rows that are still standing)."""
    wanted = (rows["dedup"] >> kind) & 1 == 1
    judged, aside = rows[wanted], rows[~wanted]
    order = np.lexsort(
        (
            judged["low"],
            judged["high"],
            -judged["quality"],
            -judged["priority"].astype(np.int64),
            judged[cluster[1]],
            judged[cluster[0]],
            judged["variant"],
        )
    )
    judged = judged[order]
    first = np.ones(len(judged), bool)
    if len(judged):
        first[1:] = False
        for name in ("variant", *cluster):
            first[1:] |= judged[name][1:] != judged[name][:-1]
    keeper = judged[first][np.cumsum(first) - 1] if len(judged) else judged
    out = np.empty(int((~first).sum()), LOSER)
    out["variant"], out["kind"], out["row"] = judged["variant"][~first], kind, judged["row"][~first]
    out["high"], out["low"] = keeper["high"][~first], keeper["low"][~first]
    return out, np.concatenate([judged[first], aside])
