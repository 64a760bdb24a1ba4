"""explain against the tables themselves: rejects with their runs, keepers, and every document that goes by a name."""

from __future__ import annotations

import gzip
import json

import pytest

from pipelines.build import build
from pipelines.errors import UserError
from pipelines.explain import Explanation, Rejected, explain, to_text, trace
from pipelines.recipe_file import parse
from tests import corpus
from tests.runs import ONE_WORKER


def _warc_record(kind, uri=None, text=None):
    body = b""
    if text is not None:
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{kind}>\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
    head += f"WARC-Target-URI: {uri}\r\n" if uri else ""
    head += "Content-Type: application/http; msgtype=response\r\n" if text is not None else ""
    return gzip.compress(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"\r\n\r\n", mtime=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two JSON sources with the same locators and URLs, one with bad lines; an archive with runs of rejects and a torn end."""
    folder = tmp_path_factory.mktemp("explain")
    twice = corpus.prose("twice", True)
    lines = [json.dumps({"text": corpus.prose(f"one {n}", True), "url": "http://a.example/same"}) for n in range(3)]
    (folder / "one").mkdir()
    (folder / "one" / "x.jsonl").write_text("\n".join([lines[0], "not json", lines[1], '{"text": 7}', "", lines[2]]) + "\n")
    (folder / "two").mkdir()
    rows = [{"text": twice, "url": "http://a.example/same"}, {"text": twice, "title": "A copy"}]
    (folder / "two" / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "crawl").mkdir()
    records = [_warc_record("warcinfo"), _warc_record("request", "http://b.example/")]
    records += [_warc_record("response", "http://b.example/", corpus.prose("page", False))]
    records += [_warc_record(kind, "http://b.example/") for kind in ("metadata", "request", "metadata", "revisit")]
    torn = _warc_record("response", "http://c.example/", corpus.prose("lost", False))[:200]
    (folder / "crawl" / "a.warc.gz").write_bytes(b"".join(records) + torn)
    text = f"""
name: odd
sources:
  one: {{format: jsonl, paths: [{folder}/one/*.jsonl]}}
  two: {{format: jsonl, paths: [{folder}/two/*.jsonl]}}
  crawl: {{format: warc, paths: [{folder}/crawl/*.warc.gz]}}
fit: {{tokenizer: {{vocab_size: 300, sample_mb: 1}}}}
variants:
  everything: {{}}
  single: {{dedup: [exact]}}
"""
    build(parse(text, "odd"), ".", str(folder / "run"), ONE_WORKER, lambda line: None)
    return str(folder / "run")


@pytest.mark.parametrize(
    ("locator", "first", "count", "reason", "detail"),
    [
        ("a.warc.gz#0", "a.warc.gz#0", 2, "not_a_response", "warcinfo"),
        ("a.warc.gz#1", "a.warc.gz#0", 2, "not_a_response", "warcinfo"),
        ("a.warc.gz#3", "a.warc.gz#3", 4, "not_a_response", "metadata"),
        ("a.warc.gz#5", "a.warc.gz#3", 4, "not_a_response", "metadata"),
        ("a.warc.gz#6", "a.warc.gz#3", 4, "not_a_response", "metadata"),
        ("x.jsonl#3", "x.jsonl#3", 1, "text_not_string", "'text' is a int"),
    ],
)
def test_a_rejected_record_is_found_by_its_own_number_within_a_run(run, locator, first, count, reason, detail):
    (found,) = trace(run, locator)
    assert isinstance(found, Rejected)
    assert (found.locator, found.count, found.reason, found.detail) == (first, count, reason, detail)
    assert not found.unknown_rest


@pytest.mark.parametrize("number", [7, 8, 4711])
def test_records_in_an_unreadable_rest_lead_to_the_damage(run, number):
    (found,) = trace(run, f"a.warc.gz#{number}")
    assert (found.locator, found.reason, found.unknown_rest) == ("a.warc.gz#7", "corrupt_container", True)
    assert "unreadable from here on" in to_text(found)


def test_the_record_between_two_runs_is_the_document(run):
    (found,) = trace(run, "a.warc.gz#2")
    assert isinstance(found, Explanation)
    assert found.document["url"] == "http://b.example/"


def test_a_locator_of_two_sources_gives_a_document_and_a_reject(run):
    document, rejected = trace(run, "x.jsonl#1")
    assert (document.document["source"], document.document["title"]) == ("two", "A copy")
    assert (rejected.source, rejected.reason) == ("one", "malformed_json")


def test_every_document_with_a_url_is_listed(run):
    found = trace(run, "http://a.example/same")
    assert sorted((one.document["source"], one.document["locator"]) for one in found) == [
        ("one", "x.jsonl#0"),
        ("one", "x.jsonl#2"),
        ("one", "x.jsonl#4"),
        ("two", "x.jsonl#0"),
    ]


def test_a_duplicate_names_its_keeper_by_source_and_locator(run):
    copies = [one for n in (0, 1) for one in explain(run, f"x.jsonl#{n}") if one.document["source"] == "two"]
    verdicts = {one.document["locator"]: one.verdicts for one in copies}
    (dropped, kept) = sorted(verdicts, key=lambda locator: verdicts[locator][1].verdict == "keep")
    single = verdicts[dropped][1]
    assert (single.variant, single.verdict, single.stage) == ("single", "duplicate_exact", "exact")
    assert single.keeper == f"two {kept}"
    assert verdicts[dropped][0].verdict == "keep"  # the other variant keeps both
    text = to_text(next(one for one in copies if one.document["locator"] == dropped))
    assert f"in favour of {single.duplicate_of} (two {kept})" in text


@pytest.mark.parametrize("name", ["x.jsonl#5", "x.jsonl#-1", "x.jsonl#٣", "y.jsonl#0", "x.jsonl", "#0", "", "0" * 32])
def test_what_is_nowhere_is_an_error_that_says_how_to_name_a_record(run, name):
    with pytest.raises(UserError, match=r"no document or reject goes by .*give a doc_id, a locator"):
        trace(run, name)


def test_json_has_one_shape_for_documents_and_one_for_rejects(run):
    document, rejected = (one.to_json() for one in trace(run, "x.jsonl#1"))
    assert set(document) == {"document", "signals", "clusters", "verdicts", "removed_by", "purged"}
    assert set(rejected) == {"reject"}
    json.dumps([document, rejected])
    assert "token_ids" not in document["signals"]
    assert {"language", "quality", "n_tokens", "words"} <= set(document["signals"])


def test_text_of_a_run_of_rejects_says_how_far_it_goes(run):
    (found,) = trace(run, "a.warc.gz#4")
    assert to_text(found).splitlines() == [
        "crawl  a.warc.gz#3",
        "  rejected: not_a_response (metadata)",
        "  with all records up to a.warc.gz#6, for the same reason",
    ]


def test_a_folder_without_a_complete_run_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"no complete run \(manifest.json is missing\); run winnow build"):
        trace(str(tmp_path), "x#0")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json: damaged"):
        trace(str(tmp_path), "x#0")
