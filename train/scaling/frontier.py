"""Chinchilla's approaches 1 and 2: the size of least loss at many budgets, and the power law N_opt = k C^a through them.

* **Approach 1** (Hoffmann et al. 2022, section 3.1): training curves of several sizes; at each of 1,500 budgets, spaced by their
  logarithm, the size whose curve is lowest. Curves are interpolated in log C, not smoothed. Left out are budgets with one curve
  only, and those at which the smallest or the largest of all sizes wins: the best may lie beyond. *The curves must come from
  several horizons a size:* the paper's learning rates end their cosine at the run's own last token, and the middle of a longer
  run's curve lies above what a run of that length would reach. With one horizon a size the exponent is biased.
* **Approach 2** (section 3.2): runs of several sizes at each of a few budgets; the lowest point of a parabola in log N.

Both then fit log N_opt = log k + a log C by least squares; D_opt = C / (6 N_opt), so its exponent is 1 - a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError
from train.scaling import resample
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN
from train.scaling.rows import Rows, need_distinct

BUDGETS = 1500  # of approach 1 (section 3.1)
MIN_SIZES = 3  # a parabola's points
MIN_CURVES = 4  # the smallest and the largest only fence the others in


@dataclass(frozen=True, slots=True)
class Frontier:
    """N_opt = params (C / flops)^exponent; `flops` is the middle of the budgets, where N_opt is known best. `points`: (C, N_opt)
    of each budget (approach 2) or of those at which the best size changes (approach 1). `resamples`: (params, exponent) each."""

    exponent: float
    params: float
    flops: float
    points: tuple[tuple[float, float], ...]
    rows: int
    resamples: tuple[tuple[float, float], ...]
    lost: int

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) for that many FLOPs."""
        params = self.params * (flops / self.flops) ** self.exponent
        return params, flops / (FLOPS_A_PARAMETER_TOKEN * params)

    def interval(self, flops: float) -> tuple[float, float] | None:
        """95 % interval of N_opt there; None without resamples."""
        if not self.resamples:
            return None
        params, exponents = np.array(self.resamples).T
        return resample.interval(params * (flops / self.flops) ** exponents)


def isoflop(rows: Rows, resamples: int, seed: int) -> Frontier:
    """Approach 2 on rows with params, flops and loss: rows of one budget have the same flops. Resamples draw within a budget.

    Raises:
        UserError: one budget only, fewer than 3 sizes in a budget, a parabola without a lowest point between the sizes tried.
    """
    need_distinct(rows, "flops", 2)
    budgets, group = np.unique(rows["flops"], return_inverse=True)
    sizes, loss = np.log(rows["params"]), rows["loss"]
    for at, budget in enumerate(budgets):
        found = len(np.unique(sizes[group == at]))
        if found < MIN_SIZES:
            raise UserError(
                f"{rows.path}: {found} size{'s' * (found != 1)} with flops {budget:.6g}; a parabola needs at least {MIN_SIZES} "
                "(rows of one budget must have the same flops, to the digit)"
            )
    lowest = _lowest(sizes, loss, np.ones(len(rows)), group, len(budgets))
    for at in np.flatnonzero(np.isnan(lowest)).tolist():
        tried = np.exp(sizes[group == at])
        between = f"{tried.min():.3g} and {tried.max():.3g}"
        raise UserError(
            f"{rows.path}: with flops {budgets[at]:.6g} the loss has no lowest point between {between} params; "
            "train smaller or larger sizes there, or leave the budget out"
        )
    middle = float(np.exp(np.log(budgets).mean()))
    scale, exponent = _power(np.log(budgets / middle), lowest)
    drawn = []
    for number in range(resamples):
        again = _lowest(sizes, loss, resample.counts_by_group(seed, number, group.tolist()), group, len(budgets))
        if not np.isnan(again).any():
            drawn.append(_power(np.log(budgets / middle), again))
    points = tuple(zip(budgets.tolist(), np.exp(lowest).tolist(), strict=True))
    return Frontier(exponent, scale, middle, points, len(rows), tuple(drawn), resamples - len(drawn))


