"""How the classifier is learned: Platt against scipy and scikit-learn, shares by their definition, small classes.

What enters the weights is tested by bytes: the hash seed and threads do not, held-out and judged documents do not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from quality import classifier, classifier_fit, logistic, sampling
from quality.classifier_fit import Example, FitSettings, fit
from quality.classifier_kernel import TEXT_CAP
from quality.logistic import Rows
from tests.corpus import prose

SETTINGS = FitSettings(seed=1, bits=14)


def _ids(names):
    return pa.array([hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names], pa.binary(16))


def _example(source, curated, count=40, texts=None):
    texts = texts or [prose(f"{source} {n}", curated) for n in range(count)]
    return Example(source, curated, pa.array(texts, pa.large_string()), _ids(f"{source}{n}" for n in range(len(texts))))


def _bytes(fitted):
    return b"".join(classifier.save(fitted).values())


# -- what is read of a text -------------------------------------------------------------------------------------------------


def test_what_lies_behind_the_scored_bytes_teaches_nothing():
    """Learned, calibrated and measured on what a Scorer reads: long texts with other endings give the same artefact."""

    def long(ending):
        texts = [(prose(f"book {n}", True) + " ").ljust(TEXT_CAP, "x") + prose(f"{ending} {n}", False) * 50 for n in range(20)]
        return [_example("books", True, texts=texts), _example("web", False, 20)], [_example("novels", True, texts=texts)]

    assert _bytes(fit(*long("one"), SETTINGS)) == _bytes(fit(*long("another"), SETTINGS))


# -- weights of documents ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=6))
def test_classes_then_sources_then_documents_have_equal_shares(drawn):
    rows = [Rows(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.ones(n)) for _, n in drawn]
    sources = [
        classifier_fit._Source(str(i), curated, rows[i], np.zeros(n, bool), np.zeros(n)) for i, (curated, n) in enumerate(drawn)
    ]
    shares = np.split(classifier_fit._shares(sources), np.cumsum([n for _, n in drawn])[:-1])
    classes = {curated for curated, _ in drawn}
    for (curated, n), own in zip(drawn, shares, strict=True):
        peers = sum(other is curated for other, _ in drawn)
        assert own == pytest.approx(np.full(n, 1 / len(classes) / peers / n))


# -- Platt's sigmoid ----------------------------------------------------------------------------------------------------------


def _scored(seed, curated_mean, web_mean, sizes):
    """Sources whose margins are given: one feature a document, with the margin as its weight."""
    random = np.random.default_rng(seed)
    sources, weights = [], []
    for number, (curated, size) in enumerate(sizes):
        margins = random.normal(curated_mean if curated else web_mean, 1.0, size)
        places = np.arange(len(weights), len(weights) + size, dtype=np.int32)
        weights += margins.tolist()
        rows = Rows(np.arange(size + 1, dtype=np.int64), places, np.ones(size))
        sources.append(classifier_fit._Source(str(number), curated, rows, np.zeros(size, bool), np.zeros(size)))
    return sources, np.append(weights, 0.0)


@pytest.mark.parametrize(("curated_mean", "web_mean"), [(1.0, -1.0), (0.2, 0.1), (3.0, 2.0), (60.0, -60.0)])
def test_platt_is_the_minimum_that_scipy_finds(curated_mean, web_mean):
    sources, point = _scored(1, curated_mean, web_mean, [(True, 50), (True, 7), (False, 200)])
    slope, intercept = classifier_fit._platt(sources, point)
    x, share = point[:-1], classifier_fit._shares(sources)
    signs = np.concatenate([np.full(len(s.rows), 1.0 if s.curated else -1.0) for s in sources])

    def loss(at):  # with the ridge of the fit, 1e-4 / 2 of both squares
        return float(share @ np.logaddexp(0, -signs * (at[0] * x + at[1]))) + 0.5e-4 * float(at @ at)

    best = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-9, "maxiter": 1000})
    assert loss(np.array([slope, intercept])) <= best.fun + 1e-9
    assert (slope, intercept) == (pytest.approx(best.x[0], rel=1e-2), pytest.approx(best.x[1], rel=1e-2, abs=1e-2))


def test_platt_is_scikit_learns_logistic_regression_on_the_margin():
    """Overlapping classes, where the ridge does not matter."""
    sources, point = _scored(2, 0.5, -0.5, [(True, 300), (False, 500)])
    slope, intercept = classifier_fit._platt(sources, point)
    labels = np.concatenate([np.full(len(s.rows), s.curated) for s in sources])
    other = LogisticRegression(C=1e8, tol=1e-10).fit(point[:-1, None], labels, classifier_fit._shares(sources))
    assert slope == pytest.approx(other.coef_[0, 0], rel=0.01)
    assert intercept == pytest.approx(other.intercept_[0], abs=0.01)


def test_a_sigmoid_never_turns_scores_around():
    sources, point = _scored(3, -1.0, 1.0, [(True, 40), (False, 40)])
    slope, _ = classifier_fit._platt(sources, point)
    assert slope == 1e-6


def test_calibrated_values_are_the_rounded_sigmoid_at_any_margin():
    fitted = classifier.Classifier(np.zeros(2, np.float32), 0.0, 2.5, -0.75, {})
    margins = np.concatenate([np.linspace(-4, 4, 4001), [-1e9, 1e9]])
    found = fitted.calibrated(margins)
    expected = [round(1 / (1 + float(np.exp(min(-(2.5 * m - 0.75), 700)))), 4) for m in margins]
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array(expected), abs=1e-7)
    assert (np.diff(found[:-2]) >= 0).all()


# -- what enters the weights --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training():
    return [_example("wiki", True), _example("books", True), _example("web", False), _example("forum", False)]


@pytest.fixture(scope="module")
def fitted(training):
    return fit(training, [], SETTINGS)


def test_held_out_documents_never_enter_the_weights(training, fitted):
    """Every held-out text is exchanged for one of the other style: the sigmoid and the slice change, not one weight."""
    changed = []
    for example in training:
        ids = np.frombuffer(b"".join(example.doc_ids.to_pylist()), np.uint8).reshape(-1, 16)
        held = sampling.uniform(ids, SETTINGS.seed, "fit held out") < SETTINGS.held_out
        texts = [
            prose(f"other {n}", not example.curated) if out else text
            for n, (text, out) in enumerate(zip(example.texts.to_pylist(), held, strict=True))
        ]
        assert held.any()
        changed.append(dataclasses.replace(example, texts=pa.array(texts, pa.large_string())))
    other = fit(changed, [], SETTINGS)
    assert other.weights.tobytes() == fitted.weights.tobytes()
    assert other.metrics["held_out_slice"]["auc"] < 0.1 < fitted.metrics["held_out_slice"]["auc"]


def test_the_strength_is_the_one_with_the_best_mean_and_of_equal_ones_the_strongest(training, fitted):
    search = {one["l2"]: one["mean_auc"] for one in fitted.metrics["l2_search"]}
    assert set(search) == set(SETTINGS.strengths)
    best = max(search.values())
    assert fitted.metrics["l2"] == max(l2 for l2, mean in search.items() if mean == best)
    only = fit(training, [], dataclasses.replace(SETTINGS, strengths=(3e-3,)))
    assert only.metrics["l2"] == 3e-3


def test_the_weights_are_the_solvers_on_what_was_not_held_out(training, fitted):
    """scikit-learn on the same rows, shares and strength gives the same margins."""
    from scipy.sparse import csr_matrix

    sources = [classifier_fit._prepare(example, SETTINGS) for example in training]
    learned = [source.take(np.flatnonzero(~source.held)) for source in sources]
    rows = classifier_fit._concatenated([source.rows for source in learned])
    signs = np.concatenate([np.full(len(s.rows), 1.0 if s.curated else -1.0) for s in learned])
    matrix = csr_matrix((np.repeat(rows.scale, np.diff(rows.indptr)), rows.indices, rows.indptr), (len(rows), 1 << SETTINGS.bits))
    other = LogisticRegression(C=1 / fitted.metrics["l2"], tol=1e-9, max_iter=5000)
    other.fit(matrix, signs, sample_weight=classifier_fit._shares(learned))
    own = matrix @ fitted.weights + fitted.bias
    assert own == pytest.approx(other.decision_function(matrix), abs=2e-3)


def test_a_model_that_did_not_converge_says_so(training, monkeypatch):
    monkeypatch.setattr(logistic, "_MAX_ITERATIONS", 2)
    assert fit(training, [], SETTINGS).metrics["converged"] is False


# -- small classes ------------------------------------------------------------------------------------------------------------


def test_where_neither_class_has_two_sources_the_strongest_is_taken():
    fitted = fit([_example("wiki", True), _example("web", False)], [], SETTINGS)
    assert fitted.metrics["leave_one_source_out"] == []
    assert fitted.metrics["l2"] == max(SETTINGS.strengths)
    assert [one["mean_auc"] for one in fitted.metrics["l2_search"]] == [None] * len(SETTINGS.strengths)


def test_the_one_source_of_a_class_cannot_be_left_out():
    fitted = fit([_example("wiki", True), _example("web", False), _example("forum", False)], [], SETTINGS)
    assert [one["source"] for one in fitted.metrics["leave_one_source_out"]] == ["web", "forum"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_documents_give_a_classifier_that_tells_them_apart(count):
    """Also where every document of a source would be held out by its hash."""
    for attempt in range(12):
        sources = [_example(f"wiki{attempt}", True, count), _example(f"web{attempt}", False, count)]
        fitted = fit(sources, [], SETTINGS)
        curated, web = (classifier.Scorer(fitted).margins(source.texts) for source in sources)
        assert curated.mean() > web.mean()
        assert np.isfinite([fitted.slope, fitted.intercept, fitted.bias]).all()
        json.dumps(fitted.metrics, allow_nan=False)


def test_texts_without_a_word_are_learned_from_without_harm():
    texts = ["", "\n \n", *(prose(f"w{n}", False) for n in range(10))]
    fitted = fit([_example("wiki", True, 12), _example("web", False, texts=texts)], [_example("none", True, texts=[""])], SETTINGS)
    assert classifier.Scorer(fitted).margins(pa.array([""], pa.large_string()))[0] == fitted.bias
    assert fitted.metrics["judged_only"][0]["source"] == "none"


def test_a_judged_source_without_documents_is_left_out_of_the_metrics(training, fitted):
    empty = Example("nothing", True, pa.array([], pa.large_string()), pa.array([], pa.binary(16)))
    assert _bytes(fit(training, [empty], SETTINGS)) == _bytes(fitted)


# -- bytes ----------------------------------------------------------------------------------------------------------------------

def _work():
    """An artefact and the margins of edge texts, as bytes."""
    sources = [_example("wiki", True), _example("books", True), _example("web", False), _example("forum", False)]
    fitted = fit(sources, [_example("news", True)], SETTINGS)
    edges = ["", " ", "a", "a" * TEXT_CAP, "é" * TEXT_CAP, "b c " * TEXT_CAP, " ".join(map(chr, range(0x4E00, 0x7E00)))]
    return _bytes(fitted) + classifier.Scorer(fitted).margins(pa.array(edges, pa.large_string())).tobytes()


@pytest.fixture(scope="module")
def done_here():
    return _work()


@pytest.mark.parametrize(("threads", "checked"), [("1", "1"), ("8", "0")])
def test_bytes_depend_neither_on_hash_seed_nor_on_threads(done_here, threads, checked, tmp_path):
    """In fresh processes; the first with NUMBA_BOUNDSCHECK: kernels stay within their arrays, and add up the same numbers."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, threads), "PYTHONHASHSEED": threads, "NUMBA_BOUNDSCHECK": checked}
    if checked == "1":
        environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    script = "import sys; from tests.quality.test_classifier_fit import _work; sys.stdout.buffer.write(_work())"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == done_here
