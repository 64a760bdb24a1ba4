"""Inputs on object stores, against real servers of S3 and Google Cloud Storage on this machine: the bytes there, or an error.

What is read is compared with the same files on the disk.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random

import fsspec
import pytest

from pipelines import blocklist, remote, removal
from pipelines.engine import Engine
from pipelines.plan import make_plan
from pipelines.reading import open_input, read_given
from pipelines.recipe_file import parse
from pipelines.records import Limits
from pipelines.sources import SourceOptions, check_unchanged, count_records, reader
from tests import corpus
from tests.errors import one_line
from tests.pipelines.object_stores import BUCKET, SERVERS, forget_clients
from tests.runs import TWO_PROCESSES_OPTIONS, TWO_THREADS
from tests.sources.test_warc import PAGE, http, record

BYTES = random.Random(1).randbytes(11_000_000)  # more than two of the blocks that are fetched
CREDENTIALS = "give the store's library credentials that may do this"
TWO_PROCESSES = Engine("test", TWO_PROCESSES_OPTIONS)
AGAIN = "build again, which goes on from what stands"

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs to aiohttp


@pytest.fixture(scope="module", params=SERVERS)
def store(request):
    with SERVERS[request.param]() as found:
        found.put("x.bin", BYTES)
        yield found


@pytest.fixture(autouse=True)
def _at_once(store, monkeypatch):
    """Nobody waits before asking again, neither we nor the stores' libraries; no fault outlives its test."""
    sleep = asyncio.sleep
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, result=None: sleep(min(seconds, 0.001), result))
    store.gate.asked.clear()
    yield
    store.gate.faults.clear()


def _whole(url):
    with open_input(url) as raw:
        return b"".join(iter(lambda: raw.read(1 << 20), b""))


def test_the_bytes_are_those_of_the_store_forwards_and_backwards(store):
    assert _whole(store.url("x.bin")) == BYTES
    with open_input(store.url("x.bin")) as raw:
        for at in (7_000_000, 3, len(BYTES) - 2, 0):
            assert raw.seek(at) == at
            assert raw.read(4) == BYTES[at : at + 4]
        assert raw.seek(-3, 2) == len(BYTES) - 3
        assert raw.read() == BYTES[-3:]


def test_a_range_is_all_that_is_fetched_and_once(store):
    before = store.gate.sent
    with open_input(store.url("x.bin")) as raw:
        for at in (10_900_000, 10_600_000, 10_900_010):
            raw.seek(at)
            assert raw.read(10) == BYTES[at : at + 10]
    assert 500_000 < store.gate.sent - before < 600_000  # the third block, which is the rest of the file, and what is said of it


def test_an_empty_object_is_empty(store):
    assert _whole(store.put("none", b"")) == b""


@pytest.mark.parametrize("faults", [[503], ["cut"], ["lost"], [500, "cut"]])
def test_a_fault_that_passes_is_not_seen(store, faults):
    store.gate.faults["GET", "/x.bin"] = [*faults]
    assert _whole(store.url("x.bin")) == BYTES
    assert not store.gate.faults["GET", "/x.bin"]


@pytest.mark.parametrize("fault", [500, "cut"])
def test_a_fault_that_stays_is_an_error_and_not_the_end(store, fault):
    store.gate.faults["GET", "/x.bin"] = [fault] * 200
    one_line(lambda: _whole(store.url("x.bin")), f"{store.url('x.bin')}: cannot be read (", f"); {AGAIN}")
    assert len(store.gate.faults["GET", "/x.bin"]) <= 200 - 3  # asked three times at least


def test_a_missing_object_is_asked_for_once_and_told(store):
    url = store.url("gone.warc")
    for call in (lambda: open_input(url), lambda: remote.identity(url)):
        one_line(call, f"{url}: cannot be read (no such object or bucket); mend the recipe's paths")
    asked = store.gate.times("HEAD", "/gone.warc") + store.gate.times("GET", "/gone.warc")
    assert asked == {"s3": 2, "gs": 4}[store.kind]  # by each of the two; gcsfs asks for an object and then for its versions


def test_a_missing_bucket_is_told(store):
    url = f"{store.kind}://no-bucket/x.warc"
    said = {"s3": "The specified bucket does not exist", "gs": "no such object or bucket"}[store.kind]
    one_line(lambda: open_input(url), f"{url}: cannot be read ({said}); mend the recipe's paths")
    one_line(lambda: _plan(f"{store.kind}://no-bucket/*.warc"), f"{store.kind}://no-bucket/*.warc", "mend")


def test_a_folder_is_no_file(store):
    store.put("folder/x", b"1")
    for call in (open_input, remote.identity):
        one_line(lambda call=call: call(store.url("folder")), store.url("folder") + ": a folder, not a file; name its files")


# -- identity and plans -------------------------------------------------------------------------------------------------------


