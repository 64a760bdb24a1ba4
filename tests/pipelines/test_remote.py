"""Remote inputs against a real web server on this machine: the bytes that lie there, or an error, and never another text."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import sys
import tomllib

import pytest
from fsspec.registry import _registry

from pipelines import remote
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.plan import make_plan
from pipelines.reading import decompressed, open_input
from pipelines.recipe_file import parse
from pipelines.sources import check_unchanged, scan
from tests import corpus
from tests.pipelines.web import serving
from tests.runs import ONE_WORKER, REPOSITORY, differing, hashes
from tests.sources.test_warc import PAGE, http, record

BYTES = random.Random(1).randbytes(12_000_000)  # more than two of fsspec's blocks


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))


@pytest.fixture(params=["ranges", "no ranges"])
def web(request):
    with serving(ranges=request.param == "ranges", etags=request.param == "ranges") as found:
        found.files["/x.bin"] = BYTES
        yield found


def test_the_bytes_are_those_of_the_server_forwards_and_backwards(web):
    with open_input(f"{web.base}/x.bin") as raw:
        assert hashlib.sha256(b"".join(iter(lambda: raw.read(1 << 20), b""))).digest() == hashlib.sha256(BYTES).digest()
        assert raw.read(5) == b""
        for at in (7_000_000, 3, len(BYTES) - 2, 0):
            assert raw.seek(at) == at
            assert raw.read(4) == BYTES[at : at + 4]
            assert raw.tell() == min(at + 4, len(BYTES))
        assert raw.seek(-3, 2) == len(BYTES) - 3
        assert raw.read() == BYTES[-3:]


def test_a_range_is_all_that_is_asked_for_where_the_server_knows_them():
    with serving() as web:
        web.files["/x.bin"] = BYTES * 3
        with open_input(f"{web.base}/x.bin") as raw:
            raw.seek(30_000_000)
            assert raw.read(10) == (BYTES * 3)[30_000_000:30_000_010]
        assert web.sent < 7_000_000


def test_an_empty_file_is_empty(web):
    web.files["/none"] = b""
    with open_input(f"{web.base}/none") as raw:
        assert raw.read(10) == b""


def test_nothing_is_decompressed_on_the_way(web):
    """Servers that call a .gz file's content encoded are many; the container's own check counts."""
    web.headers["Content-Encoding"] = "gzip"
    web.files["/x.gz"] = gzip.compress(b"words " * 1000, mtime=0)
    with open_input(f"{web.base}/x.gz") as raw:
        assert decompressed(raw).read() == b"words " * 1000


@pytest.mark.parametrize("faults", [[500], ["cut"], [503, "cut"]])
def test_a_fault_that_passes_is_not_seen(web, faults):
    web.faults["/x.bin", "GET"] = [*faults]
    with open_input(f"{web.base}/x.bin") as raw:
        web.faults["/x.bin", "GET"] += faults
        assert b"".join(iter(lambda: raw.read(1 << 20), b"")) == BYTES


def _whole(url):
    with open_input(url) as raw:
        return b"".join(iter(lambda: raw.read(1 << 20), b""))


@pytest.mark.parametrize(("fault", "said"), [(500, "HTTP 500"), ("cut", r"\S")])
def test_a_fault_that_stays_is_an_error_and_not_the_end(web, fault, said):
    url = f"{web.base}/x.bin"
    web.faults["/x.bin", "GET"] = [fault] * 50
    with pytest.raises(UserError, match=rf"^{url}: cannot be read \({said}.*\); build again, which goes on from what stands$"):
        _whole(url)


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_not_asked_again(web, status):
    web.faults = {("/gone", "HEAD"): [status] * 9, ("/gone", "GET"): [status] * 9}
    with pytest.raises(UserError, match=rf"^{web.base}/gone: cannot be read \(HTTP {status} .*\); mend the recipe's paths$"):
        open_input(f"{web.base}/gone")
    assert web.asked["/gone", "HEAD"] == web.asked["/gone", "GET"] == 1


def test_nobody_listens():
    with serving() as web:
        url = f"{web.base}/x"
    with pytest.raises(UserError, match=rf"^{url}: cannot be read \(.*\); build again"):
        open_input(url)


@pytest.mark.parametrize(
    ("url", "library", "extra"), [("http://h/x", "aiohttp", "http"), ("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "dataflow")]
)
def test_a_kind_without_its_library_names_the_extra_that_brings_it(url, library, extra, monkeypatch):
    """Reference: the extras of pyproject.toml."""
    brought = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    assert any(re.match(rf"{library}\b", one) for one in brought)
    for name in [name for name in sys.modules if name.startswith(("fsspec.implementations.http", f"{library}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(_registry, url.partition(":")[0], raising=False)
    with pytest.raises(UserError, match=rf"^{url}: cannot be opened \(.*{library}.*\); pip install 'winnow\[{extra}\]'$"):
        open_input(url)


def test_a_kind_that_nobody_knows():
    with pytest.raises(UserError, match=r"^nothing://x: cannot be opened \(.*nothing.*\); give a path, or a URL of another kind$"):
        open_input("nothing://x")


# -- identity -----------------------------------------------------------------------------------------------------------------


def test_another_content_is_another_identity(web):
    url = f"{web.base}/x.bin"
    first, sent = scan(url, "jsonl", 1 << 30), web.sent
    assert scan(url, "jsonl", 1 << 30) == first
    assert first[0] == len(BYTES)
    assert (sent == 0) == web.etags  # what the server reports is taken; else the content is read
    if not web.etags:
        assert first[1] == hashlib.sha256(BYTES).hexdigest()
    web.files["/x.bin"] = BYTES[:-1] + bytes([BYTES[-1] ^ 1])
    assert scan(url, "jsonl", 1 << 30)[1] != first[1]


def test_a_weak_etag_says_nothing_of_bytes():
    with serving(etags=False) as web:
        web.files["/x"] = b"words"
        web.headers["ETag"] = 'W/"1"'
        assert scan(f"{web.base}/x", "text", 10)[:2] == (5, hashlib.sha256(b"words").hexdigest())


def test_only_an_input_whose_identity_is_reported_is_cut_into_spans(web):
    web.files["/x.jsonl"] = b'{"text": "words"}\n' * 100
    spans = scan(f"{web.base}/x.jsonl", "jsonl", 500)[2]
    assert (len(spans) > 2) == web.etags


# -- plans and builds ---------------------------------------------------------------------------------------------------------

RECIPE = """
name: far
sources:
  crawl: {format: warc, paths: ["BASE/crawl/a.warc", "BASE/crawl/b.warc.gz"]}
  posts: {format: jsonl, paths: [BASE/posts.jsonl]}
