"""How far apart are two arms of a comparison, in bits per byte, and how sure is that?

Two things are drawn at random and both limit what a comparison shows: the seeds of the runs and the documents of the evaluation
sets. For seed s, domain d and document i with difference x_si = bits of the second arm - bits of the first,

    gap_s,d  = sum of x_si over the domain / sum of bytes over the domain      above zero: the first arm is the better one
    gap_s    = mean over an endpoint's domains, equal weight a domain
    variance = V_seed + max(0, V_document - V_shared)

    V_seed      sample variance of gap_s over seeds / S: what the paired t-test takes (Student 1908)
    V_document  cluster-robust variance of the ratio whose numerator is averaged over seeds (Cameron and Miller 2015, "A
                practitioner's guide to cluster-robust inference", on few and unequal clusters: CR3, the jackknife that leaves out
                one cluster at a time, here in closed form since a ratio without a cluster is a ratio of two differences)
    V_shared    noise of a seed on a document stands in both of the above; this is its variance and is counted once

The interval is Student's t with the degrees of freedom of Satterthwaite (1946), which are S - 1 where documents add nothing.
With one seed, or one cluster in a domain, a variance cannot be known: it is infinite and so is the interval.

Sums run by `math.fsum` within a cluster and clusters stand in the order of their names: no order of documents changes a digit.

Shapes: S seeds, N documents, C clusters, K cells (a cluster's documents within one domain), ordered by domain, then cluster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipelines.errors import UserError

MOST_SEEDS = 40  # the exact sign-flip test holds 2^(S/2) sums
_TIE = 1e-12  # of the sum of sizes: two sums that differ by rounding only are one


@dataclass(frozen=True)
class Cells:
    """The differences of two arms over the same documents, summed by domain and cluster."""

    domain_names: tuple[str, ...]
    domain_K: np.ndarray  # int64, place in domain_names
    cluster_K: np.ndarray  # int64, place among the clusters in the order of their names
    bytes_K: np.ndarray  # int64
    bits_SK: np.ndarray  # float64, second arm - first arm


@dataclass(frozen=True)
class Estimate:
    """The gap of one endpoint (bits per byte, above zero: the first arm is better) and its variances (bits per byte, squared)."""

    domains: tuple[str, ...]
    seed_gaps: tuple[float, ...]
    gap: float
    seed_variance: float
    document_variance: float
    shared_variance: float
    freedom: float
    clusters: int

    @property
    def seeds(self) -> int:
        return len(self.seed_gaps)

    @property
    def variance(self) -> float:
        if math.isinf(self.seed_variance) or math.isinf(self.document_variance):
            return math.inf
        return self.seed_variance + max(0.0, self.document_variance - self.shared_variance)

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided interval that covers the true gap in a share `level` of repetitions; (-inf, inf) where no variance is known."""
        if math.isinf(self.variance):
            return -math.inf, math.inf
        half = student_quantile((1 + level) / 2, self.freedom) * math.sqrt(self.variance)
        return self.gap - half, self.gap + half

    def above_p(self, bound: float) -> float:
        """One-sided p of the hypothesis that the true gap is at most `bound`."""
        if math.isinf(self.variance):
            return 1.0
        distance = self.gap - bound
        if self.variance == 0:
            return 0.0 if distance > 0 else 1.0
        return student_tail(distance / math.sqrt(self.variance), self.freedom)

    def flip_p(self) -> float:
        return sign_flip_p(self.seed_gaps)


