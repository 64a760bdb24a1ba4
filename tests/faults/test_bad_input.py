"""docs/bad-input.md is the expectation: every row of its table is a case here, and the reverse; by the real extract task."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipelines import blocklist
from pipelines.extract import Settings, extract_task
from pipelines.parts import task_record
from pipelines.plan import make_plan
from pipelines.recipe_file import parse
from pipelines.store import Store, read_columns
from tests.runs import REPOSITORY
from tests.sources.test_arxiv import bundle, paper, tar
from tests.sources.test_code import GPL_HEADER, MIT
from tests.sources.test_epub import book, epub
from tests.sources.test_stackexchange import answer, dump, question

_ROW = re.compile(r"^\| (.+?) \| (\w+) \| (\d+) \| (.+?) \| (.*)\|$", re.MULTILINE)
_REJECT = re.compile(r"(\w+) (\d+)( \(unknown rest\))?")
TABLE = {row[0]: row[1:4] for row in _ROW.findall((REPOSITORY / "docs" / "bad-input.md").read_text())}


def _lines(*texts):
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def _noise(name, size):
    """Text that no compressor shrinks much, so that cuts and flips fall where they are meant to."""
    return "".join(hashlib.sha256(f"{name} {n}".encode()).hexdigest() for n in range(size // 64))


THREE = _lines(*(_noise(n, 200_000) for n in range(3)))
_ZSTD = zstandard.ZstdCompressor(write_checksum=True)


def _member():
    return gzip.compress(THREE, mtime=0)


def _cut(data, share=0.9):
    return data[: int(len(data) * share)]


def _flipped(data, at=0.5):
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def _bomb():
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", mtime=0) as stream:
        for _ in range(200):
            stream.write(b"a" * 1_000_000)
    assert len(sink.getvalue()) < 250_000
    return sink.getvalue()


def _long_line():
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", mtime=0) as stream:
        stream.write(b'{"text": "')
        for _ in range(200):
            stream.write(b"word " * 200_000)
        stream.write(b'"}\n' + _lines("after it"))
    return sink.getvalue()


def _parquet(column="text"):
    sink = io.BytesIO()
    table = pa.table({column: [_noise(n, 20_000) for n in range(3)]})
    pq.write_table(table, sink, write_page_checksum=True, use_dictionary=False)
    return sink.getvalue()


def _warc(block, length=None, media="application/http; msgtype=response"):
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Type: {media}\r\n"
    return f"{head}Content-Length: {len(block) if length is None else length}\r\n\r\n".encode() + block + b"\r\n\r\n"


def _http(body, status="200 OK", media="text/html"):
    return f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n\r\n".encode() + body


PAGE = _http(b"<html><body><p>A page with a sentence of some length, so that it counts as content.</p></body></html>")


def _encoded(body):
    return _http(body).replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type", 1)


def _wiki(*pages, head=""):
    site = "<siteinfo><base>http://w/wiki/Main</base></siteinfo>"
    return f'<?xml version="1.0"?>{head}\n<mediawiki>{site}{"".join(pages)}</mediawiki>'.encode()


def _page(title, ns=0, text="An article about a river."):
    return f"<page><title>{title}</title><ns>{ns}</ns><id>1</id><revision><id>2</id><text>{text}</text></revision></page>\n"


def _submissions(*contents):
    """arXiv's tar of submissions."""
    return tar({f"2301/2301.{number:05d}.gz": content for number, content in enumerate(contents, 1)})


def _book_without_a_chapter():
    return {name: content for name, content in book({"a.xhtml": "<p>a</p>"}).items() if not name.endswith("a.xhtml")}


def _entity_book():
    files = book({"a.xhtml": "<p>a</p>"})
    (name,) = (name for name in files if name.endswith(".opf"))
    return files | {name: _ENTITIES + files[name].partition("?>")[2]}


def _looping():
    main = paper("\\def\\a{\\b}\\def\\b{\\a}\\a \\input{one}")
    return _submissions(bundle({"main.tex": main, "one.tex": "1\\input{two}", "two.tex": "\\input{one}\\input{main}"}))


