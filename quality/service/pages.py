"""The pages: the same things as the API's, for people. HTML drawn on the server, whole without a script.

    /                        corpora, and the latest jobs
    /corpora/ID              what its variants keep, its comparisons, and two forms: explain a document, start a comparison
    /corpora/ID/documents    what became of a document or record, with its text
    /score                   a form, and the judgement of what was pasted into it
    /recipes                 a form that starts a build
    /jobs, /jobs/ID          what was started; one page a job, which draws itself again as the job goes on

What forms send to start or stop something is in `page_forms`. Errors come as pages too: `problem_page`.
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import HTMLResponse, Response

from pipelines.errors import NotFound, UserError
from pipelines.recipe_file import RECIPE, SAMPLE, parse
from quality.service import drawing, judged, page_forms, progress, requests, results, texts, views, views_jobs
from quality.service.corpora import ID, Corpus, told
from quality.service.jobs import UnknownJob
from quality.service.page_forms import Form, read_form
from quality.service.problems import Problem
from quality.service.settings import DOCUMENTS, EXPLAINED, TEXT_BYTES

router = APIRouter(include_in_schema=False)
router.include_router(page_forms.router)
CorpusId = Annotated[str, Path(alias="id", pattern=ID)]
JobId = Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$")]
_PAGE, _LATEST, _OF_CORPUS = 50, 8, 200  # corpora and jobs on a page; jobs on the first page; jobs looked through for one corpus
_JUDGES = 200  # choices of "judged by"


def page(request: Request, template: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
    """A page with its policy. The referrer policy lets a form say where it is from, which a write is asked for."""
    token = request.app.state.service.settings.token
    common = {"here": here, "token_wanted": token is not None, "once": secrets.token_hex(16)}
    headers = {"Content-Security-Policy": drawing.policy(), "Referrer-Policy": "same-origin"}
    return HTMLResponse(drawing.page(template, **common, **values), status, headers)


def problem_page(request: Request, problem: Problem) -> Response:
    """A problem for a browser that asked for a page."""
    return page(request, "problem", status=problem.status, title=problem.title, detail=problem.detail, code=problem.status)


# -- corpora ----------------------------------------------------------------------------------------------------------------


@router.get("/")
def home(request: Request, after: Annotated[str | None, Query(pattern=ID)] = None) -> Response:
    service = request.app.state.service
    found, following = service.corpora.page(after, _PAGE)
    jobs = _jobs(request, service.jobs.list(limit=_LATEST))
    return page(request, "home", "/", corpora=[views.entry(one.summary()) for one in found], next=following, jobs=jobs)


@router.get("/corpora/{id}")
def corpus(request: Request, corpus_id: CorpusId) -> Response:
    service = request.app.state.service
    found: Corpus = service.corpora.get(corpus_id)
    jobs = _jobs(request, [one for one in service.jobs.list(limit=_OF_CORPUS) if one.corpus == found.id][:_LATEST])
    values: dict[str, Any] = {"id": found.id, "complete": found.manifest is not None, "jobs": jobs}
    if found.manifest is None:
        return page(request, "corpus", "/", said=views.unfinished(found.state), **values)
    values |= views.corpus(found.summary(), orjson.loads(found.file("stats.json")))
    compared = [(name, results.summary(found.comparison(name))) for name in found.comparisons()]
    values["comparisons"] = views.comparisons(found.id, compared)
    return page(request, "corpus", "/", compare=views.compare_form(found.manifest.recipe), **values)


@router.get("/corpora/{id}/documents")
async def document(request: Request, corpus_id: CorpusId, name: Annotated[str, Query(min_length=1, max_length=4096)]) -> Response:
    service = request.app.state.service
    return await service.explanations.run(lambda: _documents(request, service.corpora.get(corpus_id), name))


def _documents(request: Request, found: Corpus, name: str) -> Response:
    from pipelines.explain import trace

    found.complete()
    recipe = _recipe(found)
    try:
        traced = [one.to_json() for one in trace(str(found.path), name.strip(), EXPLAINED + 1)]
    except NotFound as error:
        return page(request, "unknown", "/", 404, id=found.id, name=name, detail=told(found, error))
    except UserError as error:
        raise Problem(409, told(found, error)) from error
    shown = traced[:EXPLAINED]
    rows = [judged.reject(one["reject"]) if "reject" in one else _document(found, one, recipe) for one in shown]
    return page(request, "document", "/", id=found.id, found=rows, partial=len(traced) > EXPLAINED)


def _document(found: Corpus, one: dict[str, Any], recipe: Any) -> dict[str, Any]:
    is_gone = one["purged"] or one["removed_by"] is not None  # taken back: its text is not shown again
    return judged.document(one, recipe, None if is_gone else texts.of_document(str(found.path), one["document"]["doc_id"]))


def _recipe(found: Any) -> Any:
    return parse(found.file(RECIPE).decode(), found.id)


# -- scores -----------------------------------------------------------------------------------------------------------------


@router.get("/score")
def score_form(request: Request, by: Annotated[str, Query(max_length=200)] = "") -> Response:
    return _score_page(request, by=by)


@router.post("/score")
async def score(request: Request, form: Annotated[Form, Depends(read_form)]) -> Response:
    """Judges what was pasted. What is wrong with it stands above the form, which keeps it."""
    by, how, given = form.one("by"), form.one("as"), form.one("text")

    def answered() -> Response:
        try:
            found = _scored(request, by, how, given)
        except Problem as problem:
            return _score_page(request, by, how, given, status=problem.status, problem=problem.detail)
        return _score_page(request, by, how, given, scored=found)

    return await request.app.state.service.scorers.slots.run(answered)


def _score_page(
    request: Request,
    by: str = "",
    how: str = "text",
    given: str = "",
    scored: Sequence[Any] = (),
    status: int = 200,
    problem: str = "",
) -> HTMLResponse:
    settings = request.app.state.service.settings
    judges = [("", "the language model alone")]
    for one in request.app.state.service.corpora.list():
        if one.manifest is not None:
            judges += [(f"{one.id}/{variant}", f"{one.id}, {variant}") for variant in one.manifest.recipe["variants"]]
            judges.append((one.id, f"{one.id}, without a verdict"))
    if not by and not given and len(judges) > 1:
        by = judges[1][0]
    shown = judges[:_JUDGES] + [one for one in judges[_JUDGES:] if one[0] == by]
    values: dict[str, Any] = {"judges": shown, "judges_left_out": len(judges) - len(shown)}
    values |= {"by": by, "variant": by.partition("/")[2], "how": how, "given": given}
    limits = {"documents": DOCUMENTS, "bytes": TEXT_BYTES}
    asks = settings.token is not None and not settings.loopback  # elsewhere a read is open, and this is one
    return page(request, "score", "/score", status, problem=problem, results=scored, limits=limits, asks=asks, **values)


def _scored(request: Request, by: str, how: str, given: str) -> list[dict[str, Any]]:
    """What a page shows of every text. Raises Problem where there is none, or too much."""
    from pipelines.score import TextScorer, score_lines

    service = request.app.state.service
    name, _, variant = by.partition("/")
    corpus = service.corpora.get(name) if name else None
    is_known = corpus is not None and variant in corpus.complete().recipe["variants"]
    policy = _recipe(corpus).variants[variant].default if is_known else None
    judged_texts: list[str] = []

    def judge(some: Sequence[str], explain: bool = False) -> list[dict[str, Any]]:
        if any(len(text.encode()) > TEXT_BYTES for text in some):
            raise Problem(413, f"a text of more than {TEXT_BYTES:,} bytes; give less at a time")
        judged_texts.extend(some)
        return cast("list[dict[str, Any]]", service.scorers.score(some, corpus, variant or None, explain))

    if how == "lines":
        lines = sum(1 for line in given.split("\n") if line.strip())  # and not at what stands within the strings of JSON
        if lines > DOCUMENTS:
            raise Problem(413, f"{lines:,} lines; give at most {DOCUMENTS} at a time")
        rows = list(score_lines(io.BytesIO(given.encode()), cast("TextScorer", judge)))
    else:
        rows = judge([given], explain=True) if given.strip() else []
    if not rows:
        raise Problem(422, "there is no text to judge; paste one")
    service.metrics.scored(len(judged_texts))
    of_each = iter(judged_texts)
    return [judged.scored(row, f"line {row['line']}" if "error" in row else next(of_each), variant, policy) for row in rows]


# -- recipes and jobs -------------------------------------------------------------------------------------------------------


@router.get("/recipes")
def recipes(request: Request, recipe: Annotated[str, Query(max_length=64)] = "") -> Response:
    service = request.app.state.service
    offered = [views.recipe(name, texts.of_recipe(where)) for name, where in requests.recipes(service.settings).items()]
    return page(request, "recipes", "/recipes", recipes=offered, chosen=recipe or SAMPLE, corpora=service.corpora.ids())


@router.get("/jobs")
def jobs(request: Request, after: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")] = None) -> Response:
    found = request.app.state.service.jobs.list(after=after, limit=_PAGE + 1)
    following = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page(request, "jobs", "/jobs", jobs=_jobs(request, found[:_PAGE]), next=following)


@router.get("/jobs/{id}")
def job(request: Request, job_id: JobId) -> Response:
    service = request.app.state.service
    try:
        found = service.jobs.get(job_id)
    except UnknownJob:
        raise Problem(404, "no such job; the page of jobs lists them") from None
    at = progress.of(found, service.settings)
    comparison, log = progress.comparison_of(found, service.settings), progress.log(found, service.settings)
    return page(request, "job", "/jobs", job=views_jobs.whole(found, at, time.time(), comparison, log))


def _jobs(request: Request, found: Sequence[Any]) -> list[dict[str, Any]]:
    settings, now = request.app.state.service.settings, time.time()
    return [views_jobs.row(one, progress.of(one, settings), now) for one in found]
