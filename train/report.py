"""What a training run says while it runs: a line a step for people on a terminal, the log's own JSON lines elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO


def teller(stream: TextIO) -> Callable[[dict[str, Any]], None]:
    """Prints each line of the log to the stream, as suits it."""
    form = to_text if stream.isatty() else json.dumps
    return lambda line: print(form(line), file=stream, flush=True)


def to_text(line: dict[str, Any]) -> str:
    """A line of the log for people."""
    if line["event"] == "step":
        return _step(line)
    if line["event"] == "validation":
        losses = [f"{source} {facts['loss']:.4f}" for source, facts in line["sources"].items()]
        return f"step {line['step']}  validation {_loss(line)} ({', '.join(losses)})"
    if line["event"] == "stopped":
        return f"step {line['step']}  stopped as asked"
    if line["event"] == "rollback":
        first, last = line["batches_left_out"]
        return f"step {line['from_step']}  back to step {line['step']}; batches {first} to {last} are left out"
    begun = "begins" if line["event"] == "start" else f"goes on at step {line['step']}"
    untried = "" if line["device"] == "cpu" else " (not run on a GPU yet: hold the first losses against a CPU's)"
    text = (
        f"{begun}: {line['parameters']:,} parameters, {line['active_parameters']:,} active, {line['precision']}, "
        f"{line['processes']} x {line['device']}{untried}, measured peak {line['peak_flops_per_second'] / 1e9:.0f} GFLOP/s"
    )
    return text + (f"; TensorBoard {line['tensorboard']}" if "tensorboard" in line else "")


def _step(line: dict[str, Any]) -> str:
    skipped = "  SKIPPED: gradient not finite" if line["skipped"] else ""
    routed = ""
    if "balance_loss" in line:
        fullest = 100 * max(share for layer in line["expert_load"] for share in layer)
        routed = (
            f"  balance {_mean(line['balance_loss']):.2f}  entropy {_mean(line['router_entropy']):.2f}  "
            f"fullest expert {fullest:.0f} %  dropped {100 * _mean(line['dropped_share']):.1f} %"
        )
    loss = "none" if line["loss"] is None else f"{line['loss']:.4f}"
    loss += f"  soft {line['soft_loss']:.4f}" if line.get("soft_loss") is not None else ""
    return (
        f"step {line['step']}  loss {loss}{routed}  rate {line['learning_rate']:.2e}  {line['tokens_per_second']:,.0f} tokens/s  "
        f"utilisation {100 * line['utilisation']:.0f} %  {_energy(line['energy'])}{skipped}"
    )


def _loss(facts: dict[str, Any]) -> str:
    capacity = f", at capacity of evaluation {facts['capacity_loss']:.4f}" if "capacity_loss" in facts else ""
    return f"{facts['loss']:.4f}{capacity}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _energy(energy: dict[str, Any]) -> str:
    if energy["measured"]:
        return f"{1000 * energy['kwh']:.3g} Wh measured, PUE {energy['pue']:g}"
    return f"{1000 * energy['kwh']:.3g} Wh estimated at {energy['watts']:g} W, PUE {energy['pue']:g}"


def summary_text(summary: dict[str, Any]) -> str:
    """What a finished run comes to."""
    lines = [
        f"{summary['steps']} steps, {summary['tokens']:,} tokens, {summary['skipped']} skipped, {summary['rollbacks']} rollbacks; "
        + _energy(summary["energy"])
    ]
    if summary["validation"]:
        lines.append(f"validation loss {_loss(summary['validation'])}")
        lines += [f"  {source}: {_loss(facts)}" for source, facts in summary["validation"]["sources"].items()]
    return "\n".join([*lines, f"checkpoint: {summary['checkpoint']}"])
