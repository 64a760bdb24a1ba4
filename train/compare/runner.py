"""The runs of a comparison as tasks of a fleet (train/fleet.py): what each is told, what is done, and how fast they go."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipelines import lock
from pipelines.store import canonical_json
from train import fleet
from train.compare import jobs
from train.compare.prepare import SETTINGS, Comparison
from train.files import digest
from train.fleet import COSTS
from train.run_config import DataSettings, SavingSettings, Settings, filled

CONTENT = "content"
_SAVES = 5  # checkpoints a run


def alone(made: Comparison) -> AbstractContextManager[str]:
    """Holds the runs of a comparison. Raises UserError where another process does."""
    return lock.hold(str(made.folder / "runs" / ".lock"), str(made.folder))


def folder_of(made: Comparison, job: jobs.Job) -> Path:
    """Where a run stands."""
    return made.folder / "runs" / job.name


def is_done(made: Comparison, job: jobs.Job) -> bool:
    """Whether its scores are there, at its rate."""
    return fleet.is_done(folder_of(made, job), job.rate)


def task(made: Comparison, job: jobs.Job) -> fleet.Task:
    """A run for the fleet; see `describe`."""
    return fleet.Task(job.name, folder_of(made, job), "train.compare.worker", describe(made, job), job.tokens)


def describe(made: Comparison, job: jobs.Job) -> dict[str, Any]:
    """What the process of a run reads. The arms of the primary contrast alone have tasks, biases and, where the model has experts,
    their use measured, and must not fail. `content`: what decides its scores (earlier.py)."""
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
    primary = job.arm.name in {arm.name for arm in (made.contrasts[0].first, made.contrasts[0].second)}
    asked = made.settings
    tasks = asked.tasks.model_dump(mode="json") if asked.tasks is not None and primary else None
    bias = None
    if asked.bias is not None and primary:
        share = -(-asked.bias.continuations // asked.seeds)
        bias = {**asked.bias.model_dump(mode="json"), "continuations": share, "seed": job.seed}
    told: dict[str, Any] = {
        "settings": given.model_dump(mode="json"),
        "documents": None if pilot else str(made.documents),
        "experts": primary and made.model.moe is not None,
        "tasks": tasks,
        "bias": bias,
        "keep": primary and job.seed == 1,
        "required": primary,
    }
    return {**told, CONTENT: _content(made, job, told)}


def _content(made: Comparison, job: jobs.Job, told: dict[str, Any]) -> str:
    """The hash of all that decides a byte of a run's scores; where it lies does not."""
    identity = json.loads((made.folder / SETTINGS).read_bytes())
    measured = told["tasks"] is not None or told["bias"] is not None
    facts = {
        "version": identity["version"],
        "settings": {**told["settings"], "data": {**told["settings"]["data"], "path": None, "tokenizer": identity["tokenizer"]}},
        "pools": {pool: made.pools[pool].sha256 for pool in made.passes_by_pool(job.arm, job.seed)},
        "blend": job.arm.blend,
        "documents": None if told["documents"] is None else digest(made.documents),
        "experts": told["experts"],
        "measures": {key: identity["compare"][key] for key in ("tasks", "bias")} if measured else None,
        "files": identity["measures"] if measured else None,
        "continuations": None if told["bias"] is None else told["bias"]["continuations"],
    }
    return hashlib.sha256(canonical_json(facts)).hexdigest()


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
    told = describe(made, jobs.Job(primary, jobs.PILOT_SEED, made.settings.rates[0], made.tokens))
    settings = Settings.of(told["settings"], "compare.model")
    return fleet.measured_speed(settings, open_corpus(told["settings"]["data"]["path"], made.tokenizer))