def tabulate(
    first_SN: np.ndarray, second_SN: np.ndarray, bytes_N: np.ndarray, clusters: Sequence[str], domains: Sequence[str]
) -> Cells:
    """Pair two arms by seed (row) and document (column).

    Args:
        first_SN: float [S, N], bits of each document under the first arm; row s is the run of seed s.
        second_SN: the same of the second arm: same seeds, same documents, same order.
        bytes_N: int [N], UTF-8 bytes of each document.
        clusters: what documents that are not independent share (thread, host, author), one a document.
        domains: the evaluation set of each document.

    Raises:
        UserError: shapes that do not fit, no document, bits that are no number, a document without bytes.
    """
    first_SN, second_SN = np.asarray(first_SN, np.float64), np.asarray(second_SN, np.float64)
    bytes_N = np.asarray(bytes_N)
    if first_SN.ndim != 2 or first_SN.shape != second_SN.shape:
        raise UserError(
            f"bits of the arms have shapes {first_SN.shape} and {second_SN.shape}: give [seeds, documents], the same of both"
        )
    counts = {"bytes": bytes_N.shape, "clusters": (len(clusters),), "domains": (len(domains),)}
    for name, shape in counts.items():
        if shape != first_SN.shape[1:]:
            raise UserError(f"{name} have shape {shape} but bits name {first_SN.shape[1]} documents: give one a document")
    if not first_SN.size:
        raise UserError(f"bits have shape {first_SN.shape}: a comparison needs at least one seed and one document")
    for name, bits_SN in (("first", first_SN), ("second", second_SN)):
        if not np.isfinite(bits_SN).all():
            seed, document = (int(i) for i in np.argwhere(~np.isfinite(bits_SN))[0])
            raise UserError(f"{name} arm, seed row {seed}, document {document}: bits are {bits_SN[seed, document]}; run it again")
    if bytes_N.dtype.kind not in "iu" or (bytes_N < 1).any():
        raise UserError("bytes of a document must be whole numbers of at least 1: leave empty documents out of the evaluation set")

    domain_names, domain_N = np.unique(np.asarray(domains, dtype=np.str_), return_inverse=True)
    cluster_names, cluster_N = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    cells, cell_N = np.unique(domain_N.astype(np.int64) * len(cluster_names) + cluster_N, return_inverse=True)
    order = np.argsort(cell_N, kind="stable")
    bounds = np.searchsorted(cell_N[order], np.arange(len(cells) + 1)).tolist()
    rows = [row.tolist() for row in (second_SN - first_SN)[:, order]]
    return Cells(
        domain_names=tuple(str(name) for name in domain_names),
        domain_K=cells // len(cluster_names),
        cluster_K=cells % len(cluster_names),
        bytes_K=np.add.reduceat(bytes_N[order].astype(np.int64), bounds[:-1]),
        bits_SK=np.array([[math.fsum(row[a:b]) for a, b in pairwise(bounds)] for row in rows]),
    )


def estimate(cells: Cells, domains: Sequence[str]) -> Estimate:
    """The mean gap over `domains`, equal weight a domain. No domain or an unknown one: UserError."""
    names = tuple(sorted(set(domains)))
    if not names:
        raise UserError("an endpoint without a domain has no gap: name at least one evaluation set")
    if unknown := [name for name in names if name not in cells.domain_names]:
        raise UserError(f"domain {unknown[0]!r} has no document: the evaluation sets are {', '.join(cells.domain_names)}")
    seeds = len(cells.bits_SK)
    gaps_DS = []
    effect_SC = np.zeros((seeds, int(cells.cluster_K.max()) + 1))  # what a cluster does to the endpoint, by seed
    present_C = np.zeros(effect_SC.shape[1], dtype=bool)
    variances, freedoms, known = [], [], True
    for name in names:
        at = np.flatnonzero(cells.domain_K == cells.domain_names.index(name))
        bits_SK, bytes_K, cluster_K = cells.bits_SK[:, at], cells.bytes_K[at], cells.cluster_K[at]
        total = int(bytes_K.sum())
        gaps_S = np.array([math.fsum(row) / total for row in bits_SK])
        gaps_DS.append(gaps_S)
        present_C[cluster_K] = True
        if len(at) < 2:
            known = False
            continue
        share_K = bytes_K / total
        # Without cluster k the ratio moves by -(bits_k - gap * bytes_k) / (total - bytes_k).
        moved_SK = (bits_SK - gaps_S[:, None] * bytes_K) / (total * (1 - share_K))
        moved_SK *= math.sqrt((len(at) - 1) / len(at)) / len(names)
        effect_SC[:, cluster_K] += moved_SK
        variances.append(float((moved_SK.mean(axis=0) ** 2).sum()))
        # As many clusters of equal size as these of unequal size are worth (Kish 1965).
        freedoms.append(max(1.0, 1 / float((share_K**2).sum()) - 1))
    gaps_S = np.array([math.fsum(column) / len(names) for column in np.array(gaps_DS).T])
    document = float((effect_SC.mean(axis=0) ** 2).sum()) if known else math.inf
    seed = float(gaps_S.var(ddof=1)) / seeds if seeds > 1 else math.inf
    shared = float(effect_SC.var(axis=0, ddof=1).sum()) / seeds if seeds > 1 and known else 0.0
    freedom = _freedom(seeds - 1, (seed, document, shared), _pooled(variances, freedoms)) if seeds > 1 and known else 0.0
    return Estimate(
        domains=names,
        seed_gaps=tuple(gaps_S.tolist()),
        gap=math.fsum(gaps_S) / seeds,
        seed_variance=seed,
        document_variance=document,
        shared_variance=shared,
        freedom=freedom,
        clusters=int(present_C.sum()),
    )


