"""The routes of jobs, asked as a client asks, with real small processes in the place of builds and comparisons."""

import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quality.service import job_answers, job_events
from quality.service.settings import Limits
from tests import corpus
from tests.service.conftest import TOKEN
from tests.service.test_jobs_children import wait_for
from tests.service.test_jobs_progress import CID, PLAN, result

SLEEP = "echo began; sleep 100"


@pytest.fixture
def recipes(tmp_path):
    """A folder with one recipe."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(corpus.recipe(tmp_path), "utf-8")
    return folder


@pytest.fixture
def asked(serving, runs, recipes):
    """A client whose jobs do what `scripts` says for their corpus, and nothing at all for others."""

    def made(scripts, **more):
        client = serving(more.pop("runs", runs), recipes=recipes, **more)
        client.app.state.service.runner._command = lambda job, settings: ["sh", "-c", scripts.get(job.corpus, "true")]
        return client

    return made


def build(client, run, **headers):
    return client.post("/v1/builds", json={"recipe": "tiny", "run": run}, headers=headers)


def ended(client, job_id):
    return wait_for(lambda: (found := client.get(f"/v1/jobs/{job_id}").json())["ended"] and found)


def problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    return response.json()["detail"]


def test_a_build_is_taken_followed_and_done(asked):
    client = asked({"new": "echo 'extract    2 of 2 redone, 0.1 s'; echo 'winnow: told' >&2"})
    response = build(client, "new")
    assert response.status_code == 202
    told = response.json()
    assert response.headers["location"] == told["links"]["self"] == f"/v1/jobs/{told['id']}"
    assert response.headers["retry-after"] == "2"
    assert (told["kind"], told["corpus"], told["request"]["recipe"]) == ("build", "new", "tiny")
    found = ended(client, told["id"])
    assert (found["state"], found["stage"], found["progress"]) == ("succeeded", "extract", {"done": 2, "total": 2})
    job_answers.JobAnswer.model_validate(found)
    log = client.get(found["links"]["log"])
    assert log.headers["content-type"].startswith("text/plain")
    assert log.text == "extract    2 of 2 redone, 0.1 s\nwinnow: told\n"
    assert client.get("/v1/jobs").json() == {"items": [found], "next": None}


def test_a_comparison_is_taken_for_a_corpus_that_is_complete(asked, copied):
    (copied / "begun").mkdir()
    (copied / "begun" / ".lock").write_text("")
    client = asked({}, runs=copied)
    response = client.post("/v1/comparisons", json={"corpus": "tiny", "seeds": 2, "budget": "90s"})
    assert response.status_code == 202, response.text
    assert response.json()["request"] == {"corpus": "tiny", "seeds": 2, "budget": "90s"}
    assert ended(client, response.json()["id"])["state"] == "succeeded"
    assert "no such corpus" in problem(client.post("/v1/comparisons", json={"corpus": "none"}), 404)
    assert "incomplete" in problem(client.post("/v1/comparisons", json={"corpus": "begun"}), 409)
    detail = problem(client.post("/v1/comparisons", json={"corpus": "tiny", "arms": ["filtered", "nothing"]}), 422)
    assert "compare names the variant 'nothing'" in detail
    assert client.get("/v1/jobs").json()["items"][0]["id"] == response.json()["id"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/builds", {"recipe": "nothing", "run": "a"}, "recipe: none is called 'nothing'"),
        ("/v1/builds", {"recipe": "tiny", "run": "../a"}, "body.run"),
        ("/v1/builds", {"recipe": "/etc/passwd", "run": "a"}, "body.recipe"),
        ("/v1/builds", {"recipe": "tiny", "run": "a", "overrides": ["sources.web.paths=[/etc]"]}, "may name files"),
        ("/v1/builds", {"recipe": "tiny", "run": "a", "overrides": ["seed=x"]}, "seed"),
        ("/v1/builds", {"recipe": "tiny"}, "body.run"),
        ("/v1/comparisons", {"corpus": "tiny", "tasks": {"folder": "/etc"}}, "body.tasks"),
        ("/v1/comparisons", {"corpus": "tiny", "budget": "soon"}, "body.budget"),
    ],
)
def test_what_is_refused_makes_no_job(asked, path, body, said):
    client = asked({})
    assert said in problem(client.post(path, json=body), 422)
    assert client.get("/v1/jobs").json()["items"] == []


def test_a_key_makes_one_job_of_one_request(asked):
    client = asked({"one": SLEEP})
    first = build(client, "one", **{"Idempotency-Key": "a-b-c"})
    again = build(client, "one", **{"Idempotency-Key": "a-b-c"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    assert "this Idempotency-Key came with another request" in problem(build(client, "two", **{"Idempotency-Key": "a-b-c"}), 409)
    problem(build(client, "two", **{"Idempotency-Key": "with a space"}), 422)
    problem(build(client, "two", **{"Idempotency-Key": "x" * 256}), 422)
    assert build(client, "two").json()["id"] != build(client, "two").json()["id"]
    assert len(client.get("/v1/jobs").json()["items"]) == 3


def test_a_key_gives_its_job_whatever_has_become_of_what_it_was_asked_for(asked, copied, recipes):
    """The corpus is built again, which takes its manifest away first; the recipe is gone. Without the key both are refused."""
    client, key = asked({}, runs=copied), {"Idempotency-Key": "k"}
    first = client.post("/v1/comparisons", json={"corpus": "tiny", "seeds": 2}, headers=key)
    assert (first.status_code, first.json()["request"]) == (202, {"corpus": "tiny", "seeds": 2})
    built = build(client, "new", **{"Idempotency-Key": "of-the-build"})
    assert built.json()["request"] == {"recipe": "tiny", "run": "new"}
    (copied / "tiny" / "manifest.json").unlink()
    (recipes / "tiny.yaml").unlink()
    again = client.post("/v1/comparisons", json={"seeds": 2, "corpus": "tiny", "tokens": None}, headers=key)
    assert (again.status_code, again.headers["location"]) == (202, first.headers["location"])
    assert build(client, "new", **{"Idempotency-Key": "of-the-build"}).headers["location"] == built.headers["location"]
    assert "is incomplete" in problem(client.post("/v1/comparisons", json={"corpus": "tiny", "seeds": 2}), 409)
    assert "none is called 'tiny'" in problem(build(client, "new"), 422)
    problem(client.post("/v1/comparisons", json={"corpus": "tiny", "seeds": 3}, headers=key), 409)


def test_many_at_once_with_one_key_make_one_job(asked):
    client = asked({"one": SLEEP})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: build(client, "one", **{"Idempotency-Key": "k"}).json()["id"], range(16)))
    assert len(set(found)) == 1


def test_a_full_queue_says_when_to_ask_again(asked):
    client = asked({"long": SLEEP}, limits=Limits(queued_jobs=2))
    first = build(client, "long").json()["id"]
    wait_for(lambda: client.get(f"/v1/jobs/{first}").json()["state"] == "running")
    waiting = [build(client, name).json()["id"] for name in ("a", "b")]
    full = build(client, "c")
    assert problem(full, 429) == "2 jobs wait already; ask again in 30 s"
    assert full.headers["retry-after"] == "30"
    assert client.delete(f"/v1/jobs/{waiting[0]}").json()["state"] == "cancelled"
    assert build(client, "c").status_code == 202


def test_cancelling(asked):
    client = asked({"long": SLEEP})
    running, waiting = (build(client, name).json()["id"] for name in ("long", "other"))
    wait_for(lambda: client.get(f"/v1/jobs/{running}/log").text == "began\n")
    assert client.delete(f"/v1/jobs/{waiting}").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{waiting}").json()["state"] == "cancelled"
    told = client.delete(f"/v1/jobs/{running}").json()
    assert (told["state"], told["stopping"]) in (("running", True), ("cancelled", False))
    assert ended(client, running)["state"] == "cancelled"
    done = ended(client, build(client, "short").json()["id"])
    assert "has ended (succeeded); there is nothing to cancel" in problem(client.delete(f"/v1/jobs/{done['id']}"), 409)


def test_jobs_by_pages_and_by_state(asked):
    client = asked({"bad": "exit 1"})
    made = [build(client, name).json()["id"] for name in ("a", "bad", "c", "d", "e")]
    for job_id in made:
        ended(client, job_id)
    found, after = [], None
    for _ in range(3):
        page = client.get("/v1/jobs", params={"limit": 2, **({"after": after} if after else {})}).json()
        job_answers.JobPage.model_validate(page)
        found, after = [*found, *(one["id"] for one in page["items"])], page["next"]
    assert (found, after) == (made[::-1], None)
    assert [one["corpus"] for one in client.get("/v1/jobs", params={"state": "failed"}).json()["items"]] == ["bad"]
    for wrong in ({"limit": 0}, {"limit": 201}, {"after": "x"}, {"state": "asleep"}):
        problem(client.get("/v1/jobs", params=wrong), 422)


def test_jobs_that_there_are_none_of(asked):
    client = asked({})
    for path in ("", "/log", "/events"):
        assert problem(client.get(f"/v1/jobs/{'0' * 32}{path}"), 404) == "no such job; GET /v1/jobs lists them"
        problem(client.get(f"/v1/jobs/nothing{path}"), 422)
    problem(client.delete(f"/v1/jobs/{'0' * 32}"), 404)


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}, {"Authorization": "Basic eDp4"}])
def test_writes_need_the_token_and_reads_do_not(asked, header):
    client = asked({}, token=TOKEN)
    assert build(client, "a", Authorization=f"Bearer {TOKEN}").status_code == 202
    problem(build(client, "b", **header), 401)
    problem(client.post("/v1/comparisons", json={"corpus": "tiny"}, headers=header), 401)
    (one,) = client.get("/v1/jobs", headers=header).json()["items"]
    problem(client.delete(one["links"]["self"], headers=header), 401)
    assert client.get(one["links"]["self"]).status_code == 200


def test_a_page_of_another_site_starts_nothing(asked):
    client = asked({})
    problem(build(client, "a", Origin="https://elsewhere.example"), 403)
    problem(build(client, "a", **{"Sec-Fetch-Site": "cross-site"}), 403)
    assert client.get("/v1/jobs").json()["items"] == []


# -- events -----------------------------------------------------------------------------------------------------------------


def events(text):
    """(name, data) of a stream's events, and its comments; by the standard's grammar."""
    found, comments = [], 0
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        comments += block.startswith(":")
        if "data" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found, comments


def test_events_tell_every_change_and_end_with_the_job(asked, tmp_path):
    go = tmp_path / "go"
    client = asked({"a": f"until test -e {go}; do sleep 0.02; done; echo 'extract    2 of 2 redone, 0.1 s'; sleep 1"})
    job_id = build(client, "a").json()["id"]
    threading.Timer(1.5, go.touch).start()
    response = client.get(f"/v1/jobs/{job_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    found, _ = events(response.text)
    assert response.text.startswith("retry: 2000\n\n")
    states = [data["state"] for name, data in found if name == "state"]
    assert states[-2:] == ["running", "succeeded"]
    assert ("extract", "running") in [(data["stage"], data["state"]) for name, data in found if name == "progress"]
    assert [name for name, _ in found].count("end") == 1
    assert found[-1] == ("end", client.get(f"/v1/jobs/{job_id}").json())
    again, _ = events(client.get(f"/v1/jobs/{job_id}/events").text)
    assert [name for name, _ in again] == ["state", "progress", "end"]


def test_only_so_many_listen_and_their_places_come_free(asked, monkeypatch):
    monkeypatch.setattr(job_events, "HEARTBEAT", 0.2)
    client = asked({"a": SLEEP}, limits=Limits(listeners=2))
    job_id = build(client, "a").json()["id"]
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(client.get, f"/v1/jobs/{job_id}/events") for _ in range(2)]
        wait_for(lambda: (found := getattr(client.app.state, "listeners", None)) and found.open == 2)
        full = client.get(f"/v1/jobs/{job_id}/events")
        assert "2 listen already" in problem(full, 429)
        assert full.headers["retry-after"] == "30"
        time.sleep(1.5)
        client.delete(f"/v1/jobs/{job_id}")
        for stream in streams:
            found, comments = events(stream.result().text)
            assert found[-1][0] == "end"
            assert comments > 0
    assert client.app.state.listeners.open == 0
    assert client.get(f"/v1/jobs/{job_id}/events").status_code == 200


def test_a_stream_ends_after_a_while_and_with_the_service(asked, monkeypatch):
    monkeypatch.setattr(job_events, "LIFE", 0.3)
    client = asked({"a": SLEEP})
    job_id = build(client, "a").json()["id"]
    found, _ = events(client.get(f"/v1/jobs/{job_id}/events").text)
    assert "end" not in [name for name, _ in found]
    monkeypatch.setattr(job_events, "LIFE", 600.0)
    threading.Timer(0.5, client.app.state.service.runner.stop).start()
    found, _ = events(client.get(f"/v1/jobs/{job_id}/events").text)
    assert "end" not in [name for name, _ in found]
    wait_for(lambda: client.app.state.service.jobs.get(job_id).state == "queued")


# -- comparisons ------------------------------------------------------------------------------------------------------------


def test_comparisons_of_a_corpus(asked, copied):
    folder = copied / "tiny" / "comparisons" / CID
    (folder / "runs").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    client, own = asked({}, runs=copied), "/v1/corpora/tiny/comparisons"
    (found,) = client.get(own).json()["items"]
    assert (found["id"], found["partial"], found["runs"]) == (CID, True, {"done": 0, "total": 7})
    assert "no pair of its runs is finished yet" in problem(client.get(f"{own}/{CID}"), 409)
    result(folder)
    (folder / "index.html").write_text("<!doctype html><title>what it is worth</title>")
    (found,) = client.get(own).json()["items"]
    assert found["verdict"] == "better"
    told = client.get(f"{own}/{CID}")
    assert told.content == (folder / "result.json").read_bytes()
    assert client.get(f"{own}/{CID}", headers={"If-None-Match": told.headers["etag"]}).status_code == 304
    page = client.get(found["links"]["page"])
    assert page.content == (folder / "index.html").read_bytes()
    assert re.search(r"sandbox; default-src 'none'", page.headers["content-security-policy"])
    assert "no such comparison" in problem(client.get(f"{own}/{'0' * 12}"), 404)
    for wrong in ("x", "..", "0" * 13):
        assert client.get(f"{own}/{wrong}/page").status_code in (404, 422)
    shutil.rmtree(folder)
    assert client.get(own).json() == {"items": []}


def test_a_comparison_that_leads_out_of_the_run_is_not_shown(asked, copied, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "result.json").write_text('{"secret": 1}')
    (copied / "tiny" / "comparisons").mkdir()
    (copied / "tiny" / "comparisons" / CID).symlink_to(elsewhere)
    client = asked({}, runs=copied)
    assert client.get("/v1/corpora/tiny/comparisons").json() == {"items": []}
    problem(client.get(f"/v1/corpora/tiny/comparisons/{CID}"), 404)
