"""train.schedule: the papers' formulas by hand, the ends exactly."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.schedule import rate


def cosine(update, steps=1000, warmup=100, peak=3e-4, floor=0.1):
    return rate("cosine", update, peak=peak, steps=steps, warmup=warmup, floor=floor, hold=1)


def test_cosine_by_hand():
    """LLaMA's: up to the peak at the end of the warm-up, 10 % of it at the last update, the mean of both half way."""
    assert cosine(1) == pytest.approx(3e-6, rel=1e-12)
    assert cosine(50) == pytest.approx(1.5e-4, rel=1e-12)
    assert cosine(100) == 3e-4
    assert cosine(550) == pytest.approx(1.65e-4, rel=1e-12)
    assert cosine(325) == pytest.approx(3e-4 * (0.1 + 0.45 * (1 + math.sqrt(0.5))), rel=1e-12)  # cos(pi / 4)
    assert cosine(1000) == 3e-4 * 0.1


@given(steps=st.integers(1, 10_000), share=st.floats(0, 1), floor=st.floats(0, 1), peak=st.floats(1e-6, 1))
def test_every_cosine_ends_exactly_at_its_own_horizon_and_never_rises_after_its_peak(steps, share, floor, peak):
    warmup = int(share * steps)
    assert cosine(steps, steps, warmup, peak, floor) == peak * floor
    rates = [cosine(update, steps, warmup, peak, floor) for update in range(max(1, warmup), steps + 1, 1 + steps // 50)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(rates))


def test_a_run_of_warm_up_alone_ends_at_the_floor():
    assert cosine(10, 10, 10, 1.0, 0.1) == 0.1


def test_inverse_square_root_by_hand():
    """GLaM's: 0.01 for 10,000 updates, then with 1 / sqrt(t)."""
    glam = [
        rate("inverse_sqrt", update, peak=0.01, steps=10**6, warmup=0, floor=0.0, hold=10_000)
        for update in (1, 10_000, 40_000, 1_000_000)
    ]
    assert glam == pytest.approx([0.01, 0.01, 0.005, 0.001], rel=1e-12)
    assert rate("inverse_sqrt", 5, peak=1.0, steps=100, warmup=10, floor=0.0, hold=20) == 0.5
