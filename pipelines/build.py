"""THE build: from public text to filtered and unfiltered token shards, with every record accounted for.

    plan      inputs -> tasks, fixed before anything runs
    extract   records -> documents/ and rejects/
    cluster   hashes -> clusters/: exact, near, repeated paragraphs
    match     hashes of this run and of those that it is held against -> against/: copies of what they keep
    cite      wiki dumps -> references/: the URLs that they cite, where the classifier learns from them
    fit       a sample without duplicates and without held-out text -> models/
    annotate  documents + clusters + models -> signals/
    select    signals + clusters -> decisions/<variant>/
    tokenize  signals + decisions -> tokens/<variant>/
    report    statistics of every part, the proof that counts add up, page and card, manifest.json last

Each stage asks which of its parts stand under their present key and redoes the others: nothing else decides what runs.
Whoever sees manifest.json sees a complete run.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apache_beam as beam

from pipelines import (
    against,
    annotate,
    blocklist,
    cluster,
    extract,
    fit,
    match,
    models,
    references,
    removal,
    run_directory,
    select,
    select_settings,
    select_solve,
    tokenize,
)
from pipelines.beam_parts import Each, spread
from pipelines.conservation import Accounts, account
from pipelines.engine import Engine, Progress, check_reach, run
from pipelines.errors import UserError
from pipelines.index import write_index
from pipelines.manifest import prune, write_manifest
from pipelines.parts import Part, list_parts, task_record
from pipelines.plan import Plan, make_plan
from pipelines.preflight import Given, preflight
from pipelines.recipe import Recipe
from pipelines.recipe_file import RECIPE, dump, parse
from pipelines.report import statistics, write_report
from pipelines.store import Store

Say = Callable[[str], None]


@dataclass(slots=True)
class Timing:
    """One stage of one build, for runs.jsonl: outside all hashes."""

    stage: str
    redone: int
    total: int
    seconds: float
    cpu_seconds: float


@dataclass(slots=True)
class _Build:
    """What the stages of one build share."""

    store: Store
    recipe: Recipe
    engine: Engine
    say: Say
    timings: list[Timing] = field(default_factory=list)

    def stage(
        self, name: str, redo: int, total: int, wire: Callable[[beam.Pipeline], Any], done: Callable[[], int]
    ) -> None:
        """Runs one stage's job if any of its parts is stale."""
        with self.timed(name, redo, total):
            if redo:
                run(self.engine, name, wire, Progress(name, redo, done))

    @contextmanager
    def timed(self, name: str, redo: int, total: int) -> Iterator[None]:
        wall, cpu = time.monotonic(), _cpu()
        yield
        timing = Timing(name, redo, total, round(time.monotonic() - wall, 3), round(_cpu() - cpu, 3))
        self.timings.append(timing)
        self.say(f"{name:<10} {redo} of {total} redone, {timing.seconds:.1f} s")


def build(recipe: Recipe, base: str, run_folder: str, engine: Engine, say: Say = print) -> Accounts:
    """Builds `recipe` (relative paths start from `base`) into `run_folder`; returns the accounts that were proven.

    Errors: UserError before anything runs for what the user can mend; CheckError when counts do not add up.
    """
    check_reach(engine, [run_folder])
    given = preflight(recipe, base)
    check_reach(engine, (one.url for one in given.earlier))
    run_directory.check(Store(run_folder))
    with Store(run_folder).lock() as store:
        _belongs(store, recipe)
        _not_being_purged(store)
        _not_itself(store, given.earlier)
        run_directory.sweep(store)
        plan = make_plan(recipe, base)
        inputs = [one.url for task in plan.tasks for one in task.inputs]
        check_reach(engine, inputs)
        run_directory.check_inputs(store, inputs)
        store.remove("manifest.json")
        named = {against.NAMED: [one.to_json() for one in given.earlier]} if given.earlier else {}
        store.publish_json(run_directory.PLAN, {**plan.to_json(), **named})  # first: by it the folder is a run directory
        store.publish(RECIPE, dump(recipe).encode())
        job = _Build(store, recipe, engine, say)

        parts = _extract(job, plan, given.blocked)
        _remove(job, parts, given.removed)
        _cluster(job, parts)
        _match(job, parts, given.earlier)
        _cite(job, plan)
        _fit(job, parts, given)
        _annotate(job, parts)
        _select(job, parts)
        _tokenize(job, parts)
        _statistics(job, parts)

        with job.timed("report", 1, 1):
            accounts = account(store, recipe, plan, parts)
            write_index(store, parts)
            write_report(store, recipe, parts, accounts)
            manifest = write_manifest(store, recipe, plan, parts, accounts)
            prune(store, manifest)
        _log(store, engine, job.timings)
    return accounts


