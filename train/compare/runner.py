"""The runs of a comparison as tasks of a fleet (train/fleet.py): what each is told, what is done, and how fast they go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train import fleet
from train.child import TRAINING
from train.compare import jobs
from train.compare.prepare import Comparison
from train.fleet import COSTS, JOB, SCORES
from train.run import CHECKPOINTS
from train.run_config import DataSettings, SavingSettings, Settings, filled

_SAVES = 5  # checkpoints a run


def folder_of(made: Comparison, job: jobs.Job) -> Path:
    """Where a run stands."""
    return made.folder / "runs" / job.name


def is_done(made: Comparison, job: jobs.Job) -> bool:
    """Whether its scores are there, at its rate."""
    return fleet.is_done(folder_of(made, job), job.rate)


def task(made: Comparison, job: jobs.Job, arms: Sequence[str], seeds: int) -> fleet.Task:
    """A run for the fleet; see `describe`."""
    told = describe(made, job, arms, seeds)
    return fleet.Task(job.name, folder_of(made, job), "train.compare.worker", told, job.tokens)


def describe(made: Comparison, job: jobs.Job, arms: Sequence[str], seeds: int) -> dict[str, Any]:
    """What the process of a run reads. arms: those of the primary contrast, which alone have tasks, biases and expert use measured;
    seeds: theirs."""
    training, pilot = made.training, job.seed == jobs.PILOT_SEED
    pool = made.folder / "pools" / job.arm.pool_of(job.seed) / job.arm.blend
    steps = job.tokens // (filled(training.batch) * filled(training.context))
    data = DataSettings(path=str(pool), tokenizer=made.tokenizer, masked=training.data.masked, epochs=float(10**6))
    optimiser = training.optimiser.model_copy(update={"peak": job.rate})
    given: Settings = training.model_copy(
        update={
            "seed": job.seed,
            "steps": steps,
            "data": data,
            "optimiser": optimiser,
            "schedule": training.schedule.model_copy(update={"warmup": warmup(made.settings.model, steps)}),
            "saving": SavingSettings(every=max(1, steps // _SAVES), keep=1),
        }
    )
    primary = job.arm.name in arms
    asked = made.settings
    tasks = asked.tasks.model_dump(mode="json") if asked.tasks is not None and primary else None
    bias = None
    if asked.bias is not None and primary:
        share = -(-asked.bias.continuations // seeds)
        bias = {**asked.bias.model_dump(mode="json"), "continuations": share, "seed": job.seed}
    return {
        "settings": given.model_dump(mode="json"),
        "documents": None if pilot else str(made.documents),
        "experts": primary,
        "tasks": tasks,
        "bias": bias,
        "keep": primary and job.seed == 1,
    }


def warmup(model: dict[str, Any], steps: int) -> int:
    """Updates of warm-up: the recipe's, or a tenth of the run and 2,000 at most, as `winnow train` has it."""
    given = model.get("schedule", {}).get("warmup")
    return min(2000, steps // 10) if given is None else int(given)


def measured_speed(made: Comparison) -> float:
    """Tokens a second of one process: of the runs that are done, else of a few steps that are timed now."""
    found = [json.loads(path.read_bytes())["tokens_per_second"] for path in sorted(made.folder.glob(f"runs/*/{COSTS}"))]
    if found:
        return float(sum(found) / len(found))
    from train.corpus import open_corpus

    primary = made.contrasts[0].first
    told = describe(made, jobs.Job(primary, jobs.PILOT_SEED, made.settings.rates[0], made.tokens), (), 1)
    settings = Settings.of(told["settings"], "compare.model")
    return fleet.measured_speed(settings, open_corpus(told["settings"]["data"]["path"], made.tokenizer))


def forget_weights(made: Comparison) -> None:
    """Deletes checkpoints of runs that are scored, but for those that are kept; after a kill between scores and deletion."""
    for path in sorted(made.folder.glob(f"runs/*/{SCORES}")):
        if not json.loads((path.parent / JOB).read_bytes())["keep"]:
            shutil.rmtree(path.parent / TRAINING / CHECKPOINTS, ignore_errors=True)
