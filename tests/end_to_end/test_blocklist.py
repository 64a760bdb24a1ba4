"""A block list through whole builds: blocked records are counted, explained, recounted; only its content decides what is redone."""

from __future__ import annotations

import html
import json

import pyarrow.parquet as pq
import pytest

from pipelines.build import build
from pipelines.errors import UserError
from pipelines.explain import Rejected, trace
from pipelines.recipe_file import parse
from pipelines.verify import verify
from tests import corpus
from tests.runs import ONE_WORKER, command, differing, hashes
from tests.sources.test_warc import PAGE, http, record

RECIPE = """
name: blocked
sources:
  crawl: {format: warc, paths: [crawl.warc], blocklist: lists}
  posts: {format: jsonl, paths: [posts.jsonl], blocklist: [lists/domains, more.txt]}
  open: {format: jsonl, paths: [posts.jsonl]}
fit: {tokenizer: {vocab_size: 300, sample_mb: 1}}
variants: {all: {}}
tokens: {validation: 0}
"""
BROKEN = b"no HTTP response at all"  # nothing of a blocked record is looked at
URLS = ["https://good.example/", "https://www.bad.example/x", "https://bad.example/y", "https://good.example/me/1", "no url"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "domains").write_text("bad.example\n")
    (tmp_path / "lists" / "urls").write_text("good.example/me\n")
    (tmp_path / "more.txt").write_text("# mine\nother.example\n")
    page = http(PAGE.format(corpus.prose("a page", False, 3)).encode())
    blocks = [page, BROKEN, page, page, page]
    pages = [record("response", block, **{"WARC-Target-URI": url}) for block, url in zip(blocks, URLS, strict=True)]
    asked = record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request", **{"WARC-Target-URI": URLS[1]})
    (tmp_path / "crawl.warc").write_bytes(b"".join([pages[0], asked, *pages[1:]]))
    rows = [{"text": corpus.prose(f"post {n}", False, 3), "url": url} for n, url in enumerate([*URLS, None])]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def _build(folder, run, *changes):
    return build(parse(RECIPE, "blocked", changes), str(folder), str(run), ONE_WORKER, lambda line: None)


def test_blocked_records_are_counted_explained_and_recounted(folder, tmp_path):
    run = tmp_path / "run"
    accounts = _build(folder, run).sources
    assert accounts["crawl"].to_json() | {"merged": 0} == {
        "records": 6, "documents": 2, "merged": 0, "rejects": {"blocked_url": 3, "not_a_response": 1}, "unknown_rests": 0,
    }
    assert (accounts["posts"].documents, dict(accounts["posts"].rejects)) == (4, {"blocked_url": 2})
    assert (accounts["open"].documents, dict(accounts["open"].rejects)) == (6, {})
    (path,) = (run / "rejects" / "crawl").rglob("*.parquet")
    rows = pq.read_table(path, columns=["locator", "reason", "detail", "count"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("crawl.warc#1", "not_a_response", "request", 1),
        ("crawl.warc#2", "blocked_url", "bad.example", 2),  # one row for one entry, another for another
        ("crawl.warc#4", "blocked_url", "good.example/me", 1),
    ]
    (found,) = [one for one in trace(str(run), "posts.jsonl#2") if isinstance(one, Rejected)]
    assert (found.source, found.reason, found.detail) == ("posts", "blocked_url", "bad.example")
    assert "its URL stands on the source's block list" in html.unescape((run / "report.html").read_text())
    result = verify(str(run), deep=True)
    assert (result.faults, result.decoded) == ([], {"all": 12})


def test_the_content_of_a_list_decides_what_is_redone_and_its_place_does_not(folder, tmp_path):
    run = tmp_path / "run"
    _build(folder, run)
    before = hashes(run)
    (folder / "lists" / "domains").write_text("# a comment\nBAD.example.\n\nbad.example\n")
    (folder / "more.txt").rename(folder / "moved.txt")
    moved = ('sources.posts.blocklist=["lists/domains", "moved.txt"]',)
    _build(folder, run, *moved)
    # What stands of the recipe's own words, and nothing else.
    told = {"recipe.yaml", "manifest.json", "report.html", "stats.json", "card.md", "croissant.json"}
    assert differing(before, hashes(run)) <= told
    last = json.loads((run / "runs.jsonl").read_text().splitlines()[-1])
    assert next(stage["redone"] for stage in last["stages"] if stage["stage"] == "extract") == 0
    (folder / "moved.txt").write_text("good.example")
    accounts = _build(folder, run, *moved).sources
    assert (accounts["posts"].documents, accounts["crawl"].documents) == (2, 2)
    last = json.loads((run / "runs.jsonl").read_text().splitlines()[-1])
    assert next(stage["redone"] for stage in last["stages"] if stage["stage"] == "extract") == 1
    accounts = _build(folder, run, "sources.crawl.blocklist=[]", "sources.posts.blocklist=[]").sources
    assert not any(account.rejects["blocked_url"] for account in accounts.values())
    assert not list((run / "blocklists").rglob("*.safetensors*"))
    fresh = tmp_path / "fresh"
    _build(folder, fresh, "sources.crawl.blocklist=[]", "sources.posts.blocklist=[]")
    assert differing(hashes(run), hashes(fresh)) == set()


def test_a_missing_list_ends_the_command_before_anything_runs(folder, tmp_path):
    (folder / "more.txt").unlink()
    with pytest.raises(UserError, match=r"^sources.posts.blocklist: .*/more.txt: no such list; mend the path$"):
        _build(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_shows_the_entries(folder):
    (folder / "recipe.yaml").write_text(RECIPE)
    done = command(["plan", str(folder / "recipe.yaml")])
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["block", "lists"] in lines
    assert ["crawl", "1", "1"] in lines
    assert ["posts", "2", "0"] in lines
    told = json.loads(command(["plan", str(folder / "recipe.yaml"), "--json"]).stdout)
    assert told["blocklists"] == {"crawl": {"hosts": 1, "paths": 1}, "posts": {"hosts": 2, "paths": 0}}
