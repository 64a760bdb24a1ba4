"""pipelines.store: a file appears whole or not at all, a sidecar tells the truth, one flipped byte of a table is an error."""

import contextlib
import errno
import os
import subprocess
import sys
import threading

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import CheckError, UserError
from pipelines.store import SIDECAR, Store, TableWriter, canonical_json, reading_table, stage_key

SCHEMA = pa.schema([("text", pa.large_string()), ("number", pa.int64())])


def _write(store, path, rows):
    with store.publishing(path) as sink:
        writer = TableWriter(sink, SCHEMA)
        writer.write(pa.RecordBatch.from_pylist(rows, SCHEMA))
        writer.close()
    return sink.result


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path / "run"))
    return Store(f"memory://{tmp_path.name}/{request.node.name}")


def test_published_bytes_are_hashed_and_read_back(store):
    published = store.publish("a/b.bin", b"hello")
    assert (published.size, published.sha256[:8]) == (5, "2cf24dba")  # sha256sum of "hello"
    assert store.read("a/b.bin") == b"hello"
    assert store.digest("a/b.bin") == {"bytes": 5, "sha256": published.sha256}
    assert store.files("") == ["a/b.bin"]


def _write_half_and_fail(sink):
    sink.write(b"half")
    raise ValueError("stop")


def test_an_exception_leaves_neither_file_nor_temporary(store):
    with pytest.raises(ValueError, match="stop"), store.publishing("a.bin") as sink:
        _write_half_and_fail(sink)
    assert store.files("") == []


def test_a_part_counts_as_finished_only_under_its_key(store):
    published = store.publish("part.parquet", b"x")
    assert not store.is_finished("part.parquet", "k1")
    store.finish(published, "k1", rows=1)
    assert store.is_finished("part.parquet", "k1")
    assert not store.is_finished("part.parquet", "k2")
    store.begin("part.parquet")
    assert not store.is_finished("part.parquet", "k1")
    assert not store.exists("part.parquet" + SIDECAR)


def test_many_are_asked_at_once_of_an_object_store_and_answers_keep_their_order(store):
    """Eight askers wait for each other, or the barrier breaks; of a local store one asks, without a thread."""
    meeting = threading.Barrier(1 if store.is_local() else 8, timeout=120)

    def ask(number):
        meeting.wait()
        return number

    assert list(store.each(range(400), ask)) == list(range(400))
    asked = []
    answers = store.each(range(5000), asked.append)
    next(answers)
    assert len(asked) < 1000  # what is not looked at yet is not held
    answers.close()


def test_every_flipped_byte_of_a_page_is_an_error(tmp_path):
    store = Store(str(tmp_path))
    rows = [{"text": f"a line of text number {i}", "number": i} for i in range(200)]
    _write(store, "t.parquet", rows)
    content = bytearray(store.read("t.parquet"))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # the footer has no checksum: `verify` hashes files
    undetected = 0
    for at in range(4, footer, 3):
        damaged = bytearray(content)
        damaged[at] ^= 1
        store.publish("d.parquet", bytes(damaged))
        with contextlib.suppress(CheckError), reading_table(store, "d.parquet") as file:
            undetected += file.read(use_threads=False).to_pylist() != rows
    assert undetected == 0


def test_a_second_build_is_refused_while_the_first_holds_the_lock(store):
    with store.lock(), pytest.raises(UserError, match="another build is running"), store.lock():
        pass
    with store.lock():
        pass  # released


def test_the_local_lock_dies_with_its_process(tmp_path):
    code = f"import os; from pipelines.store import Store\nwith Store({str(tmp_path)!r}).lock(): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with Store(str(tmp_path)).lock():
        pass


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    """The operating system's own limit on file size stands in for a full disk."""
    code = (
        "import resource, signal; from pipelines.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"Store({str(tmp_path)!r}).publish('big.bin', bytes(5000000))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "big.bin" in done.stderr.splitlines()[-1]
    assert os.strerror(errno.EFBIG) in done.stderr.splitlines()[-1]
    assert Store(str(tmp_path)).files("") == []


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)))
def test_keys_do_not_depend_on_the_order_of_a_mapping(mapping):
    turned = dict(reversed(mapping.items()))
    assert canonical_json(mapping) == canonical_json(turned)
    assert stage_key("s", 1, mapping, []) == stage_key("s", 1, turned, [])
    assert stage_key("s", 1, mapping, []) != stage_key("s", 2, mapping, [])
