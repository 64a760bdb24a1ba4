"""How the quality classifier is learned, and how it is judged: on sources that it did not see.

A held-out slice of the training mix flatters a classifier: it rewards knowing the sources. So the strength of regularisation
is chosen leave-one-source-out: each source in turn is left out of training and scored against sources of the other class that
were left out with it; the strength with the best mean AUC wins. The one source of a class cannot be left out; where neither
class has two, the strongest regularisation is taken. Every source has equal weight in its class, and the classes equal weight,
whatever their sizes.

Where both classes come from the same sources, an example is a group of sites instead (`pipelines.fit_references`): a group is left
out of both classes at once and scored against itself, and documents are held out by site.

Like the scorer it reads the first `TEXT_CAP` bytes of a text: length is no feature, and what was calibrated is what is scored.
Pages from inside of long texts taught it less of what other sources are like (docs/results.md). Solver, sample and slices are
functions of the documents and the seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from quality import logistic, sampling
from quality.classifier import Classifier
from quality.classifier_kernel import TEXT_CAP, batch_features, new_seen
from quality.logistic import Rows
from quality.text import buffers

_SEARCH_TOLERANCE = 1e-5  # of the models that only choose a strength: ranks do not change below it
_SEARCH_DOCUMENTS = 2000  # of a source in the search; its many models need not see all to be ranked


@dataclass(frozen=True, slots=True)
class Example:
    """The sampled documents of one source."""

    source: str
    curated: bool
    texts: pa.Array  # large_string [n]
    doc_ids: pa.Array  # binary(16) [n]
    units: pa.Array | None = None  # binary(16) [n]: documents of one unit are held out together; default: each by itself
    group: int | None = None  # examples of one group are left out together


@dataclass(frozen=True, slots=True)
class FitSettings:
    """l2 is searched over `strengths`; `held_out` is the share of documents kept for the slice and for calibration."""

    seed: int
    bits: int = 20
    strengths: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    held_out: float = 0.1


@dataclass(frozen=True, slots=True)
class _Source:
    """A source as the solver sees it."""

    name: str
    curated: bool
    rows: Rows
    held: np.ndarray  # bool [n]
    draw: np.ndarray  # float64 [n]: the documents with the smallest ones take part in the search
    group: int | None = None

    def take(self, chosen: np.ndarray) -> _Source:
        """The documents at int64 [m]."""
        return _Source(self.name, self.curated, self.rows.take(chosen), self.held[chosen], self.draw[chosen], self.group)


def fit(training: Sequence[Example], judging: Sequence[Example], settings: FitSettings) -> Classifier:
    """Learns from `training` (at least one document a source, both classes), measures on all; deterministic."""
    sources = [_prepare(example, settings) for example in training]
    others = [_prepare(example, settings) for example in judging if len(example.texts)]
    learned = [source.take(np.flatnonzero(~source.held)) for source in sources]
    held = [source.take(np.flatnonzero(source.held)) for source in sources]
    searched = [source.take(np.sort(np.argsort(source.draw, kind="stable")[:_SEARCH_DOCUMENTS])) for source in learned]
    by_strength = _search(searched, settings)
    means = [_mean([one["auc"] for one in found]) for found in by_strength]
    best = max(range(len(means)), key=lambda i: (means[i] or 0.0, settings.strengths[i]))
    fitted = _learn(learned, settings.strengths[best], settings)
    point = fitted.point
    # float32 is what is stored, so it is what is calibrated and measured.
    point[:-1] = point[:-1].astype(np.float32)
    slope, intercept = _platt(held if _both_classes(held) else learned, point)
    metrics = {
        "l2": settings.strengths[best],
        "converged": fitted.converged,
        "l2_search": [
            {"l2": strength, "mean_auc": mean} for strength, mean in zip(settings.strengths, means, strict=True)
        ],
        "held_out_slice": _auc_of(_margins_of(held, point, True), _margins_of(held, point, False)),
        "leave_one_source_out": by_strength[best],
        "judged_only": _judge(others, sources, point),
        "documents": {source.name: len(source.rows) for source in [*sources, *others]},
    }
    return Classifier(point[:-1].astype(np.float32), float(point[-1]), slope, intercept, metrics)


# -- features ---------------------------------------------------------------------------------------------------------------


def _prepare(example: Example, settings: FitSettings) -> _Source:
    ids, units = _rows(example.doc_ids), _rows(example.units or example.doc_ids)
    held = sampling.uniform(units, settings.seed, "fit held out") < settings.held_out
    held &= not held.all()  # a source of a few documents is learned from, whatever the hashes say
    draw = sampling.uniform(ids, settings.seed, "fit search")
    return _Source(example.source, example.curated, features(example.texts, settings.bits), held, draw, example.group)


def _rows(ids: pa.Array) -> np.ndarray:
    """uint8 [n, 16] of binary(16) [n]."""
    return np.frombuffer(b"".join(ids.to_pylist()), np.uint8).reshape(-1, 16)


def features(texts: pa.Array, bits: int) -> Rows:
    """The feature sets of large_string [n]."""
    data, offsets = buffers(texts)
    indptr = np.zeros(len(texts) + 1, np.int64)
    indices = np.empty(int(np.minimum(np.diff(offsets), TEXT_CAP).sum()) + 2 * len(texts) + 2, np.int32)
    total = batch_features(data, offsets, bits, new_seen(bits), indptr, indices)
    # What is left of `indices` is never touched, so it takes no memory.
    return Rows(indptr, indices[:total], 1.0 / np.sqrt(np.maximum(np.diff(indptr), 1)))


# -- learning ---------------------------------------------------------------------------------------------------------------


def _learn(
    sources: Sequence[_Source],
    l2: float,
    settings: FitSettings,
    start: np.ndarray | None = None,
    tolerance: float = logistic.TOLERANCE,
) -> logistic.Fitted:
    filled = [source for source in sources if len(source.rows)]
    rows = _concatenated([source.rows for source in filled])
    signs = np.concatenate([np.full(len(s.rows), 1.0 if s.curated else -1.0) for s in filled])
    return logistic.fit(rows, signs, _shares(filled), l2, 1 << settings.bits, start, tolerance)


def _shares(sources: Sequence[_Source]) -> np.ndarray:
    """float64 [documents]: half to each class, equal parts to a class's sources, equal parts to a source's documents."""
    members = {curated: sum(s.curated is curated for s in sources) for curated in (True, False)}
    classes = sum(count > 0 for count in members.values())
    return np.concatenate([np.full(len(s.rows), 1.0 / (classes * members[s.curated] * len(s.rows))) for s in sources])


def _concatenated(rows: Sequence[Rows]) -> Rows:
    starts = np.cumsum([0, *(len(one.indices) for one in rows)])
    indptr = np.concatenate([[0], *(one.indptr[1:] + start for one, start in zip(rows, starts, strict=False))])
    return Rows(
        indptr.astype(np.int64),
        np.concatenate([one.indices for one in rows]),
        np.concatenate([one.scale for one in rows]),
    )


def _margins(rows: Rows, point: np.ndarray) -> np.ndarray:
    out = np.empty(len(rows))
    logistic.margins(rows.indptr, rows.indices, rows.scale, point, out)
    return out


def _margins_of(sources: Sequence[_Source], point: np.ndarray, curated: bool) -> np.ndarray:
    return np.concatenate([np.empty(0), *(_margins(s.rows, point) for s in sources if s.curated is curated)])


def _both_classes(sources: Sequence[_Source]) -> bool:
    return all(sum(len(s.rows) for s in sources if s.curated is curated) >= 10 for curated in (True, False))


def _platt(sources: Sequence[_Source], point: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of Platt's sigmoid, by Newton's method on balanced weights; slope is kept positive."""
    filled = [source for source in sources if len(source.rows)]
    x = np.concatenate([_margins(s.rows, point) for s in filled])
    y = np.concatenate([np.full(len(s.rows), float(s.curated)) for s in filled])
    share = _shares(filled)
    slope, intercept = 1.0, 0.0
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-np.clip(slope * x + intercept, -60, 60)))
        residual, curve = share * (p - y), share * p * (1 - p)
        # A whisper of ridge keeps separable classes from an infinite slope.
        ridge = 1e-4
        g = np.array([math.fsum(residual * x) + ridge * slope, math.fsum(residual) + ridge * intercept])
        xx, xo, oo = math.fsum(curve * x * x) + ridge, math.fsum(curve * x), math.fsum(curve) + ridge
        determinant = xx * oo - xo * xo
        move = np.array([oo * g[0] - xo * g[1], xx * g[1] - xo * g[0]]) / determinant
        length = max(1.0, float(np.abs(move).max()) / 5.0)
        slope, intercept = slope - move[0] / length, intercept - move[1] / length
        if np.abs(move).max() < 1e-10:
            break
    return max(float(slope), 1e-6), float(intercept)


