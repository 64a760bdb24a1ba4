"""The corpus report: statistics of every part merged into stats.json, and what is made from it: page, dataset card, Croissant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.finished import MANIFEST, read_manifest
from pipelines.parts import Part
from pipelines.recipe import Recipe
from pipelines.report.card import card
from pipelines.report.croissant import croissant
from pipelines.report.page import draw
from pipelines.store import Store

if TYPE_CHECKING:
    from pipelines.conservation import Accounts

STATS = "stats.json"
PAGE = "report.html"
CARD = "card.md"
CROISSANT = "croissant.json"


def write_report(store: Store, recipe: Recipe, parts: Sequence[Part], accounts: Accounts) -> None:
    """Publishes stats.json from the statistics of the parts, report.html and card.md from stats.json."""
    from pipelines.report.collect import collect  # with the stages it brings Beam; drawing a page again must not

    store.publish_json(STATS, collect(store, recipe, parts, accounts))
    _write_pages(store)


def write_croissant(store: Store, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Publishes croissant.json from stats.json and the manifest's files."""
    store.publish_json(CROISSANT, croissant(store.read_json(STATS), files))


def _write_pages(store: Store) -> None:
    stats = store.read_json(STATS)
    store.publish(PAGE, draw(stats).encode())
    store.publish(CARD, card(stats).encode())


def rewrite_report(folder: str) -> str:
    """Makes report.html, card.md and croissant.json of a complete run again from its stats.json; returns the page's path.

    The manifest names every file's hash, so it is published again where one of them has become another.
    """
    read_manifest(Store(folder))  # before the lock, which would make the folder
    with Store(folder).lock() as store:
        manifest = read_manifest(store)
        _write_pages(store)
        write_croissant(store, manifest["files"])
        found = {path: store.digest(path) for path in (PAGE, CARD, CROISSANT)}
        if any(manifest["files"].get(path) != stated for path, stated in found.items()):
            manifest["files"] |= found
            store.publish_json(MANIFEST, manifest)
        return store.url(PAGE)
