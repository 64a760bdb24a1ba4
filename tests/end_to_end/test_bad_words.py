"""A list of bad words through whole builds: pages that hold one are dropped where the family `c4` judges, and counted anyway."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from pipelines.build import build
from pipelines.errors import UserError
from pipelines.explain import explain, to_text
from pipelines.recipe_file import parse
from pipelines.score import TextScorer
from pipelines.verify import verify
from tests.runs import ONE_WORKER, differing, hashes

RECIPE = """
name: worded
sources: {web: {format: jsonl, paths: [x.jsonl]}, wiki: {format: jsonl, paths: [x.jsonl]}}
bad_words: [rude.txt, more.txt]
fit: {tokenizer: {vocab_size: 300, sample_mb: 1}}
variants:
  open: {}
  filtered: {default: {rules: [c4]}, sources: {wiki: {rules: none}}}
tokens: {validation: 0}
"""
GOOD = "The first sentence of this page is long enough. It has a second one here. And a third one ends the page."
TEXTS = [
    GOOD,
    f"{GOOD}\nThere was a Gruff here.\nAnd a grey  donkey.\nOr: GRUFF, gruff!",  # two lines; two blanks are no one
    f"{GOOD}\nNo gruffness and no grey\ndonkey.",
    f"{GOOD}\nA grey donkey.",
    "Gruff { it is.",  # the first rule of the family that is broken
    f"{GOOD}\nLe CAFÉ est ici.",
]
LINES = [0, 2, 0, 1, 1, 1]
VERDICTS = ["keep", "c4_bad_words", "keep", "c4_bad_words", "c4_curly_bracket", "c4_bad_words"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "rude.txt").write_text("gruff\nGrey donkey\n")
    (tmp_path / "more.txt").write_text("cafe\u0301\ngruff\n")  # not composed, as a text is
    return tmp_path


def _build(folder, run, *changes):
    said = []
    build(parse(RECIPE, "worded", changes), str(folder), str(run), ONE_WORKER, said.append)
    return {line.split()[0]: line.split()[1] for line in said}  # stage -> parts redone


def _column(run, table, source, name):
    (path,) = (run / table / source).rglob("*.parquet")
    return pq.read_table(path, columns=[name]).column(0).to_pylist()


def test_the_reason_is_the_rules_and_its_number_stands_in_signals_report_and_explain(folder, tmp_path):
    run = tmp_path / "run"
    _build(folder, run)
    assert _column(run, "decisions/filtered", "web", "verdict") == VERDICTS
    for variant, source in (("filtered", "wiki"), ("open", "web"), ("open", "wiki")):
        assert set(_column(run, f"decisions/{variant}", source, "verdict")) == {"keep"}
    for source in ("web", "wiki"):
        assert _column(run, "signals", source, "bad_words") == LINES
    (found,) = [one for one in explain(str(run), "x.jsonl#1") if one.document["source"] == "web"]
    assert "filtered: dropped at rules: c4_bad_words, 2 against 0" in to_text(found)
    assert "c4_bad_words" in (run / "report.html").read_text()
    dropped = json.loads((run / "stats.json").read_text())["accounts"]["variants"]["filtered"]["web"]["dropped"]
    assert dropped == {"c4_bad_words": 3, "c4_curly_bracket": 1}
    judged = TextScorer(str(run), "filtered")(TEXTS)
    assert [(one["verdict"], one["signals"]["bad_words"]) for one in judged] == list(zip(VERDICTS, LINES, strict=True))
    assert verify(str(run), deep=True).faults == []


def test_what_a_list_says_decides_what_is_redone(folder, tmp_path):
    run = tmp_path / "run"
    _build(folder, run)
    before = hashes(run)
    (folder / "rude.txt").write_text("\nGREY DONKEY\ngruff\ngruff\n")
    redone = _build(folder, run)
    assert (redone["extract"], redone["annotate"], redone["select"]) == ("0", "0", "0")
    assert differing(before, hashes(run)) == set()
    (folder / "rude.txt").write_text("donkey")
    redone = _build(folder, run, "bad_words=rude.txt")
    assert (redone["extract"], redone["annotate"]) == ("0", "2")
    assert _column(run, "signals", "web", "bad_words") == [0, 1, 1, 1, 0, 0]
    _build(folder, run, "bad_words=[]")
    assert _column(run, "signals", "web", "bad_words") == [0] * len(TEXTS)
    assert not list((run / "models").glob("bad_words*"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"^bad_words: .*/more.txt: cannot be opened"),
        (b"\n", r"^bad_words: .*/more.txt: no word in it"),
        (b"\xff", r"^bad_words: .*/more.txt: line 1: not UTF-8"),
    ],
)
def test_a_list_that_is_none_ends_the_command_before_anything_runs(folder, tmp_path, content, said):
    (folder / "more.txt").unlink()
    if content is not None:
        (folder / "more.txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        _build(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
