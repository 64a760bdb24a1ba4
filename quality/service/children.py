"""The processes of a job on Linux: started, found again, and stopped, those of their children that outlive them too.

A job's process and all that it starts carry the job's id in their environment. So they are found by what they are and not by a
number that another process may have by now: also after the service was killed, also where they lead a session of their own. A
signal goes to a process through a handle that is taken before it is looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import UserError

OUT, ERRORS = "out.log", "err.log"
_MARK = "WINNOW_SERVICE_JOB"
_SECRETS = ("WINNOW_TOKEN",)  # of the service, which are not its jobs'
_POLL = 0.05  # seconds
_DEAD = ("Z", "X")  # states of a process
_UNKILLABLE = 10.0  # seconds after SIGKILL
_PROC = Path("/proc")


def check() -> None:
    """Raises UserError where processes cannot be found."""
    if not (_PROC / "self" / "environ").exists():
        raise UserError("/proc is missing: winnow serve runs its jobs on Linux only")


def start(job_id: str, argv: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a job's process as the leader of a session of its own; its output goes to out.log and err.log in `folder`. Those of
    earlier starts are out.1.log, out.2.log and so on, the first one first."""
    earlier = next(n for n in itertools.count(1) if not any((folder / _nth(log, n)).exists() for log in (OUT, ERRORS)))
    for log in (OUT, ERRORS):
        with contextlib.suppress(FileNotFoundError):
            (folder / log).rename(folder / _nth(log, earlier))
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    with open(folder / OUT, "wb") as out, open(folder / ERRORS, "wb") as errors:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            env={**environment, _MARK: job_id, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )


def _nth(log: str, number: int) -> str:
    return log.replace(".", f".{number}.")


def born(pid: int) -> str:
    """When a process began, by this boot of the machine: no two processes have both number and this in common. "" for none,
    and for one that is dead and that nobody has asked about yet."""
    try:
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        return "" if state in _DEAD else f"{boot}/{fields[18]}"
    except (OSError, ValueError, IndexError):
        return ""


def members(job_id: str, pid: int | None = None, begun: str | None = None) -> list[int]:
    """Numbers of the living processes of a job: those that carry its id, and process `pid` if it began at `begun`."""
    return [int(name) for name in os.listdir(_PROC) if name.isdigit() and _belongs(int(name), job_id, pid, begun)]


def _belongs(found: int, job_id: str, pid: int | None, begun: str | None) -> bool:
    try:
        content = (_PROC / str(found) / "environ").read_bytes()  # nothing of one that is dead, or just becoming another program
    except OSError:
        return False  # gone, or somebody else's
    if f"{_MARK}={job_id}".encode() in content.split(b"\0"):
        return True
    return found == pid and bool(begun) and born(found) == begun


def _left(job_id: str, pid: int | None, begun: str | None) -> list[int]:
    """`members`, looked for twice: for a moment a process that is becoming another program carries nothing."""
    found = members(job_id, pid, begun)
    if not found:
        time.sleep(_POLL)
        found = members(job_id, pid, begun)
    return found


def stop(job_id: str, pid: int | None, begun: str | None, grace: float) -> bool:
    """Ends all processes of a job, and returns whether there were any: SIGTERM to the session of its leader, or to all where that
    is gone, and after `grace` seconds SIGKILL to what is left. Raises UserError where one cannot be killed."""
    found = _left(job_id, pid, begun)
    if not found:
        return False
    _signal([one for one in found if pid in found and _group(one) == pid] or found, signal.SIGTERM, job_id, pid, begun)
    deadline = time.monotonic() + grace
    while (found := _left(job_id, pid, begun)) and time.monotonic() < deadline:
        time.sleep(_POLL)
    deadline = time.monotonic() + _UNKILLABLE
    while found:
        if time.monotonic() > deadline:
            raise UserError(f"process {found[0]} of job {job_id} cannot be killed; see what it waits for")
        _signal(found, signal.SIGKILL, job_id, pid, begun)
        time.sleep(_POLL)
        found = _left(job_id, pid, begun)
    return True


def _group(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _signal(found: Sequence[int], number: signal.Signals, job_id: str, pid: int | None, begun: str | None) -> None:
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(one)
            try:
                if _belongs(one, job_id, pid, begun):  # looked at again: from here on the handle is this process and no other
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
