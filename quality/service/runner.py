"""Runs the jobs, one after another: each is the command in a process of its own, which is watched, stopped and accounted for.

    start    what the process of an earlier service was doing is stopped where it still runs, and goes back to the queue
    run      the command, its output in state/jobs/<id>/; its exit code and last line say how the job ended
    cancel   SIGTERM, which a training run takes to save itself, then SIGKILL; the same when the service ends, but then the job goes
             back to the queue. A shutdown signals the job's process in the same moment: one that a signal ended which nobody
             sent from here was interrupted too, if the service's own end comes within a second
    keep     of the jobs that have ended the newest `kept_jobs`; the others go, with their logs
    fault    whatever fails here (a full disk, say) is told by `fault`; then it is tried again, from the start on

Two services on one state folder are refused: each would take the other's processes for left over.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from pipelines.errors import UserError
from quality.service import children, requests, results
from quality.service.jobs import Job, JobStore, State, job_folder
from quality.service.progress import comparison_of, held_by, tail
from quality.service.settings import Settings

_LOG = logging.getLogger("winnow.service")
_POLL = 0.2  # seconds
_REST = 2.0  # seconds after a fault
_MOMENT = 1.0  # seconds within which a shutdown has told everyone
_INTERRUPTED = frozenset(code for one in (signal.SIGTERM, signal.SIGINT) for code in (-one, 128 + one))
_DETAIL = 500  # characters

Command = Callable[[Job, Settings], Sequence[str]]


class Runner:
    """Runs the jobs of `store` in a thread, from `start` to `stop`. on_change: called after a job has changed its state; grace:
    seconds between SIGTERM and SIGKILL; fault: what keeps it from its work, None while all is well."""

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        on_change: Callable[[], None] = lambda: None,
        grace: float = 20.0,
        command: Command = requests.command,
    ) -> None:
        self.fault: str | None = None
        self._store, self._settings, self._on_change = store, settings, on_change
        self._grace, self._command = grace, command
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: IO[str] | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_ending(self) -> bool:
        """Whether the service ends: whoever waits for a job's end waits no longer."""
        return self._ending.is_set()

    def reserve(self) -> None:
        """Takes the state folder for this service, until `stop`. Raises UserError where another service works on it, or processes
        cannot be found."""
        if self._lock is None:
            children.check()
            self._lock = _locked(self._settings.state)

    def start(self) -> None:
        """Begins to work; raises what `reserve` raises."""
        self.reserve()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="winnow-jobs", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Says that the service ends, for a signal's handler; `stop` follows. A process that ends from now on was interrupted."""
        self._ending.set()

    def stop(self) -> None:
        """Ends a running job's process, whose job goes back to the queue, and the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            self._lock.close()
        self._thread = self._lock = None

    def _work(self) -> None:
        recovered = False
        while not self._ending.is_set():
            try:
                if not recovered:
                    changed = self._store.recover(self._was_alive)
                    recovered, self.fault = True, None
                    if changed:
                        self._on_change()
                    self._forget()
                job = self._store.claim()
                if job is None:
                    self._ending.wait(_POLL)
                else:
                    self._on_change()
                    self._run(job)
                    self._on_change()
                    self._forget()
            except Exception as error:
                recovered, self.fault = False, " ".join(str(error).split()) or type(error).__name__
                _LOG.error("jobs: %s; trying again", self.fault)
                self._ending.wait(_REST)

    def _forget(self) -> None:
        for job in self._store.oldest_ended(self._settings.limits.kept_jobs):
            shutil.rmtree(job_folder(self._settings.state, job.id), ignore_errors=True)  # first: what is cut short is done again
            self._store.forget(job.id)

    def _was_alive(self, job: Job) -> bool:
        return children.stop(job.id, job.pid, job.born, self._grace)

    def _run(self, job: Job) -> None:
        """From claimed to its end, or back to the queue."""
        folder = job_folder(self._settings.state, job.id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            process = children.start(job.id, self._command(job, self._settings), folder)
        except Exception as error:
            is_foreseen = isinstance(error, UserError | OSError)
            state: State = "lost" if job.losses else "failed"  # what ran once and cannot be run again
            self._store.finish(job.id, state, _short(str(error) if is_foreseen else f"{type(error).__name__}: {error}"))
            _LOG.error("job %s: cannot be started: %s", job.id, _short(str(error)))
            return
        born = children.born(process.pid)
        try:
            job = self._store.began(job.id, process.pid, born)
            _LOG.info("job %s: %s of %s began as process %d", job.id, job.kind, job.corpus, process.pid)
            is_ended = self._watched(job, process)
        finally:  # also what outlives its leader: it would be in the next job's way
            children.stop(job.id, process.pid, born, self._grace)
            code = process.wait()
        job = self._noted(job)
        if is_ended and code in _INTERRUPTED:
            is_ended = not self._ending.wait(_MOMENT)
        if not is_ended and code != 0:
            job = self._store.give_back(job.id, is_lost=False)
        else:
            job = self._store.finish(job.id, *outcome(job, code, self._settings))
        _LOG.info("job %s: %s after code %d", job.id, job.state, code)

    def _watched(self, job: Job, process: subprocess.Popen[bytes]) -> bool:
        """Waits for the end of a process, or for somebody who wants it; whether it has ended by itself."""
        while process.poll() is None:
            if self._ending.is_set() or self._store.get(job.id).stopping:
                return False
            job = self._noted(job)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
        return not self._ending.is_set()

    def _noted(self, job: Job) -> Job:
        """The job, with the comparison that its process has begun."""
        folder = held_by(job, self._settings) if job.comparison is None else None
        return job if folder is None else self._store.compares(job.id, folder.name)


def outcome(job: Job, code: int, settings: Settings) -> tuple[State, str]:
    """How a job ended whose process did with `code` (negative: by a signal), and what there is to be said of it."""
    if code == 0:
        folder = comparison_of(job, settings)
        told = None if folder is None else results.summary(folder)
        return "succeeded", _short(str(told["verdict"])) if told is not None else ""
    if code < 0:
        why = ", as one is that takes too much memory" if -code == signal.SIGKILL else ""
        return "failed", f"its process was killed by signal {-code}{why}; see its log"
    lines = [line for line in tail(job_folder(settings.state, job.id) / children.ERRORS).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("winnow: ")), lines[-1] if lines else "")
    return "failed", _short(said.removeprefix("winnow: ")) or f"its process ended with {code}; see its log"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _DETAIL else line[: _DETAIL - 1] + "…"


def _locked(state: Path) -> IO[str]:
    """The state folder's lock, held until it is closed or this process ends, however it ends."""
    file = open(state / ".lock", "a")  # noqa: SIM115  (held)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{state}: another service keeps its jobs here; stop it, or give another --state folder") from None
    return file
