"""`winnow train run` as a user meets it: on shards of a real build, on bad input, in words and in JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from pipelines import bpe_file
from pipelines.errors import UserError
from tests.train import models, small_runs
from tests.train.shards import write_megatron, write_shard, write_variant
from tests.train.small_runs import DENSE, arguments, changed, invoke
from train import flops, presets, report, weights
from train.model import build
from train.run_file import SETTINGS

TINY = [
    "--set", "steps=20", "--set", "batch=16", "--set", "context=32", "--set", "model.d_model=64", "--set", "model.n_layers=2",
    "--set", "model.d_head=16", "--set", "model.d_ff=128", "--set", "model.moe.d_ff=64", "--set", "validation.every=10",
]  # fmt: skip


def test_a_small_model_learns_from_the_shards_of_a_build(built, tmp_path, monkeypatch, capsys):
    """About 100,000 parameters, 20 steps. The loss of an untrained model is the logarithm of the vocabulary."""
    run = tmp_path / "run"
    words = ["train", "run", "glam-tiny", "--run", str(run), "--data", str(built / "tokens" / "filtered"), *TINY, "--json"]
    assert invoke(monkeypatch, *words) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert (summary["steps"], summary["skipped"], summary["rollbacks"]) == (20, 0, 0)
    assert set(summary["validation"]["sources"]) == {"web", "wiki"}
    settings = yaml.safe_load((run / SETTINGS).read_text())
    vocabulary = settings["model"]["vocab_size"]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in printed.err.splitlines()] == lines
    started, *others = lines
    assert 90_000 < started["parameters"] < 200_000
    assert started["tensorboard"] == "not installed" or (run / "tensorboard").is_dir()
    stepped = [line for line in others if line["event"] == "step"]
    assert [line["step"] for line in stepped] == list(range(1, 21))
    assert stepped[0]["loss"] == pytest.approx(math.log(vocabulary), rel=0.05)
    assert stepped[-1]["loss"] < stepped[0]["loss"] - 0.5
    assert summary["validation"]["loss"] < stepped[0]["loss"] - 0.4
    for line in stepped:
        assert line["tokens_per_second"] == pytest.approx(line_tokens(stepped, line) / line["seconds"])
        wanted = line["tokens_per_second"] * started["flops_per_token"] / started["peak_flops_per_second"]
        assert line["utilisation"] == pytest.approx(wanted)
        assert len(line["expert_load"][0]) == 8
        assert line["peak_memory_bytes"] > 4 * 4 * started["parameters"]  # weights, gradients, two moments
        energy = line["energy"]
        assert energy["measured"] or (energy["watts"] > 0 and energy["pue"] == 1.1 and energy["basis"].startswith("estimate"))
    config = presets.get("glam-tiny", vocabulary, 32)
    assert started["flops_per_token"] != flops.matmul_training(config, 32)  # the overrides hold
    assert [line["step"] for line in others if line["event"] == "validation"] == [10, 20]
    assert Path(summary["checkpoint"]).name == "step-00000020"


def line_tokens(stepped, line):
    before = stepped[line["step"] - 2]["tokens"] if line["step"] > 1 else 0
    return line["tokens"] - before


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_people_at_a_terminal_get_a_line_a_step(tmp_path):
    """Every kind of line of a real run's log, and the summary."""
    data = write_variant(tmp_path / "data")
    folder = tmp_path / "run"
    from train import run as runs
    from train.run_config import Settings

    terminal = Terminal()
    tree = changed(small_runs.SPARSE, data__path=str(data))
    summary = runs.train(Settings.of(tree, "test"), "test", folder, report.teller(terminal))
    printed = terminal.getvalue().splitlines()
    assert len(printed) == len(small_runs.log(folder))
    assert printed[0].startswith("begins: ")
    assert "TensorBoard" in printed[0]
    assert printed[1].startswith("step 1  loss ")
    assert "utilisation" in printed[1]
    first = small_runs.log(folder)[1]
    fullest = max(share for layer in first["expert_load"] for share in layer)
    entropy = sum(first["router_entropy"]) / 2
    dropped = sum(first["dropped_share"]) / 2
    assert f"  entropy {entropy:.2f}  fullest expert {100 * fullest:.0f} %  dropped {100 * dropped:.1f} %" in printed[1]
    assert "Wh estimated at" in printed[1] or "Wh measured" in printed[1]
    assert printed[-1].startswith("step 12  validation ")
    assert "at capacity of evaluation" in printed[-1]
    text = report.summary_text(summary).splitlines()
    assert text[0].startswith("12 steps, ")
    assert text[-1] == f"checkpoint: {folder}/checkpoints/step-00000012"
    assert [line.split(":")[0].strip() for line in text[2:-1]] == ["web", "wiki"]
    begins = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert "not run on a GPU yet" not in printed[0]
    assert "1 x cuda (not run on a GPU yet: " in report.to_text({**begins, "device": "cuda"})
    rollback = {"event": "rollback", "step": 5, "from_step": 9, "batches_left_out": [5, 8]}
    assert report.to_text({"event": "stopped", "step": 9}) == "step 9  stopped as asked"
    assert report.to_text(rollback) == "step 9  back to step 5; batches 5 to 8 are left out"


