"""The published laws of loss as values, and what follows from them in closed form. Kaplan's are in `train.scaling.kaplan`.

N parameters, D training tokens, C = 6 N D training FLOPs, L loss in nats a token, all as plain floats. A law says what N counts:
Chinchilla's N holds everything but (by its appendix F) the embedding multiplications; Clark's is the dense model's.

Constants marked *recalled* are from memory of the paper and were not found again in a source; the others were, or were rebuilt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOPS_A_PARAMETER_TOKEN = 6.0  # C = 6 N D: Kaplan et al. 2020, section 2.1; Hoffmann et al. 2022, section 3.3


@dataclass(frozen=True, slots=True)
class Range:
    """What the runs behind a law covered, both ends inclusive: parameters, tokens, FLOPs."""

    params: tuple[float, float]
    tokens: tuple[float, float]
    flops: tuple[float, float]


@dataclass(frozen=True, slots=True)
class LossLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 2)."""

    name: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, params: float, tokens: float) -> float:
        """Nats a token; both above 0."""
        return self.e + self.a * params**-self.alpha + self.b * tokens**-self.beta

    @property
    def exponent(self) -> float:
        """a in N_opt ~ C^a (Hoffmann et al. 2022, equation 4)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def scale(self) -> float:
        """G = (alpha A / (beta B))^(1 / (alpha + beta)) (equation 4)."""
        return (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) of least loss with 6 N D = flops: N = G (C/6)^a, D = C / (6 N) (Hoffmann et al. 2022, equation 4)."""
        params = self.scale * (flops / FLOPS_A_PARAMETER_TOKEN) ** self.exponent
        return params, flops / (FLOPS_A_PARAMETER_TOKEN * params)

    def params_for(self, tokens: float) -> float:
        """N whose optimal number of tokens this is: equation 4 solved for it, N = G (G D)^(beta / alpha)."""
        return self.scale * (self.scale * tokens) ** (self.beta / self.alpha)

    def tokens_for(self, params: float, loss: float) -> float:
        """D at which `params` parameters reach `loss`; infinite where no number of tokens brings them there."""
        left = loss - self.e - self.a * params**-self.alpha
        if left <= 0:
            return math.inf
        exponent = math.log(self.b / left) / self.beta
        return math.exp(exponent) if exponent < 700 else math.inf


# Approach 3 as printed (section 3.3, equation 10): at 5.76e23 FLOPs these give N = 32 B where the paper says 40 B. For show only.
CHINCHILLA_ROUNDED = LossLaw("Chinchilla, approach 3, as printed", 1.69, 406.4, 410.7, 0.34, 0.28)
# The same fit with all digits, as comments of the paper's TeX source hold them (found by Besiroglu et al. 2024).
CHINCHILLA = LossLaw("Chinchilla, approach 3", math.exp(0.5267228), math.exp(6.0073404), math.exp(6.0179186), 0.33917084, 0.2849083)
# Besiroglu, Erdil, Barnett and You 2024, "Chinchilla scaling: a replication attempt": the fit that the paper's own figure gives.
BESIROGLU = LossLaw("Besiroglu et al.", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)
# Standard errors as published there; a = beta / (alpha + beta) = .513 with .020. No covariances are published.
BESIROGLU_ERRORS = {"e": 0.026, "a": 124.5, "b": 1293.0, "alpha": 0.015, "beta": 0.021, "exponent": 0.020}

# The runs that both were fitted on: parameters and FLOPs as read off the figure (Besiroglu et al. 2024), tokens by the abstract.
CHINCHILLA_RANGE = Range(params=(5.7e7, 1.6e10), tokens=(5e9, 5e11), flops=(1.4e18, 1.3e22))


