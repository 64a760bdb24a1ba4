"""The runs of a comparison, several at once, each in a process of its own with one thread.

Two threads in one small model are slower than two models side by side. A run that is done has its scores; nothing else is asked, so
that the same command goes on after any interruption, and one that was killed goes on from its checkpoint to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import CheckError
from train.compare import jobs
from train.compare.prepare import Comparison
from train.compare.worker import COSTS, JOB, SCORES, TRAINING
from train.files import publish_json
from train.run import CHECKPOINTS, STOPPED
from train.run_config import DataSettings, SavingSettings, Settings, filled

_POLL = 0.2  # seconds
_SAVES = 5  # checkpoints a run

Say = Callable[[str], None]


def folder_of(made: Comparison, job: jobs.Job) -> Path:
    """Where a run stands."""
    return made.folder / "runs" / job.name


def is_done(made: Comparison, job: jobs.Job) -> bool:
    """Whether its scores are there, at its rate: a longer pilot may have chosen another one since."""
    folder = folder_of(made, job)
    return (folder / SCORES).exists() and _rate(folder) == job.rate


def _rate(folder: Path) -> float:
    return float(json.loads((folder / JOB).read_bytes())["settings"]["optimiser"]["peak"])


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


@dataclass(slots=True)
class _Running:
    job: jobs.Job
    process: subprocess.Popen[bytes]
    since: float


def run_jobs(
    made: Comparison,
    wanted: Sequence[tuple[jobs.Job, dict[str, Any]]],
    processes: int,
    deadline: float | None,
    say: Say,
    each: Callable[[], object] = lambda: None,
) -> bool:
    """Runs what is not done, in order; whether all is done at the end. deadline: of time.monotonic, after which runs are asked to
    stop. each: called after every run that ends. Raises CheckError where a run fails, naming its log; whatever ends this ends the
    processes too."""
    todo = [(job, told) for job, told in wanted if not is_done(made, job)]
    done, running = len(wanted) - len(todo), list[_Running]()
    began, finished_tokens = time.monotonic(), 0
    left_tokens = sum(job.tokens for job, _ in todo)
    stopped = False
    before = signal.signal(signal.SIGTERM, _interrupted)
    try:
        while running or (todo and not stopped):
            while todo and len(running) < processes and not stopped:
                job, told = todo.pop(0)
                running.append(_Running(job, _start(folder_of(made, job), told), time.monotonic()))
            time.sleep(_POLL)
            if deadline is not None and time.monotonic() > deadline and not stopped:
                stopped = True
                _stop(running)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                if stopped and one.process.returncode in (STOPPED, -signal.SIGTERM):  # the latter before it could listen
                    continue
                _check(made, one)
                done, finished_tokens = done + 1, finished_tokens + one.job.tokens
                pace = finished_tokens / (time.monotonic() - began)
                rest = (left_tokens - finished_tokens) / pace
                say(_progress(made, one.job, done, len(wanted), rest))
                each()
    finally:
        _stop(running)
        for one in running:
            one.process.wait()
        signal.signal(signal.SIGTERM, before)
    return done == len(wanted)


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _start(folder: Path, told: dict[str, Any]) -> subprocess.Popen[bytes]:
    if (folder / JOB).exists() and _rate(folder) != told["settings"]["optimiser"]["peak"]:  # done or half done at another rate
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    publish_json(folder / JOB, told)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with open(folder / "errors.txt", "wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "train.compare.worker", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then asks the others to stop
        )


def _stop(running: Sequence[_Running]) -> None:
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)


def _check(made: Comparison, one: _Running) -> None:
    folder = folder_of(made, one.job)
    if one.process.returncode == 0 and is_done(made, one.job):
        (folder / "errors.txt").unlink()
        return
    said = (folder / "errors.txt").read_text("utf-8", "replace").strip().splitlines()
    why = said[-1] if said else f"ended with {one.process.returncode}"
    raise CheckError(f"{folder}: the run failed: {why} (all of it in errors.txt there); the same command goes on")


def _progress(made: Comparison, job: jobs.Job, done: int, total: int, rest: float) -> str:
    costs = json.loads((folder_of(made, job) / COSTS).read_bytes())
    return f"run {done} of {total}  {job.name}  {costs['tokens_per_second']:,.0f} tokens/s  {minutes(rest)} left"


def minutes(seconds: float) -> str:
    """A duration for people."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min" if whole >= 3600 else f"{whole // 60} min"


def measured_speed(made: Comparison, steps: int = 4) -> float:
    """Tokens a second of one process: of the runs that are done, else of a few steps that are timed now."""
    found = [json.loads(path.read_bytes())["tokens_per_second"] for path in sorted(made.folder.glob(f"runs/*/{COSTS}"))]
    if found:
        return float(sum(found) / len(found))
    import torch

    from train.corpus import open_corpus
    from train.loop import Trainer
    from train.parallel import ALONE

    torch.set_num_threads(1)
    primary = made.contrasts[0].first
    told = describe(made, jobs.Job(primary, jobs.PILOT_SEED, made.settings.rates[0], made.tokens), (), 1)
    settings = Settings.of(told["settings"], "compare.model")
    trainer = Trainer(settings, open_corpus(told["settings"]["data"]["path"], made.tokenizer), ALONE)
    trainer.step()  # the first one warms up
    began = time.process_time()
    tokens = sum(trainer.step().tally.targets for _ in range(steps))
    return tokens / (time.process_time() - began)


def forget_weights(made: Comparison) -> None:
    """Deletes checkpoints of runs that are scored, but for those that are kept; after a kill between scores and deletion."""
    for path in sorted(made.folder.glob(f"runs/*/{SCORES}")):
        if not json.loads((path.parent / JOB).read_bytes())["keep"]:
            shutil.rmtree(path.parent / TRAINING / CHECKPOINTS, ignore_errors=True)
