"""A runner's second attempt at a task or a shard that is done, late and cut short: what the first one finished stays finished.

The reference is the run itself, byte for byte. The late attempt writes to a store on which nothing can be published any more.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace

import pytest

from pipelines import extract, models, tokenize
from pipelines.parts import list_parts
from pipelines.recipe_file import parse
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
