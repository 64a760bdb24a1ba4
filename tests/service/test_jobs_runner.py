"""The runner with real processes, small ones: how jobs end, what survives the end of a service, and what never stays `running`."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.errors import UserError
from quality.service import children
from quality.service.jobs import JobStore, job_folder
from quality.service.runner import Runner
from quality.service.settings import Limits, Settings
from tests.runs import REPOSITORY
from tests.service.test_jobs_children import DEAF, wait_for

SLEEP = "echo began; sleep 100"


def script(job, settings):
    """The command of these tests' jobs: what the request says, for a shell."""
    return ["sh", "-c", job.request["script"]]


@pytest.fixture
def settings(tmp_path):
    for name in ("runs", "state"):
        (tmp_path / name).mkdir()
    return Settings(tmp_path / "runs", tmp_path / "state")


@pytest.fixture
def store(settings):
    made = JobStore(settings.state / "jobs.sqlite", 10)
    made._database.execute("PRAGMA synchronous = OFF")  # no power fails here
    yield made
    for job in made.list(limit=-1):
        children.stop(job.id, job.pid, job.born, 0)
    made.close()


@pytest.fixture
def runner_of(store, settings):
    """Runners on one store, stopped at the end."""
    made = []

    def start(**more):
        runner = Runner(store, settings, **{"command": script, "grace": 10.0, **more})
        made.append(runner)
        runner.start()
        return runner

    yield start
    for runner in made:
        runner.stop()


def ask(store, text):
    return store.submit("build", "a", {"script": text})[0].id


def ended(store, job_id):
    return wait_for(lambda: (job := store.get(job_id)).is_ended and job)


def running(store, settings, job_id):
    """The job, once its script has said something."""
    log = job_folder(settings.state, job_id) / children.OUT
    wait_for(lambda: log.exists() and log.read_text())
    return wait_for(lambda: (job := store.get(job_id)).pid and job)


@pytest.mark.parametrize(
    ("text", "state", "detail"),
    [
        ("echo all is well", "succeeded", ""),
        ("echo 'winnow: web.jsonl: no such file' >&2; exit 2", "failed", "web.jsonl: no such file"),
        ("echo 'winnow: first' >&2; echo '{\"stage\": \"x\"}' >&2; exit 1", "failed", "first"),
        ("echo Traceback >&2; echo 'MemoryError' >&2; exit 1", "failed", "MemoryError"),
        ("exit 3", "failed", "its process ended with 3; see its log"),
        ("kill -9 $$", "failed", "its process was killed by signal 9, as one is that takes too much memory; see its log"),
        ("kill -6 $$", "failed", "its process was killed by signal 6; see its log"),
        ("kill -15 $$", "failed", "its process was killed by signal 15; see its log"),
    ],
)
def test_how_a_job_ends_is_what_its_process_said(store, runner_of, text, state, detail):
    job_id = ask(store, text)
    runner_of()
    job = ended(store, job_id)
    assert (job.state, job.detail, job.losses) == (state, detail, 0)
    assert job.created <= job.started <= job.ended


def test_jobs_run_one_after_another_in_their_order(store, settings, runner_of):
    log = settings.state / "order"
    jobs = [ask(store, f"echo {n} begins >> {log}; sleep 0.1; echo {n} ends >> {log}") for n in range(3)]
    changes = []
    runner_of(on_change=lambda: changes.append(store.counts()["running"]))
    assert {ended(store, one).state for one in jobs} == {"succeeded"}
    assert log.read_text().splitlines() == [f"{n} {what}" for n in range(3) for what in ("begins", "ends")]
    wait_for(lambda: changes == [1, 0] * 3)


def test_cancelling_stops_the_process_and_what_it_started(store, settings, runner_of):
    job_id = ask(store, "sleep 100 & echo began; wait")
    runner_of()
    job = running(store, settings, job_id)
    assert len(children.members(job_id)) == 2
    assert store.cancel(job_id).stopping
    job = ended(store, job_id)
    assert (job.state, children.members(job_id)) == ("cancelled", [])
    after = ask(store, "true")
    assert ended(store, after).state == "succeeded"


