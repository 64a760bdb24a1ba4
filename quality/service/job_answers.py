"""What the service says of jobs and of comparisons, as its OpenAPI description has it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from quality.service import progress, results
from quality.service.answers import Answer, Count
from quality.service.corpora import Corpus
from quality.service.jobs import Job, Kind, State
from quality.service.settings import Settings

_ID = "019abf4be2a37f0c9d1e5b6a7c8d9e0f"
_EXAMPLE: JsonDict = {
    "id": _ID,
    "kind": "compare",
    "corpus": "demo",
    "request": {"corpus": "demo", "seeds": 2},
    "state": "running",
    "stopping": False,
    "created": "2026-11-25T20:00:00Z",
    "started": "2026-11-25T20:00:01Z",
    "ended": None,
    "stage": "runs",
    "progress": {"done": 7, "total": 31},
    "eta": 1860.0,
    "losses": 0,
    "detail": "",
    "links": {
        "self": f"/v1/jobs/{_ID}",
        "events": f"/v1/jobs/{_ID}/events",
        "log": f"/v1/jobs/{_ID}/log",
        "corpus": "/v1/corpora/demo",
        "comparison": "/v1/corpora/demo/comparisons/a0cb12f4d5e6",
    },
}

Moment = Annotated[str, Field(description="UTC, as ISO 8601")]


class Done(Answer):
    """How much of something is done."""

    done: Count
    total: Count


class JobAnswer(Answer):
    """A build or a comparison: what was asked for, where it stands, how it ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    kind: Kind
    corpus: str
    request: dict[str, Any]
    state: State
    stopping: Annotated[bool, Field(description="its end was asked for")]
    created: Moment
    started: Annotated[Moment | None, Field(description="when its process last began")]
    ended: Moment | None
    stage: Annotated[str | None, Field(description="what it is at, or where it ended")]
    progress: Annotated[Done | None, Field(description="parts of a build's stage, or runs of a comparison")]
    eta: Annotated[float | None, Field(ge=0, description="seconds to its end; null where that is not known")]
    losses: Annotated[Count, Field(description="how often its process was lost together with the service")]
    detail: Annotated[str, Field(description="what came out, or why it failed, on one line")]
    links: dict[str, str]


class JobPage(Answer):
    """Jobs, the newest first, and where to go on."""

    items: list[JobAnswer]
    next: Annotated[str | None, Field(description="`after` of the page that follows; null on the last one")]


class ComparisonSummary(Answer):
    """A comparison in one line. Without a finished pair of runs there is no verdict yet."""

    id: str
    partial: Annotated[bool, Field(description="some of its runs are not done, or were left out for the budget")]
    runs: Done | None
    verdict: str | None
    primary: Annotated[list[str] | None, Field(description="its two arms")]
    gap: Annotated[float | None, Field(description="bits per byte; above zero the first arm is better")]
    low: Annotated[float | None, Field(description="of the gap's 95 % interval")]
    high: float | None
    links: dict[str, str]


class Comparisons(Answer):
    """The comparisons of a corpus, by id."""

    items: list[ComparisonSummary]


def job(found: Job, settings: Settings) -> dict[str, Any]:
    """A job as the service tells it. Reads a few small files."""
    at = progress.of(found, settings)
    links = {"self": f"/v1/jobs/{found.id}", "events": f"/v1/jobs/{found.id}/events", "log": f"/v1/jobs/{found.id}/log"}
    links["corpus"] = f"/v1/corpora/{found.corpus}"
    folder = progress.comparison_of(found, settings)
    if folder is not None:
        links["comparison"] = f"/v1/corpora/{found.corpus}/comparisons/{folder.name}"
        if (folder / "index.html").exists():
            links["page"] = links["comparison"] + "/page"
    return {
        "id": found.id,
        "kind": found.kind,
        "corpus": found.corpus,
        "request": found.request,
        "state": found.state,
        "stopping": found.stopping and not found.is_ended,
        "created": moment(found.created),
        "started": moment(found.started),
        "ended": moment(found.ended),
        "stage": at.stage,
        "progress": None if at.done is None or at.total is None else {"done": at.done, "total": at.total},
        "eta": None if at.eta is None else round(at.eta, 1),
        "losses": found.losses,
        "detail": found.detail,
        "links": links,
    }


def comparison(corpus: Corpus, name: str) -> dict[str, Any]:
    """One of a corpus' comparisons in one line."""
    folder, own = corpus.comparison(name), f"/v1/corpora/{corpus.id}/comparisons/{name}"
    plan, result = progress.plan_of(folder), results.summary(folder)
    at = None if plan is None else progress.runs_of(folder, plan)
    told, endpoint = result or {}, (result or {}).get("endpoint") or {}
    verdict = {key: told.get(key) for key in ("verdict", "primary")} | {key: endpoint.get(key) for key in ("gap", "low", "high")}
    links = {"self": own} | ({"page": f"{own}/page"} if result is not None else {})
    partial = result is None or plan is None or at is None or at.done < at.total or bool(plan["left_out"])
    runs = None if at is None else {"done": at.done, "total": at.total}
    return {"id": name, "partial": partial, "runs": runs, **verdict, "links": links}


def moment(seconds: float | None) -> str | None:
    """A time (seconds since 1970) as ISO 8601 in UTC."""
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
