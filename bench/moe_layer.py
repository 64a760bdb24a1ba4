"""A sparse layer forward and backward: ours beside Hugging Face's Mixtral and Switch blocks, in the same run.

    python bench/moe_layer.py [--experts 8,16,64] [--tokens 2048] [--width 128] [--dtype float32|bfloat16] [--runs 20]

Needs transformers. Mixtral (top-2, SwiGLU; also with top-1 and twice the width) has three forms: an eager loop over experts,
grouped_mm, and batched_mm, which gathers weights a token and is timed once only. Switch (top-1, ReLU) has one form, a loop over
experts that are modules of their own. All get the same weights, input and type, drop nothing, and give gradients by input and all
weights; the outputs are compared first. Ours computes what theirs do not: both auxiliary losses' terms, loads and entropy.

One thread; freed memory stays with the process, as in `winnow train run` (train/allocator.py), for all. Runs alternate, the order
within a pair turns, times are CPU time; printed are medians over the rounds, of ratios within a round:

    theirs/ours   how many times faster ours is
    at most       theirs / (useful FLOP / matmul peak): a layer that does nothing but its six products (two forward, four backward),
                  as fast as torch multiplies two 1,024 x 1,024 matrices in that round
    by torch      theirs / the six products by torch's grouped_mm on the same groups: nothing built on these gets beyond it
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import MixtralConfig, SwitchTransformersConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from train.allocator import keep_freed_memory
from train.config import ModelConfig, MoEConfig
from train.flops import first_width
from train.moe import MoE, RoutingOptions

Layer = Callable[[Tensor], Tensor]
PEAK_SIDE = 1024


def ours(width: int, moe: MoEConfig, dtype: torch.dtype) -> MoE:
    config = ModelConfig(vocab_size=8, context=8, d_model=width, n_layers=1, n_heads=1, d_head=8, d_ff=8, moe=moe)
    layer = MoE(config, 0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=width**-0.5)
    return layer.to(dtype)


def mixtral(layer: MoE, width: int, form: str) -> MixtralSparseMoeBlock:
    config = MixtralConfig(
        hidden_size=width, intermediate_size=layer.moe.d_ff, num_local_experts=layer.moe.experts,
        num_experts_per_tok=layer.moe.top_k,
    )  # fmt: skip
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


def products(layer: MoE, x: Tensor) -> Callable[[], object]:
    """The six matrix products of this layer's forward and backward pass, on rows that are sorted already, and nothing else."""
    loads_E = layer(x, RoutingOptions())[1].load_E
    offsets_E = loads_E.cumsum(0).to(torch.int32)
    w_in, w_out = layer.experts.w_in_EFD.detach(), layer.experts.w_out_EDF.detach()
    x_RD = torch.randn(int(loads_E.sum()), w_in.shape[2]).to(x.dtype)
    h_RF, in_RF = torch.randn(len(x_RD), w_out.shape[2]).to(x.dtype), torch.randn(len(x_RD), w_in.shape[1]).to(x.dtype)

    def multiply() -> None:
        F.grouped_mm(x_RD, w_in.transpose(1, 2), offs=offsets_E)
        F.grouped_mm(h_RF, w_out.transpose(1, 2), offs=offsets_E)
        F.grouped_mm(x_RD, w_out, offs=offsets_E)
        F.grouped_mm(x_RD.T, h_RF, offs=offsets_E)
        F.grouped_mm(in_RF, w_in, offs=offsets_E)
        F.grouped_mm(in_RF.T, x_RD, offs=offsets_E)

    return multiply


def timed(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(name: str, layer: MoE, theirs: dict[str, torch.nn.Module], x: Tensor, runs: int) -> None:
    moe = layer.moe

    def call(x: Tensor) -> Tensor:
        return layer(x, RoutingOptions())[0]

    useful = 3 * 2 * moe.top_k * x.shape[0] * x.shape[1] * x.shape[2] * (first_width(moe.ffn, moe.d_ff) + moe.d_ff)
    multiply, matrix = products(layer, x), torch.randn(PEAK_SIDE, PEAK_SIDE).to(x.dtype)
    for form, block in theirs.items():
        difference = float((call(x) - block(x)).detach().norm() / call(x).detach().norm())
        rounds: list[tuple[float, float, float, float]] = []
        for number in range((1 if form == "batched_mm" else runs) + 2):  # two warm up
            order = [(call, layer), (block, block)]
            times = {module: seconds(way, module, x) for way, module in (order if number % 2 else order[::-1])}
            peak = 2 * PEAK_SIDE**3 / timed(lambda: matrix @ matrix)
            rounds.append((times[layer], times[block], timed(multiply), peak))
        print(line(f"{name:8} {moe.experts:3}", form, useful, rounds[2:], difference), flush=True)


HEADER = """
                              ms           theirs/ours            GFLOP/s        outputs
block      E  form        ours theirs      at most by torch     ours   peak       differ"""


def line(name: str, form: str, useful: int, rounds: list[tuple[float, float, float, float]], difference: float) -> str:
    """A row of the table. rounds: CPU seconds of ours, of theirs and of the products alone; FLOP/s of the peak."""

    def median(value: Callable[[float, float, float, float], float]) -> float:
        return statistics.median(value(*one) for one in rounds)

    return (
        f"{name}  {form:10} {median(lambda a, b, c, p: 1e3 * a):5.1f} {median(lambda a, b, c, p: 1e3 * b):6.1f}"
        f" {median(lambda a, b, c, p: b / a):6.2f} {median(lambda a, b, c, p: b * p / useful):6.2f}"
        f" {median(lambda a, b, c, p: b / c):8.2f}"
        f"   {median(lambda a, b, c, p: useful / a / 1e9):6.1f} {median(lambda a, b, c, p: p / 1e9):6.0f}        {difference:.0e}"
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
    keep_freed_memory()
    torch.manual_seed(0)
    print(f"{chosen.dtype}, {chosen.tokens} tokens of width {chosen.width}, medians of {chosen.runs}")
    print(HEADER)
    dtype, width = getattr(torch, chosen.dtype), chosen.width
    d_ff = -(-width * 4 // 3 // 8) * 8
    x = torch.randn(8, chosen.tokens // 8, width, dtype=dtype)
    for experts in map(int, chosen.experts.split(",")):
        top_2 = MoEConfig(experts=experts, top_k=2, d_ff=d_ff, ffn="swiglu", every=1, renormalise=True)
        layer = ours(width, top_2, dtype)
        forms = ("grouped_mm", "eager", "batched_mm") if dtype == torch.float32 else ("grouped_mm", "eager")
        compare("mixtral", layer, {form: mixtral(layer, width, form) for form in forms}, x, chosen.runs)
        top_1 = dataclasses.replace(top_2, top_k=1, d_ff=2 * d_ff)
        layer = ours(width, top_1, dtype)
        compare("top-1", layer, {form: mixtral(layer, width, form) for form in ("grouped_mm", "eager")}, x, chosen.runs)
        layer = ours(width, dataclasses.replace(top_1, renormalise=False, ffn="relu"), dtype)
        compare("switch", layer, {"modules": switch(layer, width)}, x, chosen.runs)


if __name__ == "__main__":
    main()
