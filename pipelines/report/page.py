"""report.html: one self-contained page, drawn from stats.json alone. No script, a strict content policy, readable on paper.

Everything that came from a corpus is escaped by the template; control and bidirectional characters of sample texts are shown
as boxes, so that no text can change how the page reads.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from markupsafe import Markup

from pipelines.report import svg
from pipelines.report.statistics import LENGTH_BINS, QUALITY_BINS, SIZE_BINS
from pipelines.schema import KEEP, TRAIN, VALIDATION, Stage

ALARM_SHARE, ALARM_DOCUMENTS = 0.01, 100  # a source of so many documents that keeps less than this share
_TOP = 12
_STAGE_OF = {"language": Stage.LANGUAGE, "duplicate_exact": Stage.EXACT, "duplicate_near": Stage.NEAR}


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One source in one variant, from records to tokens."""

    source: str
    records: int
    rejects: int
    documents: int
    by_stage: dict[str, int]
    kept: int
    train_tokens: int
    validation_tokens: int
    bar: Markup


def stage_of(reason: str) -> Stage:
    """The step of judgement that a reason belongs to."""
    if reason.startswith("language"):
        return Stage.LANGUAGE
    if reason.startswith("quality_"):
        return Stage.QUALITY
    if reason == "too_short":
        return Stage.PARAGRAPHS
    return _STAGE_OF.get(reason, Stage.RULES)


def draw(stats: dict[str, Any]) -> str:
    """The whole page, from the content of stats.json."""
    from jinja2 import Environment, StrictUndefined

    folder = resources.files("pipelines.report")
    style = (folder / "style.css").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(visible=visible, thousands=lambda value: f"{value:,}", share=_share)
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    recipe = stats["recipe"]
    variants = list(recipe["variants"])
    return template.render(
        name=recipe["name"],
        seed=recipe["seed"],
        style=Markup(style),  # noqa: S704  (our own file)
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        accounts=stats["accounts"],
        sources=stats["accounts"]["sources"],
        variants=variants,
        stages=[str(stage) for stage in Stage],
        funnels={variant: funnel(stats, variant) for variant in variants},
        alarms=alarms(stats),
        reasons={variant: _reasons(stats, variant) for variant in variants},
        charts={variant: _charts(stats, variant) for variant in variants},
        duplicates=_duplicates(stats),
        hosts=_hosts(stats),
        draws=stats["draws"],
        classifier=stats["classifier"],
        recipe_text=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        totals={variant: _total(stats, variant) for variant in variants},
        splits=(TRAIN, VALIDATION),
    )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def visible(text: str) -> str:
    """`text` with control, format and private characters shown as boxes; line breaks stay."""
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "\u25a1" for c in text)


def funnel(stats: dict[str, Any], variant: str) -> list[FunnelRow]:
    """From records to tokens, a row a source."""
    rows = []
    for source, account in stats["accounts"]["sources"].items():
        mine = stats["accounts"]["variants"][variant][source]
        by_stage = dict.fromkeys(map(str, Stage), 0)
        for reason, count in mine["dropped"].items():
            by_stage[str(stage_of(reason))] += count
        rejects = sum(account["rejects"].values())
        segments = [("kept", "kept", mine["kept"])]
        segments += [(f"stage-{stage}", stage, count) for stage, count in by_stage.items()]
        segments.append(("reject", "rejected records", rejects))
        rows.append(
            FunnelRow(
                source,
                account["records"],
                rejects,
                account["documents"],
                by_stage,
                mine["kept"],
                mine["tokens"][TRAIN],
                mine["tokens"][VALIDATION],
                svg.stacked_bar(segments, f"{source}: what became of its records"),
            )
        )
    return rows


def alarms(stats: dict[str, Any]) -> list[str]:
    """Sources that a variant wiped out almost whole: more likely a wrong rule than a bad source."""
    found = []
    for variant, by_source in stats["accounts"]["variants"].items():
        for source, mine in by_source.items():
            documents = mine["kept"] + sum(mine["dropped"].values())
            if documents >= ALARM_DOCUMENTS and mine["kept"] < ALARM_SHARE * documents:
                reason, count = max(mine["dropped"].items(), key=lambda item: (item[1], item[0]))
                found.append(f"{variant} keeps {mine['kept']:,} of {documents:,} documents of {source}; {count:,} by {reason}")
    return found


