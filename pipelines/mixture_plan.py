"""What `winnow plan` says of a mixture: the tokens wanted of every source; beside a run also those available, and epochs.

What is available is what the variants of that run keep for training. It is read from the manifest and the solved mixtures of a
complete run, so a plan takes no time whatever the size of the corpus; what the recipe at hand would keep is known when it has
been built.
"""

from __future__ import annotations

from typing import Any

from pipelines import mixture
from pipelines.finished import MANIFEST, read_manifest
from pipelines.overview import table
from pipelines.recipe import Recipe
from pipelines.schema import TRAIN
from pipelines.store import Store


def mixture_json(recipe: Recipe, run: str | None) -> dict[str, Any] | None:
    """The plan of the mixture as values; None without one. run: a run directory, finished or not, or None.

    variants: of the recipe's those that a complete run has, each with what is available and its epochs by source, null where
    the run does not know the source.
    """
    if recipe.mixture is None:
        return None
    wanted, weights, tokens = recipe.wanted_tokens(), recipe.mixture.weights, recipe.mixture.tokens
    variants, warnings = {}, []
    for variant, available in _available(recipe, run).items():
        known = {source: weights[source] for source in wanted if source in available}
        found = mixture.epochs(weights, tokens, {source: available.get(source, 0) for source in wanted})
        variants[variant] = {
            source: {"available": available[source], "epochs": found[source]} if source in known else None for source in wanted
        }
        lines = [mixture.warning(s, wanted[s], available[s], recipe.mixture.max_epochs) for s in known]
        warnings += [f"{variant}: {line}" for line in lines if line]
    sources = {source: {"share": count / tokens, "wanted": count} for source, count in wanted.items()}
    return {"tokens": tokens, "sources": sources, "variants": variants, "warnings": warnings}


def mixture_text(told: dict[str, Any]) -> str:
    """`mixture_json` as a person reads it: a table, then a line for every source that runs dry."""
    head = ["source", "share", "tokens wanted"]
    for variant in told["variants"]:
        head += [f"{variant} has", "epochs"]
    rows = []
    for source, one in told["sources"].items():
        row = [source, f"{one['share']:.2%}", one["wanted"]]
        for by_source in told["variants"].values():
            row += _cells(by_source[source])
        rows.append(row)
    lines = [f"mixture of {told['tokens']:,} tokens\n" + table(head, rows)]
    if not told["variants"]:
        lines.append("What is available is known when it has been built: give --run DIR of a finished build.")
    return "\n".join([*lines, *(f"WARNING {line}" for line in told["warnings"])])


def _cells(found: dict[str, Any] | None) -> list[Any]:
    if found is None:
        return ["-", "-"]
    return [found["available"], "-" if found["epochs"] is None else f"{found['epochs']:.2f}"]


def _available(recipe: Recipe, run: str | None) -> dict[str, dict[str, int]]:
    """Variant -> source -> training tokens that it keeps, before any mixture; of the variants that run and recipe share."""
    store = Store(run) if run is not None else None
    if store is None or not store.exists(MANIFEST):
        return {}
    manifest = read_manifest(store)
    found = {}
    for variant in recipe.variants:
        by_source = manifest["accounts"]["variants"].get(variant)
        if by_source is not None:
            mixed = store.read_json(mixture.path(variant)) if mixture.path(variant) in manifest["files"] else {}
            found[variant] = {
                source: mixed[source]["available"] if source in mixed else one["tokens"][TRAIN] for source, one in by_source.items()
            }
    return found
