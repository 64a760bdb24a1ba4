"""The description of the service against the service: schemathesis makes requests of it, good and bad, and checks every answer.

A bounded search that is the same in every run. Jobs are not run: the application is asked without its life span.
"""

import re
import shutil

import jsonschema
import pytest
import schemathesis.openapi
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from quality.service.app import create_app
from quality.service.settings import Settings
from tests.service.conftest import PATIENT, TOKEN

EXAMPLES = 6
HOST = {"Host": "127.0.0.1"}
# What is well formed may still name a key that no recipe has, or a recipe that the operator does not offer.
BEYOND_A_SCHEMA = {"POST /v1/builds", "POST /v1/comparisons"}
bounded = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


@pytest.fixture(scope="module")
def app(runs, tmp_path_factory):
    mine = shutil.copytree(runs, tmp_path_factory.mktemp("mine") / "runs")  # what is asked for begins builds
    return create_app(Settings(mine, tmp_path_factory.mktemp("state"), token=TOKEN, limits=PATIENT))


@pytest.fixture(scope="module")
def described(app):
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)


def _search(operation, mode):
    """The statuses of the answers to the cases of one kind; raises where one is not as described."""
    statuses = []
    left_out = [CHECKS.get_one("positive_data_acceptance")] if operation.label in BEYOND_A_SCHEMA else []

    def ask(case):
        answer = case.call(base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {TOKEN}"})
        too_large = [CHECKS.get_one("negative_data_rejection")] if answer.status_code == 413 else []  # it knows no such refusal
        case.validate_response(answer, excluded_checks=[*left_out, *too_large])
        statuses.append(answer.status_code)

    @bounded
    @given(case=operation.as_strategy(generation_mode=mode))
    def search(case):
        ask(case)
        if mode is GenerationMode.POSITIVE and "/corpora/{id}" in operation.path:
            case.path_parameters["id"] = "tiny"  # chance would not find it
            ask(case)
        if mode is GenerationMode.POSITIVE and operation.path == "/v1/score":
            case.body = {**case.body, "corpus": "tiny", "variant": "filtered"}
            ask(case)

    search()
    return statuses


def test_schemathesis_finds_nothing(described):
    found = {}
    for result in described.get_all_operations():
        operation = result.ok()
        modes = [GenerationMode.POSITIVE]
        if operation.body or operation.query or operation.path_parameters:
            modes.append(GenerationMode.NEGATIVE)
        found[operation.label] = {mode: set(_search(operation, mode)) for mode in modes}
    assert len(found) >= 10
    assert found["POST /v1/score"][GenerationMode.POSITIVE] >= {200}
    assert found["GET /v1/corpora/{id}"][GenerationMode.POSITIVE] >= {200, 404}
    for label, by_mode in found.items():
        assert not any(status >= 500 for statuses in by_mode.values() for status in statuses), label


def test_every_operation_is_described_and_its_errors_are_problems(app):
    """A sentence, a tag, and every error as application/problem+json with the one schema."""
    description = app.openapi()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["description"].rstrip().endswith("."), where
            assert operation["tags"], where
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"], where
                    assert answer["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    text = str(description)
    assert "HTTPValidationError" not in text
    assert not re.search(r"/(root|home|tmp|work)/", text)


def _examples(description):
    """(where, schema or None, example) of every example in the description."""
    schemas = description["components"]["schemas"]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                for kind, body in answer.get("content", {}).items():
                    if "example" in body:
                        yield f"{method} {path} {status}", body["schema"] if kind.endswith("json") else None, body["example"]
    for name, schema in schemas.items():
        for example in schema.get("examples", ()) if not isinstance(schema.get("examples"), str) else ():
            yield name, {"$ref": f"#/components/schemas/{name}"}, example


def test_every_answer_has_an_example_that_is_as_described(app):
    description = app.openapi()
    found = list(_examples(description))
    described = {where for where, _, _ in found}
    for _, schema, example in found:
        if schema is not None:
            jsonschema.validate(example, {**schema, "components": description["components"]}, jsonschema.Draft202012Validator)
    with_models = {name for name, schema in description["components"]["schemas"].items() if schema.get("examples")}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            (status,) = [one for one in operation["responses"] if one.startswith("2")]
            (body,) = operation["responses"][status]["content"].values()
            model = body["schema"].get("$ref", "").rpartition("/")[2]
            assert f"{method} {path} {status}" in described or model in with_models, f"{method} {path}"
    assert "ScoreRequest" in described
