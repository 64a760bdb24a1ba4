"""A sparse layer forward and backward: ours beside Hugging Face's Mixtral and Switch blocks, in the same run.

    python bench/moe_layer.py [--experts 8,16,64] [--tokens 2048] [--width 128] [--dtype float32|bfloat16] [--runs 20]

Needs transformers. Mixtral (top-2, SwiGLU) has three forms: an eager loop over experts, grouped_mm, and batched_mm, which gathers
weights a token and is timed once only. Switch (top-1, ReLU) has its loop. All get the same weights and input, and the outputs are
compared first. Ours routes dropless and computes what theirs do not: both auxiliary losses' terms, loads and entropy.

One thread. Runs alternate, the order within a pair turns, times are CPU time; printed are medians in ms, the median of the
ratios of each pair, and useful GFLOP a CPU second (forward and backward matrix products of the chosen experts).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import MixtralConfig, SwitchTransformersConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from train.config import ModelConfig, MoEConfig
from train.flops import first_width
from train.moe import MoE, RoutingOptions

Layer = Callable[[Tensor], Tensor]


def ours(width: int, moe: MoEConfig, dtype: torch.dtype) -> MoE:
    config = ModelConfig(vocab_size=8, context=8, d_model=width, n_layers=1, n_heads=1, d_head=8, d_ff=8, moe=moe)
    layer = MoE(config, 0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=width**-0.5)
    return layer.to(dtype)


def mixtral(layer: MoE, width: int, form: str) -> MixtralSparseMoeBlock:
    config = MixtralConfig(
        hidden_size=width, intermediate_size=layer.moe.d_ff, num_local_experts=layer.moe.experts, num_experts_per_tok=2
    )
    config._experts_implementation = form
    block = MixtralSparseMoeBlock(config).to(layer.router_ED.dtype)
    with torch.no_grad():
        block.gate.weight.copy_(layer.router_ED)
        block.experts.gate_up_proj.copy_(layer.experts.w_in_EFD)
        block.experts.down_proj.copy_(layer.experts.w_out_EDF)
    return block


def switch(layer: MoE, width: int) -> SwitchTransformersSparseMLP:
    config = SwitchTransformersConfig(
        d_model=width, d_ff=layer.moe.d_ff, num_experts=layer.moe.experts, expert_capacity=10**6, router_jitter_noise=0.0,
        dropout_rate=0.0,
    )  # fmt: skip
    block = SwitchTransformersSparseMLP(config).to(layer.router_ED.dtype)
    with torch.no_grad():
        block.router.classifier.weight.copy_(layer.router_ED)
        for expert in range(layer.moe.experts):
            block.experts[f"expert_{expert}"].wi.weight.copy_(layer.experts.w_in_EFD[expert])
            block.experts[f"expert_{expert}"].wo.weight.copy_(layer.experts.w_out_EDF[expert])
    return block


def seconds(layer: Layer, module: torch.nn.Module, x: Tensor) -> float:
    """CPU seconds of one forward and backward pass, gradients by input and weights."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    start = time.process_time()
    layer(x).sum().backward()
    return time.process_time() - start


Timed = tuple[Layer, torch.nn.Module]


def paired(one: Timed, other: Timed, x: Tensor, runs: int) -> tuple[float, float, float]:
    """(median of one, median of the other, median of the ratios one / other) over alternating runs; two rounds warm up."""
    times: list[tuple[float, float]] = []
    for number in range(runs + 2):
        if number % 2:
            times.append((seconds(*one, x), seconds(*other, x)))
        else:
            late = seconds(*other, x)
            times.append((seconds(*one, x), late))
    kept = times[2:]
    first, second = (statistics.median(column) for column in zip(*kept, strict=True))
    return first, second, statistics.median(a / b for a, b in kept)


def compare(name: str, layer: MoE, theirs: dict[str, torch.nn.Module], x: Tensor, runs: int) -> None:
    moe = layer.moe

    def call(x: Tensor) -> Tensor:
        return layer(x, RoutingOptions())[0]

    useful = 3 * 2 * moe.top_k * x.shape[0] * x.shape[1] * x.shape[2] * (first_width(moe.ffn, moe.d_ff) + moe.d_ff)
    for form, block in theirs.items():
        difference = float((call(x) - block(x)).detach().norm() / call(x).detach().norm())
        few = 1 if form == "batched_mm" else runs
        mine, other, ratio = paired((call, layer), (block, block), x, few)
        print(
            f"{name:8} E {moe.experts:3}  ours {1e3 * mine:7.1f} ms ({useful / mine / 1e9:5.1f} GFLOP/s)"
            f"  {form:10} {1e3 * other:8.1f} ms  ours / theirs {ratio:6.3f}  outputs differ by {difference:.0e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", default="8,16,64")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--runs", type=int, default=20)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype, width = getattr(torch, chosen.dtype), chosen.width
    d_ff = -(-width * 4 // 3 // 8) * 8
    x = torch.randn(8, chosen.tokens // 8, width, dtype=dtype)
    for experts in map(int, chosen.experts.split(",")):
        top_2 = MoEConfig(experts=experts, top_k=2, d_ff=d_ff, ffn="swiglu", every=1, renormalise=True)
        layer = ours(width, top_2, dtype)
        forms = ("grouped_mm", "eager", "batched_mm") if dtype == torch.float32 else ("grouped_mm", "eager")
        compare("mixtral", layer, {form: mixtral(layer, width, form) for form in forms}, x, chosen.runs)
        top_1 = dataclasses.replace(top_2, top_k=1, renormalise=False, ffn="relu", d_ff=2 * d_ff)
        layer = ours(width, top_1, dtype)
        compare("switch", layer, {"eager": switch(layer, width)}, x, chosen.runs)


if __name__ == "__main__":
    main()
