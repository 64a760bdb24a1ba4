"""The jobs of the service, in one SQLite file: what was asked for, where it stands, and which moves between states there are.

    queued -> running -> succeeded | failed | cancelled | lost
       |         |
       |         +-> queued      the service ended, or was killed; both commands go on where they stopped
       +-> cancelled

One job runs at a time: a build and a comparison each take all cores, and a corpus must not be built while it is read. A job is
never left running without a process: what the process of a killed service was doing is given back to the queue by the next one, and
fails once its process was lost too often. An idempotency key belongs to one request for as long as its job is kept.

Every method is one transaction and may be called from any thread. Nothing here knows of HTTP or of processes.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pipelines.errors import UserError

Kind = Literal["build", "compare"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
STATES: tuple[State, ...] = get_args(State)
MOVES: dict[State, frozenset[State]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled", "lost"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "lost": frozenset(),
}

_VERSION = 2
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, corpus TEXT NOT NULL, request TEXT NOT NULL, key TEXT UNIQUE, state TEXT NOT NULL,
    created REAL NOT NULL, started REAL, ended REAL, pid INTEGER, born TEXT, stopping INTEGER NOT NULL, losses INTEGER NOT NULL,
    detail TEXT NOT NULL, comparison TEXT
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are seconds since 1970; `started` is when its process last began, and `born` tells it from a later process of
    the same number. stopping: somebody asked for its end. losses: how often its process was gone with the service. comparison: the
    id of the one that its process prepares, runs or ran, once that is known."""

    id: str
    kind: Kind
    corpus: str
    request: dict[str, Any]
    key: str | None
    state: State
    created: float
    started: float | None
    ended: float | None
    pid: int | None
    born: str | None
    stopping: bool
    losses: int
    detail: str
    comparison: str | None

    @property
    def is_ended(self) -> bool:
        return not MOVES[self.state]


class UnknownJob(Exception):
    """No job has this id."""


class QueueFull(Exception):
    """So many jobs wait that no more are taken."""


class KeyReused(Exception):
    """The idempotency key belongs to another request."""


