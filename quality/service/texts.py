"""The texts that pages show: of a document of a run, and of a recipe. One row group of one part is read, and no more of it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from pipelines import index
from pipelines.store import Store, reading_table
from quality.service import judged

RECIPE_CHARACTERS = 20_000


def of_document(folder: str, doc_id: str) -> dict[str, Any] | None:
    """The start of a document's text; None where the run has no such document."""
    store = Store(folder)
    with index.opened(store) as names:
        places = names.find(doc_id)
    for source, part, row in places:
        known, text = _row(store, f"documents/{source}/{part}.parquet", row)
        if known.hex() == doc_id:
            return judged.excerpt(text)
    return None


def _row(store: Store, path: str, row: int) -> tuple[bytes, str]:
    """(doc_id, text) of a row of a part."""
    with reading_table(store, path) as file:
        first = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                (found,) = file.read_row_group(group, ["doc_id", "text"], use_threads=False).slice(row - first, 1).to_pylist()
                return found["doc_id"], found["text"]
            first += rows
    raise IndexError(f"{path}: has no row {row}")


def of_recipe(where: str) -> str:
    """The start of a recipe: a file, or a shipped one by its name."""
    if where.endswith(".yaml"):
        with open(Path(where), encoding="utf-8", errors="replace") as file:
            return file.read(RECIPE_CHARACTERS)
    return (resources.files("beam_config") / "recipes" / f"{where}.yaml").read_text("utf-8")[:RECIPE_CHARACTERS]
