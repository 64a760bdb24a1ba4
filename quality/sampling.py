"""GLaM's quality draw: every document has a chance that grows with its score, decided by a hash of its id.

A classifier's score is turned into a decision in one of two ways:

* **pareto** (GLaM, Du et al. 2022, section 3; the rule is GPT-3's, Brown et al. 2020, appendix A): keep a document with score q
  when a Pareto(alpha) variable exceeds 1 - q, that is with probability (2 - q)^-alpha. Some low-score documents stay, so the
  filter cannot narrow the corpus to what the classifier has seen.
* **cut** (LLaMA, Touvron et al. 2023, section 2.1): keep from a threshold on.

Departure: the papers draw from a generator; here the draw is a hash of (doc_id, seed, purpose), so that the same documents stay
on any machine in any order. And neither paper lets one name the share that is kept: `solve_shift` moves the law along the
score's logit until its expectation, weighted by tokens, is the wanted one.

Scores are judged in steps of 1e-4 and summed as integers per step: float noise and order of summing decide nothing.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

BINS = 10_001  # quality 0, 1e-4, ..., 1
_STEPS = np.arange(BINS) / 1e4
_SHIFT_LIMIT = 60.0  # on the logit scale: beyond it every score is 0 or 1


def uniform(doc_ids: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """float64 [rows] in [0, 1): 53 bits of a hash of each id (uint8 [rows, 16]) with seed and purpose.

    Two 64-bit halves of the id are mixed with two keys that are blake2b of (seed, purpose), by the finaliser of MurmurHash3.
    """
    digest = hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=16).digest()
    keys = np.frombuffer(digest, "<u8")
    halves = np.ascontiguousarray(doc_ids).view("<u8").reshape(-1, 2)
    mixed = _finalise(_finalise(halves[:, 0] ^ keys[0]) ^ halves[:, 1] ^ keys[1])
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _finalise(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def quality_bin(quality: np.ndarray) -> np.ndarray:
    """int64 [rows]: the step of each quality (float32 or float64 in [0, 1])."""
    return np.rint(quality.astype(np.float64) * 1e4).astype(np.int64)


def keep_probability(quality: np.ndarray, alpha: float, shift: float = 0.0) -> np.ndarray:
    """float64 [rows]: (2 - q')^-alpha, where q' is q (float64 in [0, 1]) moved by `shift` on the logit scale.

    Equals P(numpy.random.pareto(alpha) > 1 - q').
    """
    if shift == 0.0:
        moved = quality
    else:
        inner = np.clip(quality, 0.5e-4, 1 - 0.5e-4)  # half a step from the ends: every score can be moved
        moved = 1.0 / (1.0 + np.exp(-(np.log(inner) - np.log1p(-inner) + shift)))
    return (2.0 - moved) ** -alpha


def expected_share(histogram: np.ndarray, alpha: float, shift: float) -> float:
    """The share of tokens that the law keeps in expectation; histogram: int64 [BINS] tokens per step of quality."""
    kept = keep_probability(_STEPS, alpha, shift) * histogram
    return math.fsum(kept.tolist()) / int(histogram.sum())


def solve_shift(histogram: np.ndarray, alpha: float, keep_rate: float) -> float:
    """The shift under which the law keeps `keep_rate` of the tokens in histogram (int64 [BINS]), by bisection.

    0.0 where there is nothing to draw from. A rate out of reach (below 2^-alpha, or 1) gives the nearest end of the scale.
    """
    if int(histogram.sum()) == 0:
        return 0.0
    low, high = -_SHIFT_LIMIT, _SHIFT_LIMIT
    for _ in range(64):
        middle = (low + high) / 2
        if expected_share(histogram, alpha, middle) < keep_rate:
            low = middle
        else:
            high = middle
    return high


def solve_cut(histogram: np.ndarray, keep_rate: float) -> float:
    """The threshold whose kept share of tokens is nearest to `keep_rate`; of equally near ones the highest.

    All documents of one step share their fate, so the rate that is got can differ where many share a score.
    """
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    kept = np.concatenate([np.cumsum(histogram[::-1])[::-1], [0]])  # kept[i]: tokens from step i on
    nearest = int(np.argmin(np.abs(kept - keep_rate * total)[::-1]))
    return (BINS - nearest) / 1e4
