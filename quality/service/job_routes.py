"""Routes of jobs: builds and comparisons, asked for, watched, cancelled; and what comparisons of a corpus there are.

A POST answers at once with the job that it made; the work is done by `runner`. With an `Idempotency-Key` a POST can be sent again
without fear: the same request makes no second job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import pydantic
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import Response

from quality.service import auth, job_answers, job_events, jobs, progress, requests, routes
from quality.service.openapi import PROBLEMS
from quality.service.problems import Problem

_AGAIN = 30  # seconds after which a full queue is asked again
_SOON = 2  # seconds after which a new job is looked at
_WHERE = "GET /v1/jobs lists them"

router = APIRouter(tags=["jobs"], responses=PROBLEMS)
JobId = Annotated[str, Path(alias="id", pattern=r"^[0-9a-f]{32}$", description="The id of a job.")]
ComparisonId = Annotated[str, Path(alias="comparison", pattern=r"^[0-9a-f]{12}$", description="The id of a comparison.")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,255}$", description="The same key and request make one job."),
]
_STARTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job, which waits for its turn.",
        "headers": {
            "Location": {"description": "The job.", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds.", "schema": {"type": "string"}},
        },
    }
}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
_WRITES = [Depends(auth.require_write)]


@router.post("/v1/builds", status_code=202, response_model=job_answers.JobAnswer, responses=_STARTED, dependencies=_WRITES)
def start_build(request: Request, asked: requests.BuildRequest, key: Key = None) -> Response:
    """Builds a recipe that the service offers into a run, as `winnow build` does; what is finished there is not done again."""
    settings = request.app.state.service.settings
    return _submit(request, "build", asked.run, asked, key, lambda: requests.check_build(asked, settings))


@router.post("/v1/comparisons", status_code=202, response_model=job_answers.JobAnswer, responses=_STARTED, dependencies=_WRITES)
def start_comparison(request: Request, asked: requests.CompareRequest, key: Key = None) -> Response:
    """Trains the same model on two variants of a corpus, as `winnow compare` does; runs that are done are not done again."""
    service = request.app.state.service

    def check() -> None:
        service.corpora.get(asked.corpus).complete()
        requests.check_compare(asked, service.settings)

    return _submit(request, "compare", asked.corpus, asked, key, check)


@router.get("/v1/jobs", response_model=job_answers.JobPage)
def list_jobs(
    request: Request,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$", description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    state: jobs.State | None = None,
) -> Response:
    """Jobs, the newest first."""
    service = request.app.state.service
    with _told():
        found = service.jobs.list(after, limit + 1, state)
    items = [job_answers.job(one, service.settings) for one in found[:limit]]
    return _json({"items": items, "next": found[limit - 1].id if len(found) > limit else None})


@router.get("/v1/jobs/{id}", response_model=job_answers.JobAnswer)
def get_job(request: Request, job_id: JobId) -> Response:
    """One job: where it stands, or how it ended."""
    return _json(_look(request, job_id))


@router.get("/v1/jobs/{id}/events", response_class=Response, responses=_STREAM)
async def follow_job(request: Request, job_id: JobId) -> Response:
    """The job whenever it changes, as server-sent events `state`, `progress` and `end`. Ask again with GET where that is no use."""
    service = request.app.state.service
    with _told():
        service.jobs.get(job_id)
    listeners = _listeners(request)
    if not listeners.enter():
        detail = f"{listeners.limit} listen already; GET /v1/jobs/{{id}} now and then instead"
        raise Problem(429, detail, headers={"Retry-After": str(_AGAIN)})
    stream = job_events.events(request, lambda: _look(request, job_id), lambda: service.runner.is_ending)
    return job_events.EventStream(stream, listeners)


@router.get("/v1/jobs/{id}/log", response_class=Response, responses=_TEXT)
def get_log(request: Request, job_id: JobId) -> Response:
    """What its process said last: its output, then its errors."""
    service = request.app.state.service
    with _told():
        job = service.jobs.get(job_id)
    return Response(progress.log(job, service.settings), media_type="text/plain")


@router.delete("/v1/jobs/{id}", response_model=job_answers.JobAnswer, dependencies=_WRITES)
def cancel_job(request: Request, job_id: JobId) -> Response:
    """Cancels a job. One that runs is asked to stop, and is `running` until its processes are gone; what it finished is kept."""
    service = request.app.state.service
    with _told():
        job = service.jobs.cancel(job_id)
    return _json(job_answers.job(job, service.settings))


# -- comparisons ------------------------------------------------------------------------------------------------------------


@router.get("/v1/corpora/{id}/comparisons", response_model=job_answers.Comparisons, tags=["corpora"])
def list_comparisons(request: Request, corpus_id: routes.CorpusId) -> Response:
    """What filters are worth: the comparisons of a corpus, finished or not."""
    corpus = request.app.state.service.corpora.get(corpus_id)
    return _json({"items": [job_answers.comparison(corpus, name) for name in corpus.comparisons()]})


@router.get("/v1/corpora/{id}/comparisons/{comparison}", response_model=dict[str, Any], tags=["corpora"])
def get_comparison(request: Request, corpus_id: routes.CorpusId, comparison: ComparisonId) -> Response:
    """All that came out so far: result.json of the comparison."""
    return routes.content(request, _file(request, corpus_id, comparison, "result.json"), "application/json")


@router.get("/v1/corpora/{id}/comparisons/{comparison}/page", response_class=Response, responses=_HTML, tags=["corpora"])
def get_comparison_page(request: Request, corpus_id: routes.CorpusId, comparison: ComparisonId) -> Response:
    """The comparison's page, which loads nothing."""
    policy = {"Content-Security-Policy": routes.REPORT_POLICY}
    return routes.content(request, _file(request, corpus_id, comparison, "index.html"), "text/html", policy)


