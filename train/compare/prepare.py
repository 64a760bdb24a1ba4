"""Everything of a comparison that stands before the first run: evaluation sets without leaks, pools, contrasts, training settings.

All that can be wrong is found here, in one line, before a second of training: variants of different tokenizers, an evaluation set
of which decontamination leaves nothing, a pool that would be gone through too often, settings that do not fit.

    comparisons/<id>/settings.json         what was asked for, in full, and what it stands on; `id` is its hash
    comparisons/<id>/sets/documents.jsonl  every evaluation document, with its leak where it has one
    comparisons/<id>/sets/sets.json        the sets in numbers
    comparisons/<id>/pools/                train/compare/pool_files.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipelines import lock, models
from pipelines.errors import UserError
from pipelines.judge import PURPOSE
from pipelines.parts import content_of
from pipelines.recipe_compare import Compare
from pipelines.select_settings import VariantSettings
from pipelines.store import canonical_json
from train import flops, run_config
from train.compare import jobs, measures, pool_files, pools, second, sets
from train.compare.defaults import default_compare
from train.compare.documents import Rows, Run, is_within, read_rows, steps_between
from train.config import ModelConfig
from train.evaluate import Encoder
from train.files import publish_json
from train.run_config import Settings, filled

VERSION = 1
ANOTHER_RUN = "another run"  # the step between arms of two runs


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prepared comparison. `tokens`: of one run, in whole steps; `flops`: training FLOPs a token (6 a weight, and attention)."""

    id: str
    folder: Path
    run: Run
    settings: Compare
    training: Settings
    tokens: int
    flops: int
    contrasts: tuple[jobs.Contrast, ...]
    pools: dict[str, pool_files.Pool]
    sets: dict[str, Any]
    limits: tuple[str, ...]

    @property
    def model(self) -> ModelConfig:
        return self.training.model_config_of_run()

    @property
    def tokenizer(self) -> str:
        return self.run.store.local_path(models.TOKENIZER)

    @property
    def documents(self) -> Path:
        return self.folder / "sets" / "documents.jsonl"

    def pool(self, arm: jobs.Arm, seed: int = 1) -> pool_files.Pool:
        """The pool of the run of an arm with this seed."""
        return self.pools[arm.pool_of(seed)]

    def passes(self, arm: jobs.Arm, seed: int = 1) -> float:
        """How often that run goes through its pool."""
        share = pool_files.GLAM_WEB if arm.blend == pool_files.GLAM else 1.0
        return self.tokens * arm.tokens_times * share / self.model.context / self.pool(arm, seed).sequences


def prepare(folder: str, settings: Compare | None = None, base: str = ".") -> Comparison:
    """Reads, draws and writes; nothing is done twice. settings: default those of the run's recipe. base: where their paths start.

    Raises UserError on anything that would spoil the comparison.
    """
    run = Run.open(folder)
    asked = _located(settings or run.recipe.compare or default_compare(run), base)
    measures.check(asked.tasks, asked.bias)
    runs = {given: _run_of(run, given, base) for given in asked.arms}
    names = {given: given.rpartition(":")[2] for given in asked.arms}
    first = asked.arms[0]
    web = asked.web or _drawn_sources(runs[first], names[first])
    _check_names(run, runs, names, asked, web)
    training = _training(run, asked)
    steps = _steps(run, runs, asked, web)

    found = {given: read_rows(runs[given], names[given], web) for given in asked.arms}
    for given, rows in found.items():
        if not len(rows):
            raise UserError(f"compare.arms: {given} keeps no document of {', '.join(web)}; loosen its rules, or name other sources")
    specs = sets.specs(asked, base)
    identity = _identity(run, runs, names, asked, training, specs)
    chosen = hashlib.blake2b(canonical_json(identity), digest_size=6).hexdigest()
    root = Path(run.store.local_path("comparisons")) / chosen
    root.mkdir(parents=True, exist_ok=True)
    contrasts = tuple(jobs.contrasts(asked, steps))
    wanted = jobs.draws(contrasts)
    context = filled(training.context)
    glam = any(one.name == "glam" for one in contrasts)
    with lock.hold(str(root / ".lock"), str(root)):
        publish_json(root / "settings.json", identity)
        told, limits = _write_sets(run, runs, asked, specs, root / "sets")
        written, more = _write_pools(run, runs, names, asked, web, found, wanted, context, glam, root / "pools")
    per_step = filled(training.batch) * context
    tokens = asked.tokens // per_step * per_step
    if not tokens:
        raise UserError(f"compare.tokens: {asked.tokens} is less than one step of {per_step}; give more, or lower model.batch")
    cost = flops.matmul_training(training.model_config_of_run(), context)
    made = Comparison(
        chosen, root, run, asked, training, tokens, cost, contrasts, written, told, (*limits, *more)
    )
    _check_passes(made)
    return made


