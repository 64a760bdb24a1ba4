"""What a budget buys, under every law side by side; what serving changes; what repetition costs. Pure arithmetic on plain values.

* **Optimum**: N and D of least loss for C = 6 N D FLOPs. *Intervals* of N come from a fit's resamples; else from the published
  interval or standard error of the exponent a, turned about the middle of that paper's budgets; else there is none. Which of
  these it is, `interval_basis` says.
* **Serving** (LLaMA's view, Touvron et al. 2023, section 1: the best model is the cheapest *to serve* at a wanted loss): the loss
  of the optimum is held, and 6 N D + 2 N M is made least, M being the tokens that will be served at 2 N FLOPs each.
* **Repetition** (Muennighoff et al. 2023): with U unique tokens D counts as D' and N as N'; the optimum is searched on that law.

Every outcome carries the name of its law, and a warning where it lies outside of what the law was fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from train.scaling import kaplan, laws, resample
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN, LossLaw, Range

SERVING_FLOPS = 2.0  # a parameter and token, forward
NORMAL_95 = 1.959964
_SPAN = math.log(1e4)  # sizes are searched within this factor of the optimum
_STEPS = 4000
SPENT = 0.99  # of the most that repeated text can be worth, U (1 + R*_D)
Run = tuple[float, float]  # (N, D)


@dataclass(frozen=True, slots=True)
class Planned:
    """One law's answer: the optimum for a budget, and the loss of the (N, D) that was given, where one was."""

    law: str
    params: float
    params_interval: tuple[float, float] | None
    tokens: float
    tokens_interval: tuple[float, float] | None
    loss: float | None
    given_loss: float | None
    interval_basis: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """The cheapest (N, D) that has the optimum's loss when `served` tokens follow; FLOPs with serving, beside the optimum's."""

    law: str
    served: float
    loss: float
    params: float
    tokens: float
    training_flops: float
    whole_flops: float
    optimum_whole_flops: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """A training of (N, D) on `unique` tokens: passes, D', N', and losses with repetition and as if the text were all new."""

    law: str
    what: str
    params: float
    tokens: float
    unique: float
    passes: float
    effective_tokens: float
    effective_params: float
    loss: float
    fresh_loss: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnLaw:
    """A user's fit: its law, those of its resamples, what its rows covered, and how many resamples led to no law."""

    law: LossLaw
    resamples: tuple[LossLaw, ...]
    range: Range
    lost: int = 0


def plan(flops: float, given: Run | None, own: OwnLaw | None) -> list[Planned]:
    """Each law's optimum for `flops`; `given` is an (N, D) to be judged too."""
    middle = math.sqrt(math.prod(laws.CHINCHILLA_BUDGETS))
    share = laws.CHINCHILLA_CURVES
    error = NORMAL_95 * laws.BESIROGLU_ERRORS["exponent"]
    best = laws.BESIROGLU.exponent
    found = [
        _planned(
            share.name, share.optimum(flops), None, None, laws.CHINCHILLA_RANGE,
            _turned(share.optimum(flops)[0], flops / middle, share.low - share.exponent, share.high - share.exponent),
            f"by the exponent's 10th to 90th percentile, {share.low} to {share.high}", flops,
        ),
        _parametric(laws.CHINCHILLA, flops, given, laws.CHINCHILLA_RANGE, None, "none: the published one is too narrow to be true"),
        _parametric(
            laws.BESIROGLU, flops, given, laws.CHINCHILLA_RANGE,
            _turned(laws.BESIROGLU.optimum(flops)[0], flops / middle, -error, error),
            f"by 95 % of the exponent, {best:.3f} +- {error:.3f}",
        ),
        _kaplan(flops, given),
    ]  # fmt: skip
    if own is not None:
        interval, basis = None, "none: the fit has no resamples"
        if own.resamples:
            interval = resample.interval(np.array([law.optimum(flops)[0] for law in own.resamples]))
            basis = f"by 95 % of {len(own.resamples)} resamples"
            if own.lost:
                basis += f"; {own.lost} more led to no law, so that it is too narrow"
        found.append(_parametric(own.law, flops, given, own.range, interval, basis))
    return found


def _turned(params: float, ratio: float, low: float, high: float) -> tuple[float, float]:
    """Params with the exponent moved by low and by high about the budget that `ratio` is measured from."""
    ends = sorted((params * ratio**low, params * ratio**high))
    return ends[0], ends[1]


def _parametric(
    law: LossLaw, flops: float, given: Run | None, covered: Range, interval: tuple[float, float] | None, basis: str
) -> Planned:
    optimum = law.optimum(flops)
    return _planned(law.name, optimum, law.loss(*optimum), law.loss(*given) if given else None, covered, interval, basis, flops)


def _kaplan(flops: float, given: Run | None) -> Planned:
    """N is without embeddings, C far below the critical batch. D is C / (6 N), so that all rows spend the same."""
    params, _ = kaplan.optimum(flops)
    optimum = params, flops / (FLOPS_A_PARAMETER_TOKEN * params)
    given_loss = kaplan.loss(*given) if given else None
    loss, basis = kaplan.BY_LEAST_COMPUTE.loss(flops), "none published"
    found = _planned("Kaplan et al.", optimum, loss, given_loss, kaplan.RANGE, None, basis, flops)
    limit = kaplan.breakdown()
    if flops <= limit:
        return found
    beyond = f"beyond {limit:.2g} FLOPs these laws contradict each other (section 6.3)"
    return replace(found, warnings=(*found.warnings, beyond))


