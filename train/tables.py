"""What `winnow train presets` prints: every preset's counts beside its paper's, FLOPs a token, bytes, and devices.

Totals are counted on the real modules, built on torch's meta device (shapes without memory); everything else is arithmetic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pipelines.errors import CheckError
from train import flops, memory
from train.presets import Preset


@dataclass(frozen=True, slots=True)
class PresetFacts:
    """One row. Errors are relative to the published number. FLOPs are a token's; bytes of activations are one sequence's."""

    name: str
    total_params: int
    active_params: int
    published_total: float | None
    published_active: float | None
    total_error: float | None
    active_error: float | None
    flops_per_token: int  # 2 x active parameters, forward
    published_flops_per_token: float | None
    flops_error: float | None
    kaplan_flops_per_token: int  # forward
    matmul_flops_per_token: int  # forward, of this implementation
    chinchilla_training_flops_per_token: float
    context: int
    weight_bytes: int
    gradient_bytes: int
    optimiser: str
    optimiser_bytes: int
    activation_bytes: dict[str, int]  # by checkpointing: none, selective, full
    train_devices: int | None
    serve_devices: int
    peak_learning_rate: float | None
    batch_tokens: int | None
    misfit: str | None


def facts(preset: Preset) -> PresetFacts:
    """The row of one preset. Raises CheckError where modules and arithmetic disagree on the count."""
    config, context = preset.config, preset.config.context
    counted = flops.parameters(config)
    built = count_on_meta(preset)
    if built != counted.total:
        raise CheckError(f"{preset.name}: the modules hold {built} parameters, train.flops counts {counted.total}")
    forward = 2 * counted.active
    return PresetFacts(
        name=preset.name,
        total_params=built,
        active_params=counted.active,
        published_total=preset.published_total,
        published_active=preset.published_active,
        total_error=_error(built, preset.published_total),
        active_error=_error(counted.active, preset.published_active),
        flops_per_token=forward,
        published_flops_per_token=preset.published_flops,
        flops_error=_error(forward, preset.published_flops),
        kaplan_flops_per_token=flops.kaplan_forward(config, context),
        matmul_flops_per_token=flops.matmul_forward(config, context),
        chinchilla_training_flops_per_token=flops.chinchilla_training(config, context) / context,
        context=context,
        weight_bytes=4 * built,
        gradient_bytes=4 * built,
        optimiser=preset.optimiser,
        optimiser_bytes=memory.optimiser_bytes(config, preset.optimiser),
        activation_bytes={kind: memory.activation_bytes(config, context, kind) for kind in ("none", "selective", "full")},
        train_devices=memory.training_devices(config, preset.optimiser, context),
        serve_devices=memory.serving_devices(config, context),
        peak_learning_rate=preset.peak,
        batch_tokens=preset.batch_tokens,
        misfit=preset.misfit,
    )


def count_on_meta(preset: Preset) -> int:
    """The number of parameters of the real modules."""
    import torch

    from train.model import Decoder

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(preset.config).parameters())


def _error(got: float, published: float | None) -> float | None:
    return None if published is None else round(got / published - 1, 6)


def to_json(rows: list[PresetFacts]) -> list[dict[str, object]]:
    """One object a preset, keys in the order of the fields."""
    return [asdict(row) for row in rows]


def to_text(rows: list[PresetFacts]) -> str:
    """A table, then the misfits."""
    titles = ("", "params", "error", "active", "error", "GFLOP/token", "states", "activations", "train", "serve", "peak", "batch")
    lines = [titles, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    notes = [
        "",
        "error: against the published number. GFLOP/token: forward, 2 x active. states: weights, gradients, optimiser in float32.",
        "activations: one sequence of the preset's context, full checkpointing.",
        "train: the fewest 80 GB devices by parallel: fsdp or experts, - where neither holds the model with any number of them.",
        "serve: the same for generation in bfloat16, all experts resident.",
        "peak, batch: the paper's learning rate and tokens an update, which a run takes; of the tiny models ours.",
        "",
        "Known misfits of published numbers:",
        *(f"  {row.name}: {row.misfit}" for row in rows if row.misfit),
    ]
    return "\n".join(line.rstrip() for line in [*table, *notes])


def _cells(row: PresetFacts) -> tuple[str, ...]:
    states = row.weight_bytes + row.gradient_bytes + row.optimiser_bytes
    return (
        row.name,
        _count(row.total_params),
        _percent(row.total_error),
        _count(row.active_params),
        _percent(row.active_error),
        f"{row.flops_per_token / 1e9:.4g}",
        f"{_count(states)}B",
        f"{_count(row.activation_bytes['full'])}B",
        "-" if row.train_devices is None else str(row.train_devices),
        str(row.serve_devices),
        "-" if row.peak_learning_rate is None else f"{row.peak_learning_rate:g}",
        "-" if row.batch_tokens is None else _count(row.batch_tokens),
    )


def _count(number: float) -> str:
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= factor:
            return f"{number / factor:.4g} {letter}"
    return f"{number / 1e3:.4g} k"


def _percent(error: float | None) -> str:
    return "" if error is None else f"{100 * error:+.2f} %"
