"""Run directories on object stores, against real servers on this machine: byte for byte the run that a local build leaves.

What such a store cannot give is tested as it is told: its lock outlives a killed build.
"""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zlib

import pytest

from pipelines import cli, remote, run_directory
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.export import export
from pipelines.recipe_file import parse
from pipelines.store import SIDECAR, Store
from tests import corpus
from tests.errors import one_line
from tests.pipelines.object_stores import BUCKET, SERVERS
from tests.runs import APART, ONE_WORKER, REPOSITORY

OVERRIDES = ["limits.part_bytes=200000", "tokens.shards=1"]
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs to aiohttp


@pytest.fixture(scope="module", params=SERVERS)
def store(request):
    with SERVERS[request.param]() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_pauses(store, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    yield
    store.gate.faults.clear()


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The inputs of a smaller corpus."""
    folder = tmp_path_factory.mktemp("few")
    corpus.write(folder, 40)
    return folder


def _build(few, run, overrides=()):
    return build(parse(corpus.recipe(few), "tiny", [*OVERRIDES, *overrides]), ".", str(run), ONE_WORKER, lambda line: None)


@pytest.fixture(scope="module")
def near(few, tmp_path_factory):
    """A local run."""
    run = tmp_path_factory.mktemp("near") / "run"
    _build(few, run)
    return run


@pytest.fixture(scope="module")
def far(few, store):
    """The URL of the same run on the store."""
    _build(few, store.url("run"))
    return store.url("run")


def _same(store, folder, near):
    """The run in a folder of the bucket has the files of the local one, byte for byte."""
    there = {name: data for name, data in store.content(folder).items() if name not in APART}
    here = {path.relative_to(near).as_posix(): path.read_bytes() for path in near.rglob("*") if path.is_file()}
    assert there == {name: data for name, data in here.items() if name not in APART}


def test_every_byte_of_a_run_is_that_of_a_local_one(store, near, far):
    _same(store, "run", near)
    assert len(store.content("run")) > 80
    assert ".lock" not in store.content("run")


def _printed(monkeypatch, capsys, *arguments):
    """What the command says, as one JSON document."""
    monkeypatch.setattr(sys, "argv", ["winnow", *map(str, arguments), "--json"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "exit", lambda code: pytest.fail(f"{arguments}: {capsys.readouterr().err}"))
        cli.main()
    return capsys.readouterr().out


COMMANDS = [("verify",), ("verify", "--deep"), ("explain", "https://host3.example/3"), ("explain", "w.jsonl#4")]
COMMANDS += [("documents", "--variant", "filtered")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_of_it_what_it_says_of_a_local_one(near, far, monkeypatch, capsys, command):
    name, *rest = command
    answers = [_printed(monkeypatch, capsys, name, run, *rest) for run in (near, far)]
    assert answers[0] == answers[1]
    assert len(answers[0]) > 40


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_an_export_from_a_store_to_a_store_is_a_local_one(store, near, far, tmp_path, form):
    """Byte for byte, also where it is made again; what lies in the folder is seen there too."""
    export(str(near), "filtered", str(tmp_path / "out"), form)
    here = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    there = store.url(f"exported-{form}")
    for _ in range(2):
        export(far, "filtered", there, form)
        assert store.content(f"exported-{form}") == here
    said = f"{there}: holds another export (filtered as {form}, says export.json)"
    one_line(lambda: export(far, "unfiltered", there, form), said)
    one_line(lambda: export(far, "filtered", f"{far}/out", form), f"{far}/out: lies in the run")


def test_diff_and_report(store, near, far, monkeypatch, capsys):
    there_and_here, here_and_here = (_printed(monkeypatch, capsys, "diff", near, run) for run in (far, near))
    assert there_and_here.replace(far, str(near)) == here_and_here
    Store(far).publish("report.html", b"spoilt")
    assert f"{far}/report.html" in _printed(monkeypatch, capsys, "report", far)
    _same(store, "run", near)


def test_a_changed_threshold_and_a_purge_leave_what_they_leave_locally(store, few, near, far, monkeypatch, capsys, tmp_path):
    """Of copies, so that the others still find the runs."""
    import shutil

    for name, data in store.content("run").items():
        store.put(f"changed/{name}", data)
    (tmp_path / "gone.txt").write_text("https://host3.example/3\nhttps://host5.example/5\n")
    shutil.copytree(near, tmp_path / "run")
    change = [f"remove={tmp_path}/gone.txt", "variants.filtered.default.quality.keep_rate=0.4"]
    for run in (tmp_path / "run", store.url("changed")):
        _build(few, run, change)
        assert '"documents": 2' in _printed(monkeypatch, capsys, "purge", run)
    _same(store, "changed", tmp_path / "run")


def test_a_build_that_was_killed_is_gone_on_with_once_its_lock_is_removed(store, few, near):
    """kill -9 in the middle of the build; what stands is kept, and the end is the same."""
    recipe = few / "tiny.yaml"
    recipe.write_text(corpus.recipe(few))
    sets = [argument for one in OVERRIDES for argument in ("--set", one)]
    run = store.url("killed")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "build", str(recipe), "--run", run, *sets],
        cwd=REPOSITORY, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stage, end = Store(run), time.monotonic() + 250
    while not any("/signals/" in name for name in store.filesystem().find("corpus/killed")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not stage.exists("manifest.json")
    for name in stage.files(""):  # what stands under a sidecar is what that says
        if name.endswith(SIDECAR) and not name.endswith(".json" + SIDECAR):
            assert stage.digest(name.removesuffix(SIDECAR))["sha256"] == stage.read_json(name)["sha256"]
    said = f"{run}/.lock: another build is running here (process {process.pid} of "
    one_line(lambda: _build(few, run), said, "; if it and its workers are gone, remove this object")
    before = store.content("killed/documents")
    stage.remove(".lock")
    written = store.gate.times("PUT", ".parquet")
    _build(few, run)
    assert before.items() <= store.content("killed/documents").items()
    if store.kind == "s3":
        again = [path for (method, path), _ in store.gate.asked.items() if method == "PUT" and "/killed/documents/" in path]
        assert len(again) == len(before)  # each once, by the build that was killed
        assert store.gate.times("PUT", ".parquet") > written
    _same(store, "killed", near)


@pytest.mark.parametrize("folder", ["mine/", ""], ids=["folder", "bucket"])
def test_a_folder_with_other_objects_is_refused_before_anything_is_written(store, few, folder):
    store.put("mine/data/x.jsonl", b"{}")
    url = store.url(folder)
    before = store.filesystem().find(BUCKET)
    way = "; give --run a new folder, or an empty one"
    one_line(lambda: _build(few, url), f"{url}: holds files and is no run directory (", way)
    assert store.filesystem().find(BUCKET) == before
    below = store.url("mine/data")
    one_line(lambda: _build(few, below), f"{below}: holds files and is no run directory (x.jsonl){way}")
    run_directory.check(Store(store.url("mine/none")))


# -- one file -----------------------------------------------------------------------------------------------------------------


def test_what_another_process_wrote_is_seen_after_a_listing(store):
    """fsspec would answer from the listing that it kept."""
    run = Store(store.url("seen"))
    run.publish("a.bin", b"1")
    assert run.files("") == ["a.bin"]
    store.filesystem()
    store.put("seen/a.bin", b"longer")
    store.put("seen/b.bin", b"new")
    assert (run.read("a.bin"), run.size("a.bin"), run.exists("b.bin"), run.read("b.bin")) == (b"longer", 6, True, b"new")
    with run.open("a.bin") as stream:
        assert stream.read() == b"longer"


def _upload(store, path):
    """(method, end of path) of the request that writes an object."""
    return ("PUT", path) if store.kind == "s3" else ("POST", "/o")


@pytest.mark.parametrize("fault", [503, "lost"])
def test_an_upload_that_fails_is_made_again(store, fault):
    store.gate.faults[_upload(store, "a.bin")] = [fault]
    run = Store(store.url("again"))
    published = run.publish("a.bin", b"words" * 9)
    assert (run.read("a.bin"), published.size) == (b"words" * 9, 45)


def test_an_upload_carries_a_checksum(store):
    """S3 holds the bytes against it, which moto does not; of Google's store gcsfs does."""
    run, data = Store(store.url("sum")), b"words" * 900
    if store.kind == "s3":
        run.publish("a.bin", data)
        headers = store.gate.headers["PUT", "/corpus/sum/a.bin"]
        assert base64.b64decode(headers["x-amz-checksum-crc32"]) == zlib.crc32(data).to_bytes(4, "big")
    else:
        store.gate.faults[_upload(store, "a.bin")] = ["flip"] * 9
        one_line(lambda: run.publish("a.bin", data), f"{run.url('a.bin')}: cannot be written (MD5 checksum failed); build again")


def test_a_refusal_names_the_object(store):
    run = Store(store.url("refused"))
    store.gate.faults[_upload(store, "a.bin")] = [403] * 9
    one_line(lambda: run.publish("a.bin", b"1"), f"{run.url('a.bin')}: cannot be written (", "credentials that may do this")
    store.gate.faults.clear()
    run.publish("b.bin", b"1")
    store.gate.faults = {("GET", "b.bin"): [403] * 9, ("HEAD", "b.bin"): [403] * 9, ("GET", "/o"): [403] * 9}
    for call in (run.read, run.exists, run.open):  # a refusal is never taken for a file that is not there
        one_line(lambda call=call: call("b.bin"), f"{run.url('b.bin')}: cannot be read (", "credentials that may do this")


def test_a_missing_bucket_is_told_before_anything_is_read(store, few):
    url = f"{store.kind}://no-bucket/run"
    one_line(lambda: _build(few, url), f"{url}/.lock: cannot be written (", "make the bucket, or mend --run")


# -- the lock -----------------------------------------------------------------------------------------------------------------


def test_of_builds_that_start_at_once_one_goes_on(store):
    run, held, refused, free = Store(store.url("race")), [], [], threading.Event()

    def start():
        try:
            with run.lock():
                held.append(1)
                free.wait(60)
        except UserError as error:
            refused.append(str(error))
            if len(refused) == 5:
                free.set()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    assert all(f"another build is running here (process {os.getpid()} of " in said for said in refused)
    assert not run.exists(".lock")


def test_a_lock_whose_answer_was_lost_is_held_all_the_same(store):
    run = Store(store.url("lost"))
    store.gate.faults[_upload(store, ".lock")] = ["lost"]
    with run.lock():
        one_line(lambda: run.lock().__enter__(), "another build is running here")
    assert run.files("") == []


def test_a_lock_that_was_taken_over_is_left_to_its_new_holder(store):
    run = Store(store.url("taken"))
    with run.lock():
        store.put("taken/.lock", b"process 1 of elsewhere\n")
    assert run.read(".lock") == b"process 1 of elsewhere\n"
