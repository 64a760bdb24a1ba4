"""The routed law against laws that made the data, and against the runs that Clark et al. published."""

from __future__ import annotations

import csv
import gzip
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from tests.train.scaling.measured import rows_of
from train.scaling import routed
from train.scaling.laws import CLARK
from train.scaling.rows import Rows

EXPERTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def rows_by(law, noise=0.0) -> Rows:
    draw = random.Random(2)
    params, experts = (x.ravel() for x in np.meshgrid([1.5e7, 5e7, 1.3e8, 3.7e8, 1.3e9], EXPERTS))
    loss = np.array([law.loss(n, e) for n, e in zip(params, experts, strict=True)])
    return rows_of(params=params, experts=experts.astype(float), loss=loss * np.exp([draw.gauss(0, noise) for _ in loss]))


@pytest.mark.parametrize("router", CLARK)
def test_the_constants_that_made_the_losses_come_back(router):
    law = CLARK[router]
    found = routed.fit(rows_by(law), 0, 0)
    assert found.error < 1e-9
    for name in routed.NAMES:
        assert getattr(found.law, name) == pytest.approx(getattr(law, name), rel=1e-4)


@settings(max_examples=5)
@given(start=st.floats(1.2, 10), limit=st.floats(100, 2000))
def test_other_bounds_come_back_and_given_ones_are_held(start, limit):
    law = routed.RoutedLaw("made", -0.083, -0.12, 0.011, 1.11, start, limit)
    free, held = routed.fit(rows_by(law), 0, 0), routed.fit(rows_by(law), 0, 0, (start, limit))
    assert (free.law.start, free.law.limit) == pytest.approx((start, limit), rel=1e-3)
    assert (held.law.start, held.law.limit) == (start, limit)
    assert held.law.b == pytest.approx(-0.12, abs=1e-9)


def test_intervals_hold_the_truth():
    """Of four 95 % intervals; this seed's all do."""
    law = CLARK["HASH"]
    found = routed.fit(rows_by(law, 0.003), 50, 3, (law.start, law.limit))
    for name, (low, high) in routed.intervals(found.resamples).items():
        assert low <= getattr(law, name) <= high, name
    assert (len(found.resamples), found.lost) == (50, 0)
    assert routed.fit(rows_by(law, 0.003), 2, 3, (law.start, law.limit)).resamples == found.resamples[:2]


def test_rows_that_cannot_tell():
    rows = rows_by(CLARK["HASH"])
    few = rows_of(**{name: column[:11] for name, column in rows.values.items()})
    with pytest.raises(UserError, match="11 rows; this fit needs at least 12"):
        routed.fit(few, 0, 0)
    one = rows_of(**{**rows.values, "params": np.full(50, 1e8)})
    with pytest.raises(UserError, match=r"all rows have params 1e\+08"):
        routed.fit(one, 0, 0)
    with pytest.raises(UserError, match=r"experts 0\.5; a dense model has 1"):
        routed.fit(rows_of(**{**rows.values, "experts": rows["experts"] / 2}), 0, 0)


# -- the authors' runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def final_runs(real_data) -> list[dict[str, str]]:
    """The last row of each run of one expert a token in every second layer, as the authors' example chooses them."""
    path = real_data / "scaling" / "dm_routing_curves.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the test data")
    last: dict[str, dict[str, str]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["step"]) >= int(last.get(row["hyper_id"], row)["step"]):
                last[row["hyper_id"]] = row
    assert len(last) == 223
    return [row for row in last.values() if (row["k"], row["routing_frequency"], row["flop_increase"]) == ("1", "0.5", "1.0")]


def runs_of(final_runs, router) -> Rows:
    chosen = [row for row in final_runs if row["router_type"] in (router, "Dense")]
    numbers = {"params": "dense_parameter_count", "experts": "num_experts", "loss": "loss_validation"}
    return rows_of(**{name: np.array([float(row[column]) for row in chosen]) for name, column in numbers.items()})


# Clark et al., table 3. How near: RL-R and Hash to the last printed digit, one unit of it. S-Base's b is -.112 on the published
# runs, for a reason not found; its run of 130M with 256 experts is not among them.
PUBLISHED = {
    "S-Base": (61, (-0.082, -0.108, 0.009, 1.104), (0.001, 0.005, 0.001, 0.003), "S-BASE"),
    "RL-R": (62, (-0.083, -0.126, 0.012, 1.111), (0.0006, 0.001, 0.0006, 0.001), "RL-R"),
    "Hash": (59, (-0.087, -0.136, 0.012, 1.157), (0.0006, 0.001, 0.0006, 0.001), "HASH"),
}


@pytest.mark.parametrize("router", PUBLISHED)
def test_the_published_coefficients_from_the_published_runs(final_runs, router):
    rows, wanted, tolerance, name = PUBLISHED[router]
    law = CLARK[name]
    found = routed.fit(runs_of(final_runs, router), 0, 0, (law.start, law.limit))
    assert found.rows == rows
    for value, published, within in zip((found.law.a, found.law.b, found.law.c, found.law.d), wanted, tolerance, strict=True):
        assert value == pytest.approx(published, abs=within)
    assert found.error == pytest.approx(0.003, abs=0.0004)


@pytest.mark.parametrize("router", PUBLISHED)
def test_the_free_fit_is_no_worse_and_predicts_the_same_losses(final_runs, router):
    law = CLARK[PUBLISHED[router][3]]
    rows = runs_of(final_runs, router)
    free, held = routed.fit(rows, 0, 0), routed.fit(rows, 0, 0, (law.start, law.limit))
    assert free.error <= held.error
    for params in (1.5e7, 1.3e9):
        for experts in (1, 64, 512):
            assert free.law.loss(params, experts) == pytest.approx(law.loss(params, experts), rel=0.01)
