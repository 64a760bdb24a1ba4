"""Several processes that train one model: data parallelism (DDP) and sharded states (FSDP2), started by torchrun.

* One process a device; gloo on CPUs, NCCL on GPUs. Every process builds the whole model from the seed, computes its rows of the
  global batch, and gradients are added up. Results agree with those of one process to rounding; those of two processes (ddp, fsdp)
  that compute the same micro-batches as one did are equal to the bit. More processes add up in an order of the backend's own.
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
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from train.expert_parallel import spread_experts
from train.model import Block, Decoder
from train.moe import MoE

Kind = Literal["ddp", "fsdp", "experts"]


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

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.total(torch.tensor(int(flag))))

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
    dist.init_process_group("nccl" if accelerated else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


_TORCHRUN = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def wrap(model: Decoder, kind: Kind, bf16: bool, world: World) -> nn.Module:
    """What is to be called instead of the model, which stays the one whose parameters are trained (fsdp shards it in place)."""
    if world.size == 1:
        return model
    if kind == "experts":
        mesh = init_device_mesh(world.device.type, (world.size,))
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(model, spread_experts(model, mesh))
    if kind in ("ddp", "experts"):
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    # The losses are a view, which nobody changes in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    low = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    for block in model.blocks:
        assert isinstance(block, Block)
        fully_shard(block.attention, mesh=mesh, mp_policy=low)
        fully_shard(block.ffn.experts if isinstance(block.ffn, MoE) else block.ffn, mesh=mesh, mp_policy=low)
        fully_shard(block, mesh=mesh)  # what is left: norms and the router
    fully_shard(model, mesh=mesh)
    return model


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
