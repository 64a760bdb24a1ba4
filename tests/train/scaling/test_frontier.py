"""Approaches 1 and 2 against laws that made the data: parabolas and straight curves exactly, a parametric law to its exponent."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from tests.train.scaling.measured import rows_of
from train.scaling import frontier
from train.scaling.laws import BESIROGLU, CHINCHILLA, CHINCHILLA_BUDGETS

BUDGETS = np.geomspace(*CHINCHILLA_BUDGETS, 9)


def isoflop_rows(law, noise=0.0):
    """Nine budgets, nine sizes within a factor 4 of the optimum of each; normal noise in the logarithm of the loss."""
    draw = random.Random(2)
    flops = np.repeat(BUDGETS, 9)
    params = np.array([law.optimum(budget)[0] for budget in flops]) * np.tile(np.geomspace(0.3, 4, 9), 9)
    loss = law.loss(params, flops / 6 / params) * np.exp([draw.gauss(0, noise) for _ in flops])
    return rows_of(params=params, flops=flops, loss=loss)


@settings(max_examples=30)
@given(exponent=st.floats(0.3, 0.8), scale=st.floats(1e7, 1e9), width=st.floats(0.01, 0.2))
def test_exact_parabolas_give_their_lowest_points(exponent, scale, width):
    flops = np.repeat(BUDGETS, 4)
    lowest = scale * (flops / 1e20) ** exponent
    params = lowest * np.tile([0.4, 0.9, 1.3, 2.0], 9)
    found = frontier.isoflop(rows_of(params=params, flops=flops, loss=3 + width * np.log(params / lowest) ** 2), 0, 0)
    assert found.exponent == pytest.approx(exponent, abs=1e-8)
    assert [params for _, params in found.points] == pytest.approx(lowest[::4].tolist(), rel=1e-7)
    assert found.optimum(1e22)[0] == pytest.approx(scale * 100**exponent, rel=1e-6)


@pytest.mark.parametrize("law", [CHINCHILLA, BESIROGLU], ids=lambda law: law.name)
def test_isoflop_runs_of_a_law_give_its_exponent(law):
    """A parabola is only near the law's shape: the exponent to .005, N_opt to a tenth."""
    found = frontier.isoflop(isoflop_rows(law), 0, 0)
    assert found.exponent == pytest.approx(law.exponent, abs=0.005)
    assert found.optimum(1e20)[0] == pytest.approx(law.optimum(1e20)[0], rel=0.1)
    assert found.optimum(1e20)[0] * found.optimum(1e20)[1] * 6 == pytest.approx(1e20)
    assert (found.rows, found.resamples, found.interval(1e20)) == (81, (), None)


def test_isoflop_intervals_hold_the_noiseless_answer():
    truth = frontier.isoflop(isoflop_rows(BESIROGLU), 0, 0)
    found = frontier.isoflop(isoflop_rows(BESIROGLU, 0.002), 100, 4)
    low, high = frontier.intervals(found)["exponent"]
    assert low < truth.exponent < high
    assert high - low < 0.1
    low, high = found.interval(1e23)
    assert low < truth.optimum(1e23)[0] < high
    assert len(found.resamples) + found.lost == 100
    few = frontier.isoflop(isoflop_rows(BESIROGLU, 0.002), 5, 4)
    assert few.resamples == found.resamples[: len(few.resamples)]


def curve_rows(law, runs=25, sizes=None):
    """Runs of many sizes, measured at 40 budgets each, whose loss the law says at every point."""
    sizes = np.geomspace(5e7, 5e9, runs) if sizes is None else sizes
    flops = np.concatenate([6 * size * size * np.geomspace(2, 200, 40) for size in sizes])
    params = np.repeat(sizes, 40)
    rows = rows_of(params=params, flops=flops, loss=law.loss(params, flops / 6 / params))
    return dataclasses.replace(rows, runs=tuple(f"run {at // 40}" for at in range(len(params))))


@pytest.mark.parametrize("law", [CHINCHILLA, BESIROGLU], ids=lambda law: law.name)
def test_the_envelope_of_a_laws_curves_gives_its_exponent(law):
    found = frontier.envelope(curve_rows(law), 0, 0)
    assert found.exponent == pytest.approx(law.exponent, abs=0.03)
    assert found.optimum(1e20)[0] == pytest.approx(law.optimum(1e20)[0], rel=0.1)
    assert [params for _, params in found.points] == sorted(params for _, params in found.points)


def test_envelope_intervals_come_from_whole_runs():
    found = frontier.envelope(curve_rows(BESIROGLU), 60, 0)
    low, high = frontier.intervals(found)["exponent"]
    assert low < found.exponent < high < low + 0.3
    assert len(found.resamples) + found.lost == 60


