"""The decoder: one transformer whose config makes it a LLaMA, GLaM, Switch, Gopher, Chinchilla or GPT-3 model.

* Blocks x + attention(norm(x)), x + feed_forward(norm(x)), a norm at the end (norm_place pre), or norms after the sums (post).
* Layers every - 1, 2 every - 1, ... hold experts (moe.py), the others a dense feed-forward layer (layers.py).
* The loss comes one number a token and without auxiliary losses, by chunked cross-entropy (losses.py).
* Initialisation: every matrix from a normal distribution of deviation sqrt(init_scale / fan_in), cut at two deviations (Switch,
  section 2.4); fan_in is the last dimension, for embeddings too. Gains 1, biases 0. Each parameter draws from a generator seeded by
  (seed, its name), so that neither the order of creation nor sharding changes a weight.
* Checkpointing: `full` keeps each block's input and runs the block again in the backward pass; `selective` is LLaMA's form
  (Touvron et al. 2023, section 2.4): outputs of linear layers and of attention are kept, the rest runs again (attention too where
  a learned bias makes torch write out its T x T products).

Tested on CPUs; not run on a GPU yet.

Departures: Switch and T5 are encoder-decoders, here decoders only; GPT-3's alternating banded attention is dense everywhere.

Shape suffixes: B sequences, T positions, D model width, V vocabulary, L layers, H heads, S keys, Q head width.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from pipelines.errors import UserError
from train import losses
from train.config import ModelConfig
from train.layers import Attention, FeedForward, View, make_norm, make_view
from train.memory import Checkpointing
from train.moe import DROPLESS, MoE, RoutingOptions, RoutingStatistics


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a call gives: with targets loss_BT (float32, nats, 0 where the target is losses.IGNORE), else logits_BTV (float32)."""

    loss_BT: Tensor | None
    logits_BTV: Tensor | None
    routing: RoutingStatistics | None  # stacked over sparse layers; None for dense models


class KVCache:
    """Keys and values of the tokens read so far: [L, B, H, room, Q], of which `length` are filled."""

    def __init__(self, config: ModelConfig, n_sequences: int, room: int, device: Any = None, dtype: Any = None) -> None:
        shape = (config.n_layers, n_sequences, config.n_heads, room, config.d_head)
        self.keys_LBHSQ = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBHSQ = torch.zeros(shape, device=device, dtype=dtype)
        self.room, self.length = room, 0


