"""StackExchange dumps: five real ones against ElementTree's count, and every row of the reader's table by hand."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import subprocess
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections import Counter
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.plan import make_plan
from pipelines.recipe_file import load, parse
from pipelines.records import Input, Limits, Record, Reject
from pipelines.sources import SourceOptions, count_records, reader, stackexchange
from tests.runs import REPOSITORY

REAL = {  # questions, answers, other posts, as grep counts them; all answers have their question
    "AaronNie": (454, 1074, 48),
    "Jean-Low": (612, 1060, 314),
    "arianeborges": (158, 261, 4),
    "stevenrskelton": (254, 392, 26),
    "yu51a5": (181, 243, 50),
}


def run(path, limit=64 << 20):
    """(documents, rejects) of a file; conservation and the independent count are checked for every one."""
    one = Input(path.name, str(path), 0, "")
    found = list(reader("stackexchange")(one, SourceOptions(), Limits(limit), None))
    records = [item for item in found if isinstance(item, Record)]
    rejects = [item for item in found if isinstance(item, Reject)]
    total = sum(1 + record.merged for record in records) + sum(reject.count for reject in rejects)
    assert count_records("stackexchange", one, SourceOptions()) == total
    return records, rejects


def row(**values):
    return "<row " + " ".join(f"{name}={quoteattr(str(value))}" for name, value in values.items()) + " />"


def question(number, body="<p>why?</p>", **more):
    return row(Id=number, PostTypeId=1, Body=body, **{"Title": f"Title {number}", **more})


def answer(number, of, score=0, body=None, **more):
    body = f"<p>answer {number}</p>" if body is None else body
    return row(Id=number, PostTypeId=2, ParentId=of, Score=score, Body=body, **more)


def dump(*rows):
    return ('\ufeff<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n  ' + "\r\n  ".join(rows) + "\r\n</posts>").encode()


def read_dump(folder, *rows, **options):
    (folder / "Posts.xml").write_bytes(dump(*rows))
    return run(folder / "Posts.xml", **options)


# -- real dumps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", REAL)
def test_real_dumps_have_exact_counts(site, real_data):
    """Questions, answers and others as the standard library's ElementTree finds them, thread by thread."""
    path = real_data / "stackexchange" / f"{site}-Posts.xml.gz"
    kinds, answers, titles = Counter(), Counter(), {}
    with gzip.open(path) as stream:
        for _, element in ElementTree.iterparse(stream):
            if element.tag == "row":
                kinds[element.get("PostTypeId")] += 1
                if element.get("PostTypeId") == "1":
                    titles[element.get("Id")] = element.get("Title")
                elif element.get("PostTypeId") == "2":
                    answers[element.get("ParentId")] += 1
    records, rejects = run(path)
    questions, merged, others = REAL[site]
    assert (len(records), sum(record.merged for record in records), len(rejects)) == (questions, merged, others)
    assert (kinds["1"], kinds["2"], kinds.total()) == (questions, merged, questions + merged + others)
    assert {record.source_id: record.title for record in records} == titles
    assert {record.source_id: record.merged for record in records} == {own: answers[own] for own in titles}
    assert {reject.reason.value for reject in rejects} == {"not_a_post"}
    for record in records:
        assert record.text.startswith(record.title.strip() + "\n\n")


def test_a_real_thread_to_the_letter(real_data):
    """The first question about beer with its answer, and the dump's licence where it names one."""
    records, _ = run(real_data / "stackexchange" / "AaronNie-Posts.xml.gz")
    first = records[0]
    assert first.locator == "AaronNie-Posts.xml.gz#0"
    assert first.merged == 1
    assert first.date == "2014-01-21T20:26:05.383"
    assert first.license is None
    assert first.text == (
        "What is a citra hop, and how does it differ from other hops?\n\n"
        "I was offered a beer the other day that was reportedly made with citra hops. What are citra hops? Why should I care"
        " that my beer is made with them?\n\n"
        "Citra is a registered trademark since 2007. Citra Brand hops have fairly high alpha acids and total oil contents with"
        " a low percentage of cohumulone content and imparts interesting citrus and tropical fruit characters to beer.\n\n"
        "For more information, you can read the Wikipedia article on the Citra brand."
    )
    (licence,) = {record.license for record in run(real_data / "stackexchange" / "yu51a5-Posts.xml.gz")[0]}
    assert licence == "CC BY-SA 4.0"


