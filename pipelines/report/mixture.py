"""The mixture as the report has it: asked and got by source; from the proven counts, and from stats.json to the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines import mixture
from pipelines.report import svg
from pipelines.report.words import share


def account(wanted: Mapping[str, int], available: Mapping[str, int], in_shards: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """One variant's mixture by source, all in training tokens.

    wanted, available: what the mixture was solved for. in_shards: what was counted there. passes: how often a trainer goes through
    the shards; trained: the tokens that it then has seen, the end of documents included; got: their share of all.
    """
    passes = {source: mixture.passes(wanted[source], in_shards[source]) for source in wanted}
    trained = {source: round(passes[source] * in_shards[source]) for source in wanted}
    return {
        source: {
            "wanted": count,
            "asked": count / max(sum(wanted.values()), 1),
            "available": available[source],
            "epochs": mixture.ratio(count, available[source]),
            "in_shards": in_shards[source],
            "passes": passes[source],
            "trained": trained[source],
            "got": trained[source] / max(sum(trained.values()), 1),
        }
        for source, count in wanted.items()
    }


def shown(stats: Mapping[str, Any], variant: str, limit: int) -> dict[str, Any] | None:
    """Rows by source, of more than `limit` those with the smallest share in one row; warnings of sources that run dry."""
    told = stats["mixture"]
    if told is None:
        return None
    found = told["variants"][variant]
    ordered = sorted(found, key=lambda source: (-found[source]["wanted"], source))
    named = set(ordered[: limit - 1] if len(ordered) > limit else ordered)
    rows = [_row(source, [found[source]]) for source in found if source in named]
    if others := [source for source in ordered if source not in named]:
        rows.append(_row(f"{len(others)} others", [found[source] for source in others]))
    warnings = [mixture.warning(source, one["wanted"], one["available"], told["max_epochs"]) for source, one in found.items()]
    return {"rows": rows, "tokens": told["tokens"], "warnings": [line for line in warnings if line]}


def _row(name: str, some: list[Mapping[str, Any]]) -> dict[str, Any]:
    asked, got = sum(one["asked"] for one in some), sum(one["got"] for one in some)
    epochs = "" if len(some) > 1 or some[0]["epochs"] is None else f"{some[0]['epochs']:.2f}"
    sums = {key: sum(one[key] for one in some) for key in ("wanted", "available", "in_shards", "trained")}
    shares = {"asked": share(asked, 1), "got": share(got, 1), "bar": svg.bar([("k", got, "")], 1)}
    return {"source": name, **shares, "epochs": epochs, **sums}
