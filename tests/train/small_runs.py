"""Small training runs: settings, trainers in this process, the command in this process and in fresh ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipelines import cli
from tests.runs import REPOSITORY
from train import run_config
from train.corpus import Corpus, open_corpus
from train.loop import Trainer
from train.parallel import ALONE
from train.run_config import Settings

DENSE: dict[str, Any] = {
    "model": {"context": 24, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_head": 8, "d_ff": 24, "ffn": "swiglu"},
    "steps": 12,
    "batch": 8,
    "precision": "fp32",
    "optimiser": {"peak": 0.01},
    "schedule": {"warmup": 2},
    "validation": {"every": 6, "sequences": 6},
    "saving": {"every": 5, "keep": 2},
}
MOE: dict[str, Any] = {
    "experts": 4, "top_k": 2, "d_ff": 24, "ffn": "gelu", "every": 1, "renormalise": True, "capacity_train": 2.0, "min_capacity": 1,
    "group": 2, "jitter": 0.05, "expert_dropout": 0.1, "z_coefficient": 0.001,
}  # fmt: skip
SPARSE: dict[str, Any] = {**DENSE, "model": {**DENSE["model"], "moe": MOE}}


def changed(tree: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The tree with values under dotted names (with __ for dots) replaced."""
    made = json.loads(json.dumps(tree))
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = made
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return made


def settings(tree: dict[str, Any], corpus: Corpus) -> Settings:
    return run_config.complete(Settings.of(tree, "test"), "test", corpus.vocabulary.size)


def trainer(tree: dict[str, Any], folder: Path) -> Trainer:
    """A trainer of this process on a variant's folder."""
    corpus = open_corpus(str(folder))
    return Trainer(settings(tree, corpus), corpus, ALONE)


def write_settings(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


def arguments(tree: dict[str, Any], folder: Path, data: Path) -> list[str]:
    """`train run` of these settings; their file lies beside the run's folder."""
    file = write_settings(folder.with_suffix(".yaml"), tree)
    return ["train", "run", str(file), "--run", str(folder), "--data", str(data)]


def invoke(monkeypatch, *words: str) -> int:
    """`winnow` in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["winnow", *words])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def start(words: list[str], processes: int = 1, module: str = "pipelines.cli") -> subprocess.Popen[str]:
    """`winnow`, or another module, in a fresh process, or in several by torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "--"]
    launcher = ["-m"] if processes == 1 else torchrun
    return subprocess.Popen(
        [sys.executable, *launcher, module, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_two(module: str, *words: str) -> None:
    """Runs a module in two processes by torchrun, to its end."""
    started = start(list(words), 2, module)
    _, errors = started.communicate(timeout=200)
    assert started.returncode == 0, errors[-3000:]


TIMES = ("seconds", "tokens_per_second", "utilisation", "energy", "peak_flops_per_second", "peak_memory_bytes")


def log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def steps(folder: Path) -> list[dict[str, Any]]:
    """Its steps and validations, which must not tell that a run was interrupted."""
    return [line for line in log(folder) if line["event"] in ("step", "validation")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a run's last checkpoint."""
    return load_file(max((folder / "checkpoints").glob("step-*")) / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """To the bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The norm of the difference by the norm, of all weights together."""
    assert left.keys() == right.keys()
    apart = sum(float((left[name].double() - right[name].double()).square().sum()) for name in left)
    return (apart / sum(float(one.double().square().sum()) for one in left.values())) ** 0.5
