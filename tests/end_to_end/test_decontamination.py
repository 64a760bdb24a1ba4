"""Evaluation sets and terms through a whole build: planted texts are found, dropped and counted exactly, and nothing else is.

What is planted is made of words that stand nowhere else in the corpus, so that every count is known by construction.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from pipelines import models
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.explain import explain, to_text
from pipelines.recipe_file import parse
from pipelines.score import TextScorer
from pipelines.store import SIDECAR, Store
from pipelines.verify import verify
from tests import corpus
from tests.runs import ONE_WORKER, TWO_THREADS, differing, hashes

RECIPE = """
name: clean
sources:
  web: {format: jsonl, paths: [web.jsonl]}
  wiki: {format: jsonl, paths: [wiki.jsonl]}
limits: {part_bytes: 5000}
fit: {tokenizer: {vocab_size: 400, sample_mb: 1}}
evaluations: {quiz: [quiz.jsonl.gz, more.jsonl], maths: maths.jsonl}
terms: {whom: whom.txt, rude: rude.txt}
variants:
  unfiltered: {dedup: [exact]}
  clean:
    dedup: [exact]
    default: {decontaminate: true}
    sources: {wiki: {decontaminate: false}}
tokens: {validation: 0.1}
"""
QUESTION = [f"quizword{n}" for n in range(20)]  # 8 n-grams of 13 words
SHARED = [f"sharedword{n}" for n in range(13)]  # in both sets: 1
SHORT = [f"shortword{n}" for n in range(9)]  # a text of 9 words: 1 n-gram of 9
SEVEN = [f"sevenword{n}" for n in range(7)]  # too short to look for
MATHS = [f"mathsword{n}" for n in range(14)]  # 2
# row of web -> what is planted, n-grams, sets
PLANTED = {
    3: (" ".join(QUESTION), 8, "quiz"),
    5: ("Quizword0, " + "; ".join(QUESTION[1:]).upper() + "!", 8, "quiz"),  # case and punctuation decide nothing
    7: (" ".join(QUESTION[4:17]), 1, "quiz"),
    8: (" ".join(QUESTION[4:16]), 0, None),  # 12 words
    11: (" ".join(SHARED), 1, "maths,quiz"),
    12: (" ".join(SHORT) + " and " + " ".join(SHORT), 2, "quiz"),
    13: (" ".join(SHORT[:8]), 0, None),
    14: (" ".join(SEVEN), 0, None),
    20: (" ".join(MATHS) + "\n\n" + " ".join(SHARED), 3, "maths,quiz"),
    21: ("a gruff gruff old fellow, and an old\nfellow", 0, None),
}
WEB, WIKI = 40, 30


def _texts():
    web = [corpus.prose(f"web {n}", False, 6) for n in range(WEB)]
    for row, (planted, _, _) in PLANTED.items():
        web[row] += f"\n{planted} "
    web.append(web[3])  # an exact copy of a contaminated document
    wiki = [corpus.prose(f"wiki {n}", True, 6) for n in range(WIKI)]
    wiki[4] += " " + " ".join(MATHS)
    return web, wiki


def _write(folder):
    for name, texts in zip(("web", "wiki"), _texts(), strict=True):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    quiz = {"question": " ".join(QUESTION), "choices": [" ".join(SHORT), " ".join(SEVEN)], "answer": 0}
    (folder / "quiz.jsonl.gz").write_bytes(gzip.compress(json.dumps(quiz).encode(), mtime=0))
    (folder / "more.jsonl").write_text(json.dumps({"deep": [{"er": " ".join(SHARED)}]}))
    (folder / "maths.jsonl").write_text(json.dumps([" ".join(MATHS), " ".join(SHARED)]) + "\n\n")
    (folder / "whom.txt").write_text("Old fellow\nfellow\n")
    (folder / "rude.txt").write_text("gruff\n...\n")


def _build(folder, run, *changes, engine=ONE_WORKER):
    said = []
    build(parse(RECIPE, "clean", changes), str(folder), str(run), engine, said.append)
    return {line.split()[0]: line.split()[1] for line in said}  # stage -> parts redone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("inputs")
    _write(found)
    return found


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    found = tmp_path_factory.mktemp("decontamination") / "run"
    _build(folder, found)
    return found


def _rows(run, table, source, columns=None):
    """Rows in the order of the input."""
    locators, rows = [], []
    for path in sorted((run / "documents" / source).rglob("*.parquet")):
        locators += pq.read_table(path, columns=["locator"])["locator"].to_pylist()
        rows += pq.read_table(run / table / source / path.name, columns=columns).to_pylist()
    return [row for _, row in sorted(zip(locators, rows, strict=True), key=lambda one: int(one[0].split("#")[1]))]


def test_planted_texts_are_found_where_they_stand_and_nowhere_else(run):
    found = _rows(run, "signals", "web", ["contamination", "contaminated_by"])
    expected = [PLANTED.get(n, ("", 0, None))[1:] for n in range(WEB)] + [PLANTED[3][1:]]
    assert [(row["contamination"], row["contaminated_by"]) for row in found] == expected
    wiki = _rows(run, "signals", "wiki", ["contamination", "contaminated_by"])
    assert [(n, *row.values()) for n, row in enumerate(wiki) if row["contamination"]] == [(4, 2, "maths")]


def test_contaminated_documents_are_dropped_before_duplicates_and_only_where_the_policy_says_so(run):
    clean, unfiltered = _rows(run, "decisions/clean", "web"), _rows(run, "decisions/unfiltered", "web")
    dropped = {n: (row["verdict"], row["stage"], row["value"], row["threshold"]) for n, row in enumerate(clean) if row["stage"]}
    contaminated = {n: ngrams for n, (_, ngrams, _) in PLANTED.items() if ngrams} | {WEB: 8}
    assert dropped == {n: ("contaminated", "decontamination", ngrams, 1) for n, ngrams in contaminated.items()}
    assert Counter(row["verdict"] for row in unfiltered) == {"keep": WEB, "duplicate_exact": 1}
    assert {row["verdict"] for row in _rows(run, "decisions/clean", "wiki")} == {"keep"}


def test_terms_are_counted_by_list_in_the_recipes_order(run):
    found = _rows(run, "signals", "web", ["terms"])
    assert [(n, row["terms"]) for n, row in enumerate(found) if row["terms"] != [0, 0]] == [(21, [4, 2])]


def test_the_report_counts_them_by_set_source_and_variant(run):
    stats = json.loads((run / "stats.json").read_text())
    assert stats["evaluations"] == {"maths": {"texts": 2, "too_short": 0}, "quiz": {"texts": 4, "too_short": 1}}
    assert stats["terms"] == [
        {"name": "whom", "phrases": 2, "wordless": 0},
        {"name": "rude", "phrases": 2, "wordless": 1},
    ]
    web, wiki = stats["sources"]["web"], stats["sources"]["wiki"]
    assert (web["all"]["overlapping"], web["all"]["contaminated"], web["all"]["terms"]) == (7, {"maths": 2, "quiz": 7}, [4, 2])
    assert (wiki["all"]["contaminated"], wiki["variants"]["clean"]["kept"]["contaminated"]) == ({"maths": 1}, {"maths": 1})
    assert web["variants"]["clean"]["kept"]["contaminated"] == {}
    assert web["variants"]["unfiltered"]["kept"]["contaminated"] == {"maths": 2, "quiz": 6}  # without the copy
    page = (run / "report.html").read_text()
    assert "4 texts, 1 of them too short to look for." in page
    assert "shares a run of words with an evaluation set" in page
    result = verify(str(run), deep=True)
    assert result.faults == []


def test_explain_and_score_say_so(run):
    (found,) = explain(str(run), "web.jsonl#12")
    assert "clean: dropped at decontamination: contaminated, 2 against 1" in to_text(found)
    assert "contaminated_by quiz" in to_text(found)
    judged = TextScorer(str(run), "clean")(["What of " + " ".join(QUESTION), "What of " + " ".join(QUESTION[8:])])
    assert [(row["verdict"], row["signals"]["contamination"]) for row in judged] == [("contaminated", 8), ("keep", 0)]
    assert TextScorer(None, None)([" ".join(QUESTION)])[0]["signals"]["contamination"] == 0


def test_two_workers_write_the_same_bytes(folder, run, tmp_path):
    _build(folder, tmp_path / "run", engine=TWO_THREADS)
    assert hashes(run) == hashes(tmp_path / "run")


def test_a_changed_set_redoes_signals_and_no_document_or_cluster(tmp_path):
    inputs, run = tmp_path / "inputs", tmp_path / "run"
    inputs.mkdir()
    _write(inputs)
    _build(inputs, run)
    before = hashes(run)
    again = _build(inputs, run)
    assert {stage: redone for stage, redone in again.items() if redone != "0"} == {"fit": "1", "report": "1"}
    assert hashes(run) == before
    (inputs / "maths.jsonl").write_text(json.dumps([" ".join(MATHS)]))  # SHARED is of quiz alone now
    redone = _build(inputs, run)
    assert (redone["extract"], redone["cluster"], redone["sample"]) == ("0", "0", "0")
    assert int(redone["annotate"]) > 2
    changed = differing(before, hashes(run))
    assert {name for name in changed if name.startswith("models/")} == {models.EVALUATIONS, models.EVALUATIONS + SIDECAR}
    assert not [name for name in changed if name.startswith(("documents/", "clusters/", "samples/", "rejects/"))]
    assert not [name for name in changed if name.startswith("tokens/") and name.endswith(".bin")]  # no verdict is another
    found = _rows(run, "signals", "web", ["contaminated_by"])
    assert (found[11]["contaminated_by"], found[20]["contaminated_by"]) == ("quiz", "maths,quiz")


def test_a_run_without_them_is_the_same_whether_it_once_had_them(folder, tmp_path):
    without = ["evaluations={}", "terms={}", "variants.clean.default.decontaminate=false"]
    _build(folder, tmp_path / "once")
    _build(folder, tmp_path / "once", *without)
    _build(folder, tmp_path / "never", *without)
    assert hashes(tmp_path / "once") == hashes(tmp_path / "never")
    assert not Store(str(tmp_path / "once")).exists(models.EVALUATIONS)
    rows = _rows(tmp_path / "once", "signals", "web", ["contamination", "contaminated_by", "terms"])
    assert {tuple(row.values()) for row in rows} == {(0, None, None)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("evaluations.quiz=gone.jsonl", r"^evaluations\.quiz: .*gone\.jsonl: cannot be opened \(.*\); mend the recipe's paths$"),
        ("evaluations.quiz=whom.txt", r"^evaluations\.quiz: .*whom\.txt: line 1: no JSON \(.*\); an evaluation set is JSON lines$"),
        ("terms.whom=nowhere.txt", r"^terms\.whom: .*nowhere\.txt: cannot be opened"),
    ],
)
def test_a_missing_or_wrong_file_is_one_line_before_anything_runs(folder, tmp_path, change, said):
    with pytest.raises(UserError, match=said) as raised:
        _build(folder, tmp_path / "run", change)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_decontamination_without_a_set_is_refused():
    with pytest.raises(UserError, match=r"variants\.clean decontaminates but evaluations is missing"):
        parse(RECIPE, "clean", ["evaluations={}"])
    with pytest.raises(UserError, match=r"evaluations\.quiz: List should have at least 1 item"):
        parse(RECIPE, "clean", ["evaluations.quiz=[]"])