def _recipe(paths, kind="jsonl", **more):
    source = {"format": kind, "paths": paths if isinstance(paths, list) else [paths], **more}
    tree = {"name": "far", "sources": {"s": source}, "variants": {"all": {}}, "limits": {"part_bytes": 20_000}}
    return parse(json.dumps(tree), "far")


def _plan(paths, kind="jsonl", **more):
    return make_plan(_recipe(paths, kind, **more), ".")


def test_the_same_bytes_written_again_are_the_same_input_and_others_are_not(store):
    lines = b'{"text": "words"}\n' * 10
    (found,) = _plan(store.put("changing.jsonl", lines)).tasks[0].inputs
    store.put("changing.jsonl", lines)
    check_unchanged(found, "jsonl")
    store.put("changing.jsonl", lines.replace(b"words", b"other"))  # as many bytes
    one_line(lambda: check_unchanged(found, "jsonl"), f"{found.url}: changed while the run was built; build it again")


def test_an_etag_of_s3_also_says_in_which_pieces_it_was_sent(store):
    if store.kind != "s3":
        pytest.skip("Google's store reports checksums of the whole")
    store.filesystem().pipe_file(f"{BUCKET}/pieces.bin", BYTES, chunksize=5 << 20)
    assert _whole(store.url("pieces.bin")) == BYTES
    assert remote.identity(store.url("pieces.bin"))[0] == remote.identity(store.url("x.bin"))[0]
    assert remote.identity(store.url("pieces.bin"))[1] != remote.identity(store.url("x.bin"))[1]


def _files():
    """name -> bytes: two archives, compressed and plain lines, a list, a deeper folder, and a folder's own marker."""
    pages = [
        record("response", http(PAGE.format(corpus.prose(f"far {n}", False, 3)).encode()), **{"WARC-Target-URI": f"https://a/{n}"})
        for n in range(8)
    ]
    rows = b"".join(json.dumps({"text": corpus.prose(f"row {n}", True, 4)}).encode() + b"\n" for n in range(80))
    return {
        "crawl/a1.warc": b"".join(pages[:4]),
        "crawl/b1.warc.gz": b"".join(gzip.compress(page, mtime=0) for page in pages[4:]),
        "crawl/readme.txt": b"no input",
        "crawl/deep/": b"",
        "crawl/deep/c1.warc": pages[0],
        "rows/2.jsonl": rows,
        "rows/1.jsonl.gz": gzip.compress(rows, mtime=0),
        "paths.gz": gzip.compress(b"# a list\nrows/2.jsonl\nrows/1.jsonl.gz\n", mtime=0),
    }


PATHS = {  # what a source may be given -> (format, its inputs)
    "crawl/*.warc*": ("warc", {"a1.warc", "b1.warc.gz"}),
    "crawl/?1.warc": ("warc", {"a1.warc"}),
    "crawl/**/*.warc": ("warc", {"a1.warc", "deep/c1.warc"}),
    "crawl/deep/*": ("warc", {"c1.warc"}),
    "rows/[12].jsonl*": ("jsonl", {"1.jsonl.gz", "2.jsonl"}),
    "@paths.gz": ("jsonl", {"rows/1.jsonl.gz", "rows/2.jsonl"}),
}


@pytest.fixture(scope="module")
def files(store, tmp_path_factory):
    """The files on the store, and the folder of the same on the disk."""
    disk = tmp_path_factory.mktemp("disk")
    for name, data in _files().items():
        store.put(f"in/{name}", data)
        path = disk / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(data)
    return disk


def _records(plan, kind):
    """(task, record) in order, of all tasks."""
    read = reader(kind)
    inputs = [(task, one) for task in plan.tasks for one in task.inputs]
    return [(task.name, found) for task, one in inputs for found in read(one, SourceOptions(), Limits(), task.span)]


@pytest.mark.parametrize("given", PATHS)
def test_what_is_read_from_the_store_is_what_is_read_from_the_disk(store, files, given):
    kind, names = PATHS[given]
    mark = "@" * given.startswith("@")
    far, near = (_plan(f"{mark}{base}/{given.removeprefix('@')}", kind) for base in (store.url("in"), files))
    assert {one.path for task in far.tasks for one in task.inputs} == names
    records = _records(far, kind)
    assert records == _records(near, kind)
    assert len(records) == sum(count_records(kind, one, SourceOptions()) for one in {i for task in far.tasks for i in task.inputs})
    if "2.jsonl" in names:
        assert sum(task.span is not None for task in far.tasks) == 2  # a store reports an identity, so lines are cut


def test_the_order_of_a_listing_decides_nothing(store, files, monkeypatch):
    pattern = store.url("in/crawl/**/*.warc*")
    plan, listing = _plan(pattern, "warc"), remote.listing
    monkeypatch.setattr(remote, "listing", lambda url: dict(reversed(listing(url).items())))
    assert _plan(pattern, "warc") == plan
    assert sum(len(task.inputs) for task in plan.tasks) == 3


