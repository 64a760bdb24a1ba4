"""What select solves once for the whole run: every variant's quality draws, and its mixture; both from exact sums of integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import mixture
from pipelines.judge import ResolvedDraw
from pipelines.recipe import Draw
from pipelines.select_settings import Settings, solution_path
from pipelines.store import Store
from quality import sampling

Sent = tuple[int, Iterable[bytes]]  # (variant's number, what its parts sent)


def resolve(draw: Draw, histogram: np.ndarray) -> ResolvedDraw:
    """The solution of a draw over int64 [10001] tokens per step of quality."""
    if draw.draw == "pareto":
        shift = 0.0 if draw.keep_rate is None else sampling.solve_shift(histogram, draw.alpha, draw.keep_rate)
        return ResolvedDraw(draw, shift=shift)
    if draw.threshold is not None:
        return ResolvedDraw(draw, threshold=draw.threshold)
    assert draw.keep_rate is not None
    return ResolvedDraw(draw, threshold=sampling.solve_cut(histogram, draw.keep_rate))


def expected_share(solution: ResolvedDraw, histogram: np.ndarray) -> float | None:
    """The token-weighted share that a solution keeps, in expectation; None where nothing reaches it."""
    total = int(histogram.sum())
    if total == 0:
        return None
    steps = np.arange(sampling.BINS) / 1e4
    kept = solution.probability(steps)
    return math.fsum((kept * histogram).tolist()) / total


def _told(solution: ResolvedDraw, histogram: np.ndarray) -> dict[str, Any]:
    """A solved draw as resolved.json says it."""
    return {
        **solution.draw.model_dump(mode="json"),
        "shift": solution.shift,
        "solved_threshold": solution.threshold,
        "expected_keep_rate": expected_share(solution, histogram),
        "tokens": int(histogram.sum()),
    }


def _summed(values: Iterable[bytes], rows: int, bins: int) -> np.ndarray:
    """int64 [rows, bins]: histograms added up by the number that stands before each."""
    histograms = np.zeros((rows, bins), np.int64)
    for value in values:
        if value:
            number, *_ = found = np.frombuffer(value, np.int64)
            histograms[number] += found[1:]
    return histograms


@dataclass(frozen=True, slots=True)
class SolveDraws:
    """(variant, [histogram bytes]) -> (variant, solution by group), also written to decisions/<variant>/resolved.json."""

    store: Store
    settings: Settings
    keys: dict[str, str]

    def start(self) -> Callable[[Sent], Iterator[tuple[int, dict[str, ResolvedDraw]]]]:
        return self._work

    def _work(self, element: Sent) -> Iterator[tuple[int, dict[str, ResolvedDraw]]]:
        number, values = element
        variant = self.settings.variants[number]
        histograms = _summed(values, len(variant.groups), sampling.BINS)
        solved = {
            group: resolve(variant.draw_of(group), histogram)
            for group, histogram in zip(variant.groups, histograms, strict=True)
        }
        told = {
            group: _told(solution, histogram)
            for (group, solution), histogram in zip(solved.items(), histograms, strict=True)
        }
        _publish(self.store, solution_path(variant.name), told, self.keys[variant.name])
        yield number, solved


@dataclass(frozen=True, slots=True)
class FindBins:
    """(variant, [histogram bytes]) -> (variant, by source the bin of the draw in which its tokens are reached)."""

    settings: Settings

    def start(self) -> Callable[[Sent], Iterator[tuple[int, dict[str, mixture.Deciding]]]]:
        return self._work

    def _work(self, element: Sent) -> Iterator[tuple[int, dict[str, mixture.Deciding]]]:
        number, values = element
        sources = self.settings.mixed
        histograms = _summed(values, len(sources), mixture.BINS)
        wanted = self.settings.wanted
        yield number, {s: mixture.deciding_bin(summed, wanted[s]) for s, summed in zip(sources, histograms, strict=True)}


@dataclass(frozen=True, slots=True)
class SolveMixture:
    """(variant, [DRAWN bytes]), bins -> (variant, bound by source); the solution goes to decisions/<variant>/mixture.json."""

    store: Store
    settings: Settings
    keys: dict[str, str]

    def __call__(
        self, element: Sent, bins: dict[int, dict[str, mixture.Deciding]]
    ) -> Iterator[tuple[int, dict[str, float]]]:
        number, values = element
        drawn = np.frombuffer(b"".join(values), mixture.DRAWN)
        solved = {
            source: mixture.solve(bins[number][source], drawn[drawn["source"] == place])
            for place, source in enumerate(self.settings.mixed)
        }
        told = {
            source: {
                "wanted": one.wanted,
                "available": one.available,
                "epochs": one.epochs,
                "taken": one.taken,
                "bound": one.bound,
            }
            for source, one in solved.items()
        }
        variant = self.settings.variants[number].name
        _publish(self.store, mixture.path(variant), told, self.keys[variant])
        yield number, {source: one.bound for source, one in solved.items()}


def solve_nothing(store: Store, settings: Settings, keys: dict[str, str]) -> None:
    """The solutions of a corpus without a document, for which no job runs: there is no part."""
    for number in range(len(settings.variants)):
        list(SolveDraws(store, settings, keys).start()((number, ())))
        if settings.wanted:
            bins = dict(FindBins(settings).start()((number, ())))
            list(SolveMixture(store, settings, keys)((number, ()), bins))


def _publish(store: Store, path: str, value: Any, key: str) -> None:
    if not store.is_finished(path, key):
        store.begin(path)
        store.finish(store.publish_json(path, value), key)