def _planned(
    name: str, optimum: tuple[float, float], loss: float | None, given_loss: float | None, covered: Range,
    interval: tuple[float, float] | None, basis: str, flops: float,
) -> Planned:  # fmt: skip
    tokens = None
    if interval is not None:
        low, high = (flops / (FLOPS_A_PARAMETER_TOKEN * params) for params in reversed(interval))
        tokens = low, high
    warnings = outside(*optimum, covered)
    return Planned(name, optimum[0], interval, optimum[1], tokens, loss, given_loss, basis, warnings)


def outside(params: float, tokens: float, covered: Range) -> tuple[str, ...]:
    """A sentence where a run lies outside of what a law was fitted on."""
    values = (("params", params), ("tokens", tokens), ("FLOPs", FLOPS_A_PARAMETER_TOKEN * params * tokens))
    found = []
    for (name, value), (low, high) in zip(values, (covered.params, covered.tokens, covered.flops), strict=True):
        if not low / 1.001 < value < high * 1.001:
            end, which = (high, "most") if value > high else (low, "least")
            found.append(f"{value / end:.3g} times the {which} {name} ({end:.3g})")
    return (f"extrapolates: {', '.join(found)} of its fit",) if found else ()


def serve(law: LossLaw, flops: float, served: float, covered: Range) -> Served:
    """The (N, D) with the loss of the optimum of `flops` and the least training and serving FLOPs together, for `served` tokens."""
    best_params, best_tokens = law.optimum(flops)
    loss = law.loss(best_params, best_tokens)
    smallest = (law.a / (loss - law.e)) ** (1 / law.alpha)  # below, no number of tokens reaches the loss

    def whole(params: float) -> float:
        return FLOPS_A_PARAMETER_TOKEN * params * law.tokens_for(params, loss) + SERVING_FLOPS * params * served

    params = lowest(whole, smallest, best_params)
    tokens = law.tokens_for(params, loss)
    at_optimum = flops + SERVING_FLOPS * best_params * served
    training = FLOPS_A_PARAMETER_TOKEN * params * tokens
    return Served(law.name, served, loss, params, tokens, training, whole(params), at_optimum, outside(params, tokens, covered))


def lowest(of: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley between two sizes is least, by golden section on the logarithm."""
    shrink = (math.sqrt(5) - 1) / 2
    left, right = math.log(low), math.log(high)
    for _ in range(100):
        a, b = right - shrink * (right - left), left + shrink * (right - left)
        if of(math.exp(a)) <= of(math.exp(b)):
            right = b
        else:
            left = a
    return math.exp((left + right) / 2)


def repeat(flops: float, given: Run | None, unique: float) -> list[Repeated]:
    """Under Muennighoff's law on `unique` tokens: the optimum as if all were new, the optimum with repetition, the given."""
    law = laws.MUENNIGHOFF
    fresh = law.law.optimum(flops)
    found = [_repeated("optimum if all text were new", fresh, unique)]
    if fresh[1] > unique:
        sizes = fresh[0] * np.exp(np.linspace(-_SPAN, _SPAN, _STEPS + 1))
        losses = [law.loss(params, flops / (FLOPS_A_PARAMETER_TOKEN * params), unique) for params in sizes.tolist()]
        at = int(np.argmin(losses))
        around = sizes[max(0, at - 1)], sizes[min(_STEPS, at + 1)]
        params = lowest(lambda size: law.loss(size, flops / (FLOPS_A_PARAMETER_TOKEN * size), unique), *around)
        found.append(_repeated("optimum with repetition", (params, flops / (FLOPS_A_PARAMETER_TOKEN * params)), unique))
    if given is not None:
        found.append(_repeated("as given", given, unique))
    return found


def _repeated(what: str, run: tuple[float, float], unique: float) -> Repeated:
    law = laws.MUENNIGHOFF
    effective, warnings = law.effective_tokens(run[1], unique), outside(*run, laws.MUENNIGHOFF_RANGE)
    if effective > SPENT * unique * (1 + law.tokens_decay):
        warnings = (*warnings, "further passes add nothing: the same loss is had for less, or get more text")
    return Repeated(
        law.law.name, what, *run, unique, run[1] / unique, effective, law.effective_params(*run, unique),
        law.loss(*run, unique), law.law.loss(*run), warnings,
    )  # fmt: skip


# Peak FLOP/s of dense products in 16 bits, as the makers' data sheets say.
DEVICES = {"v100": 125e12, "a100": 312e12, "h100": 989e12, "tpu-v4": 275e12}
# LLaMA 65B: 380 tokens a second and A100 (Touvron et al. 2023, section 2.4) are 6 N x 380 = 47.6 % of 312e12.
LLAMA_UTILISATION = 0.476


def device_flops(hours: float, device: str, utilisation: float) -> float:
    """FLOPs that so many hours of one device come to."""
    return hours * 3600 * DEVICES[device] * utilisation
