"""The routed law of Clark et al. 2022 fitted to measured losses: log10 L bilinear in log10 N and log10 of the saturated E.

For given E_start and E_max the law is linear in a, b, c, d: least squares. Those two are searched from a few starts
(Levenberg-Marquardt on all six, from the linear solution), unless they are given. Equations: `train.scaling.laws.RoutedLaw`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError
from train.scaling import resample
from train.scaling.laws import RoutedLaw
from train.scaling.optimise import optimiser
from train.scaling.rows import Rows, need_distinct, need_rows

MIN_ROWS = 12  # twice the parameters
NAMES = ("a", "b", "c", "d", "start", "limit")
_STARTS = ((1.5, 200.0), (3.0, 500.0), (8.0, 300.0), (1.2, 5000.0))  # (E_start, E_max)
NAME = "this fit"


@dataclass(frozen=True, slots=True)
class RoutedFit:
    """A law, the root mean square of its errors in log10 L, and the laws of the resamples; `lost` did not lead to one."""

    law: RoutedLaw
    error: float
    rows: int
    resamples: tuple[RoutedLaw, ...]
    lost: int


@dataclass(frozen=True, slots=True)
class Data:
    """log10 N, E and log10 L: float64 [rows]."""

    n: np.ndarray
    experts: np.ndarray
    loss: np.ndarray


def fit(rows: Rows, resamples: int, seed: int, bounds: tuple[float, float] | None = None) -> RoutedFit:
    """Fit rows with params (of the dense model), experts and loss. `bounds`: E_start and E_max, where they are not to be searched.

    Raises:
        UserError: too few rows, sizes or numbers of experts, experts below 1, or no E_start below E_max that fits.
    """
    need_rows(rows, MIN_ROWS)
    need_distinct(rows, "params", 2)
    need_distinct(rows, "experts", 2 if bounds else 4)
    if rows["experts"].min() < 1:
        raise UserError(f"{rows.path}: experts {rows['experts'].min():.6g}; a dense model has 1")
    data = Data(np.log10(rows["params"]), rows["experts"], np.log10(rows["loss"]))
    law = _law(data, np.ones(len(rows)), [bounds] if bounds else _STARTS, bounds is None)
    if law is None:
        raise UserError(f"{rows.path}: no E_start and E_max above it fit these rows; measure more numbers of experts")
    error = math.sqrt(float((_errors(law, data) ** 2).mean()))
    start = [(law.start, law.limit)]
    drawn = [_law(data, resample.counts(seed, number, len(rows)), start, bounds is None) for number in range(resamples)]
    kept = tuple(law for law in drawn if law is not None)
    return RoutedFit(law, error, len(rows), kept, resamples - len(kept))


def _law(data: Data, weights: np.ndarray, starts: Sequence[tuple[float, float]], search: bool) -> RoutedLaw | None:
    """The law of least weighted squares; None where the search left the law's domain from every start."""
    laws = [_linear(data, weights, *start) for start in starts]
    found = [law for law in (_searched(first, data, weights) for first in laws) if law is not None] if search else laws
    return min(found, key=lambda law: float((weights * _errors(law, data) ** 2).sum())) if found else None


def _linear(data: Data, weights: np.ndarray, start: float, limit: float) -> RoutedLaw:
    """a, b, c, d for given E_start and E_max."""
    e = np.log10(_saturated(data.experts, start, limit))
    features, root = np.stack([data.n, e, data.n * e, np.ones_like(e)], 1), np.sqrt(weights)
    a, b, c, d = np.linalg.lstsq(features * root[:, None], data.loss * root, rcond=None)[0].tolist()
    return RoutedLaw(NAME, a, b, c, d, start, limit)


def _searched(first: RoutedLaw, data: Data, weights: np.ndarray) -> RoutedLaw | None:
    """All six, from a first law. Searched are log E_start and log(E_max / E_start - 1), so that 0 < E_start < E_max."""
    root = np.sqrt(weights)

    def law(theta: np.ndarray) -> RoutedLaw:
        a, b, c, d, start, above = theta.tolist()
        return RoutedLaw(NAME, a, b, c, d, math.exp(start), math.exp(start) * (1 + math.exp(above)))

    def errors(theta: np.ndarray) -> np.ndarray:
        # E_start far below 1 or E_max without end are where the law no longer depends on them.
        held = np.array([*theta[:4], np.clip(theta[4], -5, 10), np.clip(theta[5], -10, 25)])
        return root * _errors(law(held), data)

    inside = [first.a, first.b, first.c, first.d, math.log(first.start), math.log(first.limit / first.start - 1)]
    found = optimiser().least_squares(errors, inside, method="trf", x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=300)
    return law(found.x) if -5 < found.x[4] < 10 and -10 < found.x[5] < 25 else None


def _saturated(experts: np.ndarray, start: float, limit: float) -> np.ndarray:
    return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / limit)) + 1 / limit)


def _errors(law: RoutedLaw, data: Data) -> np.ndarray:
    e = np.log10(_saturated(data.experts, law.start, law.limit))
    return law.a * data.n + law.b * e + law.c * data.n * e + law.d - data.loss


def intervals(laws: Sequence[RoutedLaw]) -> dict[str, tuple[float, float]]:
    """95 % intervals of the constants."""
    return {name: resample.interval(np.array([getattr(law, name) for law in laws])) for name in NAMES} if laws else {}
