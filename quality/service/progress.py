"""What a job is at, read from the files that its process writes.

    build    the last line of its log that tells of a stage: the command prints JSON lines of parts done while a stage runs, and
             `STAGE n of m redone` when it ends
    compare  plan.json of the comparison that the process holds the lock of, and the runs that have their scores

A build has no eta: how long the stages take that come is not known before. A comparison's is the plan's until a run has ended, and
from then on the pace of those that did.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality.service.children import ERRORS, OUT
from quality.service.corpora import COMPARISONS
from quality.service.jobs import Job, job_folder
from quality.service.settings import Settings

PLAN, SCORES = "plan.json", "runs/*/scores.json"
PREPARES = "prepare"
_PLANNED = {"runs", "seconds", "pilot_rates", "left_out"}  # keys of a plan that are needed here
_SAID = re.compile(r"(\w+) +(\d+) of (\d+) redone, ")
_SILENT = {"sample": "fit", "statistics": "report"}  # stages of a build that say nothing before they end, by the one before
_CLOCK = 1.0  # seconds by which a file's time may lag behind this process
_TAIL = 64 << 10  # bytes of a log


@dataclass(frozen=True, slots=True)
class Progress:
    """done of total parts or runs of `stage`; eta: seconds to the job's end. None where it is not known."""

    stage: str | None = None
    done: int | None = None
    total: int | None = None
    eta: float | None = None


def of(job: Job, settings: Settings) -> Progress:
    """Where a job stands; nothing of one that waits. Reads a few small files and never waits."""
    if job.state == "queued":
        return Progress()
    if job.kind == "build":
        return _of_build(job, settings)
    return _of_comparison(job, settings)


def _of_build(job: Job, settings: Settings) -> Progress:
    folder = job_folder(settings.state, job.id)
    told = [one for one in map(_running, tail(folder / ERRORS).splitlines()) if one is not None]
    said = [match for line in tail(folder / OUT).splitlines() if (match := _SAID.match(line)) is not None]
    last = told[-1] if told else None
    if said and (last is None or last.stage in {match[1] for match in said}):
        stage, done, total = said[-1][1], int(said[-1][2]), int(said[-1][3])
        if stage in _SILENT and job.state == "running":
            return Progress(_SILENT[stage])
        return Progress(stage, done, total)
    return last or Progress(PREPARES if job.state == "running" else None)


def _running(line: str) -> Progress | None:
    """What a JSON line of the build says, None for any other line."""
    if not line.startswith('{"stage":'):
        return None
    try:
        told = json.loads(line)
        return Progress(str(told["stage"]), int(told["done"]), int(told["total"]))
    except (ValueError, KeyError, TypeError):
        return None


def _of_comparison(job: Job, settings: Settings) -> Progress:
    folder = comparison_of(job, settings)
    plan = None if folder is None else plan_of(folder)
    planned = 0.0 if folder is None or plan is None else (folder / PLAN).stat().st_mtime
    if folder is None or plan is None or job.started is None or planned < job.started - _CLOCK:  # the plan is of an earlier start
        return Progress(PREPARES if job.state == "running" else None)
    at = runs_of(folder, plan)
    if job.state != "running":
        return Progress(at.stage, at.done, at.total)
    ended = sorted(when for path in folder.glob(SCORES) if (when := path.stat().st_mtime) > planned)
    left, now = at.total - at.done, time.time()
    eta = left * (ended[-1] - planned) / len(ended) - (now - ended[-1]) if ended else plan["seconds"] - (now - planned)
    return Progress(at.stage, at.done, at.total, max(0.0, eta))


@dataclass(frozen=True, slots=True)
class Runs:
    """How many of a comparison's runs are done, and whether they are the pilot's."""

    stage: str
    done: int
    total: int


def runs_of(folder: Path, plan: dict[str, Any]) -> Runs:
    """What of a plan is done. A pilot may try more rates than the plan knew of."""
    begun = {path.parent.name for path in folder.glob("runs/*/job.json")}
    pilots = [name for name in begun if name.startswith("pilot_")]
    total = plan["runs"] + max(0, len(pilots) - len(plan["pilot_rates"]))
    done = min(total, sum(1 for _ in folder.glob(SCORES)))
    stage = "pilot" if plan["pilot_rates"] and len(pilots) == len(begun) else "runs" if done < total else "result"
    return Runs(stage, done, total)


def comparison_of(job: Job, settings: Settings) -> Path | None:
    """The folder of the comparison that a job's process prepares or runs, or did. None before there is one."""
    folder = None if job.comparison is None else settings.runs / job.corpus / COMPARISONS / job.comparison
    return folder if folder is not None and folder.is_dir() else None


def held_by(job: Job, settings: Settings) -> Path | None:
    """The folder of the comparison whose lock names a running job's process. Of one that has ended this says nothing: another may
    have its number by now, and another job goes on with its comparison."""
    if job.kind != "compare" or job.pid is None or job.started is None:
        return None
    holder = f"process {job.pid} of ".encode()
    for lock in sorted((settings.runs / job.corpus / COMPARISONS).glob("*/.lock")):
        try:
            if lock.stat().st_mtime >= job.started - _CLOCK and lock.read_bytes().startswith(holder):
                return lock.parent
        except OSError:  # gone in between
            continue
    return None


def plan_of(folder: Path) -> dict[str, Any] | None:
    """The plan of a comparison, None where there is none that can be read; such files appear whole or not at all."""
    try:
        plan = json.loads((folder / PLAN).read_bytes())
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) and plan.keys() >= _PLANNED else None


def tail(path: Path, size: int = _TAIL) -> str:
    """The last whole lines of a file within `size` bytes; "" where there is none. What is no UTF-8 is replaced."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - size))
            content = file.read(size)
    except FileNotFoundError:
        return ""
    if end > size:
        content = content.partition(b"\n")[2]
    return content.decode("utf-8", "replace")


def log(job: Job, settings: Settings) -> str:
    """What a job's process said last, for people: its output, then what it said of errors; lines for programs are left out."""
    folder = job_folder(settings.state, job.id)
    errors = [line for line in tail(folder / ERRORS).splitlines() if _running(line) is None]
    lines = [*tail(folder / OUT).splitlines(), *errors]
    return "".join(f"{line}\n" for line in lines)
