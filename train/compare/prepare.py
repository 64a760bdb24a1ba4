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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import lock, models
from pipelines.errors import UserError
from pipelines.parts import content_of
from pipelines.recipe_compare import Compare
from pipelines.recipe_compare_default import default_compare
from pipelines.store import canonical_json
from train import flops, run_config
from train.compare import jobs, measures, pool_files, sets
from train.compare.arms import Arms
from train.compare.documents import Run
from train.compare.draw_pools import write_pools
from train.config import ModelConfig
from train.evaluate import Encoder
from train.files import publish_json
from train.run_config import Settings, filled

SETTINGS = "settings.json"
VERSION = 3


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
    def told(self) -> dict[str, Any]:
        """The settings as the result tells them: where files lie decides nothing, and is not told."""
        return _without_places(self.settings)

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

    def passes_by_pool(self, arm: jobs.Arm, seed: int = 1) -> dict[str, float]:
        """How often that run goes through each pool that it reads: its own, and in GLaM's mixture the curated one."""
        shares = {arm.pool_of(seed): 1.0}
        if arm.blend == pool_files.GLAM:
            shares = {arm.pool_of(seed): pool_files.GLAM_WEB, pool_files.CURATED: pool_files.GLAM_CURATED}
        sequences = self.tokens * arm.tokens_times / self.model.context
        return {pool: sequences * share / self.pools[pool].sequences for pool, share in shares.items()}

    def passes(self, arm: jobs.Arm, seed: int = 1) -> float:
        """How often that run goes through a pool, at most."""
        return max(self.passes_by_pool(arm, seed).values())


def prepare(folder: str, settings: Compare | None = None, base: str = ".") -> Comparison:
    """Reads, draws and writes; nothing is done twice. settings: default those of the run's recipe. base: where their paths start.

    Raises UserError on anything that would spoil the comparison.
    """
    run = Run.open(folder)
    given = settings or run.recipe.compare or default_compare(run.recipe, run.store.read_json, run.store.root)
    asked = _located(given, base)
    training = _training(run, asked)
    measures.check(asked.tasks, asked.bias, filled(training.context))
    arms = Arms.open(run, asked, base)
    specs = sets.specs(asked, base)
    identity = _identity(arms, training, specs)
    chosen = hashlib.blake2b(canonical_json(identity), digest_size=6).hexdigest()
    root = Path(run.store.local_path("comparisons")) / chosen
    root.mkdir(parents=True, exist_ok=True)
    contrasts = tuple(jobs.contrasts(asked, arms.steps()))
    context = filled(training.context)
    glam = any(one.name == "glam" for one in contrasts)
    with lock.hold(str(root / ".lock"), str(root)):
        publish_json(root / SETTINGS, identity)
        told, limits = _write_sets(arms, specs, root / "sets")
        measures.check_openings(asked.bias, root / "sets" / "documents.jsonl")
        written, more = write_pools(arms, jobs.draws(contrasts), context, glam, root / "pools")
    per_step = filled(training.batch) * context
    tokens = asked.tokens // per_step * per_step
    if not tokens:
        raise UserError(f"compare.tokens: {asked.tokens} is less than one step of {per_step}; give more, or lower model.batch")
    cost = flops.matmul_training(training.model_config_of_run(), context)
    made = Comparison(chosen, root, run, asked, training, tokens, cost, contrasts, written, told, (*limits, *more))
    _check_compute(made)
    return _without_repeats(made)


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


def _without_places(asked: Compare) -> dict[str, Any]:
    dump = asked.model_dump(mode="json")
    for one in dump["sets"].values():
        one["files"] = None if one["files"] is None else [Path(path).name for path in one["files"]]
    for section, key in (("tasks", "folder"), *(("bias", key) for key in ("crows_pairs", "winogender", "words", "prompts"))):
        if dump[section] is not None:
            dump[section][key] = dump[section][key] is not None
    return dump


def _training(run: Run, asked: Compare) -> Settings:
    for key in ("data", "steps", "seed", "saving", "validation", "threads", "optimiser.peak"):
        section, _, name = key.rpartition(".")
        if name in (asked.model.get(section) or {} if section else asked.model):
            raise UserError(f"compare.model.{key}: a comparison sets it itself; leave it out")
    vocabulary = models.load(run.store).tokenizer.vocab_size
    given = Settings.of({"steps": 1, **asked.model}, "compare.model")
    settings = run_config.complete(given, "compare.model", vocabulary)
    if settings.optimiser.kind != "adamw" and len(asked.rates) > 1:
        raise UserError("compare.rates: a pilot is for AdamW; give one rate for adafactor")
    return settings


