"""The store of jobs against a plain model of it (hypothesis' state machine), under threads, and with a file that is no good."""

import contextlib
import dataclasses
import pathlib
import shutil
import sqlite3
import tempfile
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quality.service import jobs
from quality.service.jobs import JobStore

ENDS = ["succeeded", "failed", "cancelled", "lost"]
LIMIT, LOSSES = 3, 2


class Store(RuleBasedStateMachine):
    """Every method at any moment, and the file closed and opened again in between. The model is a list, oldest first."""

    def __init__(self):
        super().__init__()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="winnow-jobs-"))
        self.open()
        self.model: list[dict] = []
        self.ended: dict[str, jobs.Job] = {}

    def open(self):
        self.store = JobStore(self.folder / "jobs.sqlite", LIMIT, LOSSES)
        self.store._database.execute("PRAGMA synchronous = OFF")  # no power fails here

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    def _of(self, state):
        return [one for one in self.model if one["state"] == state]

    @rule(kind=st.sampled_from(["build", "compare"]), corpus=st.sampled_from("ab"), key=st.sampled_from([None, "k", "l"]))
    def submit(self, kind, corpus, key):
        request = {"of": corpus, "ü": [1.5, None]}
        same = next((one for one in self.model if key is not None and one["key"] == key), None)
        if same is not None and (same["kind"], same["corpus"]) == (kind, corpus):
            job, new = self.store.submit(kind, corpus, request, key)
            assert (job.id, new) == (same["id"], False)
        elif same is not None:
            with pytest.raises(jobs.KeyReused):
                self.store.submit(kind, corpus, request, key)
        elif len(self._of("queued")) >= LIMIT:
            with pytest.raises(jobs.QueueFull):
                self.store.submit(kind, corpus, request, key)
        else:
            job, new = self.store.submit(kind, corpus, request, key)
            assert new
            assert all(one["id"] < job.id for one in self.model)
            one = {"id": job.id, "kind": kind, "corpus": corpus, "request": request, "key": key, "state": "queued"}
            self.model.append({**one, "stopping": False, "losses": 0, "detail": ""})

    @rule()
    def claim(self):
        job = self.store.claim()
        if self._of("running") or not self._of("queued"):
            assert job is None
        else:
            first = self._of("queued")[0]
            first["state"] = "running"
            assert (job.id, job.state, job.pid) == (first["id"], "running", None)
            assert job.started >= job.created

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data):
        one = data.draw(st.sampled_from(self.model))
        if one["state"] in ("queued", "running", "cancelled"):
            if one["state"] == "queued":
                one["state"] = "cancelled"
            if one["id"] not in self.ended:
                one["stopping"] = True
            assert self.store.cancel(one["id"]).state == one["state"]
        else:
            with pytest.raises(jobs.AlreadyEnded, match=one["state"]):
                self.store.cancel(one["id"])

    @precondition(lambda self: self._of("running"))
    @rule(pid=st.integers(2, 2**22))
    def begin(self, pid):
        job = self.store.began(self._of("running")[0]["id"], pid, f"boot/{pid}")
        assert (job.pid, job.born) == (pid, f"boot/{pid}")

    @precondition(lambda self: self.model)
    @rule(data=st.data(), state=st.sampled_from(ENDS), detail=st.text(max_size=5))
    def finish(self, data, state, detail):
        one = data.draw(st.sampled_from(self.model))
        if one["state"] == "running":
            one["state"], one["detail"] = state, detail
            assert self.store.finish(one["id"], state, detail).ended is not None
        else:
            with pytest.raises(ValueError, match=one["id"]):
                self.store.finish(one["id"], state, detail)

    @precondition(lambda self: self._of("running"))
    @rule(lost=st.booleans(), by_recovery=st.booleans())
    def give_back(self, lost, by_recovery):
        one = self._of("running")[0]
        if by_recovery:
            (job,) = self.store.recover(lambda job: not lost)
        else:
            job = self.store.give_back(one["id"], lost)
        if one["stopping"]:
            one["state"] = "cancelled"
        else:
            one["losses"] += lost
            one["state"] = "failed" if lost and one["losses"] >= LOSSES else "queued"
            one["detail"] = job.detail if one["state"] == "failed" else one["detail"]
        assert job.state == one["state"]
        assert (job.pid, job.started) == (None, None) or job.is_ended

    @rule()
    def open_again(self):
        self.store.close()
        self.open()

    @invariant()
    def is_as_the_model(self):
        found = self.store.list(limit=-1)
        assert [one.id for one in found] == [one["id"] for one in reversed(self.model)]
        for job, one in zip(found, reversed(self.model), strict=True):
            assert {key: getattr(job, key) for key in one} == one
            assert (job.ended is not None) == job.is_ended == (job.state in ENDS)
            assert self.store.get(job.id) == job
        counts = self.store.counts()
        assert counts == {state: len(self._of(state)) for state in jobs.STATES}
        assert counts["running"] <= 1

    @invariant()
    def what_has_ended_stays_as_it_is(self):
        now = {job.id: job for job in self.store.list(limit=-1) if job.is_ended}
        assert {job_id: now[job_id] for job_id in self.ended} == self.ended
        self.ended = now

    @invariant()
    def pages_are_the_whole_list(self):
        pages, after = [], None
        while page := self.store.list(after, 2):
            pages, after = [*pages, *page], page[-1].id
        assert pages == self.store.list(limit=-1)


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)