def test_cancelling_a_process_that_is_deaf_to_it(store, settings, runner_of):
    job_id = ask(store, DEAF)
    runner_of(grace=0.3)
    running(store, settings, job_id)
    store.cancel(job_id)
    assert ended(store, job_id).state == "cancelled"
    assert children.members(job_id) == []


def test_a_job_that_ends_well_while_it_is_cancelled_has_ended_well(store, settings, runner_of):
    job_id = ask(store, 'trap "exit 0" TERM; echo began; while :; do sleep 0.02; done')
    runner_of()
    running(store, settings, job_id)
    store.cancel(job_id)
    assert ended(store, job_id).state == "succeeded"


def test_what_outlives_its_leader_is_ended_before_the_next_job(store, runner_of):
    """A worker that lives on would hold a run's lock against the next job."""
    job_id = ask(store, "sleep 100 & exit 1")
    runner_of(grace=0.2)
    assert ended(store, job_id).state == "failed"
    assert children.members(job_id) == []


def test_a_service_that_ends_gives_its_job_back_and_the_next_one_goes_on(store, settings, runner_of):
    flag = settings.state / "flag"
    job_id = ask(store, f"if test -e {flag}; then exit 0; fi; touch {flag}; {SLEEP}")
    first = runner_of()
    running(store, settings, job_id)
    first.stop()
    assert first.is_ending
    job = store.get(job_id)
    assert (job.state, job.losses, job.pid, children.members(job_id)) == ("queued", 0, None, [])
    runner_of()
    assert ended(store, job_id).state == "succeeded"


@pytest.mark.parametrize("how", ["kill -15 $$", "kill -2 $$", "exit 130", "exit 143"])
def test_a_shutdown_that_meets_the_process_first_has_interrupted_it(store, settings, runner_of, how):
    """The process is gone, and the service hears of it the moment after."""
    flag = settings.state / "flag"
    job_id = ask(store, f"if test -e {flag}; then exit 0; fi; touch {flag}; {how}")
    first = runner_of()
    wait_for(flag.exists)
    wait_for(lambda: not children.members(job_id))
    first.end()
    first.stop()
    assert (store.get(job_id).state, store.get(job_id).losses) == ("queued", 0)
    runner_of()
    assert ended(store, job_id).state == "succeeded"


_SERVE = """
import socket, sys
from pathlib import Path
from quality.service import command
from quality.service.app import create_app
from quality.service.settings import Settings
from tests.service.test_jobs_runner import script
state = Path(sys.argv[1])
app = create_app(Settings(state.parent / "runs", state))
app.state.service.runner._command = script
command._run(app, socket.create_server(("127.0.0.1", 0)))
"""


