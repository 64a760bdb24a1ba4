"""I3: whatever ends a build, nothing half-done shows under a final name, and the same command goes on to the same bytes.

A name that is visible must hold, at any moment, the very bytes that it holds after an undisturbed build (`built`): builds are
deterministic, so that is the strongest thing to ask of a moment. Sidecars must tell the truth about files that are there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

import pytest

from pipelines.store import SIDECAR, TEMPORARY
from pipelines.verify import verify
from tests import corpus
from tests.faults.forked import Command, environment, full_disk, kill_at, ordinary_permissions
from tests.runs import ONE_WORKER_OPTIONS, TWO_PROCESSES_OPTIONS, TWO_THREADS_OPTIONS, differing, hashes, lies, temporaries

pytestmark = pytest.mark.timeout(600)
KILLS = 10


@pytest.fixture(scope="module")
def reference(built):
    return hashes(built)


@pytest.fixture
def start(inputs, tmp_path):
    """start(options, *harms): a build of the small corpus into tmp_path/run, in a process of its own."""
    (tmp_path / "tiny.yaml").write_text(corpus.recipe(inputs), "utf-8")
    started = []

    def build(options=ONE_WORKER_OPTIONS, *harms, before=()):
        number = len(started)
        arguments = [*before, "build", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "run"), "--", *options]
        started.append(Command(arguments, tmp_path / f"log-{number}", harms))
        return started[-1]

    yield build
    for command in started:
        for process in [*command.workers(), *([command.process.pid] if command.process.is_alive() else [])]:
            with contextlib.suppress(ProcessLookupError):  # it may end while it is looked at
                os.kill(process, signal.SIGKILL)


def _check_what_is_visible(run, reference):
    """Every final name holds what it will hold in the end, and no sidecar lies; a manifest that stands tells of a whole run."""
    visible = {name: digest for name, digest in hashes(run).items() if TEMPORARY not in name}
    assert {name for name, digest in visible.items() if reference.get(name) != digest} == set()
    assert lies(run) == []
    if "manifest.json" in visible:
        assert verify(str(run)).faults == []


def _check_ended_well(command, run, reference):
    assert (command.wait(), command.errors()) == (0, command.errors())
    assert temporaries(run) == []
    assert differing(reference, hashes(run)) == set()


def test_kill_9_at_ten_moments(start, tmp_path, reference):
    """Moments by a fixed draw, so that ten of them span a build: each build goes on where the one before was killed."""
    run, kills, moment = tmp_path / "run", 0, corpus.Draw("moments of killing")
    while kills < KILLS:
        options = TWO_THREADS_OPTIONS if kills % 2 else ONE_WORKER_OPTIONS
        command = start(options, kill_at(run, 1 + moment.below(2 * 3 * len(reference) // KILLS)))
        if command.wait() == 0:
            _check_ended_well(command, run, reference)
            shutil.rmtree(run)
            continue
        assert command.process.exitcode == -signal.SIGKILL, command.said()
        kills += 1
        _check_what_is_visible(run, reference)
    _check_ended_well(start(), run, reference)


def test_a_worker_process_that_dies_ends_the_build_loudly(start, built, tmp_path, reference):
    """kill -9 of a worker, by itself, when it is about to publish the first part of signals/."""
    from tests.runs import REPOSITORY

    run = tmp_path / "run"
    shutil.copytree(built, run)
    for sidecar in run.glob(f"signals/*/*{SIDECAR}"):
        sidecar.unlink()
    dying = os.pathsep.join([str(REPOSITORY / "tests" / "faults" / "dying"), str(REPOSITORY)])
    command = start(TWO_PROCESSES_OPTIONS, environment(PYTHONPATH=dying, WINNOW_TEST_DIES="signals/"))
    assert command.wait() == 1
    *killed, line = command.errors()
    assert set(killed) <= {"Killed"}  # the shell's own word for it
    assert line == (
        "winnow: RuntimeError: the annotate job lost a worker process, killed or out of memory; the same command goes on where"
        " it stopped (run again with --debug for the whole story)"
    )
    assert not (run / "manifest.json").exists()
    _check_what_is_visible(run, reference)
    _check_ended_well(start(), run, reference)


def test_a_full_disk_is_one_line_that_names_the_file_and_the_build_goes_on_where_there_is_room(start, tmp_path, reference):
    """Three sizes of disk: the first has no room for documents, the second none for the classifier that the launcher writes."""
    run = tmp_path / "run"
    for size, options, cannot in (
        (20_000, ONE_WORKER_OPTIONS, "documents/"),
        (20_000, TWO_THREADS_OPTIONS, "documents/"),
        (300_000, ONE_WORKER_OPTIONS, "models/"),
    ):
        command = start(options, full_disk(size))
        assert command.wait() == 2
        (line,) = command.errors()
        assert line.startswith(f"winnow: {run}/{cannot}")
        assert line.endswith(": File too large")
        assert temporaries(run) == []
        assert not (run / "manifest.json").exists()
        _check_what_is_visible(run, reference)
    _check_ended_well(start(), run, reference)


def test_a_second_build_is_refused_while_the_first_one_runs(start, tmp_path):
    """The first is stopped in its tracks, so that it surely runs; then it is let go and killed."""
    first = start()
    first.wait_until(lambda: (tmp_path / "run" / "plan.json").exists())
    first.kill(signal.SIGSTOP)
    before = hashes(tmp_path / "run")
    second = start()
    assert second.wait() == 2
    assert second.errors() == [f"winnow: {tmp_path}/run: another build is running here; wait for it to end"]
    assert hashes(tmp_path / "run") == before
    first.kill()


def test_an_interrupt_is_one_line_and_leaves_nothing_unfinished(start, tmp_path, reference):
    run = tmp_path / "run"
    command = start(TWO_THREADS_OPTIONS)
    command.wait_until(lambda: any(run.glob("documents/*/*.parquet")))
    command.kill(signal.SIGINT)
    assert command.wait() == 130
    assert [line for line in command.errors() if line] == [
        "winnow: interrupted; the same command goes on where it stopped"
    ]
    _check_what_is_visible(run, reference)


@pytest.mark.parametrize("what", ["run", "folder above"])
def test_a_folder_that_cannot_be_written_is_one_line_that_names_it(start, tmp_path, what):
    run = tmp_path / "run"
    if what == "run":
        run.mkdir()
        run.chmod(0o555)
    else:
        tmp_path.chmod(0o555)
    (tmp_path / "log-0").touch()
    command = start(ONE_WORKER_OPTIONS, ordinary_permissions)
    assert command.wait() == 2
    named = run / ".lock" if what == "run" else run
    assert command.errors() == [f"winnow: {named}: Permission denied"]
