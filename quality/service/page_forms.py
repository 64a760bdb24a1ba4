"""What the pages' forms send: read, and made into the very requests that the API takes.

A form that starts or stops something posts here and is sent on to the job's page. Where the service has a token, the page's script
sends it along as a bearer; a form without it is refused like any other write, and so is one of another site's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs

import pydantic
from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import RedirectResponse, Response

from quality.service import job_routes
from quality.service.auth import require_write
from quality.service.corpora import ID
from quality.service.problems import Problem
from quality.service.requests import BuildRequest, CompareRequest

router = APIRouter(include_in_schema=False, dependencies=[Depends(require_write)])
_FIELDS = 64
_MEDIA_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, each with all that was sent for it."""

    fields: dict[str, list[str]]

    def one(self, name: str) -> str:
        """A field's value with line feeds alone; "" where it was left empty or was not sent."""
        return self.fields.get(name, [""])[0].replace("\r\n", "\n")

    def given(self, name: str) -> str | None:
        """A field of one line without the blanks around it; None where nothing is left."""
        return self.one(name).strip() or None

    def count(self, name: str) -> int | None:
        """A whole number. Raises Problem 422."""
        text = self.given(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Problem(422, f"{name}: give a whole number, or leave it empty")
        return int(text)


async def read_form(request: Request) -> Form:
    """Raises Problem 415 or 422."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise Problem(415, f"a form is sent as {_MEDIA_TYPE}; programs use the API")
    try:
        body = (await request.body()).decode("ascii")
        return Form(parse_qs(body, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS))
    except ValueError as error:  # no ASCII, no UTF-8 behind the percent signs, or too many fields
        raise Problem(422, "the form cannot be read; send it from its page") from error


Sent = Annotated[Form, Depends(read_form)]


@router.post("/recipes")
def build(request: Request, form: Sent) -> Response:
    overrides = [line.strip() for line in form.one("overrides").splitlines() if line.strip()]
    asked = _checked(BuildRequest, {"recipe": form.one("recipe"), "run": form.one("run").strip(), "overrides": overrides})
    return _to(job_routes.start_build(request, asked, form.given("once")))


@router.post("/corpora/{id}/comparisons")
def compare(request: Request, corpus_id: Annotated[str, Path(alias="id", pattern=ID)], form: Sent) -> Response:
    arms = [one for one in (form.given("first"), form.given("second")) if one is not None]
    preset, controls = form.given("preset"), form.given("controls")
    wanted: dict[str, Any] = {
        "corpus": corpus_id,
        "arms": arms or None,
        "seeds": form.count("seeds"),
        "tokens": form.count("tokens"),
        "budget": form.given("budget"),
        "model": None if preset is None else {"preset": preset},
        "controls": None if controls is None else [one for one in controls.split() if one != "none"],
    }
    asked = _checked(CompareRequest, {name: value for name, value in wanted.items() if value is not None})
    return _to(job_routes.start_comparison(request, asked, form.given("once")))


@router.post("/jobs/{id}/cancel")
def cancel(request: Request, job_id: Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$")]) -> Response:
    job_routes.cancel_job(request, job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def _checked(model: Any, wanted: dict[str, Any]) -> Any:
    """The request, or a Problem 422 that names the field."""
    try:
        return model.model_validate(wanted)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise Problem(422, f"{where}: {first['msg']}") from error


def _to(started: Response) -> Response:
    """To the page of the job that the API's answer names."""
    return RedirectResponse(started.headers["Location"].removeprefix("/v1"), 303)
