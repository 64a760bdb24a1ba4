"""What the pages show of jobs, in plain words. Plain values in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality.service.jobs import Job
from quality.service.progress import PREPARES, Progress
from quality.service.views import duration, moment

STEPS = {
    "build": (PREPARES, "extract", "cluster", "sample", "fit", "annotate", "select", "tokenize", "statistics", "report"),
    "compare": (PREPARES, "pilot", "runs", "result"),
}
_KINDS = {"build": "Build", "compare": "Comparison"}
_LAST = 16_000  # characters of a log


def row(job: Job, at: Progress, now: float) -> dict[str, Any]:
    """A job in a table of jobs. now: seconds since 1970, as all times of jobs."""
    told = {"queued": "waits for its turn", "running": _where(at)}.get(job.state, job.detail.partition(";")[0])
    return {
        "id": job.id,
        "kind": _KINDS[job.kind],
        "title": _title(job),
        "state": job.state,
        "at": told,
        "percent": _percent(at) if job.state == "running" else None,
        "started": moment(job.started),
        "took": duration((job.ended or now) - job.started) if job.started is not None else "",
    }


def whole(job: Job, at: Progress, now: float, comparison: Path | None, log: str) -> dict[str, Any]:
    """A job on its own page. comparison: the folder of the one that it made or makes; log: what its process said."""
    ended = job.ended is not None
    return {
        **row(job, at, now),
        "at": _where(at) if job.state == "running" else "",
        "stage": at.stage if job.state == "running" else None,
        "ended": ended,
        "created": moment(job.created),
        "detail": job.detail,
        "said": _said(job, at, now),
        "steps": [] if ended or job.state == "queued" else _steps(job, at),
        "request": request(job.request),
        "results": _results(job, comparison),
        "log": log if len(log) <= _LAST else "[…]\n" + log[-_LAST:].partition("\n")[2],
    }


def _title(job: Job) -> str:
    if job.kind == "build":
        return f"Build of {job.request['recipe']} into {job.corpus}"
    arms = job.request.get("arms")
    return f"Comparison in {job.corpus}" if not arms else f"Comparison of {arms[0]} with {arms[1]} in {job.corpus}"


def _where(at: Progress) -> str:
    if at.stage is None:
        return ""
    return at.stage if at.total is None else f"{at.stage}, {at.done:,} of {at.total:,}"


def _percent(at: Progress) -> int | None:
    return 100 * (at.done or 0) // at.total if at.total else None


def _said(job: Job, at: Progress, now: float) -> str:
    """Where a job stands, in one or two sentences."""
    if job.state == "queued":
        again = " It was interrupted with the service, and goes on where it stopped." if job.losses else ""
        return f"It waits for its turn; jobs run one after another.{again}"
    if job.ended is not None:
        ended = moment(job.ended)
        took = f", after {duration(job.ended - job.started)}" if job.started is not None else ""
        return f"Ended {ended['text'] if ended else ''}{took}."
    spent = f"At work for {duration(now - (job.started or now))}."
    if job.stopping:
        return f"{spent} It is being stopped."
    return spent if at.eta is None else f"{spent} About {duration(at.eta)} to go."


def _steps(job: Job, at: Progress) -> list[tuple[str, str]]:
    """(step, "done", "current" or "next")."""
    names = STEPS[job.kind]
    now = names.index(at.stage) if at.stage in names else -1
    return [(name, "done" if place < now else "current" if place == now else "next") for place, name in enumerate(names)]


def _results(job: Job, comparison: Path | None) -> list[tuple[str, str]]:
    """(what, path) of what a job that succeeded has made, the best first."""
    own = ("The corpus", f"/corpora/{job.corpus}")
    if job.kind == "build":
        return [own, ("Its report", f"/v1/corpora/{job.corpus}/report")]
    if comparison is None:
        return [("The comparisons", f"/corpora/{job.corpus}#comparisons")]
    return [("The result", f"/v1/corpora/{job.corpus}/comparisons/{comparison.name}/page"), own]


def request(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of everything that a job was asked for."""
    return [(name.replace("_", " "), _plain(value)) for name, value in given.items() if value is not None]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