def _sevenzip():
    py7zr = pytest.importorskip("py7zr", reason="the extra winnow[sevenzip] is not installed")
    sink = io.BytesIO()
    with py7zr.SevenZipFile(sink, "w") as target:
        target.writestr(dump(question(1)), "Posts.xml")
    return sink.getvalue()


def _repository(code, links=()):
    return tar({name: content.encode() for name, content in {**code, "r/LICENSE": MIT}.items()}, links)


_ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY b{n} "{"&a;" * 10}">' for n in range(9)) + "]>"
CASES = {
    "gzip cut off": lambda: _cut(gzip.compress(THREE, mtime=0)),
    "gzip with a flipped byte": lambda: _flipped(gzip.compress(THREE, mtime=0)),
    "gzip with a flipped byte in the second member": lambda: _member() + _flipped(_member()),
    "zstd cut off": lambda: _cut(_ZSTD.compress(THREE)),
    "zstd with a flipped byte": lambda: _flipped(_ZSTD.compress(THREE)),
    "bz2 cut off": lambda: _cut(bz2.compress(THREE)),
    "bz2 with a flipped byte": lambda: _flipped(bz2.compress(THREE)),
    "lz4 cut off": lambda: _cut(lz4.frame.compress(THREE), 0.05),
    "gzip bomb": _bomb,
    "200 MB line": _long_line,
    "invalid UTF-8": lambda: b'{"text": "\xff\xfe"}\n' + _lines("good"),
    "300,000 combining marks": lambda: _lines("a" + "\u0300\u0327" * 150_000),
    "a title of 100,000 letters": lambda: json.dumps({"text": "a", "title": "t" * 100_000}).encode() + b"\n" + _lines("good"),
    "NUL in a text": lambda: _lines("a\0b"),
    "lone surrogate": lambda: b'{"text": "\\ud800"}\n',
    "byte order mark": lambda: b"\xef\xbb\xbf" + _lines("good"),
    "malformed JSON": lambda: b'{"text": \n' + _lines("good"),
    "JSON that is no object": lambda: b'["text"]\n',
    "JSON nested 2,000 deep": lambda: b'{"text": "a", "b": ' + b"[" * 2000 + b"]" * 2000 + b"}\n",
    "NaN": lambda: b'{"text": "a", "b": NaN}\n',
    "no text": lambda: b'{"body": "a"}\n',
    "text that is null": lambda: b'{"text": null}\n',
    "text that is a number": lambda: b'{"text": 7}\n',
    "a million equal words": lambda: _lines("word " * 1_000_000),
    "empty text": lambda: _lines(""),
    "an id that stands twice": lambda: b'{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n',
    "empty file": lambda: b"",
    "empty text file": lambda: b"",
    "text file that is no UTF-8": lambda: b"caf\xe9",
    "Parquet cut off": lambda: _cut(_parquet()),
    "Parquet with a flipped byte": lambda: _flipped(_parquet(), 0.4),
    "Parquet without the column": lambda: _parquet("body"),
    "WARC cut off in a record": lambda: _warc(PAGE) + _warc(PAGE)[:-40],
    "Content-Length too large": lambda: _warc(PAGE, len(PAGE) + 50) + _warc(PAGE),
    "Content-Length too small": lambda: _warc(PAGE, len(PAGE) - 20) + _warc(PAGE),
    "Content-Length that is no number": lambda: _warc(PAGE, "many") + _warc(PAGE),
    "a response with status 404": lambda: _warc(_http(b"<p>gone</p>", "404 Not Found")),
    "a picture": lambda: _warc(_http(b"\x89PNG", media="image/png")),
    "HTML nested 5,000 deep": lambda: _warc(_http(b"<div>" * 5000 + b"text" + b"</div>" * 5000)),
    "ends that close nothing": lambda: _warc(_http(b"<div></b>" * 5000 + b"text")),
    "a gzip body cut off": lambda: _warc(_encoded(gzip.compress(PAGE)[:60])) + _warc(PAGE),
    "a number of 5,000 digits": lambda: _wiki(_page("One", text=f"A river &amp;#{'9' * 5000}; here.")),
    "a tag without an end": lambda: _wiki(_page("One"), f'<page x="{"a" * 2_000_000}'),
    "dump cut off": lambda: _cut(_wiki(_page("One"), _page("Two", text="River " * 60)), 0.8),
    "XML entity bomb": lambda: _wiki(_page("One", text="&b8;"), head=_ENTITIES),
    "a dump of export version 0.3": lambda: _wiki(_page("One"), _page("Talk:One")).replace(b"<ns>0</ns>", b""),
    "XML that is no dump": lambda: b"<feed><doc><title>One</title><abstract>A river.</abstract></doc></feed>",
    "a page on the block list": lambda: _warc(PAGE) + _warc(PAGE).replace(b"a.example/", b"www.blocked.example/page/"),
    "a redirect and a talk page": lambda: _wiki(_page("One"), _page("Two", 1), _page("Three", text="#REDIRECT [[One]]")),
    "gzip bomb in an arXiv bundle": lambda: _submissions(gzip.compress(bytes(100_000_000), mtime=0), bundle(paper())),
    "LaTeX that loops on itself": _looping,
    "a submission that is a PDF": lambda: tar({"2301/2301.00001.pdf": b"%PDF-1.4"}),
    "a submission cut off": lambda: _submissions(bundle(paper())[:-12], bundle(paper())),
    "an arXiv bundle cut off": lambda: _submissions(bundle(paper()), bundle(paper()))[: 3 * 512],
    "a link and a path that leads out": lambda: tar({"../../etc/1.gz": bundle(paper())}, [("2.gz", "/etc/passwd")]),
    "EPUB that is no archive": lambda: b"no archive",
    "EPUB with an entity bomb": lambda: epub(_entity_book()),
    "EPUB without one of its chapters": lambda: epub(_book_without_a_chapter()),
    "an answer without its question": lambda: dump(question(1), answer(2, 1), answer(3, 7)),
    "posts with an entity bomb": lambda: dump(question(1)).replace(b"<posts>", _ENTITIES.encode() + b"<posts>"),
    "7z that is no archive": lambda: b"no archive",
    "7z cut off": lambda: _cut(_sevenzip()),
    "code without a licence": lambda: tar({"r/a.py": b"a = 1\n"}),
    "code under terms that cannot be told": lambda: tar({"r/a.py": b"a = 1\n", "r/LICENSE": b"Be kind to each other."}),
    "code under another licence": lambda: _repository({"r/a.py": GPL_HEADER + "a = 1\n", "r/b.py": "b = 1\n"}),
    "a link in a repository": lambda: _repository({"r/b.py": "b = 1\n"}, [("r/c.py", "/etc/passwd")]),
    "zip that is no zip": lambda: b"no archive",
}


