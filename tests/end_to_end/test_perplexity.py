"""Perplexity through a whole build: models of one source, scores of all, thirds that are thirds, and a cut by them."""

from __future__ import annotations

import json
import shutil
from collections import Counter

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


# -- several languages --------------------------------------------------------------------------------------------------------

WORDS = {
    "en": "the of and to in that is was for it with as his on be at by had not are but from they which have this".split(),
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat".split(),
    "fr": "le de la et les des en un une du que est pour qui dans par sur au pas plus avec ce il sont nous leur cette être".split(),
}
LANGUAGES = """
name: spoken
sources:
  wiki: {format: jsonl, paths: [wiki.jsonl]}
  web: {format: jsonl, paths: [web.jsonl]}
fit:
  perplexity: {sources: [wiki], min_tokens: 2000, sample_mb: 5}
  tokenizer: {vocab_size: 600, sample_mb: 1}
variants:
  all: {}
  head: {default: {perplexity: head}}
  middle: {default: {perplexity: middle}}
tokens: {validation: 0}
"""


def _spoken(language, name, some):
    """Sixty words of a language's first `some`: the more there are to choose from, the more a text surprises."""
    draw = corpus.Draw(f"{language} {name}")
    return " ".join(WORDS[language][draw.below(some)] for _ in range(60)).capitalize() + "."


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """wiki has English and German, and a little French; web 90 English, 60 German and 30 French documents, easy to hard."""
    folder = tmp_path_factory.mktemp("spoken")
    wiki = [_spoken(language, f"wiki {n}", 20) for language in ("en", "de") for n in range(60)] + [_spoken("fr", "wiki", 20)] * 3
    web = [_spoken(*row) for row in _web()]
    for name, texts in (("wiki", wiki), ("web", web)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    build(parse(LANGUAGES, "spoken"), str(folder), str(folder / "run"), ONE_WORKER, lambda line: None)
    return folder / "run"


def _web():
    return [(lang, f"web {n}", 12 + 8 * (n % 2)) for lang, count in (("en", 90), ("de", 60), ("fr", 30)) for n in range(count)]


def test_every_language_has_its_own_model_and_its_own_thirds(spoken):
    """The same number of documents of each language in each third, though one language's perplexities are not another's."""
    fitted = models.load_perplexity(Store(str(spoken)))
    assert set(fitted) == {"en", "de"}  # three French documents are under min_tokens
    assert fitted["en"].head != fitted["de"].head
    rows = _signals(spoken, "web")
    assert [row["language"] for row in rows] == [language for language, *_ in _web()]
    for language, count in (("en", 90), ("de", 60)):
        scores = [row["perplexity"] for row in rows if row["language"] == language]
        buckets = [bucket(score, fitted[language]) for score in scores]
        assert [buckets.count(name) for name in ("head", "middle", "tail")] == [count // 3] * 3
        assert fitted[language].head == pytest.approx(np.percentile(scores, 100 / 3, method="lower"), rel=1e-6)
        assert fitted[language].middle == pytest.approx(np.percentile(scores, 200 / 3, method="lower"), rel=1e-6)


def test_a_language_without_a_model_is_null_kept_and_counted(spoken):
    """French: no perplexity, kept where the tail goes and where the middle goes too, counted in stats, report and card."""
    rows = _signals(spoken, "web")
    assert all((row["perplexity"] is None) == (row["language"] == "fr") for row in rows)
    for variant, thirds in (("all", 3), ("head", 1), ("middle", 2)):
        (path,) = sorted((spoken / "decisions" / variant / "web").rglob("*.parquet"))
        verdicts = pq.read_table(path, columns=["verdict"]).column(0).to_pylist()
        kept = Counter(row["language"] for row, verdict in zip(rows, verdicts, strict=True) if verdict == "keep")
        assert kept == {"en": 30 * thirds, "de": 20 * thirds, "fr": 30}
    stats = json.loads((spoken / "stats.json").read_bytes())["sources"]
    assert stats["web"]["without_perplexity"] == {"fr": 30}
    assert stats["wiki"]["without_perplexity"] == {"fr": 3}
    said = "Documents without a perplexity, which no cut by perplexity judges: 33. Languages without a model: `fr`."
    assert said in (spoken / "card.md").read_text("utf-8")
