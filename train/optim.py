"""Optimisers: AdamW as LLaMA uses it, Adafactor as GLaM uses it, and clipping by the global norm.

* **AdamW** (Loshchilov and Hutter 2019) with beta 0.9 and 0.95, weight decay 0.1 (LLaMA, Touvron et al. 2023, section 2.3) on
  matrices and embeddings; norms, biases and small tables of biases are not decayed. By torch, fused.
* **Adafactor** (Shazeer and Stern 2018, algorithms 4 and 5) without first moment: the second moment of a matrix is kept as row and
  column means (stacked experts: of each matrix), of a vector in full; updates are clipped to a root mean square of 1 and scaled by
  the parameter's own. GLaM (Du et al. 2022, section 5.1) names both a decay of 0.99 and 1 - t^-0.8: the lesser is taken here, so
  that the decay grows as in the paper of Adafactor until it reaches 0.99 at update 317. No weight decay.

State is float32 and a function of gradients alone; learning rates are set from outside before every step (schedule.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.optim import Optimizer

from train.memory import Optimiser


def make_optimiser(model: nn.Module, kind: Optimiser, betas: tuple[float, float], weight_decay: float) -> Optimizer:
    """The optimiser of all parameters of a model. Of Adafactor only betas[1] is used; learning rates are 0 until they are set."""
    if kind == "adafactor":
        return Adafactor(model.parameters(), beta2=betas[1])
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}  # fused code takes tensors of one kind: sharded ones apart
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim >= 2 and not name.endswith("bias")
        groups.setdefault((decayed, isinstance(parameter, DTensor)), []).append(parameter)
    chosen = [{"params": params, "weight_decay": weight_decay if key[0] else 0.0} for key, params in groups.items()]
    return torch.optim.AdamW(chosen, lr=0.0, betas=betas, eps=1e-8, fused=True)


class Adafactor(Optimizer):
    """See the head of this file. Per parameter: `step`, and `row` [..., rows], `column` [..., columns] or `moment` [...]."""

    def __init__(self, parameters: Iterable[Any], lr: float = 0.0, beta2: float = 0.99) -> None:
        super().__init__(parameters, {"lr": lr, "beta2": beta2})

    decay_power = 0.8
    clip = 1.0  # root mean square of an update
    eps_gradient = 1e-30  # added to squared gradients
    eps_scale = 1e-3  # the least root mean square of a parameter

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.float(), group["lr"], group["beta2"])

    def _update(self, parameter: Tensor, gradient: Tensor, rate: float, beta2: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
        state["step"] += 1
        decay = min(beta2, 1 - float(state["step"]) ** -self.decay_power)
        square = gradient.square() + self.eps_gradient
        if gradient.ndim >= 2:
            row = _average(state, "row", _settled(square.mean(-1)), decay)
            column = _average(state, "column", _settled(square.mean(-2)), decay)
            share = row / _settled(row.mean(-1, keepdim=True))
            update = gradient * share.rsqrt().unsqueeze(-1) * column.rsqrt().unsqueeze(-2)
        else:
            update = gradient * _average(state, "moment", square, decay).rsqrt()
        update = update / (_root_mean_square(update) / self.clip).clamp(min=1.0)
        parameter -= update * (rate * _root_mean_square(parameter).clamp(min=self.eps_scale))


def _average(state: dict[str, Any], name: str, fresh: Tensor, decay: float) -> Tensor:
    """The moving average under `name`, with `fresh` taken in."""
    if name not in state:
        state[name] = torch.zeros_like(fresh)
    average: Tensor = state[name].mul_(decay).add_(fresh, alpha=1 - decay)
    return average


def _settled(x: Tensor) -> Tensor:
    """x with sums over processes carried out, where it is a tensor that lies on several."""
    if isinstance(x, DTensor) and any(isinstance(place, Partial) for place in x.placements):
        return x.redistribute(placements=[Replicate() if isinstance(place, Partial) else place for place in x.placements])
    return x


def whole(x: Tensor) -> Tensor:
    """x as an ordinary tensor, gathered where it lies on several processes."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def _root_mean_square(x: Tensor) -> Tensor:
    return whole(torch.linalg.vector_norm(x)) / x.numel() ** 0.5


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """float32 scalar: the Euclidean norm of all gradients together; not finite where any of them is not.

    Summed in float64, so that it is the same however gradients are sharded.
    """
    norms = []
    for some in _by_kind(parameters):
        each = [torch.linalg.vector_norm(one.grad, dtype=torch.float64) for one in some]
        norms.append(whole(torch.linalg.vector_norm(torch.stack(each))))
    return torch.linalg.vector_norm(torch.stack(norms)).float()


def clip_gradients(parameters: Iterable[Tensor], norm: Tensor, most: float) -> None:
    """Scales all gradients so that their norm, which is given, is at most `most`."""
    for some in _by_kind(parameters):
        torch.nn.utils.clip_grads_with_norm_(some, most, norm)


def _by_kind(parameters: Iterable[Any]) -> list[list[Any]]:
    """Those that have gradients, sharded ones apart from ordinary ones: torch's functions on lists take one kind."""
    having = [one for one in parameters if one.grad is not None]
    kinds = [[one for one in having if isinstance(one, DTensor) == sharded] for sharded in (False, True)]
    return [kind for kind in kinds if kind]