def test_the_answers_of_a_real_site_are_sorted_by_score(real_data):
    """Each answer's own text, as html_fragment gives it, stands in its document behind those of higher score."""
    from pipelines.sources.html_fragment import fragment_text

    path = real_data / "stackexchange" / "arianeborges-Posts.xml.gz"
    threads: dict[str, list[tuple[int, int, str]]] = {}
    with gzip.open(path) as stream:
        for _, element in ElementTree.iterparse(stream):
            if element.get("PostTypeId") == "2":
                entry = (-int(element.get("Score")), int(element.get("Id")), fragment_text(element.get("Body")))
                threads.setdefault(element.get("ParentId"), []).append(entry)
    several = 0  # as the dump's own AnswerCount says
    for record in run(path)[0]:
        expected = "\n\n".join(text for *_, text in sorted(threads.get(record.source_id, [])))
        assert record.text.endswith(expected)
        several += record.merged > 1
    assert several == 68


def test_the_same_documents_from_a_7z_archive(real_data, tmp_path):
    """Made here by py7zr, among the other files of a site; the locator names the member."""
    py7zr = pytest.importorskip("py7zr", reason="the extra winnow[sevenzip] is not installed")
    path = real_data / "stackexchange" / "yu51a5-Posts.xml.gz"
    with py7zr.SevenZipFile(tmp_path / "site.7z", "w") as archive:
        archive.writestr(b"<badges></badges>", "Badges.xml")
        archive.writestr(gzip.decompress(path.read_bytes()), "Posts.xml")
        archive.writestr(b"<users></users>", "Users.xml")
    plain, _ = run(path)
    packed, rejects = run(tmp_path / "site.7z")
    assert [record.text for record in packed] == [record.text for record in plain]
    assert packed[0].locator == "site.7z!Posts.xml#0"
    assert len(rejects) == 50