def _lowest(sizes: np.ndarray, loss: np.ndarray, weights: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """log N of each budget's lowest point; NaN where there is none within the sizes that have weight."""
    found = np.full(groups, np.nan)
    for at in range(groups):
        chosen = (group == at) & (weights > 0)
        x, middle = sizes[chosen], sizes[chosen].mean()
        if len(np.unique(x)) < MIN_SIZES:
            continue
        powers = np.stack([(x - middle) ** 2, x - middle, np.ones(len(x))], 1)
        root = np.sqrt(weights[chosen])
        curve, slope, _ = np.linalg.lstsq(powers * root[:, None], loss[chosen] * root, rcond=None)[0]
        if curve > 0 and x.min() <= middle - slope / (2 * curve) <= x.max():
            found[at] = middle - slope / (2 * curve)
    return found


def envelope(rows: Rows, resamples: int, seed: int) -> Frontier:
    """Approach 1 on rows with run, params, flops and loss, several rows a run. Resamples draw whole runs.

    Raises:
        UserError: fewer than 4 sizes, a run of several sizes, curves that do not overlap, fewer than two best sizes.
    """
    need_distinct(rows, "params", MIN_CURVES)
    names, of_run = np.unique(np.array(rows.runs), return_inverse=True)
    sizes = np.array([rows["params"][of_run == at][0] for at in range(len(names))])
    for at, name in enumerate(names):
        if np.ptp(rows["params"][of_run == at]) > 0:
            raise UserError(f"{rows.path}: run {str(name)!r} has several values of params; give each run a name of its own")
    budgets = np.geomspace(rows["flops"].min(), rows["flops"].max(), BUDGETS)
    curves = np.stack([_curve(rows, of_run == at, budgets) for at in range(len(names))])  # [runs, budgets], inf outside a run
    if np.isfinite(_by_size(curves, sizes)[1]).sum(0).max() < 2:
        raise UserError(f"{rows.path}: no two runs' curves overlap in flops; several sizes must be measured at the same budgets")
    best = _best(curves, np.ones(len(names)), sizes)
    inside = np.isfinite(best)
    winners = np.unique(best[inside])
    if len(winners) < 2:
        raise UserError(
            f"{rows.path}: {len(winners)} size{'s' * (len(winners) != 1)} between the smallest and the largest win at some budget, "
            "two are needed; measure more sizes, from smaller to larger budgets"
        )
    middle = float(np.exp(np.log(budgets[inside]).mean()))
    x = np.log(budgets / middle)
    scale, exponent = _power(x[inside], np.log(best[inside]))
    drawn = []
    for number in range(resamples):
        again = _best(curves, resample.counts(seed, number, len(names)), sizes)
        covered = np.isfinite(again)
        if len(np.unique(again[covered])) > 1:
            drawn.append(_power(x[covered], np.log(again[covered])))
    changes = [at for at in np.flatnonzero(inside).tolist() if at == 0 or best[at] != best[at - 1]]
    points = tuple((float(budgets[at]), float(best[at])) for at in changes)
    return Frontier(exponent, scale, middle, points, len(rows), tuple(drawn), resamples - len(drawn))


def _curve(rows: Rows, chosen: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """A run's loss at budgets: linear in log C between its rows, the mean of rows at the same C, infinite outside."""
    flops, at = np.unique(rows["flops"][chosen], return_inverse=True)
    loss = np.bincount(at, rows["loss"][chosen]) / np.bincount(at)
    return np.interp(np.log(budgets), np.log(flops), loss, left=np.inf, right=np.inf)


def _by_size(curves: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct sizes, their lowest curves [sizes, budgets]): a size that was measured twice is still one size."""
    distinct, of_size = np.unique(sizes, return_inverse=True)
    lowest = np.full((len(distinct), curves.shape[1]), np.inf)
    np.minimum.at(lowest, of_size, curves)
    return distinct, lowest


def _best(curves: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The size of the lowest curve among those drawn, NaN where that tells nothing: float64 [budgets]."""
    drawn = counts > 0
    distinct, lowest = _by_size(curves[drawn], sizes[drawn])
    best, known = distinct[lowest.argmin(0)], np.isfinite(lowest).sum(0) > 1
    return np.where(known & (best > distinct[0]) & (best < distinct[-1]), best, np.nan)


def _power(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(scale, exponent) of exp(y) = scale exp(x)^exponent by least squares."""
    exponent = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return float(np.exp(y.mean() - exponent * x.mean())), exponent


def intervals(found: Frontier) -> dict[str, tuple[float, float]]:
    """95 % intervals of the exponent and of N_opt at `flops`."""
    if not found.resamples:
        return {}
    params, exponents = np.array(found.resamples).T
    return {"exponent": resample.interval(exponents), "params": resample.interval(params)}
