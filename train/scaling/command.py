"""`winnow train scaling`: measure losses, fit laws to them, and plan a budget. Thin: reads arguments, calls, prints."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Scaling laws: measure losses, fit laws to them, plan a budget.")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Approach(StrEnum):
    """Chinchilla's three, and Clark et al.'s law."""

    ENVELOPE = "1"
    ISOFLOP = "2"
    PARAMETRIC = "3"
    ROUTED = "routed"


WANTED = {
    Approach.ENVELOPE: ("run", "params", "flops", "loss"),
    Approach.ISOFLOP: ("params", "flops", "loss"),
    Approach.PARAMETRIC: ("params", "tokens", "loss"),
    Approach.ROUTED: ("params", "experts", "loss"),
}


@app.command()
def fit(
    file: Annotated[str, typer.Argument(metavar="FILE.csv", help="Measurements; the first line names the columns.")],
    approach: Annotated[Approach, typer.Option(help="1 envelope, 2 isoFLOP, 3 parametric, routed.")] = Approach.PARAMETRIC,
    columns: Annotated[list[str] | None, typer.Option("--column", metavar="NAME=COLUMN", help="What the file calls it.")] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=TEXT", help="Only rows with exactly this.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: no intervals.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a law to measured losses, with bootstrap intervals."""
    if importlib.util.find_spec("scipy") is None:
        raise UserError("scipy is not installed: pip install 'winnow[train]'")
    from train.scaling import fit as parametric
    from train.scaling import frontier, routed, rows, saved, text
    from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN

    read = rows.read(file, WANTED[approach], _pairs("--column", columns), _pairs("--where", where))
    if approach is Approach.PARAMETRIC:
        read.values["flops"] = FLOPS_A_PARAMETER_TOKEN * read["params"] * read["tokens"]
        document = saved.parametric_json(parametric.fit(read, resamples, seed), read, seed)
    elif approach is Approach.ROUTED:
        document = saved.routed_json(routed.fit(read, resamples, seed), read, seed)
    else:
        found = (frontier.isoflop if approach is Approach.ISOFLOP else frontier.envelope)(read, resamples, seed)
        document = saved.frontier_json(approach, found, read, seed)
    print(json.dumps(document, indent=1) if as_json else text.fit_text(document))


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values or ():
        name, equals, of = value.partition("=")
        if not (name and equals and of):
            raise UserError(f"{option} {value}: write NAME=VALUE")
        found[name] = of
    return found


@app.command(name="sweep")
def sweep_(
    settings: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="The family: a preset's name, or settings.")],
    folder: Annotated[str, typer.Option("--run", metavar="DIR", help="The sweep's folder; one that is there is gone on with.")],
    flops: Annotated[list[float], typer.Option(metavar="C", help="A budget a run: 6 x parameters x tokens; several times.")],
    data: Annotated[str | None, typer.Option(metavar="DIR", help="tokens/VARIANT of a winnow run, or a blend.")] = None,
    widths: Annotated[
        list[int] | None, typer.Option("--width", help="d_model; several times. Default: a quarter to twice the preset's.")
    ] = None,
    rates: Annotated[
        list[float] | None, typer.Option("--rate", help="Peak learning rates to try. Default: half, once, twice the preset's.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs a cell.")] = 1,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Print what would be run and how long it takes, and stop.")] = False,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 90s, 45m or 3h; the rest is run later.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at once; default: one a core.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train one family at several sizes and budgets, and write the losses that `fit` reads. The same command goes on."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("torch is not installed: pip install 'winnow[train]'")
    for option, values in (("--flops", flops), ("--rate", rates or ())):
        for value in values:
            if not 0 < value < math.inf:
                raise UserError(f"{option} {value:g}: must be a number above 0")
    from train import fleet, run_file
    from train.scaling import sweep_plan, sweep_run

    began = time.monotonic()
    seconds = None if budget is None else fleet.duration("--budget", budget)
    shown = [*([f"data.path={json.dumps(data)}"] if data is not None else []), *(overrides or ())]
    asked = sweep_run.prepare(
        run_file.load(settings, shown), settings, Path(folder), flops, widths or (), rates or (), seeds
    )
    count = processes or max(1, len(os.sched_getaffinity(0)))
    planned = sweep_plan.plan(asked, count)
    stream = sys.stderr if as_json else sys.stdout
    print(sweep_plan.plan_text(planned), file=stream, flush=True)
    if plan_only:
        return print(json.dumps(planned, indent=1)) if as_json else None
    deadline = None if seconds is None else began + seconds
    complete = sweep_run.run(asked, count, deadline, lambda line: print(line, file=stream, flush=True))
    found = {**sweep_plan.result(asked), "complete": complete}
    if complete and not found["rows"]:
        raise UserError(f"{folder}: no run has a loss: gradients were not finite; give lower rates with --rate")
    print(json.dumps(found, indent=1) if as_json else "\n" + sweep_plan.result_text(found))
    if not complete:
        print("the budget ended before all was run; the same command goes on", file=sys.stderr)


