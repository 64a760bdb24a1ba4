"""From stats.json to the page's distributions: lengths, languages, quality and its draws, duplicates, hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.report import svg
from pipelines.report.figures import Detail, added, first, summed
from pipelines.report.words import citations, law, readable_bytes, share, verdict_of_auc
from pipelines.schema import Reason, stage_of


def lengths(stats: Mapping[str, Any], variant: str) -> str:
    """Histogram of lengths by powers of two, the kept part shaded."""
    found = [one for one in stats["sources"].values() if one]
    if not found:
        return ""
    everything = added(one["all"]["lengths"] for one in found)
    kept = added(one["variants"][variant]["kept"]["lengths"] for one in found)
    filled = [i for i, count in enumerate(everything) if count]
    start, stop = filled[0], filled[-1] + 1
    every = max(1, -(-(stop - start) // 6))
    ticks = [(i - start, readable_bytes(2**i)) for i in range(start, stop + 1, every)]
    tips = [
        (i - start, i - start + 1, _tip(f"{readable_bytes(2**i)} to {readable_bytes(2 ** (i + 1))}", everything[i], kept[i]))
        for i in range(start, stop)
    ]
    return svg.histogram(everything[start:stop], kept[start:stop], ticks, tips, f"lengths of documents, {variant}")


def _tip(where: str, count: int, kept: int) -> str:
    return f"{where}: {count:,} documents, {kept:,} kept"


def languages(stats: Mapping[str, Any], variant: str, limit: int) -> list[dict[str, Any]]:
    """Languages by documents, those beyond `limit` in one row."""
    found = [one for one in stats["sources"].values() if one]
    everything = summed(one["all"]["languages"] for one in found)
    kept = summed(one["variants"][variant]["kept"]["languages"] for one in found)
    ordered = sorted(everything, key=lambda label: (-everything[label], label))
    rows = [(label, everything[label], kept.get(label, 0)) for label in ordered[:limit]]
    if rest := ordered[limit:]:
        rows.append((f"{len(rest)} others", sum(everything[x] for x in rest), sum(kept.get(x, 0) for x in rest)))
    peak = max((count for _, count, _ in rows), default=0)
    return [
        {
            "label": label,
            "count": count,
            "kept": part,
            "bar": svg.bar([("k", part, ""), ("a", count - part, "")], peak),
        }
        for label, count, part in rows
    ]


def quality(stats: Mapping[str, Any], variant: str, limit: int) -> list[dict[str, Any]]:
    """Histograms of quality, a source each, of the largest sources that have scores."""
    drawn = {source for group in stats["draws"][variant].values() for source in group["sources"]}
    charts = []
    for source, one in stats["sources"].items():
        if not one or not sum(one["all"]["quality"]):
            continue
        everything, kept = one["all"]["quality"], one["variants"][variant]["kept"]["quality"]
        bins = len(everything)
        tenth = bins // 10
        tips = []
        for i in range(0, bins, tenth):
            counts = (sum(everything[i : i + tenth]), sum(kept[i : i + tenth]))
            tips.append((i, i + tenth, _tip(f"{i / bins:.1f} to {(i + tenth) / bins:.1f}", *counts)))
        ticks = [(bins * x / 4, f"{x / 4:g}") for x in range(5)]
        title = f"quality of {source}, {variant}"
        charts.append(
            {
                "source": source,
                "drawn": source in drawn,
                "documents": sum(everything),
                "kept": sum(kept),
                "chart": svg.histogram(everything, kept, ticks, tips, title, 110),
            }
        )
    return sorted(charts, key=lambda one: (-one["documents"], one["source"]))[:limit]


def draws(stats: Mapping[str, Any], variants: Iterable[str]) -> list[dict[str, Any]]:
    """Every quality draw: what was asked for, what the solution expects, and what came out, as shares of tokens."""
    rows = []
    for variant in variants:
        for group, one in stats["draws"][variant].items():
            reached = one["tokens"]
            rows.append(
                {
                    "variant": variant,
                    "sources": ", ".join(one["sources"]),
                    "group": group,
                    "law": law(one),
                    "asked": "" if one["keep_rate"] is None else f"{one['keep_rate']:.2%}",
                    "expected": "" if one["expected_keep_rate"] is None else f"{one['expected_keep_rate']:.2%}",
                    "got": f"{one['kept_tokens'] / reached:.2%}" if reached else "",
                    "tokens": reached,
                }
            )
    return rows


def classifier(stats: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the classifier was measured to tell apart: a row a measurement, with its AUC and interval in words."""
    if stats["classifier"] is None:
        return None
    metrics = stats["classifier"]["metrics"]
    found = [("documents held out of the fit", metrics["held_out_slice"])]
    for key, how in (("leave_one_source_out", "left out of the fit"), ("judged_only", "never in the fit")):
        for one in metrics[key]:
            found.append((f"{one['source']} ({'curated' if one['curated'] else 'web'}), {how}", one))
    rows = [
        {
            "what": what,
            "curated": one["curated_documents"],
            "web": one["web_documents"],
            "auc": "" if one["auc"] is None else f"{one['auc']:.3f}",
            "interval": "" if one["auc"] is None else f"{one['low']:.3f} to {one['high']:.3f}",
            "bar": "" if one["auc"] is None else svg.interval(one["low"], one["auc"], one["high"], 0.5, 1.0),
            "words": verdict_of_auc(one),
        }
        for what, one in found
    ]
    return {"rows": rows, "converged": metrics["converged"], "citations": citations(metrics.get("references"))}


# -- duplicates and hosts -----------------------------------------------------------------------------------------------------


def duplicates(stats: Mapping[str, Any], detail: Detail) -> list[dict[str, Any]]:
    """Exact and near clusters: how many, of how many documents, by size, and the largest."""
    found = {source: one for source, one in stats["sources"].items() if one}
    documents = sum(one["documents"] for one in found.values())
    kinds = []
    for kind, reason in (("exact", Reason.DUPLICATE_EXACT), ("near", Reason.DUPLICATE_NEAR)):
        sizes = added(one["clusters"][kind] for one in found.values())
        peak = max(sizes, default=0)
        members = sum(one["clustered"][kind] for one in found.values())
        largest = [{"source": source, **one} for source, mine in found.items() for one in mine["largest"][kind]]
        kinds.append(
            {
                "kind": kind,
                "clusters": sum(sizes),
                "members": members,
                "share": share(members, documents),
                "spare": members - sum(sizes),
                "rows": [
                    (_sizes(i), count, svg.bar([(f"s-{stage_of(reason)}", count, "")], peak))
                    for i, count in enumerate(sizes)
                    if count
                ],
                "largest": first(largest, detail),
            }
        )
    return kinds


def _sizes(i: int) -> str:
    return f"{2**i:,} to {2 ** (i + 1) - 1:,}"


def hosts(stats: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The hosts with the most documents; `others` is not 0 where the counts are lower bounds."""
    found = [one["hosts"] for one in stats["sources"].values() if one]
    largest = summed(one["largest"] for one in found)
    ordered = sorted(largest.items(), key=lambda item: (-item[1], item[0]))[:limit]
    peak = max(largest.values(), default=0)
    return {
        "rows": [(host, count, svg.bar([("k", count, "")], peak)) for host, count in ordered],
        "named": len(largest),
        "others": sum(one["others"] for one in found),
        "without": sum(one["without"] for one in found),
    }
