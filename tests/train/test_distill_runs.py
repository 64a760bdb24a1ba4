"""`winnow train distill` as a user meets it: a student of a real run, kills, two processes, and what it says of bad input.

    torchrun --nproc-per-node 2 -m tests.train.test_distill_runs FOLDER DATA CHECKPOINT

is what the test of two processes starts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from pipelines.errors import UserError
from tests.train import small_runs
from tests.train.shards import write_variant
from tests.train.small_runs import DENSE, SPARSE, arguments, changed, difference, invoke, same, start, steps
from train import flops, weights
from train import run as runs
from train.corpus import open_corpus
from train.data import validation_sequences
from train.distill import Distiller, settings_of_student
from train.loop import Trainer
from train.parallel import ALONE, joined
from train.run_config import Settings
from train.run_file import SETTINGS
from train.validation import validate

TEACHER = changed(SPARSE, steps=8, validation__every=8, saving__every=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def taught(data, tmp_path_factory):
    """The folder of a finished run with a sparse model."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    runs.train(Settings.of(changed(TEACHER, data__path=str(data)), "test"), "test", folder, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def teacher(taught):
    return taught / "checkpoints" / "step-00000008"


LONG = ("steps=20", "validation.every=10", "saving.every=6")


def distil(teacher, folder, *overrides, tell=lambda line: None):
    return runs.train(settings_of_student(str(teacher), overrides), str(teacher), folder, tell)


def words(teacher, folder, *overrides):
    return ["train", "distill", str(teacher), "--run", str(folder), *(word for one in overrides for word in ("--set", one))]