def _run_of(run: Run, given: str, base: str) -> Run:
    folder, colon, variant = given.rpartition(":")
    if not colon:
        _check_variant(run, variant, "arms")
        return run
    other = Run.open(folder if "://" in folder or folder.startswith("/") else f"{base}/{folder}")
    digests = [one.store.digest(models.TOKENIZER)["sha256"] for one in (run, other)]
    if digests[0] != digests[1]:
        raise UserError(
            f"compare.arms: {given} was made with another tokenizer than {run.store.root}: the arms would not see the same tokens; "
            f"build it with fit.tokenizer.file: {run.store.url(models.TOKENIZER)}"
        )
    _check_variant(other, variant, "arms")
    return other


def _check_variant(run: Run, variant: str, key: str) -> None:
    if variant not in run.recipe.variants:
        there = ", ".join(run.recipe.variants)
        raise UserError(f"compare.{key}: {run.store.root} has no variant {variant!r}; there are {there}")


def _check_names(run: Run, runs: dict[str, Run], names: dict[str, str], asked: Compare, web: list[str]) -> None:
    """Variants and sources that are named, and pools of two kinds under one name."""
    last = asked.arms[1]
    for name in asked.ladder:
        _check_variant(run, name, "ladder")
    if asked.ladder and (last in asked.ladder or runs[last] is not run):
        raise UserError(f"compare.ladder ends in the second arm, {last}, by itself, which is this run's; leave one of them out")
    there = dict.fromkeys(source for one in (run, *runs.values()) for source in one.recipe.sources)
    for key, sources in (("web", web), ("second", asked.second)):
        if missing := [source for source in sources if source not in there]:
            raise UserError(f"compare.{key}: {run.store.root} has no source {missing[0]!r}; there are {', '.join(there)}")
    for name in (*map(jobs.arm_name, asked.arms), *asked.ladder):
        if name in {*asked.controls, "curated"}:
            raise UserError(f"compare: a pool of a control is called {name} too; give the variant another name")


def _located(asked: Compare, base: str) -> Compare:
    """The same, with the files of tasks and biases where they are."""
    changes: dict[str, Any] = {}
    if asked.tasks is not None:
        changes["tasks"] = asked.tasks.model_copy(update={"folder": str(Path(base, asked.tasks.folder).resolve())})
    if asked.bias is not None:
        given = {key: getattr(asked.bias, key) for key in ("crows_pairs", "winogender", "words", "prompts")}
        found = {key: None if path is None else str(Path(base, path).resolve()) for key, path in given.items()}
        changes["bias"] = asked.bias.model_copy(update=found)
    return asked.model_copy(update=changes)


def _drawn_sources(run: Run, variant: str) -> list[str]:
    drawn = sorted(VariantSettings.of(run.recipe, variant).draws)
    if not drawn:
        raise UserError(f"compare.web is missing: {variant} draws no source by quality; name the sources whose documents differ")
    return drawn


def _training(run: Run, asked: Compare) -> Settings:
    for key in ("data", "steps", "seed"):
        if key in asked.model:
            raise UserError(f"compare.model.{key}: a comparison sets it itself; leave it out")
    vocabulary = models.load(run.store).tokenizer.vocab_size
    given = Settings.of({"steps": 1, **asked.model}, "compare.model")
    settings = run_config.complete(given, "compare.model", vocabulary)
    if settings.optimiser.kind != "adamw" and len(asked.rates) > 1:
        raise UserError("compare.rates: a pilot is for AdamW; give one rate for adafactor")
    return settings


