"""The description of the service: problems that any route may answer with, and examples that are real answers.

`examples.json` holds what the service says about the run of `winnow demo`, which a test asks again, about a job and a comparison.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from importlib import metadata, resources
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from quality.service.answers import Answer
from quality.service.problems import MEDIA_TYPE

_MARK = "examples.json: "
_OF_JOBS = {
    "/v1/jobs": "jobs",
    "/v1/jobs/{id}/events": "events",
    "/v1/jobs/{id}/log": "log",
    "/v1/corpora/{id}/comparisons": "comparisons",
    "/v1/corpora/{id}/comparisons/{comparison}": "comparison",
    "/v1/corpora/{id}/comparisons/{comparison}/page": "page",
}  # what no two runs say alike, taken down once
_SCHEMA = {"$ref": "#/components/schemas/Problem"}
_TOLD = {
    304: "The client has this answer already: its `If-None-Match` names it.",
    400: "The request cannot be read.",
    401: "A token is needed, or this one is wrong.",
    403: "A page of another site asked, or the Host is no name of this service.",
    404: "There is no such thing.",
    405: "Not with this method.",
    408: "The body took too long to arrive.",
    409: "Not as things stand.",
    413: "The body is too large.",
    422: "The request does not say what it should.",
    429: "Too much at once; `Retry-After` says when to ask again.",
    500: "The service failed, or a file of the run is damaged.",
    503: "Something that it needs is not there.",
}
_BODY = {
    "Problem": {
        "title": "Problem",
        "description": "Every error, as RFC 9457 has it.",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is wrong and the way out, on one line."},
        },
        "example": {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "no such corpus; GET /v1/corpora lists them",
        },
    }
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": told, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}} if status >= 400 else {"description": told}
    for status, told in _TOLD.items()
}


def example(name: str, media_type: str = "application/json", status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route whose answer is the example of this name."""
    given: dict[str, Any] = {"example": f"{_MARK}{name}"}
    if media_type != "application/json":
        given["schema"] = {"type": "string"}
    return {status: {"content": {media_type: given}}}


@functools.cache
def _examples() -> dict[str, Any]:
    return dict(json.loads((resources.files("quality.service") / "examples.json").read_text("utf-8")))


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title="winnow",
            version=metadata.version("winnow"),
            summary="Corpora, and what filtering is worth.",
            description=(
                "Look through corpora, ask why a document was dropped, score texts, start builds and comparisons. Every error is"
                " a problem of RFC 9457. Answers about corpora carry an ETag."
            ),
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas.update(_BODY)
        _put_examples(found)
        app.openapi_schema = found
    return app.openapi_schema


def _put_examples(found: dict[str, Any]) -> None:
    """Puts examples into the finished document: on the way there FastAPI leaves out every null, which they are to show."""
    for operations in found["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    mark, _, name = str(content.get("example", "")).rpartition(_MARK)
                    if not mark and name in _examples():
                        content["example"] = _examples()[name]
    for path, name in _OF_JOBS.items():
        (content,) = found["paths"][path]["get"]["responses"]["200"]["content"].values()
        content["example"] = _examples()[name]
    for model in _models(Answer):
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in found["components"]["schemas"] and isinstance(extra, dict) and "examples" in extra:
            found["components"]["schemas"][model.__name__]["examples"] = extra["examples"]


def _models(base: type[Answer]) -> Iterator[type[Answer]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)
