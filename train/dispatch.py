"""How tokens reach their experts: three ways that compute the same function of one routing.

* `grouped` (default): rows sorted by expert, ragged groups, one grouped matrix multiplication a matrix. Its cost does not depend
  on the number of experts and nothing is padded.
* `padded`: every expert gets a buffer of equally many rows, one batched multiplication a matrix: the static shapes of Switch
  and GShard. When routing sets no capacity, the buffer takes the largest load.
* `einsum`: one-hot dispatch and combine tensors as in mesh-tensorflow: slow and obvious, the oracle of the tests.

All get x_ND, a `Routing` that has settled which assignments are kept, and the experts; an assignment that is not kept has gate 0
and adds nothing, so its token passes through the residual. `MoE.dispatch` may be set to another function of this signature:
that is where expert parallelism goes in.

Rows move by `_Spread` and `_Collect`, each the other's transpose: both directions gather, so that the backward pass needs no
atomic additions, is deterministic on every device, and is faster than the scatter that indexing would derive.

Shape suffixes: N tokens, K choices a token, M = N K assignments, R rows handed to experts, E experts, C rows of one expert,
D model width, F width of an expert's first (in gated experts doubled) or second matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from train.grouped import grouped_mm

Linear = Callable[[Tensor, Tensor], Tensor]  # rows, weights [E, out, in] -> rows


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts each token goes to.

    expert_NK: int64, choices in order. gate_NK: float32, exactly 0 where not kept. kept_NK: bool, or None where all are.
    most_rows: no expert keeps more assignments than this; None where routing sets no bound. key_NK: int64 dropout keys or None.
    """

    expert_NK: Tensor
    gate_NK: Tensor
    kept_NK: Tensor | None = None
    most_rows: int | None = None
    key_NK: Tensor | None = None


class ExpertsLike(Protocol):
    """What a dispatch needs of the experts: their number, and their function of rows (and dropout keys [R])."""

    n_experts: int

    def __call__(self, x: Tensor, linear: Linear, key_R: Tensor | None) -> Tensor: ...


Dispatcher = Callable[[ExpertsLike, Tensor, Routing], Tensor]


def grouped(experts: ExpertsLike, x_ND: Tensor, routing: Routing) -> Tensor:
    """[N, D]: the gated sum of the chosen experts. Assignments that are not kept ride behind the last group, with gate 0."""
    key_M = _sort_keys(routing, experts.n_experts)
    source_R, slot_M = _sorted(key_M)
    counts_E = _count(key_M.clamp(max=experts.n_experts - 1), experts.n_experts)
    offsets_E = counts_E.cumsum(0).to(torch.int32)
    return _run(experts, x_ND, routing, source_R, slot_M, lambda x, w: grouped_mm(x, w, offsets_E))


def padded(experts: ExpertsLike, x_ND: Tensor, routing: Routing) -> Tensor:
    """[N, D]: the same by rectangular buffers. Assignments that are not kept share one row of padding, with gate 0."""
    n_experts = experts.n_experts
    key_M = _sort_keys(routing, n_experts)
    counts_E = _count(key_M, n_experts + 1)[:n_experts]
    width = int(counts_E.max()) if routing.most_rows is None else min(routing.most_rows, len(key_M))
    columns = width if routing.kept_NK is None else width + 1
    starts = F.pad(counts_E.cumsum(0), (1, 0))
    rank_M = _sorted(key_M)[1] - starts[key_M]
    slot_M = torch.where(key_M < n_experts, key_M * columns + rank_M, width)
    source_R = slot_M.new_zeros(n_experts * columns).scatter(0, slot_M, torch.arange(len(slot_M), device=slot_M.device))

    def linear(x_RD: Tensor, w_EFD: Tensor) -> Tensor:
        x_ECD = x_RD.view(n_experts, columns, -1)  # by another name than attention's products have: model.py keeps these alone
        return torch.baddbmm(x_ECD.new_zeros(1), x_ECD, w_EFD.transpose(1, 2), beta=0).flatten(0, 1)

    return _run(experts, x_ND, routing, source_R, slot_M, linear)


