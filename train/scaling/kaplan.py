"""Kaplan et al. 2020, "Scaling laws for neural language models": power laws of loss, the critical batch, the allocation of compute.

N non-embedding parameters, D training tokens, C training FLOPs, S steps, B tokens a batch, L nats a token. The paper's unit of
compute is the PF-day. Exponents were found in a source; every other constant is *recalled* from the paper, and the identities
that the paper states between them are tests.

"min" marks what would be needed far below (C_min) or far above (S_min) the critical batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from train.scaling.laws import Range

PF_DAY = 1e15 * 24 * 3600  # FLOPs: 8.64e19


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """L(X) = (scale / X)^exponent."""

    scale: float
    exponent: float

    def loss(self, x: float) -> float:
        """Nats a token."""
        return float((self.scale / x) ** self.exponent)


BY_PARAMS = PowerLaw(8.8e13, 0.076)  # equation 1.1: converged, data unlimited
BY_TOKENS = PowerLaw(5.4e13, 0.095)  # equation 1.2: large model, stopped early
BY_COMPUTE = PowerLaw(1.6e7 * PF_DAY, 0.057)  # figure 1, dashed: fixed batch
BY_LEAST_COMPUTE = PowerLaw(3.1e8 * PF_DAY, 0.050)  # equation 1.3

# Equation 1.5 with table 2: L(N, D) = [(N_c / N)^(a_N / a_D) + D_c / D]^a_D
_N_C, _A_N, _D_C, _A_D = 6.4e13, 0.076, 1.8e13, 0.103
# Equation 1.6 with table 3: L(N, S_min) = (N_c / N)^a_N + (S_c / S_min)^a_S
STEPS_BY_PARAMS, STEPS_BY_STEPS = PowerLaw(6.5e13, 0.077), PowerLaw(2.1e3, 0.76)
# Equation 1.4: B_crit = B* / L^(1 / a_B), in tokens
CRITICAL_BATCH, CRITICAL_EXPONENT = 2e8, 0.21

# What was trained (section 1): 768 to 1.5e9 parameters, 22 M to 23 B tokens; compute to 1.5e9 x 2.5e5 steps of 2^19 tokens
RANGE = Range(params=(768, 1.5e9), tokens=(2.2e7, 2.3e10), flops=(6 * 768 * 2.2e7, 6 * 1.5e9 * 2.5e5 * 2**19))


def loss(params: float, tokens: float) -> float:
    """L(N, D) (equation 1.5): trained on D tokens until it would overfit."""
    return float(((_N_C / params) ** (_A_N / _A_D) + _D_C / tokens) ** _A_D)


def overfitting_exponent() -> float:
    """a_N / a_D = .74: data that grows as N^.74 avoids a penalty (section 4.2, equation 4.4)."""
    return _A_N / _A_D


def loss_after_steps(params: float, least_steps: float) -> float:
    """L(N, S_min) (equation 1.6)."""
    return STEPS_BY_PARAMS.loss(params) + STEPS_BY_STEPS.loss(least_steps)


def critical_batch(loss: float) -> float:
    """B_crit in tokens at a loss (equation 1.4): there, time and compute are each twice their least."""
    return float(CRITICAL_BATCH / loss ** (1 / CRITICAL_EXPONENT))


def least_steps(steps: float, batch: float, loss: float) -> float:
    """S_min = S / (1 + B_crit / B) (equation 5.4)."""
    return steps / (1 + critical_batch(loss) / batch)


def least_compute(flops: float, batch: float, loss: float) -> float:
    """C_min = C / (1 + B / B_crit) (equation 5.5)."""
    return flops / (1 + batch / critical_batch(loss))


def compute_exponent() -> float:
    """1 / (1 / a_S + 1 / a_B + 1 / a_N): the exponent of L(C_min) that the other fits imply (section 6.2, equation 6.4)."""
    return 1 / (1 / STEPS_BY_STEPS.exponent + 1 / CRITICAL_EXPONENT + 1 / STEPS_BY_PARAMS.exponent)


@dataclass(frozen=True, slots=True)
class Share:
    """scale (C_min / PF-day)^exponent."""

    scale: float
    exponent: float

    def at(self, flops: float) -> float:
        """For C_min in FLOPs."""
        return float(self.scale * (flops / PF_DAY) ** self.exponent)


# Equations 1.7 and 1.8, section 6 and appendix A: N, S_min and D for C_min. Batch grows as C^.24.
OPTIMAL_PARAMS, OPTIMAL_STEPS, OPTIMAL_TOKENS = Share(1.3e9, 0.73), Share(5.4e3, 0.03), Share(2e10, 0.27)
BATCH_EXPONENT = 0.24


def optimum(flops: float) -> tuple[float, float]:
    """(N, D) for C_min FLOPs: N = 1.3e9 C^.73, D = 2e10 C^.27. With the printed constants 6 N D is 1.8 C."""
    return OPTIMAL_PARAMS.at(flops), OPTIMAL_TOKENS.at(flops)


def breakdown() -> float:
    """C_min in FLOPs from which the allocation's few tokens bound the loss above L(C_min): the laws contradict (section 6.3).

    Solves (C_c / C)^a_C = (D_c / D(C))^a_D.
    """
    compute, tokens, share = BY_LEAST_COMPUTE, BY_TOKENS, OPTIMAL_TOKENS
    ratio = (compute.scale / PF_DAY) ** compute.exponent / (tokens.scale / share.scale) ** tokens.exponent
    return float(PF_DAY * ratio ** (1 / (compute.exponent - share.exponent * tokens.exponent)))
