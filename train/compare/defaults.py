"""The comparison of a run whose recipe names none: see `pipelines.recipe_compare_default`."""

from __future__ import annotations

from pipelines import recipe_compare_default
from pipelines.recipe_compare import Compare
from train.compare.documents import Run


def default_compare(run: Run) -> Compare:
    """Raises UserError where the run has no variants to compare by default, or held nothing out."""
    return recipe_compare_default.default_compare(run.recipe, run.store.read_json, run.store.root)
