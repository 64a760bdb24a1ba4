"""What a sweep will run and what came out, as JSON documents and as text."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

from train import fleet
from train.scaling import sweep
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN
from train.scaling.sweep import Size
from train.scaling.sweep_run import CURVES, RUNS, Sweep, measured, runs, tuning

TIMED = 50_000_000  # parameters
TIMED_TOKENS = 4096


def plan(asked: Sweep, processes: int) -> dict[str, Any]:
    """Sizes, cells, and how long what is not done should take (`seconds`; None where that cannot be told here)."""
    tried, rates = tuning(asked)
    known = {size.width: asked.rates[0] for size in asked.sizes} | rates  # at any rate a run costs the same
    needed = [*tried, *runs(asked, known)]
    todo = [one.cell for one in needed if not one.is_done]
    speeds = _speeds(asked, {cell.size for cell in todo})
    return {
        "folder": str(asked.folder),
        "data": asked.corpus.path,
        "sizes": [_size(size) for size in dict.fromkeys(cell.size for cell in asked.cells)],
        "cells": [_cell(cell) for cell in asked.cells],
        "rates": list(asked.rates),
        "seeds": asked.seeds,
        "runs": len(needed),
        "done": len(needed) - len(todo),
        "flops_to_train": sum(cell.flops for cell in todo),
        "processes": processes,
        "seconds": None if speeds is None else sum(cell.flops / speeds[cell.size.width] for cell in todo) / processes,
    }


def _size(size: Size) -> dict[str, Any]:
    counts = {"params": size.params, "non_embedding": size.non_embedding, "total": size.total}
    return {"width": size.width, "layers": size.config.n_layers, "experts": size.experts, **counts}


def _cell(cell: sweep.Cell) -> dict[str, Any]:
    what = {"flops": cell.flops, "width": cell.size.width, "tokens": cell.tokens, "steps": cell.steps}
    return {**what, "passes": cell.passes, "left_out": cell.why_not}


def _speeds(asked: Sweep, sizes: Set[Size]) -> dict[int, float] | None:
    """Width -> FLOPs (6 N D) a second of one process: of runs of the width that are done, else of a few small updates now. Models
    of more than TIMED parameters are taken to be as fast as the next smaller one; None where there is none."""
    speeds: dict[int, float] = {}
    last: float | None = None
    for size in sorted(sizes, key=lambda one: one.width):
        paths = sorted((asked.folder / "runs").glob(f"w{size.width}-*/{fleet.COSTS}"))
        found = [json.loads(path.read_bytes())["tokens_per_second"] for path in paths]
        if found:
            last = FLOPS_A_PARAMETER_TOKEN * size.params * sum(found) / len(found)
        elif size.total <= TIMED:
            last = FLOPS_A_PARAMETER_TOKEN * size.params * _timed(asked, size)
        if last is None:
            return None
        speeds[size.width] = last
    return speeds


def _timed(asked: Sweep, size: Size) -> float:
    """Tokens a second, by updates of about TIMED_TOKENS tokens."""
    from train.run_config import Settings, complete

    told = asked.run_of(sweep.smallest(asked.live, size), asked.rates[0], 1).task.told["settings"]
    group = 1 if size.config.moe is None else size.config.moe.group
    few = group * max(1, TIMED_TOKENS // (size.config.context * group))
    settings = Settings.of({**told, "batch": few, "micro_batch": None}, asked.corpus.path)
    return fleet.measured_speed(complete(settings, asked.corpus.path, asked.corpus.vocabulary.size), asked.corpus)


def plan_text(told: dict[str, Any]) -> str:
    """The plan for people: tokens of every cell, or why it is left out."""
    from pipelines.overview import table

    budgets = sorted({cell["flops"] for cell in told["cells"]})
    at = {(cell["width"], cell["flops"]): cell for cell in told["cells"]}
    rows = []
    for size in told["sizes"]:
        cells = [at[size["width"], budget] for budget in budgets]
        rows.append([
            str(size["width"]), size["layers"], size["params"], size["non_embedding"],
            *(f"({cell['left_out']})" if cell["left_out"] else f"{cell['tokens'] / 1e6:,.2f}M" for cell in cells),
        ])  # fmt: skip
    rates = ", ".join(f"{rate:g}" for rate in told["rates"])
    how = f"rates {rates}, tried at a width's smallest budget" if len(told["rates"]) > 1 else f"rate {rates}"
    lines = [
        f"sweep in {told['folder']} over {told['data']}",
        table(["width", "layers", "params", "without embedding", *(f"{budget:g} FLOPs" for budget in budgets)], rows),
        "tokens a run by training FLOPs (6 x params x tokens); in brackets: left out, fewer than "
        f"{sweep.LEAST_STEPS} updates or more than {sweep.MOST_PASSES:g} passes",
        f"{how}; {told['seeds']} seed{'s' * (told['seeds'] > 1)}",
        f"{told['runs']} runs, {told['done']} of them done; {told['flops_to_train']:.2e} FLOPs to train;",
        f"{told['processes']} process{'es' * (told['processes'] > 1)}: "
        + ("models too large to be timed here" if told["seconds"] is None else f"about {fleet.minutes(told['seconds'])}"),
    ]
    return "\n".join(lines)


def result(asked: Sweep) -> dict[str, Any]:
    """What is measured. rates: by width; at_end: widths whose best rate is an end of those tried; without_loss: runs that left out
    updates, for gradients that were not finite, and so had not their compute, and runs whose loss is not finite."""
    tried, rates = tuning(asked)
    ends = {width: [one.rate for one in tried if one.cell.size.width == width] for width in rates}
    return {
        "runs": str(asked.folder / RUNS),
        "curves": str(asked.folder / CURVES),
        "rates": {str(width): rate for width, rate in rates.items()},
        "at_end": [width for width, rate in rates.items() if ends[width] and rate in (min(ends[width]), max(ends[width]))],
        "without_loss": [one.task.name for one in runs(asked, rates) if one.is_done and one.scores["loss"] is None],
        "rows": [{name: value for name, value in row.items() if name != "curve"} for row in measured(asked)],
    }


def result_text(told: dict[str, Any]) -> str:
    """Losses by width and budget (means over seeds), and what to do with them."""
    from pipelines.overview import table

    budgets = sorted({row["flops"] for row in told["rows"]})
    losses: dict[tuple[int, float], list[float]] = {}
    for row in told["rows"]:
        losses.setdefault((row["width"], row["flops"]), []).append(row["loss"])
    means = {key: sum(found) / len(found) for key, found in losses.items()}
    best = {budget: min(loss for (_, of), loss in means.items() if of == budget) for budget in budgets}
    rows = []
    for width in sorted({row["width"] for row in told["rows"]}):
        cells = [means.get((width, budget)) for budget in budgets]
        marked = [
            "" if loss is None else f"{loss:.4f}" + ("*" if loss == best[of] else " ")
            for loss, of in zip(cells, budgets, strict=True)
        ]
        rows.append([str(width), f"{told['rates'][str(width)]:g}", *marked])
    lines = [
        "validation loss in nats a token; *: the lowest of its budget",
        table(["width", "rate", *(f"{budget:g} FLOPs" for budget in budgets)], rows),
    ]
    if told["without_loss"]:
        names = ", ".join(told["without_loss"])
        lines.append(f"without a loss, for gradients or losses were not finite: {names}; give lower rates with --rate")
    if told["at_end"]:
        widths = ", ".join(map(str, told["at_end"]))
        lines.append(f"the best rate is an end of those tried, a better one may lie beyond: width {widths}; add rates with --rate")
    lines.append(f"next: winnow train scaling fit {told['runs']} --approach 2  (1 reads {told['curves']})")
    return "\n".join(lines)