# -- judging ----------------------------------------------------------------------------------------------------------------


def _search(sources: Sequence[_Source], settings: FitSettings) -> list[list[dict[str, Any]]]:
    """For each strength, for each source that can be left out: its AUC by models that never saw it.

    A source is scored against sources of the other class that were left out with it: against those that were learned from it
    would look too good, since the model knows their marks. Where the other class has one source only, there is no other way.
    A source of a group is scored against those of its own group.
    From the strongest regularisation down, each model begins where the stronger one ended.
    """
    filled = [source for source in sources if len(source.rows)]
    spare = {curated: sum(s.curated is curated for s in filled) > 1 for curated in (True, False)}
    pairs = [
        (source, partner)
        for source in filled
        for partner in _partners(source, filled, spare)
    ]
    starts: dict[frozenset[str], np.ndarray] = {}
    found: dict[float, list[dict[str, Any]]] = {}
    for l2 in sorted(settings.strengths, reverse=True):
        points: dict[frozenset[str], np.ndarray] = {}
        scored: dict[str, list[dict[str, Any]]] = {}
        for source, partner in pairs:
            left_out = frozenset({source.name} if partner is None else {source.name, partner.name})
            if left_out not in points:
                rest = [other for other in filled if other.name not in left_out]
                points[left_out] = _learn(rest, l2, settings, starts.get(left_out), _SEARCH_TOLERANCE).point
            against = [partner] if partner else [o for o in filled if o.curated is not source.curated]
            scored.setdefault(source.name, []).append(_against(source, against, points[left_out]))
        starts = points
        found[l2] = [_averaged(source, scored[source.name]) for source in filled if source.name in scored]
    return [found[l2] for l2 in settings.strengths]