def _extract(job: _Build, plan: Plan, blocked: dict[str, blocklist.Blocklist]) -> tuple[Part, ...]:
    store, recipe = job.store, job.recipe
    blocklist.publish(store, blocked, recipe.sources)
    stale = extract.stale_tasks(store, plan, recipe)
    for task in stale:
        store.begin(task_record(task))
    job.stage(
        "extract",
        len(stale),
        len(plan.tasks),
        lambda pipeline: extract.wire(pipeline, store, recipe, stale),
        lambda: sum(store.sidecar(task_record(task)) is not None for task in stale),
    )
    return list_parts(store, plan)


def _remove(job: _Build, parts: tuple[Part, ...], listed: removal.Removal | None) -> None:
    """Finds the documents that are taken back; the launcher does, since a new list may name any part."""
    found = removal.find(job.store, parts, listed)
    if listed is not None:
        job.say(f"{'remove':<10} {found} documents taken back, {sum(listed.counts().values())} entries")


def _cluster(job: _Build, parts: tuple[Part, ...]) -> None:
    store, recipe = job.store, job.recipe
    key = cluster.cluster_key(store, recipe, parts)
    fresh = not _stale(store, parts, lambda part: part.path("clusters"), lambda part: key)
    job.stage(
        "cluster",
        0 if fresh else len(parts),
        len(parts),
        lambda pipeline: cluster.wire(pipeline, store, recipe, parts, key),
        lambda: sum(store.is_finished(part.path("clusters"), key) for part in parts),
    )


def _match(job: _Build, parts: tuple[Part, ...], earlier: tuple[against.Earlier, ...]) -> None:
    store, recipe = job.store, job.recipe
    if not earlier:
        against.forget(store, parts)
        return
    key = match.match_key(store, recipe, parts, against.identities(earlier))
    fresh = not _stale(store, parts, against.path, lambda part: key)
    job.stage(
        "match",
        0 if fresh else len(parts),
        len(parts),
        lambda pipeline: match.wire(pipeline, store, recipe, parts, earlier, key),
        lambda: sum(store.is_finished(against.path(part), key) for part in parts),
    )
    try:
        against.check_unchanged(earlier)
    except UserError:
        for part in parts:
            store.begin(against.path(part))  # what was found is not what its key says
        raise


def _cite(job: _Build, plan: Plan) -> None:
    store, recipe = job.store, job.recipe
    tasks, stale = references.tasks_of(recipe, plan), references.stale_tasks(store, recipe, plan)
    if tasks:
        job.stage(
            "cite",
            len(stale),
            len(tasks),
            lambda pipeline: references.wire(pipeline, store, recipe, stale),
            lambda: sum(store.sidecar(references.task_path(task)) is not None for task in stale),
        )
    references.publish(store, recipe, plan)


def _fit(job: _Build, parts: tuple[Part, ...], given: Given) -> None:
    store, recipe = job.store, job.recipe
    stale = fit.stale_samples(store, recipe, parts)
    job.stage(
        "sample",
        len(stale),
        len(parts),
        lambda pipeline: fit.wire(pipeline, store, recipe, stale),
        lambda: sum(store.is_finished(part.path("samples"), key) for part, _, key in stale),
    )
    with job.timed("fit", 1, 1):
        fit.fit_models(store, recipe, parts, given.language_model, given.tokenizer, given.lists)


def _annotate(job: _Build, parts: tuple[Part, ...]) -> None:
    store, recipe = job.store, job.recipe
    model_hashes = models.hashes(store)
    key_of = partial(annotate.part_key, store, recipe, model_hashes=model_hashes)
    stale = _stale(store, parts, lambda part: part.path("signals"), key_of)
    job.stage(
        "annotate",
        len(stale),
        len(parts),
        lambda pipeline: annotate.wire(pipeline, store, recipe, stale),
        lambda: sum(store.is_finished(part.path("signals"), key) for part, key in stale),
    )


