"""What the comparison's page shows of gaps and losses: rows of forest plots, ladder, pool sweep, curves.

Plain values of result.json in, SVG with the numbers to stand beside it out. Runs go together that share arm, rate and tokens. Names
of contrasts and arms are those of `train.compare.jobs`; what no contrast says (the ladder over its foot, matched pools
in parts over the second arm) is taken from the runs' bits by `train.gaps`, as the contrasts are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from pipelines.report import svg, words
from train.gaps import estimate, tabulate
from train.verdict import LEVEL, MARGIN, decide

GROUPS = {
    "positives": "the classifier's own positives",
    "unseen": "curated, seen by no classifier",
    "web": "held-out web",
    "junk": "junk",
}
_CURVE_POINTS = 50
_APART = 0.012  # of a chart's width: whiskers of one place stand side by side


# -- runs, domains, numbers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one arm at one rate and length. `label`: the arm, with rate and tokens where it has several groups."""

    label: str
    arm: str
    rate: float
    tokens: int
    runs: tuple[Mapping[str, Any], ...]


def grouped(runs: Iterable[Mapping[str, Any]]) -> list[Group]:
    """All runs by arm, rate and tokens, in the order of their first runs."""
    found: dict[tuple[str, float, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["arm"], run["rate"], run["tokens"]), []).append(run)
    arms = [arm for arm, _, _ in found]
    return [
        Group(arm if arms.count(arm) == 1 else f"{arm}, rate {rate:g}, {tokens:,} tokens", arm, rate, tokens, tuple(some))
        for (arm, rate, tokens), some in found.items()
    ]


def of_arm(groups: Iterable[Group], arm: str) -> Group | None:
    """The group that the contrasts of this arm rest on: the one with the most runs, the first among equals."""
    return max((group for group in groups if group.arm == arm), key=lambda group: len(group.runs), default=None)


