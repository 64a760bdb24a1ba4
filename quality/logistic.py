"""Weighted logistic regression under L2, by L-BFGS, in fixed order: the same bytes on any machine with any threads.

    minimise  sum_i s_i log(1 + exp(-y_i (w . x_i + b))) + l2 / 2 |w|^2        y in {-1, 1}, sum_i s_i = 1

Rows are sets of features: x_i has 1 / sqrt(features of i) in each of them. The problem is strictly convex in w, so what is
found does not depend on how; tests hold it to scikit-learn. Sums run in a compiled loop rather than in BLAS, whose order (and
so last bits) follows the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quality.text import kernel

_MEMORY = 8
_MAX_ITERATIONS = 200
TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Rows:
    """Sets of features: indices int32 [total] in rows indptr int64 [n + 1]; scale float64 [n] = 1 / sqrt(row size)."""

    indptr: np.ndarray
    indices: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.scale)

    def take(self, chosen: np.ndarray) -> Rows:
        """The rows at int64 [m]."""
        indptr = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum(np.diff(self.indptr)[chosen], out=indptr[1:])
        indices = np.empty(indptr[-1], np.int32)
        _copy_rows(self.indptr, self.indices, chosen, indptr, indices)
        return Rows(indptr, indices, self.scale[chosen])


@kernel
def _copy_rows(
    indptr: np.ndarray, indices: np.ndarray, chosen: np.ndarray, out_indptr: np.ndarray, out_indices: np.ndarray
) -> None:
    for row in range(chosen.shape[0]):
        start = indptr[chosen[row]]
        for i in range(out_indptr[row + 1] - out_indptr[row]):
            out_indices[out_indptr[row] + i] = indices[start + i]


@kernel
def margins(indptr: np.ndarray, indices: np.ndarray, scale: np.ndarray, point: np.ndarray, out: np.ndarray) -> None:
    """out float64 [n] = w . x + b, with b the last entry of point."""
    bias = point[point.shape[0] - 1]
    for row in range(indptr.shape[0] - 1):
        total = 0.0
        for i in range(indptr[row], indptr[row + 1]):
            total += point[indices[i]]
        out[row] = total * scale[row] + bias


@kernel
def _objective(
    indptr: np.ndarray,
    indices: np.ndarray,
    scale: np.ndarray,
    signs: np.ndarray,
    shares: np.ndarray,
    l2: float,
    point: np.ndarray,
    gradient: np.ndarray,
    pairs: np.ndarray,
) -> float:
    """The objective at `point`; fills its gradient. pairs: float64 [size, 2], scratch.

    A feature's weight and slope lie side by side while the rows are walked: a row that reads the one has fetched the other.
    """
    last = point.shape[0] - 1
    value = 0.0
    for i in range(last):
        pairs[i, 0] = point[i]
        pairs[i, 1] = l2 * point[i]
        value += 0.5 * l2 * point[i] * point[i]
    gradient[last] = 0.0
    for row in range(indptr.shape[0] - 1):
        total = 0.0
        for i in range(indptr[row], indptr[row + 1]):
            total += pairs[indices[i], 0]
        z = signs[row] * (total * scale[row] + point[last])
        if z > 0:
            tail = np.exp(-z)
            value += shares[row] * np.log1p(tail)
            slope = tail / (1.0 + tail)
        else:
            tail = np.exp(z)
            value += shares[row] * (np.log1p(tail) - z)
            slope = 1.0 / (1.0 + tail)
        push = -shares[row] * signs[row] * slope
        gradient[last] += push
        push *= scale[row]
        for i in range(indptr[row], indptr[row + 1]):
            pairs[indices[i], 1] += push
    for i in range(last):
        gradient[i] = pairs[i, 1]
    return value


@kernel
def _dot(left: np.ndarray, right: np.ndarray) -> float:
    """In eight interleaved sums, added in one order: as fast as vectors allow, and the same on any machine."""
    sums = np.zeros(8)
    whole = left.shape[0] // 8 * 8
    for i in range(0, whole, 8):
        for lane in range(8):
            sums[lane] += left[i + lane] * right[i + lane]
    for i in range(whole, left.shape[0]):
        sums[i - whole] += left[i] * right[i]
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


@kernel
def _largest(values: np.ndarray) -> float:
    """The largest absolute value."""
    largest = 0.0
    for i in range(values.shape[0]):
        largest = max(largest, abs(values[i]))
    return largest


@kernel
def _add_scaled(left: np.ndarray, factor: float, right: np.ndarray, out: np.ndarray) -> None:
    """out = left + factor * right. One pass, and no array between: a vector has megabytes, and new memory costs more than sums."""
    for i in range(left.shape[0]):
        out[i] = left[i] + factor * right[i]


@dataclass(frozen=True, slots=True)
class Fitted:
    """point: float64 [size + 1], weights and, last, the bias. converged: the gradient came under the tolerance."""

    point: np.ndarray
    iterations: int
    converged: bool


def fit(
    rows: Rows,
    signs: np.ndarray,
    shares: np.ndarray,
    l2: float,
    size: int,
    start: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> Fitted:
    """The minimum over `size` features. signs: float64 [n] of -1 and 1; shares: float64 [n], summing to 1; l2 > 0.

    start: where to begin, float64 [size + 1]; tolerance: of the gradient's largest entry.
    """
    used, indices = _compact(rows.indices, size)
    point = np.zeros(len(used) + 1) if start is None else np.append(start[used], start[-1])
    gradient, pairs = np.empty_like(point), np.empty((len(used), 2))

    def objective(at: np.ndarray, slope: np.ndarray) -> float:
        return float(_objective(rows.indptr, indices, rows.scale, signs, shares, l2, at, slope, pairs))

    value = objective(point, gradient)
    history: list[tuple[np.ndarray, np.ndarray, float]] = []
    iterations = 0
    while _largest(gradient) > tolerance and iterations < _MAX_ITERATIONS:
        iterations += 1
        direction = _direction(gradient, history)
        slope = _dot(gradient, direction)
        step = 1.0 if history else min(1.0, 1.0 / _largest(gradient))
        candidate, new_gradient = np.empty_like(point), np.empty_like(point)
        for _ in range(40):  # backtracking: enough for a convex objective
            _add_scaled(point, step, direction, candidate)
            new_value = objective(candidate, new_gradient)
            if new_value <= value + 1e-4 * step * slope:
                break
            step *= 0.5
        else:
            break  # no step improves on the point within float precision
        moved, turned = candidate - point, new_gradient - gradient
        curvature = _dot(moved, turned)
        if curvature > 0:
            history = [*history[-(_MEMORY - 1) :], (moved, turned, 1.0 / curvature)]
        point, value, gradient = candidate, new_value, new_gradient
    found = np.zeros(size + 1)
    found[used], found[-1] = point[:-1], point[-1]
    return Fitted(found, iterations, bool(_largest(gradient) <= tolerance))


def _compact(indices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(features that occur, int64 [used]; indices into them, uint32 [total]): those that do not have the weight 0.

    Compiled code need not ask of an index without a sign whether it counts from the end: the inner loops are a third faster.
    """
    places, found = np.zeros(size, np.uint32), np.empty(len(indices), np.uint32)
    return _number(indices, places, found), found


@kernel
def _number(indices: np.ndarray, places: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The distinct indices in rising order; fills found, uint32 [total]: where among them each is. places: uint32 [size], zeros."""
    for i in range(indices.shape[0]):
        places[indices[i]] = 1
    used = np.flatnonzero(places)
    for i in range(used.shape[0]):
        places[used[i]] = i
    for i in range(indices.shape[0]):
        found[i] = places[indices[i]]
    return used


def _direction(gradient: np.ndarray, history: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """The two-loop recursion (Nocedal 1980)."""
    direction = -gradient
    factors = []
    for moved, turned, inverse in reversed(history):
        factor = inverse * _dot(moved, direction)
        factors.append(factor)
        _add_scaled(direction, -factor, turned, direction)
    if history:
        moved, turned, inverse = history[-1]
        direction *= 1.0 / (inverse * _dot(turned, turned))
    for (moved, turned, inverse), factor in zip(history, reversed(factors), strict=True):
        _add_scaled(direction, factor - inverse * _dot(turned, direction), moved, direction)
    return direction
