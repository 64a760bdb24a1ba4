"""The comparison of a run whose recipe names none: filtered against unfiltered, judged on what the run held out for validation.

The sources take their groups from what the classifier learned: its curated sources are positives, its web sources and all that are
drawn by quality are web, and the others are unseen. Where none is, the endpoint is the positives, which flatters a filter; the page
says so by the name of the group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.errors import UserError
from pipelines.recipe import Draw, Recipe
from pipelines.recipe_compare import Compare, EvaluationSet, Group


def default_compare(recipe: Recipe, read_json: Callable[[str], Any], where: str) -> Compare:
    """read_json: the content of a file of the run, by its path there; where: the run, as errors name it.

    Raises UserError where the run has no variants of these names, or held nothing out.
    """
    first, last = Compare.model_fields["arms"].default
    for name in (first, last):
        if name not in recipe.variants:
            raise UserError(f"{where}: no variant {name!r} and no section compare in its recipe; name the arms and sets there")
    quality = recipe.fit.quality
    curated, web = (set(quality.curated), set(quality.web)) if quality is not None else (set(), set())
    web |= {source for source in recipe.sources if isinstance(recipe.policy(first, source).quality, Draw)}
    blend = read_json(f"tokens/{last}/blend.json")
    held_out = {entry["prefix"].split("/")[1].rsplit("-", 3)[0] for entry in blend["validation"]}
    groups: dict[str, Group] = {
        source: "positives" if source in curated else "web" if source in web else "unseen" for source in sorted(held_out)
    }
    if not groups:
        raise UserError(f"{where}: nothing was held out to judge on; build with tokens.validation above 0")
    order: tuple[Group, ...] = ("unseen", "positives", "web")
    endpoint = next(group for group in order if group in groups.values())
    return Compare(sets={source: EvaluationSet(group=group) for source, group in groups.items()}, endpoint=endpoint)
