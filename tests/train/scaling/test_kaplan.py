"""Kaplan et al. 2020 against the identities that the paper states between its own constants, and figures computed beforehand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.scaling import kaplan


def test_the_loss_of_both_params_and_tokens():
    assert kaplan.loss(1e9, 23e9) == pytest.approx(2.3673, abs=5e-5)
    assert kaplan.loss(1e8, 1e9) == pytest.approx(2.9567, abs=5e-5)


def test_a_pf_day():
    assert kaplan.PF_DAY == 8.64e19


def test_data_need_grow_five_times_for_eight_times_the_model():
    """Section 4.4: every 8 times the model takes roughly 5 times the data."""
    assert kaplan.overfitting_exponent() == pytest.approx(0.74, abs=0.005)
    assert 8 ** kaplan.overfitting_exponent() == pytest.approx(4.64, abs=0.01)


def test_the_exponents_of_compute():
    """Equation 6.4 says .054, its parts give .0525; the optimal N grows as C^(a_C / a_N), .71 against the measured .73."""
    assert kaplan.compute_exponent() == pytest.approx(0.0525, abs=5e-5)
    assert 0.054 / kaplan.BY_PARAMS.exponent == pytest.approx(0.711, abs=5e-4)
    shares = kaplan.OPTIMAL_PARAMS.exponent + kaplan.BATCH_EXPONENT + kaplan.OPTIMAL_STEPS.exponent
    assert shares == pytest.approx(1)
    assert kaplan.OPTIMAL_TOKENS.exponent == pytest.approx(kaplan.BATCH_EXPONENT + kaplan.OPTIMAL_STEPS.exponent)


def test_where_the_laws_break_down():
    """Section 6.3: about 1e4 PF-days, 1e12 parameters, 1e12 tokens, 1.7 nats; by the printed constants 1.1e4, 1.2e12 and 1.67."""
    flops = kaplan.breakdown()
    assert flops / kaplan.PF_DAY == pytest.approx(1.119e4, rel=1e-3)
    params, tokens = kaplan.optimum(flops)
    assert params == pytest.approx(1.17e12, rel=0.01)
    assert kaplan.BY_LEAST_COMPUTE.loss(flops) == pytest.approx(1.668, abs=1e-3)
    assert kaplan.BY_LEAST_COMPUTE.loss(flops) == pytest.approx(kaplan.BY_TOKENS.loss(tokens))


def test_one_pf_day():
    assert kaplan.optimum(kaplan.PF_DAY) == (1.3e9, 2e10)
    assert kaplan.BY_LEAST_COMPUTE.loss(kaplan.PF_DAY) == pytest.approx(3.1e8**0.05)


@given(loss=st.floats(1.5, 10), steps=st.floats(1e2, 1e7), batch=st.floats(1e3, 1e9))
def test_at_the_critical_batch_time_and_compute_are_twice_their_least(loss, steps, batch):
    """Equations 5.4 and 5.5; and S B = C whichever way: S_min / S + C_min / C = 1."""
    critical = kaplan.critical_batch(loss)
    assert kaplan.least_steps(steps, critical, loss) == pytest.approx(steps / 2)
    assert kaplan.least_compute(1e20, critical, loss) == pytest.approx(5e19)
    assert kaplan.least_steps(1, batch, loss) + kaplan.least_compute(1, batch, loss) == pytest.approx(1)


def test_the_critical_batch_doubles_for_every_13_percent_of_loss():
    """Section 5.1: it doubles for every 13 % decrease in loss; 2^.21 = 1.157, that is 13.5 %."""
    assert kaplan.critical_batch(2.0 / 2**0.21) == pytest.approx(2 * kaplan.critical_batch(2.0))
    assert kaplan.critical_batch(0.87 * 2) == pytest.approx(2 * kaplan.critical_batch(2), rel=0.05)


@given(params=st.floats(1e5, 1e9))
def test_the_joint_laws_reach_a_power_law_of_params_alone(params):
    """L(N, infinity) is a power law with a_N; and L(N, S) with steps without end is the one with table 3's constants."""
    assert kaplan.loss(params, 1e30) == pytest.approx((6.4e13 / params) ** 0.076, rel=1e-6)
    assert kaplan.loss_after_steps(params, 1e30) == pytest.approx((6.5e13 / params) ** 0.077, rel=1e-6)
