"""A run that is not complete, damaged, or of another version is one line that names the file and the way out, for every command."""

from __future__ import annotations

import json
import shutil

import pytest

from pipelines.errors import UserError
from pipelines.finished import SCHEMA_VERSION, open_run, read_manifest
from pipelines.store import Store
from tests.errors import one_line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "manifest.json: damaged (Expecting property name"),
        (b"\xff", "manifest.json: damaged ("),
        (b"[]", "manifest.json: damaged ("),
        (b"{}", "manifest.json: damaged ('schema_version')"),
        (
            b'{"schema_version": 1}',
            f"manifest.json: written by another version of winnow (1, not {SCHEMA_VERSION}); run winnow build again",
        ),
        (b'{"schema_version": null}', "manifest.json: written by another version of winnow (None"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "manifest.json").write_bytes(content)
    one_line(lambda: open_run(str(tmp_path)), message)


def test_no_manifest_names_the_folder_and_what_to_run(tmp_path):
    with pytest.raises(UserError) as caught:
        open_run(f"{tmp_path}/")
    assert str(caught.value) == f"{tmp_path}: no complete run (manifest.json is missing); run winnow build"
    with pytest.raises(UserError, match=r"missing\); build that run$"):
        read_manifest(Store(str(tmp_path)), "build that run")


def test_every_command_that_looks_at_a_run_refuses_one_of_another_version(built, tmp_path):
    from pipelines.diff import diff
    from pipelines.explain import trace
    from pipelines.report import rewrite_report
    from pipelines.score import TextScorer
    from pipelines.verify import verify
    from train.compare.documents import Run

    run = tmp_path / "run"
    shutil.copytree(built, run)
    told = json.loads((run / "manifest.json").read_bytes())
    assert told["schema_version"] == SCHEMA_VERSION
    (run / "manifest.json").write_text(json.dumps({**told, "schema_version": SCHEMA_VERSION - 1}))
    for command in (
        lambda: verify(str(run)),
        lambda: trace(str(run), "web/a.jsonl#0"),
        lambda: diff(str(built), str(run)),
        lambda: rewrite_report(str(run)),
        lambda: Run.open(str(run)),
        lambda: TextScorer(str(run), None),
    ):
        one_line(command, "manifest.json: written by another version of winnow")
