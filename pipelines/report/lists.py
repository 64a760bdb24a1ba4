"""Evaluation sets and lists of terms as the page has them: from stats.json to rows by source. Plain values, all bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.figures import Detail, added
from pipelines.report.words import per_million, shift
from pipelines.schema import KEEP


def evaluations(stats: Mapping[str, Any], variants: Sequence[str], detail: Detail) -> tuple[list[dict[str, Any]], int]:
    """(sets by documents that overlap with them, each with a row a source that has some; how many sets were left out)."""
    found = []
    for name, counts in stats["evaluations"].items():
        rows = [
            {
                "source": source,
                "documents": one["documents"],
                "overlapping": one["all"]["contaminated"].get(name, 0),
                "kept": [one["variants"][variant]["kept"]["contaminated"].get(name, 0) for variant in variants],
            }
            for source, one in stats["sources"].items()
            if one and one["all"]["contaminated"].get(name)
        ]
        shown, total = _bounded(rows, "overlapping", detail.sources // 2)
        found.append({"name": name, **counts, "rows": shown, "total": total})
    found.sort(key=lambda one: (-one["total"]["overlapping"] if one["rows"] else 0, one["name"]))
    return found[: detail.lists], max(len(found) - detail.lists, 0)


def terms(stats: Mapping[str, Any], variants: Sequence[str], detail: Detail) -> tuple[list[dict[str, Any]], int]:
    """(lists of terms, each with a row a source: places per million tokens before and after; how many lists were left out)."""
    found = []
    for number, one_list in enumerate(stats["terms"][: detail.lists]):
        rows = [
            {
                "source": source,
                "places": one["all"]["terms"][number],
                "tokens": one["tokens"],
                "kept": [terms_of(one["variants"][variant]["kept"], number) for variant in variants],
                "kept_tokens": [one["variants"][variant]["tokens"].get(KEEP, 0) for variant in variants],
            }
            for source, one in stats["sources"].items()
            if one
        ]
        shown, total = _bounded(rows, "tokens", detail.sources // 2)
        found.append({**one_list, "rows": [_rated(row) for row in shown], "total": _rated(total) if shown else None})
    return found, max(len(stats["terms"]) - detail.lists, 0)


def terms_of(profile: Mapping[str, Any], number: int) -> int:
    """Places of the terms of a list; a profile of no document has no lists."""
    return profile["terms"][number] if profile["terms"] else 0


def _rated(row: dict[str, Any]) -> dict[str, Any]:
    before = per_million(row["places"], row["tokens"])
    after = [per_million(count, tokens) for count, tokens in zip(row["kept"], row["kept_tokens"], strict=True)]
    return {**row, "before": before, "after": [(rate, shift(before, rate)) for rate in after]}


def _bounded(rows: list[dict[str, Any]], by: str, limit: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows by source, of more than `limit` those with the least of `by` in one; and their sum. Numbers and lists add up."""
    total = _sum("all sources", rows) if rows else {}
    if len(rows) > limit:
        ordered = sorted(rows, key=lambda row: (-row[by], row["source"]))
        names = {row["source"] for row in ordered[: limit - 1]}
        others = ordered[limit - 1 :]
        rows = [row for row in rows if row["source"] in names] + [_sum(f"{len(others)} others", others)]
    return rows, total


def _sum(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    keys = [key for key in rows[0] if key != "source"]
    return {"source": name} | {
        key: added(row[key] for row in rows) if isinstance(rows[0][key], list) else sum(row[key] for row in rows) for key in keys
    }
