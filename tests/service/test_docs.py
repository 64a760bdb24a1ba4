"""docs/service.md against the service: its commands run in order, with a free port in place of 8080, and print what it shows."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quality.service import settings
from tests import test_docs as docs
from tests.runs import REPOSITORY
from tests.service import examples

PAGE = REPOSITORY / "docs" / "service.md"
PORT = "8080"


@pytest.fixture
def folder(demo_run, tmp_path):
    """A folder with the demo under runs/demo: no link, since the service follows none."""
    shutil.copytree(demo_run, tmp_path / "runs/demo")
    return tmp_path


def run_page(folder):
    """Runs every command of the page in `folder`; the first is the service, which stays until the end."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    (serve, shown), *others = docs.commands(PAGE)
    assert serve == f"winnow serve --runs runs --port {PORT}"
    free = serve.removesuffix(PORT) + "0"
    with open(folder / "log", "w") as log, subprocess.Popen(
        free.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:
        try:
            said = process.stdout.readline()
            port = re.search(r":(\d+)\n", said)[1]
            assert said.replace(port, PORT).splitlines() == [line for line in shown if line]
            for command, expected in others:
                mine = command.replace(f":{PORT}", f":{port}")
                shell = ["bash", "-c", mine]
                done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
                printed = (done.stdout + done.stderr).splitlines()
                missing = docs._first_missing([line for line in expected if line not in ("", "...")], printed)
                assert missing is None, f"$ {command}\nshould print: {missing}\nprinted:\n" + "\n".join(printed)
                assert done.returncode == (2 if expected and expected[-1].startswith("winnow: ") else 0), command
        finally:
            process.terminate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_command_of_the_page_runs_and_prints_what_it_shows(folder):
    run_page(folder)
    cancelled = json.loads((folder / "cancelled.json").read_text())
    assert (cancelled["kind"], cancelled["state"] == "cancelled" or cancelled["stopping"]) == ("build", True)


def test_the_examples_of_the_description_are_what_the_service_says(folder):
    """Those of the demo; after another build of it: python -m tests.service.examples RUNS."""
    found = examples.ask(folder / "runs", folder)
    written = {name: one for name, one in json.loads(examples.FILE.read_text()).items() if name in found}
    for one in (written, found):
        for corpus in (one["corpora"]["items"][0], one["corpus"]):
            corpus["built"] = None
        one["metrics"] = one["metrics"].splitlines()[0]
    assert found == written


def test_the_page_states_the_limits_as_they_are():
    text, limits = " ".join(PAGE.read_text().split()), settings.Limits()
    for stated in (
        f"| body of `POST /v1/score` | {limits.body_bytes >> 20} MiB |",
        f"| any other body | {limits.small_body_bytes >> 10} KiB |",
        f"| time for a request's head to arrive | {limits.head_seconds:g} s |",
        f"| time for a body to arrive | {limits.body_seconds:g} s |",
        f"| {settings.DOCUMENTS}; {settings.TEXT_BYTES >> 20} MiB |",
        f"| {limits.scorings}; {limits.explanations} | `429` after {limits.wait_seconds:g} s |",
        f"| documents of one name that are explained | {settings.EXPLAINED} |",
        f"| requests with a body at once | {limits.bodies} |",
        f"| {limits.queued_jobs}; {limits.listeners} |",
        f"the newest {limits.kept_jobs:,} are kept",
        f"`idle_scorers` (kept loaded; {limits.idle_scorers})",
        f"`kept_jobs` ({limits.kept_jobs:,})",
        f"before it fails; {limits.job_starts})",
        *(f"`{one.name}`" for one in dataclasses.fields(limits)),
        f"room on the disk ({limits.disk_free_bytes >> 30} GiB)",
    ):
        assert stated in text, stated


def test_the_page_names_every_option_and_every_route(client):
    text = PAGE.read_text()
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in text or path.startswith("/v1/corpora/{id}/comparisons/"), path
    for option in ("--runs", "--recipes", "--host", "--port", "--token-file", "--state", "--limit"):
        assert option in text, option
