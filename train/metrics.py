"""What a run tells: sums over a step that add up over micro-batches and processes, the log of JSON lines, the measured peak.

`log.jsonl` is the truth, one object a line with its `event`: start, resume, step, validation, rollback, stopped. A run that goes on
cuts the log where its checkpoint stood, so that no step stands there twice. TensorBoard, where it is installed, gets the numbers of
steps and validations beside it, and shows no step twice either: lists by layer as `router_entropy/0`, of an expert's share the
largest of its layer.

Shape suffixes: L sparse layers, E experts, G routing groups.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.config import ModelConfig
from train.model import Outputs

LOG = "log.jsonl"


class Tally:
    """Sums of one step or one validation, float64: of the loss, its targets, and what every sparse layer routed."""

    def __init__(self, config: ModelConfig) -> None:
        self.layers, self.experts = config.n_sparse, 0 if config.moe is None else config.moe.experts
        self.top_k = 1 if config.moe is None else config.moe.top_k
        self.values = torch.zeros(2 + self.layers * (5 + self.experts), dtype=torch.float64)

    def add(self, outputs: Outputs, n_targets: int) -> None:
        """Takes in one call of the model."""
        assert outputs.loss_BT is not None
        parts = [outputs.loss_BT.detach().double().sum()[None].cpu(), torch.tensor([n_targets], dtype=torch.float64)]
        if outputs.routing is not None:
            routed = outputs.routing
            sums = (routed.balance_G.sum(1), routed.z_G.sum(1), routed.entropy, routed.dropped, routed.tokens)
            columns = [one.detach().double().cpu()[:, None] for one in sums]
            parts.append(torch.cat([*columns, routed.load_E.double().cpu()], dim=1).flatten())
        self.values += torch.cat(parts)

    @property
    def loss(self) -> float:
        """Mean over targets, nats, without auxiliary losses."""
        return float(self.values[0] / self.values[1])

    @property
    def targets(self) -> int:
        """Number of targets."""
        return int(self.values[1])

    def routing(self, config: ModelConfig, groups: int) -> dict[str, Any]:
        """What is told of the routers; per-layer lists. Empty for dense models.

        balance_loss: mean over groups, 1 where routing is uniform. auxiliary_loss: what is added to the loss for the gradient.
        router_entropy: mean over tokens, nats. dropped_share: assignments beyond capacity. expert_load: shares of assignments.
        """
        moe = config.moe
        if moe is None:
            return {}
        rows_LS = self.values[2:].view(self.layers, 5 + self.experts)
        balance_L, z_L, entropy_L, dropped_L, tokens_L = rows_LS[:, :5].unbind(1)
        assigned_L = (tokens_L * self.top_k).clamp(min=1)
        auxiliary = moe.balance_coefficient * balance_L.sum() / groups + moe.z_coefficient * z_L.sum() / groups
        told = {
            "auxiliary_loss": float(auxiliary),
            "balance_loss": (balance_L / groups).tolist(),
            "router_entropy": (entropy_L / tokens_L.clamp(min=1)).tolist(),
            "dropped_share": (dropped_L / assigned_L).tolist(),
            "expert_load": (rows_LS[:, 5:] / assigned_L[:, None]).tolist(),
        }
        if moe.z_coefficient > 0:
            told["z_loss"] = (z_L / groups).tolist()
        return told


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The fastest of a few square matrix products on this process's device, in FLOP a second: what utilisation is held against.

    An accelerator multiplies random numbers, since it runs slower on them than on equal ones, and many times in a row, since one
    product is over before the clock is read.
    """
    if device.type == "cpu":
        ones = torch.ones(1024, 1024, dtype=dtype)
        return max(_flops_a_second(ones, 1, lambda: None) for _ in range(5))
    random = torch.randn(8192, 8192, device=device).to(dtype)
    _flops_a_second(random, 5, torch.cuda.synchronize)  # warms up
    return max(_flops_a_second(random, 20, torch.cuda.synchronize) for _ in range(3))


def _flops_a_second(square: Tensor, times: int, wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(times):
        square @ square
    wait()
    return 2 * len(square) ** 3 * times / (time.perf_counter() - start)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process held at most so far: of the accelerator's memory, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


class Log:
    """The file of JSON lines of one run, written by its main process."""

    def __init__(self, folder: Path, keep: int, step: int) -> None:
        """Keeps the first `keep` bytes of what is there, which tell of the steps up to `step`, and goes on behind them."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / LOG, "ab")  # noqa: SIM115  (closed by `close`)
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)
        self.board: Any = None
        installed = importlib.util.find_spec("tensorboard")
        if installed is not None and installed.origin is not None:  # a folder of that name has none
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def write(self, event: str, **facts: Any) -> dict[str, Any]:
        """Appends a line, and returns it as an object. Numbers that are not finite become null."""
        line = _finite({"event": event, **facts})
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        if self.board is not None and "step" in facts:
            for name, value in scalars(line):
                self.board.add_scalar(f"{event}/{name}", value, facts["step"])
        return line

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
        if self.board is not None:
            self.board.close()


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of every float of a line, those of objects and lists under `name/key` and `name/place`.

    A list of lists (expert_load: layers, then experts) gives the largest of each: with 64 experts nobody looks at them all.
    """
    for name, value in line.items():
        if isinstance(value, float):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}/{key}", one) for key, one in scalars(value))
        elif isinstance(value, list):
            for place, one in enumerate(value):
                largest = max(one, default=None) if isinstance(one, list) else one
                if isinstance(largest, float):
                    yield f"{name}/{place}", largest


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
