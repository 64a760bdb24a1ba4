"""Chinchilla's approach 3: the parametric loss L(N, D) = E + A / N^alpha + B / D^beta fitted to measured losses.

Hoffmann et al. 2022, section 3.3: with a = log A, b = log B, e = log E,

    minimise  sum_i Huber_0.001( LSE(a - alpha log N_i, b - beta log D_i, e) - log L_i )

by L-BFGS from the grid alpha, beta in {0, .5, ..., 2}, e in {-1, -.5, ..., 1}, a, b in {0, 5, ..., 25}. Of these 4,500 starts the
objective is computed, and the search runs from the best few. Three things differ from a plain reading, none of them in the
objective: the gradient is analytic; log N and log D are centred, which unties a from alpha and b from beta; and the sum is
multiplied by 1,000, since without that L-BFGS stops early on the valley's flat floor and calls its start an optimum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError
from train.scaling import resample
from train.scaling.laws import LossLaw
from train.scaling.optimise import optimiser
from train.scaling.rows import Rows, need_distinct, need_rows

DELTA = 1e-3
SCALE = 1000.0
SEARCHES = 10
LEAST_FALL = 1e-4  # of log loss, over the rows, by N and by D: less is none
MIN_ROWS = 10  # twice the parameters
NAME = "this fit"
# (a, b, e, alpha, beta)
GRID = np.array(
    list(itertools.product(np.arange(0, 26, 5.0), np.arange(0, 26, 5.0), np.arange(-1, 1.1, 0.5), *[np.arange(0, 2.1, 0.5)] * 2))
)


@dataclass(frozen=True, slots=True)
class Data:
    """Logarithms of N, D and L: float64 [rows]."""

    n: np.ndarray
    d: np.ndarray
    loss: np.ndarray

    @classmethod
    def of(cls, rows: Rows) -> Data:
        return cls(np.log(rows["params"]), np.log(rows["tokens"]), np.log(rows["loss"]))


@dataclass(frozen=True, slots=True)
class Fit:
    """A law, the objective it reached (unscaled), and the laws of the resamples that have an optimum; `lost` had none."""

    law: LossLaw
    objective: float
    rows: int
    resamples: tuple[LossLaw, ...]
    lost: int


def objective(theta: np.ndarray, data: Data, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The weighted sum of Huber losses at theta = (a, b, e, alpha, beta), and its gradient: float64 [5]."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * data.n, b - beta * data.d, np.full_like(data.n, e)])  # [3, rows]
    highest = terms.max(0)
    shares = np.exp(terms - highest)
    total = shares.sum(0)
    shares /= total
    error = highest + np.log(total) - data.loss
    inside = np.clip(error, -DELTA, DELTA)
    slope = weights * inside  # Huber's derivative
    value = float((weights * inside * (error - inside / 2)).sum())
    by_term = shares * slope
    by_n, by_d = -(by_term[0] * data.n).sum(), -(by_term[1] * data.d).sum()
    return value, np.array([*by_term.sum(1), by_n, by_d])


def search(data: Data, weights: np.ndarray, starts: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The best (a, b, e, alpha, beta) that L-BFGS finds from the starts, and its objective."""
    minimise = optimiser().minimize
    middle_n, middle_d = float(data.n.mean()), float(data.d.mean())
    centred = Data(data.n - middle_n, data.d - middle_d, data.loss)

    def scaled(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(theta, centred, weights)
        return SCALE * value, SCALE * gradient

    def descend(inside: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
        options = {"maxiter": 2000, "ftol": tolerance, "gtol": 1e-9}
        found = minimise(scaled, inside, jac=True, method="L-BFGS-B", options=options)
        return found.x, float(found.fun)

    inside = [np.array([a - alpha * middle_n, b - beta * middle_d, e, alpha, beta]) for a, b, e, alpha, beta in starts]
    rough = [descend(start, 1e-10)[0] for start in inside] if len(inside) > 1 else inside
    best, lowest = descend(min(rough, key=lambda theta: scaled(theta)[0]), 1e-15)
    a, b, e, alpha, beta = best
    return np.array([a + alpha * middle_n, b + beta * middle_d, e, alpha, beta]), lowest / SCALE


def best_starts(data: Data, weights: np.ndarray) -> list[np.ndarray]:
    """The starts of the paper's grid with the lowest objective."""
    blocks = [_values(thetas, data, weights) for thetas in np.array_split(GRID, max(1, len(GRID) * len(data.n) // _BLOCK))]
    return [GRID[at] for at in np.argsort(np.concatenate(blocks), kind="stable")[:SEARCHES]]


_BLOCK = 1 << 20  # numbers at once


def _values(thetas: np.ndarray, data: Data, weights: np.ndarray) -> np.ndarray:
    """`objective` without gradient of many starts: [starts, 5] to [starts]."""
    a, b, e, alpha, beta = (column[:, None] for column in thetas.T)
    error = np.logaddexp(np.logaddexp(a - alpha * data.n, b - beta * data.d), e) - data.loss
    inside = np.clip(error, -DELTA, DELTA)
    return (inside * (error - inside / 2)) @ weights


def fit(rows: Rows, resamples: int, seed: int) -> Fit:
    """Fit rows with params, tokens and loss; a resample starts where the whole data ended.

    Raises:
        UserError: too few rows, sizes or token counts, one ray D ~ N only, or a loss that does not fall with N and with D.
    """
    need_rows(rows, MIN_ROWS)
    need_distinct(rows, "params", 3)
    need_distinct(rows, "tokens", 3)
    ratio = rows["tokens"] / rows["params"]
    if ratio.max() < 1.01 * ratio.min():
        raise UserError(f"{rows.path}: all rows have {ratio[0]:.3g} tokens a parameter; vary them to tell A from B")
    data = Data.of(rows)
    ones = np.ones(len(rows))
    theta, value = search(data, ones, best_starts(data, ones))
    if not _falls(theta, data):
        raise UserError(
            f"{rows.path}: the loss does not fall with params and with tokens (alpha {theta[3]:.3g}, beta {theta[4]:.3g}); "
            "look for runs of different data or settings among the rows"
        )
    found = [search(data, resample.counts(seed, number, len(rows)), [theta])[0] for number in range(resamples)]
    kept = tuple(law(theta) for theta in found if _falls(theta, data))
    return Fit(law(theta), value, len(rows), kept, resamples - len(kept))


def _falls(theta: np.ndarray, data: Data) -> bool:
    """Whether the law has an optimum: both of its terms fall, and by more than nothing."""
    if not np.isfinite(theta).all() or theta[3:].min() <= 0 or np.abs(theta[:3]).max() > 700:
        return False
    a, b, _, alpha, beta = theta
    falls = [np.ptp(np.exp(a - alpha * data.n)), np.ptp(np.exp(b - beta * data.d))]
    return bool(min(falls) > LEAST_FALL * np.exp(data.loss).mean())


def law(theta: np.ndarray) -> LossLaw:
    """(a, b, e, alpha, beta) as a law."""
    a, b, e, alpha, beta = (float(value) for value in theta)
    return LossLaw(NAME, math.exp(e), math.exp(a), math.exp(b), alpha, beta)


def intervals(laws: Sequence[LossLaw]) -> dict[str, tuple[float, float]]:
    """95 % intervals of the constants and of the exponent of N_opt."""
    names = ("e", "a", "b", "alpha", "beta", "exponent")
    return {name: resample.interval(np.array([getattr(law, name) for law in laws])) for name in names} if laws else {}
