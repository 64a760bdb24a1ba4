"""Bytes that a model needs, and the fewest 80 GB devices that hold it.

* **States**: weights, gradients and optimiser in float32, as this trainer keeps them (GLaM too, with bfloat16 activations).
  AdamW holds two numbers a weight. GLaM's and Switch's Adafactor (Shazeer and Stern 2018, no momentum) holds one a row and one a
  column of every matrix, one a number of every vector.
* **Activations** of one sequence: what autograd keeps between forward and backward pass, counted tensor by tensor for this model's
  layers under bfloat16 autocast; tests hold the count to what torch saves. Full checkpointing keeps a block's input, the selective
  form also the outputs of linear layers, and of attention where positions need no bias; both add one block that is run again.
* **Devices to train**: what this trainer needs, by `fsdp` or by `experts` (train/parallel.py), whichever takes fewer. Each device
  adds the activations of one sequence under full checkpointing. Under fsdp states lie evenly over all devices, but each gathers two
  neighbouring groups at a time (attention; a feed-forward layer, or all experts of a layer) with their gradients, and the embedding
  and the output in float32 for the whole step. Under experts each has its share of the experts and all the rest, as one device
  alone has all. A layer whose experts are too large to gather, beside a rest too large to repeat, cannot be trained at all.
* **Devices to serve**: all weights are resident in bfloat16, every expert too, which is GLaM's own stated limit (Du et al. 2022,
  section 6), with the keys and values of one sequence.

An estimate: nothing here counts fragmentation, communication buffers or the logits of one chunk (64 MB).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from train.config import GATED, ModelConfig
from train.flops import Weight, first_width, parameters, weights

DEVICE_BYTES = 80 * 10**9
Optimiser = Literal["adamw", "adafactor"]
Checkpointing = Literal["none", "full", "selective"]


def optimiser_bytes(config: ModelConfig, optimiser: Optimiser) -> int:
    """Bytes of the optimiser's state, float32."""
    return _optimiser_bytes(weights(config), optimiser)


def _optimiser_bytes(some: Iterable[Weight], optimiser: Optimiser) -> int:
    numbers = 0
    for weight in some:
        if optimiser == "adamw":
            numbers += 2 * weight.size
            continue
        *stack, rows, columns = (1, *weight.shape)
        factored = len(weight.shape) > 1
        numbers += weight.copies * math.prod(stack) * (rows + columns if factored else rows * columns)
    return 4 * numbers


def activation_bytes(config: ModelConfig, length: int, checkpointing: Checkpointing, compute: int = 2) -> int:
    """Bytes kept for the backward pass of one sequence of `length` tokens; `compute`: bytes of a number in matrix products."""
    layers = [_layer(config, length, layer, compute) for layer in range(config.n_layers)]
    if checkpointing == "none":
        kept = sum(whole for whole, _ in layers)
    elif checkpointing == "full":
        kept = 4 * config.d_model * config.n_layers + max(whole for whole, _ in layers)
    else:
        kept = sum(4 * config.d_model + linear for _, linear in layers) + max(whole for whole, _ in layers)
    return length * (kept + _norm(config, compute))


def _layer(config: ModelConfig, length: int, layer: int, compute: int) -> tuple[int, int]:
    """Bytes a token of one block: (all that is kept, outputs of linear layers and attention)."""
    d, width, heads = config.d_model, config.d_attention, config.n_heads
    kept = 2 * _norm(config, compute) + compute * 4 * width  # queries, keys, values in one; the output
    linear = compute * (3 * width + d)
    if config.positions in ("relative_bias", "transformer_xl"):  # scores are written out, weights in float32; they run again
        kept += 4 * heads * length + compute * 2 * width
        if config.positions == "transformer_xl":  # scores by distance; queries twice; W_r r and its input
            kept += compute * (heads * length + 2 * width) + compute * d
            linear += compute * width
    else:
        kept += 4 * heads + (compute * 3 * width if config.positions == "rope" else 0)
        linear += compute * width + 4 * heads
    if config.moe is not None and config.is_sparse(layer):
        moe, gated = config.moe, config.moe.ffn in GATED
        kept += compute * moe.top_k * (2 * d + moe.d_ff * (4 if gated else 2)) + 2 * 4 * moe.experts
        kept += d * (4 - compute)  # the router's input is float32
        linear += compute * moe.top_k * (moe.d_ff * (2 if gated else 1) + d) + 4 * moe.experts
    else:
        gated = config.ffn in GATED
        kept += compute * config.d_ff * (4 if gated else 2)
        linear += compute * (config.d_ff * (2 if gated else 1) + d)
    return kept, linear


def _norm(config: ModelConfig, compute: int) -> int:
    """Its input (RMSNorm: and normalised input) in float32, its output for the next multiplication."""
    return config.d_model * ((2 if config.norm == "rmsnorm" else 1) * 4 + compute)


def training_devices(config: ModelConfig, optimiser: Optimiser, length: int) -> int | None:
    """The fewest devices that train the model by fsdp or by experts; None where neither does with any number."""
    every = weights(config)
    experts = [weight for weight in every if weight.kind == "expert"]
    rest = [weight for weight in every if weight.kind != "expert"]
    room = DEVICE_BYTES - activation_bytes(config, length, "full")
    layer = sum(weight.size // weight.copies for weight in experts)
    # Autocast keeps copies in bfloat16 of all matrices; those of experts live, with their gradients, while their layer runs.
    repeated = _states(rest, optimiser) + 2 * sum(weight.size for weight in rest if weight.kind != "other")
    spread = _states(experts, optimiser) + 4 * layer
    most = 1 if config.moe is None else config.moe.experts
    fitting = [n for n in range(1, most + 1) if most % n == 0 and repeated + spread / n <= room]
    left = room - _gathered(config)
    if left > 0:
        fitting.append(max(2, -(-_states(every, optimiser) // left)))
    return min(fitting, default=None)


def _states(some: list[Weight], optimiser: Optimiser) -> int:
    """Bytes of weights, gradients and optimiser."""
    return 8 * sum(weight.size for weight in some) + _optimiser_bytes(some, optimiser)


def _gathered(config: ModelConfig) -> int:
    """Bytes beside a device's share of the states under fsdp: of groups weights and gradients in bfloat16, and in float32 what is
    reduced; of the embedding and the output all three in float32."""
    d, width = config.d_model, config.d_attention
    attention = 4 * width * d + (width * d if config.positions == "transformer_xl" else 0)
    groups = [(first_width(config.ffn, config.d_ff) + config.d_ff) * d] if config.n_sparse < config.n_layers else []
    if config.moe is not None:
        groups.append(config.moe.experts * (first_width(config.moe.ffn, config.moe.d_ff) + config.moe.d_ff) * d)
    ends = config.vocab_size * (1 if config.tied_embeddings else 2) + (config.context if config.positions == "learned" else 0)
    return (2 + 2 + 4) * (attention + max(groups)) + (4 + 4 + 4) * ends * d


def serving_devices(config: ModelConfig, length: int) -> int:
    """The fewest devices that hold all weights in bfloat16, and the keys and values of one sequence."""
    cache = 2 * 2 * config.n_layers * config.d_attention * length
    return -(-(2 * parameters(config).total + cache) // DEVICE_BYTES)
