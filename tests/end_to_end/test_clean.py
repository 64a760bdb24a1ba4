"""C4's line rules through a whole build: lines go before anything is hashed, and what is left is judged by the family `c4`."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from pipelines.build import build
from pipelines.recipe_file import parse
from tests.runs import ONE_WORKER

RECIPE = """
name: cleaned
sources:
  c4: {format: jsonl, paths: [INPUT/x.jsonl], clean: c4}
  raw: {format: jsonl, paths: [INPUT/x.jsonl]}
fit: {tokenizer: {vocab_size: 300, sample_mb: 1}}
variants: {filtered: {default: {rules: [c4]}}}
tokens: {validation: 0}
"""
GOOD = "The first sentence of this page is long enough. It has a second one here. And a third one ends the page."
ROWS = [
    f"Home | About us\n{GOOD}\nPlease turn on javascript to see this page.\nToo short.",
    f"{GOOD}\nLorem ipsum dolor sit amet is what stands here.",
    "Menu\nContact\nOne good sentence stands on this page.",
    f"{GOOD} And {{ code }} ends it.",
]


def test_lines_are_left_out_and_the_rules_judge_the_rest(tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ROWS))
    run = tmp_path / "run"
    build(parse(RECIPE.replace("INPUT", str(tmp_path)), "cleaned"), ".", str(run), ONE_WORKER, lambda line: None)
    tables = {name: next((run / name / "c4").rglob("*.parquet")) for name in ("documents", "decisions/filtered")}
    texts = pq.read_table(tables["documents"], columns=["text"]).column(0).to_pylist()
    assert texts == [GOOD, ROWS[1], "One good sentence stands on this page.", ROWS[3]]
    verdicts = pq.read_table(tables["decisions/filtered"], columns=["verdict"]).column(0).to_pylist()
    assert verdicts == ["keep", "c4_lorem_ipsum", "c4_sentences", "c4_curly_bracket"]
    (raw,) = (run / "documents" / "raw").rglob("*.parquet")
    assert pq.read_table(raw, columns=["text"]).column(0).to_pylist() == ROWS
