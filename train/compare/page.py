"""index.html of a comparison: one self-contained page, a pure function of result.json and costs.json.

The verdict comes first, then what it rests on: gaps, controls, ladder, pool sweep, curves, evaluation sets, experts, tasks, bias,
costs, limits, and how to take it all again. No script, a strict content policy, readable on paper. What was not run is said in a
sentence. Names and sentences are escaped by the template, control and bidirectional characters shown as boxes. The order of keys
changes no byte: domains stand by group and name, arms as their first run does.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from pipelines.report import svg, words
from train.compare import page_figures as figures
from train.compare import page_measures as measures
from train.compare.page_figures import GROUPS, Group
from train.verdict import MARGIN, MIN_SEEDS, Verdict

CONTROLS = {
    "primary": "the filter",
    "matched": "choice of documents",
    "sources": "choice of sources",
    "aa": "nothing (A/A)",
    "cut": "draw against hard cut",
    "second": "another classifier",
    "positives": "the choice of positives",
    "glam": "GLaM's mixture",
}
_CARDS = (
    ("The gap", "primary"),
    ("Is it the documents' quality?", "matched"),
    ("Or the choice of sources?", "sources"),
    ("Is something found where nothing is?", "aa"),
)
# Behind the report's style sheet; series are told apart by colour and by dashes.
STYLE = """
.said { border: 1px solid var(--line); border-left: .4rem solid var(--soft); border-radius: .3rem; padding: .8rem 1rem; margin:
  1.2rem 0; }
.said.better { border-left-color: var(--kept); } .said.worse { border-left-color: var(--bad); }
.said.few { border-left-color: var(--rules); } .said p { max-width: 58rem; overflow-wrap: anywhere; }
.said .big { font-size: 1.4rem; line-height: 1.3; font-weight: 600; margin: 0 0 .3rem; } .faint { opacity: .08; }
td.seeds { min-width: 15rem; } .four { grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); }
.card .big { overflow-wrap: anywhere; } .card h2 { margin: 0; } .forest { margin: .6rem 0 1rem; }
.forest h4 { margin: .7rem 0 .1rem; color: var(--soft); font-weight: 500; }
.line { display: grid; grid-template-columns: minmax(0, 14rem) minmax(0, 1fr) 11.5rem; gap: 0 1rem; align-items: center;
  border-bottom: 1px solid var(--line); }
