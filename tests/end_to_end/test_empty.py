"""A corpus without a single document is built like any other: its shards are empty, its report says so, and it can be built again.

Reference: what a corpus of no document holds, by definition.
"""

from __future__ import annotations

import json

import pytest

from pipelines.build import build
from pipelines.recipe_file import parse
from pipelines.verify import verify
from tests.runs import ONE_WORKER, hashes

RECIPE = """
name: nothing
sources: {a: {format: jsonl, paths: [a.jsonl]}, b: {format: jsonl, paths: [b.jsonl]}}
fit: {tokenizer: {vocab_size: 300}}
variants:
  all: {}
  good: {dedup: [exact, near], default: {languages: {keep: [en]}, rules: [gopher]}}
"""
MIXED = RECIPE + "mixture: {tokens: 1000, weights: {a: 1, b: 2}}\n"
NO_TEXT = b'{"content": "A text under another name."}\n' * 3


def _built(folder, recipe=RECIPE):
    return build(parse(recipe, "nothing"), str(folder), str(folder / "run"), ONE_WORKER, lambda line: None)


@pytest.mark.parametrize(("content", "recipe"), [(b"", MIXED), (NO_TEXT, RECIPE)], ids=["empty files", "rejects only"])
def test_a_corpus_without_a_document_is_built_and_holds(content, recipe, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(content)
    accounts = _built(tmp_path, recipe)
    records = content.count(b"\n")
    for one in accounts.sources.values():
        assert (one.records, one.documents, one.rejects.total()) == (records, 0, records)
    for by_source in accounts.variants.values():
        assert all(one.kept == 0 and one.tokens.total() == 0 for one in by_source.values())
    run = tmp_path / "run"
    assert verify(str(run), deep=True).faults == []
    said = f"{2 * records} records read = 0 documents + {2 * records} rejected + 0 merged"
    assert said in (run / "report.html").read_text()
    assert (run / "tokens/good/train/a-00000-of-00001.bin").stat().st_size == 0
    before = hashes(run)
    _built(tmp_path, recipe)
    assert hashes(run) == before


def test_documents_may_come_and_go(tmp_path):
    """What is there after each build is what a new run of the same inputs would be."""
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b"")
    _built(tmp_path)
    empty = hashes(tmp_path / "run")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "One document that says a few words."}) + "\n")
    assert _built(tmp_path).variants["all"]["a"].kept == 1
    (tmp_path / "a.jsonl").write_bytes(b"")
    _built(tmp_path)
    assert hashes(tmp_path / "run") == empty
