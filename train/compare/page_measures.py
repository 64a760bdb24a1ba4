"""What the comparison's page shows beside gaps: routing of experts as heat maps, shares of tasks and biases by arm.

Plain values of result.json in, SVG with the numbers to stand beside it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.report import svg, words
from train.compare import page_figures as figures


def experts(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """A heat map of routing shares an arm and sparse layer (of one seed: the experts of two have nothing in common but their
    number), beside mutual information with the domain as result.json has it."""
    found = result.get("experts") or {}
    means = [{**one, "layer": "mean"} for one in found.get("mean") or []]
    information, routing = [*means, *(found.get("layers") or [])], found.get("routing") or {}
    if not information and not routing:
        return None
    order = {name: place for place, (_, name) in enumerate(figures.domains(result))}
    every = [layer for by_domain in routing.values() for layers in by_domain.values() for layer in layers]
    most = max((share for layer in every for share in layer), default=0.0)
    maps = []
    for arm in _arms(result, routing):
        named = sorted(routing[arm].items(), key=lambda one: (order.get(one[0], len(order)), one[0]))
        for layer in range(min((len(rows) for _, rows in named), default=0)):
            rows = [(name, layers[layer]) for name, layers in named]
            labelled = [(words.trimmed(words.visible(name), 15), shares) for name, shares in rows]
            title = f"{arm}, layer {layer}: share of routed tokens by domain and expert, in percent"
            chart = svg.heat(labelled, most, words.visible(title), "The numbers are in the table below.")
            maps.append({"layer": layer, "arm": arm, "rows": rows, "chart": chart})
    return {"layers": information, "maps": maps, "most": most}


_WHOLE = svg.Scale(-0.06, 1.06, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
# Tests of bias of which a half means something, and what.
_HALF = {"crows_pairs": "no preference", "winogender": "a guess"}


def _arms(result: Mapping[str, Any], found: Iterable[str]) -> list[str]:
    """Arms in the order of their first runs, others after them by name."""
    order = list(dict.fromkeys(run["arm"] for run in result["runs"]))
    return sorted(found, key=lambda arm: (order.index(arm) if arm in order else len(order), arm))


def _share(on: svg.Scale, what: str, arm: str, value: float, one: Mapping[str, Any], guess: float | None) -> dict[str, Any]:
    span = figures.ends(one)
    said = f"{value:.4f}, {span[0]:.4f} to {span[1]:.4f}" if span else f"{value:.4f}, no interval"
    line = (guess, "chance") if guess is not None else None
    drawn = svg.row(on, value, span, words.visible(f"{what}, {arm}: {said}"), f"{one['items']:,} items", line=line)
    return {"name": arm, "value": value, "one": one, "ends": span, "plot": drawn}


def tasks(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """A task after the other, by name, with a row an arm, and the first arm less the second; tests of bias stand there."""
    found = []
    differences = result.get("task_differences") or {}
    for task, by_arm in sorted((result.get("tasks") or {}).items()):
        if not _as_bias(task):
            shown = [(arm, by_arm[arm]) for arm in _arms(result, by_arm)]
            rows = [_share(_WHOLE, task, arm, one["acc"], one, one["chance"]) for arm, one in shown]
            found.append((task, rows, differences.get(task)))
    return {"axis": svg.axis(_WHOLE, signs=False), "tasks": found} if found else None


def _as_bias(task: str) -> tuple[str, str] | None:
    """(test, category) of a task that is one of bias: crows_pairs/age, winogender_female; the whole test is "all"."""
    for test in _HALF:
        if task.startswith(test):
            return test, task[len(test) :].lstrip("/_, ") or "all"
    return None


def _tests(result: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{test: {arm: {category: share with its interval}}} of `bias`, and of tasks where `bias` does not have the test."""
    measured = result.get("bias") or {}
    found = {test: dict(one["arms"]) for test, one in measured.items()}
    for task, by_arm in (result.get("tasks") or {}).items():
        named = _as_bias(task)
        if named and named[0] not in measured:
            for arm, one in by_arm.items():
                found.setdefault(named[0], {}).setdefault(arm, {})[named[1]] = {**one, "share": one["acc"]}
    return found


def bias(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A test after the other, by name, with its categories by name, in these a row an arm; and the second arm less the first."""
    found, measured = [], result.get("bias") or {}
    for test, by_arm in sorted(_tests(result).items()):
        every = [one for by_category in by_arm.values() for one in by_category.values()]
        if not every:
            continue
        half = _HALF.get(test)
        ends = [value for one in every for value in (one["share"], one["low"], one["high"]) if value is not None]
        on = _WHOLE if half else svg.padded([0.0, *ends])
        rows = []
        categories = {name for by_category in by_arm.values() for name in by_category}
        for category in sorted(categories, key=lambda one: (one != "all", one)):
            shown = [(arm, by_arm[arm][category]) for arm in _arms(result, by_arm) if category in by_arm[arm]]
            what = f"{test}, {category}"
            rows.append((category, [_share(on, what, arm, one["share"], one, 0.5 if half else None) for arm, one in shown]))
        differences = measured[test]["differences"] if test in measured else {}
        ordered = sorted(differences.items(), key=lambda one: (one[0] != "all", one[0]))
        found.append({"test": test, "half": half, "axis": svg.axis(on, signs=False), "rows": rows, "differences": ordered})
    return found
