"""train.checkpoint: what was saved comes back to the bit, whole or not at all; damage and other models are one line."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pipelines.errors import UserError
from tests.train.shards import write_variant
from tests.train.small_runs import SPARSE, changed, same, trainer
from train import checkpoint, weights
from train.config import ModelConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"))


def moments(made):
    """The optimiser's state by parameter's place."""
    return [{name: value.clone() for name, value in state.items()} for state in made.optimiser.state.values()]


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_weights_moments_and_progress_come_back_to_the_bit(data, tmp_path, kind):
    tree = changed(SPARSE, optimiser__kind=kind)
    made = trainer(tree, data)
    for _ in range(3):
        made.step()
    folder = made.save(tmp_path, {"mine": [1, 2]})
    other = trainer(changed(tree, seed=1), data)
    other.step()  # has a state of its own, to be written over
    state = other.load(folder)
    assert (state["mine"], state["step"]) == ([1, 2], 3)
    assert other.progress == made.progress
    assert same(other.model.state_dict(), made.model.state_dict())
    for one, another in zip(moments(other), moments(made), strict=True):
        assert same(one, another)
    assert [made.step().tally.loss for _ in range(3)] == [other.step().tally.loss for _ in range(3)]
    assert same(other.model.state_dict(), made.model.state_dict())


def test_the_folder_is_what_export_and_sampling_read(data, tmp_path):
    made = trainer(SPARSE, data)
    made.step()
    folder = made.save(tmp_path, {})
    assert folder.name == "step-00000001"
    assert ModelConfig.from_dict(json.loads((folder / "config.json").read_text())) == made.config
    stored = load_file(folder / "model.safetensors")
    assert same(stored, made.model.state_dict())
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert (folder / "tokenizer.json").read_bytes() == (data / "../../models/tokenizer.json").resolve().read_bytes()
    assert same(weights.load_model(str(folder)).state_dict(), made.model.state_dict())


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_a_checkpoint_before_the_first_update_holds_no_moments(data, tmp_path, kind):
    """Going on from it is beginning: a state that a library made up would count one update too many."""
    tree = changed(SPARSE, optimiser__kind=kind)
    made, untouched = trainer(tree, data), trainer(tree, data)
    folder = made.save(tmp_path, {})
    assert not (folder / "optimiser").exists()
    wanted = [untouched.step().tally.loss for _ in range(4)]
    assert [made.step().tally.loss for _ in range(4)] == wanted
    made.load(folder)
    assert [made.step().tally.loss for _ in range(4)] == wanted
    assert same(made.model.state_dict(), untouched.model.state_dict())


def test_the_newest_few_are_kept_in_the_order_of_their_steps(data, tmp_path):
    made = trainer(SPARSE, data)
    for _ in range(4):
        made.step()
        made.save(tmp_path, {})
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["step-00000003", "step-00000004"]
    (tmp_path / "step-100000000").mkdir()
    (tmp_path / "step-x").mkdir()
    assert checkpoint.finished(tmp_path)[-1].name == "step-100000000"
    assert checkpoint.finished(tmp_path / "none") == []


def test_an_unfinished_folder_is_none_and_is_swept_away(data, tmp_path, monkeypatch):
    """A process that dies while it writes: here the last write fails."""
    made = trainer(SPARSE, data)
    made.step()
    made.save(tmp_path, {})
    made.step()

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_sync", die)
        with pytest.raises(KeyboardInterrupt):
            made.save(tmp_path, {})
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["step-00000001"]
    assert (tmp_path / ".tmp-step-00000002" / "model.safetensors").exists()
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    made.save(tmp_path, {})
    assert len(checkpoint.finished(tmp_path)) == 2


@pytest.mark.parametrize("again", [True, False], ids=["the same step again", "one step more"])
@pytest.mark.parametrize("place", range(5))
def test_a_kill_at_any_place_of_a_save_leaves_a_whole_checkpoint(data, tmp_path, monkeypatch, place, again):
    """keep 1. The process dies before a renaming or within a removal: the first one, the second, ..., or (at 4) after the last."""
    made = trainer(changed(SPARSE, saving__keep=1), data)
    made.step()
    made.save(tmp_path, {"time": 1})
    passed, rmtree = itertools.count(), shutil.rmtree

    def dying(do):
        def call(path, *arguments, **options):
            if path.parent == tmp_path and path.exists() and next(passed) == place:
                if do is rmtree:
                    (path / "state.json").unlink()
                raise KeyboardInterrupt
            return do(path, *arguments, **options)

        return call

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(type(tmp_path), "rename", dying(type(tmp_path).rename))
        patched.setattr(checkpoint.shutil, "rmtree", dying(rmtree))
        made.progress = made.progress if again else replace(made.progress, step=2)
        made.save(tmp_path, {"time": 2})
    checkpoint.sweep(tmp_path)
    found = checkpoint.finished(tmp_path)
    assert sorted(tmp_path.iterdir()) == found
    other = trainer(SPARSE, data)
    assert other.load(found[-1])["time"] == (1 if place < (2 if again else 1) else 2)
    assert same(other.model.state_dict(), made.model.state_dict())


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


FAULTS = {
    "weights cut": (lambda f: (f / "model.safetensors").write_bytes(b"1234"), r"model\.safetensors: damaged"),
    "a bit of the weights": (lambda f: flip(f / "model.safetensors"), r"model\.safetensors: damaged, it holds other bytes"),
    "a bit of the moments": (lambda f: flip(next((f / "optimiser").glob("*.distcp"))), r"distcp: damaged"),
    "no moments": (lambda f: next((f / "optimiser").glob("*.distcp")).unlink(), r"distcp: missing; remove the folder"),
    "no state": (lambda f: (f / "state.json").unlink(), r"not a checkpoint folder \(no state\.json\)"),
    "state cut": (lambda f: (f / "state.json").write_text('{"a'), r"state\.json: not JSON"),
    "state of nothing": (lambda f: (f / "state.json").write_text("[]"), r"state\.json: expected one JSON object"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_one_line_that_names_the_file(data, tmp_path, fault):
    made = trainer(SPARSE, data)
    made.step()
    folder = made.save(tmp_path, {})
    break_it, says = FAULTS[fault]
    break_it(folder)
    with pytest.raises(UserError, match=says) as caught:
        made.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(data, tmp_path):
    made = trainer(SPARSE, data)
    made.step()
    folder = made.save(tmp_path, {})
    other = trainer(changed(SPARSE, model__d_ff=32, model__moe__experts=8), data)
    with pytest.raises(UserError, match=r"a checkpoint of another model: d_ff 24 there, 32 here; moe\.experts 4 there, 8 here"):
        other.load(folder)
    dense = trainer(changed(SPARSE, model__moe=None), data)
    with pytest.raises(UserError, match=r"moe\.experts 4 there, None here"):
        dense.load(folder)


def test_a_state_with_numbers_that_are_not_finite_can_be_stored(data, tmp_path):
    """Progress holds counts alone: whatever a step computed, the folder can be read back."""
    made = trainer(SPARSE, data)
    made.model.blocks[0].attention.out.weight.register_hook(lambda gradient: gradient * math.nan)
    assert made.step().skipped
    other = trainer(SPARSE, data)
    other.load(made.save(tmp_path, {}))
    assert other.progress.streak == 1