class Block(nn.Module):
    """One layer: attention and a dense or sparse feed-forward layer."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.pre = config.norm_place == "pre"
        self.attention_norm, self.ffn_norm = make_norm(config), make_norm(config)
        self.attention = Attention(config)
        self.ffn = MoE(config, layer) if config.is_sparse(layer) else FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        options: RoutingOptions,
        valid_BT: Tensor | None = None,
        cache: tuple[Tensor, Tensor] | None = None,
        past: int = 0,
    ) -> tuple[Tensor, RoutingStatistics | None]:
        """[B, T, D] and what the layer routed, None in a dense one."""
        attended = self.attention(self.attention_norm(x_BTD) if self.pre else x_BTD, view, cache, past)
        x_BTD = x_BTD + attended if self.pre else self.attention_norm(x_BTD + attended)
        inner = self.ffn_norm(x_BTD) if self.pre else x_BTD
        statistics: RoutingStatistics | None = None
        if isinstance(self.ffn, MoE):
            fed, statistics = self.ffn(inner, options, valid_BT)
        else:
            fed = self.ffn(inner)
        return x_BTD + fed if self.pre else self.ffn_norm(x_BTD + fed), statistics


class Decoder(nn.Module):
    """The model. Parameters are uninitialised: use `build`, or load them. `checkpointing` may be changed at any time."""

    def __init__(self, config: ModelConfig, checkpointing: Checkpointing = "none") -> None:
        super().__init__()
        self.config, self.checkpointing = config, checkpointing
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        if config.norm_place == "pre":
            self.final_norm = make_norm(config)
        if not config.tied_embeddings:
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        starts_BT: Tensor | None = None,
        valid_BT: Tensor | None = None,
        routing: RoutingOptions = DROPLESS,
        cache: KVCache | None = None,
    ) -> Outputs:
        """Losses where targets are given, else logits.

        tokens_BT: int64. targets_BT: int64, losses.IGNORE where there is none. starts_BT: bool, true where a document begins: then
        attention stays within documents and positions count from 0 in each; None lets attention cross. valid_BT: bool, false at
        padding, which routing then leaves out. Raises UserError where learned positions run out.
        """
        hidden_BTD, statistics = self.hidden(tokens_BT, starts_BT=starts_BT, valid_BT=valid_BT, routing=routing, cache=cache)
        if targets_BT is None:
            return Outputs(None, losses.logits(hidden_BTD, self.output_weight), statistics)
        loss_N = losses.cross_entropy(hidden_BTD.flatten(0, 1), self.output_weight, targets_BT.flatten())
        return Outputs(loss_N.view_as(targets_BT), None, statistics)

    def _saving(self) -> dict[str, Any]:
        return {"context_fn": _keep_linear_outputs} if self.checkpointing == "selective" else {}

    @property
    def output_weight(self) -> Tensor:
        """[V, D]: what turns hidden states into logits."""
        return self.embedding.weight if self.config.tied_embeddings else self.head.weight

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        starts_BT: Tensor | None = None,
        valid_BT: Tensor | None = None,
        routing: RoutingOptions = DROPLESS,
        cache: KVCache | None = None,
    ) -> tuple[Tensor, RoutingStatistics | None]:
        """[B, T, D] after the last norm, and what was routed. Arguments as in `forward`."""
        length, past = tokens_BT.shape[1], 0 if cache is None else cache.length
        if cache is not None and (starts_BT is not None or past + length > cache.room):
            raise ValueError(f"{past} + {length} tokens need a cache of that room (has {cache.room}) and no document starts")
        x_BTD = self.embedding(tokens_BT)
        view = make_view(self.config, length, past, starts_BT, tokens_BT.device)
        if self.config.positions == "learned":
            if past + length > self.config.context:
                raise UserError(f"{past + length} tokens, but the model's learned positions end at {self.config.context}")
            x_BTD = x_BTD + self.positions(view.position_BT)
        found = []
        for layer, block in enumerate(self.blocks):
            if cache is not None:
                stored = (cache.keys_LBHSQ[layer], cache.values_LBHSQ[layer])
                x_BTD, statistics = block(x_BTD, view, routing, valid_BT, stored, past)
            elif self.checkpointing == "none" or not torch.is_grad_enabled():
                x_BTD, statistics = block(x_BTD, view, routing, valid_BT)
            else:
                x_BTD, statistics = checkpoint(
                    block, x_BTD, view, routing, valid_BT, use_reentrant=False, preserve_rng_state=False, **self._saving()
                )
            if statistics is not None:
                found.append(statistics)
        if cache is not None:
            cache.length += length
        if self.config.norm_place == "pre":
            x_BTD = self.final_norm(x_BTD)
        return x_BTD, _stack(found)


def _stack(found: list[RoutingStatistics]) -> RoutingStatistics | None:
    if not found:
        return None
    fields: list[Any] = [None if field[0] is None else torch.stack(field) for field in zip(*found, strict=True)]
    return RoutingStatistics(*fields)


_SAVED = frozenset({
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.baddbmm.default,  # of experts (dispatch.padded); bmm are the T x T products of attention with a learned bias
    torch.ops.aten._grouped_mm.default,
    torch.ops.winnow.grouped_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
})


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _SAVED else CheckpointPolicy.PREFER_RECOMPUTE


_keep_linear_outputs = functools.partial(create_selective_checkpoint_contexts, _policy)


def build(config: ModelConfig, seed: int, checkpointing: Checkpointing = "none", device: Any = "cpu") -> Decoder:
    """A model with its initial weights in float32, a function of (config, seed) alone."""
    with torch.device("meta"):
        model = Decoder(config, checkpointing)
    model.to_empty(device=device)
    initialise(model, seed)
    return model


def initialise(model: Decoder, seed: int) -> None:
    """Set all parameters to their initial values."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_value(model.config, seed, name, parameter.shape))


def initial_value(config: ModelConfig, seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """float32, on the CPU: the initial value of the whole parameter of this name and shape."""
    fresh = torch.empty(tuple(shape))
    if fresh.ndim < 2 or name.endswith("_bias"):
        return fresh.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    deviation = (config.init_scale / shape[-1]) ** 0.5
    generator = torch.Generator().manual_seed(_parameter_seed(seed, name))
    return torch.nn.init.trunc_normal_(fresh, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)


def _parameter_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest(), "little") >> 1
