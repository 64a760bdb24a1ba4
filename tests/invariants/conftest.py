"""A corpus with everything that a build can meet, and the run that the tests of this folder hold others against."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import corpus

ODD_LINES = [
    json.dumps({"text": "Wörter mit Umlauten, 漢字 und Zeichen wie \u0130 und \ud83e\udd99, die jede Kodierung prüfen. " * 4}),
    json.dumps({"text": "Ünlü bir yazarın kitabı. " * 20, "url": "https://örnek.example/ı", "title": "Başlık \u202e"}),
    json.dumps({"text": ""}),
    json.dumps({"text": " \n\n "}),
    json.dumps({"text": 7}),
    json.dumps({"title": "no text"}),
    "{broken",
    '{"text": "\\ud800"}',
]


@pytest.fixture(scope="session")
def varied(tmp_path_factory) -> Path:
    """The small corpus, a file of odd records, a gzip input that is cut off, and the recipe beside them, with relative paths."""
    folder = tmp_path_factory.mktemp("varied")
    corpus.write(folder, documents=60)
    (folder / "web" / "odd.jsonl").write_text("\n".join(ODD_LINES), "utf-8")
    whole = (folder / "web" / "b.jsonl.gz").read_bytes()
    (folder / "web" / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "recipe.yaml").write_text(corpus.RECIPE.replace("INPUT/", ""), "utf-8")
    return folder


def build_varied(folder: Path, run: Path, engine) -> list[str]:
    """Builds the corpus of `varied`, wherever it lies, in this process; returns what was said."""
    from pipelines.build import build
    from pipelines.recipe_file import load

    said: list[str] = []
    recipe, base = load(str(folder / "recipe.yaml"))
    build(recipe, base, str(run), engine, said.append)
    return said


@pytest.fixture(scope="session")
def reference(varied, tmp_path_factory) -> Path:
    """A run of `varied`, made by one worker in this process."""
    from tests.runs import ONE_WORKER

    run = tmp_path_factory.mktemp("reference") / "run"
    build_varied(varied, run, ONE_WORKER)
    return run
