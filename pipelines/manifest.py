"""manifest.json, the last file of a build: whoever sees it sees a complete run.

It names the resolved recipe, the inputs with sizes and hashes, every file with bytes and sha256, the proven counts, the models
and the versions of what can change a byte. Nothing in it depends on when, where or with how many workers the run was made.
"""

from __future__ import annotations

import platform
import unicodedata
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pipelines import against, blocklist, index, mixture, models, references, removal
from pipelines.conservation import Accounts
from pipelines.finished import MANIFEST, SCHEMA_VERSION
from pipelines.parts import Part, task_record
from pipelines.plan import Plan
from pipelines.recipe import Recipe
from pipelines.recipe_file import RECIPE, resolved
from pipelines.report import CARD, CROISSANT, PAGE, STATS, write_croissant
from pipelines.report.statistics import statistics_path
from pipelines.run_directory import owns
from pipelines.select_settings import solution_path
from pipelines.store import SIDECAR, Store
from pipelines.tokenize import SPLITS, list_shards

_VERSIONS = ("winnow", "numba", "numpy", "pyarrow", "fastwarc", "resiliparse", "orjson", "tokenizers", "datasketch")
_PAGES = (RECIPE, STATS, PAGE, CARD)


def write_manifest(
    store: Store, recipe: Recipe, plan: Plan, parts: Sequence[Part], accounts: Accounts
) -> dict[str, Any]:
    """Publishes croissant.json, which names the files, and manifest.json; returns the content of the last."""
    files = _files(store, recipe, plan, parts)
    write_croissant(store, files)
    files[CROISSANT] = store.digest(CROISSANT)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "recipe": resolved(recipe),
        "inputs": _inputs(plan),
        "files": files,
        "accounts": accounts.to_json(),
        "versions": _versions(),
    }
    store.publish_json(MANIFEST, manifest)
    return manifest


def _inputs(plan: Plan) -> list[dict[str, Any]]:
    found = {
        (task.source, one.path): {"source": task.source, "path": one.path, "bytes": one.size, "sha256": one.sha256}
        for task in plan.tasks
        for one in task.inputs
    }
    return [found[key] for key in sorted(found)]


def _files(store: Store, recipe: Recipe, plan: Plan, parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """path -> what its sidecar says, for every finished file of the run."""
    paths = [task_record(task) for task in plan.tasks]
    paths += [f"rejects/{task.source}/{task.name}.parquet" for task in plan.tasks]
    paths += [part.path(table) for part in parts for table in ("documents", "clusters", "samples", "signals")]
    paths += [part.decisions(variant) for part in parts for variant in recipe.variants]
    paths += [solution_path(variant) for variant in recipe.variants]
    paths += [mixture.path(variant) for variant in recipe.variants if recipe.mixture is not None]
    paths += [statistics_path(part) for part in parts]
    paths += [removal.path(part) for part in parts]
    paths += [against.path(part) for part in parts]
    paths += [models.LANGUAGE, models.TOKENIZER, models.QUALITY, models.QUALITY_CARD, models.PERPLEXITY, models.PERPLEXITY_CARD]
    paths += [models.EVALUATIONS, models.TERMS, models.BAD_WORDS, models.REFERENCES]
    paths += [references.task_path(task) for task in references.tasks_of(recipe, plan)]
    paths += [blocklist.path(source) for source in recipe.sources]
    for variant in recipe.variants:
        for shard in list_shards(recipe, ()):
            paths += [f"tokens/{variant}/{shard.prefix(split)}{end}" for split in SPLITS for end in (".bin", ".idx")]
    files = {}
    for path in sorted(paths):
        sidecar = store.sidecar(path)
        if sidecar is not None:
            files[path] = sidecar
    loose = [f"tokens/{variant}/blend.json" for variant in recipe.variants]
    for path in sorted([*loose, index.KEYS, index.ROWS, index.PARTS, *_PAGES]):
        files[path] = store.digest(path)
    return files


def prune(store: Store, manifest: dict[str, Any]) -> None:
    """Removes what earlier builds of this run left and the present recipe no longer makes, in the folders that are a build's."""
    stated = set(manifest["files"])
    for path in store.files(""):
        if owns(path) and path.removesuffix(SIDECAR) not in stated:
            store.remove(path)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "unicode": unicodedata.unidata_version}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