@dataclass(frozen=True, slots=True)
class Allocation:
    """N_opt = params (C / flops)^exponent; low and high: the exponent's published interval."""

    name: str
    params: float
    flops: float
    exponent: float
    low: float
    high: float

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) for that many FLOPs, D = C / (6 N)."""
        params = self.params * (flops / self.flops) ** self.exponent
        return params, flops / (FLOPS_A_PARAMETER_TOKEN * params)


# Approach 1 (section 3.1; exponents of table 2, *recalled*), through the row 10 B of table 3 (*recalled*).
CHINCHILLA_CURVES = Allocation("Chinchilla, approach 1", 1.0e10, 1.23e22, 0.50, 0.488, 0.502)
# Table 3, *recalled*: N, C, D of approach 1.
CHINCHILLA_TABLE = (
    (4.0e8, 1.92e19, 8.0e9), (1.0e9, 1.21e20, 2.02e10), (1.0e10, 1.23e22, 2.051e11), (6.7e10, 5.76e23, 1.5e12),
    (1.75e11, 3.85e24, 3.7e12), (2.80e11, 9.90e24, 5.9e12), (5.20e11, 3.43e25, 1.1e13), (1.0e12, 1.27e26, 2.12e13),
)  # fmt: skip
# Table 2, *recalled*: (exponent of N, 10th and 90th percentile) of approach 2, whose coefficient the paper does not print.
CHINCHILLA_ISOFLOP_EXPONENT = (0.49, 0.462, 0.534)
# The nine budgets of approach 2 (section 3.2) run from 6e18 to 3e21; their middle is where an allocation is known best.
CHINCHILLA_BUDGETS = (6e18, 3e21)


@dataclass(frozen=True, slots=True)
class RepetitionLaw:
    """Loss where data is repeated (Muennighoff et al. 2023, "Scaling data-constrained language models", section 3, equations 4-7).

    The loss law takes D' and N' instead of D and N:

        D' = U + U R*_D (1 - exp(-R_D / R*_D))      U unique tokens, R_D = D / U - 1 repetitions beyond the first pass
        N' = V + V R*_N (1 - exp(-R_N / R*_N))      V = min(N, the optimal N for U tokens), R_N = N / V - 1
    """

    law: LossLaw
    tokens_decay: float  # R*_D
    params_decay: float  # R*_N

    def effective_tokens(self, tokens: float, unique: float) -> float:
        """D'; `tokens` itself where nothing is seen twice."""
        return _decayed(tokens, min(tokens, unique), self.tokens_decay)

    def effective_params(self, params: float, tokens: float, unique: float) -> float:
        """N': parameters beyond what the unique tokens can use are worth less."""
        return _decayed(params, min(params, self.law.params_for(min(tokens, unique))), self.params_decay)

    def loss(self, params: float, tokens: float, unique: float) -> float:
        """Nats a token after `tokens` tokens out of a corpus of `unique`."""
        return self.law.loss(self.effective_params(params, tokens, unique), self.effective_tokens(tokens, unique))


def _decayed(total: float, base: float, decay: float) -> float:
    return base + base * decay * -math.expm1(-(total / base - 1) / decay)


MUENNIGHOFF = RepetitionLaw(
    LossLaw("Muennighoff et al.", math.exp(0.6254804), math.exp(6.255414), math.exp(7.3049974), 0.3526596, 0.3526596),
    tokens_decay=15.387756,
    params_decay=5.309743,
)
# Section 4 and appendix, *recalled*: models to 8.7 B parameters, to 900 B tokens.
MUENNIGHOFF_RANGE = Range(params=(7e6, 8.7e9), tokens=(1e8, 9e11), flops=(6 * 7e6 * 1e8, 6 * 8.7e9 * 9e11))


@dataclass(frozen=True, slots=True)
class RoutedLaw:
    """Loss of a routed model (Clark et al. 2022, "Unified scaling laws for routed language models", section 5, equations 2 and 5).

        log10 L(N, E) = a log10 N + b log10 Ê + c log10 N log10 Ê + d
        1 / Ê = 1 / (E - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max

    N parameters of the dense model, E experts. `start` and `limit` bound Ê: it is `start` at E = 1.
    """

    name: str
    a: float
    b: float
    c: float
    d: float
    start: float
    limit: float

    def saturated(self, experts: float) -> float:
        """Ê of E experts, E at least 1."""
        return 1 / (1 / (experts - 1 + 1 / (1 / self.start - 1 / self.limit)) + 1 / self.limit)

    def loss(self, params: float, experts: float) -> float:
        """Nats a token."""
        n, e = math.log10(params), math.log10(self.saturated(experts))
        return float(10 ** (self.a * n + self.b * e + self.c * n * e + self.d))

    def effective_params(self, params: float, experts: float) -> float:
        """Parameters of the dense model with the same loss (Clark et al. 2022, section 5.3, equation 11)."""
        start = math.log10(self.start)
        wanted = math.log10(self.loss(params, experts)) - self.d - self.b * start
        return float(10 ** (wanted / (self.a + self.c * start)))


# Clark et al., table 3, by router. E_start and E_max as there, and the rest to three digits (-.082, -.108, .009, 1.104;
# -.083, -.126, .012, 1.111; -.087, -.136, .012, 1.157), all *recalled*. Three digits may be 2 % off in the loss, so here stand
# four: least squares on the authors' published runs with these E_start and E_max.
CLARK = {
    "S-BASE": RoutedLaw("S-BASE", -0.0824, -0.1079, 0.0091, 1.1046, 1.847, 314.478),
    "RL-R": RoutedLaw("RL-R", -0.0832, -0.1255, 0.0115, 1.1111, 1.880, 469.982),
    "HASH": RoutedLaw("HASH", -0.0872, -0.1362, 0.0125, 1.1570, 4.175, 477.741),
}