@pytest.fixture(scope="module")
def alone(teacher, tmp_path_factory):
    """A student that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    distil(teacher, folder, *LONG)
    return folder


def test_the_command_trains_a_dense_student_by_the_settings_of_its_teachers_run(
    data, taught, teacher, tmp_path, monkeypatch, capsys
):
    assert invoke(monkeypatch, *words(teacher, tmp_path / "run"), "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert Path(summary["checkpoint"]).name == "step-00000008"
    theirs, ours = (yaml.safe_load((folder / SETTINGS).read_text()) for folder in (taught, tmp_path / "run"))
    assert ours.pop("teacher") == {"checkpoint": str(teacher), "share": 0.25, "initialise": True}
    assert (theirs.pop("teacher"), theirs["model"].pop("moe")["experts"], ours["model"].pop("moe")) == (None, 4, None)
    layer = {name: theirs["model"].pop(name) and ours["model"].pop(name) for name in ("ffn", "d_ff")}
    assert layer == {"ffn": "gelu", "d_ff": 24}  # all layers of this teacher are sparse: an expert's shape
    assert ours == theirs
    begun, *others = small_runs.log(tmp_path / "run")
    config, of_teacher = (weights.read_config(str(one)) for one in (summary["checkpoint"], teacher))
    assert begun["flops_per_token"] == flops.matmul_training(config, 24) + flops.matmul_forward(of_teacher, 24)
    assert begun["parameters"] == sum(map(torch.numel, small_runs.weights(tmp_path / "run").values()))
    stepped = [line for line in others if line["event"] == "step"]
    assert [line["step"] for line in stepped] == list(range(1, 9))
    assert all(0 < line["soft_loss"] != line["loss"] > 0 for line in stepped)
    assert "soft_loss" not in others[-1]  # the validation
    assert summary["validation"]["loss"] == others[-1]["loss"]


def test_its_settings_repeat_the_run_to_the_bit(teacher, tmp_path, monkeypatch, capsys):
    distil(teacher, tmp_path / "first")
    shutil.copy(tmp_path / "first" / SETTINGS, tmp_path / "again.yaml")
    assert invoke(monkeypatch, "train", "run", str(tmp_path / "again.yaml"), "--run", str(tmp_path / "second")) == 0
    first, second = (small_runs.weights(tmp_path / name) for name in ("first", "second"))
    assert same(first, second)
    assert small_runs.log(tmp_path / "first") == small_runs.log(tmp_path / "second")


def test_kill_9_changes_nothing(teacher, alone, tmp_path):
    """The command in a fresh process, killed as soon as it has told of step 8; the reference is the run left alone."""
    folder = tmp_path / "run"
    process = start(words(teacher, folder, *LONG))
    for line in process.stdout:
        if json.loads(line).get("step", 0) >= 8:
            os.kill(process.pid, signal.SIGKILL)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err
    assert not (folder / "checkpoints" / "step-00000020").exists()
    distil(teacher, folder, *LONG)
    assert same(small_runs.weights(folder), small_runs.weights(alone))
    assert steps(folder) == steps(alone)
    assert any(line["event"] == "resume" for line in small_runs.log(folder))


def test_a_run_goes_on_with_its_own_teacher_alone(data, teacher, alone, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "run")
    told = r"another run is here: teacher\.share: 0\.25 there, 0\.5 now; take its settings"
    with pytest.raises(UserError, match=told):
        distil(teacher, folder, *LONG, "teacher.share=0.5")
    with pytest.raises(UserError, match=r"another run is here: teacher\.initialise: True there, False now"):
        distil(teacher, folder, *LONG, "teacher.initialise=false")
    without = changed(yaml.safe_load((folder / SETTINGS).read_text()), teacher=None)
    with pytest.raises(UserError, match=r"another run is here: .*teacher\.share: 0\.25 there, None now"):
        runs.train(Settings.of(without, "test"), "test", folder, lambda line: None)
    moved = shutil.copytree(teacher.parent.parent, tmp_path / "moved") / "checkpoints" / teacher.name
    assert distil(moved, folder, *LONG)["steps"] == 20
    before = moved.parent / "step-00000004"
    with pytest.raises(UserError, match=r"step-00000004: not the teacher that the run in .*run began with \(other weights\); give"):
        distil(before, folder, *LONG)


# -- bad input ------------------------------------------------------------------------------------------------------------------


def cut(checkpoint):
    with open(checkpoint / "model.safetensors", "r+b") as file:
        file.truncate(100)


def dense(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "moe": None}))


def other_tokenizer(checkpoint):
    """The same ids in another file, as far as can be told."""
    content = (checkpoint / "tokenizer.json").read_bytes()
    (checkpoint / "tokenizer.json").write_bytes(content + b"\n")


BAD = {
    "no teacher": (shutil.rmtree, (), "step-00000008: no such folder", "give a checkpoint's"),
    "a run in place of its checkpoint": (lambda one: (one / "config.json").unlink(), (), "not a checkpoint folder", "config.json"),
    "a damaged teacher": (cut, (), "model.safetensors: damaged", "other bytes than were written"),
    "a dense teacher": (dense, (), "step-00000008: a dense model", "give winnow train run a file of settings"),
    "no settings": (lambda one: (one.parent.parent / SETTINGS).unlink(), (), "train.yaml: missing", "a checkpoint within its run"),
    "a sparse student": (lambda one: None, (f"model.moe={json.dumps(small_runs.MOE)}",), "a student is dense", "model.moe=null"),
    "a preset": (lambda one: None, ("preset=llama-tiny",), "--set preset=llama-tiny", "override it by model.* instead"),
    "a share above 1": (lambda one: None, ("teacher.share=1.5",), "teacher.share: ", "less than or equal to 1"),
    "an unknown key": (lambda one: None, ("teacher.shore=1",), "unknown key teacher.shore", "did you mean 'share'?"),
    "another width": (lambda one: None, ("model.d_model=24",), "teacher.initialise: embedding.weight", "initialise=false"),
    "another tokenizer": (other_tokenizer, (), "the teacher's tokenizer is not that of the data", "its ids are other tokens"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_exit_code_2(taught, tmp_path, monkeypatch, capsys, fault):
    break_it, overrides, says, way_out = BAD[fault]
    checkpoint = shutil.copytree(taught, tmp_path / "teacher") / "checkpoints" / "step-00000008"
    break_it(checkpoint)
    assert invoke(monkeypatch, *words(checkpoint, tmp_path / "run", *overrides)) == 2
    told = capsys.readouterr().err
    assert told.startswith("winnow: ")
    assert told.count("\n") == 1
    assert says in told
    assert way_out in told


def test_a_teacher_of_another_vocabulary_is_refused(teacher, tmp_path, monkeypatch, capsys):
    """The same shards under a vocabulary that is larger by 1."""
    data = write_variant(tmp_path / "data")
    (tmp_path / "data" / "models" / "tokenizer.json").unlink()
    told = [*words(teacher, tmp_path / "run", "data.vocab_size=258"), "--data", str(data)]
    assert invoke(monkeypatch, *told) == 2
    assert capsys.readouterr().err == (
        f"winnow: {teacher}: a teacher of 257 ids, but the data's vocabulary has 258; give a teacher of the data's tokenizer\n"
    )


def test_a_dense_teacher_can_be_had_by_a_file_of_settings(data, tmp_path, monkeypatch, capsys):
    """Of another width than the student, whose initialisation is its own then."""
    made = small_runs.trainer(changed(DENSE, model__d_model=24), data)
    weights.write_checkpoint(str(tmp_path / "wide"), made.config, made.model.state_dict())
    tree = changed(DENSE, steps=2, teacher={"checkpoint": str(tmp_path / "wide"), "initialise": False})
    assert invoke(monkeypatch, *arguments(tree, tmp_path / "run", data), "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


# -- two processes --------------------------------------------------------------------------------------------------------------

KINDS = ("ddp", "fsdp")


def results(made: Trainer) -> dict:
    facts = [made.step() for _ in range(3)]
    found = [[one.tally.loss, made.told(one.tally)["soft_loss"], one.norm] for one in facts]
    return {"steps": found, "validation": validate(made, validation_sequences(made.data.corpus, made.data.context, 5))["loss"]}


def student(teacher, world, kind):
    settings = settings_of_student(str(teacher), [f"parallel={kind}"])
    corpus = open_corpus(str(settings.data.path))
    return Distiller(small_runs.settings(settings.model_dump(), corpus), corpus, world)


def test_two_processes_are_one(teacher, tmp_path):
    """Reference: one process, the whole batch at once."""
    small_runs.finish_two("tests.train.test_distill_runs", str(tmp_path), str(teacher))
    made = student(teacher, ALONE, "ddp")
    wanted = results(made)
    for kind in KINDS:
        got = json.loads((tmp_path / f"{kind}.json").read_text())
        for one, other in zip(got["steps"], wanted["steps"], strict=True):
            assert one == pytest.approx(other, rel=1e-6)
        assert got["validation"] == pytest.approx(wanted["validation"], rel=1e-6)
        assert difference(load_file(tmp_path / f"{kind}.safetensors"), made.model.state_dict()) < 1e-6


def main(folder: Path, teacher: str) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with joined() as world:
        for kind in KINDS:
            made = student(teacher, world, kind)
            found = results(made)
            whole = get_model_state_dict(made.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
            if world.main:
                (folder / f"{kind}.json").write_text(json.dumps(found))
                save_file({name: tensor.contiguous() for name, tensor in whole.items()}, folder / f"{kind}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
