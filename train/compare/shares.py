"""Shares of items: by category, with intervals over seeds and items, and the contrast of two arms, paired.

A measure of `train.compare.bias` asks a model many items and each has an outcome in [0, 1]. An arm's share is the mean over its
runs (one a seed) and their items.

* **Intervals** (95 %) are Wilson's (1927) with Student's t and as many items as the clustered ones are worth (Kish 1965, "Survey
  Sampling", the design effect): items of one cluster (an occupation, a prompt's document) are not independent.
* With one run the interval says nothing of other seeds (`over`: "items"). With two or more its variance is that of `train.gaps`:
  of seeds, and of clusters of items, less what stands in both (`over`: "seeds and items"). With one cluster it is 0 to 1.
* Where every cluster has the same outcome no variance is seen; then each cluster counts as one item, which is the fewest it can be.
* **A contrast** is the second arm's share less the first's, run by run and item by item; its interval and sign-flip p are those of
  `train.gaps`, an item standing as a document of one byte.

Categories are many and their intervals are one at a time: of twenty, one is expected to miss.

Shapes: S runs, N items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import UserError
from train import gaps

LEVEL = 0.95
Row = Mapping[str, Any]  # {"item", "cluster", "categories": [...], "outcome"}, and "by_byte" where likelihoods were compared
Result = dict[str, Any]  # {"measure", "categories": {category: as `share` and the mean of by_byte}, "items": [Row]}


def result(measure: str, rows: Sequence[Row]) -> Result:
    """What a measure gives of one run: shares by category, "all" first, and the outcomes."""
    return {"measure": measure, "categories": _categories([rows]), "items": rows}


def summarise(runs_by_arm: Mapping[str, Sequence[Result]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{arm: {category: row}} of one measure, each arm's runs (one a seed) together. Raises UserError where their items differ."""
    return {arm: _categories(_aligned(arm, runs)) for arm, runs in runs_by_arm.items()}


def contrast(first: Sequence[Result], second: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """{category: {difference, low, high, flip_p, items, clusters, seeds}}: the second arm's share less the first's.

    Runs in the same place have the same seed. With one run, or one cluster, low and high are unknown: null. Raises UserError where
    runs do not pair or were asked different items.
    """
    if len(first) != len(second):
        raise UserError(f"{len(first)} runs of the first arm, {len(second)} of the second: pair them by seed")
    both = _aligned("both arms", [*first, *second])
    found = {}
    for category, at in _members(both[0]).items():
        items = [both[0][place] for place in at]
        outcome_SN = _outcomes(both, at, "outcome")
        estimate = _estimate(outcome_SN[: len(first)], outcome_SN[len(first) :], items)
        low, high = estimate.interval(LEVEL)
        found[category] = {
            "difference": estimate.gap,
            "low": low if math.isfinite(low) else None,
            "high": high if math.isfinite(high) else None,
            "flip_p": estimate.flip_p(),
            "items": len(items),
            "clusters": estimate.clusters,
            "seeds": len(first),
        }
    return found


def _aligned(arm: str, runs: Sequence[Result]) -> list[Sequence[Row]]:
    if not runs:
        raise UserError(f"{arm}: no runs to take a share of")
    names = [[(row["item"], row["cluster"], row["categories"]) for row in run["items"]] for run in runs]
    if any(some != names[0] for some in names):
        raise UserError(f"{arm}: the runs were asked different items of {runs[0]['measure']}; run them again on the same files")
    return [run["items"] for run in runs]


def _members(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Places of each category's items: all of them first, then categories by name."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        for category in row["categories"]:
            found.setdefault(category, []).append(place)
    return {"all": list(range(len(rows))), **dict(sorted(found.items()))}


def _categories(runs: Sequence[Sequence[Row]]) -> dict[str, dict[str, Any]]:
    rows = {}
    for category, at in _members(runs[0]).items():
        row = share([runs[0][place]["cluster"] for place in at], _outcomes(runs, at, "outcome"))
        if "by_byte" in runs[0][0]:
            row["by_byte"] = float(_outcomes(runs, at, "by_byte").mean())
        rows[category] = row
    return rows


def _outcomes(runs: Sequence[Sequence[Row]], at: Sequence[int], key: str) -> np.ndarray:
    """float64 [S, N]."""
    return np.array([[run[place][key] for place in at] for run in runs], np.float64)


def share(clusters: Sequence[str], outcome_SN: np.ndarray) -> dict[str, Any]:
    """{share, low, high, items, clusters, seeds, over}: the mean of outcomes in [0, 1], columns items of these clusters."""
    seeds, items = outcome_SN.shape
    found = _estimate(np.zeros_like(outcome_SN), outcome_SN, [{"cluster": one} for one in clusters])
    variance = found.variance if seeds > 1 else found.document_variance
    freedom = found.freedom if seeds > 1 else float(found.clusters - 1)
    p = min(1.0, max(0.0, found.gap))
    worth = min(p * (1 - p) / variance, seeds * items) if variance > 0 else math.inf
    low, high = 0.0, 1.0
    if variance == 0:
        worth, freedom = found.clusters, found.clusters - 1.0
    if math.isfinite(variance):
        low, high = wilson(p, worth, gaps.student_quantile((1 + LEVEL) / 2, freedom))
    told = {"share": p, "low": low, "high": high, "items": items, "clusters": found.clusters, "seeds": seeds}
    return {**told, "over": "seeds and items" if seeds > 1 else "items"}


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """The score interval of a share of n items (Wilson 1927, "Probable inference, the law of succession ...", JASA 22)."""
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def _estimate(first_SN: np.ndarray, second_SN: np.ndarray, rows: Sequence[Row]) -> gaps.Estimate:
    """`gaps.estimate` of outcomes: an item is a document of one byte."""
    names = [str(row["cluster"]) for row in rows]
    cells = gaps.tabulate(first_SN, second_SN, np.ones(len(rows), np.int64), names, [""] * len(rows))
    return gaps.estimate(cells, [""])
