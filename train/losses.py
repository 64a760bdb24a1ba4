"""Losses: cross-entropy that never holds all logits, the routers' auxiliary losses, and their sum for one training step.

* **Cross-entropy** goes through the tokens in chunks of bounded size. The forward pass keeps one number a token, its loss;
  the backward pass multiplies again (a fourth matrix multiplication instead of N x V numbers in memory). Logits are in the
  precision of the caller, everything after them in float32.
* **Cross-entropy to labels and a teacher** (distillation: Fedus et al. 2022, table 6; Hinton et al. 2015 at temperature 1):
  (1 - share) x that to the label + share x that to the teacher's distribution, -sum_v q_v log p_v, in the same chunks, so that of
  neither model more logits are held than a chunk's. The teacher gets no gradient.
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
            grad_hidden.append(_through_logits(short_nV, grad_n1, hidden_nD, weight_VD, grad_weight))
        return torch.cat(grad_hidden), grad_weight.to(weight_VD.dtype), None


def _through_logits(short_nV: Tensor, grad_n1: Tensor, hidden_nD: Tensor, weight_VD: Tensor, grad_weight: Tensor) -> Tensor:
    """The gradient by these rows' hidden states; adds theirs by the weights to grad_weight. short_nV grad_n1: that by logits."""
    scaled_nD = (hidden_nD * grad_n1).to(hidden_nD.dtype)
    if weight_VD.dtype == torch.float32:
        grad_weight.addmm_(short_nV.T, scaled_nD)
    else:
        grad_weight += short_nV.T @ scaled_nD
    return (short_nV @ weight_VD).mul_(grad_n1)


def taught_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, teacher_NC: Tensor, teacher_VC: Tensor, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(mixed, hard, soft), float32 [N] each, in nats, 0 where the target is IGNORE; mixed alone carries gradients.

    teacher_NC, teacher_VC: the teacher's hidden states and output weights. share: of the teacher's distribution, 0 to 1; with 0
    mixed and its gradients are those of `cross_entropy`, to the bit.
    """
    dtype = product_dtype(weight_VD)
    ours, theirs = (hidden_ND.to(dtype), weight_VD.to(dtype)), (teacher_NC.to(dtype), teacher_VC.to(dtype))
    mixed_N, hard_N, soft_N = _TaughtCrossEntropy.apply(*ours, target_N, *theirs, share)
    return mixed_N, hard_N, soft_N


class _TaughtCrossEntropy(torch.autograd.Function):
    """The gradient by logits is p - (1 - share) one-hot - share q, times grad_N; at the target the first two are taken together
    in float32, as in _CrossEntropy."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        teacher_NC: Tensor,
        teacher_VC: Tensor,
        share: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hard, soft, teachers = [], [], []
        for rows in _chunks(hidden_ND, weight_VD):
            at_n1 = target_N[rows].clamp(min=0)[:, None]
            log_p_nV = F.log_softmax((hidden_ND[rows] @ weight_VD.T).float(), dim=1)
            log_q_nV = F.log_softmax((teacher_NC[rows] @ teacher_VC.T).float(), dim=1)
            hard.append(-log_p_nV.gather(1, at_n1)[:, 0])
            teachers.append(-log_q_nV.gather(1, at_n1)[:, 0])
            soft.append(-log_q_nV.exp_().mul_(log_p_nV).sum(1))
        hard_N, soft_N, teachers_N = torch.cat(hard), torch.cat(soft), torch.cat(teachers)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, teacher_NC, teacher_VC, hard_N, teachers_N)
        ctx.share = share
        seen_N = target_N != IGNORE
        hard_N, soft_N = torch.where(seen_N, hard_N, 0.0), torch.where(seen_N, soft_N, 0.0)
        ctx.mark_non_differentiable(hard_N, soft_N)
        return (1 - share) * hard_N + share * soft_N, hard_N, soft_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_ND, weight_VD, target_N, teacher_NC, teacher_VC, hard_N, teachers_N = ctx.saved_tensors
        grad_N = torch.where(target_N == IGNORE, 0.0, grads[0])
        at_target_N = torch.expm1(-hard_N) - ctx.share * torch.expm1(-teachers_N)
        grad_hidden = []
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32)
        for rows in _chunks(hidden_ND, weight_VD):
            hidden_nD, grad_n1 = hidden_ND[rows], grad_N[rows, None]
            short_nV = F.softmax(hidden_nD @ weight_VD.T, dim=1)
            short_nV.sub_(F.softmax(teacher_NC[rows] @ teacher_VC.T, dim=1), alpha=ctx.share)
            short_nV.scatter_(1, target_N[rows].clamp(min=0)[:, None], at_target_N[rows, None].to(short_nV.dtype))
            grad_hidden.append(_through_logits(short_nV, grad_n1, hidden_nD, weight_VD, grad_weight))
        return torch.cat(grad_hidden), grad_weight.to(weight_VD.dtype), None, None, None, None


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