def domains(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(group, domain) of every evaluation set, in the order of GROUPS, then by name."""
    places = {name: place for place, name in enumerate(GROUPS)}
    named = ((one["group"], name) for name, one in result["sets"].items())
    return sorted(named, key=lambda pair: (places.get(pair[0], len(places)), *pair))


def gap(value: float | None) -> str:
    """A gap in bits per byte, with its sign."""
    return "–" if value is None else f"{value:+.4f}"


def interval(finding: Mapping[str, Any]) -> str:
    """Its two ends; or that there is none: one seed, or one cluster of documents."""
    span = ends(finding)
    return f"{gap(span[0])} to {gap(span[1])}" if span else "no interval"


def ends(one: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if one["low"] is None or one["high"] is None else (one["low"], one["high"])


def measured(result: Mapping[str, Any], first: Group, second: Group) -> dict[str, Any] | None:
    """The finding of two groups on the primary endpoint over the seeds that both have; None without one, or without documents."""
    seeds = sorted({run["seed"] for run in first.runs} & {run["seed"] for run in second.runs})
    at = [n for n, one in enumerate(result["documents"]) if one["leaked"] is None]
    if not seeds or not {result["documents"][n]["domain"] for n in at} >= set(result["endpoint"]):
        return None
    rows = [{run["seed"]: [run["bits"][n] for n in at] for run in group.runs} for group in (first, second)]
    first_SN, second_SN = (np.array([by_seed[seed] for seed in seeds]) for by_seed in rows)
    documents = [result["documents"][n] for n in at]
    sizes, clusters, names = ([one[key] for one in documents] for key in ("bytes", "cluster", "domain"))
    found = decide(estimate(tabulate(first_SN, second_SN, np.array(sizes), clusters, names), result["endpoint"]), LEVEL)
    low, high = (None if math.isinf(end) else end for end in (found.low, found.high))
    numbers = {"gap": found.estimate.gap, "low": low, "high": high, "level": LEVEL, "seed_gaps": list(found.estimate.seed_gaps)}
    return {**numbers, "verdict": str(found.verdict), "seeds": found.estimate.seeds, "flip_p": found.estimate.flip_p()}


# -- forest plots -------------------------------------------------------------------------------------------------------------


def _scale(findings: Sequence[Mapping[str, Any]]) -> svg.Scale:
    points = [value for one in findings for value in (one["gap"], *one["seed_gaps"])]
    return svg.scale(points, [end for one in findings for end in (one["low"], one["high"])], MARGIN)


def _line(on: svg.Scale, name: str, below: str, finding: Mapping[str, Any], contrast: Any = None) -> dict[str, Any]:
    """A row with the numbers that stand beside it."""
    title = f"{name}: gap {gap(finding['gap'])}, {interval(finding)} at {100 * finding['level']:.4g} %"
    told = f"Single seeds: {', '.join(gap(one) for one in finding['seed_gaps'])}. {finding['verdict']}"
    drawn = svg.row(on, finding["gap"], ends(finding), words.visible(title), words.visible(told), finding["seed_gaps"], MARGIN)
    return {"name": name, "below": below, "finding": finding, "plot": drawn, "contrast": contrast}


def gaps(result: Mapping[str, Any], primary: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The primary contrast: the endpoint, then the domains by group."""
    if primary is None:
        return None
    on = _scale([primary["endpoint"], *primary["domains"].values()])
    top = _line(on, "Primary endpoint", f"mean over {', '.join(result['endpoint'])}", primary["endpoint"])
    by_group: dict[str, list[dict[str, Any]]] = {}
    for group, name in domains(result):
        if name in primary["domains"]:
            by_group.setdefault(group, []).append(_line(on, name, "", primary["domains"][name]))
    named = [(GROUPS.get(group, group), rows) for group, rows in by_group.items()]
    return {"axis": svg.axis(on, signs=True), "top": top, "groups": named}


def forest(contrasts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A row a contrast, in this order: its finding on the primary endpoint, with its question."""
    if not contrasts:
        return None
    on = _scale([one["endpoint"] for one in contrasts])
    named = [(f"{one['first']} against {one['second']}", one) for one in contrasts]
    return {
        "axis": svg.axis(on, signs=True),
        "rows": [_line(on, name, one["question"], one["endpoint"], one) for name, one in named],
    }


def removal(contrasts: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The first contrast that has both, after the removal of leaked documents and before; `all`: every one that has both."""
    both = [one for one in contrasts if one.get("before_removal")]
    if not both:
        return None
    first = both[0]
    on = _scale([first["endpoint"], first["before_removal"]])
    rows = [
        _line(on, "After removal", f"{first['first']} against {first['second']}: the result", first["endpoint"]),
        _line(on, "Before removal", "with the documents that leaked: not the result", first["before_removal"]),
    ]
    return {"axis": svg.axis(on, signs=True), "rows": rows, "all": both}


def ladder(result: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any] | None:
    """Every step over the one before (contrasts `ladder_...`, then the primary one), and every step over the ladder's foot."""
    steps = [one for one in result["contrasts"] if one["name"].startswith("ladder_")]
    if not steps:
        return None
    foot = steps[0]["second"]
    steps += [one for one in result["contrasts"] if one["name"] == "primary"]
    lowest = of_arm(groups, foot)
    over = []
    for one in steps:
        mine = of_arm(groups, one["first"])
        found = measured(result, mine, lowest) if mine and lowest else None
        if found:
            over.append({"first": one["first"], "second": foot, "question": "", "endpoint": found})
    return {"foot": foot, "single": forest(steps), "over": forest(over)}


# -- pools that are gone through more often -----------------------------------------------------------------------------------


def sweep(result: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any] | None:
    """Gap against pool size in three lines: the first arm in parts over the second arm, matched random in the same parts over the
    second arm (from the runs), and the two against each other. Whole pools are the contrasts primary, sources and matched."""
    contrasts = {one["name"]: one for one in result["contrasts"]}
    parts = sorted(int(match[1]) for name in contrasts if (match := re.fullmatch(r"sweep_([0-9]+)", name)))
    if not parts:
        return None
    second = result["primary"][1]
    first, second = result["primary"]
    wanted = (
        (f"{first} against {second}", "primary", [contrasts.get(f"sweep_{part}") for part in parts]),
        (f"matched against {second}", "sources", [_of_runs(result, groups, f"matched_{part}", second) for part in parts]),
        (f"{first} against matched", "matched", [contrasts.get(f"sweep_{part}_matched") for part in parts]),
    )
    found: list[tuple[str, list[tuple[int, Any]]]] = []
    for label, whole, one_a_part in wanted:
        points = [(part, one) for part, one in zip([1, *parts], [contrasts.get(whole), *one_a_part], strict=True) if one]
        if any(part > 1 for part, _ in points):
            found.append((label, points))
    places = dict(zip([1, *parts], svg.evenly([1 / part for part in (1, *parts)]), strict=True))
    series, said, rows = [], [], []
    for n, (label, points) in enumerate(found):
        x = tuple(places[part] + _APART * (n - 1) for part, _ in points)
        gaps_and_ends = (tuple(one["endpoint"][key] for _, one in points) for key in ("gap", "low", "high"))
        series.append(svg.Series(f"c{n}", x, *gaps_and_ends))
        told = [f"{gap(one['endpoint']['gap'])} at {_part(part)}" for part, one in points]
        said.append(f"{label}: {', '.join(told)}")
        rows += [(one, _part(part), _pool(result, groups, one["first"])) for part, one in points]
    on = _scale([one["endpoint"] for _, points in found for _, one in points])
    ticks = [(place, _part(part)) for part, place in places.items()]
    span = (on.ticks[0], on.ticks[-1])
    labels = ("part of the pool; equal tokens of training", "gap, bits per byte")
    chart = svg.lines(series, ticks, labels, "Gap against pool size", words.visible("; ".join(said)), bars=True, span=span)
    return {"chart": chart, "key": [(f"c{n}", label) for n, (label, _) in enumerate(found)], "rows": rows}


def _part(divisor: int) -> str:
    return f"1/{divisor}" if divisor > 1 else "whole"


def _of_runs(result: Mapping[str, Any], groups: Sequence[Group], first: str, second: str) -> dict[str, Any] | None:
    """A contrast that the result does not have, where the runs of both arms are there."""
    pair = [of_arm(groups, first), of_arm(groups, second)]
    found = measured(result, pair[0], pair[1]) if pair[0] and pair[1] else None
    return {"first": first, "second": second, "endpoint": found} if found else None


def _pool(result: Mapping[str, Any], groups: Sequence[Group], arm: str) -> tuple[int | None, float | None]:
    """(tokens of an arm's pool, how often a run goes through it)."""
    group = of_arm(groups, arm)
    if group is None:
        return None, None
    pool = result["pools"].get(group.runs[0]["pool"])
    return pool["tokens"] if pool else None, group.runs[0]["epochs"]


# -- curves and rates ---------------------------------------------------------------------------------------------------------


def curves(primary: Sequence[str], groups: Sequence[Group]) -> dict[str, Any] | None:
    """Training loss of every group: the primary's two in one chart, each other beside the primary's second arm."""
    drawn = {group.label: curve for group in groups if (curve := mean_curve(group))}
    if not drawn:
        return None
    late = [value for curve in drawn.values() for tokens, *values in curve if 10 * tokens >= curve[-1][0] for value in values]
    span = (min(late), max(late))
    runs = {group.label: len(group.runs) for group in groups}
    pair = [group.label for arm in primary if (group := of_arm(groups, arm)) and group.label in drawn]

    def charted(key: list[tuple[str, str]]) -> dict[str, Any]:
        return {"key": key, "chart": _curve_chart([(style, label, drawn[label]) for style, label in key], span)}

    others = [charted([("c0", label), *(("cx", beside) for beside in pair[-1:])]) for label in drawn if label not in pair]
    rows = [(label, runs[label], curve[-1]) for label, curve in drawn.items()]
    first = charted([(f"c{n}", label) for n, label in enumerate(pair)]) if pair else None
    return {"primary": first, "others": others, "rows": rows}


def mean_curve(group: Group) -> list[tuple[int, float, float, float]]:
    """(tokens, mean, lowest, highest training loss) over the group's runs, where all of them have a point."""
    by_tokens: dict[int, list[float]] = {}
    for run in group.runs:
        for tokens, loss in run["curve"]:
            by_tokens.setdefault(tokens, []).append(loss)
    whole = sorted((tokens, losses) for tokens, losses in by_tokens.items() if len(losses) == len(group.runs))
    return [(tokens, math.fsum(losses) / len(losses), min(losses), max(losses)) for tokens, losses in whole]


def _curve_chart(curves: Sequence[tuple[str, str, list[tuple[int, float, float, float]]]], span: tuple[float, float]) -> Markup:
    most = max(curve[-1][0] for _, _, curve in curves)
    series = []
    for style, _, curve in curves:
        late = [point for point in curve if 10 * point[0] >= curve[-1][0]]
        tokens, means, lows, highs = zip(*svg.thinned(late, _CURVE_POINTS), strict=True)
        band = (lows, highs) if style != "cx" else ((), ())
        series.append(svg.Series(style, tuple(one / most for one in tokens), means, *band))
    ticks = [(place, svg.short(most * place)) for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    said = "; ".join(f"{label} ends at {curve[-1][1]:.4f} nats a token" for _, label, curve in curves)
    return svg.lines(series, ticks, ("tokens", "nats a token"), "Training loss", words.visible(said), span=span)


def pilot(rate: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pilot's losses by learning rate; `edge`: the chosen rate is the lowest or the highest that was tried."""
    tried = sorted(rate.get("pilot") or [], key=lambda one: one["rate"])
    finite = [one for one in tried if one["loss"] is not None]
    if not finite:
        return None
    places = svg.evenly([one["rate"] for one in finite])
    series = svg.Series("c0", tuple(places), tuple(one["loss"] for one in finite))
    ticks = [(place, f"{one['rate']:g}") for place, one in zip(places, finite, strict=True)]
    said = "; ".join(f"{one['rate']:g}: {one['loss']:.4f}" for one in finite)
    chart = svg.lines([series], ticks, ("learning rate", "loss, nats a token"), "Pilot of the learning rate", said, bars=True)
    edge = len(tried) > 1 and rate["chosen"] in (tried[0]["rate"], tried[-1]["rate"])
    return {"chart": chart, "tried": tried, "chosen": rate["chosen"], "edge": edge}


# -- experts, tasks, bias -----------------------------------------------------------------------------------------------------