.asked .line { grid-template-columns: minmax(0, 24rem) minmax(0, 1fr) 11.5rem; }
.line.scale { border-bottom: 0; font-size: .75rem; color: var(--soft); }
.what { font-size: .9rem; font-weight: 500; overflow-wrap: anywhere; padding: .15rem 0; }
.what span { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); line-height: 1.3; }
.num { text-align: right; font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; line-height: 1.25; }
.num span { display: block; font-size: .75rem; color: var(--soft); } .first .what, .first .num { font-weight: 700; }
.ends { display: flex; justify-content: space-between; gap: 1rem; } .ends span { overflow-wrap: anywhere; } .plot { width: 100%; }
.plot text { font: 11px system-ui, sans-serif; fill: var(--soft); text-anchor: middle; }
.band { fill: var(--all); fill-opacity: .35; } .zero { stroke: var(--soft); } .whisker { stroke: var(--kept); stroke-width: 3; }
.point { fill: var(--kept); } .seed { fill: none; stroke: var(--ink); stroke-opacity: .7; } .cut { fill: var(--kept); }
.chance { stroke: var(--quality); stroke-width: 2; stroke-dasharray: 3 2; }
.c { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .chart .area { stroke: none; fill-opacity: .2; }
.cap { stroke-width: 1.2; fill: none; } .c0 { stroke: var(--kept); } .c1 { stroke: var(--rules); stroke-dasharray: 6 3; }
.c2 { stroke: var(--language); stroke-dasharray: 2 2; } .c3 { stroke: var(--quality); stroke-dasharray: 8 2 2 2; }
.cx { stroke: var(--soft); stroke-dasharray: 1.5 2.5; } .area.c0, .dot.c0 { fill: var(--kept); background: var(--kept); }
.area.c1, .dot.c1 { fill: var(--rules); background: var(--rules); }
.area.c2, .dot.c2 { fill: var(--language); background: var(--language); }
.area.c3, .dot.c3 { fill: var(--quality); background: var(--quality); }
.area.cx, .dot.cx { fill: var(--soft); background: var(--soft); }
.spot { stroke-width: 4; stroke-linecap: round; stroke-dasharray: none; fill: none; }
.cap.c0, .cap.c1, .cap.c2, .cap.c3 { stroke-dasharray: none; } .chart .on { fill: var(--paper); }
.chart .ink { fill: var(--ink); } .frame { fill: none; stroke: var(--line); }
.limits li { margin: .3rem 0; max-width: 58rem; overflow-wrap: anywhere; }
section p { overflow-wrap: anywhere; max-width: 58rem; } code { overflow-wrap: anywhere; }
.tight .line { grid-template-columns: minmax(0, 1fr) auto; gap: 0 .6rem; padding-top: .35rem; }
.tight .line > svg { grid-column: 1 / -1; grid-row: 2; } .tight .line.scale { padding: 0; }
.tight .line.scale > span { display: none; } .tight .line.scale > svg { grid-row: auto; }
@media (max-width: 44rem) {
  .line, .asked .line { grid-template-columns: minmax(0, 1fr) auto; gap: 0 .6rem; padding-top: .35rem; }
  .line > svg, .line > .ends { grid-column: 1 / -1; } .line > svg { grid-row: 2; } .line.scale { padding: 0; }
  .line.scale > span:empty { display: none; } .line.scale > svg { grid-row: auto; }
}
@media print {
  .line { break-inside: avoid; }
}
"""
_CLASSES = {Verdict.BETTER: "better", Verdict.WORSE: "worse", Verdict.TOO_FEW: "few"}


def render(result: dict[str, Any], costs: dict[str, Any]) -> str:
    """The whole page, from the contents of result.json (format 1) and costs.json."""
    template, style = _template()
    contrasts = {one["name"]: one for one in result["contrasts"]}
    groups = figures.grouped(result["runs"])
    primary = contrasts.get("primary")
    return template.render(
        result=result,
        style=Markup(style),  # noqa: S704  (our own files)
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        margin=MARGIN,
        primary=primary,
        headline=headline(result["primary"], primary),
        cards=[(title, name, contrasts.get(name)) for title, name in _CARDS],
        arm_count=len(groups),
        domains=figures.domains(result),
        gaps=figures.gaps(result, primary),
        levels=levels(result, groups),
        controls=figures.forest([contrasts[name] for name in CONTROLS if name in contrasts]),
        not_run=[f"{name} ({meaning})" for name, meaning in CONTROLS.items() if name not in contrasts],
        pools=sorted(result["pools"].items()),
        ladder=figures.ladder(result, groups),
        sweep=figures.sweep(result, groups),
        curves=figures.curves(result["primary"], groups),
        pilot=figures.pilot(result.get("rate") or {}),
        rates=figures.forest([one for one in result["contrasts"] if one["name"].startswith("rate_") or one["name"] == "doubled"]),
        sets=sets(result),
        removal=figures.removal(result["contrasts"]),
        experts=measures.experts(result),
        tasks=measures.tasks(result),
        bias=measures.bias(result),
        spent=spent(groups, costs.get("runs") or {}),
        others=costs.get("other_endpoints") or [],
        recompute=recompute(result["primary"], groups),
        settings=json.dumps(result["settings"], indent=2, sort_keys=True, ensure_ascii=False),
    )


def headline(arms: Sequence[str], primary: Mapping[str, Any] | None) -> tuple[str, str]:
    """(class, the verdict in plain words)."""
    first, second = arms
    if primary is None:
        return "few", f"No verdict: no pair of runs of {first} and {second} has finished."
    finding = primary["endpoint"]
    size = abs(finding["gap"])
    match finding["verdict"]:
        case Verdict.BETTER:
            said = f"{first} is better than {second}: it needs {size:.4f} fewer bits for each byte of text."
        case Verdict.WORSE:
            said = f"{first} is worse than {second}: it needs {size:.4f} more bits for each byte of text."
        case Verdict.EQUIVALENT:
            said = f"{first} and {second} are equivalent: the gap is under {MARGIN:g} bits per byte, whichever is ahead."
        case Verdict.OPEN:
            said = f"Not resolved: these runs do not tell whether {first} or {second} is better."
        case _:
            said = f"Too few runs for a verdict: {_seeds(finding['seeds'])} of at least {MIN_SEEDS}."
    return _CLASSES.get(finding["verdict"], "open"), said


def _seeds(count: int) -> str:
    return f"{count} paired seed{'s' if count != 1 else ''}"


def levels(result: Mapping[str, Any], groups: Iterable[Group]) -> list[tuple[str, int, list[float | None]]]:
    """Bits per byte of every group of runs over the documents that did not leak: (label, runs, [endpoint, then each domain])."""
    left: dict[str, list[int]] = {}
    for place, document in enumerate(result["documents"]):
        if document["leaked"] is None:
            left.setdefault(document["domain"], []).append(place)
    rows = []
    for group in groups:
        found = {}
        for name, places in left.items():
            size = sum(result["documents"][place]["bytes"] for place in places)
            found[name] = math.fsum(run["bits"][place] for run in group.runs for place in places) / size / len(group.runs)
        endpoint = [found.get(name) for name in result["endpoint"]]
        known = [value for value in endpoint if value is not None]
        whole = math.fsum(known) / len(known) if known and len(known) == len(endpoint) else None
        rows.append((group.label, len(group.runs), [whole, *(found.get(name) for _, name in figures.domains(result))]))
    return rows


def sets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is left of every evaluation set, counted from the documents, and what was taken out of it."""
    rows = []
    for group, name in figures.domains(result):
        left = [one for one in result["documents"] if one["domain"] == name and one["leaked"] is None]
        one = result["sets"][name]
        counts = {"documents": len(left), "bytes": sum(document["bytes"] for document in left)}
        counts["clusters"] = len({document["cluster"] for document in left})
        removed = {"removed": one["removed"], "removed_bytes": one["removed_bytes"]}
        rows.append({"name": name, "group": GROUPS.get(group, group), "endpoint": name in result["endpoint"], **counts, **removed})
    return rows


# -- costs --------------------------------------------------------------------------------------------------------------------


def spent(groups: Sequence[Group], costs: Mapping[str, Any]) -> dict[str, Any]:
    """What every group of runs took, what jobs did that are no runs (the pilot), and all together."""
    runs = [run for group in groups for run in group.runs]
    rows = [_cost(group.label, group.runs, [costs[run["job"]] for run in group.runs if run["job"] in costs]) for group in groups]
    others = [one for job, one in sorted(costs.items()) if job not in {run["job"] for run in runs}]
    if others:
        rows.append({**_cost("pilot", [], others), "runs": len(others)})
    total = {**_cost("all", runs, list(costs.values())), "runs": sum(row["runs"] for row in rows)}
    most = max((row["kwh"] for row in rows), default=0.0)
    return {"rows": [{**row, "bar": svg.bar([("k", row["kwh"], "")], most)} for row in rows], "total": total, "known": len(costs)}


def _cost(label: str, runs: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ways = {one["measured"] for one in known}
    return {
        "label": label,
        "runs": len(runs),
        "tokens": sum(run["tokens"] for run in runs),
        "flops": math.fsum(run["flops"] for run in runs),
        "seconds": math.fsum(one["seconds"] for one in known),
        "kwh": math.fsum(one["kwh"] for one in known),
        "way": "both" if len(ways) > 1 else "measured" if True in ways else "estimate" if ways else "–",
        "watts": _spread([one["watts"] for one in known], "{:g}"),
        "pue": _spread([one["pue"] for one in known], "{:g}"),
        "speed": _spread([one["tokens_per_second"] for one in known], "{:,.0f}"),
    }


def _spread(values: Iterable[float | None], form: str) -> str:
    """One number where all are the same, else the least and the most."""
    found = sorted({value for value in values if value is not None})
    ends = list(dict.fromkeys(form.format(value) for value in (*found[:1], *found[-1:])))
    return " to ".join(ends) or "–"


# -- how to take it again -----------------------------------------------------------------------------------------------------


def recompute(arms: Sequence[str], groups: Sequence[Group]) -> str:
    """A program that takes the primary gap, its interval and p from result.json again; "" where no pair of runs has finished."""
    pair = [group for arm in arms if (group := figures.of_arm(groups, arm))]
    if len(pair) < 2:
        return ""
    first, second = (f"bits({group.arm!r}, {group.rate!r}, {group.tokens!r})" for group in pair)
    return f"""import json
from pathlib import Path

import numpy as np
from train.gaps import estimate, tabulate

result = json.loads(Path("result.json").read_bytes())
at = [n for n, document in enumerate(result["documents"]) if document["leaked"] is None]
documents = [result["documents"][n] for n in at]

def bits(arm, rate, tokens):
    runs = [run for run in result["runs"] if (run["arm"], run["rate"], run["tokens"]) == (arm, rate, tokens)]
    return {{run["seed"]: [run["bits"][n] for n in at] for run in runs}}

first = {first}
second = {second}
seeds = sorted(first.keys() & second.keys())
found = estimate(
    tabulate(
        np.array([first[seed] for seed in seeds]),
        np.array([second[seed] for seed in seeds]),
        np.array([one["bytes"] for one in documents]),
        [one["cluster"] for one in documents],
        [one["domain"] for one in documents],
    ),
    result["endpoint"],
)
print(found.gap, *found.interval(0.95), found.flip_p())
"""


@functools.cache
def _template() -> tuple[Any, str]:
    """The compiled template and the style sheet."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters.update(trimmed=words.trimmed, gap=figures.gap, interval=figures.interval, seeds=_seeds)
    template = environment.from_string((resources.files("train.compare") / "page.html.jinja").read_text("utf-8"))
    return template, (resources.files("pipelines.report") / "style.css").read_text("utf-8") + STYLE


def _shown(value: Any) -> Any:
    """What the template writes: text without a character that changes how a page reads."""
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
