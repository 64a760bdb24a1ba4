"""Path lists against the lines that they were written from: what an entry is relative to, and faults in one line."""

from __future__ import annotations

import bz2
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.path_lists import entries
from pipelines.plan import make_plan
from pipelines.recipe_file import parse
from tests.pipelines.web import serving


def _plan(paths, base=".", **source):
    tree = {"name": "p", "sources": {"s": {"format": "jsonl", "paths": paths, **source}}, "variants": {"all": {}}}
    return make_plan(parse(json.dumps(tree), "p"), str(base))


def _inputs(plan):
    return {one.path: one.url for task in plan.tasks for one in task.inputs}


@pytest.fixture
def folder(tmp_path):
    for name in ("data/a/x.jsonl", "data/b/x.jsonl", "data/[y]?.jsonl", "lists/here.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    return tmp_path


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bz2"])
def test_entries_are_relative_to_the_root_and_locators_are_entries(folder, pack):
    text = "\ufeff# a crawl\r\na/x.jsonl\r\n\r\n  b/x.jsonl \n[y]?.jsonl\na/x.jsonl"
    (folder / "lists" / "paths.any").write_bytes(pack(text.encode()))
    plan = _plan(["@lists/paths.any"], folder, root="data")
    assert _inputs(plan) == {name: f"file://{folder}/data/{name}" for name in ("a/x.jsonl", "b/x.jsonl", "[y]?.jsonl")}
    assert plan == _plan([f"@{folder}/lists/paths.any"], folder, root=f"{folder}/data")


def test_without_a_root_entries_lie_beside_the_list(folder):
    (folder / "lists" / "paths").write_text("here.jsonl\n")
    assert _inputs(_plan(["@lists/paths"], folder)) == {"here.jsonl": f"file://{folder}/lists/here.jsonl"}


def test_absolute_entries_lie_below_the_root(folder):
    (folder / "paths").write_text(f"{folder}/data/a/x.jsonl\nfile://{folder}/data/b/x.jsonl\n")
    assert set(_inputs(_plan(["@paths"], folder, root="data"))) == {"a/x.jsonl", "b/x.jsonl"}
    with pytest.raises(UserError, match=r"^sources\.s: .*/a/x\.jsonl does not lie below root .*/lists/; mend sources\.s\.root$"):
        _plan(["@paths"], folder, root="lists")


def test_a_list_and_wildcards_name_an_input_once_and_only_what_is_said_counts(folder):
    (folder / "one").write_text("a/x.jsonl\nb/x.jsonl\n")
    (folder / "two").write_text("# moved\n\nb/x.jsonl\na/x.jsonl\n")
    wild = _plan(["data/*/x.jsonl"], folder, root="data")
    assert wild == _plan(["@one"], folder, root="data") == _plan(["@two", "data/a/*"], folder, root="data")
    (folder / "two").write_text("a/x.jsonl\n")
    assert _plan(["@two"], folder, root="data") != wild


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a/x.jsonl\nnone.jsonl\n", r"line 2: no input at .*/data/none\.jsonl; mend the list, or the root that it starts from$"),
        (b"a\n", r"line 1: no input at .*/data/a; mend"),
        (b"../data/a/x.jsonl", r"line 1: '\.\./data/a/x\.jsonl' is no path of a file; leave out \.\. and folders"),
        (b"a/", "line 1: 'a/' is no path of a file"),
        (b"\n# nothing\n", "names no input; a path list has one path a line"),
        (b"a/\xff\n", "line 1: not UTF-8"),
        (b"x" * 70_000, "line 1: over 65536 bytes"),
        (
            gzip.compress(b"a/x.jsonl\n", mtime=0)[:-4],  # the same in every worker, whose names of tests must agree
            r"cannot be read to its end \(gzip: cut off after .*\); fetch the list again",
        ),
    ],
)
def test_faults_are_one_line(folder, content, message):
    (folder / "paths").write_bytes(content)
    with pytest.raises(UserError, match=rf"^sources\.s\.paths: {folder}/paths: {message}"):
        _plan(["@paths"], folder, root="data")


def test_a_list_that_is_missing(folder):
    with pytest.raises(UserError, match=r"^sources\.s\.paths: .*/none: cannot be opened \(.*No such file.*\); mend"):
        _plan(["@none"], folder)


_lines = st.lists(st.sampled_from(["a/x.warc.gz", " b.gz", "", "# c", "\t", "d é.gz", "#"]), max_size=9)


@given(_lines, st.sampled_from(["\n", "\r\n"]))
def test_any_list_is_its_lines(tmp_path_factory, drawn, end):
    path = tmp_path_factory.mktemp("list") / "paths"
    path.write_bytes(end.join(drawn).encode())
    expected = [(n, f"/r/{one.strip()}") for n, one in enumerate(drawn, 1) if one.strip() and not one.strip().startswith("#")]
    if not expected:
        with pytest.raises(UserError, match="names no input"):
            list(entries(str(path), "/r"))
    else:
        assert list(entries(str(path), "/r")) == expected


def test_a_list_of_a_crawl_on_the_web():
    """As Common Crawl publishes it: the list and the files on one server, entries relative to its root."""
    with serving() as web:
        names = [f"crawl-data/CC/segments/{n}/warc/x.jsonl" for n in range(12)]
        web.files = {f"/{name}": b'{"text": "words"}\n' for name in names}
        web.files["/crawl-data/CC/warc.paths.gz"] = gzip.compress("".join(f"{name}\n" for name in names).encode())
        paths = [f"@{web.base}/crawl-data/CC/warc.paths.gz"]
        assert _inputs(_plan(paths, root=web.base)) == {name: f"{web.base}/{name}" for name in names}
        assert not any(web.asked[f"/{name}", "GET"] for name in names)  # asked for their size, and not read
        del web.files[f"/{names[3]}"]
        with pytest.raises(UserError, match=rf"^{web.base}/{names[3]}: cannot be read \(HTTP 404 .*\); mend the recipe's paths$"):
            _plan(paths, root=web.base)
