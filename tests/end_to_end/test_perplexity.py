"""Perplexity through a whole build: models of one source, scores of all, thirds that are thirds, and a cut by them."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import models
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.recipe_file import parse
from pipelines.store import Store
from pipelines.verify import verify
from quality import ngrams
from quality.perplexity import PerplexityScorer, bucket
from tests import corpus
from tests.runs import ONE_WORKER, TWO_THREADS, hashes

RECIPE = corpus.RECIPE.replace("fit:\n", "fit:\n  perplexity: {sources: [wiki], min_tokens: 2000, sample_mb: 5}\n")


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("perplexity") / "run"
    build(parse(RECIPE.replace("INPUT", str(inputs)), "tiny"), ".", str(folder), ONE_WORKER, lambda line: None)
    return folder


def _signals(run, source):
    paths = sorted((run / "signals" / source).rglob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path, columns=["language", "perplexity", "token_ids"]).to_pylist()]


def test_scores_are_those_of_the_models_over_the_written_ids(run):
    fitted = models.load_perplexity(Store(str(run)))
    assert set(fitted) == {"en"}
    rows = _signals(run, "web") + _signals(run, "wiki")
    for row in rows:
        ids = np.frombuffer(row["token_ids"], "<u2")
        (expected,) = PerplexityScorer(fitted)(ids, np.array([0, len(ids)]), [row["language"]])
        assert row["perplexity"] == (None if np.isnan(expected) else pytest.approx(expected, rel=1e-6))
    assert sum(row["perplexity"] is not None for row in rows) > 200


def test_text_like_the_taught_source_surprises_less(run):
    """wiki and the curated quarter of web draw from one list of words, the rest of web from another."""
    scores = ([row["perplexity"] for row in _signals(run, name)] for name in ("wiki", "web"))
    wiki, web = ([score for score in found if score is not None] for found in scores)
    assert np.median(wiki) < np.median(web)


def test_the_bounds_are_thirds_of_the_sampled_documents_of_the_other_sources(run):
    (model,) = models.load_perplexity(Store(str(run))).values()
    paths = sorted((run / "samples" / "web").rglob("*.parquet"))
    sampled = {row["doc_id"] for path in paths for row in pq.read_table(path).to_pylist() if row["for_perplexity"]}
    found = []
    for path in sorted((run / "documents" / "web").rglob("*.parquet")):
        ids = pq.read_table(path, columns=["doc_id"]).column(0).to_pylist()
        scores = pq.read_table(run / "signals" / "web" / path.name, columns=["perplexity"]).column(0).to_pylist()
        found += [score for one, score in zip(ids, scores, strict=True) if one in sampled]
    buckets = [bucket(score, model) for score in found]
    assert len(buckets) > 100
    for name in ("head", "middle", "tail"):
        assert buckets.count(name) == pytest.approx(len(buckets) / 3, abs=1)


def test_two_workers_write_the_same_models_and_signals(run, inputs, tmp_path):
    other = tmp_path / "run"
    build(parse(RECIPE.replace("INPUT", str(inputs)), "tiny"), ".", str(other), TWO_THREADS, lambda line: None)
    assert hashes(run) == hashes(other)


def test_too_little_text_is_said_with_what_there_is(inputs, tmp_path):
    text = RECIPE.replace("INPUT", str(inputs)).replace("min_tokens: 2000", "min_tokens: 1000000")
    with pytest.raises(UserError, match=r"^fit\.perplexity: no language of its sources has 1,000,000 tokens \(en [\d,]+\)"):
        build(parse(text, "tiny"), ".", str(tmp_path / "run"), ONE_WORKER, lambda line: None)


def test_a_source_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"fit\.perplexity\.sources names the source 'wikj'; did you mean 'wiki'\?"):
        parse(RECIPE.replace("sources: [wiki], min", "sources: [wikj], min"), "tiny")


def test_without_a_document_to_judge_the_bounds_are_open():
    model = ngrams.with_bounds(ngrams.fit([np.array([1, 2, 3])], 6), [])
    assert (model.head, model.middle) == (np.inf, np.inf)


@pytest.mark.parametrize("keep", ["head", "middle"])
def test_the_last_thirds_are_dropped_with_their_number_and_the_bound(run, inputs, tmp_path, keep):
    """Of what the rules leave; documents of languages without a model stay."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    text = RECIPE.replace("rules: [gopher],", f"rules: [gopher], perplexity: {keep},").replace("INPUT", str(inputs))
    said: list[str] = []
    build(parse(text, "tiny"), ".", str(folder), ONE_WORKER, said.append)
    redone = {line.split()[0]: line.split()[1] for line in said}
    assert {stage for stage, count in redone.items() if count != "0"} <= {"fit", "select", "tokenize", "statistics", "report"}
    (model,) = models.load_perplexity(Store(str(folder))).values()
    bound = {"head": model.head, "middle": model.middle}[keep]
    dropped = kept = 0
    for path in sorted((folder / "decisions" / "filtered" / "web").rglob("*.parquet")):
        before = pq.read_table(run / "decisions" / "filtered" / "web" / path.name, columns=["verdict", "stage"]).to_pylist()
        scores = pq.read_table(folder / "signals" / "web" / path.name, columns=["perplexity"]).column(0).to_pylist()
        for row, was, score in zip(pq.read_table(path).to_pylist(), before, scores, strict=True):
            if was["stage"] in ("language", "rules"):
                assert row["verdict"] == was["verdict"]
            elif score is not None and score > np.float32(bound):
                assert (row["verdict"], row["stage"]) == ("perplexity", "rules")
                assert (row["value"], row["threshold"]) == (pytest.approx(score), pytest.approx(bound))
                dropped += 1
            else:
                assert row["verdict"] != "perplexity"
                kept += 1
    assert dropped > 20
    assert kept > 20
    assert verify(str(folder)).faults == []


def test_judging_by_perplexity_needs_a_model():
    text = corpus.RECIPE.replace("rules: [gopher],", "rules: [gopher], perplexity: head,")
    with pytest.raises(UserError, match=r"variants\.filtered judges by perplexity but fit\.perplexity is missing"):
        parse(text, "tiny")
