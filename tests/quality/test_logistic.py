"""The solver against scikit-learn's logistic regression, and its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from quality import logistic

SIZE = 300


def _problem(seed, documents=120):
    random = np.random.default_rng(seed)
    sets = [np.unique(random.integers(0, SIZE, random.integers(1, 40))) for _ in range(documents)]
    indptr = np.concatenate([[0], np.cumsum([len(one) for one in sets])]).astype(np.int64)
    rows = logistic.Rows(indptr, np.concatenate(sets).astype(np.int32), 1.0 / np.sqrt(np.diff(indptr)))
    signs = np.where(random.random(documents) < 0.4, 1.0, -1.0)
    shares = random.random(documents)
    return rows, signs, shares / shares.sum()


def _margins(rows, point):
    out = np.empty(len(rows))
    logistic.margins(rows.indptr, rows.indices, rows.scale, point, out)
    return out


@pytest.mark.parametrize("l2", [1e-4, 1e-3, 1e-1])
def test_margins_are_scikit_learns(l2):
    rows, signs, shares = _problem(1)
    found = logistic.fit(rows, signs, shares, l2, SIZE, tolerance=1e-9)
    assert found.converged
    values = np.repeat(rows.scale, np.diff(rows.indptr))
    matrix = csr_matrix((values, rows.indices, rows.indptr), (len(rows), SIZE))
    # scikit-learn minimises C * sum(weight * loss) + |w|^2 / 2: C = 1 / l2 for weights that sum to 1.
    other = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(matrix, signs, sample_weight=shares)
    assert _margins(rows, found.point) == pytest.approx(other.decision_function(matrix), abs=1e-4)


def test_the_gradient_is_that_of_the_objective():
    rows, signs, shares = _problem(2, 30)
    point = np.random.default_rng(3).normal(size=SIZE + 1)
    gradient, scratch = np.empty(SIZE + 1), np.empty(SIZE + 1)

    def value(at, slope):
        pairs = np.empty((len(at) - 1, 2))
        return logistic._objective(rows.indptr, rows.indices, rows.scale, signs, shares, 0.01, at, slope, pairs)

    value(point, gradient)
    for place in (0, 7, 123, SIZE):
        step = np.zeros(SIZE + 1)
        step[place] = 1e-6
        difference = (value(point + step, scratch) - value(point - step, scratch)) / 2e-6
        assert gradient[place] == pytest.approx(difference, abs=1e-7)


def test_a_warm_start_ends_at_the_same_place():
    rows, signs, shares = _problem(4)
    strong = logistic.fit(rows, signs, shares, 1e-2, SIZE)
    cold = logistic.fit(rows, signs, shares, 1e-4, SIZE)
    warm = logistic.fit(rows, signs, shares, 1e-4, SIZE, start=strong.point)
    assert warm.point == pytest.approx(cold.point, abs=2e-3)
    assert _margins(rows, warm.point) == pytest.approx(_margins(rows, cold.point), abs=1e-3)


def test_features_that_never_occur_weigh_nothing():
    rows, signs, shares = _problem(5, 10)
    found = logistic.fit(rows, signs, shares, 1e-3, SIZE)
    absent = np.setdiff1d(np.arange(SIZE), rows.indices)
    assert len(absent) > 50
    assert (found.point[absent] == 0).all()


def test_running_out_of_iterations_is_reported(monkeypatch):
    rows, signs, shares = _problem(6)
    assert logistic.fit(rows, signs, shares, 1e-4, SIZE).converged
    monkeypatch.setattr(logistic, "_MAX_ITERATIONS", 3)
    cut = logistic.fit(rows, signs, shares, 1e-4, SIZE)
    assert (cut.iterations, cut.converged) == (3, False)


def test_taken_rows_are_those_rows():
    rows, _, _ = _problem(7, 20)
    chosen = np.array([4, 4, 0, 19])
    taken = rows.take(chosen)
    parts = np.split(rows.indices, rows.indptr[1:-1])
    assert [part.tolist() for part in np.split(taken.indices, taken.indptr[1:-1])] == [parts[i].tolist() for i in chosen]
    assert taken.scale.tolist() == rows.scale[chosen].tolist()
    assert len(rows.take(np.array([], np.int64))) == 0
