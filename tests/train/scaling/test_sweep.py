"""The grid of a sweep by hand and by properties, and whole sweeps of small models: killed, gone on with, read by the fits."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from tests.runs import REPOSITORY
from tests.train.shards import write_variant
from tests.train.small_runs import DENSE, SPARSE, changed, invoke, write_settings
from train import flops, presets
from train.data import TrainingData
from train.run_config import Settings, complete
from train.scaling import rows as fitted
from train.scaling import sweep, sweep_plan, sweep_run
from train.scaling.command import WANTED, Approach

BASE = presets.get("llama-tiny")
BUDGETS = ("4e8", "8e8")
SMALL = changed(DENSE, batch=2)
del SMALL["steps"], SMALL["schedule"], SMALL["optimiser"]


# -- the grid -----------------------------------------------------------------------------------------------------------------


def test_sizes_keep_the_presets_shape():
    for width, layers, heads, d_ff in ((32, 1, 1, 88), (64, 2, 2, 176), (128, 4, 4, 344), (256, 8, 8, 688)):
        config = sweep.size_of(BASE, width).config
        assert (config.d_model, config.n_layers, config.n_heads, config.d_head, config.d_ff) == (width, layers, heads, 32, d_ff)
    assert sweep.size_of(BASE, 128).config == BASE
    assert sweep.default_widths(BASE) == [32, 64, 96, 128, 192, 256]


@pytest.mark.parametrize("preset", ["llama-tiny", "glam-tiny", "switch-tiny", "glam-0.1b-64e"])
def test_counts_are_those_of_the_model_and_sparse_layers_stay_sparse(preset):
    base = presets.get(preset)
    for width in sweep.default_widths(base):
        size = sweep.size_of(base, width)
        counted = flops.parameters(size.config)
        assert (size.params, size.total, size.non_embedding) == (counted.active, counted.total, counted.active - counted.embedding)
        assert (size.config.n_sparse > 0) == (base.moe is not None)
        assert size.experts == (1 if base.moe is None else base.moe.experts)


@pytest.mark.parametrize("preset", sorted(presets.PRESETS))
def test_at_its_own_width_a_preset_is_itself(preset):
    base = presets.get(preset)
    assert sweep.size_of(base, base.d_model).config == base
    assert all(sweep.size_of(base, width).width == width for width in sweep.default_widths(base))


def test_a_width_is_whole_heads():
    with pytest.raises(UserError, match="--width 100: gives no whole number of heads; give multiples of 32"):
        sweep.size_of(BASE, 100)
    assert sweep.size_of(presets.get("gpt3-1.3b"), 1024).config.n_heads == 12  # it has 24 heads of 128 at a width of 2,048


@given(
    st.lists(st.floats(1e9, 1e15), min_size=1, max_size=4),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 100_000),
    st.integers(1, 10**6),
)
def test_a_cell_costs_its_budget_to_half_an_update(budgets, heads, tokens, a_pass):
    sizes = [sweep.size_of(BASE, 32 * one) for one in set(heads)]
    cells = sweep.grid(sizes, budgets, tokens, lambda steps: steps / a_pass)
    assert len(cells) == len(set(budgets)) * len(sizes)
    assert [(cell.flops, cell.size.width) for cell in cells] == sorted((cell.flops, cell.size.width) for cell in cells)
    for cell in cells:
        a_step = 6 * cell.size.params * tokens
        assert cell.steps == 1 or abs(cell.steps * a_step - cell.flops) <= 0.5 * a_step * (1 + 1e-9)
        assert cell.tokens == cell.steps * tokens
        assert (cell.why_not is None) == (cell.steps >= 100 and cell.steps <= 4 * a_pass)


def test_the_rates_are_tried_at_a_widths_smallest_budget_that_is_run():
    sizes = [sweep.size_of(BASE, 32), sweep.size_of(BASE, 128)]
    cells = sweep.grid(sizes, [1e11, 1e12], 1024, lambda steps: 0.0)
    assert [cell.why_not for cell in cells] == [None, "12 updates", None, None]
    assert [sweep.smallest(cells, size).flops for size in sizes] == [1e11, 1e12]


# -- whole sweeps -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"), documents=600)


def words(folder, data, *more, tree=SMALL, budgets=BUDGETS, widths=("8", "16")):
    """The command's, over small models."""
    file = write_settings(folder.with_suffix(".yaml"), tree)
    flops = [word for budget in budgets for word in ("--flops", budget)]
    sizes = [word for width in widths for word in ("--width", width)]
    rates = ["--rate", "0.01", "--rate", "0.03", "--rate", "0.1"]
    return ["train", "scaling", "sweep", str(file), "--run", str(folder), "--data", str(data), *flops, *sizes, *rates, *more]


