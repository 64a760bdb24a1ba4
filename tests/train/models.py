"""Small models and inputs for the tests of the trainer."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from train.config import ModelConfig, MoEConfig

MOE = MoEConfig(experts=4, top_k=2, d_ff=24, ffn="gelu", every=2, renormalise=True, min_capacity=1)
DENSE = ModelConfig(vocab_size=61, context=32, d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=24, ffn="geglu")
SPARSE = dataclasses.replace(DENSE, moe=MOE)


def moe(**changes: object) -> ModelConfig:
    """The small sparse model with other experts."""
    return dataclasses.replace(SPARSE, moe=dataclasses.replace(MOE, **changes))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, vocab: int = DENSE.vocab_size, seed: int = 0) -> Tensor:
    """Token ids that depend on the seed alone."""
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def relative(got: Tensor, wanted: Tensor) -> float:
    """The norm of the difference by the norm of what is wanted."""
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())