def _select(job: _Build, parts: tuple[Part, ...]) -> None:
    store, recipe = job.store, job.recipe
    bounds = models.perplexity_bounds(store)
    keys = select_settings.variant_keys(store, recipe, parts, bounds)
    stale = [
        name
        for name, key in keys.items()
        if not all(store.each(select_settings.decided_paths(recipe, name, parts), partial(store.is_finished, key=key)))
    ]
    settings = select_settings.Settings.of(recipe, stale, bounds)
    if not parts:
        select_solve.solve_nothing(store, settings, keys)
    job.stage(
        "select",
        len(stale) * len(parts),
        len(keys) * len(parts),
        lambda pipeline: select.wire(pipeline, store, settings, parts, keys),
        lambda: sum(store.is_finished(part.decisions(name), keys[name]) for name in stale for part in parts),
    )


def _tokenize(job: _Build, parts: tuple[Part, ...]) -> None:
    store, recipe = job.store, job.recipe
    tokenizer = models.load_tokenizer(store)
    vocabulary = tokenize.Vocabulary(tokenizer.vocab_size, tokenizer.end_of_document)
    stale = tokenize.stale_shards(store, recipe, parts, vocabulary)
    job.stage(
        "tokenize",
        len(stale),
        len(recipe.sources) * recipe.tokens.shards,
        lambda pipeline: tokenize.wire(pipeline, store, stale, vocabulary),
        lambda: sum(
            store.is_finished(f"tokens/{variant}/{shard.prefix(tokenize.SPLITS[-1])}.idx", key)
            for shard in stale
            for variant, key in shard.keys[-1:]
        ),
    )
    tokenize.write_blend(store, recipe)


def _statistics(job: _Build, parts: tuple[Part, ...]) -> None:
    store, recipe = job.store, job.recipe
    stale = _stale(store, parts, statistics.statistics_path, partial(statistics.statistics_key, store, recipe))
    worker = statistics.StatisticsWorker(store, tuple(sorted(recipe.variants)), recipe.seed)
    job.stage(
        "statistics",
        len(stale),
        len(parts),
        lambda pipeline: spread(pipeline, "Parts", stale) | beam.ParDo(Each(worker)),
        lambda: sum(store.is_finished(statistics.statistics_path(part), key) for part, key in stale),
    )


def _stale(
    store: Store, parts: Sequence[Part], path: Callable[[Part], str], key: Callable[[Part], str]
) -> list[tuple[Part, str]]:
    """The parts whose file does not stand under its present key, with that key."""

    def keyed(part: Part) -> tuple[Part, str] | None:
        present = key(part)
        return None if store.is_finished(path(part), present) else (part, present)

    return [found for found in store.each(parts, keyed) if found is not None]


# -- around the stages ------------------------------------------------------------------------------------------------------


def _belongs(store: Store, recipe: Recipe) -> None:
    """A run directory belongs to one recipe name and seed; everything else may be edited and rebuilt."""
    if not store.exists(RECIPE):
        return
    found = parse(store.read(RECIPE).decode(), store.url(RECIPE))
    for field_name in ("name", "seed"):
        own, given = getattr(found, field_name), getattr(recipe, field_name)
        if own != given:
            raise UserError(
                f"{store.root}: belongs to a recipe with {field_name} {own!r}, not {given!r};"
                " give another --run"
            )


def _not_being_purged(store: Store) -> None:
    """A purge that was cut short goes on before anything is built; one that ended as the manifest appeared left its journal."""
    if store.exists(removal.JOURNAL):
        if not store.exists("manifest.json"):
            raise UserError(f"{store.root}: a purge was cut short here; run winnow purge {store.root}, which goes on")
        store.remove(removal.JOURNAL)


def _not_itself(store: Store, earlier: Sequence[against.Earlier]) -> None:
    if any(one.is_in(store) for one in earlier):
        raise UserError(f"{store.root}: `against` names this very run; give another --run, or leave it out")


def _cpu() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _log(store: Store, engine: Engine, timings: Sequence[Timing]) -> None:
    """Appends this build to runs.jsonl: times and engine, outside all hashes."""
    line = {
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "engine": {"name": engine.name, "options": list(engine.options)},
        "stages": [
            {"stage": t.stage, "redone": t.redone, "total": t.total, "seconds": t.seconds, "cpu_seconds": t.cpu_seconds}
            for t in timings
        ],
    }
    before = store.read("runs.jsonl") if store.exists("runs.jsonl") else b""
    store.publish("runs.jsonl", before + json.dumps(line).encode() + b"\n")
