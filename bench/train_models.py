"""Whole models in training: ours beside a nanoGPT-style model of the same width, depth and heads, in the same run.

    python bench/train_models.py [--rows d128,d128-e8,...] [--dtype float32|bfloat16] [--batch 8] [--runs 20]
                                 [--return-memory]

A step is forward, backward and fused AdamW on `batch` sequences of 256 random tokens, vocabulary 4,096, tied embeddings; bfloat16
is autocast over float32 weights. Ours: RMSNorm, RoPE, SwiGLU; in `-eN` rows every second layer holds N experts, top-2, and dense
layers and experts have half the width, so their active parameters are fewer: compare GFLOP. `-pad` is the capacity-padded form
with room for 1.25 times an even load; the others drop nothing. Theirs: LayerNorm, learned positions, GELU of 4 d, no biases,
logits kept whole.

One thread; freed memory stays with the process, as in `winnow train run` (train/allocator.py), unless --return-memory is given, for
both models. Runs alternate, the order within a pair turns, times are CPU time (meant for a machine that others use too: load is
printed). Every round also multiplies two 1,024 x 1,024 matrices in the row's type, the matmul peak of that moment. Printed are
medians over rounds: tokens a CPU second, useful GFLOP a CPU second by train/flops.py (what dispatch, norms, softmax and the
optimiser do counts for nothing), their share of the peak of the same round, and the paired ratios of ours to theirs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.allocator import keep_freed_memory
from train.config import ModelConfig, MoEConfig
from train.flops import matmul_training, parameters
from train.losses import training_loss
from train.model import build
from train.moe import RoutingOptions

LENGTH, VOCAB, PEAK_SIDE = 256, 4096, 1024


def dense(d: int, layers: int, heads: int, d_ff: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCAB,
        context=LENGTH,
        d_model=d,
        n_layers=layers,
        n_heads=heads,
        d_head=d // heads,
        d_ff=d_ff,
        tied_embeddings=True,
    )


def sparse(base: ModelConfig, experts: int, padded: bool = False) -> ModelConfig:
    half = -(-base.d_ff // 16) * 8
    moe = MoEConfig(experts=experts, top_k=2, d_ff=half, ffn="swiglu", renormalise=True)
    if padded:
        moe = dataclasses.replace(moe, dispatch="padded", capacity_train=2 * 1.25)  # the factor is of tokens, each chosen twice
    return dataclasses.replace(base, d_ff=half, moe=moe)


D128, D256, D512 = dense(128, 4, 4, 344), dense(256, 6, 4, 688), dense(512, 6, 8, 1376)
ROWS = {
    "d128": D128, "d128-e8": sparse(D128, 8), "d128-e8-pad": sparse(D128, 8, True), "d128-e64": sparse(D128, 64),
    "d128-e64-pad": sparse(D128, 64, True), "d256": D256, "d256-e16": sparse(D256, 16), "d256-e16-pad": sparse(D256, 16, True),
    "d256-e64": sparse(D256, 64), "d512": D512,
}  # fmt: skip


class TheirBlock(nn.Module):
    """A GPT-2 block without biases."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, dim=2))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Theirs(nn.Module):
    """The model that nanoGPT trains, of our row's width, depth and heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d_model
        self.tokens, self.places = nn.Embedding(VOCAB, d), nn.Embedding(LENGTH, d)
        self.blocks = nn.Sequential(*(TheirBlock(d, config.n_heads) for _ in range(config.n_layers)))
        self.norm, self.head = nn.LayerNorm(d, bias=False), nn.Linear(d, VOCAB, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return F.cross_entropy(self.head(self.norm(self.blocks(x))).flatten(0, 1), targets.flatten())


def their_flops(config: ModelConfig) -> int:
    """Training FLOPs a token of Theirs: twelve d^2 a layer, the logits, and attention over the whole context."""
    d = config.d_model
    return 3 * (2 * (12 * config.n_layers * d * d + VOCAB * d) + 4 * config.n_layers * LENGTH * d)


Step = Callable[[], None]  # one training step


def stepper(model: nn.Module, loss: Callable[[], Tensor], dtype: torch.dtype) -> Step:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def our_step(config: ModelConfig, tokens: Tensor, targets: Tensor, dtype: torch.dtype) -> Step:
    model, routing = build(config, 0), RoutingOptions(mode="train")
    return stepper(
        model, lambda: training_loss(model(tokens, targets, routing=routing), config, tokens.numel(), len(tokens)), dtype
    )


def their_step(config: ModelConfig, tokens: Tensor, targets: Tensor, dtype: torch.dtype) -> Step:
    model = Theirs(config)
    return stepper(model, lambda: model(tokens, targets), dtype)


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(name: str, config: ModelConfig, batch: int, dtype: torch.dtype, runs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(VOCAB, (2, batch, LENGTH), generator=generator)
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE, generator=generator).to(dtype)
    ours, theirs = our_step(config, tokens, targets, dtype), their_step(config, tokens, targets, dtype)
    rounds: list[tuple[float, float, float]] = []
    for number in range(runs + 2):  # two warm up
        order = (ours, theirs) if number % 2 else (theirs, ours)
        times = {step: seconds(step) for step in order}
        peak = 2 * PEAK_SIDE**3 / seconds(lambda: matrix @ matrix)
        rounds.append((times[ours], times[theirs], peak))
    print(line(name, config, batch * LENGTH, rounds[2:]), flush=True)


HEADER = """
                  M params       tokens/s         GFLOP/s         of peak       ours/theirs      peak  load
              total  active     ours  theirs    ours theirs     ours theirs    tokens GFLOP   GFLOP/s"""


def line(name: str, config: ModelConfig, count: int, rounds: list[tuple[float, float, float]]) -> str:
    """A row of the table. rounds: CPU seconds of our step and of theirs on `count` tokens, FLOP/s of the peak."""
    found, mine, other = parameters(config), count * matmul_training(config, LENGTH), count * their_flops(config)

    def median(value: Callable[[float, float, float], float]) -> float:
        return statistics.median(value(*one) for one in rounds)

    return (
        f"{name:13} {found.total / 1e6:5.2f} {found.active_non_embedding / 1e6:7.2f}"
        f"   {median(lambda a, b, p: count / a):6.0f} {median(lambda a, b, p: count / b):7.0f}"
        f"   {median(lambda a, b, p: mine / a / 1e9):6.1f} {median(lambda a, b, p: other / b / 1e9):6.1f}"
        f"    {median(lambda a, b, p: mine / a / p):4.0%} {median(lambda a, b, p: other / b / p):6.0%}"
        f"   {median(lambda a, b, p: b / a):6.2f} {median(lambda a, b, p: mine / a / (other / b)):5.2f}"
        f"   {median(lambda a, b, p: p / 1e9):7.0f}  {os.getloadavg()[0]:4.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="of " + ", ".join(ROWS))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--return-memory", action="store_true", help="let glibc give freed memory back, as it comes")
    chosen = parser.parse_args()
    if not chosen.return_memory:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{chosen.dtype}, {chosen.batch} x {LENGTH} tokens a step, medians of {chosen.runs}; active: without embeddings")
    print(HEADER)
    for name in chosen.rows.split(","):
        compare(name, ROWS[name], chosen.batch, getattr(torch, chosen.dtype), chosen.runs)


if __name__ == "__main__":
    main()