def _total(stats: dict[str, Any], variant: str) -> dict[str, int]:
    mine = stats["accounts"]["variants"][variant].values()
    return {
        "kept": sum(one["kept"] for one in mine),
        "tokens": sum(sum(one["tokens"].values()) for one in mine),
    }


def _reasons(stats: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    """Reasons by size, with their sample documents."""
    counts: dict[str, int] = {}
    samples: dict[str, list[Any]] = {}
    for source, mine in stats["accounts"]["variants"][variant].items():
        for reason, count in mine["dropped"].items():
            counts[reason] = counts.get(reason, 0) + count
        found = stats["sources"][source]
        for reason, some in (found["variants"][variant]["samples"] if found else {}).items():
            samples.setdefault(reason, []).extend([draw, source, *rest] for draw, *rest in some)
    total = sum(counts.values())
    return [
        {
            "reason": reason,
            "stage": str(stage_of(reason)),
            "count": counts.get(reason, 0),
            "share": _share(counts.get(reason, 0), total),
            "samples": sorted(samples.get(reason, []))[:2],
        }
        for reason in sorted(counts, key=lambda reason: (-counts[reason], reason))
    ] + [{"reason": KEEP, "stage": "", "count": 0, "share": "", "samples": sorted(samples.get(KEEP, []))[:3]}]


def _charts(stats: dict[str, Any], variant: str) -> dict[str, Any]:
    found = {source: one for source, one in stats["sources"].items() if one}
    everything = [one["all"] for one in found.values()]
    kept = [one["variants"][variant]["kept"] for one in found.values()]
    lengths = ["1 B"] + [_bytes(2**i) for i in range(1, LENGTH_BINS)]
    last = max((i for one in everything for i, count in enumerate(one["lengths"]) if count), default=0) + 1
    languages = _summed(one["languages"] for one in everything)
    kept_languages = _summed(one["languages"] for one in kept)
    top = sorted(languages, key=lambda label: (-languages[label], label))[:_TOP]
    steps = [f"{i / QUALITY_BINS:.2f}" for i in range(QUALITY_BINS)]
    return {
        "lengths": svg.histogram(
            _added(one["lengths"] for one in everything)[:last],
            _added(one["lengths"] for one in kept)[:last],
            lengths[:last],
            range(0, last, 2),
            "document lengths in bytes",
        )
        if everything
        else "",
        "languages": svg.paired_bars(
            [(label, languages[label], kept_languages.get(label, 0)) for label in top], "documents by language"
        ),
        "quality": {
            source: svg.histogram(
                one["all"]["quality"],
                one["variants"][variant]["kept"]["quality"],
                steps,
                range(0, QUALITY_BINS, 10),
                f"quality of {source}",
                90,
            )
            for source, one in found.items()
            if sum(one["all"]["quality"])
        },
    }


def _duplicates(stats: dict[str, Any]) -> dict[str, Any]:
    found = [one for one in stats["sources"].values() if one]
    charts = {}
    for kind in ("exact", "near"):
        sizes = _added(one["clusters"][kind] for one in found) if found else [0] * SIZE_BINS
        last = max((i for i, count in enumerate(sizes) if count), default=0) + 1
        rows = [(f"{2**i} to {2 ** (i + 1) - 1}", sizes[i], 0) for i in range(1, last)]
        charts[kind] = {"clusters": sum(sizes), "rows": rows}
    return {"kinds": charts, "paragraphs": sum(one["dropped_paragraphs"] for one in found)}


def _hosts(stats: dict[str, Any]) -> list[tuple[str, int]]:
    hosts = _summed(one["hosts"] for one in stats["sources"].values() if one)
    return sorted(hosts.items(), key=lambda item: (-item[1], item[0]))[:20]


def _summed(mappings: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for mapping in mappings:
        for key, count in mapping.items():
            total[key] = total.get(key, 0) + count
    return total


def _added(lists: Any) -> list[int]:
    return [sum(values) for values in zip(*lists, strict=True)]


def _bytes(value: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value} {unit}"
        value //= 1024
    return f"{value} TB"