def _steps(run: Run, runs: dict[str, Run], asked: Compare, web: list[str]) -> dict[str, tuple[str, ...]]:
    """By contrast, the steps in which its variants differ; `glam` is there where the run has curated sources to mix with."""
    first, last = asked.arms
    same = runs[first] is runs[last]
    found = {"primary": steps_between(run, first, last, web) if same else (ANOTHER_RUN,)}
    rungs = [*asked.ladder, *([last] if runs[last] is run else [])]
    for before, after in pairwise(rungs):
        found[f"ladder_{after}"] = steps_between(run, before, after, web)
    if curated_sources(run, web):
        found["glam"] = found["primary"]
    return found


def curated_sources(run: Run, web: list[str]) -> list[str]:
    """What GLaM's mixture has beside web pages: here every source that is not filtered for its quality."""
    return sorted(set(run.recipe.sources) - set(web) - set(run.recipe.fit.quality.web if run.recipe.fit.quality else ()))


def _identity(
    run: Run, runs: dict[str, Run], names: dict[str, str], asked: Compare, training: Settings, specs: list[sets.SetSpec]
) -> dict[str, Any]:
    """All that decides a byte of the result: settings, documents, decisions, models."""
    variants = {*(names[given] for given in asked.arms if runs[given] is run), *asked.ladder}
    made_from = [content_of(run.store, [part.path(table) for part in run.parts]) for table in ("documents", "clusters", "signals")]
    made_from += [content_of(run.store, [part.decisions(name) for part in run.parts]) for name in sorted(variants)]
    for given, other in runs.items():
        if other is not run:
            made_from.append(content_of(other.store, [part.decisions(names[given]) for part in other.parts]))
            made_from.append(content_of(other.store, [part.path("signals") for part in other.parts]))
    return {
        "version": VERSION,
        "recipe": run.recipe.name,
        "seed": run.recipe.seed,
        "compare": asked.model_dump(mode="json"),
        "training": training.identity,
        "files": {spec.name: spec.digests() for spec in specs},
        "tokenizer": run.store.digest(models.TOKENIZER)["sha256"],
        "run": hashlib.sha256(canonical_json(made_from)).hexdigest(),
    }


def _write_sets(
    run: Run, runs: dict[str, Run], asked: Compare, specs: list[sets.SetSpec], folder: Path
) -> tuple[dict[str, Any], tuple[str, ...]]:
    told = folder / "sets.json"
    if not told.exists():
        folder.mkdir(exist_ok=True)
        encoder = Encoder(run.store.read(models.TOKENIZER), run.store.url(models.TOKENIZER))
        taken = sets.read(run, specs, encoder, asked.set_bytes)
        documents = [document for one in taken.values() for document in one.documents]
        corpus = (batch for one in {id(other): other for other in runs.values()}.values() for batch in sets.corpus_texts(one))
        leaks, facts = sets.decontaminated(documents, corpus)
        with open(folder / "documents.jsonl", "w", encoding="utf-8") as file:
            for document, leak in zip(documents, leaks, strict=True):
                row = {"domain": document.domain, "doc": document.doc, "cluster": document.cluster, "leaked": leak}
                file.write(json.dumps({**row, "text": document.text}, ensure_ascii=False) + "\n")
        groups = {spec.name: spec.group for spec in specs}
        more = {name: {"duplicates": one.duplicates, "left_out": one.left_out} for name, one in taken.items()}
        publish_json(told, {name: {"group": groups[name], **facts[name], **more[name]} for name in groups})
    found = json.loads(told.read_bytes())
    alone = sorted(name for name, facts in found.items() if facts["clusters"] < 2)
    return found, tuple(f"the evaluation set {name} is one cluster of documents: no interval can be had on it" for name in alone)


