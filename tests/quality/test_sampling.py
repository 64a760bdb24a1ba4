"""The draws: GLaM's law against numpy's Pareto generator, solutions against brute force, uniformity by a KS test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from quality import sampling


def _ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


@pytest.mark.parametrize("quality", [0.0, 0.3, 0.75, 0.95])
def test_the_law_is_numpys_pareto_above_one_minus_quality(quality):
    """P(numpy.random.pareto(9) > 1 - q), by two million draws, within 4 standard errors."""
    draws = np.random.default_rng(1).pareto(9, 2_000_000)
    law = float(sampling.keep_probability(np.array([quality]), 9)[0])
    assert np.mean(draws > 1 - quality) == pytest.approx(law, abs=4 * np.sqrt(law * (1 - law) / len(draws)))


def test_the_mean_kept_share_over_many_seeds_is_the_law():
    ids, quality = _ids(3000), np.random.default_rng(2).random(3000)
    law = sampling.keep_probability(quality, 9)
    kept = np.mean([sampling.uniform(ids, seed, "quality") < law for seed in range(200)])
    assert kept == pytest.approx(law.mean(), abs=4 * np.sqrt((law * (1 - law)).mean() / (200 * 3000)))


def test_uniform_is_uniform_and_different_by_seed_and_purpose():
    ids = _ids(20_000)
    first, second, third = (sampling.uniform(ids, *key) for key in ((1, "a"), (2, "a"), (1, "b")))
    for draws in (first, second, third):
        assert stats.kstest(draws, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first, third)[0, 1]) < 0.03


def test_uniform_depends_on_the_id_alone():
    ids, order = _ids(100), np.random.default_rng(3).permutation(100)
    assert (sampling.uniform(ids[order], 1, "x") == sampling.uniform(ids, 1, "x")[order]).all()


_histograms = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 10**6)), min_size=1, max_size=30)


def _histogram(pairs):
    found = np.zeros(sampling.BINS, np.int64)
    for place, tokens in pairs:
        found[place] += tokens
    return found


@given(_histograms, st.floats(0.01, 0.99))
@settings(max_examples=25)
def test_the_shift_hits_the_rate(pairs, rate):
    histogram = _histogram(pairs)
    shift = sampling.solve_shift(histogram, 9, rate)
    assert sampling.expected_share(histogram, 9, shift) == pytest.approx(rate, abs=1e-9)


@given(_histograms, st.floats(0, 1))
def test_the_cut_is_the_nearest_of_all_thresholds(pairs, rate):
    histogram = _histogram(pairs)
    threshold = sampling.solve_cut(histogram, rate)
    # The share changes behind an occupied step only; of equally near thresholds the highest is wanted.
    places = {0, sampling.BINS, *(place + after for place, _ in pairs for after in (0, 1))}
    distance = {place: abs(sum(n for at, n in pairs if at >= place) - rate * histogram.sum()) for place in places}
    best = min(distance.values())
    highest = max(place for place in places if distance[place] <= best + 1e-6)
    got = round(threshold * 1e4)
    assert abs(sum(n for at, n in pairs if at >= got) - rate * histogram.sum()) == pytest.approx(best, abs=1e-6)
    assert got == next((place for place, _ in sorted(pairs) if place >= highest), sampling.BINS)


def test_nothing_to_draw_from_solves_to_nothing():
    empty = np.zeros(sampling.BINS, np.int64)
    assert (sampling.solve_shift(empty, 9, 0.3), sampling.solve_cut(empty, 0.3)) == (0.0, 0.0)