def test_no_state_but_an_end_is_without_a_way_on():
    ways = {state for found in jobs.MOVES.values() for state in found}
    assert ways | {"queued"} == set(jobs.STATES) == set(jobs.MOVES)
    assert [state for state in jobs.STATES if not jobs.MOVES[state]] == ENDS


@pytest.fixture
def store(tmp_path):
    made = JobStore(tmp_path / "jobs.sqlite", 100)
    made._database.execute("PRAGMA synchronous = OFF")  # no power fails here
    yield made
    made.close()


def test_an_unknown_job_and_a_state_that_is_no_end(store):
    for method in (store.get, store.cancel):
        with pytest.raises(jobs.UnknownJob):
            method("0" * 32)
    job, _ = store.submit("build", "a", {})
    store.claim()
    with pytest.raises(ValueError, match="is no end"):
        store.finish(job.id, "queued")
    store.finish(job.id, "failed")
    with pytest.raises(ValueError, match="does not run"):
        store.began(job.id, 1, "boot/1")


def test_threads_make_one_job_of_one_key_and_start_each_job_once(store):
    """Eight threads ask for the same, then eight fight for what waits."""
    made, started, gate = [], [], threading.Barrier(8)

    def ask(number):
        gate.wait()
        made.append(store.submit("build", "a", {}, "key"))
        for other in range(5):
            made.append(store.submit("build", f"c{number}{other}", {}))

    def work():
        gate.wait()
        while store.counts()["queued"]:
            if (job := store.claim()) is not None:
                started.append(job.id)
                store.finish(job.id, "succeeded")

    for target in (ask, lambda number: work()):
        threads = [threading.Thread(target=target, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    keyed = [(job.id, new) for job, new in made if job.key == "key"]
    assert len(keyed) == 8
    assert len({job_id for job_id, _ in keyed}) == 1
    assert sum(new for _, new in keyed) == 1
    assert started == sorted(set(started))
    assert len(started) == 41


def test_ids_sort_by_time_also_where_the_clock_goes_back(store, monkeypatch):
    times = iter([2_000_000_000.0, 2_000_000_000.0, 1_000_000_000.0, 1_000_000_000.0, 3_000_000_000.0, 3_000_000_000.0])
    monkeypatch.setattr(jobs.time, "time", lambda: next(times))
    made = [store.submit("build", "a", {})[0].id for _ in range(3)]
    assert made == sorted(made)
    assert all(len(one) == 32 for one in made)


# -- files that are no good -------------------------------------------------------------------------------------------------


def _broken(path, way_out):
    with pytest.raises(jobs.BrokenStore) as error:
        JobStore(path, 1)
    assert str(path) in str(error.value)
    assert way_out in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"not a database, but long enough to be taken for the head of one" * 40)
    _broken(path, "move it away")
    assert path.read_bytes().startswith(b"not a database")


def test_damage_is_found_before_anything_is_read(tmp_path):
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path, 10_000)
    for number in range(200):
        store.submit("build", f"corpus-{number}", {"padding": "x" * 200})
    store.close()
    content = bytearray(path.read_bytes())
    assert len(content) > 8 * 4096
    content[4096 : 4 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(content)
    _broken(path, "move it away")


def test_a_file_of_another_version(tmp_path):
    path = tmp_path / "jobs.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
    _broken(path, "of another version of winnow (7); give another --state folder")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(jobs.BrokenStore, match=r"file/state: Not a directory; give a --state folder"):
        JobStore(tmp_path / "file" / "state" / "jobs.sqlite", 1)


def test_a_full_disk_is_told_and_changes_nothing(store):
    """SQLite's own limit of pages stands for the disk: the same code path, SQLITE_FULL."""
    first, _ = store.submit("build", "a", {})
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(jobs.BrokenStore, match=r"jobs\.sqlite: database or disk is full; see that the folder"):
        store.submit("build", "a", {"padding": "x" * 100_000})
    assert store.list() == [first]
    store._database.execute(f"PRAGMA max_page_count = {pages + 1000}")
    again, new = store.submit("build", "a", {"padding": "x" * 100_000})
    assert new
    assert store.list() == [again, first]


def test_another_program_that_holds_the_file_is_told(tmp_path, monkeypatch):
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path, 1)
    store._database.execute("PRAGMA busy_timeout = 50")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(jobs.BrokenStore, match="database is locked"):
            store.submit("build", "a", {})
    assert store.counts()["queued"] == 0
    store.close()


def test_a_job_is_a_value(store):
    job, _ = store.submit("build", "a", {"b": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.state = "running"