def test_a_list_that_leads_to_a_missing_object_names_it(store, files):
    store.put("in/bad.paths", b"rows/2.jsonl\nrows/3.jsonl\n")
    one_line(lambda: _plan(f"@{store.url('in/bad.paths')}"), f"{store.url('in/rows/3.jsonl')}: cannot be read (no such object")
    one_line(lambda: _plan(f"@{store.url('in/no.paths')}"), f"sources.s.paths: {store.url('in/no.paths')}: cannot be read")


# -- files that a recipe names ------------------------------------------------------------------------------------------------

GIVEN = {
    "remove": lambda url: removal.load(url, "."),
    "blocklist": lambda url: blocklist._of_source("web", [url], "."),
    "fit.tokenizer.file": lambda url: read_given(url, "mend it"),
}


def test_lists_and_tokenizers_may_lie_in_the_store(store, tmp_path):
    hosts = b"one.example\ntwo.example\n"
    url = store.put("lists/hosts.txt", hosts)
    (tmp_path / "hosts.txt").write_bytes(hosts)
    assert read_given(url, "mend it") == hosts
    near = blocklist._of_source("web", [str(tmp_path / "hosts.txt")], ".")
    assert blocklist.save(blocklist._of_source("web", [url], ".")) == blocklist.save(near)
    assert blocklist.save(blocklist._of_source("web", [store.put("lists/all/domains", hosts).removesuffix("/domains")], ".")) == (
        blocklist.save(near)
    )
    assert removal.load(store.put("lists/remove.txt", b"host: one.example\n"), ".").hosts == {"one.example"}
    missing = store.url("lists/missing")
    for name, read in GIVEN.items():
        one_line(lambda read=read: read(missing), missing, "no such list; mend the path" if name == "blocklist" else "")


# -- credentials --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_told_at_once(store, status):
    url = store.url("x.bin")
    store.gate.faults = {(method, "/x.bin"): [status] * 50 for method in ("HEAD", "GET")} | {("GET", "/o"): [status] * 50}
    one_line(lambda: open_input(url), f"{url}: cannot be read (", f"); {CREDENTIALS}")
    assert store.gate.times("HEAD", "/x.bin") + store.gate.times("GET", "/x.bin") == 1


def test_a_key_that_nobody_has_is_refused_by_the_store(store):
    if store.kind != "s3":
        pytest.skip("the emulator of Google Cloud Storage knows no users")
    with store.only_known_users():
        for call in (open_input, lambda url: _plan(url.replace("x.bin", "*.bin"))):
            one_line(lambda call=call: call(store.url("x.bin")), f"{store.url('')}", CREDENTIALS)
    assert _whole(store.url("x.bin"))[:9] == BYTES[:9]


def test_credentials_that_are_missing_are_told(store, monkeypatch):
    if store.kind != "s3":
        pytest.skip("gcsfs then asks as nobody, and the store refuses it")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_clients()
    try:
        for url in (store.url("x.bin"), store.url("*.bin")):
            one_line(lambda url=url: _plan(url), f"{url}: cannot be read (Unable to locate credentials); {CREDENTIALS}")
        for read in GIVEN.values():
            one_line(lambda read=read: read(store.url("x.bin")), f"{store.url('x.bin')}: cannot be read (Unable", CREDENTIALS)
    finally:
        monkeypatch.undo()
        forget_clients()


def test_a_public_object_is_read_without_credentials_where_that_is_asked_for(store, monkeypatch):
    url = store.put("public.txt", b"words")
    if store.kind == "s3":
        store.filesystem().chmod(f"{BUCKET}/public.txt", "public-read")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        settings: dict = {}
        fsspec.config.set_conf_env(settings, {"FSSPEC_S3_ANON": "true"})  # as fsspec does when it is imported
        monkeypatch.setitem(fsspec.config.conf, "s3", settings["s3"])
        forget_clients()
    try:
        store.gate.headers.clear()
        assert _whole(url) == b"words"
        assert store.gate.headers
        assert not any("Authorization" in headers for headers in store.gate.headers.values())
    finally:
        monkeypatch.undo()
        forget_clients()


@pytest.mark.parametrize("engine", [TWO_THREADS, TWO_PROCESSES], ids=["threads", "processes"])
def test_a_refusal_in_a_worker_is_one_line(store, files, tmp_path, engine):
    """The plan may read, the workers may not: what they say reaches the user as it is."""
    if (engine is TWO_PROCESSES) != (store.kind == "s3"):
        pytest.skip("processes with S3, threads with the other: a start of processes takes long")
    from pipelines.build import build

    url = store.url("in/rows/1.jsonl.gz")
    recipe = _recipe(url)
    make_plan(recipe, ".")
    content = "/corpus/" if store.kind == "s3" else "/download/storage/v1/b/corpus/o/"  # not what is said of it
    store.gate.faults["GET", f"{content}in/rows/1.jsonl.gz"] = [403] * 99
    one_line(lambda: build(recipe, ".", str(tmp_path / "run"), engine, lambda line: None), f"{url}: cannot be read (", CREDENTIALS)