def rows(folder, name="runs.csv"):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """(folder of a finished sweep, what --json printed)."""
    folder = tmp_path_factory.mktemp("done") / "sweep"
    command = [sys.executable, "-m", "pipelines.cli", *words(folder, data, "--processes", "2", "--json")]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return folder, json.loads(finished.stdout), finished.stderr


def test_the_table_holds_every_cell_at_the_best_rate_of_its_width(done):
    """Held to the runs' own files, and to the logs of their training."""
    folder, told, said = done
    found = rows(folder)
    assert [(row["width"], row["flops"]) for row in found] == [(w, f"{float(c)}") for c in BUDGETS for w in ("8", "16")]
    assert "10 runs, 0 of them done" in said  # six to choose rates
    for width, rate in told["rates"].items():
        at_rates = sorted(folder.glob(f"runs/w{width}-c4e+08-*-s0"), key=lambda run: float(run.name.split("-r")[1].split("-s")[0]))
        losses = [json.loads((run / "scores.json").read_text())["loss"] for run in at_rates]
        best = losses.index(min(losses))
        assert at_rates[best].name == f"w{width}-c4e+08-r{rate:g}-s0"
        assert len(losses) in (3, 4, 5)
        if len(losses) < 5:  # else the search beyond has been given up
            assert best not in (0, len(losses) - 1)
            assert int(width) not in told["at_end"]
    for row in found:
        run = folder / "runs" / row["run"]
        log = [json.loads(line) for line in (run / "train" / "log.jsonl").read_text().splitlines()]
        assert float(row["loss"]) == log[-1]["loss"] == json.loads((run / "scores.json").read_text())["loss"]
        steps = [line for line in log if line["event"] == "step"]
        assert int(row["tokens"]) == steps[-1]["tokens"]  # a sequence at a shard's end is shorter
        assert 0.99 < steps[-1]["tokens"] / (48 * len(steps)) <= 1
        assert abs(6 * int(row["params"]) * int(row["tokens"]) / float(row["flops"]) - 1) < 0.01
        assert not (run / "train" / "checkpoints").exists()
    assert told["complete"]
    assert [{name: str(value) for name, value in row.items()} for row in told["rows"]] == found
    assert told["without_loss"] == []


def test_curves_are_the_training_losses_on_the_way(done):
    folder, _, _ = done
    curves = rows(folder, "curves.csv")
    for row in rows(folder):
        mine = [one for one in curves if one["run"] == row["run"]]
        assert len(mine) == 100
        assert int(mine[-1]["tokens"]) == int(row["tokens"])
        assert [float(one["flops"]) for one in mine] == [6.0 * int(row["params"]) * int(one["tokens"]) for one in mine]


def test_the_fits_read_the_tables(done):
    """By the columns that each approach asks for, under their own names; a width's rows differ by their budget."""
    folder, _, _ = done
    for name, approach in (("runs.csv", "2"), ("runs.csv", "3"), ("runs.csv", "routed"), ("curves.csv", "1")):
        read = fitted.read(str(folder / name), WANTED[Approach(approach)], {}, {})
        assert len(read) == (4 if name == "runs.csv" else 400)
        assert len(set(read["params"])) == 2


def test_a_sweep_that_is_killed_and_goes_on_gives_the_same_tables(done, data, tmp_path):
    """kill -9 to the sweep, while its third run of those that try rates goes on. A width's lines do not hang on other widths."""
    folder = tmp_path / "sweep"
    command = [sys.executable, "-m", "pipelines.cli", *words(folder, data, "--processes", "1", widths=["16"])]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(folder.glob("runs/*/scores.json"))) < 2 or not _goes_on_from_a_checkpoint(folder):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()  # its run goes on to the end of the step that it is in: the next sweep waits for it
    assert not (folder / "runs.csv").exists()
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-2000:]
    for name in ("runs.csv", "curves.csv"):
        header, *lines = (done[0] / name).read_bytes().splitlines()
        assert (folder / name).read_bytes().splitlines() == [header, *(line for line in lines if line.startswith(b"w16-"))]