def test_a_folder_may_be_called_by_a_number(tmp_path, monkeypatch, capsys):
    write_variant(tmp_path / "data").rename(tmp_path / "2024")
    monkeypatch.chdir(tmp_path)
    assert invoke(monkeypatch, "train", "run", "llama-tiny", "--run", "run", "--data", "2024") == 2
    assert "2024: no tokenizer lies beside the shards" in capsys.readouterr().err


def test_a_shard_of_another_tool_trains_without_validation(tmp_path, monkeypatch, capsys):
    write_megatron(tmp_path / "text_document", [list(range(40))] * 30, list(range(31)), "<i4", 4)
    words = arguments(changed(DENSE, data__vocab_size=40), tmp_path / "run", tmp_path / "text_document")
    assert invoke(monkeypatch, *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["validation"] == {}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def emptied(folder):
    blend = json.loads((folder / "blend.json").read_text())
    (folder / "blend.json").write_text(json.dumps({**blend, "train": []}))


def other_vocabulary(folder):
    tokens = write_shard(folder / "train/wiki-00000-of-00001", [[1, 300, 2]] * 40, 256)
    blend = json.loads((folder / "blend.json").read_text())
    blend["train"][2]["tokens"] = tokens
    (folder / "blend.json").write_text(json.dumps(blend))


def one_pass(folder):
    blend = json.loads((folder / "blend.json").read_text())
    for entry in blend["train"]:
        entry["epochs"] = 0.25
    (folder / "blend.json").write_text(json.dumps(blend))


BAD = {
    "a truncated .bin": (lambda folder: cut(folder / "train/web-00000-of-00002.bin"), {}, "00002.bin: ", "the file is cut short"),
    "an index that lies": (lambda folder: cut(folder / "train/web-00000-of-00002.idx"), {}, "00002.idx: ", "cut short or damaged"),
    "an empty variant": (emptied, {}, "tokens/filtered: ", "the variant is empty"),
    "another vocabulary": (other_vocabulary, {}, "wiki-00000-of-00001.bin: id 300 in document", "another vocabulary"),
    "no data": (lambda folder: cut(folder / "blend.json"), {}, "blend.json: not JSON", "build the variant again"),
    "too many passes": (one_pass, {}, "times, 0.25 allowed", "or set data.epochs="),
    "an unknown key": (lambda folder: None, {"setps": 3}, "unknown key setps", "did you mean 'steps'?"),
    "a width for bf16": (
        lambda folder: None,
        {"precision": "bf16", "model": {**small_runs.SPARSE["model"], "moe": {**small_runs.MOE, "d_ff": 20}}},
        "width 20: grouped multiplication in bfloat16 needs multiples of 8",
        "choose 24, or dispatch: padded",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, fault):
    folder = write_variant(tmp_path / "data")
    break_it, change, says, way_out = BAD[fault]
    break_it(folder)
    assert invoke(monkeypatch, *arguments({**DENSE, **change}, tmp_path / "run", folder)) == 2
    told = capsys.readouterr().err
    assert told.startswith("winnow: ")
    assert told.count("\n") == 1
    assert says in told
    assert way_out in told


def test_without_data_or_with_an_unknown_preset(tmp_path, monkeypatch, capsys):
    assert invoke(monkeypatch, "train", "run", "llama-tiny", "--run", str(tmp_path / "run")) == 2
    assert "data.path is missing" in capsys.readouterr().err
    assert invoke(monkeypatch, "train", "run", "lama-tiny", "--run", str(tmp_path / "run")) == 2
    assert "no such preset; did you mean llama-tiny?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_trained_llama_is_sampled_exported_read_by_transformers_and_read_back(built, tmp_path, monkeypatch, capsys):
    """The whole way out by the command: the same greedy tokens from our cache and from transformers' generate."""
    transformers = pytest.importorskip("transformers")
    import torch

    data, run = str(built / "tokens" / "filtered"), tmp_path / "run"
    words = [word for setting in TINY[1::2] if "moe" not in setting for word in ("--set", setting)]
    assert invoke(monkeypatch, "train", "run", "llama-tiny", "--run", str(run), "--data", data, *words, "--json") == 0
    checkpoint = json.loads(capsys.readouterr().out)["checkpoint"]
    asked = ("--prompt", "The river", "--temperature", "0", "--max-tokens", "8", "--json")
    assert invoke(monkeypatch, "train", "sample", checkpoint, *asked) == 0
    (sampled,) = json.loads(capsys.readouterr().out)
    assert invoke(monkeypatch, "train", "export", checkpoint, str(tmp_path / "llama")) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/llama: ")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")
    prompt = tokenizer("The river", return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        drawn = model.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :].tolist()
    assert drawn[: len(sampled["ids"])] == sampled["ids"]
    assert invoke(monkeypatch, "train", "import", str(tmp_path / "llama"), str(tmp_path / "back")) == 0
    weights = [(Path(folder) / "model.safetensors").read_bytes() for folder in (checkpoint, tmp_path / "back")]
    assert weights[0] == weights[1]


def test_a_mixture_of_experts_has_no_counterpart_there(built, tmp_path, monkeypatch, capsys):
    run, data = tmp_path / "run", str(built / "tokens" / "filtered")
    small = [word if word != "steps=20" else "steps=1" for word in TINY]
    assert invoke(monkeypatch, "train", "run", "glam-tiny", "--run", str(run), "--data", data, *small, "--json") == 0
    checkpoint = json.loads(capsys.readouterr().out)["checkpoint"]
    assert invoke(monkeypatch, "train", "export", checkpoint, str(tmp_path / "llama")) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "experts" in told
    assert not (tmp_path / "llama").exists()


def test_a_checkpoint_is_evaluated_by_domain_and_asked_questions(built, tmp_path, monkeypatch, capsys):
    run, data = tmp_path / "run", str(built / "tokens" / "filtered")
    small = [word if word != "steps=20" else "steps=1" for word in TINY]
    assert invoke(monkeypatch, "train", "run", "glam-tiny", "--run", str(run), "--data", data, *small, "--json") == 0
    checkpoint = json.loads(capsys.readouterr().out)["checkpoint"]
    texts = ["A river rises in the mountains.", "Über"]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = ["train", "evaluate", checkpoint, str(tmp_path / "own.jsonl"), "--data", data]
    assert invoke(monkeypatch, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["domains"]) == {"own.jsonl", "web", "wiki"} or set(found["domains"]) == {"own", "web", "wiki"}
    own = [row for row in found["documents"] if row["domain"].startswith("own")]
    assert [row["bytes"] for row in own] == [len(text.encode()) for text in texts]
    assert invoke(monkeypatch, *words) == 0
    assert "bits per byte over 2 documents, 36 bytes" in capsys.readouterr().out
    assert invoke(monkeypatch, "train", "evaluate", checkpoint) == 2
    assert "nothing to evaluate" in capsys.readouterr().err
    item = {"query": "The river rises in the", "choices": ["mountains", "sea"], "gold": 0}
    (tmp_path / "copa.jsonl").write_text(json.dumps(item) + "\n")
    assert invoke(monkeypatch, "train", "tasks", checkpoint, str(tmp_path), "--task", "copa") == 0
    assert capsys.readouterr().out.startswith("copa: accuracy ")


COMMANDS = {
    "sample": [],
    "evaluate": ["documents.jsonl"],
    "tasks": ["tasks"],
    "lm-eval": ["--task", "x", "--include", "tasks"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_gpu_that_is_not_there_is_one_line(command, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert invoke(monkeypatch, "train", command, "checkpoint", *COMMANDS[command], "--device", "cuda") == 2
    told = "winnow: --device cuda: torch finds no GPU on this machine; take cpu, or leave it out\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("there", "asked", "wanted"), [(True, "auto", "cuda"), (False, "auto", "cpu"), (True, "cpu", "cpu")])
@pytest.mark.parametrize("command", ["sample", "evaluate", "tasks"])
def test_models_are_loaded_where_they_are_to_run(command, there, asked, wanted, tmp_path, monkeypatch):
    """There is no GPU here: what the commands ask for is looked at, and nothing more."""
    config = dataclasses.replace(models.DENSE, vocab_size=257)
    weights.write_checkpoint(str(tmp_path / "made"), config, build(config, 0).state_dict(), bpe_file.save(bpe_file.bytes_only()))
    loaded = []

    def load(folder, device):
        loaded.append(device)
        raise UserError("enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(weights, "load_model", load)
    assert invoke(monkeypatch, "train", command, str(tmp_path / "made"), *COMMANDS[command], "--device", asked) == 2
    assert loaded == [wanted]
