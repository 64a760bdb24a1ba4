"""The corpus report: statistics of every part merged into stats.json, and the page that is drawn from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.errors import UserError
from pipelines.parts import Part
from pipelines.recipe import Recipe
from pipelines.report.page import draw
from pipelines.store import Store

if TYPE_CHECKING:
    from pipelines.conservation import Accounts

STATS = "stats.json"
PAGE = "report.html"
MANIFEST = "manifest.json"


def write_report(store: Store, recipe: Recipe, parts: Sequence[Part], accounts: Accounts) -> None:
    """Publishes stats.json and report.html from the statistics of the parts."""
    from pipelines.report.collect import collect  # with the stages it brings Beam; drawing a page again must not

    store.publish_json(STATS, collect(store, recipe, parts, accounts))
    store.publish(PAGE, draw(store.read_json(STATS)).encode())


def rewrite_report(folder: str) -> str:
    """Draws report.html of a complete run again from its stats.json; returns the page's path.

    The manifest names every file's hash, so it is published again where the page has become another one.
    """
    if not Store(folder).exists(MANIFEST):
        raise UserError(f"{folder}: no complete run ({MANIFEST} is missing); run winnow build")
    with Store(folder).lock() as store:
        manifest = store.read_json(MANIFEST)
        store.publish(PAGE, draw(store.read_json(STATS)).encode())
        found = store.digest(PAGE)
        if manifest["files"][PAGE] != found:
            manifest["files"][PAGE] = found
            store.publish_json(MANIFEST, manifest)
        return store.url(PAGE)
