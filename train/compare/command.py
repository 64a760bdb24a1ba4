"""The command `winnow compare`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from pipelines.errors import UserError


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
    from train.fleet import duration

    settings, base = None, "."
    if recipe is not None:
        loaded, base = load(recipe)
        settings = loaded.compare
        if settings is None:
            raise UserError(f"{recipe}: has no section compare; see docs/comparison.md")
    seconds = None if budget is None else duration("--budget", budget)
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
