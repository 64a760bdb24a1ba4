"""The README.md of an export: a card whose head says what `datasets` loads, and what there is, from stats.json and the export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipelines.report.card_head import export_head
from pipelines.report.markdown import table


def export_card(
    stats: Mapping[str, Any], order: Mapping[str, Any], counts: Mapping[str, Mapping[str, Mapping[str, int]]], columns: pa.Schema
) -> str:
    """Markdown. order: what was exported, as export.json says it; counts: split -> source -> documents, tokens."""
    name, variant = order["run"]["name"], order["variant"]
    documents = sum(one["documents"] for by_source in counts.values() for one in by_source.values())
    rows: list[list[str | int]] = [
        [split, source, one["documents"], one["tokens"]]
        for split, by_source in counts.items()
        for source, one in by_source.items()
        if one["documents"]
    ]
    exported = {**stats, "variants": [variant], "sources": {source: stats["sources"][source] for source in order["sources"]}}
    data_files = {str(row[0]): f"{row[0]}/*/*.{order['format']}*" for row in rows}
    blocks = [
        export_head(exported, f"{name}: {variant}", documents, data_files, columns),
        f"# {name}: {variant}",
        f"The documents that the variant `{variant}` of the corpus `{name}` keeps, as `winnow export` wrote them: text as it was"
        " tokenised, without paragraphs that stand elsewhere and, where the recipe masks a source, without its e-mail and IP"
        " addresses. `export.json` names the state of the run, and every file with its sha256. What was left out and why, licenses"
        " and known limits stand in the run's `card.md`.",
        table(["split", "source", "documents", "tokens"], rows),
    ]
    return "\n\n".join(blocks) + "\n"
