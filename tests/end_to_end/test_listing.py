"""winnow documents against the tables: the order by its definition, numbers as `explain` has them, and texts that do no harm."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from pipelines.build import build
from pipelines.explain import explain
from pipelines.listing import list_documents
from pipelines.recipe_file import parse
from pipelines.store import Store
from tests import corpus
from tests.errors import one_line
from tests.runs import ONE_WORKER, command
from tests.tables import uniform_of

RECIPE = """
name: listed
seed: 7
sources:
  mail: {format: jsonl, root: INPUT, paths: [INPUT/m*.jsonl], paragraphs: true, mask: true}
  odd: {format: jsonl, paths: [INPUT/odd.jsonl]}
limits: {part_bytes: 4096}
fit: {quality: {curated: [odd], web: [mail], sample_mb: 1}, tokenizer: {vocab_size: 400, sample_mb: 1}}
variants:
  all: {}
  some: {dedup: [exact], default: {rules: {gopher: {words.low: 40}}, quality: {draw: cut, threshold: 0.3}}}
tokens: {validation: 0.2}
remove: INPUT/gone.txt
"""
HARM = "a\x1b[31mred \x07bell\x9b2J \u202egnp.\u2066x\u2069 new\u2028line\ttab"
FOOTER = "One footer that stands in every mail of this source."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two files of mail in several parts, half of them copied or short, and a source of odd texts, one of them taken back."""
    folder = tmp_path_factory.mktemp("listed")
    rows = [{"text": f"{corpus.prose(f'mail {n}', n % 2 == 0, 1 + n % 5)} To a.{n}@mail.example.org\n{FOOTER}"} for n in range(24)]
    (folder / "m1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "m2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::3]))
    odd = [{"text": corpus.prose(f"odd {n}", True, 9), "url": f"https://odd.example/{n}", "title": "T"} for n in range(12)]
    odd[3] |= {"text": f"{HARM} {odd[3]['text']}", "title": HARM}
    odd[5] |= {"url": "https://secret.example/5"}
    (folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    (folder / "gone.txt").write_text("https://secret.example/5\n")
    build(parse(RECIPE.replace("INPUT", str(folder)), "listed"), ".", str(folder / "run"), ONE_WORKER, lambda line: None)
    return folder / "run"


def _table(run, variant):
    """Every document's (order by the definition, doc_id, source, verdict), in that order."""
    found = []
    for path in sorted((run / "documents").glob("*/*.parquet")):
        ids = [row.hex() for row in pq.read_table(path, columns=["doc_id"])["doc_id"].to_pylist()]
        decisions = pq.read_table(run / "decisions" / variant / path.parent.name / path.name)["verdict"].to_pylist()
        of_part = zip(ids, decisions, strict=True)
        found += [(uniform_of(bytes.fromhex(one), 7, "report sample"), one, path.parent.name, verdict) for one, verdict in of_part]
    return sorted(found)


@pytest.mark.parametrize("variant", ["all", "some"])
@pytest.mark.parametrize("sources", [(), ("mail",), ("odd", "mail")])
def test_documents_of_a_verdict_come_in_the_order_of_a_hash_of_their_ids(run, variant, sources):
    there = [row for row in _table(run, variant) if not sources or row[2] in sources]
    for verdict in (None, *sorted({row[3] for row in there})):
        expected = [row[1] for row in there if verdict in (None, row[3])]
        for limit in (1, 2, 7, 1000):
            found = list_documents(str(run), variant, verdict, sources, limit)
            assert [one.document["doc_id"] for one in found.documents] == expected[:limit]
            assert (found.matching, found.verdict) == (len(expected), verdict)


def test_the_corpus_has_many_parts_and_verdicts(run):
    """What is compared above is not empty."""
    assert len(list((run / "documents").glob("*/*.parquet"))) >= 4
    assert {row[3] for row in _table(run, "some")} >= {"keep", "removed", "gopher_words", "quality_cut"}


def test_every_document_is_told_as_explain_tells_it(run):
    found = list_documents(str(run), "some", limit=1000).documents
    assert len(found) == 44
    for one in found:
        (known,) = explain(str(run), one.document["doc_id"])
        verdict = next(other for other in known.verdicts if other.variant == "some")
        for name in ("verdict", "stage", "value", "threshold", "duplicate_of", "duplicate_run", "split"):
            assert getattr(one.verdict, name) == getattr(verdict, name)
        assert one.document["locator"] == known.document["locator"]
        if one.verdict.verdict != "removed":
            assert one.document["url"] == known.document["url"]
            assert one.document["quality"] == round(known.signals["quality"], 4)


def test_texts_are_the_ones_that_were_judged(run):
    """Masked, and without the footer in all mails but one; of a copy paragraph by paragraph nothing is left."""
    texts = [one.text for one in list_documents(str(run), "all", sources=["mail"], limit=1000).documents]
    whole = [text for text in texts if 0 < len(text) < 200]
    assert len(whole) > 3
    assert (max(map(len, texts)), texts.count("")) == (200, 8)
    assert not any("mail.example.org" in text for text in texts)
    assert sum(text.endswith("To email@example.com") for text in whole) >= len(whole) - 1


def test_nothing_of_a_document_that_is_taken_back_is_shown(run):
    found = list_documents(str(run), "all", "removed")
    (one,) = found.documents
    assert one.document["locator"] == "odd.jsonl#5"
    assert {key: value for key, value in one.document.items() if value is not None}.keys() == {"doc_id", "source", "locator"}
    assert one.text == ""
    assert "secret" not in json.dumps(found.to_json()) + found.to_text()


def test_control_characters_are_boxes(run):
    found = list_documents(str(run), "all", "keep", ["odd"], 1000)
    (one,) = (one for one in found.documents if one.document["locator"] == "odd.jsonl#3")
    shown = "a\u25a1[31mred \u25a1bell\u25a12J \u25a1gnp.\u25a1x\u25a1 new line tab"
    assert one.text.startswith("a[31mred bell2J \u25a1gnp.\u25a1x\u25a1 new line tab")  # extract leaves the others out of texts
    assert f"  title: {shown}" in one.to_text().splitlines()
    assert all(line.isprintable() for line in found.to_text().splitlines())
    assert one.document["title"] == HARM  # JSON gives names as they are


def test_no_more_than_the_limit_is_held(run, monkeypatch):
    """Of a part no text is read but of row groups of documents that are shown."""
    from pipelines import listing

    asked = []
    shown = listing._shown
    monkeypatch.setattr(listing, "_shown", lambda found, part, rows: asked.append(len(rows)) or shown(found, part, rows))
    list_documents(str(run), "all", limit=3)
    assert sum(asked) == 3


def test_what_is_not_there_is_named_with_what_is(run, tmp_path):
    said = f"{run}: no document of all has the verdict 'qality'; there are keep (35), too_short (8), removed (1)"
    one_line(lambda: list_documents(str(run), "all", "qality"), said)
    said = "no document of all has the verdict 'removed'; there are keep (24), too_short (8)"
    one_line(lambda: list_documents(str(run), "all", "removed", ["mail"]), said)
    one_line(lambda: list_documents(str(run), "none"), f"{run}: no variant 'none'; it has all, some")
    one_line(lambda: list_documents(str(run), "all", sources=["x"]), f"{run}: no source 'x'; it has mail, odd")
    one_line(lambda: list_documents(str(tmp_path), "all"), f"{tmp_path}: no complete run (manifest.json is missing)")


def test_the_report_shows_the_first_of_them(run):
    sources = Store(str(run)).read_json("stats.json")["sources"]
    for source in ("mail", "odd"):
        for verdict, samples in sources[source]["variants"]["some"]["samples"].items():
            first = list_documents(str(run), "some", verdict, [source], len(samples)).documents
            assert [one["doc_id"] for one in samples] == [one.document["doc_id"] for one in first]


def test_the_command_prints_text_and_json_and_starts_no_beam(run):
    given = ["documents", str(run), "--variant", "some", "--verdict", "keep", "--limit", "2"]
    plain = command(given)
    found = list_documents(str(run), "some", "keep", limit=2)
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, found.to_text() + "\n", "")
    assert plain.stdout.splitlines()[0] == f"some, keep: 2 of {found.matching} documents"
    code = f"import sys; sys.argv = ['winnow', *{[*given, '--json']!r}]\nfrom pipelines.cli import main\nmain()\n"
    code += "assert 'apache_beam' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == found.to_json()
    assert list(found.to_json()) == ["variant", "verdict", "matching", "documents"]
    assert list(found.to_json()["documents"][0]) == [
        "doc_id", "source", "locator", "url", "title", "language", "quality",
        "verdict", "stage", "value", "threshold", "duplicate_of", "duplicate_run", "split", "text",
    ]  # fmt: skip