# What an input is called where its name decides, and what its source says besides.
NAMES = {"EPUB that is no archive": "input.epub", "zip that is no zip": "input.zip", "7z that is no archive": "input.7z"}
OPTIONS = {"a page on the block list": ", blocklist: blocked"}


def _extracted(folder, content, kind, name="input", more=""):
    """(documents, {reason: (count, unknown rest)}) of one input, by the tables that the real task writes."""
    (folder / name).write_bytes(content)
    (folder / "blocked").write_text("blocked.example/page\n")
    recipe = parse(f"name: bad\nsources: {{s: {{format: {kind}, paths: [{name}]{more}}}}}\nvariants: {{v: {{}}}}", "bad")
    plan, store = make_plan(recipe, str(folder)), Store(str(folder / "run"))
    (task,) = plan.tasks
    blocklist.publish(store, blocklist.load(recipe, str(folder)), recipe.sources)
    extract_task(store, task, Settings.of(recipe, "s", blocklist.digest(store, "s")))
    record = store.read_json(task_record(task))
    rejects: dict[str, tuple[int, bool]] = {}
    table = read_columns(store, f"rejects/s/{task.name}.parquet", ["reason", "count", "unknown_rest", "locator"])
    for row in table.to_pylist():
        assert row["locator"].startswith((f"{name}#", f"{name}!"))
        count, unknown = rejects.get(row["reason"], (0, False))
        rejects[row["reason"]] = (count + row["count"], unknown or row["unknown_rest"])
    documents = sum(store.sidecar(f"documents/s/{name}.parquet")["rows"] for name in record["parts"])
    assert record["records"] == documents + record["merged"] + sum(count for count, _ in rejects.values())
    return documents, rejects


