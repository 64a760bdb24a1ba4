"""Which folders are corpora, in which state; and that nothing outside the folder of the runs is ever read."""

import fcntl
import json
import os
import shutil
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.service.corpora import Corpora, is_locked
from quality.service.problems import Problem

SCORED = {"documents": [{"text": "The river."}], "corpus": "tiny"}
SECRET = "the secret of another folder"


def _states(client):
    return {one["id"]: (one["state"], one["partial"]) for one in client.get("/v1/corpora").json()["items"]}


def test_runs_without_a_manifest_are_listed_for_what_they_are(serving, copied):
    """Building while a lock is held, incomplete without; and no request touches the lock, so that a build can always take it."""
    for name in ("begun", "at-work"):
        shutil.copytree(copied / "tiny", copied / name)
        (copied / name / "manifest.json").unlink()
    shutil.copytree(copied / "tiny", copied / "cut")
    path = copied / "cut/manifest.json"
    path.write_bytes(path.read_bytes()[:1000])
    client = serving(copied)
    with open(copied / "at-work/.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _states(client) == {
            "at-work": ("building", True),
            "begun": ("incomplete", True),
            "cut": ("damaged", True),
            "tiny": ("complete", False),
        }
    assert _states(client)["at-work"] == ("incomplete", True)
    for name in ("begun", "cut"):
        assert client.get(f"/v1/corpora/{name}").json()["documents"] is None
        for below in ("report", "card", "stats", "documents?name=x"):
            answer = client.get(f"/v1/corpora/{name}/{below}")
            assert answer.status_code == 409, below
            assert name in answer.json()["detail"]


def test_a_lock_that_is_held_is_seen_without_taking_it(tmp_path):
    path = tmp_path / ".lock"
    assert not is_locked(path)
    path.touch()
    assert not is_locked(path)
    with open(path) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_locked(path)
    assert not is_locked(path)


def test_folders_that_are_no_runs_or_have_no_id_are_no_corpora(serving, copied):
    """Notes, folders that no build has begun in, names that are no ids."""
    (copied / "notes.txt").write_text("x")
    (copied / "empty").mkdir()
    for name in ("Upper", ".hidden", "with space", "a" * 65, "-dash", "_bar", "ünicode", "dot.ted"):
        shutil.copytree(copied / "tiny", copied / name)
    shutil.copytree(copied / "tiny", copied / ("a" * 64))
    assert set(_states(serving(copied))) == {"tiny", "a" * 64}


def test_links_that_lead_out_of_the_runs_are_not_followed(serving, copied, tmp_path):
    """A linked run folder, a linked manifest, a linked report, a linked folder of comparisons."""
    outside = tmp_path / "outside"
    shutil.copytree(copied / "tiny", outside)
    (outside / "report.html").write_text(SECRET)
    (outside / "comparisons/0123456789ab").mkdir(parents=True)
    (copied / "linked").symlink_to(outside)
    shutil.copytree(copied / "tiny", copied / "parts")
    for name in ("report.html", "comparisons"):
        (copied / "parts" / name).unlink(missing_ok=True)
        (copied / "parts" / name).symlink_to(outside / name)
    shutil.copytree(copied / "tiny", copied / "borrowed")
    (copied / "borrowed/manifest.json").unlink()
    (copied / "borrowed/manifest.json").symlink_to(outside / "manifest.json")
    client = serving(copied)
    assert _states(client) == {"borrowed": ("damaged", True), "parts": ("complete", False), "tiny": ("complete", False)}
    assert client.get("/v1/corpora/linked").status_code == 404
    assert client.get("/v1/corpora/linked/report").status_code == 404
    answer = client.get("/v1/corpora/parts/report")
    assert (answer.status_code, SECRET in answer.text) == (404, False)
    assert client.get("/v1/corpora/parts").json()["comparisons"] == []


@pytest.mark.parametrize(
    "name",
    ["..", ".", "%2e%2e", "..%2f..%2fetc", "%2e%2e%2foutside", "tiny%2f..%2f..%2foutside", "tiny%00", "tiny/", "tiny%0a", "TINY"],
)
def test_no_id_leads_out_of_the_runs(client, runs, name):
    answer = client.get(f"/v1/corpora/{name}/report")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@given(st.text(max_size=70) | st.sampled_from(["..", ".", "", "tiny\n", "tiny/", "./tiny"]))
def test_only_an_id_of_a_run_is_found(runs, name):
    corpora = Corpora(runs)
    if name == "tiny":
        assert corpora.get(name).path == runs / "tiny"
    else:
        with pytest.raises(Problem) as caught:
            corpora.get(name)
        assert caught.value.status == 404