def test_the_envelope_against_brute_force():
    """Five curves, straight in t = log10(C / 1e18) / 2: c - s t with s .1, .6, 1.2, 2, 3. By hand, they meet at t .1, .3, .6, .8;
    before the first and after the last of these the smallest and the largest size win, which tells nothing."""
    rows = rows_of(
        params=np.repeat([1e8, 2e8, 4e8, 8e8, 16e8], 2),
        flops=np.tile([1e18, 1e20], 5),
        loss=np.array([3.0, 2.9, 3.05, 2.45, 3.23, 2.03, 3.71, 1.71, 4.51, 1.51]),
    )
    found = frontier.envelope(dataclasses.replace(rows, runs=tuple("aabbccddee")), 0, 0)
    assert [params for _, params in found.points] == [2e8, 4e8, 8e8]
    assert [np.log10(flops / 1e18) / 2 for flops, _ in found.points] == pytest.approx([0.1, 0.3, 0.6], abs=1 / 1499)
    budgets = np.geomspace(1e18, 1e20, 1500)
    t = np.log10(budgets / 1e18) / 2
    best = np.select([t < 0.1, t < 0.3, t < 0.6, t < 0.8], [0, 2e8, 4e8, 8e8], 0)
    slope = np.polyfit(np.log(budgets[best > 0]), np.log(best[best > 0]), 1)[0]
    assert found.exponent == pytest.approx(slope, abs=1e-3)


def test_a_size_that_was_measured_twice_is_one_size():
    """Reference: the same rows once. The third of six sizes is measured far beyond all others, where nothing is beside it."""
    sizes, highest = [1e7, 3e7, 1e8, 3e8, 1e9, 3e9], [1e18, 1e18, 1e20, 3e19, 3e20, 3e20]
    lowest = [1e17, 1e17, 3e17, 1e18, 1e20, 1e20]
    flops = np.concatenate([np.geomspace(*ends, 20) for ends in zip(lowest, highest, strict=True)])
    params = np.repeat(sizes, 20)
    once = rows_of(params=params, flops=flops, loss=BESIROGLU.loss(params, flops / 6 / params))
    names = tuple(f"run {at // 20}" for at in range(len(params)))
    again = np.concatenate([np.arange(len(params)), np.flatnonzero(params == 1e8)])
    twice = rows_of(**{name: column[again] for name, column in once.values.items()})
    one = frontier.envelope(dataclasses.replace(once, runs=names), 0, 0)
    two = frontier.envelope(dataclasses.replace(twice, runs=(*names, *["a second seed"] * 20)), 0, 0)
    assert (one.exponent, one.params, one.points) == (two.exponent, two.params, two.points)


def test_budgets_that_cannot_tell():
    size = np.array([1e8, 2e8, 4e8])
    with pytest.raises(UserError, match=r"made: all rows have flops 1e\+20; this fit needs at least 2"):
        frontier.isoflop(rows_of(params=size, flops=np.full(3, 1e20), loss=np.array([3, 2, 3.0])), 0, 0)
    flops = np.repeat([1e19, 1e20], 3)
    with pytest.raises(UserError, match=r"with flops 1e\+20 the loss has no lowest point between 1e\+08 and 4e\+08 params"):
        frontier.isoflop(rows_of(params=np.tile(size, 2), flops=flops, loss=np.array([3, 2, 3, 3, 2.5, 1.9])), 0, 0)
    few = np.array([1e8, 2e8, 4e8, 1e8, 2e8, 2e8])
    with pytest.raises(UserError, match=r"2 sizes with flops 1e\+20; a parabola needs at least 3"):
        frontier.isoflop(rows_of(params=few, flops=flops, loss=np.array([3, 2, 3, 3, 2, 3.0])), 0, 0)


def test_curves_that_cannot_tell():
    size, runs = np.repeat([1e8, 2e8, 4e8, 8e8], 2), tuple("aabbccdd")
    apart = rows_of(params=size, flops=np.geomspace(1e18, 1e20, 8), loss=np.linspace(3, 2, 8))
    with pytest.raises(UserError, match="no two runs' curves overlap in flops"):
        frontier.envelope(dataclasses.replace(apart, runs=runs), 0, 0)
    with pytest.raises(UserError, match="run 'a' has several values of params"):
        frontier.envelope(dataclasses.replace(apart, runs=tuple("aaabccdd")), 0, 0)
    same = rows_of(params=size, flops=np.tile([1e18, 1e20], 4), loss=np.array([3.0, 2, 4, 3, 5, 4, 6, 5]))
    with pytest.raises(UserError, match="made: 0 sizes between the smallest and the largest win at some budget, two are needed"):
        frontier.envelope(dataclasses.replace(same, runs=runs), 0, 0)
    three = rows_of(**{name: column[:6] for name, column in same.values.items()})
    with pytest.raises(UserError, match="only 3 different values of params; this fit needs at least 4"):
        frontier.envelope(dataclasses.replace(three, runs=runs[:6]), 0, 0)
