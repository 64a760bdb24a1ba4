"""What stats.json holds: the merged statistics of the parts, the accounts, inputs, rejects, draws, and bounds of rules.

| key        | what stands there                                                                                        |
|------------|----------------------------------------------------------------------------------------------------------|
| name, seed | the recipe's                                                                                             |
| variants   | their names, in the recipe's order                                                                       |
| recipe     | the resolved recipe, as recipe.yaml has it                                                               |
| accounts   | `conservation.Accounts`: what was proven                                                                 |
| alarms     | `figures.alarms`: a line each                                                                            |
| inputs     | source -> files, bytes                                                                                   |
| rejects    | source -> reason -> the first rejects: locator, detail, count                                            |
| sources    | source -> `statistics.part_statistics`, merged; null for a source without a document                     |
| draws      | variant -> group -> the solved draw, its sources, `tokens` that reached it, `kept_tokens`                |
| mixture    | `tokens`, `max_epochs`, and variant -> source -> `report.mixture.account`; null without one              |
| removal    | source -> kind of entry of the `remove` list -> documents that are taken back by it                       |
| against    | variant -> reason -> other run -> documents that are dropped as copies of what that run keeps             |
| rules      | variant -> rule -> its signal and bounds                                                                 |
| evaluations | set -> its `texts`, and how many of them are `too_short` to look for                                |
| terms      | the lists of terms in the recipe's order: `name`, `phrases`, and those `wordless` that cannot be counted |
| classifier | models/quality.json, or null                                                                             |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import against, mixture, models, removal
from pipelines.conservation import Accounts
from pipelines.judge import resolve_rules
from pipelines.parts import Part
from pipelines.recipe import Recipe
from pipelines.recipe_file import dump, resolved
from pipelines.report.figures import alarms
from pipelines.report.mixture import account
from pipelines.report.statistics import merge, statistics_path, top_hosts, top_licenses
from pipelines.schema import TRAIN, Stage, stage_of
from pipelines.select_settings import VariantSettings, solution_path
from pipelines.store import Store, read_columns

_REJECTS = 2  # shown per source and reason
_DETAIL = 200  # characters of a reject's detail


def collect(store: Store, recipe: Recipe, parts: Sequence[Part], accounts: Accounts) -> dict[str, Any]:
    """The content of stats.json, from the statistics of the parts and the tables of rejects."""
    sources: dict[str, Any] = {}
    for source in sorted(recipe.sources):
        paths = [statistics_path(part) for part in parts if part.source == source]
        found = merge(store.each(paths, store.read_json))
        sources[source] = None
        if found:
            cut = {"hosts": top_hosts(found["hosts"]), "licenses": top_licenses(found["licenses"])}
            sources[source] = {**found, **cut}
    tasks = store.read_json("plan.json")["tasks"]
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "variants": list(recipe.variants),
        "recipe": dump(recipe),
        "accounts": accounts.to_json(),
        "alarms": alarms(accounts.to_json(), resolved(recipe)["sources"]),
        "inputs": _inputs(tasks),
        "rejects": _rejects(store, tasks),
        "sources": sources,
        "draws": {variant: _draws(store, recipe, variant, sources) for variant in recipe.variants},
        "mixture": _mixture(store, recipe, accounts),
        "removal": removal.counts(store, parts),
        "against": {variant: against.counts(store, variant, parts) for variant in recipe.variants},
        "rules": {variant: _rules(recipe, variant) for variant in recipe.variants},
        "evaluations": {name: {"texts": n, "too_short": short} for name, n, short in _lists(store, models.EVALUATIONS)},
        "terms": [{"name": name, "phrases": n, "wordless": w} for name, n, w in _lists(store, models.TERMS)],
        "classifier": store.read_json(models.QUALITY_CARD) if store.exists(models.QUALITY_CARD) else None,
    }


def _inputs(tasks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Files and bytes of every source's inputs."""
    sizes: dict[str, dict[str, int]] = {}
    for task in tasks:
        sizes.setdefault(task["source"], {}).update({one["path"]: one["size"] for one in task["inputs"]})
    return {source: {"files": len(found), "bytes": sum(found.values())} for source, found in sorted(sizes.items())}


def _lists(store: Store, path: str) -> list[tuple[str, int, int]]:
    """(name, texts, those that are not looked for) of an index's lists, in its order."""
    index = models.load_index(store, path)
    return [] if index is None else [(name, *index.texts[name]) for name in index.names]


def _rejects(store: Store, tasks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """source -> reason -> its first rejects in order of tasks. Only tables that have one to show are read."""
    shown: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task in tasks:
        source, name = task["source"], task["name"]
        found = shown.setdefault(source, {})
        reasons = store.read_json(f"documents/{source}/{name}.json")["rejects"]
        if all(len(found.get(reason, ())) >= _REJECTS for reason in reasons):
            continue
        columns = ["locator", "reason", "detail", "count"]
        for row in read_columns(store, f"rejects/{source}/{name}.parquet", columns).to_pylist():
            some = found.setdefault(row["reason"], [])
            if len(some) < _REJECTS:
                some.append({**{key: row[key] for key in ("locator", "count")}, "detail": (row["detail"] or "")[:_DETAIL]})
    return {source: dict(sorted(found.items())) for source, found in sorted(shown.items()) if found}


def _draws(store: Store, recipe: Recipe, variant: str, sources: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Group -> its solved draw, the sources that share it, and the tokens that it really kept."""
    groups = VariantSettings.of(recipe, variant).draws
    found = {}
    for group, solution in store.read_json(solution_path(variant)).items():
        members = [source for source, used in groups.items() if used == group]
        lost = sum(
            tokens
            for source in members
            if sources[source]
            for verdict, tokens in sources[source]["variants"][variant]["tokens"].items()
            if stage_of(verdict) == Stage.QUALITY
        )
        found[group] = {**solution, "sources": members, "kept_tokens": solution["tokens"] - lost}
    return found


def _mixture(store: Store, recipe: Recipe, accounts: Accounts) -> dict[str, Any] | None:
    """The mixture in every variant: what it was solved for, and what stands in the shards."""
    if recipe.mixture is None:
        return None
    wanted, variants = recipe.wanted_tokens(), {}
    for variant in recipe.variants:
        available = {source: one["available"] for source, one in store.read_json(mixture.path(variant)).items()}
        in_shards = {source: one.tokens[TRAIN] for source, one in accounts.variants[variant].items()}
        variants[variant] = account(wanted, available, in_shards)
    return {"tokens": recipe.mixture.tokens, "max_epochs": recipe.mixture.max_epochs, "variants": variants}


def _rules(recipe: Recipe, variant: str) -> dict[str, dict[str, Any]]:
    """Rule -> the signal that it holds against its bounds, [low, high], one pair for every choice among the sources."""
    found: dict[str, dict[str, Any]] = {}
    for source in sorted(recipe.sources):
        for rule in resolve_rules(recipe.policy(variant, source)):
            bounds = found.setdefault(rule.name, {"signal": rule.signal, "bounds": []})["bounds"]
            if [rule.low, rule.high] not in bounds:
                bounds.append([rule.low, rule.high])
    return dict(sorted(found.items()))
