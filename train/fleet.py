"""Training runs, several at once, each in a process of its own with one thread; every interruption can be gone on from.

Two threads in one small model are slower than two models side by side. A task is a folder and what its process is told there:

    job.json      what to do, as {"settings": train.run_config.Settings, ...}
    costs.json    last but one: seconds, tokens a second, energy
    scores.json   last: what came out. A task that has it is done; nothing else is asked
    errors.txt    what the process says, until it has ended well

The process itself is `train.child.serve`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import lock
from pipelines.errors import CheckError, UserError
from train.child import STOPPED, TRAINING
from train.corpus import Corpus
from train.files import publish_json
from train.run import CHECKPOINTS
from train.run_config import Settings

JOB, SCORES, COSTS, ERRORS = "job.json", "scores.json", "costs.json", "errors.txt"
_POLL = 0.2  # seconds
_ORPHAN = 60.0  # seconds that a run is waited for whose fleet was killed: it ends by itself, after the step that it is in
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Task:
    """`module`: what `python -m` runs with the folder; `told`: the content of job.json; `work`: what it costs, in any one unit."""

    name: str
    folder: Path
    module: str
    told: dict[str, Any]
    work: float

    @property
    def rate(self) -> float:
        """Its peak learning rate."""
        return float(self.told["settings"]["optimiser"]["peak"])


def is_done(folder: Path, rate: float) -> bool:
    """Whether the scores of a run at this learning rate are there."""
    return (folder / SCORES).exists() and _rate_in(folder) == rate


def _rate_in(folder: Path) -> float:
    return float(json.loads((folder / JOB).read_bytes())["settings"]["optimiser"]["peak"])


@dataclass(slots=True)
class _Running:
    task: Task
    process: subprocess.Popen[bytes]


def run(
    tasks: Sequence[Task], processes: int, deadline: float | None, say: Say, each: Callable[[], object] = lambda: None
) -> bool:
    """Runs what is not done, in order; whether all is done at the end.

    deadline: of time.monotonic, after which runs are asked to stop. each: called after every run that ends. Raises CheckError where
    a run fails, naming its log; whatever ends this ends the processes too.
    """
    todo = [task for task in tasks if not is_done(task.folder, task.rate)]
    for task in tasks:
        if task not in todo and not task.told.get("keep"):  # after a kill between scores and the deletion of weights
            shutil.rmtree(task.folder / TRAINING / CHECKPOINTS, ignore_errors=True)
    done, running = len(tasks) - len(todo), list[_Running]()
    began, finished, left = time.monotonic(), 0.0, sum(task.work for task in todo)
    stopped = False
    before = signal.signal(signal.SIGTERM, _interrupted)
    try:
        while running or (todo and not stopped):
            while todo and len(running) < processes and not stopped:
                task = todo.pop(0)
                running.append(_Running(task, _start(task)))
            time.sleep(_POLL)
            if deadline is not None and time.monotonic() > deadline and not stopped:
                stopped = True
                _stop(running)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                if stopped and one.process.returncode in (STOPPED, -signal.SIGTERM):  # the latter before it could listen
                    continue
                _check(one)
                done, finished = done + 1, finished + one.task.work
                rest = (left - finished) * (time.monotonic() - began) / finished
                costs = json.loads((one.task.folder / COSTS).read_bytes())
                speed = f"{costs['tokens_per_second']:,.0f} tokens/s"
                say(f"run {done} of {len(tasks)}  {one.task.name}  {speed}  {minutes(rest)} left")
                each()
    finally:
        _stop(running)
        for one in running:
            one.process.wait()
        signal.signal(signal.SIGTERM, before)
    return done == len(tasks)


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _start(task: Task) -> subprocess.Popen[bytes]:
    if (task.folder / JOB).exists() and _rate_in(task.folder) != task.rate:  # a longer pilot may have chosen another one since
        shutil.rmtree(task.folder)
    lock.wait(str(task.folder / TRAINING / ".lock"), _ORPHAN)
    task.folder.mkdir(parents=True, exist_ok=True)
    publish_json(task.folder / JOB, task.told)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with open(task.folder / ERRORS, "wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", task.module, str(task.folder), str(os.getpid())],  # -P: whoever calls may have a train.py
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


def _check(one: _Running) -> None:
    folder = one.task.folder
    if one.process.returncode == 0 and is_done(folder, one.task.rate):
        (folder / ERRORS).unlink()
        return
    said = (folder / ERRORS).read_text("utf-8", "replace").strip().splitlines()
    why = said[-1] if said else f"ended with {one.process.returncode}"
    raise CheckError(f"{folder}: the run failed: {why} (all of it in {ERRORS} there); the same command goes on")


def measured_speed(settings: Settings, corpus: Corpus, steps: int = 4) -> float:
    """Tokens a CPU second of one process with one thread, by a few steps that are timed now."""
    import torch

    from train.loop import Trainer
    from train.parallel import ALONE

    torch.set_num_threads(1)
    trainer = Trainer(settings, corpus, ALONE)
    trainer.step()  # the first one warms up
    began = time.process_time()
    tokens = sum(trainer.step().tally.targets for _ in range(steps))
    return tokens / (time.process_time() - began)


def minutes(seconds: float) -> str:
    """A duration for people."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min" if whole >= 3600 else f"{whole // 60} min"


def duration(option: str, given: str) -> float:
    """Seconds of `90s`, `45m`, `3h` or `1.5h`. Raises UserError, naming the option, on anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", given.strip())
    if match is None or float(match[1]) <= 0:
        raise UserError(f"{option} {given}: give a time such as 90s, 45m or 3h")
    return float(match[1]) * _SECONDS[match[2]]
