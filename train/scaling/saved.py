"""What `winnow train scaling fit` finds, as JSON documents, and the parametric one read back for the planner."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pipelines.errors import UserError
from train.scaling import fit, frontier, routed
from train.scaling.laws import LossLaw, Range
from train.scaling.planner import OwnLaw
from train.scaling.rows import Rows

CONSTANTS = ("e", "a", "b", "alpha", "beta")
_RANGES = ("params", "tokens", "flops")


def parametric_json(found: fit.Fit, rows: Rows, seed: int) -> dict[str, Any]:
    """Of approach 3. `resamples` hold e, a, b, alpha, beta each, for the intervals of any later question."""
    constants = {name: getattr(found.law, name) for name in CONSTANTS}
    return {
        "approach": "3", "file": rows.path, "rows": found.rows, "seed": seed, "law": constants, "exponent": found.law.exponent,
        "intervals": fit.intervals(found.resamples), "objective": found.objective,
        "range": {name: [float(rows[name].min()), float(rows[name].max())] for name in _RANGES},
        "lost": found.lost, "resamples": [[getattr(law, name) for name in CONSTANTS] for law in found.resamples],
    }  # fmt: skip


def frontier_json(approach: str, found: frontier.Frontier, rows: Rows, seed: int) -> dict[str, Any]:
    """Of approaches 1 and 2."""
    facts = {**asdict(found), "intervals": frontier.intervals(found)}
    resamples = facts.pop("resamples")
    return {"approach": approach, "file": rows.path, "seed": seed, **facts, "resamples": resamples}


def routed_json(found: routed.RoutedFit, rows: Rows, seed: int) -> dict[str, Any]:
    """Of the routed law."""
    return {
        "approach": "routed", "file": rows.path, "rows": found.rows, "seed": seed,
        "law": {name: getattr(found.law, name) for name in routed.NAMES}, "intervals": routed.intervals(found.resamples),
        "error": found.error, "lost": found.lost,
        "resamples": [[getattr(law, name) for name in routed.NAMES] for law in found.resamples],
    }  # fmt: skip


def load(path: str) -> OwnLaw:
    """The parametric fit in a file. Raises UserError on anything else."""
    way = "give what `winnow train scaling fit FILE.csv --json` printed"
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {way}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); {way}") from error
    if not isinstance(content, dict) or content.get("approach") != "3":
        raise UserError(f"{path}: not a fit of approach 3, which alone has a law of the loss; {way}")
    try:
        law = _law([content["law"][name] for name in CONSTANTS])
        ranges = {name: (float(content["range"][name][0]), float(content["range"][name][1])) for name in _RANGES}
        return OwnLaw(law, tuple(_law(values) for values in content["resamples"]), Range(**ranges), int(content["lost"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: a damaged fit ({type(error).__name__}: {error}); {way}") from error


def _law(values: list[Any]) -> LossLaw:
    if len(values) != len(CONSTANTS) or not all(isinstance(value, float | int) and value > 0 for value in values):
        raise ValueError(f"a law is five numbers above 0: {values!r:.60}")
    return LossLaw(fit.NAME, *(float(value) for value in values))