@app.command()
def plan(
    flops: Annotated[float | None, typer.Option(metavar="C", help="Training FLOPs: 6 x parameters x tokens.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(metavar="H", help="Hours of one device; needs --device.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="v100, a100, h100 or tpu-v4.")] = None,
    utilisation: Annotated[float | None, typer.Option(metavar="U", help="Share of its peak. Default: LLaMA's .476.")] = None,
    params: Annotated[float | None, typer.Option(metavar="N", help="Judge a model of this size; needs --tokens.")] = None,
    tokens: Annotated[float | None, typer.Option(metavar="D", help="... trained on so many tokens.")] = None,
    serve: Annotated[float | None, typer.Option("--serve-tokens", metavar="M", help="How many will be served.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="tokens/VARIANT: is it enough?")] = None,
    fitted: Annotated[str | None, typer.Option("--fit", metavar="FILE.json", help="What fit --json printed.")] = None,
    as_json: AsJson = False,
) -> None:
    """The model and the tokens that a budget buys, under every law side by side."""
    options = {"--flops": flops, "--gpu-hours": gpu_hours, "--utilisation": utilisation}
    options |= {"--params": params, "--tokens": tokens, "--serve-tokens": serve}
    for option, value in options.items():
        if value is not None and not 0 < value < 1e40:
            raise UserError(f"{option} {value:g}: must be a number above 0")
    given = (params, tokens) if params is not None and tokens is not None else None
    budget, basis = _budget(flops, gpu_hours, device, utilisation, given, (params, tokens))
    from train.scaling import planner, saved, text
    from train.scaling.laws import BESIROGLU, CHINCHILLA, CHINCHILLA_RANGE

    own = saved.load(fitted) if fitted is not None else None
    served = [(CHINCHILLA, CHINCHILLA_RANGE), (BESIROGLU, CHINCHILLA_RANGE), *([(own.law, own.range)] if own else [])]
    unique = _unique_tokens(data) if data is not None else None
    document: dict[str, Any] = {
        "flops": budget,
        "basis": basis,
        "given": {"params": given[0], "tokens": given[1]} if given else None,
        "laws": [asdict(row) for row in planner.plan(budget, given, own)],
        "serving": [asdict(planner.serve(law, budget, serve, covered)) for law, covered in served] if serve is not None else [],
        "data": data,
        "unique_tokens": unique,
        "repetition": [asdict(row) for row in planner.repeat(budget, given, unique)] if unique is not None else [],
    }
    print(json.dumps(document, indent=1) if as_json else text.plan_text(document))


def _budget(
    flops: float | None, hours: float | None, device: str | None, utilisation: float | None,
    given: tuple[float, float] | None, either: tuple[float | None, float | None],
) -> tuple[float, str]:  # fmt: skip
    """FLOPs of the one budget that was given, and how they came about."""
    from train.scaling import planner

    if given is None and either != (None, None):
        raise UserError("--params and --tokens go together: give both")
    if sum((flops is not None, hours is not None, given is not None)) != 1:
        raise UserError("give one budget: --flops C, --gpu-hours H with --device, or --params N with --tokens D")
    if (device is not None or utilisation is not None) and hours is None:
        raise UserError("--device and --utilisation are said of --gpu-hours: give those")
    if flops is not None:
        return flops, "as given"
    if given is not None:
        return 6 * given[0] * given[1], f"6 x {given[0]:.4g} params x {given[1]:.4g} tokens"
    if device not in planner.DEVICES:
        raise UserError(f"--device {device or '(none)'}: give one of {', '.join(planner.DEVICES)}, or the budget as --flops")
    share = planner.LLAMA_UTILISATION if utilisation is None else utilisation
    if share > 1:
        raise UserError(f"--utilisation {share:g}: a share of the peak, at most 1")
    assert hours is not None
    whose = " (LLaMA's)" if utilisation is None else ""
    basis = f"{hours:g} hours x {planner.DEVICES[device] / 1e12:g} TFLOP/s ({device}) x utilisation {share:g}{whose}"
    return planner.device_flops(hours, device, share), basis


def _unique_tokens(path: str) -> float:
    from train.corpus import open_corpus

    return float(sum(len(shard.file) for shard in open_corpus(path).train))