def _pooled(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent variances (Satterthwaite 1946, "An approximate distribution of estimates of
    variance components")."""
    below = sum(v * v / f for v, f in zip(variances, freedoms, strict=True))
    return sum(variances) ** 2 / below if below else min(freedoms)


def _freedom(of_seeds: float, variances: tuple[float, float, float], of_documents: float) -> float:
    """The same for V_seed + V_document - V_shared; at least as many as the poorer of seeds and documents has.

    Three terms, not two: what is taken off is an estimate too. Without it some simulated intervals of 95 % cover 94 %.
    """
    seed, document, shared = variances
    below = seed**2 / of_seeds + document**2 / of_documents + shared**2 / (of_seeds * of_documents)
    if not below:
        return of_seeds
    return max(min(of_seeds, of_documents), (seed + max(0.0, document - shared)) ** 2 / below)


def sign_flip_p(gaps: Sequence[float]) -> float:
    """Exact two-sided p that a gap is as likely to have one sign as the other (Fisher 1935, "The Design of Experiments", ch. III).

    The share of the 2^S ways to sign the gaps whose sum is as far from zero as the one seen. Every half of the gaps has its sums
    listed once, and pairs of sums are counted by bisection: the same count as all 2^S in the room of 2^(S/2).
    S seeds give no p below 2^(1-S). More than MOST_SEEDS: UserError.
    """
    if not 1 <= len(gaps) <= MOST_SEEDS:
        raise UserError(f"{len(gaps)} paired seeds: the exact sign-flip test takes 1 to {MOST_SEEDS}")
    seen = abs(math.fsum(gaps)) - _TIE * math.fsum(abs(gap) for gap in gaps)
    if seen <= 0:
        return 1.0
    middle = len(gaps) // 2
    left, right = _signed_sums(gaps[:middle]), np.sort(_signed_sums(gaps[middle:]))
    above = len(left) * len(right) - int(np.searchsorted(right, seen - left, side="left").sum())
    below = int(np.searchsorted(right, -seen - left, side="right").sum())
    return (above + below) / 2 ** len(gaps)


def _signed_sums(gaps: Sequence[float]) -> np.ndarray:
    sums = np.zeros(1)
    for gap in gaps:
        sums = np.concatenate([sums + gap, sums - gap])
    return sums


def student_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's t of `freedom` > 0, whole or not: half of I_x(freedom/2, 1/2) at x = freedom/(freedom + t^2)."""
    if t < 0:
        return 1.0 - student_tail(-t, freedom)
    if t > 1e150:  # t * t would pass the range of floats; the tail is a power law, so no answer but zero for our degrees
        return 0.0
    whole = freedom + t * t
    return 0.5 * _beta(freedom / whole, t * t / whole, freedom / 2, 0.5)


def student_quantile(probability: float, freedom: float) -> float:
    """t with P(T <= t) = probability, 0 < probability < 1.

    Above zero the tail is convex and falls, so that Newton's steps from zero climb to the root and never pass it.
    """
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    tail = 1 - probability
    log_peak = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    t = 0.0
    while True:
        density = math.exp(log_peak - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (student_tail(t, freedom) - tail) / density
        if step <= 1e-15 * t:
            return t
        t += step


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b) with rest = 1 - x, by its continued fraction (DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly; I_x(a, b) = 1 - I_(1-x)(b, a)
        return 1.0 - _beta(rest, x, b, a)
    if x == 0:
        return 0.0
    log_front = a * math.log(x) + b * math.log1p(-x) - math.log(a) - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
    # Lentz's method: the fraction is the product of the ratios of successive numerators (c) and denominators (1 / d).
    value, c, d, step = 1.0, 1.0, 0.0, 1
    while True:
        m, odd = divmod(step, 2)
        if odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            return math.exp(log_front) / value
        step += 1
