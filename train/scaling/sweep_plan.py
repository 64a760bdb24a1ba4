"""What a sweep will run and what came out, as JSON documents and as text."""

from __future__ import annotations

import json
from typing import Any

from train import fleet
from train.scaling import sweep
from train.scaling.sweep_run import CURVES, RUNS, Sweep, measured, runs, tuning


def plan(asked: Sweep, processes: int) -> dict[str, Any]:
    """Sizes, cells, and how long what is not done should take: by the speed of runs of the same width, else of a few steps now."""
    tried, rates = tuning(asked)
    known = rates or {size.width: asked.rates[0] for size in asked.sizes}  # at any rate a run costs the same
    needed = {one.task.name: one for one in [*tried, *runs(asked, known)]}
    todo = [one.cell for one in needed.values() if not fleet.is_done(one.task.folder, one.rate)]
    speeds = {size.width: _speed(asked, size) for size in dict.fromkeys(cell.size for cell in todo)}
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
        "seconds": sum(cell.tokens / speeds[cell.size.width] for cell in todo) / processes,
    }


def _size(size: sweep.Size) -> dict[str, Any]:
    counts = {"params": size.params, "non_embedding": size.non_embedding, "total": size.total}
    return {"width": size.width, "layers": size.config.n_layers, "experts": size.experts, **counts}


def _cell(cell: sweep.Cell) -> dict[str, Any]:
    what = {"flops": cell.flops, "width": cell.size.width, "tokens": cell.tokens, "steps": cell.steps}
    return {**what, "passes": cell.passes, "left_out": cell.why_not}


def _speed(asked: Sweep, size: sweep.Size) -> float:
    """Tokens a second of one process."""
    found = [
        json.loads(path.read_bytes())["tokens_per_second"]
        for path in sorted((asked.folder / "runs").glob(f"w{size.width}-*/{fleet.COSTS}"))
    ]
    if found:
        return float(sum(found) / len(found))
    from train.run_config import Settings, complete

    task = asked.run_of(sweep.smallest(asked.live, size), asked.rates[0], 1).task
    settings = Settings.of(task.told["settings"], asked.corpus.path)
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
        f"{told['processes']} processes: about {fleet.minutes(told['seconds'])}",
    ]
    return "\n".join(lines)


def result(asked: Sweep) -> dict[str, Any]:
    """What is measured, once rates are chosen. rates: by width; at_end: widths whose best rate is an end of those tried."""
    tried, rates = tuning(asked)
    assert rates is not None
    ends = {width: [one.rate for one in tried if one.cell.size.width == width] for width in rates}
    rows = [{name: value for name, value in row.items() if name != "curve"} for row in measured(runs(asked, rates))]
    return {
        "runs": str(asked.folder / RUNS),
        "curves": str(asked.folder / CURVES),
        "rates": {str(width): rate for width, rate in rates.items()},
        "at_end": [width for width, rate in rates.items() if ends[width] and rate in (min(ends[width]), max(ends[width]))],
        "rows": rows,
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
    if told["at_end"]:
        widths = ", ".join(map(str, told["at_end"]))
        lines.append(f"the best rate is an end of those tried, a better one may lie beyond: width {widths}; add rates with --rate")
    lines.append(f"next: winnow train scaling fit {told['runs']} --approach 2  (1 reads {told['curves']})")
    return "\n".join(lines)