def _file(request: Request, corpus_id: str, comparison: str, name: str) -> bytes:
    corpus = request.app.state.service.corpora.get(corpus_id)
    if comparison not in corpus.comparisons():
        raise Problem(404, f"no such comparison; GET /v1/corpora/{corpus_id}/comparisons lists them")
    try:
        content: bytes = corpus.file(f"comparisons/{comparison}/{name}")
    except Problem:
        raise Problem(409, "no pair of its runs is finished yet; ask again later") from None
    return content


# -- what they share --------------------------------------------------------------------------------------------------------


def _submit(
    request: Request, kind: jobs.Kind, corpus: str, asked: pydantic.BaseModel, key: str | None, check: Callable[[], None]
) -> Response:
    """The job that the key has made of this request, whatever has become of its corpus since; else a new one, if `check` lets it
    pass."""
    service, sent = request.app.state.service, asked.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    with _told():
        job = None if key is None else service.jobs.made_by(key, kind, corpus, sent)
        if job is None:
            check()
            job, _ = service.jobs.submit(kind, corpus, sent, key)
    told = job_answers.job(job, service.settings)
    return _json(told, 202, {"Location": told["links"]["self"], "Retry-After": str(_SOON)})


def _look(request: Request, job_id: str) -> dict[str, Any]:
    service = request.app.state.service
    with _told():
        return job_answers.job(service.jobs.get(job_id), service.settings)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _listeners(request: Request) -> job_events.Listeners:
    """Those of the application, made by the first request."""
    state = request.app.state
    if not hasattr(state, "listeners"):
        state.listeners = job_events.Listeners(state.service.settings.limits.listeners)
    found: job_events.Listeners = state.listeners
    return found


@contextmanager
def _told() -> Iterator[None]:
    """Refusals of the store as problems."""
    try:
        yield
    except jobs.UnknownJob:
        raise Problem(404, f"no such job; {_WHERE}") from None
    except jobs.KeyReused:
        raise Problem(409, "this Idempotency-Key came with another request before; give another one") from None
    except jobs.AlreadyEnded as error:
        raise Problem(409, f"the job has ended ({error.state}); there is nothing to cancel") from None
    except jobs.QueueFull as error:
        raise Problem(429, f"{error}; ask again in {_AGAIN} s", headers={"Retry-After": str(_AGAIN)}) from None
