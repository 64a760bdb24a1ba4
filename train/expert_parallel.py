"""Experts spread over processes: each holds its share of every layer's experts, and rows travel to them (all-to-all).

As in GShard (Lepikhin et al. 2020, section 3.2) and Switch (Fedus et al. 2022, section 5.3), the processes that split the batch
also split the experts: E / W of them each. A call sorts its assignments by expert, tells every process how many rows it will
get for each of its experts, sends the rows, runs the process's own experts on all rows that came, and sends the results back.
Routing, capacity and gates are those of one process; what is not kept is not sent. `moe.dispatch` has no say here.

The experts' parameters are DTensors, sharded by expert, so that the optimiser, the norm of the gradients and checkpoints see them
as one. Their gradients are sums over all processes' rows as they arise, and are divided by the number of processes, since the loss
of each was multiplied by it for DDP's average (train/loop.py). Everything else is replicated by DDP, which leaves them alone.

Two gloo processes on a CPU are tested; not run on a GPU yet.

Shape suffixes: N tokens, K choices, M = N K assignments, R rows sent, S rows received, E experts, L experts of this process,
W processes, D model width.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from pipelines.errors import UserError
from train.dispatch import Dispatcher, ExpertsLike, Routing
from train.grouped import grouped_mm
from train.model import Decoder
from train.moe import MoE


def spread_experts(model: Decoder, mesh: DeviceMesh) -> None:
    """Keeps this process's share of every sparse layer's experts.

    Raises UserError where the model is dense, or its experts cannot be shared out evenly.
    """
    size = mesh.size()
    moe = model.config.moe
    if moe is None or moe.experts % size:
        what = "the model is dense" if moe is None else f"{moe.experts} experts cannot be shared by {size} processes evenly"
        raise UserError(f"parallel: experts: {what}; take parallel: ddp, or another number of processes")
    for module in model.modules():
        if isinstance(module, MoE):
            for own in ("w_in_EFD", "w_out_EDF"):
                share = getattr(module.experts, own).detach().chunk(size)[mesh.get_local_rank()].clone()
                setattr(module.experts, own, nn.Parameter(DTensor.from_local(share, mesh, [Shard(0)], run_check=False)))
            module.dispatch = _dispatcher(mesh, moe.experts // size)


def average_experts(model: Decoder) -> list[str]:
    """Divides gradients of spread experts by the number of processes, from now on; returns the names of their parameters."""
    names = []
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            size = parameter.device_mesh.size()
            parameter.register_hook(lambda gradient, size=size: gradient / size)
            names.append(name)
    return names


def _dispatcher(mesh: DeviceMesh, n_local: int) -> Dispatcher:
    """The dispatch of train/dispatch.py, with rows sent to the processes that hold their experts."""
    group, size = mesh.get_group(), mesh.size()

    def dispatch(experts: ExpertsLike, x_ND: Tensor, routing: Routing) -> Tensor:
        top_k = routing.expert_NK.shape[1]
        expert_M = routing.expert_NK.flatten()
        if routing.kept_NK is not None:
            expert_M = torch.where(routing.kept_NK.flatten(), expert_M, experts.n_experts)
        order_M = torch.argsort(expert_M, stable=True)
        sent_E = torch.bincount(expert_M, minlength=experts.n_experts + 1)[: experts.n_experts]
        source_R = order_M[: int(sent_E.sum())]
        came_WL = torch.empty_like(sent_E).view(size, n_local)
        dist.all_to_all_single(came_WL, sent_E.view(size, n_local), group=group)
        to_W, from_W = sent_E.view(size, n_local).sum(1).tolist(), came_WL.sum(1).tolist()

        x_SD = all_to_all_single_autograd(x_ND[source_R // top_k], from_W, to_W, group)
        key_S = None
        if routing.key_NK is not None:
            key_S = routing.key_NK.new_empty(sum(from_W))
            dist.all_to_all_single(key_S, routing.key_NK.flatten()[source_R], from_W, to_W, group=group)
        # Rows came by process, each process's by expert: here by expert, of each expert by process.
        local_S = torch.arange(n_local, device=x_ND.device).repeat(size).repeat_interleave(came_WL.flatten())
        by_expert_S = torch.argsort(local_S, stable=True)
        offsets_L = came_WL.sum(0).cumsum(0).to(torch.int32)

        def linear(rows_SD: Tensor, weight_EFD: Tensor) -> Tensor:
            mine = weight_EFD.to_local() if isinstance(weight_EFD, DTensor) else weight_EFD
            return grouped_mm(rows_SD, mine, offsets_L)

        y_SD = experts(x_SD[by_expert_S], linear, None if key_S is None else key_S[by_expert_S])
        back_S = torch.empty_like(by_expert_S).scatter(0, by_expert_S, torch.arange(len(by_expert_S), device=x_ND.device))
        y_RD = all_to_all_single_autograd(y_SD[back_S], to_W, from_W, group)
        gate_R1 = routing.gate_NK.flatten()[source_R].to(y_RD.dtype)[:, None]
        return torch.zeros_like(x_ND, dtype=y_RD.dtype).index_add(0, source_R // top_k, y_RD * gate_R1)

    return dispatch
