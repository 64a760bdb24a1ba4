"""Losses: cross-entropy that never holds all logits, the routers' auxiliary losses, and their sum for one training step.

* **Cross-entropy** goes through the tokens in chunks of bounded size. The forward pass keeps one number a token, its loss;
  the backward pass multiplies again (a fourth matrix multiplication instead of N x V numbers in memory). Logits are in the
  precision of the caller, everything after them in float32.
* **Load balancing** (Switch equation 4; GShard algorithm 1 with mesh-tensorflow's scale): E sum_e f_e P_e over a routing group,
  f the share of tokens that chose e first, P the mean probability. 1 when P is uniform, E when all tokens agree on one expert.
  With `all_choices` f counts every choice, divided by top_k (Megatron's definition): a collapse then gives E / top_k.
* **z-loss** (ST-MoE, Zoph et al. 2022, equation 5): the mean over tokens of log-sum-exp(logits) squared.

The papers add coefficient x loss of every sparse layer to the cross-entropy, and so does `training_loss`; what is reported as the
loss never contains them.

Shape suffixes: N tokens, V vocabulary, D model width, G routing groups, M tokens of a group, E experts, L sparse layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import ModelConfig
from train.precision import product_dtype

if TYPE_CHECKING:
    from train.model import Outputs

IGNORE = -100  # targets of this value carry no loss
_CHUNK_ROWS = 1024  # tokens at once
# Logits at once: 64 MB in float32 on an accelerator; on a CPU what its caches hold.
_CHUNK_LOGITS, _CHUNK_LOGITS_CPU = 1 << 24, 1 << 22


def cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """float32 [N]: -log softmax(hidden weight^T)[target] in nats; 0 where the target (int64) is IGNORE."""
    dtype = product_dtype(weight_VD)
    loss_N: Tensor = _CrossEntropy.apply(hidden_ND.to(dtype), weight_VD.to(dtype), target_N)
    return loss_N


class _CrossEntropy(torch.autograd.Function):
    """The gradient by logits is (probabilities - one-hot of the target) grad_N; grad_N is multiplied in where rows are short."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        losses = []
        for rows in _chunks(hidden_ND, weight_VD):
            log_p_nV = F.log_softmax((hidden_ND[rows] @ weight_VD.T).float(), dim=1)
            losses.append(-log_p_nV.gather(1, target_N[rows].clamp(min=0)[:, None])[:, 0])
        loss_N = torch.cat(losses)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, loss_N)
        return torch.where(target_N == IGNORE, 0.0, loss_N)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_ND, weight_VD, target_N, loss_N = ctx.saved_tensors
        grad_N = torch.where(target_N == IGNORE, 0.0, grads[0])
        at_target_N = torch.expm1(-loss_N)  # the probability less 1, which would be lost in bfloat16
        grad_hidden = []
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32)
        for rows in _chunks(hidden_ND, weight_VD):
            hidden_nD, grad_n1 = hidden_ND[rows], grad_N[rows, None]
            short_nV = F.softmax(hidden_nD @ weight_VD.T, dim=1)  # computed in float32, kept in the products' type
            short_nV.scatter_(1, target_N[rows].clamp(min=0)[:, None], at_target_N[rows, None].to(short_nV.dtype))
            grad_hidden.append((short_nV @ weight_VD).mul_(grad_n1))
            scaled_nD = (hidden_nD * grad_n1).to(hidden_nD.dtype)
            if weight_VD.dtype == torch.float32:
                grad_weight.addmm_(short_nV.T, scaled_nD)
            else:
                grad_weight += short_nV.T @ scaled_nD
        return torch.cat(grad_hidden), grad_weight.to(weight_VD.dtype), None


def _chunks(hidden_ND: Tensor, weight_VD: Tensor) -> list[slice]:
    most = _CHUNK_LOGITS_CPU if weight_VD.device.type == "cpu" else _CHUNK_LOGITS
    step = max(1, min(_CHUNK_ROWS, most // len(weight_VD)))
    return [slice(start, start + step) for start in range(0, len(hidden_ND), step)]


def balance_loss(p_GME: Tensor, load_GE: Tensor, valid_GM: Tensor | None = None) -> Tensor:
    """float32 [G]: E sum_e f_e P_e. p_GME: probabilities; load_GE: tokens (or choices / top_k) an expert; padding excluded."""
    if valid_GM is None:
        tokens_G1 = torch.full_like(p_GME[:, 0, :1], p_GME.shape[1])
        sum_GE = p_GME.sum(1)
    else:
        tokens_G1 = valid_GM.sum(1, keepdim=True).clamp(min=1)
        sum_GE = (p_GME * valid_GM[..., None]).sum(1)
    return p_GME.shape[-1] * (load_GE / tokens_G1 * (sum_GE / tokens_G1)).sum(-1)


def z_loss(normaliser_GM: Tensor, valid_GM: Tensor | None = None) -> Tensor:
    """float32 [G]: the mean over a group's tokens of the squared log-sum-exp of the router's logits; padding excluded."""
    squared_GM = normaliser_GM.square()
    if valid_GM is None:
        return squared_GM.mean(1)
    return (squared_GM * valid_GM).sum(1) / valid_GM.sum(1).clamp(min=1)


def training_loss(outputs: Outputs, config: ModelConfig, tokens: int, groups: int) -> Tensor:
    """Scalar to differentiate: this call's share of the loss of a global batch of `tokens` targets and `groups` routing groups.

    Summed over micro-batches and ranks it is the batch's mean cross-entropy plus, for every sparse layer, coefficient x the mean
    over groups of each auxiliary loss, however the batch was split.
    """
    assert outputs.loss_BT is not None
    loss = outputs.loss_BT.sum() / tokens
    if outputs.routing is not None and config.moe is not None:
        loss = loss + config.moe.balance_coefficient * outputs.routing.balance_G.sum() / groups
        if config.moe.z_coefficient > 0:
            loss = loss + config.moe.z_coefficient * outputs.routing.z_G.sum() / groups
    return loss


def logits(hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    """float32 [..., V]: all logits, for generation."""
    return F.linear(hidden_ND, weight_VD).float()
