"""The corpus report: statistics of every part merged into stats.json, and the page that is drawn from it alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from pipelines import models
from pipelines.conservation import Accounts
from pipelines.errors import UserError
from pipelines.parts import Part
from pipelines.recipe import Recipe, resolved
from pipelines.report.page import draw
from pipelines.report.statistics import merge, statistics_path
from pipelines.select import solution_path
from pipelines.store import Store

STATS = "stats.json"
PAGE = "report.html"


def write_report(store: Store, recipe: Recipe, parts: Sequence[Part], accounts: Accounts) -> None:
    """Publishes stats.json and report.html from the statistics of the parts."""
    sources: dict[str, Any] = {}
    for source in sorted(recipe.sources):
        found = [store.read_json(statistics_path(part)) for part in parts if part.source == source]
        sources[source] = functools.reduce(merge, found) if found else None
    stats = {
        "recipe": dict(resolved(recipe)),
        "accounts": accounts.to_json(),
        "sources": sources,
        "draws": {variant: store.read_json(solution_path(variant)) for variant in recipe.variants},
        "classifier": store.read_json(models.QUALITY_CARD) if store.exists(models.QUALITY_CARD) else None,
    }
    store.publish_json(STATS, stats)
    store.publish(PAGE, draw(stats).encode())


def rewrite_report(folder: str) -> str:
    """Draws report.html of a finished run again from its stats.json; returns the page's path."""
    store = Store(folder)
    if not store.exists(STATS):
        raise UserError(f"{folder}: no complete run ({STATS} is missing); run winnow build")
    store.publish(PAGE, draw(store.read_json(STATS)).encode())
    return store.url(PAGE)
