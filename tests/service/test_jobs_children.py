"""Processes of a job, real ones: found by what they carry, stopped whatever they do against it, and never mistaken for others."""

import os
import signal
import subprocess
import sys
import time

import pytest

from quality.service import children

JOB, OTHER = "0" * 31 + "1", "0" * 31 + "2"
DEAF = 'trap "" TERM; echo deaf; while :; do sleep 0.05; done'
# A leader that starts a process in a session of its own, says its number, and waits or ends.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "100"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def begin(tmp_path):
    """Starts a process of a job; whatever is left of the jobs is killed at the end."""
    made = []

    def start(argv, job=JOB):
        process = children.start(job, argv, tmp_path)
        made.append(process)
        return process

    yield start
    for job in (JOB, OTHER):
        children.stop(job, None, None, 0)
    for process in made:
        process.wait()


def wait_for(condition, seconds=30):
    """The first true value of a condition; fails where it does not come true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def said(folder):
    return (folder / children.OUT).read_text()


def test_its_output_goes_to_files_and_that_of_earlier_starts_is_kept(begin, tmp_path):
    for number in range(1, 4):
        assert begin(["sh", "-c", f"echo start {number}; echo error {number} >&2"]).wait() == 0
    assert [(tmp_path / name).read_text() for name in ("out.1.log", "out.2.log")] == ["start 1\n", "start 2\n"]
    assert (tmp_path / "err.2.log").read_text() == "error 2\n"
    process = begin(["sh", "-c", "echo one; echo two >&2; read line || echo no input"])
    assert process.wait() == 0
    assert said(tmp_path) == "one\nno input\n"
    assert (tmp_path / children.ERRORS).read_text() == "two\n"


def test_it_leads_a_session_and_does_not_get_the_token(begin, tmp_path, monkeypatch):
    monkeypatch.setenv("WINNOW_TOKEN", "0123456789abcdef")
    process = begin(["sh", "-c", "env; sleep 100"])
    wait_for(lambda: "PATH=" in said(tmp_path))
    assert "0123456789abcdef" not in said(tmp_path)
    assert os.getsid(process.pid) == process.pid
    assert process.pid in children.members(JOB)
    assert children.members(OTHER) == []


def test_a_process_that_heeds_a_signal_ends_by_it(begin):
    process = begin(["sleep", "100"])
    assert children.stop(JOB, process.pid, children.born(process.pid), 30)
    assert process.wait() == -signal.SIGTERM
    assert not children.stop(JOB, process.pid, None, 30)


def test_a_process_that_is_deaf_to_it_is_killed(begin, tmp_path):
    process = begin(["sh", "-c", DEAF])
    wait_for(lambda: said(tmp_path))
    assert children.stop(JOB, process.pid, children.born(process.pid), 0.3)
    assert process.wait() == -signal.SIGKILL
    assert children.members(JOB) == []


@pytest.mark.parametrize("stays", ["100", "0"])
def test_children_in_sessions_of_their_own_are_ended_too(begin, tmp_path, stays):
    """Also where their parent is gone, and they are nobody's."""
    process = begin([sys.executable, "-S", "-c", PARENT, stays])
    born = children.born(process.pid)
    child = int(wait_for(lambda: said(tmp_path).strip()))
    if stays == "0":
        process.wait()
    assert child in children.members(JOB, process.pid, born)
    assert children.stop(JOB, process.pid, born, 0.3)
    assert children.members(JOB) == []
    process.wait()


def test_a_process_that_carries_nothing_for_a_moment_is_not_overlooked(begin, monkeypatch):
    """As one does that is just becoming another program."""
    process = begin(["sleep", "100"])
    wait_for(lambda: children.members(JOB))
    first, members = [[]], children.members
    monkeypatch.setattr(children, "members", lambda *asked: first.pop() if first else members(*asked))
    assert children.stop(JOB, None, None, 30)
    assert process.wait() == -signal.SIGTERM


def test_a_dead_process_that_nobody_has_asked_about_is_no_member(begin):
    process = begin(["true"])
    born = children.born(process.pid)
    wait_for(lambda: children.born(process.pid) == "")
    assert process.returncode is None
    assert children.members(JOB, process.pid, born) == []


def test_another_job_is_left_alone(begin):
    one, other = begin(["sleep", "100"]), begin(["sleep", "100"], OTHER)
    wait_for(lambda: children.members(JOB))
    assert children.stop(JOB, one.pid, None, 30)
    wait_for(lambda: children.members(OTHER) == [other.pid])  # not before it has become `sleep`, with an environment of its own
    assert other.poll() is None


def test_a_number_that_another_process_has_by_now_is_no_member():
    """The number of a job's process, recorded before it was given to another one, which carries no job's id."""
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        assert children.members(JOB, stranger.pid, "another-boot/12345") == []
        assert not children.stop(JOB, stranger.pid, "another-boot/12345", 0)
        assert not children.stop(JOB, stranger.pid, "", 0)
        assert stranger.poll() is None
        assert children.members(JOB, stranger.pid, children.born(stranger.pid)) == [stranger.pid]
    finally:
        stranger.kill()
        stranger.wait()
    assert children.born(stranger.pid) == ""


def test_without_proc_it_is_refused(tmp_path, monkeypatch):
    children.check()
    monkeypatch.setattr(children, "_PROC", tmp_path)
    with pytest.raises(children.UserError, match="runs its jobs on Linux only"):
        children.check()
