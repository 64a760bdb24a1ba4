"""Runs that are killed, stopped or gone on with: the reference is the same run left alone, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch

from pipelines.errors import UserError
from tests.train import small_runs
from tests.train.shards import write_variant
from tests.train.small_runs import SPARSE, arguments, changed, invoke, same, start, steps, weights
from train import loop, report
from train import run as runs
from train.corpus import open_corpus
from train.loop import Trainer
from train.parallel import World, shard
from train.run_config import Settings

LONG = changed(SPARSE, steps=30, saving__every=7, validation__every=10)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_here(LONG, data, folder)
    return folder


def run_here(tree, data, folder, tell=lambda line: None):
    return runs.train(Settings.of(changed(tree, data__path=str(data)), "test"), "test", folder, tell)


def signalled(tree, data, folder, number, at_step):
    """The command in a fresh process, which gets a signal as soon as it has told of a step: (exit code, what it said last)."""
    process = start(arguments(tree, folder, data))
    for line in process.stdout:
        if json.loads(line).get("step", 0) >= at_step:
            os.kill(process.pid, number)
            break
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_kill_9_at_any_moment_changes_nothing(data, alone, tmp_path):
    """Twice: in the first interval between checkpoints (but for the one of the start), and in a later one."""
    folder = tmp_path / "run"
    for at_step in (3, 10):
        code, err = signalled(LONG, data, folder, signal.SIGKILL, at_step)
        assert code == -signal.SIGKILL, err
        assert not (folder / "checkpoints" / "step-00000030").exists()
    run_here(LONG, data, folder)
    assert same(weights(folder), weights(alone))
    assert steps(folder) == steps(alone)
    assert any(line["event"] == "resume" for line in small_runs.log(folder))


def test_sigterm_writes_a_checkpoint_and_ends_with_75(data, alone, tmp_path, monkeypatch, capsys):
    """The command, in this process, which sends itself the real signal after it has told of step 16."""
    folder = tmp_path / "run"

    def tell(line):
        if line.get("step") == 16:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(report, "teller", lambda stream: tell)
        assert invoke(patched, *arguments(LONG, folder, data)) == 75
    assert capsys.readouterr().err == f"{folder}: stopped as asked; the same command goes on where it stands\n"
    assert max((folder / "checkpoints").iterdir()).name == "step-00000016"
    run_here(LONG, data, folder)
    assert same(weights(folder), weights(alone))
    assert steps(folder) == steps(alone)


@pytest.mark.parametrize("at_step", [10, 23, 30])
def test_a_stop_where_validation_is_due_leaves_it_for_later(data, alone, tmp_path, at_step):
    """SIGTERM before validations of steps 10 and 30, and at a step without one; in this process, by the real signal."""
    folder = tmp_path / "run"

    def stop(line):
        if line["event"] == "step" and line["step"] == at_step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(runs.Stopped):
        run_here(LONG, data, folder, stop)
    assert small_runs.log(folder)[-1] == {"event": "stopped", "step": at_step}
    assert steps(folder)[-1]["event"] == "step"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    summary = run_here(LONG, data, folder)
    assert all(line["event"] != "stopped" for line in small_runs.log(folder))
    assert steps(folder) == steps(alone)
    assert same(weights(folder), weights(alone))
    assert summary["validation"]["loss"] == steps(alone)[-1]["loss"]


def test_a_run_that_goes_on_draws_no_weights(data, alone, tmp_path, monkeypatch):
    """They would be thrown away, and a large model takes minutes to draw. Nor does memory hold it before it is shared out."""
    folder = shutil.copytree(alone, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "step-00000030")
    monkeypatch.setattr(Trainer, "initialise", None)
    before: set[str] = set()

    def look(model, *others):
        before.update(one.device.type for one in model.parameters())
        shard(model, *others)

    monkeypatch.setattr(loop, "shard", look)
    run_here(LONG, data, folder)
    assert before == {"meta"}
    assert same(weights(folder), weights(alone))


def test_a_finished_run_is_not_begun_again(data, alone, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "run")
    summary = run_here(LONG, data, folder)
    assert summary["steps"] == 30
    assert summary["validation"]["loss"] == steps(alone)[-1]["loss"]
    assert steps(folder) == steps(alone)
    assert same(weights(folder), weights(alone))


def test_how_a_run_is_run_may_change_on_the_way(data, alone, tmp_path):
    """Other micro-batches and checkpointing after a stop: the same losses to rounding, which Adam lets grow in the weights."""
    folder = tmp_path / "run"

    def stop(line):
        if line.get("step") == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(runs.Stopped):
        run_here(LONG, data, folder, stop)
    run_here(changed(LONG, micro_batch=2, checkpointing="full", saving__every=3), data, folder)
    assert small_runs.difference(weights(folder), weights(alone)) < 1e-4
    assert [line["loss"] for line in steps(folder)] == pytest.approx([line["loss"] for line in steps(alone)], rel=1e-5)


def test_other_settings_data_or_folders_are_refused(data, alone, tmp_path):
    alone = shutil.copytree(alone, tmp_path / "alone")
    with pytest.raises(UserError, match=r"another run is here: steps: 30 there, 31 now; take its settings, or another folder"):
        run_here(changed(LONG, steps=31), data, alone)
    other = write_variant(tmp_path / "other", documents=240)
    with pytest.raises(UserError, match=r"not the shards that the run in .* began with"):
        run_here(LONG, other, alone)
    (tmp_path / "something").mkdir()
    (tmp_path / "something" / "file").write_text("x")
    with pytest.raises(UserError, match="holds something else than a training run"):
        run_here(LONG, data, tmp_path / "something")


def test_a_run_that_did_not_get_beyond_its_start_may_be_begun_otherwise(data, alone, tmp_path):
    """So that what a first step tells can be followed in the same folder."""
    folder = tmp_path / "run"

    def stop(line):
        if line["event"] == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(changed(LONG, seed=5), data, folder, stop)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000000"]
    run_here(LONG, data, folder)
    assert same(weights(folder), weights(alone))
    assert small_runs.log(folder) == small_runs.log(alone)


def test_a_width_that_the_precision_cannot_take_is_refused_before_anything_is_written(data, tmp_path):
    folder, narrow = tmp_path / "run", changed(LONG, precision="bf16", model__moe__d_ff=20)
    told = "width 20: grouped multiplication in bfloat16 needs multiples of 8; choose 24, or"
    with pytest.raises(UserError, match=f"{told} dispatch: padded"):
        run_here(narrow, data, folder)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "train.yaml"]
    spread = small_runs.settings(changed(narrow, parallel="experts", model__moe__dispatch="padded"), open_corpus(str(data)))
    with pytest.raises(UserError, match=f"{told} another parallel with dispatch: padded"):
        Trainer(spread, open_corpus(str(data)), World(0, 2, torch.device("cpu")))


def test_a_damaged_last_checkpoint_is_told_and_the_one_before_goes_on(data, alone, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    run_here(changed(LONG, saving__keep=3), data, folder)
    checkpoints = sorted((folder / "checkpoints").iterdir())
    with open(checkpoints[-1] / "model.safetensors", "r+b") as file:
        file.truncate(100)
    words = arguments(changed(LONG, saving__keep=3), folder, data)
    assert invoke(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert told == (
        f"winnow: {checkpoints[-1]}/model.safetensors: damaged, it holds other bytes than were written; "
        "remove the folder, and the run goes on from the checkpoint before it\n"
    )
    for path in sorted(checkpoints[-1].rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    checkpoints[-1].rmdir()
    assert invoke(monkeypatch, *words) == 0
    assert same(weights(folder), weights(alone))
    assert steps(folder) == steps(alone)


def test_the_run_is_locked_while_it_runs(data, tmp_path):
    """A second command in the same folder is refused, not let in between."""
    refused: list[str] = []

    def again(line):
        if line.get("step") == 2 and line["event"] == "step" and not refused:
            with pytest.raises(UserError) as caught:
                run_here(SPARSE, data, tmp_path / "run")
            refused.append(str(caught.value))

    run_here(SPARSE, data, tmp_path / "run", again)
    assert "is running here" in refused[0]


def test_trainer_is_what_the_run_uses():
    """The fault tests put another class in its place by this name."""
    assert runs.Trainer is Trainer