def _goes_on_from_a_checkpoint(folder):
    saved = folder.glob("runs/*/train/checkpoints/step-*")
    return any(one.name != "step-00000000" and not (one.parents[2] / "scores.json").exists() for one in saved)


def test_more_budgets_add_to_what_is_there_and_other_settings_do_not(done, data, monkeypatch, capsys):
    folder, _, _ = done
    assert invoke(monkeypatch, *words(folder, data, "--plan", budgets=(*BUDGETS, "1.2e9"))) == 0
    done_runs = len(list((folder / "runs").iterdir()))
    assert f"{done_runs + 2} runs, {done_runs} of them done" in capsys.readouterr().out
    assert invoke(monkeypatch, *words(folder, data, "--plan", budgets=("4.000001e8", "8e8"))) == 0  # another one, though by a hair
    assert re.search(r"10 runs, [0-2] of them done", capsys.readouterr().out)  # the rates are tried anew, for both widths
    assert invoke(monkeypatch, *words(folder, data, "--plan", "--seeds", "2", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == done_runs + 4
    assert invoke(monkeypatch, *words(folder, data, tree=changed(SMALL, batch=4))) == 2
    error = capsys.readouterr().err
    assert f"{folder}: another sweep is here: batch: 2 there, 4 now; take its settings, or another folder" in error
    other = write_variant(folder.parent / "other", documents=500)
    assert invoke(monkeypatch, *words(folder, other)) == 2
    assert "other shards, or another tokenizer" in capsys.readouterr().err
    assert invoke(monkeypatch, *words(folder, data, "--set", "validation.sequences=4")) == 2
    assert "validation.sequences: 6 there, 4 now" in capsys.readouterr().err


def test_a_budget_of_time_leaves_a_smaller_sweep(data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    assert invoke(monkeypatch, *words(folder, data, "--budget", "0.1s")) == 0
    assert "the budget ended before all was run; the same command goes on" in capsys.readouterr().err
    assert rows(folder) == []  # no width has its rate
    asked = words(folder, data, "--budget", "0.1s")
    assert invoke(monkeypatch, *asked[: asked.index("--rate") + 2], "--budget", "0.1s") == 0  # one rate: none is to be chosen
    printed = capsys.readouterr()
    assert "the budget ended before all was run; the same command goes on" in printed.err
    assert (folder / "runs.csv").read_text().count("\n") <= 1 + 1


# -- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--width", "12"], "--width 12: gives no whole number of heads; give multiples of 8"),
        (["--flops", "-1"], "--flops -1: must be a number above 0"),
        (["--rate", "0"], "--rate 0: must be a number above 0"),
        (["--budget", "soon"], "--budget soon: give a time such as 90s, 45m or 3h"),
        (["--set", "teacher.checkpoint=x"], "a sweep has no teacher of its own; leave it out"),
        (["--set", "seed=7"], "a sweep has no seed of its own; leave it out"),
        (["--set", "steps=9"], "a sweep has no steps of its own; leave it out"),
        (["--set", "data.epochs=9"], "a sweep has no data.epochs of its own; leave it out"),
        (["--set", "schedule.warmup=9"], "a sweep has no schedule.warmup of its own; leave it out"),
        (["--set", "optimizer.peak=1"], "unknown key optimizer; did you mean 'optimiser'?"),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_line(data, tmp_path, monkeypatch, capsys, more, said):
    folder = tmp_path / "sweep"
    assert invoke(monkeypatch, *words(folder, data, *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not folder.exists()


def test_budgets_of_which_nothing_is_left(data, tmp_path, monkeypatch, capsys):
    assert invoke(monkeypatch, *words(tmp_path / "sweep", data, budgets=("1e6", "1e15"))) == 2
    error = capsys.readouterr().err
    assert "no width is left (8: " in error
    assert "a run needs 100 updates and at most 4 passes" in error
    assert invoke(monkeypatch, *words(tmp_path / "sweep", data, budgets=("nan",))) == 2
    assert "must be a number above 0" in capsys.readouterr().err


def test_shards_without_validation_and_folders_of_other_things_are_refused(data, tmp_path):
    blend = json.loads((data / "blend.json").read_text())
    alone = data / "train-only.json"
    alone.write_text(json.dumps({"train": blend["train"]}))
    given = Settings.of(changed(SMALL, data__path=str(alone), data__vocab_size=257), "test")
    with pytest.raises(UserError, match=r"no validation shard to measure losses on; set tokens\.validation in the recipe"):
        sweep_run.prepare(given, "test", tmp_path / "sweep", [4e8], [8], [0.01], 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    given = Settings.of(changed(SMALL, data__path=str(data)), "test")
    with pytest.raises(UserError, match="holds something else than a sweep; give a folder of its own"):
        sweep_run.prepare(given, "test", tmp_path / "full", [4e8], [8], [0.01], 1)
    (tmp_path / "full" / "thesis.txt").rename(tmp_path / "full" / ".sweep.yaml.tmp")  # what a kill leaves is nothing of others
    sweep_run.prepare(given, "test", tmp_path / "full", [4e8], [8], [0.01], 1)


def test_passes_are_those_of_the_shard_that_is_gone_through_most_often(data, tmp_path):
    """A small source of much weight: held to the check of the training run, which counts them place by place."""
    blend = json.loads((data / "blend.json").read_text())
    for shard in blend["train"]:
        shard["weight"] = 0.9 if "wiki" in shard["prefix"] else 0.05
    heavy = data / "heavy.json"
    heavy.write_text(json.dumps(blend))
    given = Settings.of(changed(SMALL, data__path=str(heavy), data__vocab_size=257), "test")
    asked = sweep_run.prepare(given, "test", tmp_path / "sweep", [1e8, 3e8, 1e9, 4e9], [8], [0.01], 1)
    order = TrainingData.of(asked.corpus, 1, 24)
    for cell in asked.cells:
        assert cell.passes == max(order.passes(2 * cell.steps))
    assert [cell.why_not for cell in asked.cells] == ["73 updates", None, "8.7 passes", "34.7 passes"]
    told = asked.run_of(asked.live[0], 0.01, 1).task.told["settings"]
    order.check_passes(2 * told["steps"], told["data"]["epochs"])


def test_presets_that_learn_by_adafactor_get_a_cosine_too(data, tmp_path):
    given = Settings.of({"preset": "glam-0.1b", "batch": 1, "context": 24, "data": {"path": str(data)}}, "test")
    asked = sweep_run.prepare(given, "test", tmp_path / "sweep", [1e10], [64], [0.01], 1)
    told = Settings.of(asked.run_of(asked.cells[0], 0.01, 1).task.told["settings"], "test")
    completed = complete(told, "test", asked.corpus.vocabulary.size)
    assert (completed.optimiser.kind, completed.schedule.kind) == ("adafactor", "cosine")
    assert completed.schedule.warmup == asked.cells[0].steps // 10


def test_a_rate_at_which_a_model_does_not_learn_is_not_chosen(data, tmp_path, monkeypatch):
    """Gradients overflow at once: the run is kept as one without a loss. Where all rates are such, it is said."""
    tree = changed(SPARSE, batch=2, data__path=str(data))
    for key in ("steps", "schedule", "optimiser"):
        del tree[key]
    monkeypatch.setattr(sweep, "LEAST_STEPS", 10)
    given = Settings.of(tree, "test")
    asked = sweep_run.prepare(given, "test", tmp_path / "sweep", [4e7], [16], [0.01, 1e30], 1)
    assert sweep_run.run(asked, 2, None, lambda line: None)
    assert sweep_plan.result(asked)["without_loss"] == []  # of those that are measured
    tried, rates = sweep_run.tuning(asked)
    assert {one.rate for one in tried} >= {0.005, 0.01, 1e30}  # it was the lowest one that learned
    assert rates[16] < 0.02
    (row,) = rows(tmp_path / "sweep")
    assert (float(row["rate"]), row["experts"]) == (rates[16], "4")
    assert int(row["total"]) > int(row["params"])
    asked = sweep_run.prepare(given, "test", tmp_path / "sweep", [4e7], [16], [1e30, 2e30], 1)
    with pytest.raises(UserError, match="--width 16: gradients were not finite at any rate; give lower ones with --rate"):
        sweep_run.run(asked, 2, None, lambda line: None)
