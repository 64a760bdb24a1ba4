"""The classifier: features against plain Python, AUC and calibration against scikit-learn, artefacts, and what never teaches it."""

from __future__ import annotations

import gzip
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipelines.errors import UserError
from quality import classifier
from quality.classifier import Classifier, Scorer
from quality.classifier_fit import Example, FitSettings, auc, features, fit
from quality.classifier_kernel import TEXT_CAP, features_reference
from tests.corpus import prose

BITS = 12


def _texts(texts):
    return pa.array(texts, pa.large_string())


def _sets(texts, bits=BITS):
    rows = features(_texts(texts), bits)
    return [set(rows.indices[a:b].tolist()) for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=120), min_size=1, max_size=3))
def test_features_are_those_of_plain_python(texts):
    assert _sets(texts) == [set(features_reference(text.encode(), BITS)) for text in texts]


def test_features_stand_in_the_order_of_their_first_occurrence():
    """Sums follow this order, so the last bits of a margin do too."""
    texts = ["b a b  a\tc", "été \x1c ÉTÉ a\u00a0b", "", prose("one", True)]
    rows = features(_texts(texts), BITS)
    for text, found in zip(texts, np.split(rows.indices, rows.indptr[1:-1]), strict=True):
        assert found.tolist() == list(features_reference(text.encode(), BITS))


