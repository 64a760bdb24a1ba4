"""What a job is at, from files as the commands write them; the lines are those of real builds and comparisons."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from quality.service import children, job_answers, progress, results, views
from quality.service.corpora import Corpora
from quality.service.jobs import Job, job_folder
from quality.service.progress import Progress
from quality.service.settings import Settings

ID, CID = "0" * 32, "a0cb12f4d5e6"


@pytest.fixture
def settings(tmp_path):
    for name in ("runs", "state"):
        (tmp_path / name).mkdir()
    job_folder(tmp_path / "state", ID).mkdir(parents=True)
    return Settings(tmp_path / "runs", tmp_path / "state")


def job(kind, state="running", started=None, ended=None):
    started = time.time() - 100 if started is None else started
    comparison = CID if kind == "compare" else None
    return Job(ID, kind, "a", {}, None, state, started - 1, started, ended, 4321, "boot/1", False, 0, "", comparison)


def logs(settings, out="", errors=""):
    folder = job_folder(settings.state, ID)
    (folder / children.OUT).write_text(out, "utf-8")
    (folder / children.ERRORS).write_text(errors, "utf-8")


def counted(stage, done, total):
    return json.dumps({"stage": stage, "done": done, "total": total, "seconds": 1.5}) + "\n"


SAID = "extract    9 of 9 redone, 3.0 s\ncluster    9 of 9 redone, 4.3 s\n"


@pytest.mark.parametrize(
    ("out", "errors", "at"),
    [
        ("", "", Progress("prepare")),
        ("", counted("extract", 0, 9), Progress("extract", 0, 9)),
        ("", counted("extract", 0, 9) + counted("extract", 4, 9), Progress("extract", 4, 9)),
        (SAID, counted("extract", 9, 9) + counted("cluster", 9, 9), Progress("cluster", 9, 9)),
        (SAID, counted("cluster", 9, 9) + counted("sample", 5, 9), Progress("sample", 5, 9)),
        (SAID + "sample     9 of 9 redone, 1.0 s\n", counted("sample", 9, 9), Progress("fit")),
        (SAID + "sample     0 of 9 redone, 0.0 s\nfit        1 of 1 redone, 0.8 s\n", "", Progress("fit", 1, 1)),
        (SAID + "statistics 9 of 9 redone, 1.0 s\n", counted("statistics", 9, 9), Progress("report")),
        (SAID, counted("cluster", 9, 9) + "a warning\n" + '{"stage": "sam', Progress("cluster", 9, 9)),
        ("", '{"stage": 3}\n{"stage": "x", "done": null, "total": 2}\n', Progress("prepare")),
    ],
)
def test_a_build_is_at_what_its_log_said_last(settings, out, errors, at):
    logs(settings, out, errors)
    assert progress.of(job("build"), settings) == at


def test_jobs_that_wait_or_have_said_nothing(settings):
    assert progress.of(job("build", "queued"), settings) == Progress()
    assert progress.of(job("build", "failed"), settings) == Progress()
    assert progress.of(job("compare", "failed"), settings) == Progress()
    assert progress.log(job("build"), settings) == ""


def test_a_log_for_people_is_what_was_said_and_then_the_errors(settings):
    logs(settings, SAID, counted("extract", 9, 9) + "winnow: web.jsonl: no such file\n")
    assert progress.log(job("build"), settings) == SAID + "winnow: web.jsonl: no such file\n"


def test_a_tail_holds_whole_lines_and_any_bytes(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"first\n" + b"\xff" * 10 + b"\nlast\n")
    assert progress.tail(path) == "first\n" + "\N{REPLACEMENT CHARACTER}" * 10 + "\nlast\n"
    assert progress.tail(path, 12) == "last\n"
    assert progress.tail(tmp_path / "none") == ""


# -- comparisons ------------------------------------------------------------------------------------------------------------

PLAN = {"runs": 7, "done": 0, "seconds": 600.0, "pilot_rates": [0.002, 0.004, 0.008], "left_out": []}


@pytest.fixture
def comparison(settings):
    """The folder of a comparison that process 4321 holds, planned 60 s ago."""
    folder = settings.runs / "a" / "comparisons" / CID
    (folder / "runs").mkdir(parents=True)
    (settings.runs / "a" / ".lock").write_text("")
    (folder / ".lock").write_text("process 4321 of here\n")
    planned(folder, PLAN, 60)
    return folder


def planned(folder, plan, ago):
    (folder / "plan.json").write_text(json.dumps(plan))
    at(folder / "plan.json", ago)


def at(path, ago):
    os.utime(path, (time.time() - ago,) * 2)


def run(folder, name, ago=None):
    """A run that has begun; ago: seconds since it ended."""
    (folder / "runs" / name).mkdir(exist_ok=True)
    (folder / "runs" / name / "job.json").write_text("{}")
    if ago is not None:
        (folder / "runs" / name / "scores.json").write_text("{}")
        at(folder / "runs" / name / "scores.json", ago)


def near(found, stage, done, total, eta):
    assert (found.stage, found.done, found.total) == (stage, done, total)
    assert found.eta == pytest.approx(eta, abs=20)  # a slow machine's seconds between writing and reading


def test_a_comparison_by_its_plan_and_its_runs(settings, comparison):
    near(progress.of(job("compare"), settings), "pilot", 0, 7, 600 - 60)
    run(comparison, "pilot_0.002-s0", 40)
    run(comparison, "pilot_0.004-s0", 20)
    run(comparison, "pilot_0.008-s0")
    near(progress.of(job("compare"), settings), "pilot", 2, 7, 5 * (60 - 20) / 2 - 20)
    run(comparison, "pilot_0.008-s0", 10)
    run(comparison, "pilot_0.016-s0", 5)  # a rate beyond the plan's
    near(progress.of(job("compare"), settings), "pilot", 4, 8, 4 * (60 - 5) / 4 - 5)
    for name in ("filtered-s1", "unfiltered-s1"):
        run(comparison, name)
    assert progress.of(job("compare"), settings).stage == "runs"
    for name in ("filtered-s1", "unfiltered-s1", "filtered-s2", "unfiltered-s2"):
        run(comparison, name, 0)
    near(progress.of(job("compare"), settings), "result", 8, 8, 0)
    assert progress.of(job("compare", "succeeded", ended=time.time()), settings) == Progress("result", 8, 8)


def test_runs_of_an_earlier_start_are_done_but_set_no_pace(settings, comparison):
    for number in range(3):
        run(comparison, f"filtered-s{number}", 5000)
    planned(comparison, {**PLAN, "pilot_rates": [], "done": 3}, 60)
    near(progress.of(job("compare"), settings), "runs", 3, 7, 600 - 60)
    planned(comparison, PLAN, 700)
    assert progress.of(job("compare", started=time.time() - 800), settings).eta == 0


def test_a_running_comparison_is_that_whose_lock_names_the_process_since_it_began(settings, comparison):
    assert progress.held_by(job("compare"), settings) == comparison
    assert progress.held_by(job("build"), settings) is None
    planned(comparison, PLAN, 500)
    assert progress.of(job("compare"), settings) == Progress("prepare")  # of an earlier start
    at(comparison / ".lock", 500)
    assert progress.held_by(job("compare"), settings) is None  # an earlier process of this number
    (comparison / ".lock").write_text("process 43210 of here\n")
    assert progress.held_by(job("compare"), settings) is None


def test_a_jobs_comparison_is_the_one_that_was_noted_whatever_has_its_number_or_its_lock_since(settings, comparison):
    """A later process of the same number holds another comparison; and a later job has gone on with this one."""
    other = settings.runs / "a" / "comparisons" / ("0" * 12)
    other.mkdir()
    (other / ".lock").write_text("process 4321 of here\n")
    (comparison / ".lock").write_text("process 99 of here\n")
    ended = job("compare", "succeeded", ended=time.time() - 50)
    assert progress.comparison_of(ended, settings) == comparison
    assert progress.comparison_of(job("build"), settings) is None
    (comparison / ".lock").unlink()
    shutil.rmtree(comparison)
    assert progress.comparison_of(ended, settings) is None


def result(folder, verdict="better"):
    endpoint = {"gap": 0.02, "low": 0.01, "high": 0.03, "level": 0.95, "verdict": "better", "seeds": 2, "seed_gaps": [0.01, 0.03]}
    told = {"verdict": verdict, "primary": ["filtered", "unfiltered"], "contrasts": [{"name": "primary", "endpoint": endpoint}]}
    told |= {"model": {"preset": None, "parameters": 1234}, "runs": ["much"] * 6}
    (folder / "result.json").write_text(json.dumps(told))


def test_a_result_is_read_once_for_as_long_as_it_is_the_same(comparison, monkeypatch):
    """By the list of the API and by the page of a corpus, also where many ask at once."""
    result(comparison)
    read, real = [], orjson.loads
    monkeypatch.setattr(orjson, "loads", lambda content: read.append(content) or real(content))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: results.summary(comparison), range(32)))
    assert found == [found[0]] * 32
    shown = views.comparisons("a", [(CID, found[0])])
    assert (shown["rows"][0]["model"], shown["rows"][0]["runs"], shown["open"]) == ("1,234 parameters", 6, [])
    assert len(read) == 1
    result(comparison, "quite another verdict")
    assert results.summary(comparison)["verdict"] == "quite another verdict"
    (comparison / "result.json").write_text("{}")
    assert results.summary(comparison) is None
    (comparison / "result.json").unlink()
    (comparison / "result.json").symlink_to(comparison / "plan.json")
    assert results.summary(comparison) is None


def test_a_comparison_in_one_line(settings, comparison):
    corpus = Corpora(settings.runs).get("a")
    found = job_answers.comparison(corpus, CID)
    assert (found["partial"], found["verdict"], found["runs"]) == (True, None, {"done": 0, "total": 7})
    assert list(found["links"]) == ["self"]
    for number in range(7):
        run(comparison, f"filtered-s{number}", 5)
    result(comparison)
    found = job_answers.comparison(corpus, CID)
    assert found == {
        "id": CID, "partial": False, "runs": {"done": 7, "total": 7}, "verdict": "better", "primary": ["filtered", "unfiltered"],
        "gap": 0.02, "low": 0.01, "high": 0.03,
        "links": {"self": f"/v1/corpora/a/comparisons/{CID}", "page": f"/v1/corpora/a/comparisons/{CID}/page"},
    }  # fmt: skip
    result(comparison, "worse than that")
    planned(comparison, {**PLAN, "left_out": [{"name": "doubled"}]}, 60)
    found = job_answers.comparison(corpus, CID)
    assert (found["verdict"], found["partial"]) == ("worse than that", True)
    job_answers.ComparisonSummary.model_validate(found)
