"""Parameters and floating-point operations of a model, by arithmetic on its config: no torch, nothing built.

`weights` lists every parameter of `train.model.Decoder` with its shape; the counts are sums over that list.

* **Active** parameters (GLaM, Du et al. 2022): those that one token goes through, so top_k of the experts. Embeddings count.
* **GLaM's FLOPs a token**: 2 x active parameters, forward.
* **Kaplan et al. 2020**, table 1: forward 2 N + 2 n_layer n_ctx d_attn a token, N active without embeddings; 6 N in training.
* **Chinchilla** (Hoffmann et al. 2022, appendix F): by matrix, for a whole sequence, with softmax, with backward = 2 x forward.
  Embeddings and logits are left out: so the authors' table A4 is reproduced (their correspondence, as nanoGPT reports it).
* **Matrix multiplications that really happen**: what utilisation is measured by. Every product of this model for one token,
  the output's too, attention over the whole context as in PaLM's appendix B (half of it is masked). Left out: Transformer-XL's
  W_r r, which is computed once a call. Training is three times the forward pass: recomputation is not useful work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from train.config import GATED, Ffn, ModelConfig

Kind = Literal["embedding", "matrix", "expert", "other"]  # other: norms, biases, small tables


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter that occurs `copies` times. A matrix or expert takes part in one multiplication a token."""

    kind: Kind
    shape: tuple[int, ...]
    copies: int

    @property
    def size(self) -> int:
        """Numbers in all copies."""
        return self.copies * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts. `active_matrices`: weights that multiply one token, the tied output matrix too."""

    total: int
    active: int
    embedding: int
    active_matrices: int

    @property
    def active_non_embedding(self) -> int:
        """Kaplan's N."""
        return self.active - self.embedding


def weights(config: ModelConfig) -> list[Weight]:
    """Every parameter of the model."""
    d, layers, heads, width = config.d_model, config.n_layers, config.n_heads, config.d_attention
    found = [Weight("embedding", (config.vocab_size, d), 1)]
    if config.positions == "learned":
        found.append(Weight("embedding", (config.context, d), 1))
    if not config.tied_embeddings:
        found.append(Weight("matrix", (config.vocab_size, d), 1))
    norms = 2 * layers + (config.norm_place == "pre")
    found.append(Weight("other", (d,), norms * (2 if config.norm == "layernorm" else 1)))
    found += _linear(3 * width, d, config.bias, layers) + _linear(d, width, config.bias, layers)
    if config.positions == "relative_bias":
        found.append(Weight("other", (config.relative_buckets, heads), layers))
    if config.positions == "transformer_xl":
        found += [Weight("matrix", (width, d), layers), Weight("other", (heads, config.d_head), 2 * layers)]
    dense = layers - config.n_sparse
    found += _linear(first_width(config.ffn, config.d_ff), d, config.bias, dense) + _linear(d, config.d_ff, config.bias, dense)
    if config.moe is not None:
        moe, sparse = config.moe, config.n_sparse
        found.append(Weight("matrix", (moe.experts, d), sparse))
        found.append(Weight("expert", (moe.experts, first_width(moe.ffn, moe.d_ff), d), sparse))
        found.append(Weight("expert", (moe.experts, d, moe.d_ff), sparse))
    return [weight for weight in found if weight.copies]


def _linear(out: int, into: int, bias: bool, copies: int) -> list[Weight]:
    return [Weight("matrix", (out, into), copies)] + ([Weight("other", (out,), copies)] if bias else [])


def first_width(ffn: Ffn, d_ff: int) -> int:
    """Rows of a feed-forward layer's first matrix: gated kinds hold gate and value."""
    return 2 * d_ff if ffn in GATED else d_ff


def parameters(config: ModelConfig) -> Parameters:
    """The counts of a model."""
    total = active = embedding = active_matrices = 0
    for weight in weights(config):
        used = weight.size
        if weight.kind == "expert" and config.moe is not None:
            used = used * config.moe.top_k // config.moe.experts
        total += weight.size
        active += used
        embedding += weight.size if weight.kind == "embedding" else 0
        active_matrices += used if weight.kind in ("matrix", "expert") else 0
    if config.tied_embeddings:
        active_matrices += config.vocab_size * config.d_model
    return Parameters(total, active, embedding, active_matrices)


def kaplan_forward(config: ModelConfig, context: int) -> int:
    """Forward FLOPs a token by Kaplan's table 1."""
    return 2 * parameters(config).active_non_embedding + 2 * config.n_layers * context * config.d_attention


def chinchilla_training(config: ModelConfig, length: int) -> int:
    """Training FLOPs of one sequence by Chinchilla's appendix F, with top_k experts where a layer is sparse."""
    d, width = config.d_model, config.d_attention
    attention = 2 * 3 * length * d * width + 2 * length**2 * width + 3 * config.n_heads * length**2
    attention += 2 * length**2 * width + 2 * length * width * d
    dense = 2 * length * d * (first_width(config.ffn, config.d_ff) + config.d_ff)
    forward = config.n_layers * attention + (config.n_layers - config.n_sparse) * dense
    if config.moe is not None:
        moe = config.moe
        expert = 2 * length * d * (first_width(moe.ffn, moe.d_ff) + moe.d_ff)
        forward += config.n_sparse * (moe.top_k * expert + 2 * length * d * moe.experts)
    return 3 * forward


def matmul_forward(config: ModelConfig, context: int) -> int:
    """Forward FLOPs a token of this model's matrix multiplications, attention over `context` keys."""
    scores = 3 if config.positions == "transformer_xl" else 2  # products of T x T: q k, weights v, and there q r
    matrices = parameters(config).active_matrices
    if config.positions == "transformer_xl":
        matrices -= config.n_layers * config.d_model * config.d_attention
    return 2 * matrices + 2 * scores * config.n_layers * context * config.d_attention


def matmul_training(config: ModelConfig, context: int) -> int:
    """Training FLOPs a token: forward, and twice that backward."""
    return 3 * matmul_forward(config, context)
