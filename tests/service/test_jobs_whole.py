"""Real builds and comparisons behind `winnow serve`: killed outright and started again, they end in the bytes of a command that
nobody disturbed.

The reference of the build is `built`, the same recipe built in this process; that of the comparison are its own files.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from quality.service import children
from quality.service.jobs import JobStore
from tests import corpus
from tests.runs import REPOSITORY, hashes
from tests.service.test_jobs_children import wait_for


def command(folder):
    """`winnow serve` over the folders of a test, at a free port."""
    options = [text for name in ("runs", "recipes", "state") for text in (f"--{name}", str(folder / name))]
    return [sys.executable, "-m", "pipelines.cli", "serve", *options, "--port", "0"]


class Served:
    """A served process over folders of the test's own."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        for name in ("runs", "recipes", "state"):
            (folder / name).mkdir()

    def start(self):
        with open(self.folder / "said", "wb") as said:
            self.process = subprocess.Popen(command(self.folder), cwd=REPOSITORY, stdout=said, stderr=subprocess.STDOUT)
        found = wait_for(lambda: re.search(r"at (http://\S+)", (self.folder / "said").read_text()), 120)
        self.client = httpx.Client(base_url=found[1], timeout=60)
        wait_for(self._answers, 60)

    def _answers(self):
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/healthz").status_code == 200
        return False

    def end(self, number):
        if self.process is not None:
            self.client.close()
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def job(self, job_id):
        return self.client.get(f"/v1/jobs/{job_id}").json()

    def ended(self, job_id):
        return wait_for(lambda: (found := self.job(job_id))["ended"] and found, 250)


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path / "served") if (tmp_path / "served").mkdir() is None else None
    yield made
    made.end(signal.SIGKILL)
    store = JobStore(made.folder / "state" / "jobs.sqlite", 1)
    for job in store.list(limit=-1):
        children.stop(job.id, job.pid, job.born, 0)
    store.close()


def test_a_build_outlives_two_ends_of_its_service(served, inputs, built):
    """SIGKILL in the midst, then SIGTERM, then undisturbed."""
    (served.folder / "recipes" / "tiny.yaml").write_text(corpus.recipe(inputs), "utf-8")
    served.start()
    response = served.client.post("/v1/builds", json={"recipe": "tiny", "run": "one"}, headers={"Idempotency-Key": "k"})
    assert response.status_code == 202, response.text
    job_id = response.json()["id"]
    run = served.folder / "runs" / "one"
    wait_for(lambda: (run / "clusters").exists(), 120)
    build = children.members(job_id)
    _signal(build, signal.SIGSTOP)  # else it might be done before the service is there again
    served.end(signal.SIGKILL)
    assert set(build) <= set(children.members(job_id))  # the build would go on by itself

    goes_on = threading.Timer(1, _signal, [build, signal.SIGCONT])
    goes_on.start()
    served.start()
    goes_on.join()
    again = served.client.post("/v1/builds", json={"recipe": "tiny", "run": "one"}, headers={"Idempotency-Key": "k"})
    assert again.json()["id"] == job_id
    wait_for(lambda: served.job(job_id)["stage"] not in (None, "prepare"), 120)
    assert not (run / "manifest.json").exists()
    assert served.job(job_id)["state"] == "running"
    served.end(signal.SIGTERM)
    assert children.members(job_id) == []

    served.start()
    found = served.ended(job_id)
    assert (found["state"], found["losses"], found["stage"]) == ("succeeded", 0, "report")
    assert hashes(run) == hashes(built)
    (one,) = served.client.get("/v1/corpora").json()["items"]
    assert (one["id"], one["state"]) == ("one", "complete")
    assert "report: " in served.client.get(found["links"]["log"]).text


def _signal(processes, number):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def test_a_build_that_cannot_be_is_told_in_the_commands_words(served, inputs, tmp_path):
    text = corpus.recipe(inputs).replace("wiki/*.jsonl", "wiki/*.nothing")
    (served.folder / "recipes" / "tiny.yaml").write_text(text, "utf-8")
    served.start()
    job_id = served.client.post("/v1/builds", json={"recipe": "tiny", "run": "one"}).json()["id"]
    found = served.ended(job_id)
    assert found["state"] == "failed"
    assert "wiki/*.nothing" in found["detail"]
    assert served.client.get("/v1/jobs", params={"state": "running"}).json()["items"] == []


def test_a_comparison_is_trained_judged_and_shown(served, built):
    pytest.importorskip("torch")
    shutil.copytree(built, served.folder / "runs" / "tiny")
    served.start()
    asked = {"corpus": "tiny", "seeds": 1, "tokens": 256, "rates": [0.01], "controls": [], "max_epochs": 50}
    response = served.client.post("/v1/comparisons", json={**asked, "model": {"context": 32, "batch": 8}})
    assert response.status_code == 202, response.text
    seen = set()

    def over():
        found = served.job(response.json()["id"])
        seen.add((found["stage"], (found["progress"] or {}).get("total")))
        return found["ended"] and found

    found = wait_for(over, 250)
    assert found["state"] == "succeeded", found
    assert (found["stage"], found["progress"]) == ("result", {"done": 2, "total": 2})
    assert ("prepare", None) in seen
    assert ("runs", 2) in seen
    told = served.client.get(found["links"]["comparison"]).json()
    assert found["detail"] == told["verdict"]
    assert {one["job"] for one in told["runs"]} == {"filtered-s1", "unfiltered-s1"}
    assert all(one["tokens"] == 256 for one in told["runs"])
    page = served.client.get(found["links"]["page"])
    assert page.status_code == 200
    assert "<!doctype html>" in page.text[:100].lower()
    (one,) = served.client.get(found["links"]["corpus"] + "/comparisons").json()["items"]
    assert (one["id"], one["partial"], one["runs"]) == (told["id"], False, {"done": 2, "total": 2})


def test_events_reach_a_client_as_they_happen(served):
    """Over a socket: the first event is there before the job has ended; a client that goes leaves its place to another."""
    (served.folder / "recipes" / "endless.yaml").write_text(corpus.endless(served.folder), "utf-8")
    served.start()
    job_id = served.client.post("/v1/builds", json={"recipe": "endless", "run": "one"}).json()["id"]
    path = f"/v1/jobs/{job_id}/events"
    for _ in range(40):  # more than may listen at once
        with served.client.stream("GET", path) as stream:
            if stream.status_code == 429:
                time.sleep(0.5)
                continue
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event: ")) == "event: state"
    assert served.job(job_id)["state"] in ("queued", "running")
    served.client.delete(f"/v1/jobs/{job_id}")
    with served.client.stream("GET", path) as stream:
        assert [line for line in stream.iter_lines() if line.startswith("event: ")][-1] == "event: end"
    assert served.job(job_id)["state"] == "cancelled"


def test_a_second_service_on_the_same_folders_is_refused_in_one_line(served):
    served.start()
    other = subprocess.run(command(served.folder), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert other.returncode == 2
    (line,) = other.stderr.splitlines()
    assert line.startswith(f"winnow: {served.folder}/state: ")
    assert line.endswith("another service keeps its jobs here; stop it, or give another --state folder")