def _partners(source: _Source, filled: Sequence[_Source], spare: Mapping[bool, bool]) -> list[_Source | None]:
    """The sources of the other class that are left out with `source`, one at a time; [None] for no other; [] where it cannot be."""
    if not spare[source.curated]:
        return []
    others: list[_Source | None] = [one for one in filled if one.curated is not source.curated and one.group == source.group]
    if spare[not source.curated]:
        return others
    return [None] if source.group is None else []


def _against(source: _Source, others: Sequence[_Source], point: np.ndarray) -> dict[str, Any]:
    """The AUC of a source against sources of the other class."""
    own, other = _margins(source.rows, point), _margins_of(others, point, not source.curated)
    return _auc_of(own, other) if source.curated else _auc_of(other, own)


def _averaged(source: _Source, scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean AUC of a source over its partners, within the widest of their intervals."""
    own, other = ("curated", "web") if source.curated else ("web", "curated")
    return {
        "source": source.name,
        "curated": source.curated,
        "auc": round(math.fsum(one["auc"] for one in scored) / len(scored), 4),
        "low": min(one["low"] for one in scored),
        "high": max(one["high"] for one in scored),
        f"{own}_documents": len(source.rows),
        f"{other}_documents": sum(one[f"{other}_documents"] for one in scored),
    }


def _judge(others: Sequence[_Source], sources: Sequence[_Source], point: np.ndarray) -> list[dict[str, Any]]:
    """The sources that only measure: each against the judged sources of the other class, or the held-out training ones."""
    held = [source.take(np.flatnonzero(source.held)) for source in sources]
    found = []
    for one in others:
        against = [other for other in others if other.curated is not one.curated] or held
        found.append({"source": one.name, "curated": one.curated, **_against(one, against, point)})
    return found


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """P(positive > negative) + P(equal) / 2, exact by ranks; nan where a side is empty."""
    if not len(positive) or not len(negative):
        return math.nan
    values, counts = np.unique(np.concatenate([positive, negative]), return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0  # mean rank of each value
    total = math.fsum(ranks[np.searchsorted(values, positive)])
    n, m = len(positive), len(negative)
    return (total - n * (n + 1) / 2) / (n * m)


def _auc_of(positive: np.ndarray, negative: np.ndarray) -> dict[str, Any]:
    """AUC with its 95 % interval (Hanley and McNeil 1982) and the numbers of documents."""
    value = auc(positive, negative)
    n, m = len(positive), len(negative)
    if math.isnan(value):
        return {"auc": None, "low": None, "high": None, "curated_documents": n, "web_documents": m}
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    variance = (value * (1 - value) + (n - 1) * (q1 - value**2) + (m - 1) * (q2 - value**2)) / (n * m)
    half = 1.96 * math.sqrt(max(variance, 0.0))
    bounds = {"auc": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}
    return {**{k: round(v, 4) for k, v in bounds.items()}, "curated_documents": n, "web_documents": m}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), 6) if known else None
