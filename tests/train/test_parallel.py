"""Two gloo processes started by torchrun against one: losses, norms, weights to 1e-6 in float32; runs that change their number."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.errors import UserError
from tests.train import parallel_worker, small_runs
from tests.train.parallel_worker import LONG
from tests.train.shards import write_variant
from tests.train.small_runs import SPARSE, arguments, changed, difference, same, start, steps, trainer, weights
from train import run as runs
from train.corpus import open_corpus
from train.model import build
from train.parallel import ALONE, World
from train.run_config import Settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"))


def run_here(tree, data, folder, tell=lambda line: None):
    return runs.train(Settings.of(changed(tree, data__path=str(data)), "test"), "test", folder, tell)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_here(LONG, data, folder)
    return folder


@pytest.fixture(scope="module")
def two(data, tmp_path_factory):
    """The folder of what two processes computed, one run of it begun by one."""
    folder = tmp_path_factory.mktemp("two")

    def stop(line):
        if line.get("step") == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(runs.Stopped):
        run_here(LONG, data, folder / "resumed-ddp", stop)
    shutil.copytree(folder / "resumed-ddp", folder / "resumed-fsdp")
    small_runs.finish_two("tests.train.parallel_worker", str(folder), str(data))
    return folder


@pytest.mark.parametrize("name", parallel_worker.CASES)
def test_two_processes_are_one(data, two, name):
    """Reference: one process, the whole batch at once. In bf16, to 2e-2: sums of another order move tokens to other experts."""
    tolerance = 2e-2 if "bf16" in name else 1e-6
    same_steps = 1 if "bf16" in name else parallel_worker.STEPS
    made = trainer(parallel_worker.reference(name), data)
    wanted = parallel_worker.results(made)
    got = json.loads((two / name).with_suffix(".json").read_text())
    assert got["losses"] == pytest.approx(wanted["losses"], rel=tolerance)
    assert got["norms"][:same_steps] == pytest.approx(wanted["norms"][:same_steps], rel=tolerance)
    assert got["validation"] == pytest.approx(wanted["validation"], rel=tolerance)
    stored = load_file((two / name).with_suffix(".safetensors"))
    assert difference(stored, made.model.state_dict()) < tolerance
    if wanted["load"] is not None and "bf16" not in name:
        for row, other in zip(got["load"], wanted["load"], strict=True):
            assert row == other


@pytest.mark.parametrize("name", ["ddp", "fsdp", "fsdp-tied", "experts"])
def test_initial_weights_do_not_depend_on_the_processes(data, two, name):
    """Reference: train.model.build, a whole model in one process; to the bit."""
    settings = small_runs.settings(parallel_worker.CASES[name], open_corpus(str(data)))
    whole = build(settings.model_config_of_run(), settings.seed)
    assert same(load_file(two / f"initial-{name}.safetensors"), whole.state_dict())


@pytest.mark.parametrize("name", parallel_worker.RESUMED)
def test_two_processes_go_on_to_the_bit(two, name):
    """Reference: the same two processes without a checkpoint in between."""
    wanted, got = (json.loads((two / one).with_suffix(".json").read_text()) for one in (name, f"again-{name}"))
    assert got["losses"] == wanted["losses"][1:]


def test_under_bf16_routers_norms_and_angles_stay_in_float32(two):
    dtypes = json.loads((two / "fsdp-bf16.json").read_text())["dtypes"]
    low = {"experts": "bfloat16", "attention": "bfloat16"}
    assert dtypes == {**low, "router": "float32", "norm": "float32", "angles": "float32"}


def test_all_processes_skip_what_one_of_them_cannot_take(data, two):
    assert json.loads((two / "poisoned.json").read_text())["skipped"] == [0, 2, 0]


def near(folder, alone):
    assert [line["loss"] for line in steps(folder)] == pytest.approx([line["loss"] for line in steps(alone)], rel=1e-5)
    assert [line["step"] for line in steps(folder)] == [line["step"] for line in steps(alone)]
    assert difference(weights(folder), weights(alone)) < 1e-4  # Adam lets rounding grow


def test_two_processes_are_stopped_and_one_goes_on(data, alone, tmp_path):
    """SIGTERM to torchrun reaches both; what they wrote is read by one. torchrun tells of exit code 75 and ends with 1."""
    folder = tmp_path / "run"
    process = start(arguments(changed(LONG, parallel="fsdp"), folder, data), processes=2)
    for line in process.stdout:
        if json.loads(line).get("step", 0) >= 2:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=120)
    last = max((folder / "checkpoints").iterdir()).name
    assert 2 <= int(last.removeprefix("step-")) < 24
    assert len(list((folder / "checkpoints" / last / "optimiser").glob("*.distcp"))) == 2
    run_here(LONG, data, folder)
    near(folder, alone)
    assert same(weights(folder), weights(alone))


def test_two_processes_are_killed_and_one_goes_on(data, alone, tmp_path):
    """SIGKILL to torchrun and both processes that it started, steps after a checkpoint: one goes on from there, to the bit."""
    folder = tmp_path / "run"
    process = start(arguments(changed(LONG, parallel="fsdp", saving__every=4), folder, data), processes=2)
    for line in process.stdout:
        if json.loads(line).get("step", 0) >= 6:
            break
    workers = [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(workers) == 2
    for number in (process.pid, *workers):
        os.kill(number, signal.SIGKILL)
    process.communicate(timeout=120)
    last = int(max((folder / "checkpoints").glob("step-*")).name.removeprefix("step-"))
    assert last in range(4, 24, 4)
    run_here(LONG, data, folder)
    resumed = [line for line in small_runs.log(folder) if line["event"] == "resume"]
    assert [(line["step"], line["processes"]) for line in resumed] == [(last, 1)]
    near(folder, alone)
    assert same(weights(folder), weights(alone))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_process_is_stopped_and_two_go_on(two, alone, kind):
    """Where two processes compute the same micro-batches as one did, gradients are added up in the same order: to the bit."""
    folder = two / f"resumed-{kind}"
    near(folder, alone)
    assert same(weights(folder), weights(alone))
    assert steps(folder) == steps(alone)
    resumed = [line for line in small_runs.log(folder) if line["event"] == "resume"]
    assert [(line["step"], line["processes"]) for line in resumed] == [(10, 2)]


def test_a_batch_that_cannot_be_split_is_refused(data, tmp_path, monkeypatch):
    import contextlib

    monkeypatch.setattr(runs, "joined", lambda: contextlib.nullcontext(World(0, 3, torch.device("cpu"))))
    monkeypatch.setattr(World, "barrier", lambda self: None)
    with pytest.raises(UserError, match="batch 8 cannot be split over 3 processes in groups of 2; change either"):
        run_here(SPARSE, data, tmp_path / "run")


def test_one_process_alone_adds_nothing():
    x = torch.tensor([1.5, 2.0])
    assert ALONE.total(x) is x
    assert ALONE.gather(x) == [x]
    assert ALONE.main
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
