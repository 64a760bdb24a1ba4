"""A source with a near-duplicate threshold of its own, through real builds.

The reference is plain Python: word 5-grams as sets and Jaccard's similarity. Every pair of the corpus is either unlike (below 0.1),
alike by the run's threshold only (0.75 to 0.85) or alike by both (above 0.93), it is asserted, so that an estimate over 512
permutations says the same.
"""

from __future__ import annotations

import itertools
import json
import random
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.build import build
from pipelines.dedup.near import EDGE
from pipelines.errors import CheckError, UserError
from pipelines.explain import explain, to_text
from pipelines.recipe_file import parse
from tests import corpus
from tests.runs import ONE_WORKER, TWO_THREADS, differing, hashes

RECIPE = """
name: own
sources:
  books: {format: jsonl, paths: [INPUT/books.jsonl], near: {min_jaccard: 0.9}}
  web: {format: jsonl, paths: [INPUT/web.jsonl]}
near: {min_jaccard: 0.7, permutations: 512}
fit: {tokenizer: {vocab_size: 300, sample_mb: 1}}
variants: {filtered: {dedup: [near]}}
tokens: {validation: 0}
"""


def _changed(text, name, every):
    """The text with one word of `every` replaced."""
    words = text.split(" ")
    return " ".join(f"{name}{place}" if place % every == every // 2 else word for place, word in enumerate(words))


def _somewhat(text, name):
    return _changed(text, name, 48)


def _very(text, name):
    return _changed(text, name, 300)


def _texts():
    base = {f"t{n}": corpus.prose(f"t{n}", False, 70) for n in range(6)}
    books = {"one": base["t0"], "edition": _somewhat(base["t0"], "a"), "reprint": _very(base["t0"], "b"), "other": base["t1"]}
    books |= {"quoted": base["t2"], "copied": base["t3"]}
    web = {"page": base["t4"], "mirror": _somewhat(base["t4"], "c"), "quoting": _somewhat(base["t2"], "d")}
    web |= {"copying": _very(base["t3"], "e"), "alone": base["t5"]}
    return {"books": books, "web": web}


TEXTS = _texts()
ALL = {(source, name): text for source, texts in TEXTS.items() for name, text in texts.items()}


def _grams(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


GRAMS = {key: _grams(text) for key, text in ALL.items()}


def _expected(least):
    """The clusters, as sets of names, where two documents are alike from the stricter threshold of their sources on."""
    clusters = {key: {key} for key in ALL}
    for one, other in itertools.combinations(ALL, 2):
        likeness = len(GRAMS[one] & GRAMS[other]) / len(GRAMS[one] | GRAMS[other])
        assert likeness < 0.1 or 0.75 < likeness < 0.85 or likeness > 0.93, (one, other, likeness)
        if likeness >= max(least[one[0]], least[other[0]]):
            joined = clusters[one] | clusters[other]
            for key in joined:
                clusters[key] = joined
    return {frozenset(found) for found in clusters.values() if len(found) > 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("own")
    for source, texts in TEXTS.items():
        rows = [json.dumps({"text": text, "id": name}) for name, text in texts.items()]
        (found / f"{source}.jsonl").write_text("".join(row + "\n" for row in rows))
    return found


def _build(folder, name, *changes, engine=ONE_WORKER):
    run = folder / name
    build(parse(RECIPE.replace("INPUT", str(folder)), "own", changes), ".", str(run), engine, lambda line: None)
    return run


def _clusters(run):
    found = {}
    for source in TEXTS:
        for path in (run / "documents" / source).rglob("*.parquet"):
            names = pq.read_table(path, columns=["source_id"]).column(0).to_pylist()
            table = pq.read_table(run / "clusters" / source / path.name, columns=["near_cluster"])
            for name, cluster in zip(names, table.column(0).to_pylist(), strict=True):
                found.setdefault(cluster, set()).add((source, name))
    found.pop(None, None)
    return {frozenset(members) for members in found.values()}


def test_books_are_copies_only_from_their_own_threshold_on_and_pages_from_the_runs(folder):
    run = _build(folder, "own", engine=TWO_THREADS)
    assert _clusters(run) == _expected({"books": 0.9, "web": 0.7}) == {
        frozenset([("books", "one"), ("books", "reprint")]),
        frozenset([("web", "page"), ("web", "mirror")]),
        frozenset([("books", "copied"), ("web", "copying")]),
    }
    lost = [one for one in ("books.jsonl#0", "books.jsonl#2") if "dropped at near" in to_text(explain(str(run), one)[0])]
    (line,) = [line for line in to_text(explain(str(run), lost[0])[0]).splitlines() if "dropped at near" in line]
    assert re.search(r"duplicate_near, 0\.9\d+ against 0\.9, in favour of", line)


def test_without_it_the_runs_threshold_holds_for_all(folder):
    run = _build(folder, "without", "sources.books.near=null")
    assert _clusters(run) == _expected({"books": 0.7, "web": 0.7})
    assert frozenset([("books", "one"), ("books", "edition"), ("books", "reprint")]) in _clusters(run)
    _build(folder, "without")  # changed in place: clusters and decisions are redone
    assert differing(hashes(_build(folder, "own")), hashes(run)) == set()


def test_another_run_is_held_against_by_the_stricter_one_too(folder):
    """Against a run with the same pages and one other book: the book that a page there copies goes, the one it quotes does not."""
    _write_one_book(folder)
    first = _build(folder, "first", f"sources.books.paths=[{folder}/first.jsonl]")
    run = _build(folder, "grown", f"against=[{first}]")
    dropped = {
        name: verdict
        for path in (run / "documents" / "books").rglob("*.parquet")
        for name, verdict in zip(
            pq.read_table(path, columns=["source_id"]).column(0).to_pylist(),
            pq.read_table(run / "decisions/filtered/books" / path.name, columns=["duplicate_run"]).column(0).to_pylist(),
            strict=True,
        )
    }
    assert dropped == {"one": "first", "reprint": "first", "edition": None, "other": None, "quoted": None, "copied": "first"}


def _write_one_book(folder):
    """A first corpus: a text that is like `one` and `reprint` by both thresholds, like `edition` by the run's only."""
    text = _very(TEXTS["books"]["one"], "z")
    near = {name: len(_grams(text) & GRAMS["books", name]) / len(_grams(text) | GRAMS["books", name]) for name in TEXTS["books"]}
    assert near["one"] > 0.93
    assert near["reprint"] > 0.93
    assert 0.72 < near["edition"] < 0.86
    (folder / "first.jsonl").write_text(json.dumps({"text": text, "id": "first"}) + "\n")


# -- equal texts under different thresholds ----------------------------------------------------------------------------------

EQUAL = """
name: equal
sources:
  pages: {format: jsonl, paths: [pages.jsonl]}
  books: {format: jsonl, paths: [books.jsonl], near: {min_jaccard: 0.95}}
variants: {exact: {dedup: [exact]}, both: {dedup: [exact, near]}}
fit: {tokenizer: {vocab_size: 300}}
tokens: {validation: 0.5}
"""


def _crowded(number):
    """30 texts that have 296 of 300 words in common with another one, and that one: its buckets have smaller rows than its own."""
    draw = random.Random(number)
    text = ["".join(draw.choices("abcdefghijklmnop", k=7)) for _ in range(300)]
    for copy in range(30):
        words = list(text)
        for place in draw.sample(range(300), 4):
            words[place] = f"changed{copy}x{place}"
        yield " ".join(words)
    yield " ".join(text)


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """A run, built: four pages among 30 much like each, and one without a word, stand in books too, word for word."""
    found = tmp_path_factory.mktemp("equal")
    _write_equal(found)
    build(parse(EQUAL, "equal"), str(found), str(found / "run"), TWO_THREADS, lambda line: None)
    return found / "run"


def _write_equal(folder):
    pages = [list(_crowded(number)) for number in range(4)]
    texts = {"pages": [*itertools.chain(*pages), "--- !"], "books": [*(those[-1] for those in pages), "--- !"]}
    for source, some in texts.items():
        (folder / f"{source}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))


def _by_text(run, table, columns):
    """text -> rows of a table's columns, of the texts that stand more than once."""
    found = {}
    for path in (run / "documents").rglob("*.parquet"):
        texts = pq.read_table(path, columns=["text"]).column(0).to_pylist()
        rows = pq.read_table(run / table / path.relative_to(run / "documents"), columns=columns).to_pylist()
        for text, row in zip(texts, rows, strict=True):
            found.setdefault(text, []).append(row)
    return {text: rows for text, rows in found.items() if len(rows) > 1}


def test_equal_texts_are_kept_once_and_never_in_both_splits(equal):
    """Whatever their sources' thresholds. The reference is the text itself."""
    splits = {}
    for variant in ("exact", "both"):
        rows = _by_text(equal, f"decisions/{variant}", ["verdict", "split"])
        assert len(rows) == 5
        assert [sum(one["verdict"] == "keep" for one in same) <= 1 for same in rows.values()] == [True] * 5
        splits[variant] = {text: {one["split"] for one in same} for text, same in rows.items()}
        assert {len(found) for found in splits[variant].values()} == {1}
    assert splits["exact"] == splits["both"]


def test_equal_texts_meet_in_one_near_cluster_unless_they_have_no_words(equal):
    rows = _by_text(equal, "clusters", ["near_cluster", "near_size", "exact_size"])
    assert [{one["exact_size"] for one in same} for same in rows.values()] == [{2}] * 5
    assert {len({one["near_cluster"] for one in same}) for same in rows.values()} == {1}
    assert [text for text, same in rows.items() if same[0]["near_cluster"] is None] == ["--- !"]
    assert all(one["near_size"] > 25 for text, same in rows.items() if text != "--- !" for one in same)  # with the others


def test_a_build_that_keeps_one_of_them_twice_fails(tmp_path, monkeypatch):
    """With clusters as they come of signatures alone: what the proof at the end is for."""
    monkeypatch.setattr("pipelines.cluster.exact_edges", lambda values, least: np.empty(0, EDGE))
    _write_equal(tmp_path)
    with pytest.raises(CheckError, match=r"variants.exact: \d texts are kept more than once, though exact copies are dropped"):
        build(parse(EQUAL, "equal"), str(tmp_path), str(tmp_path / "run"), ONE_WORKER, lambda line: None)
    assert not (tmp_path / "run/manifest.json").exists()


def test_a_threshold_below_the_runs_is_refused():
    with pytest.raises(UserError, match=r"sources.books.near.min_jaccard is 0.6, below near.min_jaccard \(0.7\), for"):
        parse(RECIPE, "own", ["sources.books.near.min_jaccard=0.6"])