def _no_instant(run):
    (run / "runs.jsonl").write_text('{"ended":"yesterday"}\n')


def _no_variants(run):
    found = json.loads((run / "manifest.json").read_text())
    del found["recipe"]["variants"]
    (run / "manifest.json").write_text(json.dumps(found))


def _unreadable(run):
    """A file that cannot be opened, for whatever reason: a socket."""
    (run / "manifest.json").unlink()
    os.mknod(run / "manifest.json", stat.S_IFSOCK | 0o600)


def _damaged_plan(run):
    (run / "comparisons/0123456789ab/plan.json").write_text('{"runs": 7')


def _plan_of_another_shape(run):
    (run / "comparisons/0123456789ab/plan.json").write_text("[7]")


def _damaged_result(run):
    (run / "comparisons/0123456789ab/result.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "state"),
    [(_no_instant, "complete"), (_no_variants, "damaged"), (_unreadable, "damaged"), (_damaged_plan, "complete"),
     (_plan_of_another_shape, "complete"), (_damaged_result, "complete")],
)  # fmt: skip
def test_an_odd_run_takes_no_page_away_from_the_others(serving, copied, spoil, state):
    """Beside a good one: everything that lists corpora or jobs answers, and the odd one is shown for what it is."""
    shutil.copytree(copied / "tiny", copied / "odd")
    comparison = copied / "odd/comparisons/0123456789ab"
    (comparison / "runs").mkdir(parents=True)
    spoil(copied / "odd")
    client = serving(copied)
    client.app.state.service.runner.stop()
    store = client.app.state.service.jobs
    store.submit("compare", "odd", {"corpus": "odd"})
    store.began(store.claim().id, 2**22 + 1, "")
    store.compares(store.list()[0].id, comparison.name)
    for path in ("/", "/score", "/recipes", "/jobs", "/corpora/tiny", "/v1/corpora", "/v1/jobs", "/v1/corpora/odd/comparisons"):
        assert client.get(path).status_code == 200, path
    assert client.get("/corpora/odd").status_code == 200
    assert {name: found for name, (found, _) in _states(client).items()} == {"odd": state, "tiny": "complete"}


def test_a_run_of_another_winnow_is_outdated_and_nothing_in_it_is_missing(serving, copied):
    path = copied / "tiny/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 1}))
    client = serving(copied)
    assert _states(client) == {"tiny": ("outdated", True)}
    told = "corpus 'tiny' is outdated: another version of winnow wrote it; run the same winnow build again"
    for found in (client.get("/v1/corpora/tiny/documents?name=x"), client.post("/v1/score", json=SCORED)):
        assert (found.status_code, found.json()["detail"]) == (409, told)
    assert "Another version of winnow wrote it" in client.get("/corpora/tiny").text


def test_a_fault_of_a_run_is_no_missing_document(serving, copied, monkeypatch):
    """A run that was complete when it was looked for, and whose manifest is damaged when it is read."""
    client, path = serving(copied), copied / "tiny/manifest.json"
    corpus = client.app.state.service.corpora.get("tiny")
    monkeypatch.setattr(client.app.state.service.corpora, "get", lambda name: corpus)
    path.write_text(path.read_text().replace('"schema_version"', '"another_version"'))
    for path in ("/v1/corpora/tiny/documents", "/corpora/tiny/documents"):
        answer = client.get(path, params={"name": "w.jsonl#3"})
        assert answer.status_code == 409, path
        assert "manifest.json: damaged" in answer.text
        assert "Nothing goes by this name" not in answer.text


def test_a_manifest_of_other_shapes_is_damaged_and_no_error(serving, copied):
    """Valid JSON that is no manifest, and one that lacks or bends what the service needs."""
    path = copied / "tiny/manifest.json"
    whole = json.loads(path.read_text())
    bent = [
        [],
        {},
        {**whole, "accounts": 3},
        {**whole, "accounts": {"sources": {"web": {}}, "variants": {}}},
        {**whole, "versions": {}},
        {**whole, "recipe": None},
    ]
    client = serving(copied)
    for number, value in enumerate(bent):
        fresh = copied / f"tiny/next-{number}"
        fresh.write_text(json.dumps(value))
        fresh.replace(path)
        assert _states(client) == {"tiny": ("damaged", True)}, number


def test_a_run_that_vanishes_between_two_looks_is_left_out(copied, monkeypatch):
    corpora = Corpora(copied)
    monkeypatch.setattr(Corpora, "ids", lambda self: ["gone", "tiny"])
    assert [corpus.id for corpus in corpora.list()] == ["tiny"]
