"""The bootstrap's resamples, by arithmetic: which rows a resample holds is a hash of (seed, resample, draw), no generator's state.

The hash is SplitMix64's finaliser (Steele, Lea and Flood 2014) over a counter. Intervals are percentiles of what the resamples
give (Efron and Tibshirani 1993, chapter 13), at 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
_GAMMA, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(x: np.ndarray) -> np.ndarray:
    """uint64 to uint64, one to one."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def counts(seed: int, resample: int, size: int) -> np.ndarray:
    """How often each of `size` rows is drawn in `size` draws with replacement: float64 [size], sum `size`."""
    key = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(resample))
    words = _mix(key + _GAMMA * np.arange(1, size + 1, dtype=np.uint64))
    return np.bincount((words % np.uint64(size)).astype(np.int64), minlength=size).astype(float)


def counts_by_group(seed: int, resample: int, groups: Sequence[int]) -> np.ndarray:
    """Rows drawn within each group (0, 1, ...), each group keeping its size: float64 [rows]."""
    labels = np.asarray(groups)
    drawn = np.zeros(len(labels))
    for group in np.unique(labels):
        members = np.flatnonzero(labels == group)
        drawn[members] = counts(seed + 1 + int(group), resample, len(members))
    return drawn


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of float64 [resamples]."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
