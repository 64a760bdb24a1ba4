"""Fits and plans as a person reads them: tables of plain text, from the JSON documents of `saved` and `command`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]


def fit_text(found: Document) -> str:
    """A fit: its constants with intervals, one a line, then what it stands on."""
    names: dict[str, float] = {**found.get("law", {})}
    names |= {name: found[name] for name in ("exponent", "params") if name in found}
    lines = [_constant(name, value, found["intervals"].get(name)) for name, value in names.items()]
    kept = len(found["resamples"])
    lost = f"; {found['lost']} more led to no law and are left out" if found["lost"] else ""
    basis = f"95 % of {kept} resamples{lost}" if kept else "no resamples, no intervals"
    ends = {"3": "exponent: of N_opt ~ C^a", "routed": f"root mean square error of log10 loss {found.get('error', 0):.5f}"}
    about = ends.get(found["approach"]) or f"N_opt = params (C / {found['flops']:.4g})^exponent"
    return "\n".join([f"{found['file']}: {found['rows']} rows, approach {found['approach']}", *lines, about, basis])


def _constant(name: str, value: float, interval: Sequence[float] | None) -> str:
    return f"  {name:<9}{value:>12.5g}" + (f"   {interval[0]:.5g} to {interval[1]:.5g}" if interval else "")


def plan_text(plan: Document) -> str:
    """A plan: one line a law, notes below it, then serving and repetition where they were asked for."""
    blocks = [f"{plan['flops']:.4g} training FLOPs: {plan['basis']}", _laws(plan)]
    if plan["serving"]:
        blocks.append(_serving(plan["serving"]))
    if plan["repetition"]:
        blocks.append(_repetition(plan["data"], plan["unique_tokens"], plan["repetition"]))
    return "\n\n".join(blocks)


def _laws(plan: Document) -> str:
    header = ["law", "params", "interval", "tokens", "interval", "tokens/param", "loss"]
    rows = []
    for law in plan["laws"]:
        pairs = [_interval(law["params_interval"]), _interval(law["tokens_interval"])]
        cells = [law["law"], _size(law["params"]), pairs[0], _size(law["tokens"]), pairs[1], f"{law['tokens'] / law['params']:.3g}"]
        rows.append([*cells, _loss(law["loss"])])
    if plan["given"]:
        header.append("as given")
        for row, law in zip(rows, plan["laws"], strict=True):
            row.append(_loss(law["given_loss"]))
    notes = [f"{law['law']}: interval {law['interval_basis']}" for law in plan["laws"]]
    return "\n".join([_table(header, rows), *notes, *_warnings(plan["laws"])])


def _serving(found: list[Document]) -> str:
    header = ["law", "loss", "params", "tokens", "training", "with serving", "optimum with serving"]
    flops = ("training_flops", "whole_flops", "optimum_whole_flops")
    rows = [
        [row["law"], _loss(row["loss"]), _size(row["params"]), _size(row["tokens"]), *(f"{row[name]:.3g}" for name in flops)]
        for row in found
    ]
    title = f"the same loss at the least FLOPs when {_size(found[0]['served'])} tokens are served (2 N each):"
    return "\n".join([title, _table(header, rows), *_warnings(found)])


def _repetition(data: str, unique: float, found: list[Document]) -> str:
    header = [found[0]["law"], "params", "tokens", "passes", "D'", "N'", "loss", "were it all new"]
    rows = []
    for row in found:
        run = [row["what"], _size(row["params"]), _size(row["tokens"]), f"{row['passes']:.3g}"]
        worth = [_size(row["effective_tokens"]), _size(row["effective_params"])]
        rows.append([*run, *worth, _loss(row["loss"]), _loss(row["fresh_loss"])])
    return "\n".join([f"{data}: {_size(unique)} unique tokens", _table(header, rows), *_warnings(found, "what")])


def _warnings(found: list[Document], name: str = "law") -> list[str]:
    return [f"{row[name]}: {warning}" for row in found for warning in row["warnings"]]


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in [header, *rows]
    )


def _size(value: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def _interval(pair: Sequence[float] | None) -> str:
    return f"{_size(pair[0])}-{_size(pair[1])}" if pair else "-"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
