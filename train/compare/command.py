"""The command `winnow compare`."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Any

import typer

from pipelines.errors import UserError

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def duration(given: str) -> float:
    """Seconds of `90s`, `45m`, `3h` or `1.5h`. Raises UserError on anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", given.strip())
    if match is None or float(match[1]) <= 0:
        raise UserError(f"--budget {given}: give a time such as 90s, 45m or 3h")
    return float(match[1]) * _SECONDS[match[2]]


def compare(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A run directory, on a local disk.")],
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="A recipe whose `compare` is meant; paths in it start beside it.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Prepare, print what would be run and how long it takes, and stop.")] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 90s, 45m or 3h; contrasts that do not fit are left out.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at once; default: one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train the same model on two variants at equal compute, with several seeds and controls, and say what the filter is worth.

    The same command goes on where it was stopped, and draws the page again when all is done.
    """
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise UserError("torch is not installed; pip install 'winnow[train]'")
    from pipelines.recipe_file import load
    from train.compare import comparison

    settings, base = None, "."
    if recipe is not None:
        loaded, base = load(recipe)
        settings = loaded.compare
        if settings is None:
            raise UserError(f"{recipe}: has no section compare; see docs/comparison.md")
    seconds = None if budget is None else duration(budget)
    found = comparison.compare(folder, _say(as_json), settings, base, seconds, plan, processes)
    if as_json:
        print(json.dumps(found, indent=1))
    elif "result" in found:
        print("\n" + comparison.result_text(found["result"]))
        print(f"page: {found['page']}")
        if not found["complete"]:
            print("the budget ended before all was run; the same command goes on", file=sys.stderr)


def _say(as_json: bool) -> Any:
    stream = sys.stderr if as_json else sys.stdout
    return lambda text: print(text, file=stream, flush=True)
