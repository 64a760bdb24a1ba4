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

from pipelines import against, blocklist, index, models, references, removal
from pipelines.conservation import Accounts
from pipelines.errors import CheckError
from pipelines.finished import MANIFEST, SCHEMA_VERSION
from pipelines.parts import Part, task_record, task_rejects
from pipelines.plan import Plan
from pipelines.recipe import Recipe
from pipelines.recipe_file import RECIPE, resolved
from pipelines.report import CARD, CROISSANT, PAGE, STATS, write_croissant
from pipelines.report.statistics import statistics_path
from pipelines.run_directory import owns
from pipelines.select_settings import decided_paths
from pipelines.store import SIDECAR, Store
from pipelines.tokenize import list_shards

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
    needed = [path for task in plan.tasks for path in (task_record(task), task_rejects(task))]
    needed += [part.path(table) for part in parts for table in ("documents", "clusters", "samples", "signals")]
    needed += [path for variant in recipe.variants for path in decided_paths(recipe, variant, parts)]
    needed += [statistics_path(part) for part in parts]
    needed += [models.LANGUAGE, models.TOKENIZER]
    needed += [references.task_path(task) for task in references.tasks_of(recipe, plan)]
    needed += [path for variant in recipe.variants for shard in list_shards(recipe, ()) for path in shard.paths(variant)]
    perhaps = [path(part) for path in (removal.path, against.path) for part in parts]
    perhaps += [models.QUALITY, models.QUALITY_CARD, models.PERPLEXITY, models.PERPLEXITY_CARD]
    perhaps += [models.EVALUATIONS, models.TERMS, models.BAD_WORDS, models.REFERENCES]
    perhaps += [blocklist.path(source) for source in recipe.sources]
    paths = sorted([*needed, *perhaps])
    sidecars = dict(zip(paths, store.each(paths, store.sidecar), strict=True))
    for path in needed:
        if sidecars[path] is None:
            raise CheckError(f"{store.url(path)}: not finished, though every stage is done; build again")
    files = {path: sidecar for path, sidecar in sidecars.items() if sidecar is not None}
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