class AlreadyEnded(Exception):
    """The job ended before it could be cancelled; how is its `state`."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.state = state


class BrokenStore(UserError):
    """The file of jobs cannot be read or written."""


class JobStore:
    """The jobs in the file `path`. limit: how many may wait; losses: how often a job's process may be lost before the job fails.

    Raises BrokenStore, here and in every method, naming the file.
    """

    def __init__(self, path: Path, limit: int, losses: int = 3) -> None:
        self.path, self.limit, self.losses = path, limit, losses
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BrokenStore(f"{path.parent}: {error.strerror}; give a --state folder that can be written") from error
        with self._told():
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def _open(self) -> None:
        self._database.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self._database.execute(f"PRAGMA {pragma}").fetchall()
        found = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        with self._transaction() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.execute(_SCHEMA)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise BrokenStore(f"{self.path}: of another version of winnow ({version}); give another --state folder")

    def close(self) -> None:
        """Closes the file; no method may be called after this."""
        with self._lock:
            self._database.close()

    def submit(self, kind: Kind, corpus: str, request: dict[str, Any], key: str | None = None) -> tuple[Job, bool]:
        """(the job, whether it is new): a key that was used for this request gives the job that it made. Raises KeyReused and
        QueueFull."""
        text = _text(request)
        with self._transaction() as database:
            if key is not None and (found := self._made_by(key, kind, corpus, text)) is not None:
                return found, False
            if _count(database, "queued") >= self.limit:
                raise QueueFull(f"{self.limit} jobs wait already")
            last = database.execute("SELECT max(id) FROM jobs").fetchone()[0]
            made = new_id(last)
            columns = (made, kind, corpus, text, key, "queued", time.time())
            database.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL, 0, 0, '', NULL)", columns)
            return self._get(made), True

    def made_by(self, key: str, kind: Kind, corpus: str, request: dict[str, Any]) -> Job | None:
        """The job that this request has made with this key, None for a new key. Raises KeyReused."""
        with self._transaction(reads=True):
            return self._made_by(key, kind, corpus, _text(request))

    def get(self, job_id: str) -> Job:
        """Raises UnknownJob."""
        with self._transaction(reads=True):
            return self._get(job_id)

    def list(self, after: str | None = None, limit: int = 50, state: State | None = None) -> list[Job]:
        """The newest first; after: only jobs older than the one of this id."""
        with self._transaction(reads=True) as database:
            where = "(? IS NULL OR id < ?) AND (? IS NULL OR state = ?)"
            query = f"SELECT * FROM jobs WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608  (no value of anyone is in it)
            return [_job(row) for row in database.execute(query, (after, after, state, state, limit))]

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._transaction(reads=True) as database:
            found = dict(database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
            return {state: found.get(state, 0) for state in STATES}

    def claim(self) -> Job | None:
        """The job that has waited longest, which runs from now on; None where none waits, or one runs."""
        with self._transaction() as database:
            if _count(database, "running"):
                return None
            found = database.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT 1").fetchone()
            if found is None:
                return None
            return self._move(found["id"], "running", started=time.time(), pid=None, born=None, comparison=None)

    def began(self, job_id: str, pid: int, born: str) -> Job:
        """Notes the process of a running job."""
        with self._transaction() as database:
            if self._get(job_id).state != "running":
                raise ValueError(f"{job_id}: has a process, but does not run")
            database.execute("UPDATE jobs SET pid = ?, born = ? WHERE id = ?", (pid, born, job_id))
            return self._get(job_id)

    def compares(self, job_id: str, comparison: str) -> Job:
        """Notes which comparison a job's process works on."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET comparison = ? WHERE id = ?", (comparison, job_id))
            return self._get(job_id)

    def finish(self, job_id: str, state: State, detail: str = "") -> Job:
        """Ends a running job. Raises ValueError on a move that there is none of."""
        if MOVES[state]:
            raise ValueError(f"{job_id}: {state} is no end")
        with self._transaction():
            if self._get(job_id).state != "running":
                raise ValueError(f"{job_id}: does not run, and cannot end as {state}")
            return self._move(job_id, state, ended=time.time(), detail=detail)

    def cancel(self, job_id: str) -> Job:
        """Ends a waiting job, and asks for the end of a running one, which its runner brings about; a cancelled one stays as it is.
        Raises UnknownJob and AlreadyEnded."""
        with self._transaction() as database:
            job = self._get(job_id)
            if job.state == "queued":
                return self._move(job_id, "cancelled", ended=time.time(), stopping=1)
            if job.state == "running":
                database.execute("UPDATE jobs SET stopping = 1 WHERE id = ?", (job_id,))
                return self._get(job_id)
            if job.state != "cancelled":
                raise AlreadyEnded(job.state)
            return job

    def give_back(self, job_id: str, is_lost: bool) -> Job:
        """A running job whose process has ended without ending the job: back to the queue, or cancelled if that was asked for.
        is_lost: the process was gone with the service, which counts; after `losses` of them the job fails."""
        with self._transaction():
            job = self._get(job_id)
            if job.stopping:
                return self._move(job_id, "cancelled", ended=time.time())
            losses = job.losses + is_lost
            if is_lost and losses >= self.losses:
                told = f"its process was lost {losses} times, with the service or by its fault; what it finished is kept: ask again"
                return self._move(job_id, "failed", ended=time.time(), losses=losses, detail=told)
            return self._move(job_id, "queued", started=None, pid=None, born=None, losses=losses)

    def recover(self, was_alive: Callable[[Job], bool]) -> tuple[Job, ...]:
        """Gives back every job that runs according to the file; for the start of a runner. was_alive: sees to it that no process of
        the job is left, and says whether there was one, which was then interrupted and not lost."""
        return tuple(self.give_back(job.id, not was_alive(job)) for job in self.list(limit=-1, state="running"))

    def oldest_ended(self, kept: int) -> tuple[Job, ...]:
        """The jobs that have ended, but for the newest `kept` of them."""
        with self._transaction(reads=True) as database:
            found = database.execute("SELECT * FROM jobs WHERE ended IS NOT NULL ORDER BY id DESC LIMIT -1 OFFSET ?", (kept,))
            return tuple(map(_job, found))

    def forget(self, job_id: str) -> None:
        """Removes a job that has ended; of any other nothing happens."""
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE id = ? AND ended IS NOT NULL", (job_id,))

    # -- within a transaction -------------------------------------------------------------------------------------------------

    def _get(self, job_id: str) -> Job:
        found = self._database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if found is None:
            raise UnknownJob(job_id)
        return _job(found)

    def _made_by(self, key: str, kind: Kind, corpus: str, text: str) -> Job | None:
        found = self._database.execute("SELECT * FROM jobs WHERE key = ?", (key,)).fetchone()
        if found is not None and (found["kind"], found["corpus"], found["request"]) != (kind, corpus, text):
            raise KeyReused(key)
        return None if found is None else _job(found)

    def _move(self, job_id: str, state: State, **columns: Any) -> Job:
        before = self._get(job_id).state
        if state not in MOVES[before]:
            raise ValueError(f"{job_id}: no way from {before} to {state}")
        given = {"state": state, **columns}
        names = ", ".join(f"{name} = ?" for name in given)
        self._database.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*given.values(), job_id))  # noqa: S608
        return self._get(job_id)

    @contextmanager
    def _transaction(self, reads: bool = False) -> Iterator[sqlite3.Connection]:
        """reads: nothing is written, so that it is done on a full disk too."""
        with self._lock, self._told():
            self._database.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file as one line that names it and the way out."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            way = "move it away with its -wal and -shm and start again: corpora and comparisons are not in it"
            if isinstance(error, sqlite3.OperationalError):
                way = "see that the folder can be written and has room, and start again"
            raise BrokenStore(f"{self.path}: {' '.join(str(error).split())}; {way}") from error


def new_id(last: str | None) -> str:
    """A new id of 32 hex digits that sorts after `last`: milliseconds and chance, or one more where the clock went back."""
    made = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return f"{max(made, int(last, 16) + 1 if last else 0):032x}"


def job_folder(state: Path, job_id: str) -> Path:
    """Where the logs of a job are, and its recipe."""
    return state / "jobs" / job_id


def _count(database: sqlite3.Connection, state: State) -> int:
    return int(database.execute("SELECT count(*) FROM jobs WHERE state = ?", (state,)).fetchone()[0])


def _text(request: dict[str, Any]) -> str:
    """A request as it is kept and compared."""
    return json.dumps(request, sort_keys=True, ensure_ascii=False)


def _job(row: sqlite3.Row) -> Job:
    return Job(**{**dict(row), "request": json.loads(row["request"]), "stopping": bool(row["stopping"])})
