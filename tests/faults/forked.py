"""`winnow` in forked processes that can be hurt: one interpreter imports everything once, every command is a fork of it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.forked", "pipelines.cli", "pipelines.build", "pipelines.local_workers"])
_O_CREAT = os.O_CREAT

Harm = Callable[[], None]  # picklable; called in the new process before the command


@dataclass
class Command:
    """A running `winnow` command; a session of its own, so that its worker processes can be told."""

    arguments: Sequence[str]
    log: Path
    harms: Sequence[Harm] = ()
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        self.process = _CONTEXT.Process(target=_run, args=(list(self.arguments), str(self.log), tuple(self.harms)))
        self.process.start()

    def wait(self, seconds: float = 240) -> int:
        """The exit code; minus the signal for a killed one."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"{' '.join(self.arguments)} did not end within {seconds} s:\n{self.said()}")
        return self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def said(self) -> str:
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def errors(self) -> list[str]:
        """What was said to the user besides progress (JSON lines) and the stages that are done."""
        return [line for line in self.said().splitlines() if not line.startswith("{") and " redone, " not in line]

    def workers(self) -> list[int]:
        """Living processes of the command's session, without the command itself."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    state, _, _, session = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(session) == self.process.pid and state != "Z" and int(folder.name) != self.process.pid:
                    found.append(int(folder.name))
        return found

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Returns when the condition holds; fails if the command ends before."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), f"ended with {self.process.exitcode}:\n{self.said()}"
            assert time.monotonic() < end, self.said()
            time.sleep(0.005)


def _run(arguments: list[str], log: str, harms: tuple[Harm, ...]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server that forked this process ignores it
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for harm in harms:
        harm()
    sys.argv = ["winnow", *arguments]
    from pipelines.cli import main

    main()
    sys.stdout.flush()


# -- harms ------------------------------------------------------------------------------------------------------------------


def kill_at(run: Path, moment: int) -> Harm:
    """kill -9 at the n-th change of a file of the run: creation, a write (half of its bytes arrive), rename or removal."""
    return partial(_kill_at, str(run), moment)


def _kill_at(run: str, moment: int) -> None:
    from pipelines.store import HashingFile

    left = moment

    def is_the_moment() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def audit(event: str, arguments: tuple) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and arguments[2] & _O_CREAT)
        if changes and str(arguments[0]).startswith(run) and is_the_moment():
            os.kill(os.getpid(), signal.SIGKILL)

    whole = HashingFile.write

    def write(self: HashingFile, data: Any) -> int:
        if is_the_moment():
            view = memoryview(data).cast("B")
            self._file.write(view[: len(view) // 2])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, data)

    HashingFile.write = write
    sys.addaudithook(audit)


def full_disk(size: int) -> Harm:
    """No file can grow beyond `size` bytes: the system's own limit on file size stands in for a full disk."""
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def environment(**variables: str) -> Harm:
    return partial(_set_environment, variables)


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def ordinary_permissions() -> None:
    """Gives up root's right to write where permissions say no (CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    data[0] &= ~0b110
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())