def test_the_table_and_the_cases_are_the_same():
    assert set(TABLE) == set(CASES)


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_case_ends_as_the_table_says(case, tmp_path):
    kind, documents, rejects = TABLE[case]
    expected = {reason: (int(count), bool(unknown)) for reason, count, unknown in _REJECT.findall(rejects)}
    found = _extracted(tmp_path, CASES[case](), kind, NAMES.get(case, "input"), OPTIONS.get(case, ""))
    assert found == (int(documents), expected)


@pytest.mark.parametrize("case", ["gzip bomb", "200 MB line"])
def test_memory_stays_bounded(case, tmp_path):
    """The growth of the peak over a run of a harmless input, in a process of its own: far below the 200 MB that stream by."""
    program = (
        "import resource, sys; from pathlib import Path; from tests.faults.test_bad_input import _extracted, _lines;"
        "harmless, folder = Path(sys.argv[1]) / 'harmless', Path(sys.argv[1]); harmless.mkdir();"
        "_extracted(harmless, _lines('harmless'), 'jsonl'); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "_extracted(folder, (folder / 'input').read_bytes(), 'jsonl');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    (tmp_path / "input").write_bytes(CASES[case]())
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The line is held up to the limit of 64 MiB before it is passed over.
    assert int(done.stdout.split()[-1]) < 160 * 1024


def _winnow(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
        cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )


def _recipe(paths, name="name"):
    return f"sources: {{{{s: {{{{format: jsonl, paths: [{paths}]}}}}}}}}\nvariants: {{{{v: {{{{}}}}}}}}\n{name}: x\n"


SOURCE = _recipe("{0}/*.jsonl")


@pytest.mark.parametrize(
    ("recipe", "environment", "message"),
    [
        (_recipe("{0}/*.jsonl", "nmae"), {}, "unknown key nmae; did you mean 'name'?"),
        (_recipe("{0}/none.jsonl"), {}, "no input at"),
        (_recipe("{0}/a.jsonl, {0}/sub/a.jsonl"), {}, "have the same relative path"),
        (SOURCE, {"WINNOW_CACHE": "/nonexistent"}, "the language identification model is missing; run winnow models fetch"),
        (SOURCE + "fit: {{tokenizer: {{file: none.json}}}}", {}, "none.json: cannot be read (No such file"),
        (
            SOURCE.replace("v: {{}}", "v: {{default: {{languages: {{keep: [english]}}}}}}"),
            {},
            "variants.v.default.languages.keep names the language 'english', which does not exist; they are codes such as 'en'",
        ),
    ],
    ids=["unknown key", "missing input", "two inputs with one path", "missing model", "missing tokenizer", "unknown language"],
)
def test_faults_of_the_recipe_are_one_line_before_anything_runs(recipe, environment, message, tmp_path):
    (tmp_path / "sub").mkdir()
    for path in ("a.jsonl", "sub/a.jsonl"):
        (tmp_path / path).write_bytes(_lines(path))
    (tmp_path / "recipe.yaml").write_text(recipe.format(tmp_path))
    done = _winnow("build", tmp_path / "recipe.yaml", "--run", tmp_path / "run", **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("winnow: ")
    assert message in line
    assert not Path(tmp_path / "run" / "documents").exists()
