"""A source's license through a build: it stands where a record states none, and the card says whose word it is."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from pipelines.build import build
from pipelines.errors import UserError
from pipelines.recipe_file import parse
from tests.runs import ONE_WORKER

RECIPE = """
name: licensed
sources:
  dump: {format: jsonl, paths: [x.jsonl], license: CC-BY-SA-4.0}
  open: {format: jsonl, paths: [x.jsonl]}
fit: {tokenizer: {vocab_size: 300, sample_mb: 1}}
variants: {all: {}}
tokens: {validation: 0}
"""
STATED = ["MIT", None, "", "CC0-1.0", 7]


def _table(card):
    """The rows of the card's table of licenses."""
    section = card.split("## Licenses\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]


def test_the_recipes_license_stands_where_a_record_states_none(tmp_path):
    rows = [{"text": f"text {n}", "license": stated} for n, stated in enumerate(STATED)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    build(parse(RECIPE, "licensed"), str(tmp_path), str(run), ONE_WORKER, lambda line: None)
    found = {}
    for source in ("dump", "open"):
        (path,) = (run / "documents" / source).rglob("*.parquet")
        found[source] = pq.read_table(path, columns=["license"]).column(0).to_pylist()
    own = "CC-BY-SA-4.0"
    assert found == {"dump": ["MIT", own, own, "CC0-1.0", own], "open": ["MIT", None, None, "CC0-1.0", None]}
    card = (run / "card.md").read_text()
    assert "Where a record states none, its source's license in the recipe stands for it: dump" in card
    assert [[source, name.strip("`"), count] for source, name, count in _table(card)] == [
        ["dump", own, "3"],
        ["dump", "CC0-1.0", "1"],
        ["dump", "MIT", "1"],
        ["open", "CC0-1.0", "1"],
        ["open", "MIT", "1"],
        ["open", "*none stated*", "3"],
    ]
    assert "- cc-by-sa-4.0" in card.split("\n---\n")[0]


@pytest.mark.parametrize("given", ["''", "' '", '"a\\nb"', "'" + "x" * 201 + "'", "[MIT]"])
def test_a_license_is_one_line_of_text(given):
    with pytest.raises(UserError, match=r"^licensed: sources.dump.license: ") as error:
        parse(RECIPE.replace("CC-BY-SA-4.0", given), "licensed")
    assert "\n" not in str(error.value)
