"""The routes of the core: is it well, which corpora there are, what became of a document, what a text is worth."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib import metadata
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from pipelines.errors import NotFound, UserError
from quality.service import answers, metrics
from quality.service.corpora import ID, Corpus, told
from quality.service.openapi import PROBLEMS, example
from quality.service.problems import Problem
from quality.service.runner import Runner
from quality.service.settings import EXPLAINED

router = APIRouter(responses=PROBLEMS)
CorpusId = Annotated[str, Path(alias="id", pattern=ID, description="The name of the run's folder.", examples=["demo"])]
_PAGE = 50
# A page of a run is a file of whoever made the run: it is shown without scripts, and as of no origin.
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


def content(request: Request, body: bytes, media_type: str, headers: dict[str, str] | None = None) -> Response:
    """An answer whose ETag is the hash of its bytes; 304 where the client has them already."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    told = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
    wanted = request.headers.get("if-none-match", "")
    if wanted.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in wanted.split(",")):
        return Response(status_code=304, headers=told)
    return Response(body, headers=told, media_type=media_type)


def _json(request: Request, value: Any) -> Response:
    return content(request, orjson.dumps(value), "application/json")


def _corpus(request: Request, name: str) -> Corpus:
    found: Corpus = request.app.state.service.corpora.get(name)
    return found


# -- the service itself -----------------------------------------------------------------------------------------------------


@router.get("/healthz", tags=["service"], response_model=answers.Alive, responses=example("healthz"))
async def healthz() -> Response:
    """Whether the process answers. Open to everyone, also on an address that needs a token."""
    return Response(orjson.dumps({"status": "ok", "version": metadata.version("winnow")}), media_type="application/json")


@router.get("/readyz", tags=["service"], response_model=answers.Ready, responses=example("readyz"))
def readyz(request: Request) -> Response:
    """Whether it can do its work: language model, folder of its state, room on the disk, jobs. 503 where a check fails."""
    checks = _checks(request)
    if failed := [name for name, found in checks.items() if found != "ok"]:
        detail = "; ".join(f"{name}: {checks[name]}" for name in failed)
        raise Problem(503, detail, headers={"Retry-After": "30"}, more={"checks": checks})
    return Response(orjson.dumps({"status": "ready", "checks": checks}), media_type="application/json")


def _checks(request: Request) -> dict[str, str]:
    service = request.app.state.service
    settings, limits = service.settings, service.settings.limits
    return {
        "language_model": _language_model(),
        "runs": "ok" if os.access(settings.runs, os.R_OK | os.X_OK) else "the folder of the runs cannot be read",
        "state": _writable(str(settings.state)),
        "disk": _room(str(settings.runs), limits.disk_free_bytes),
        "jobs": _jobs(service.runner),
    }


def _jobs(runner: Runner) -> str:
    if not runner.is_running:
        return "nothing runs the jobs; start the service again"
    return runner.fault or "ok"


def _language_model() -> str:
    from pipelines import packages

    try:
        packages.language_model()
    except UserError as error:
        return str(error)
    return "ok"


def _writable(folder: str) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return "ok"
    except OSError as error:
        return f"the folder of the state cannot be written: {error.strerror}"


def _room(folder: str, wanted: int) -> str:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"the folder of the runs cannot be read: {error.strerror}"
    return "ok" if free >= wanted else f"{free >> 20:,} MiB are free below the runs, less than {wanted >> 20:,}"


@router.get("/metrics", tags=["service"], response_class=Response, responses=example("metrics", "text/plain"))
def read_metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(request.app.state.service.metrics.text(), media_type=metrics.MEDIA_TYPE)


# -- corpora ----------------------------------------------------------------------------------------------------------------


@router.get("/v1/corpora", tags=["corpora"], response_model=answers.CorpusPage, responses=example("corpora"))
def list_corpora(
    request: Request,
    after: Annotated[str | None, Query(pattern=ID, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = _PAGE,
) -> Response:
    """The corpora by id, also those that are being built."""
    found, following = request.app.state.service.corpora.page(after, limit)
    return _json(request, {"items": [corpus.summary() for corpus in found], "next": following})


@router.get("/v1/corpora/{id}", tags=["corpora"], response_model=answers.Detail, responses=example("corpus"))
def get_corpus(request: Request, corpus_id: CorpusId) -> Response:
    """One corpus, with the accounts of every source in every variant."""
    return _json(request, _corpus(request, corpus_id).detail())


@router.get(
    "/v1/corpora/{id}/report",
    tags=["corpora"],
    response_class=Response,
    responses=example("report", "text/html"),
)
def get_report(request: Request, corpus_id: CorpusId) -> Response:
    """The statistics report, one page that loads nothing."""
    corpus = _corpus(request, corpus_id)
    corpus.complete()
    return content(request, corpus.file("report.html"), "text/html", {"Content-Security-Policy": REPORT_POLICY})


@router.get(
    "/v1/corpora/{id}/card", tags=["corpora"], response_class=Response, responses=example("card", "text/markdown")
)
def get_card(request: Request, corpus_id: CorpusId) -> Response:
    """The dataset card, in Markdown."""
    corpus = _corpus(request, corpus_id)
    corpus.complete()
    return content(request, corpus.file("card.md"), "text/markdown")


@router.get("/v1/corpora/{id}/stats", tags=["corpora"], response_model=dict[str, Any], responses=example("stats"))
def get_stats(request: Request, corpus_id: CorpusId) -> Response:
    """The statistics that the report is drawn from, over all documents: stats.json of the run."""
    corpus = _corpus(request, corpus_id)
    corpus.complete()
    return content(request, corpus.file("stats.json"), "application/json")


@router.get(
    "/v1/corpora/{id}/documents", tags=["corpora"], response_model=answers.Explanation, responses=example("documents")
)
async def explain_document(
    request: Request,
    corpus_id: CorpusId,
    name: Annotated[
        str, Query(min_length=1, max_length=4096, description="doc_id, locator or URL.", examples=["iana.warc.gz#0"])
    ],
) -> Response:
    """What became of one record: kept where, or dropped at which step for which reason and number, in every variant."""
    from pipelines.explain import trace

    def explained() -> dict[str, Any]:
        corpus = _corpus(request, corpus_id)
        corpus.complete()
        try:
            found = [one.to_json() for one in trace(str(corpus.path), name, EXPLAINED + 1)]
        except UserError as error:
            raise Problem(404 if isinstance(error, NotFound) else 409, told(corpus, error)) from error
        return {"corpus": corpus.id, "name": name, "partial": len(found) > EXPLAINED, "found": found[:EXPLAINED]}

    return _json(request, await request.app.state.service.explanations.run(explained))


# -- scores -----------------------------------------------------------------------------------------------------------------


@router.post("/v1/score", tags=["scores"], response_model=answers.Scores, responses=example("score"))
async def score(request: Request, asked: answers.ScoreRequest) -> Response:
    """Judges texts as `winnow score` does: language, quality, signals, and with a variant the verdict. Nothing is kept."""
    service = request.app.state.service
    texts = [document.text for document in asked.documents]

    def scored() -> list[dict[str, Any]]:
        corpus = None if asked.corpus is None else _corpus(request, asked.corpus)
        found: list[dict[str, Any]] = service.scorers.score(texts, corpus, asked.variant, asked.explain)
        return found

    results = await service.scorers.slots.run(scored)
    service.metrics.scored(len(texts))
    return Response(
        orjson.dumps({"corpus": asked.corpus, "variant": asked.variant, "results": results}), media_type="application/json"
    )
