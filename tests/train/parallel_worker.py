"""What two processes do for test_parallel.py, which starts this by torchrun: every case trains, the main process writes results;
then they go on with the runs that one process left in FOLDER/resumed-ddp and FOLDER/resumed-fsdp.

    torchrun --nproc-per-node 2 -m tests.train.parallel_worker FOLDER DATA
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from tests.train import small_runs
from tests.train.small_runs import SPARSE, changed
from train import run as runs
from train.corpus import open_corpus
from train.data import validation_sequences
from train.loop import Trainer
from train.parallel import World, joined
from train.run_config import Settings
from train.validation import validate

STEPS = 3
RESUMED = ("fsdp", "fsdp-adafactor", "experts", "experts-adafactor")
LONG = changed(SPARSE, steps=24, saving__every=50, validation__every=12, micro_batch=4)  # of two processes each has one
CASES = {
    "ddp": changed(SPARSE, parallel="ddp"),
    "ddp-micro": changed(SPARSE, parallel="ddp", micro_batch=2),
    "ddp-checkpointing": changed(SPARSE, parallel="ddp", checkpointing="full"),
    "ddp-adafactor": changed(SPARSE, parallel="ddp", optimiser__kind="adafactor"),
    "fsdp": changed(SPARSE, parallel="fsdp"),
    "fsdp-micro": changed(SPARSE, parallel="fsdp", micro_batch=2),
    "fsdp-checkpointing": changed(SPARSE, parallel="fsdp", checkpointing="selective"),
    "fsdp-adafactor": changed(SPARSE, parallel="fsdp", optimiser__kind="adafactor"),
    "fsdp-bf16": changed(SPARSE, parallel="fsdp", precision="bf16"),
    "experts": changed(SPARSE, parallel="experts"),
    "experts-micro": changed(SPARSE, parallel="experts", micro_batch=2),
    "experts-checkpointing": changed(SPARSE, parallel="experts", checkpointing="full"),
    "experts-adafactor": changed(SPARSE, parallel="experts", optimiser__kind="adafactor"),
    "experts-top-1": changed(SPARSE, parallel="experts", model__moe__top_k=1, model__moe__capacity_train=0.5),
    "experts-bf16": changed(SPARSE, parallel="experts", precision="bf16"),
    "fsdp-tied": changed(small_runs.DENSE, parallel="fsdp", model__tied_embeddings=True, model__ffn="geglu"),
}


def reference(name: str) -> dict:
    """The case's settings for one process that computes its whole batch at once."""
    return changed(CASES[name], micro_batch=None, checkpointing="none")


def results(made: Trainer) -> dict:
    """Losses and norms of a few steps, then validation losses."""
    facts = [made.step() for _ in range(STEPS)]
    sources = validation_sequences(made.data.corpus, made.data.context, 5)
    return {
        "losses": [one.tally.loss for one in facts],
        "norms": [one.norm for one in facts],
        "load": facts[-1].tally.routing(made.config, made.groups).get("expert_load"),
        "validation": validate(made, sources)["loss"],
    }


def _dtypes(made: Trainer) -> dict[str, str]:
    """Types of gathered parameters while they are used, and of rotary angles."""
    seen: dict[str, str] = {}
    block = made.model.blocks[0]

    def look(name, get):
        return lambda module, *_: seen.update({name: str(get(module).dtype).removeprefix("torch.")})

    block.ffn.experts.register_forward_pre_hook(look("experts", lambda module: module.w_in_EFD))
    block.attention.register_forward_pre_hook(look("attention", lambda module: module.qkv.weight))
    block.ffn.register_forward_pre_hook(look("router", lambda module: module.router_ED))
    block.ffn_norm.register_forward_pre_hook(look("norm", lambda module: module.weight))
    block.attention.register_forward_pre_hook(lambda _, inputs: seen.update(angles=str(inputs[1].rotation[0].dtype)[6:]))
    return seen


def main(folder: Path, data: str) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with joined() as world:
        corpus = open_corpus(data)
        for name, tree in CASES.items():
            made = Trainer(small_runs.settings(tree, corpus), corpus, world)
            _write(folder / f"initial-{name}", made, world, {})
            seen = _dtypes(made) if name == "fsdp-bf16" else {}
            found = {**results(made), "dtypes": seen}
            _write(folder / name, made, world, found)
        for name in RESUMED:
            found = {"losses": _resumed(small_runs.settings(CASES[name], corpus), corpus, world, folder / f"saved-{name}")}
            _write(folder / f"again-{name}", made, world, found)
        _write(folder / "poisoned", *_poisoned(corpus, world))
        runs.joined = lambda: contextlib.nullcontext(world)  # a process joins its world once
        for kind in ("ddp", "fsdp"):
            resumed = Settings.of(changed(LONG, parallel=kind, data__path=data), "test")
            runs.train(resumed, "test", folder / f"resumed-{kind}", lambda line: None)


def _resumed(settings, corpus, world: World, folder: Path) -> list[float]:
    """Losses of the last steps of a trainer that goes on from a checkpoint of the first."""
    first = Trainer(settings, corpus, world)
    first.step()
    saved = first.save(folder, {})
    second = Trainer(settings, corpus, world, begins=False)
    second.load(saved)
    return [second.step().tally.loss for _ in range(STEPS - 1)]


def _poisoned(corpus, world: World):
    """Only the second process meets a gradient that is not finite, at the second step."""
    made = Trainer(small_runs.settings(CASES["ddp"], corpus), corpus, world)
    poisoned = world.rank == 1

    def hook(gradient):
        return torch.full_like(gradient, math.nan) if poisoned and made.progress.step == 1 else gradient

    made.model.blocks[0].attention.out.weight.register_hook(hook)
    skipped = [made.step().skipped for _ in range(STEPS)]
    totals = world.total(torch.tensor([int(one) for one in skipped]))
    return made, world, {"skipped": totals.tolist()}


def _write(path: Path, made: Trainer, world: World, found: dict) -> None:
    weights = get_model_state_dict(made.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if world.main:
        path.with_suffix(".json").write_text(json.dumps(found))
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path.with_suffix(".safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