def einsum(experts: ExpertsLike, x_ND: Tensor, routing: Routing) -> Tensor:
    """[N, D]: the same by one-hot tensors [N, K, E, C]; memory grows with tokens times buffer rows."""
    n_tokens, top_k = routing.expert_NK.shape
    chosen_NKE = F.one_hot(routing.expert_NK, experts.n_experts)
    if routing.kept_NK is not None:
        chosen_NKE = chosen_NKE * routing.kept_NK[..., None]
    before_NKE = chosen_NKE.flatten(0, 1).cumsum(0).unflatten(0, (n_tokens, top_k)) - chosen_NKE
    width = max(1, int(chosen_NKE.sum((0, 1)).max()))
    place_NKEC = F.one_hot(before_NKE.clamp(max=width - 1), width) * chosen_NKE[..., None]
    key_R = None if routing.key_NK is None else (place_NKEC * routing.key_NK[..., None, None]).sum((0, 1)).flatten()
    combine_NEC = torch.einsum("nkec,nk->nec", place_NKEC.to(routing.gate_NK.dtype), routing.gate_NK)
    x_ECD = torch.einsum("nec,nd->ecd", place_NKEC.sum(1).to(x_ND.dtype), x_ND)

    def linear(x_RD: Tensor, w_EFD: Tensor) -> Tensor:
        return torch.einsum("ecd,efd->ecf", x_RD.unflatten(0, (experts.n_experts, width)), w_EFD).flatten(0, 1)

    y_RD = experts(x_ECD.flatten(0, 1), linear, key_R)
    return torch.einsum("nec,ecd->nd", combine_NEC.to(y_RD.dtype), y_RD.unflatten(0, (experts.n_experts, width)))


DISPATCHERS: dict[str, Dispatcher] = {"grouped": grouped, "padded": padded, "einsum": einsum}


def _run(
    experts: ExpertsLike, x_ND: Tensor, routing: Routing, source_R: Tensor, slot_M: Tensor, linear: Linear
) -> Tensor:
    """Experts on rows: row r holds assignment source_R[r], assignment m stands in row slot_M[m]; gates are 0 in other rows."""
    top_k = routing.expert_NK.shape[1]
    token_R = source_R if top_k == 1 else source_R // top_k
    key_R = None if routing.key_NK is None else routing.key_NK.flatten()[source_R]
    y_RD = experts(_Spread.apply(x_ND, token_R, slot_M), linear, key_R)
    return _Collect.apply(y_RD, routing.gate_NK.to(y_RD.dtype), token_R, slot_M)


def _sort_keys(routing: Routing, n_experts: int) -> Tensor:
    """int64 [M]: each assignment's expert; `n_experts` where it is not kept."""
    expert_M = routing.expert_NK.flatten()
    return expert_M if routing.kept_NK is None else torch.where(routing.kept_NK.flatten(), expert_M, n_experts)


def _sorted(key_M: Tensor) -> tuple[Tensor, Tensor]:
    """(source [M], slot [M]): the stable order by key, and its inverse."""
    source_M = torch.argsort(key_M, stable=True)
    slot_M = torch.empty_like(source_M).scatter(0, source_M, torch.arange(len(key_M), device=key_M.device))
    return source_M, slot_M


def _count(key_M: Tensor, bins: int) -> Tensor:
    return key_M.new_zeros(bins).scatter_add(0, key_M, torch.ones_like(key_M))


def _sum_choices(rows_MD: Tensor, n_tokens: int) -> Tensor:
    first, *others = rows_MD.view(n_tokens, -1, rows_MD.shape[1]).unbind(1)
    return sum(others, first)  # top_k is small: faster than a reduction over a middle dimension


class _Spread(torch.autograd.Function):
    """x_ND -> rows [R, D]: row r is token token_R[r]. Rows that no assignment stands in get no gradient."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_R: Tensor, slot_M: Tensor) -> Tensor:
        ctx.save_for_backward(slot_M)
        ctx.n_tokens = len(x_ND)
        return x_ND.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slot_M,) = ctx.saved_tensors
        return _sum_choices(grads[0].index_select(0, slot_M), ctx.n_tokens), None, None


class _Collect(torch.autograd.Function):
    """rows [R, D], gates [N, K] -> y_ND: a token is the gated sum of its assignments' rows. Rows of padding get no gradient."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, gate_NK: Tensor, token_R: Tensor, slot_M: Tensor) -> Tensor:
        ctx.save_for_backward(y_RD, gate_NK, token_R, slot_M)
        rows_MD = y_RD.index_select(0, slot_M).mul_(gate_NK.view(-1, 1))
        return _sum_choices(rows_MD, len(gate_NK))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        y_RD, gate_NK, token_R, slot_M = ctx.saved_tensors
        grad_RD = grads[0].index_select(0, token_R)
        grad_gate_R = torch.linalg.vecdot(grad_RD, y_RD)
        gate_R = gate_NK.new_zeros(len(token_R)).scatter(0, slot_M, gate_NK.flatten())
        return grad_RD.mul_(gate_R[:, None]), grad_gate_R[slot_M].view_as(gate_NK), None, None
