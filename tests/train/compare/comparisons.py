"""A run to compare on, its evaluation sets, and comparisons whose runs are trained in this process."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe
from pipelines.recipe_compare import Compare
from pipelines.recipe_file import parse
from tests import corpus
from tests.runs import run_build
from train import fleet
from train.compare import jobs, runner, worker
from train.compare.plan import pilot_so_far
from train.compare.prepare import Comparison
from train.files import publish_json

MODEL: dict[str, Any] = {
    "model": {
        "context": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_head": 8, "d_ff": 24, "ffn": "geglu", "tied_embeddings": True,
        "moe": {"experts": 4, "top_k": 2, "d_ff": 24, "ffn": "gelu", "renormalise": True, "group": 1},
    },
    "batch": 8,
    "precision": "fp32",
}  # fmt: skip

# Both arms have the same steps but for the draw: what a comparison is about.
OVERRIDES = (
    "variants.raw={dedup: []}",
    "variants.deduplicated={dedup: [exact, near]}",
    "variants.unfiltered={dedup: [exact, near], default: {rules: [gopher]}}",
    "variants.filtered={dedup: [exact, near], default: {rules: [gopher]},"
    " sources: {web: {quality: {draw: pareto, alpha: 9, keep_rate: 0.3}}}}",
    "tokens.shards=1",
)


def build(inputs: Path, folder: Path) -> Path:
    """The small corpus with variants that differ in one step each, and a source that the classifier does not learn from."""
    books = folder.parent / "books.jsonl"
    rows = [{"id": str(n), "text": corpus.prose(f"book {n}", True, sentences=20)} for n in range(40)]
    books.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    run_build(inputs, folder, (*OVERRIDES, f"sources.books={{format: jsonl, paths: [{books}]}}"))
    return folder


def write_without_effect(folder: Path) -> Path:
    """A corpus of one style, the curated source's too: a filter has nothing to choose by."""
    corpus.write(folder, documents=250)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        for row in rows:
            number, curated = row["id"].rsplit(" ", 1)[-1], "title" in row
            text = corpus.prose(f"{curated} {number}", False, sentences=30)
            row["text"] = corpus.near_copy(text, row["id"]) if row["id"].startswith("near") else text
        with opener(path, "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Evaluation sets of texts that no run holds: of the style that the classifier looks for, twice, and of the other one."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, dict[str, Any]] = {}
    for name, group, curated in (("essays", "unseen", True), ("letters", "unseen", True), ("shop", "web", False)):
        rows = [
            {"text": corpus.prose(f"{name} {number}", curated, sentences=6), "cluster": f"{name} {number // 2}"}
            for number in range(20)
        ]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        made[name] = {"group": group, "files": [str(path)]}
    return made


def settings(sets: dict[str, dict[str, Any]], **changes: Any) -> Compare:
    """A small comparison: without controls unless they are asked for."""
    given = {"model": MODEL, "tokens": 8192, "seeds": 2, "rates": [0.01], "controls": [], "sets": sets, **changes}
    return Compare.model_validate(given)


def recipe(folder: Path, **changes: Any) -> Recipe:
    """The small corpus' recipe with a section compare."""
    text = corpus.recipe(folder)
    return parse(text, "tiny", [*OVERRIDES, *(f"compare.{key}={json.dumps(value)}" for key, value in changes.items())])


def train_all(made: Comparison, most: int | None = None) -> list[jobs.Job]:
    """Runs every job of a comparison, or the first ones, in this process, as `fleet.run` does in others; returns them."""
    pilot, rate = pilot_so_far(made)
    while rate is None:
        for job in pilot:
            _work(made, job)
        pilot, rate = pilot_so_far(made)
    wanted = jobs.jobs(made.contrasts, rate, made.tokens)[:most]
    for job in wanted:
        _work(made, job)
    return [*pilot, *wanted]


def _work(made: Comparison, job: jobs.Job) -> None:
    if not runner.is_done(made, job):
        folder = runner.folder_of(made, job)
        folder.mkdir(parents=True, exist_ok=True)
        publish_json(folder / fleet.JOB, runner.describe(made, job))
        worker.work(folder)
