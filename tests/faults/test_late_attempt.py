"""A runner's second attempt at work that is done, late and cut short: what the first one finished stays finished.

The reference is the run itself, byte for byte. The late attempt writes to a store on which nothing can be published any more, as a
worker does whose job has ended.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pipelines import against, extract, models, tokenize
from pipelines.annotate import annotate_part
from pipelines.cluster_parts import write_clusters
from pipelines.fit import SampleSettings, Shares, sample_part
from pipelines.match_parts import write_matches
from pipelines.parts import list_parts
from pipelines.plan import Input, Task
from pipelines.recipe_file import parse
from pipelines.records import Limits
from pipelines.references import cite_task, task_key, task_path
from pipelines.report.statistics import StatisticsWorker, statistics_path
from pipelines.select_parts import Decide, Losers
from pipelines.select_settings import Settings, solution_path
from pipelines.select_solve import SolveDraws
from pipelines.store import SIDECAR, Store
from pipelines.verify import load_plan
from tests import corpus
from tests.runs import hashes


class Ended(Store):
    """The store of a worker whose job has ended."""

    __slots__ = ()

    @contextlib.contextmanager
    def publishing(self, path):
        raise ConnectionError("the job has ended")
        yield


@pytest.fixture
def run(built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def late(run, inputs):
    """(store on which nothing can be published, recipe, parts) of a run that is complete."""
    store = Ended(str(run))
    return store, parse(corpus.recipe(inputs), "tiny"), list_parts(store, load_plan(store))


def _key(store, path):
    return store.sidecar(path)["key"]


def _again(late, stage):
    """A stage's work on everything that it wrote."""
    store, recipe, parts = late
    variants = tuple(recipe.variants)
    settings = Settings.of(recipe, variants, {})
    for part in parts:
        if stage == "cluster":
            write_clusters(store, part, [], _key(store, part.path("clusters")))
        elif stage == "sample":
            none = SampleSettings(1, 0.0, frozenset(), frozenset())
            sample_part(store, part, Shares(0, 0, 0), none, _key(store, part.path("samples")), np.zeros(0, np.uint64))
        elif stage == "annotate":
            annotate_part(store, part, None, False, _key(store, part.path("signals")))
        elif stage == "select":
            keys = {name: _key(store, part.decisions(name)) for name in variants}
            Decide(Losers(store, parts, settings), keys)((part.index, []), {})
        elif stage == "solve":
            keys = {name: _key(store, solution_path(name)) for name in variants}
            for number in range(len(variants)):
                list(SolveDraws(store, settings, keys).start()((number, [])))
        elif stage == "statistics":
            StatisticsWorker(store, variants, recipe.seed).start()((part, _key(store, statistics_path(part))))


@pytest.mark.parametrize("stage", ["cluster", "sample", "annotate", "select", "solve", "statistics"])
def test_what_is_finished_stays_finished(run, late, stage):
    before = hashes(run)
    with contextlib.suppress(ConnectionError):
        _again(late, stage)
    assert hashes(run) == before


def test_so_do_matches_and_citations(run, late, tmp_path):
    """Of which the small corpus has none."""
    store, _, parts = late
    task, limits = Task("w", "part", (Input("x.xml", str(tmp_path / "none"), 0, "0"),)), Limits()
    for path, key in ((against.path(parts[0]), "k"), (task_path(task), task_key(task, limits))):
        Store(str(run)).finish(Store(str(run)).publish(path, b"found"), key)
    before = hashes(run)
    with contextlib.suppress(ConnectionError):
        write_matches(store, parts[0], None, "k", [])
    with contextlib.suppress(ConnectionError, FileNotFoundError):
        cite_task(store, task, limits)
    assert hashes(run) == before


def test_what_is_not_finished_is_done_again(late):
    """Of two variants' decisions those that are missing are tried, and only those."""
    store, recipe, parts = late
    missing, standing = (parts[0].decisions(name) for name in ("unfiltered", "filtered"))
    keys = {name: _key(store, parts[0].decisions(name)) for name in recipe.variants}
    store.begin(missing)
    with pytest.raises(ConnectionError):
        Decide(Losers(store, parts, Settings.of(recipe, tuple(recipe.variants), {})), keys)((parts[0].index, []), {0: {}})
    assert store.sidecar(missing) is None
    assert store.is_finished(standing, keys["filtered"])


# -- tasks and shards ---------------------------------------------------------------------------------------------------------


def _shard(store, recipe):
    """A shard with the keys that its files have, and the vocabulary."""
    shard = tokenize.list_shards(recipe, list_parts(store, load_plan(store)))[0]
    keys = tuple((variant, store.sidecar(shard.paths(variant)[0])["key"]) for variant in recipe.variants)
    tokenizer = models.load_tokenizer(store)
    return replace(shard, keys=keys), tokenize.Vocabulary(tokenizer.vocab_size, tokenizer.end_of_document)


def test_tasks_and_shards_that_are_finished_stay_finished(run, inputs):
    store, recipe = Ended(str(run)), parse(corpus.recipe(inputs), "tiny")
    before = hashes(run)
    for task in load_plan(store).tasks:
        extract.extract_task(store, task, extract.Settings.of(recipe, task.source))
    tokenize.write_shard(store, *_shard(store, recipe))
    assert hashes(run) == before


def test_what_is_not_finished_is_done_again_and_nothing_else(run, inputs):
    """One variant's file of two, and one task's rejects: what is tried and cannot be published is begun, and only that."""
    store, recipe = Ended(str(run)), parse(corpus.recipe(inputs), "tiny")
    shard, vocabulary = _shard(store, recipe)
    before = hashes(run)
    (run / (shard.paths("filtered")[0] + SIDECAR)).unlink()
    with pytest.raises(ConnectionError):
        tokenize.write_shard(store, shard, vocabulary)
    gone = before.keys() - hashes(run).keys()
    assert gone == {path + SIDECAR for path in shard.paths("filtered")[:2]}
    task = load_plan(store).tasks[0]
    (run / f"rejects/{task.source}/{task.name}.parquet{SIDECAR}").unlink()
    with pytest.raises(ConnectionError):
        extract.extract_task(store, task, extract.Settings.of(recipe, task.source))
    assert not (run / f"documents/{task.source}/{task.name}.json{SIDECAR}").exists()
