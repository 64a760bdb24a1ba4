"""What the pages show of corpora, comparisons and jobs, in plain words. Plain values in and out; nothing here knows of HTTP.

Times are UTC. A duration is said in the two largest of its units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pipelines.recipe_compare import Compare
from pipelines.report import figures, svg, words
from pipelines.schema import KEEP

VARIANTS, SOURCES = 6, 24  # of a corpus that its page shows
_REACH = 0.02  # bits per byte on both sides of zero that a scale of gaps has at least
_SAID = 300  # characters of a recipe's comment
_SENTENCE = re.compile(r"\. (?=[A-Z])")
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_STATES = {
    "building": "A build is at work here.",
    "incomplete": "A build was begun and has not ended; the same build goes on where it stopped.",
    "damaged": "Its manifest cannot be read; the same build writes it again.",
    "outdated": "Another version of winnow wrote it; the same build writes it again.",
}


# -- times ------------------------------------------------------------------------------------------------------------------


def moment(value: float | str | None) -> dict[str, str] | None:
    """A time (seconds since 1970, or ISO 8601) as a page writes it, and as a machine reads it; None for None."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    at = at.astimezone(UTC)
    return {"text": f"{at.day} {at:%b %Y, %H:%M} UTC", "machine": f"{at:%Y-%m-%dT%H:%M:%SZ}"}


def duration(seconds: float) -> str:
    """`5 s`, `3 min 12 s`, `2 h 5 min`, `4 d 1 h`; no line ends between a number and its unit."""
    left = max(math.floor(seconds), 0)
    parts = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        parts.append((count, unit))
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}\u00a0{unit}" for count, unit in parts[first : first + 2] if count or len(parts) == first + 1)


# -- corpora ----------------------------------------------------------------------------------------------------------------


def entry(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A corpus in the list of them, from its summary; the variants that keep most come first."""
    documents, variants = summary["documents"], summary["variants"] or {}
    ordered = sorted(variants, key=lambda name: (-variants[name]["kept"], name))
    return {
        "id": summary["id"],
        "state": summary["state"],
        "said": _STATES.get(summary["state"], ""),
        "name": summary["recipe"],
        "built": moment(summary["built"]),
        "sources": summary["sources"],
        "documents": documents,
        "alarms": len(summary["alarms"]),
        "comparisons": len(summary["comparisons"]),
        "variants": [_kept(name, variants[name], documents) for name in ordered[:VARIANTS]],
    }


def _kept(name: str, one: Mapping[str, int], documents: int) -> dict[str, Any]:
    kept = one["kept"]
    bar = svg.bar([("k", kept, words.told("kept", kept, documents)), ("a", documents - kept, "")], documents)
    return {"name": name, "tokens": one["tokens"], "share": words.share(kept, documents), "bar": bar}


def corpus(summary: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    """A complete corpus on its own page, from its summary and its stats.json."""
    variants = stats["variants"][:VARIANTS]
    return {
        "name": stats["name"],
        "seed": stats["seed"],
        "sources": len(stats["accounts"]["sources"]),
        "built": moment(summary["built"]),
        "alarms": summary["alarms"],
        "came_in": figures.came_in(stats),
        "variants": [_variant(stats, name) for name in variants],
        "variants_left_out": len(stats["variants"]) - len(variants),
        "example": _locator(stats, variants),
    }


def _locator(stats: Mapping[str, Any], variants: Iterable[str]) -> str:
    """That of a document of this corpus, a dropped one where there is one."""
    samples = [
        (verdict == KEEP, one["order"], one["locator"])
        for found in stats["sources"].values()
        for variant in variants
        for verdict, some in (found["variants"][variant]["samples"] if found else {}).items()
        for one in some
    ]
    return str(min(samples)[2]) if samples else "part.jsonl.gz#0"


def _variant(stats: Mapping[str, Any], name: str) -> dict[str, Any]:
    rows, total = figures.funnel(stats, name, SOURCES)
    stages = [stage for stage, count in total.dropped.items() if count]
    key = [("k", "kept"), *((f"s-{stage}", stage) for stage in stages)]
    return {"name": name, "rows": [*rows, total] if len(rows) > 1 else rows, "total": total, "stages": stages, "key": key}


def unfinished(state: str) -> str:
    """What the page of a corpus that is not complete says of it."""
    return _STATES[state]


# -- comparisons ------------------------------------------------------------------------------------------------------------


def comparisons(corpus_id: str, found: Iterable[tuple[str, Mapping[str, Any] | None]]) -> dict[str, Any]:
    """Finished comparisons as rows of one plot, the others as a sentence each. found: (id, `results.summary` or None)."""
    results, begun = [], []
    for name, result in found:
        if result is None or result["endpoint"] is None:
            begun.append(f"Comparison {name} has no result yet.")
        else:
            results.append((name, result))
    ends = [end for _, one in results for end in (one["endpoint"]["low"], one["endpoint"]["high"])]
    points = [gap for _, one in results for gap in (one["endpoint"]["gap"], *one["endpoint"]["seed_gaps"])]
    scale = svg.scale(points, ends, _REACH)
    rows = [_comparison(corpus_id, name, result, scale) for name, result in results]
    return {"rows": rows, "axis": svg.axis(scale, signs=True), "open": begun}


def _comparison(corpus_id: str, name: str, result: Mapping[str, Any], scale: svg.Scale) -> dict[str, Any]:
    one, (first, second) = result["endpoint"], result["primary"]
    ends = None if one["low"] is None or one["high"] is None else (one["low"], one["high"])
    interval = "no interval" if ends is None else f"{100 * one['level']:.4g} %: {ends[0]:+.4f} to {ends[1]:+.4f}"
    title = f"{first} against {second}: {one['verdict']}"
    said = f"gap {one['gap']:+.4f} bits per byte, {interval}"
    seeds = f"{one['seeds']} paired seed{'s' if one['seeds'] != 1 else ''}"
    return {
        "page": f"/v1/corpora/{corpus_id}/comparisons/{name}/page",
        "first": first,
        "second": second,
        "model": result["model"],
        "runs": result["runs"],
        "verdict": f"{one['verdict']}, {seeds}",
        "gap": f"{one['gap']:+.4f}",
        "interval": interval,
        "plot": svg.row(scale, one["gap"], ends, title, said, one["seed_gaps"]),
    }


# -- forms ------------------------------------------------------------------------------------------------------------------


def compare_form(recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the form of a comparison starts with, from a manifest's recipe; None where there is nothing to compare."""
    variants = list(recipe["variants"])
    if len(variants) < 2:
        return None
    own = recipe.get("compare") or {}
    fields = Compare.model_fields
    arms = [arm for arm in own.get("arms") or fields["arms"].default if arm in variants]
    first, second = arms if len(arms) == 2 else (variants[-1], variants[0])
    model = own.get("model") or fields["model"].default
    return {
        "variants": variants,
        "first": first,
        "second": second,
        "seeds": own.get("seeds") or fields["seeds"].default,
        "tokens": own.get("tokens") or fields["tokens"].default,
        "preset": model.get("preset") or "",
    }


def recipe(name: str, text: str) -> dict[str, str]:
    """A recipe that is offered: its name, the first sentence of its first comment, and its text."""
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("# ").strip())
    said = " ".join(comments).strip()
    said = _SENTENCE.split(said)[0].removesuffix(".")
    return {"name": name, "said": said if len(said) <= _SAID else said[: _SAID - 1] + "…", "text": text}
