"""Sparse feed-forward layers: experts, router and routing as in GLaM (Du et al. 2022) and Switch (Fedus et al. 2022).

* The router runs in float32, whatever the precision around it: logits = x W_r, probabilities = softmax, the top_k largest chosen.
  Its input is jittered in training (Switch). Switch multiplies an expert's output by the probability itself, which is the
  router's path for gradients; GLaM divides the chosen probabilities by their sum (plus 1e-9, mesh-tensorflow), before anything
  is dropped.
* Capacity (GShard, Lepikhin et al. 2020): in a routing group, assignments are taken in the order first choices by token, then
  second choices by token, until an expert is full; what does not fit adds nothing and the token passes through the residual.
* Three modes. `train`: jitter, expert dropout, `capacity_train`. `dropless`: no noise, no capacity; every validation loss and score
  is this one, since with a capacity a later token's first choice evicts an earlier token's second; a step's own loss is of mode
  train. `capacity`: no noise, `capacity_eval`.
* In modes with a capacity, and for the auxiliary losses in training, a group is `group` whole sequences; in mode dropless the whole
  call is one.

Departures: the second expert is always asked, GShard's by chance in proportion to its gate; positions that are padding (`valid_BT`)
take no capacity and count nowhere; noise is keyed by sequence (noise.py).

Shape suffixes: B sequences, T positions, N = B T tokens, G routing groups, M tokens of a group, K choices, E experts, R rows,
D model width, F expert width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import GATED, ModelConfig, MoEConfig
from train.dispatch import DISPATCHERS, Dispatcher, Linear, Routing
from train.layers import activate
from train.losses import balance_loss, z_loss
from train.noise import token_keys, uniform
from train.precision import product_dtype, without_autocast

RoutingMode = Literal["train", "dropless", "capacity"]
_PLACES = 1 << 16  # noise places of one layer: 0 is the jitter, 1 + k the dropout of choice k


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """How one call routes. noise_key_B: int64 [B] of `noise.noise_keys`, needed in mode train where the config has noise."""

    mode: RoutingMode = "dropless"
    noise_key_B: Tensor | None = None
    record_choices: bool = False


DROPLESS = RoutingOptions()


class RoutingStatistics(NamedTuple):
    """What a call routed. In `Outputs` every field has a leading axis of sparse layers. Sums, so that micro-batches add up."""

    balance_G: Tensor  # float32, load-balancing loss of each group: 1 when probabilities are uniform; carries gradients
    z_G: Tensor  # float32, mean squared log-sum-exp of the router's logits; carries gradients
    load_E: Tensor  # int64, assignments chosen for each expert, before any is dropped
    entropy: Tensor  # float32 scalar, entropies of the router's distributions in nats, summed over tokens
    dropped: Tensor  # int64 scalar, assignments beyond capacity
    tokens: Tensor  # int64 scalar, tokens that are not padding
    choices_BTK: Tensor | None  # int64, the chosen experts, on request


class Experts(nn.Module):
    """E feed-forward layers without biases, as two stacked parameters."""

    def __init__(self, d_model: int, moe: MoEConfig) -> None:
        super().__init__()
        self.n_experts, self.ffn, self.dropout = moe.experts, moe.ffn, moe.expert_dropout
        width = 2 * moe.d_ff if moe.ffn in GATED else moe.d_ff
        self.w_in_EFD = nn.Parameter(torch.empty(moe.experts, width, d_model))
        self.w_out_EDF = nn.Parameter(torch.empty(moe.experts, d_model, moe.d_ff))

    def forward(self, x: Tensor, linear: Linear, key_R: Tensor | None = None) -> Tensor:
        """Rows [R, D] -> rows [R, D]; `linear` knows which rows are whose. key_R: int64 [R], given where units are to be dropped.

        Runs in autocast's type where that is on: autocast itself does not know grouped multiplication.
        """
        dtype = product_dtype(self.w_in_EFD)
        h_RF = activate(linear(x.to(dtype), self.w_in_EFD.to(dtype)), self.ffn)
        if key_R is not None:
            kept_RF = uniform(key_R, h_RF.shape[-1]) >= self.dropout
            h_RF = h_RF * kept_RF / (1 - self.dropout)
        return linear(h_RF, self.w_out_EDF.to(dtype))


class MoE(nn.Module):
    """A sparse feed-forward layer. `layer` tells its noise from that of other layers."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        assert config.moe is not None
        self.moe, self.layer = config.moe, layer
        self.router_ED = nn.Parameter(torch.empty(config.moe.experts, config.d_model))
        self.experts = Experts(config.d_model, config.moe)
        self.dispatch: Dispatcher = DISPATCHERS[config.moe.dispatch]

    def forward(
        self, x_BTD: Tensor, options: RoutingOptions, valid_BT: Tensor | None = None
    ) -> tuple[Tensor, RoutingStatistics]:
        """[B, T, D] and what was routed. Raises ValueError where B is no multiple of the group, or keys for noise are missing."""
        routing, statistics = self.route(x_BTD, options, valid_BT)
        y_ND = self.dispatch(self.experts, x_BTD.flatten(0, 1), routing)
        return y_ND.view_as(x_BTD), statistics

    def route(
        self, x_BTD: Tensor, options: RoutingOptions, valid_BT: Tensor | None = None
    ) -> tuple[Routing, RoutingStatistics]:
        """The routing of all tokens, and its statistics."""
        moe, (n_sequences, length, _) = self.moe, x_BTD.shape
        n_groups = self._groups(n_sequences, options.mode)
        logits_GME = self._logits(x_BTD, options).view(n_groups, -1, moe.experts)
        log_p_GME = F.log_softmax(logits_GME, dim=-1)
        p_GME = log_p_GME.exp()
        expert_GMK = choose(logits_GME, moe.top_k)  # by logits: small probabilities would tie at 0
        gate_GMK = log_p_GME.gather(-1, expert_GMK).exp()
        if moe.renormalise:
            gate_GMK = gate_GMK / (gate_GMK.sum(-1, keepdim=True) + 1e-9)

        valid_GM = None if valid_BT is None else valid_BT.view(n_groups, -1)
        kept_GMK = None if valid_GM is None else valid_GM[..., None].expand_as(expert_GMK)
        most_rows = None
        factor = {"train": moe.capacity_train, "dropless": None, "capacity": moe.capacity_eval}[options.mode]
        if factor is not None:
            capacity = group_capacity(moe, expert_GMK.shape[1], factor)
            kept_GMK = within_capacity(expert_GMK, moe.experts, capacity, valid_GM)
            most_rows = n_groups * capacity
        kept_NK = None
        if kept_GMK is not None:
            gate_GMK, kept_NK = gate_GMK * kept_GMK, kept_GMK.flatten(0, 1)
        key_NK = None
        if options.mode == "train" and moe.expert_dropout > 0:
            key_NK = torch.stack([self._keys(options, length, 1 + choice).flatten() for choice in range(moe.top_k)], dim=1)
        routing = Routing(expert_GMK.flatten(0, 1), gate_GMK.flatten(0, 1), kept_NK, most_rows, key_NK)

        load_GE = count_choices(expert_GMK, moe.experts, valid_GM)
        if moe.balance == "all_choices":
            share_GE = load_GE / moe.top_k
        else:
            share_GE = load_GE if moe.top_k == 1 else count_choices(expert_GMK[..., :1], moe.experts, valid_GM)
        assigned = load_GE.sum()
        normaliser_GM = logits_GME[..., 0] - log_p_GME[..., 0]
        return routing, RoutingStatistics(
            balance_G=balance_loss(p_GME, share_GE, valid_GM),
            z_G=z_loss(normaliser_GM, valid_GM),
            load_E=load_GE.sum(0),
            entropy=_entropy(p_GME, log_p_GME, valid_GM),
            dropped=torch.zeros_like(assigned) if kept_GMK is None else assigned - kept_GMK.sum(),
            tokens=assigned // moe.top_k,
            choices_BTK=expert_GMK.view(n_sequences, length, moe.top_k) if options.record_choices else None,
        )

    def _groups(self, n_sequences: int, mode: RoutingMode) -> int:
        if mode == "dropless":
            return 1
        if n_sequences % self.moe.group:
            raise ValueError(f"{n_sequences} sequences in a call are no multiple of moe.group {self.moe.group}")
        return n_sequences // self.moe.group

    def _logits(self, x_BTD: Tensor, options: RoutingOptions) -> Tensor:
        """float32 [B, T, E]."""
        with without_autocast(x_BTD):
            x_BTD = x_BTD.float()
            if options.mode == "train" and self.moe.jitter > 0:
                noise_ND = uniform(self._keys(options, x_BTD.shape[1], 0).flatten(), x_BTD.shape[2])
                x_BTD = x_BTD * (1 + self.moe.jitter * (2 * noise_ND - 1)).view_as(x_BTD)
            return F.linear(x_BTD, self.router_ED.float())

    def _keys(self, options: RoutingOptions, length: int, place: int) -> Tensor:
        if options.noise_key_B is None:
            raise ValueError("routing in mode train with jitter or expert dropout needs noise_key_B: see train.noise.noise_keys")
        return token_keys(options.noise_key_B, length, self.layer * _PLACES + place)