fit: {tokenizer: {vocab_size: 300, sample_mb: 1}}
limits: {part_bytes: 20000}
variants: {all: {}}
tokens: {validation: 0}
"""


def content():
    """name -> bytes of two archives and a file of lines."""
    pages = [
        record("response", http(PAGE.format(corpus.prose(f"far {n}", False, 3)).encode()), **{"WARC-Target-URI": f"https://a.org/{n}"})
        for n in range(40)
    ]
    rows = b"".join(json.dumps({"text": corpus.prose(f"row {n}", True, 4)}).encode() + b"\n" for n in range(80))
    return {
        "/crawl/a.warc": b"".join(pages[:20]),
        "/crawl/b.warc.gz": b"".join(gzip.compress(page, mtime=0) for page in pages[20:]),
        "/posts.jsonl": rows,
    }


def _build(base, run, recipe=RECIPE):
    return build(parse(recipe.replace("BASE", str(base)), "far"), ".", str(run), ONE_WORKER, lambda line: None)


def test_a_build_from_the_web_is_that_from_the_disk(tmp_path):
    """Models and shards; what a server reports as identity differs, and so do keys."""
    for name, data in content().items():
        path = tmp_path / "disk" / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    far, near = tmp_path / "far", tmp_path / "near"
    with serving() as web:
        web.files = content()
        accounts = _build(web.base, far).sources
    assert {name: (one.records, one.documents) for name, one in accounts.items()} == {"crawl": (40, 40), "posts": (80, 80)}
    _build(tmp_path / "disk", near)
    data = [path for path in hashes(near) if path.startswith(("tokens/", "models/")) and not path.endswith(".stats.json")]
    assert len(data) > 4
    assert not differing(hashes(near), hashes(far)) & set(data)


def test_a_build_whose_connection_breaks_fails_and_then_goes_on(web, tmp_path):
    """No document is lost to it, and none is rejected."""
    web.files = content()
    # Where there is an ETag the plan asks by HEAD, and the readers run into this; else the plan itself does.
    web.faults["/crawl/a.warc", "GET"] = ["cut"] * 60
    with pytest.raises(UserError, match=rf"{web.base}/crawl/a\.warc: cannot be read \(.*\); build again"):
        _build(web.base, tmp_path / "run")
    web.faults.clear()
    accounts = _build(web.base, tmp_path / "run").sources
    assert {name: (one.documents, dict(one.rejects)) for name, one in accounts.items()} == {"crawl": (40, {}), "posts": (80, {})}


def test_an_input_that_changes_after_the_plan_is_told(web):
    web.files = content()
    plan = make_plan(parse(RECIPE.replace("BASE", web.base), "far"), ".")
    (found,) = {one for task in plan.tasks for one in task.inputs if one.path == "a.warc"}
    check_unchanged(found, "warc")
    web.files["/crawl/a.warc"] = web.files["/crawl/a.warc"].replace(b"https://a.org", b"https://b.org")  # as many bytes
    with pytest.raises(UserError, match=rf"^{web.base}/crawl/a\.warc: changed while the run was built; build it again$"):
        check_unchanged(found, "warc")


def test_wildcards_are_those_of_the_page_that_lists_and_files_are_not_read_for_it():
    with serving() as web:
        web.files = content()
        links = "".join(f'<a href="{name}">{name}</a>' for name in ("a.warc", "b.warc.gz", "readme.txt", "deeper/"))
        web.files["/crawl/"] = f"<html>{links}</html>".encode()
        web.headers["Content-Type"] = "text/html"
        recipe = RECIPE.replace('"BASE/crawl/a.warc", "BASE/crawl/b.warc.gz"', '"BASE/crawl/*.warc*"').replace("BASE", web.base)
        plan = make_plan(parse(recipe, "far"), ".")
        assert {one.path for task in plan.of_source("crawl") for one in task.inputs} == {"a.warc", "b.warc.gz"}


def test_a_question_mark_in_a_web_address_is_no_wildcard():
    with serving() as web:
        web.files = {"/get?file=1": b'{"text": "words"}\n'}
        recipe = parse(
            json.dumps({
                "name": "q", "variants": {"all": {}},
                "sources": {"s": {"format": "jsonl", "paths": [f"{web.base}/get?file=1"]}},
            }), "q",
        )  # fmt: skip
        (task,) = make_plan(recipe, ".").tasks
        assert [one.path for one in task.inputs] == ["get?file=1"]