def test_a_signal_to_the_whole_group_gives_the_job_back(store, settings):
    """As systemd and a shutdown send it: to the service and to its job's process at once."""
    job_id = ask(store, SLEEP)
    process = subprocess.Popen([sys.executable, "-c", _SERVE, str(settings.state)], cwd=REPOSITORY)
    try:
        job = wait_for(lambda: (job := store.get(job_id)).pid and job, 60)
        running(store, settings, job_id)
        os.kill(process.pid, signal.SIGTERM)
        os.kill(job.pid, signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert (store.get(job_id).state, store.get(job_id).losses, children.members(job_id)) == ("queued", 0, [])


@pytest.mark.parametrize("rest", ["sleep 100", "true"])
def test_the_comparison_that_a_process_takes_is_noted_in_its_job(store, settings, runner_of, rest):
    """While it runs, and also where it is over before anybody has looked."""
    folder = settings.runs / "a" / "comparisons" / "a0cb12f4d5e6"
    job_id = store.submit("compare", "a", {"script": f"mkdir -p {folder}; echo process $$ of here > {folder}/.lock; {rest}"})[0].id
    runner = runner_of()
    assert wait_for(lambda: store.get(job_id).comparison) == folder.name
    if rest == "true":
        (folder / ".lock").write_text("process 1 of here\n")
        assert (ended(store, job_id).comparison, ended(store, job_id).state) == (folder.name, "succeeded")
        return
    runner.stop()
    assert store.get(job_id).state == "queued"
    assert store.claim().comparison is None  # its next process says it anew


def test_of_the_jobs_that_have_ended_only_the_newest_are_kept(store, settings, runner_of):
    """Whatever they ended as; those that wait or run are no such jobs. What is left of the others is their order."""
    cancelled = ask(store, "true")
    store.cancel(cancelled)
    jobs = [ask(store, text) for text in ("true", "exit 1", "true")]
    last = ask(store, SLEEP)
    few = dataclasses.replace(settings, limits=Limits(kept_jobs=2))
    runner = Runner(store, few, command=script)
    runner.start()
    try:
        running(store, settings, last)
        wait_for(lambda: len(store.list()) == 3)
        assert [(job.id, job.state) for job in store.list()] == [(last, "running"), (jobs[2], "succeeded"), (jobs[1], "failed")]
        assert {path.name for path in (settings.state / "jobs").iterdir()} == {last, *jobs[1:]}
    finally:
        runner.stop()


def test_two_services_on_one_state_folder_are_refused(store, settings, runner_of):
    first = runner_of()
    other = Runner(store, settings, command=script)
    with pytest.raises(UserError, match="another service keeps its jobs here; stop it, or give another --state folder"):
        other.start()
    assert not other.is_running
    first.stop()
    other.start()
    other.stop()


# -- a service that is killed -----------------------------------------------------------------------------------------------

_SERVICE = """
import sys, time
from pathlib import Path
from quality.service.jobs import JobStore
from quality.service.runner import Runner
from quality.service.settings import Settings
from tests.service.test_jobs_runner import script
state = Path(sys.argv[1])
store = JobStore(state / "jobs.sqlite", 10)
Runner(store, Settings(state.parent / "runs", state), command=script).start()
time.sleep(1000)
"""


@pytest.fixture
def killed(settings):
    """Runs the jobs in another process until a condition holds, and kills that process."""

    def run(condition):
        process = subprocess.Popen([sys.executable, "-c", _SERVICE, str(settings.state)], cwd=REPOSITORY)
        try:
            wait_for(condition, 60)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    return run


def test_the_process_of_a_killed_service_is_stopped_and_its_job_goes_on(store, settings, runner_of, killed):
    flag = settings.state / "flag"
    job_id = ask(store, f"if test -e {flag}; then exit 0; fi; touch {flag}; {SLEEP}")
    killed(lambda: store.get(job_id).pid is not None and flag.exists())
    orphan = store.get(job_id)
    assert orphan.state == "running"
    assert children.born(orphan.pid) == orphan.born
    runner_of()
    job = ended(store, job_id)
    assert (job.state, job.losses) == ("succeeded", 0)  # its process was found alive: nothing was lost
    assert children.members(job_id, orphan.pid, orphan.born) == []


def test_a_service_that_is_killed_over_and_over_does_each_job_and_never_two_at_once(store, settings, killed):
    """Killed whenever another job has a process, in its first moments or later; at no time have two jobs processes."""
    jobs = [ask(store, f"echo begins >> {settings.state}/{n}; sleep 0.{n}; echo ends >> {settings.state}/{n}") for n in range(3)]
    at_once, ended_before = [], 0

    def one_more():
        at_once.append(sum(bool(children.members(job)) for job in jobs))
        done = sum(store.get(job).is_ended for job in jobs)
        return done == len(jobs) or (done > ended_before and at_once[-1] == 1)

    while ended_before < len(jobs):
        killed(one_more)
        ended_before = sum(store.get(job).is_ended for job in jobs)
    assert max(at_once) == 1
    for n, job_id in enumerate(jobs):
        job, lines = store.get(job_id), (settings.state / str(n)).read_text().split()
        assert (job.state, job.losses <= 1, lines[-1]) == ("succeeded", True, "ends")


def test_a_process_that_the_killed_service_had_no_time_to_note_is_found_too(store, settings, runner_of, tmp_path):
    job_id = ask(store, "exit 0")
    store.claim()
    orphan = children.start(job_id, ["sleep", "100"], tmp_path)
    runner_of()
    assert ended(store, job_id).state == "succeeded"
    assert orphan.wait() == -signal.SIGTERM


def test_a_process_that_was_lost_with_the_service_is_begun_again_but_not_for_ever(store, runner_of):
    job_id = ask(store, "exit 0")
    for _ in range(2):
        store.claim()
        store.began(job_id, 2**22 + 5, "a boot before this one/1")
        assert [job.state for job in store.recover(lambda job: False)] == ["queued"]
    store.claim()
    runner_of()
    job = ended(store, job_id)
    assert (job.state, job.losses) == ("failed", 3)
    assert job.detail == "its process was lost 3 times, with the service or by its fault; what it finished is kept: ask again"


def test_a_job_that_was_being_cancelled_when_the_service_died_is_cancelled(store, settings, runner_of, tmp_path):
    job_id = ask(store, SLEEP)
    store.claim()
    orphan = children.start(job_id, ["sleep", "100"], tmp_path)
    store.cancel(job_id)
    runner_of()
    assert ended(store, job_id).state == "cancelled"
    assert orphan.wait() == -signal.SIGTERM


# -- faults -----------------------------------------------------------------------------------------------------------------


def test_a_command_that_cannot_be_started_fails_or_is_lost(store, settings, runner_of):
    def command(job, settings):
        raise UserError("the corpus is gone")

    fresh, begun = ask(store, ""), ask(store, "")
    job_folder(settings.state, fresh).parent.mkdir()
    runner_of(command=command)
    job = ended(store, fresh)
    assert (job.state, job.detail) == ("failed", "the corpus is gone")
    assert ended(store, begun).state == "failed"


def test_a_job_that_ran_and_cannot_be_run_again_is_lost(store, settings, runner_of):
    job_id = ask(store, "")
    store.claim()

    def command(job, settings):
        raise UserError("the corpus is gone")

    runner_of(command=command)
    job = ended(store, job_id)
    assert (job.state, job.detail, job.losses) == ("lost", "the corpus is gone", 1)


def test_a_folder_that_cannot_be_written_fails_the_job_with_its_name(store, settings, runner_of):
    job_id = ask(store, "true")
    (settings.state / "jobs").write_text("in the way")
    runner_of()
    job = ended(store, job_id)
    assert job.state == "failed"
    assert f"{settings.state}/jobs/{job_id}" in job.detail


def test_a_store_that_fails_for_a_while_is_told_and_no_job_stays_running(store, settings, runner_of, monkeypatch):
    """A database that can only be read stands for a disk that is full while a job runs, and then is not."""
    monkeypatch.setattr("quality.service.runner._REST", 0.1)
    go = settings.state / "go"
    job_id = ask(store, f"echo began; until test -e {go}; do sleep 0.02; done")
    runner = runner_of()
    running(store, settings, job_id)
    store._database.execute("PRAGMA query_only = ON")
    go.touch()
    wait_for(lambda: runner.fault)
    assert f"{settings.state}/jobs.sqlite: attempt to write a readonly database; see that the folder" in runner.fault
    assert store.get(job_id).state == "running"
    store._database.execute("PRAGMA query_only = OFF")
    assert ended(store, job_id).state == "succeeded"
    wait_for(lambda: runner.fault is None)


def test_a_service_that_ends_while_its_store_fails_leaves_no_process_behind(store, settings, runner_of, monkeypatch):
    job_id = ask(store, SLEEP)
    runner = runner_of()
    running(store, settings, job_id)

    def fail(job_id):
        raise OSError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(store, "get", fail)
        wait_for(lambda: runner.fault == "the disk is gone")
        runner.stop()
    assert children.members(job_id) == []
    assert store.get(job_id).state in ("running", "queued")
    flag = settings.state / "done"
    runner_of(command=lambda job, settings: ["sh", "-c", f"touch {flag}"])
    assert ended(store, job_id).state == "succeeded"
    assert flag.exists()


def test_a_command_that_raises_what_nobody_foresaw_ends_as_a_failure_that_says_so(store, runner_of):
    def command(job, settings):
        raise TypeError("a mistake of ours")

    job_id = ask(store, "true")
    runner = runner_of(command=command)
    job = ended(store, job_id)
    assert (job.state, job.losses, job.detail) == ("failed", 0, "TypeError: a mistake of ours")
    assert runner.is_running
    assert runner.fault is None


def test_stopping_is_done_once_more_without_harm(store, runner_of):
    runner = runner_of()
    began = time.monotonic()
    runner.stop()
    runner.stop()
    assert not runner.is_running
    assert time.monotonic() >= began