def choose(logits_GME: Tensor, top_k: int) -> Tensor:
    """int64 [G, M, K]: the experts of the largest logits, largest first, of equal ones the first expert.

    By repeated argmax, as in mesh-tensorflow: torch.topk breaks ties as it likes, and is slower for one or two.
    """
    left_GME = logits_GME.detach()
    chosen: list[Tensor] = []
    for _ in range(top_k):
        if chosen:
            left_GME = left_GME.scatter(-1, chosen[-1], float("-inf"))
        chosen.append(left_GME.argmax(-1, keepdim=True))
    return torch.cat(chosen, dim=-1)


def group_capacity(moe: MoEConfig, group_tokens: int, factor: float) -> int:
    """Rows an expert takes from one routing group of so many tokens, as mesh-tensorflow counts them."""
    return max(min(group_tokens, int(group_tokens * factor / moe.experts)), moe.min_capacity)


def within_capacity(expert_GMK: Tensor, n_experts: int, capacity: int, valid_GM: Tensor | None = None) -> Tensor:
    """bool [G, M, K]: the assignments that find room, `capacity` an expert: first choices in token order, then second ones."""
    n_groups, n_tokens, top_k = expert_GMK.shape
    order_GA = expert_GMK.transpose(1, 2).flatten(1)  # A = K M assignments, first choices first
    chosen_GAE = F.one_hot(order_GA, n_experts).to(torch.int32)
    if valid_GM is not None:
        chosen_GAE = chosen_GAE * valid_GM.repeat(1, top_k)[..., None]
    rank_GA = chosen_GAE.cumsum(1, dtype=torch.int32).gather(2, order_GA[..., None])[..., 0]  # from 1
    kept_GMK = (rank_GA <= capacity).view(n_groups, top_k, n_tokens).transpose(1, 2)
    return kept_GMK if valid_GM is None else kept_GMK & valid_GM[..., None]


def count_choices(expert_GMK: Tensor, n_experts: int, valid_GM: Tensor | None = None) -> Tensor:
    """int64 [G, E]: how often each expert was chosen; padding excluded."""
    weight_GMK = torch.ones_like(expert_GMK) if valid_GM is None else valid_GM[..., None].expand_as(expert_GMK).long()
    zeros_GE = expert_GMK.new_zeros(len(expert_GMK), n_experts)
    return zeros_GE.scatter_add(1, expert_GMK.flatten(1), weight_GMK.flatten(1))


def _entropy(p_GME: Tensor, log_p_GME: Tensor, valid_GM: Tensor | None) -> Tensor:
    with torch.no_grad():
        entropy_GM = -(p_GME * log_p_GME).sum(-1)
        return (entropy_GM if valid_GM is None else entropy_GM * valid_GM).sum()