def test_words_of_every_length_at_every_place_of_a_block():
    """Around the eight bytes of a load and the 64 of a block, with the neighbours of A and Z, up to the buffer's last byte."""
    words = ["Az@[`{É"[:size % 7] + "xY" * (size // 2) for size in range(1, 22)]
    texts = [" " * place + word + end for word in words for place in (0, 1, 40, 55, 56, 57, 63, 64) for end in ("", " B", "\n")]
    rows = features(_texts(texts), BITS)
    for text, found in zip(texts, np.split(rows.indices, rows.indptr[1:-1]), strict=True):
        assert found.tolist() == list(features_reference(text.encode(), BITS))
    assert _sets([texts[-2]]) == [set(features_reference(texts[-2].encode(), BITS))]


def test_features_of_real_texts(real_data):
    """200 pages of OpenWebText."""
    with gzip.open(real_data / "web" / "openwebtext-1000.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(200), file, strict=False)]
    assert _sets(texts, 20) == [set(features_reference(text.encode(), 20)) for text in texts]


@pytest.mark.parametrize("text", ["a" * TEXT_CAP, "b c " * (TEXT_CAP // 4)])
def test_a_text_at_the_cap(text):
    """One word, words that repeat, 2,500 words that do not: a Scorer sums the weights of what plain Python finds."""
    bits, texts = 20, [text, " ".join(map(chr, range(0x4E00, 0x4E00 + TEXT_CAP))), text]
    weights = np.random.default_rng(1).normal(size=1 << bits).astype(np.float32)
    scored = Scorer(Classifier(weights, 0.5, 1.0, 0.0, {})).margins(_texts(texts))
    for text, margin in zip(texts, scored, strict=True):
        found = list(features_reference(text.encode(), bits))
        assert margin == pytest.approx(0.5 + weights[found].sum(dtype=np.float64) / np.sqrt(len(found)))


def test_only_the_first_bytes_count():
    assert _sets(["a " * TEXT_CAP + "rare"]) == _sets(["a " * TEXT_CAP])


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40))
def test_auc_is_scikit_learns_with_ties(scored):
    positive = np.array([value for value, curated in scored if curated], float)
    negative = np.array([value for value, curated in scored if not curated], float)
    if not len(positive) or not len(negative):
        assert np.isnan(auc(positive, negative))
        return
    labels = [1] * len(positive) + [0] * len(negative)
    assert auc(positive, negative) == pytest.approx(roc_auc_score(labels, np.concatenate([positive, negative])))


def _example(source, curated, count=60, mark=""):
    texts = [f"{mark} " + prose(f"{source} {n}", curated) for n in range(count)]
    ids = [hashlib.blake2b(f"{source}{n}".encode(), digest_size=16).digest() for n in range(count)]
    return Example(source, curated, _texts(texts), pa.array(ids, pa.binary(16)))


@pytest.fixture(scope="module")
def training():
    return [_example("wiki", True), _example("books", True), _example("web", False), _example("forum", False)]


@pytest.fixture(scope="module")
def fitted(training):
    return fit(training, [], FitSettings(seed=1, bits=14))


def test_two_styles_are_told_apart(fitted):
    assert fitted.metrics["held_out_slice"]["auc"] > 0.95
    assert [one["source"] for one in fitted.metrics["leave_one_source_out"]] == ["wiki", "books", "web", "forum"]
    assert all(one["auc"] > 0.95 for one in fitted.metrics["leave_one_source_out"])
    assert fitted.metrics["converged"]


def _marked(source, curated):
    """Documents of one style for all sources, each with a word that only its source has."""
    example = _example(source, curated)
    texts = [f"{source}{source} {prose(f'{source} {n}', True)}" for n in range(len(example.texts))]
    return Example(source, curated, _texts(texts), example.doc_ids)


def test_a_word_that_marks_one_source_does_not_help_when_it_is_left_out():
    """Sources that differ by a mark of their own alone: told apart on the slice, not when the source is left out."""
    sources = [_marked("aa", True), _marked("bb", True), _marked("cc", False), _marked("dd", False)]
    metrics = fit(sources, [], FitSettings(seed=1, bits=14)).metrics
    assert metrics["held_out_slice"]["auc"] > 0.95
    assert np.mean([one["auc"] for one in metrics["leave_one_source_out"]]) < 0.75


def test_judged_sources_never_teach(training, fitted):
    judged = fit(training, [_example("news", True), _example("spam", False)], FitSettings(seed=1, bits=14))
    assert judged.weights.tobytes() == fitted.weights.tobytes()
    assert (judged.bias, judged.slope, judged.intercept) == (fitted.bias, fitted.slope, fitted.intercept)
    assert [one["source"] for one in judged.metrics["judged_only"]] == ["news", "spam"]


def test_quality_is_a_calibrated_probability_in_steps(training, fitted):
    """Platt's sigmoid on balanced classes: the mean of quality over both classes is a half, and every value a step of 1e-4."""
    scores = [Scorer(fitted)(example.texts).astype(np.float64) for example in training]
    for found in scores:
        assert (np.abs(found * 1e4 - np.rint(found * 1e4)) < 1e-2).all()
    assert np.mean([found.mean() for found in scores]) == pytest.approx(0.5, abs=0.03)


def test_scores_do_not_depend_on_batches_or_threads(training, fitted):
    texts = training[0].texts
    whole = Scorer(fitted)(texts)
    assert np.array_equal(Scorer(fitted)(texts.slice(7, 20)), whole[7:27])
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(found, whole) for found in pool.map(lambda _: Scorer(fitted)(texts), range(8)))


def test_contributions_explain_the_margin(fitted):
    text = prose("one", True, 2)
    parts = classifier.contributions(fitted, text, 10_000)
    assert sum(value for _, value in parts) + fitted.bias == pytest.approx(Scorer(fitted).margins(_texts([text]))[0], abs=1e-5)


def test_an_artefact_is_read_back_as_it_was(fitted):
    files = classifier.save(fitted)
    again = classifier.load(files)
    assert again.weights.tobytes() == fitted.weights.tobytes()
    assert classifier.save(again) == files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: {**f, "quality.json": f["quality.json"][:-20]}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.safetensors": f["quality.safetensors"][:-9]}, "quality.safetensors: not the weights"),
        (lambda f: {**f, "quality.json": _changed(f, bits=13)}, "quality.safetensors: float32"),
        (lambda f: {**f, "quality.json": _changed(f, format=2)}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": _changed(f, bits="14")}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": _changed(f, bits=10**9)}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": _changed(f, bits=-1)}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": _changed(f, slope=float("nan"))}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": _changed(f, bias=10**400)}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": b"[" * 100_000}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": b"[]"}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {**f, "quality.json": b"\xff"}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {"quality.safetensors": f["quality.safetensors"]}, "quality.json: not a quality classifier of format 1"),
        (lambda f: {"quality.json": f["quality.json"]}, "quality.safetensors: not the weights of a quality classifier"),
        (lambda f: {**f, "quality.safetensors": b""}, "quality.safetensors: not the weights of a quality classifier"),
        (lambda f: {**f, "quality.safetensors": _weights(np.float32([np.nan] * (1 << 14)))}, "quality.safetensors: holds weights"),
        (lambda f: {**f, "quality.safetensors": _weights(np.zeros(1 << 14))}, "quality.safetensors: float64"),
    ],
)
def test_damaged_artefacts_are_one_line_errors(fitted, damage, message):
    with pytest.raises(UserError) as caught:
        classifier.load(damage(classifier.save(fitted)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def _changed(files, **values):
    return json.dumps({**json.loads(files["quality.json"]), **values}).encode()


def _weights(values):
    import safetensors.numpy

    return safetensors.numpy.save({"weights": values})
