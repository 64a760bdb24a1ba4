"""`winnow train`: the trainer's commands. Thin; torch is imported inside them."""

from __future__ import annotations

import importlib.util
import json
from typing import Annotated

import typer

from pipelines.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Sparse and dense language models on the shards.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def _group() -> None:
    """A group of commands even while it holds one."""


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("torch is not installed: pip install 'winnow[train]'")


@app.command()
def presets(as_json: AsJson = False) -> None:
    """The published models: parameters beside the papers', FLOPs a token, bytes, and the fewest devices."""
    _need_torch()
    from train import tables
    from train.presets import PRESETS

    rows = [tables.facts(preset) for preset in PRESETS.values()]
    print(json.dumps(tables.to_json(rows), indent=1) if as_json else tables.to_text(rows))