def _identity(arms: Arms, training: Settings, specs: list[sets.SetSpec]) -> dict[str, Any]:
    """All that decides a byte of the result: settings, documents, decisions, models."""
    run, asked = arms.run, arms.asked
    variants = {*(arms.variants[given] for given in asked.arms if arms.runs[given] is run), *asked.ladder}
    made_from = [content_of(run.store, [part.path(table) for part in run.parts]) for table in ("documents", "clusters", "signals")]
    made_from += [content_of(run.store, [part.decisions(name) for part in run.parts]) for name in sorted(variants)]
    for given, other in arms.runs.items():
        if other is not run:
            made_from.append(content_of(other.store, [part.decisions(arms.variants[given]) for part in other.parts]))
            made_from.append(content_of(other.store, [part.path("signals") for part in other.parts]))
    return {
        "version": VERSION,
        "recipe": run.recipe.name,
        "seed": run.recipe.seed,
        "compare": _without_places(asked),
        "training": training.identity,
        "files": {spec.name: spec.digests() for spec in specs},
        "measures": measures.files(asked.tasks, asked.bias),
        "tokenizer": run.store.digest(models.TOKENIZER)["sha256"],
        "run": hashlib.sha256(canonical_json(made_from)).hexdigest(),
    }


def _write_sets(arms: Arms, specs: list[sets.SetSpec], folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    run = arms.run
    told = folder / "sets.json"
    if not told.exists():
        folder.mkdir(exist_ok=True)
        encoder = Encoder(run.store.read(models.TOKENIZER), run.store.url(models.TOKENIZER))
        taken = sets.read(run, specs, encoder, arms.asked.set_bytes)
        documents = [document for one in taken.values() for document in one.documents]
        corpus = (batch for one in arms.every_run for batch in sets.corpus_texts(one))
        leaks, facts = sets.decontaminated(documents, corpus)
        with open(folder / "documents.jsonl", "w", encoding="utf-8") as file:
            for document, leak in zip(documents, leaks, strict=True):
                row = {"domain": document.domain, "doc": document.doc, "cluster": document.cluster, "leaked": leak}
                file.write(json.dumps({**row, "text": document.text}, ensure_ascii=False) + "\n")
        groups = {spec.name: spec.group for spec in specs}
        more = {
            name: {"duplicates": one.duplicates, "left_out": one.left_out, "trained_hosts": one.trained_hosts}
            for name, one in taken.items()
        }
        publish_json(told, {name: {"group": groups[name], **facts[name], **more[name]} for name in groups})
    found = json.loads(told.read_bytes())
    alone = sorted(name for name, facts in found.items() if facts["clusters"] < 2)
    return found, tuple(f"the evaluation set {name} is one cluster of documents: no interval can be had on it" for name in alone)


def _check_compute(made: Comparison) -> None:
    """Pools of whole sequences: then equal steps are equal numbers of targets, and so of FLOPs, in the arms of every contrast."""
    context = made.model.context
    for name, pool in sorted(made.pools.items()):
        if pool.tokens != pool.sequences * context + 1:
            raise UserError(
                f"{made.folder / 'pools' / name}: {pool.tokens:,} tokens are not {pool.sequences:,} whole sequences of {context}: "
                "arms would have unequal compute; delete the folder, and it is drawn again"
            )


def _without_repeats(made: Comparison) -> Comparison:
    """The same without controls that repeat a pool more often than `max_epochs` allows; sweeps are there to repeat.

    Raises UserError where an arm of the primary contrast does.
    """
    kept, told = [], []
    most = made.settings.max_epochs
    for contrast in made.contrasts:
        found, pool = max(
            (passes, pool) for arm in (contrast.first, contrast.second) for pool, passes in made.passes_by_pool(arm).items()
        )
        if found <= most or contrast.name.startswith(jobs.SWEEP):
            kept.append(contrast)
        elif contrast.name == "primary":
            raise UserError(
                f"compare.tokens: {made.tokens:,} tokens go {found:.1f} times through the {made.pools[pool].tokens:,} of {pool}, "
                f"{most:g} allowed; lower compare.tokens, or raise compare.max_epochs"
            )
        else:
            told.append(f"{contrast.name} is left out: a run would go {found:.1f} times through {pool}, {most:g} are allowed.")
    return replace(made, contrasts=tuple(kept), limits=(*made.limits, *told))