def _write_pools(
    run: Run,
    runs: dict[str, Run],
    names: dict[str, str],
    asked: Compare,
    web: list[str],
    found: dict[str, Rows],
    wanted: dict[str, int],
    context: int,
    glam: bool,
    root: Path,
) -> tuple[dict[str, pool_files.Pool], tuple[str, ...]]:
    first, last = asked.arms
    one, two = found[first], found[last]
    seed = run.recipe.seed
    called = {given: jobs.arm_name(given) for given in asked.arms}
    written: dict[str, pool_files.Pool] = {}
    limits: list[str] = []

    def write(name: str, made: str, draw: Callable[..., Rows], *given: Any, of: Run = run, curated: bool = False) -> None:
        standing = pool_files.read_pool(root, name)
        written[name] = standing or pool_files.write_pool(root, name, of, draw(*given), context, made, curated)

    if glam:
        sources = curated_sources(run, web)
        variant = names[last] if runs[last] is run else names[first]
        write("curated", f"all that {variant} keeps of {', '.join(sources)}", read_rows, run, variant, sources)
    for given in asked.arms:
        made = f"all that {names[given]} keeps of {', '.join(web)}"
        write(called[given], made, found.__getitem__, given, of=runs[given], curated=glam)
    for name in asked.ladder:
        if name not in written:
            write(name, f"all that {name} keeps of {', '.join(web)}", read_rows, run, name, web)
    same = runs[first] is run and runs[last] is run
    drawn = wanted.keys() - written.keys()
    if drawn and not same:
        raise UserError("compare.controls: they are drawn from one run's documents, but an arm is another run's; set controls: []")
    if not drawn:
        return written, tuple(limits)
    policy = VariantSettings.of(run.recipe, first)
    if not is_within(one, two):
        limits.append(f"{first} has documents that {last} has not: controls are drawn from {last} alone")
    for number in range(1, wanted.get("matched", 0) + 1):
        made = f"per source and length decile as many tokens as {first}, drawn at random from {last}"
        write(f"matched_draw{number}", made, pools.matched, one, two, seed, number)
    for number in range(1, wanted.get("random", 0) + 1):
        made = f"as many tokens as {first}, drawn at random from {last}"
        write(f"random_draw{number}", made, pools.random, one, two, seed, number)
    if "cut" in wanted:
        made = f"the documents of highest quality of {last}, as many tokens as {first}"
        write("cut", made, pools.cut, one, two, policy, seed)
    if "second" in wanted:

        def by_second() -> Rows:
            classifier, _ = second.fit_second(run, last, asked.second)
            return pools.second_draw(one, second.judged(run, two, classifier), policy, seed, PURPOSE)

        write("second", f"the draw of {first} with a classifier that learned from {', '.join(asked.second)}", by_second)

    def part_of_matched(divisor: int, number: int) -> Rows:
        return pools.fraction(pools.matched(one, two, seed, number), divisor, seed, number)

    for divisor in asked.sweep:
        made = f"one part in {divisor} of {{}}, by tokens, drawn at random"
        for number in range(1, wanted.get(f"{called[first]}_{divisor}", 0) + 1):
            name = f"{called[first]}_{divisor}_draw{number}"
            write(name, made.format(first), pools.fraction, one, divisor, seed, number)
        for number in range(1, wanted.get(f"matched_{divisor}", 0) + 1):
            write(f"matched_{divisor}_draw{number}", made.format("matched"), part_of_matched, divisor, number)
    return written, tuple(limits)


def _check_passes(made: Comparison) -> None:
    """Two arms of the primary contrast may not repeat more than `max_epochs` allows; sweeps are there to repeat."""
    primary = made.contrasts[0]
    for arm in (primary.first, primary.second):
        found = made.passes(arm)
        if found > made.settings.max_epochs:
            pool = made.pool(arm)
            raise UserError(
                f"compare.tokens: {made.tokens:,} tokens go {found:.1f} times through the {pool.tokens:,} of {arm.pool}, "
                f"{made.settings.max_epochs:g} allowed; lower compare.tokens, or raise compare.max_epochs"
            )
