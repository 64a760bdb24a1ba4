"""Several processes that train one model: data parallelism (DDP) and sharded states (FSDP2), started by torchrun.

* One process a device; gloo on CPUs, NCCL on GPUs. Every process makes room for its part of the model alone, computes its rows of
  the global batch, and gradients are added up. Initial weights are those of one process to the bit. Results agree with those of one
  process to rounding; those of two processes (ddp, fsdp) that compute the same micro-batches as one did are equal to the bit. More
  processes add up in an order of the backend's own.
* **ddp**: every process holds the whole model and optimiser.
* **fsdp** (Zhao et al. 2023, torch's `fully_shard`): parameters, gradients and optimiser are sharded over all processes, gathered
  layer by layer. Under bf16 matrices are gathered in bfloat16 and gradients reduced in float32; norms, the embedding, the output
  and the routers stay in float32, since the paper of Switch routes in float32.

* **experts**: the experts are spread over the processes and rows travel to them (expert_parallel.py); the rest as in ddp.

Two processes on a CPU are tested; not run on a GPU yet. Tensor and pipeline parallelism are not offered.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from train.expert_parallel import average_experts, spread_experts
from train.model import Block, Decoder, initial_value
from train.moe import MoE

Kind = Literal["ddp", "fsdp", "experts"]
T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # others wait while one writes a checkpoint; torch would give up after ten minutes on GPUs


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.size == 1:
            return x
        moved = x.to(self.device, copy=True)
        dist.all_reduce(moved)
        return moved.cpu()

    def broadcast(self, x: Tensor, source: int) -> None:
        """Sets x, on this process's device, to what the process `source` has there."""
        if self.size > 1:
            dist.broadcast(x, source)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.total(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()


ALONE = World(0, 1, torch.device("cpu"))


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun describes in the environment; without torchrun, this process alone."""
    size, rank, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN.items())
    accelerated = torch.cuda.is_available()
    device = torch.device("cuda", local) if accelerated else torch.device("cpu")
    if accelerated:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    dist.init_process_group("nccl" if accelerated else "gloo", timeout=_PATIENCE)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


_TORCHRUN = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def shard(model: Decoder, kind: Kind, bf16: bool, world: World) -> None:
    """Leaves a model that stands on the meta device this process's part, and makes room for it; values are not set."""
    if world.size > 1 and kind == "experts":
        spread_experts(model, init_device_mesh(world.device.type, (world.size,)))
    if world.size > 1 and kind == "fsdp":
        _fully_shard(model, bf16, world)
    model.to_empty(device=world.device)


def _fully_shard(model: Decoder, bf16: bool, world: World) -> None:
    # The losses are a view, which nobody changes in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    low = MixedPrecisionPolicy()
    if bf16:  # inputs are left alone: autocast casts those of products, and rotary angles must stay in float32
        low = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        assert isinstance(block, Block)
        fully_shard(block.attention, mesh=mesh, mp_policy=low)
        fully_shard(block.ffn.experts if isinstance(block.ffn, MoE) else block.ffn, mesh=mesh, mp_policy=low)
        fully_shard(block, mesh=mesh)  # what is left: norms and the router
    fully_shard(model, mesh=mesh)


@torch.no_grad()
def initialise(model: Decoder, seed: int, world: World) -> None:
    """Sets the parameters of a model, of which each process holds its part, to what `model.initialise` gives a whole one.

    The processes draw one parameter each at a time, whole, and hand it round.
    """
    named = sorted(model.named_parameters(), key=lambda one: -one[1].numel())  # of like size at a time
    for start in range(0, len(named), world.size):
        turn = named[start : start + world.size]
        drawn = [initial_value(model.config, seed, name, parameter.shape) for name, parameter in turn[world.rank :][:1]]
        for source, (_, parameter) in enumerate(turn):
            whole = drawn[0].to(world.device) if source == world.rank else torch.empty(parameter.shape, device=world.device)
            world.broadcast(whole, source)
            mine, rows = own_rows(parameter)
            mine.copy_(whole[rows])


def own_rows(parameter: Tensor) -> tuple[Tensor, slice]:
    """What this process holds of a parameter, and which rows of the whole that is; there may be none."""
    if not isinstance(parameter, DTensor):
        return parameter, slice(None)
    with torch.no_grad():
        mine: Tensor = parameter.to_local()
    share = -(-len(parameter) // parameter.device_mesh.size())  # as torch.chunk
    first = min(parameter.device_mesh.get_local_rank() * share, len(parameter))
    return mine, slice(first, first + len(mine))


def replicate(model: Decoder, kind: Kind, world: World) -> nn.Module:
    """What is to be called instead of the model, which stays the one whose parameters are trained."""
    if world.size == 1 or kind == "fsdp":
        return model
    if kind == "experts":
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(model, average_experts(model))
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


@contextlib.contextmanager
def reducing(wrapped: nn.Module, now: bool) -> Iterator[None]:
    """A region whose backward passes add up gradients over processes only where `now`: at the last micro-batch."""
    if isinstance(wrapped, DistributedDataParallel) and not now:
        with wrapped.no_sync():
            yield
        return
    if isinstance(wrapped, FSDPModule):
        sharded: Any = wrapped
        sharded.set_requires_gradient_sync(now)
    yield