def test_an_archive_that_is_none_is_one_reject(tmp_path):
    pytest.importorskip("py7zr", reason="the extra winnow[sevenzip] is not installed")
    (tmp_path / "site.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + b"no archive" * 20)
    records, (reject,) = run(tmp_path / "site.7z")
    assert (records, reject.locator, reject.reason, reject.unknown_rest) == ([], "site.7z#0", "corrupt_container", True)


# -- the table --------------------------------------------------------------------------------------------------------------


def test_answers_are_sorted_by_score_then_id_wherever_they_stand(tmp_path):
    records, rejects = read_dump(
        tmp_path,
        answer(7, 1, 2),
        answer(5, 1, -3),
        question(1),
        question(2, "", Title=""),
        answer(4, 1, 2),
        answer(3, 1, 10, "<pre><code>  if x:\n      y\n</code></pre>"),
        answer(8, 1, "many"),
    )
    assert rejects == []
    assert [record.text for record in records] == [
        "Title 1\n\nwhy?\n\n  if x:\n      y\n\nanswer 4\n\nanswer 7\n\nanswer 8\n\nanswer 5",
        "",
    ]
    assert [(record.locator, record.source_id, record.merged) for record in records] == [
        ("Posts.xml#2", "1", 5),
        ("Posts.xml#3", "2", 0),
    ]


@pytest.mark.parametrize(
    ("rows", "reason", "detail"),
    [
        ([answer(2, 99)], "orphan_answer", "question 99 is not in the file"),
        ([row(Id=2, PostTypeId=4, Body="wiki")], "not_a_post", "PostTypeId '4'"),
        ([row(Id=2, Body="what?")], "not_a_post", "PostTypeId ''"),
        ([question("x")], "malformed_record", "Id is 'x'"),
        ([row(PostTypeId=1)], "malformed_record", "Id is 'None'"),
        ([answer(2, "")], "malformed_record", "ParentId is ''"),
        ([answer(2, "٣")], "malformed_record", "ParentId is '٣'"),
        ([answer("9" * 19, 1)], "malformed_record", f"Id is '{'9' * 19}'"),
        ([question(1, "again")], "malformed_record", "a second question with the id 1"),
        (['<row Id="2" Id="2" />'], "malformed_record", "XML: duplicate attribute"),
        ([answer(2, 1, body="")], "missing_text", "an answer without text"),
        ([answer(2, 1, body="<p><img src='a.png'></p>")], "missing_text", "an answer without text"),
        ([answer(2, 1, body="<div>" * 3001 + "x")], "too_deep", "nested over 3000 levels"),
        ([answer(2, 1, body="<ul>" * 1500 + "<li>x" * 5000)], "too_deep", "lists indent it to over 8 times its length"),
    ],
)
def test_rows_that_become_no_text(rows, reason, detail, tmp_path):
    (record,), (reject,) = read_dump(tmp_path, question(1), *rows)
    assert record.text == "Title 1\n\nwhy?"
    assert (reject.locator, reject.reason, reject.detail, reject.unknown_rest) == ("Posts.xml#1", reason, detail, False)


def test_a_question_that_is_too_deep_leaves_its_answers_without_one(tmp_path):
    records, rejects = read_dump(tmp_path, question(1, "<div>" * 3001 + "x"), answer(2, 1), answer(3, 1), question(4))
    assert [record.source_id for record in records] == ["4"]
    assert [(reject.locator, reject.reason.value) for reject in rejects] == [
        ("Posts.xml#0", "too_deep"),
        ("Posts.xml#1", "orphan_answer"),
        ("Posts.xml#2", "orphan_answer"),
    ]


def test_a_document_has_the_limit_of_a_record(tmp_path):
    """A long answer is refused, and shorter ones behind it still find room; a row over the limit is never held."""
    long, short = "<p>" + "a" * 700 + "</p>", "<p>short</p>"
    (record,), rejects = read_dump(
        tmp_path, question(1), answer(2, 1, 9, long), answer(3, 1, 8, long), answer(4, 1, 7, short), question(5, "b" * 1000),
        limit=1000,
    )
    assert record.text == "Title 1\n\nwhy?\n\n" + "a" * 700 + "\n\nshort"
    assert record.merged == 2
    assert [(reject.locator, reject.reason.value, reject.detail) for reject in rejects] == [
        ("Posts.xml#4", "too_large", "a row of over 1000 bytes"),
        ("Posts.xml#2", "too_large", "brings its document over 1000 bytes"),
    ]


SMALL = dump(question(1), answer(2, 1), question(3), row(Id=4, PostTypeId=5), answer(5, 3))


@given(st.integers(0, len(SMALL)))
def test_a_cut_dump_keeps_its_whole_rows(at):
    """Wherever it is cut: what stood there before is read, one reject says that the rest is unknown."""
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "Posts.xml"
        path.write_bytes(SMALL[:at])
        records, rejects = run(path)
    whole = SMALL[:at].count(b"/>")
    broken = [reject for reject in rejects if reject.reason == "corrupt_container"]
    assert len(broken) == (at < len(SMALL))
    assert all(reject.unknown_rest and reject.locator == f"Posts.xml#{whole}" for reject in broken)
    assert sum(1 + record.merged for record in records) + len(rejects) - len(broken) == whole


_PIECES = [b"<row ", b"<row", b"<rows>", b'Id="1" PostTypeId="1"', b"/>", b">", b"<posts>", b"</posts>", b"<!--", b"-->", b"&a;"]
_PIECES += [b"<!DOCTYPE x [", b'"', b"<?xml version='1.0'?>", b"\xef\xbb\xbf", b"\r\n", b"<", b"text", b"\xff", b"\0", SMALL]
_PIECES += [b"<posts>" + b"<row/>" * 3]


@given(st.lists(st.sampled_from(_PIECES), max_size=12))
def test_any_bytes_are_counted_alike_by_two_means(pieces):
    """`run` compares the reader's records with `count`, which parses nothing."""
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "Posts.xml"
        path.write_bytes(b"".join(pieces))
        run(path)


def test_a_cut_container_keeps_its_whole_rows(tmp_path):
    rows = [question(n, "<p>" + str(n) * 50 + "</p>") for n in range(200)]
    data = gzip.compress(dump(*rows), mtime=0)
    (tmp_path / "Posts.xml.gz").write_bytes(data[: len(data) // 2])
    records, (reject,) = run(tmp_path / "Posts.xml.gz")
    assert 20 < len(records) < 200
    assert (reject.reason, reject.locator) == ("corrupt_container", f"Posts.xml.gz#{len(records)}")
    assert reject.detail.startswith("gzip: cut off after ")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<users><row Id='1' /></users>",
        b'<!DOCTYPE posts [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><posts><row Id="1" Title="&b;"/></posts>',
    ],
    ids=["empty", "no XML", "another dump", "entities"],
)
def test_what_is_no_dump_is_one_reject(data, tmp_path):
    (tmp_path / "Posts.xml").write_bytes(data)
    records, (reject,) = run(tmp_path / "Posts.xml")
    assert (records, reject.reason, reject.unknown_rest) == ([], "corrupt_container", True)


# -- bounds -----------------------------------------------------------------------------------------------------------------


def _peak(path):
    tracemalloc.start()
    seen = 0
    for item in reader("stackexchange")(Input("p", str(path), 0, ""), SourceOptions(), Limits(), None):
        seen += 1 + item.merged if isinstance(item, Record) else item.count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seen, peak


def test_memory_does_not_grow_with_the_dump(tmp_path):
    """8 and 48 MB, answers far behind their questions, have the same peak. SQLite's own cache is bounded by itself."""
    body = "<p>" + "word " * 4000 + "</p>"
    peaks = []
    for threads in (200, 1200):
        path = tmp_path / f"{threads}.xml"
        with path.open("wb") as sink:
            sink.write(b"<posts>")
            for number in range(threads):
                sink.write(question(number, body).encode())
            for number in range(threads):
                sink.write(answer(threads + number, threads - 1 - number, body=body).encode())
            sink.write(b"</posts>")
        seen, peak = _peak(path)
        assert seen == 2 * threads == count_records("stackexchange", Input("p", str(path), 0, ""), SourceOptions())
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 500_000
    assert peaks[1] < 8_000_000  # a few blocks of 1 MB


def test_threads_are_never_sorted():
    """SQLite reads tables and index in their order: a sort would write the dump a second time."""
    with sqlite3.connect(":memory:") as spool:
        spool.executescript(stackexchange._SCHEMA)
        spool.execute(stackexchange._BY_QUESTION)
        for query in (stackexchange._THREADS, stackexchange._ORPHANS):
            plan = " ".join(step[3] for step in spool.execute("EXPLAIN QUERY PLAN " + query))
            assert "TEMP B-TREE" not in plan
            assert "AUTOMATIC" not in plan
    spool.close()


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    """No reject: the next attempt may find room, and both must write the same bytes."""
    (tmp_path / "Posts.xml").write_bytes(dump(*(question(n, "x" * 2000) for n in range(200))))
    monkeypatch.setattr(stackexchange, "_SCHEMA", "PRAGMA max_page_count = 20;" + stackexchange._SCHEMA)
    with pytest.raises(UserError, match="disk is full; posts are gathered there: free some room or set TMPDIR"):
        run(tmp_path / "Posts.xml")


# -- which sites ------------------------------------------------------------------------------------------------------------


def test_the_docs_command_chooses_the_largest_sites_for_the_shipped_recipe(tmp_path):
    """Over made archives: Stack Overflow's posts and the 27 largest others of 40 are the inputs of llama.yaml's source."""
    page = (REPOSITORY / "docs" / "sources" / "stackexchange.md").read_text()
    (command,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "stackexchange"
    folder.mkdir()
    sizes = {f"site{number:02d}.stackexchange.com.7z": 100 + number * 17 % 40 for number in range(39)}
    sizes["ru.stackoverflow.com.7z"] = 900
    tables = {f"stackoverflow.com-{table}.7z": 1000 for table in ("Badges", "Comments", "PostHistory", "Tags", "Users", "Votes")}
    for name, size in {**sizes, **tables, "stackoverflow.com-Posts.7z": 1, "Sites.xml": 2000}.items():
        (folder / name).write_bytes(bytes(size))
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    largest = sorted(sizes, key=lambda name: sizes[name])[-27:]
    source = load("llama")[0].sources["stackexchange"].model_dump(mode="json")
    plan = make_plan(parse(json.dumps({"name": "p", "sources": {"s": source}, "variants": {"all": {}}}), "p"), str(tmp_path))
    assert sorted(one.path for task in plan.tasks for one in task.inputs) == sorted([*largest, "stackoverflow.com-Posts.7z"])
