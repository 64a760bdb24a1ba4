"""The card's sections about lists of the user's: evaluation sets that documents overlap with, and terms that filtering shifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.report.lists import terms_of
from pipelines.report.markdown import quoted, table
from pipelines.report.words import per_million
from pipelines.schema import KEEP


def evaluations(stats: Mapping[str, Any]) -> str:
    """Documents that hold an n-gram of an evaluation set: all of them, and those that each variant keeps."""
    if not stats["evaluations"]:
        return "No evaluation set was looked for: whether a benchmark stands in this corpus is not known."
    sources = [one for one in stats["sources"].values() if one]
    rows = []
    for name, counts in stats["evaluations"].items():
        found = sum(one["all"]["contaminated"].get(name, 0) for one in sources)
        kept = [
            sum(one["variants"][variant]["kept"]["contaminated"].get(name, 0) for one in sources)
            for variant in stats["variants"]
        ]
        rows.append([quoted(name), counts["texts"], counts["too_short"], found, *kept])
    head = ["set", "texts", "too short to look for", "documents that overlap", *(f"kept by {quoted(v)}" for v in stats["variants"])]
    return table(head, rows)


def terms(stats: Mapping[str, Any]) -> str:
    """Places of listed terms in a million tokens, by source: before filtering, and in what each variant keeps."""
    if not stats["terms"]:
        return "No list of terms was given."
    rows = []
    for number, listed in enumerate(stats["terms"]):
        for source, one in stats["sources"].items():
            if one:
                rates = [per_million(one["all"]["terms"][number], one["tokens"])]
                for variant in stats["variants"]:
                    kept = one["variants"][variant]
                    rates.append(per_million(terms_of(kept["kept"], number), kept["tokens"].get(KEEP, 0)))
                rows.append([quoted(listed["name"]), quoted(source), *("-" if rate is None else f"{rate:,.1f}" for rate in rates)])
    head = ["list", "source", "all documents", *(f"kept by {quoted(variant)}" for variant in stats["variants"])]
    return "Places in a million tokens; a list says which words stand in a text, not what they mean there.\n\n" + table(head, rows)
