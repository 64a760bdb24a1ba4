"""What select reads of a recipe, resolved; the key of every variant; and where select writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import against, mixture, removal
from pipelines.judge import Bounds, resolve_rules
from pipelines.parts import Part, content_of
from pipelines.recipe import Draw, Policy, Recipe
from pipelines.store import Store, stage_key

VERSION = 2
DEFAULT_GROUP = "default"  # the draw that the sources without one of their own share


@dataclass(frozen=True, slots=True)
class VariantSettings:
    """What select reads of one variant, with every policy resolved."""

    name: str
    dedup: tuple[str, ...]
    policies: dict[str, Policy]  # by source
    draws: dict[str, str]  # source -> whose solution it uses: "default" or the source's own name

    @staticmethod
    def of(recipe: Recipe, name: str) -> VariantSettings:
        chosen = recipe.variants[name]
        policies = {source: recipe.policy(name, source) for source in sorted(recipe.sources)}
        own = {source for source, policy in chosen.sources.items() if policy.quality is not None}
        draws = {s: s if s in own else DEFAULT_GROUP for s, policy in policies.items() if isinstance(policy.quality, Draw)}
        return VariantSettings(name, tuple(sorted(chosen.dedup)), policies, draws)

    def parameters(self) -> Any:
        """Plain values for the key."""
        policies = {
            source: [policy.model_dump(mode="json"), [repr(rule) for rule in resolve_rules(policy)]]
            for source, policy in self.policies.items()
        }
        return [self.dedup, policies, self.draws]

    @property
    def groups(self) -> list[str]:
        """The draws that are solved together, in the order of their numbers."""
        return sorted(set(self.draws.values()))

    def draw_of(self, group: str) -> Draw:
        quality = next(self.policies[source].quality for source, used in self.draws.items() if used == group)
        assert isinstance(quality, Draw)
        return quality


@dataclass(frozen=True, slots=True)
class Settings:
    """What select reads of the recipe, for the variants that it decides now."""

    variants: tuple[VariantSettings, ...]
    priorities: dict[str, int]
    min_jaccards: dict[str, float]  # by source
    seed: int
    validation: float
    wanted: dict[str, int]  # training tokens by source; {} without a mixture
    bounds: dict[str, tuple[float, float]]  # of perplexity by language, see `judge`; {} without models

    @property
    def mixed(self) -> list[str]:
        """The sources of the mixture, in the order of their numbers."""
        return sorted(self.wanted)

    @staticmethod
    def of(recipe: Recipe, names: Sequence[str], bounds: Bounds) -> Settings:
        return Settings(
            tuple(VariantSettings.of(recipe, name) for name in names),
            {source: recipe.sources[source].priority for source in sorted(recipe.sources)},
            dict(sorted(recipe.min_jaccards().items())),
            recipe.seed,
            recipe.tokens.validation,
            recipe.wanted_tokens(),
            dict(sorted(bounds.items())),
        )


def variant_keys(store: Store, recipe: Recipe, parts: Sequence[Part], bounds: Bounds) -> dict[str, str]:
    """One key a variant, for all its parts: a keep rate and a keeper depend on every document."""
    made_from = [
        content_of(store, [part.path("signals") for part in parts]),
        content_of(store, [part.path("clusters") for part in parts]),
        [part.sha256 for part in parts],
        *removal.content(store, parts),
        *against.content(store, parts),
    ]
    keys = {}
    for name in recipe.variants:
        settings = Settings.of(recipe, [name], bounds)
        parameters = [settings.variants[0].parameters(), settings.priorities, settings.min_jaccards]
        parameters += [settings.seed, settings.validation, *([settings.wanted] if settings.wanted else [])]
        parameters += [settings.bounds] if settings.bounds else []
        keys[name] = stage_key("select", VERSION, parameters, made_from)
    return keys


def solution_path(variant: str) -> str:
    """Where the solved draws of a variant are written, by group: "default", or a source with a draw of its own."""
    return f"decisions/{variant}/resolved.json"


def decided_paths(recipe: Recipe, variant: str, parts: Sequence[Part]) -> list[str]:
    """Every file that select writes for a variant."""
    solutions = [solution_path(variant)] + ([mixture.path(variant)] if recipe.mixture is not None else [])
    return [*solutions, *(part.decisions(variant) for part in parts)]
