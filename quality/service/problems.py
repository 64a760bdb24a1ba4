"""Every error of the service has one shape: a problem of RFC 9457, of one line, without a traceback or a document's text.

    {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "no corpus 'x'; GET /v1/corpora lists them"}

`detail` says what is wrong and the way out. A browser that asked for a page gets the same words as a page.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipelines.errors import CheckError, UserError
from quality.service.jobs import BrokenStore

MEDIA_TYPE = "application/problem+json"
_DETAIL = 500  # characters
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # of RFC 9110, which Python follows from 3.13 on
_LOG = logging.getLogger("winnow.service")

PageOf = Callable[[Request, "Problem"], Response]  # `app.state.problem_page`


class Problem(HTTPException):
    """An error as the client sees it. `more` adds members to the body; `headers` go with the answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        type: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, one_line(detail), dict(headers or {}))
        self.status = status
        self.title = title or _TITLES.get(status) or HTTPStatus(status).phrase
        self.type = type
        self.more = dict(more or {})

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail, **self.more}


def one_line(text: str) -> str:
    """The text on one line of printable characters, cut where it is long."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return line if len(line) <= _DETAIL else line[: _DETAIL - 1] + "…"


def response(problem: Problem) -> Response:
    """The problem as JSON."""
    headers = {"Cache-Control": "no-store", **(problem.headers or {})}
    return Response(orjson.dumps(problem.to_json()), problem.status, headers, MEDIA_TYPE)


def respond(request: Request, problem: Problem) -> Response:
    """The problem as a page for a browser that asked for one, else as JSON."""
    if "text/html" not in request.headers.get("accept", ""):
        return response(problem)
    page: PageOf = request.app.state.problem_page
    try:
        answer = page(request, problem)
    except Exception as error:
        log_failure("the page of a problem", error)
        return response(problem)
    answer.headers.update({"Cache-Control": "no-store", **(problem.headers or {})})
    return answer


def from_error(error: Exception) -> Problem:
    """What a client is told of an exception."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return Problem(422, _first_fault(error))
    if isinstance(error, HTTPException):
        detail = error.detail if error.status_code != 404 else "nothing is here; GET /openapi.json lists what there is"
        return Problem(error.status_code, detail, headers=error.headers)
    if isinstance(error, BrokenStore):
        return Problem(503, str(error), headers={"Retry-After": "30"})
    if isinstance(error, UserError):
        return Problem(422, str(error))
    if isinstance(error, CheckError):
        return Problem(500, str(error))
    return Problem(500, "the service failed; its log says where")


def _first_fault(error: RequestValidationError) -> str:
    """Place and message of the first fault, and how many more there are. What was sent is not repeated."""
    faults = error.errors()
    if not faults:
        return "the request cannot be read"
    first = faults[0]
    where = ".".join(str(step) for step in first["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {first['msg']}{more}"


def log_failure(what: str, error: BaseException) -> None:
    """One line: what was asked for, the kind of exception, and the places it came through; never its message."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames))
    _LOG.error("%s failed: %s at %s", what, type(error).__name__, places)


def install(app: FastAPI) -> None:
    """Makes every exception of a route a problem. Those of no known kind pass on to `limits.Guard`, which logs them."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = from_error(error)
        if isinstance(error, CheckError):
            log_failure(request.method, error)
        if isinstance(error, CheckError | UserError):  # which name files in full, for who runs the commands
            problem.detail = problem.detail.replace(f"{request.app.state.service.settings.runs}/", "")
        return respond(request, problem)

    for kind in (HTTPException, RequestValidationError, UserError, CheckError):
        app.add_exception_handler(kind, handle)
