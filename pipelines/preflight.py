"""What a recipe takes from elsewhere than its inputs, read and checked before anything runs.

`winnow plan` and `winnow build` both begin here, so that they refuse the same recipes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import against, blocklist, packages, removal
from pipelines.fit_lists import GivenLists
from pipelines.path_lists import is_absolute
from pipelines.reading import read_given
from pipelines.recipe import Recipe
from pipelines.select_settings import VariantSettings
from quality import language


@dataclass(frozen=True, slots=True)
class Given:
    """All that a build reads besides its inputs."""

    language_model: bytes
    tokenizer: bytes | None
    lists: GivenLists
    blocked: dict[str, blocklist.Blocklist]
    removed: removal.Removal | None
    earlier: tuple[against.Earlier, ...]


def preflight(recipe: Recipe, base: str) -> Given:
    """Reads it; relative paths start from `base`. What is missing, damaged or unknown is a UserError of one line."""
    path = packages.language_model()
    language_model = path.read_bytes()
    recipe.check_languages(language.labels(language.parse(language_model, str(path))))
    for variant in recipe.variants:
        VariantSettings.of(recipe, variant).parameters()  # knows no rule but those that there are
    return Given(
        language_model,
        _tokenizer(recipe, base),
        GivenLists.of(recipe, base),
        blocklist.load(recipe, base),
        None if recipe.remove is None else removal.load(recipe.remove, base),
        against.resolve(recipe, base),
    )


def _tokenizer(recipe: Recipe, base: str) -> bytes | None:
    chosen = recipe.fit.tokenizer.file
    if chosen is None:
        return None
    return read_given(chosen if is_absolute(chosen) else f"{base}/{chosen}", "mend fit.tokenizer.file")
