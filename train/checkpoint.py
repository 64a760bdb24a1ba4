"""Checkpoints of a run: folders that appear whole or not at all, and are checked before anything is taken from them.

    step-00000123/
      config.json          the model's config
      model.safetensors    all weights, float32, by the names of the model's state dict (train/weights.py)
      tokenizer.json       the tokenizer of the shards, where one is known
      optimiser/           the optimiser's state by torch.distributed.checkpoint, a file a process, for any number of readers
      state.json           where the run stood; sha256 of every other file

The folder must be on a disk that all processes see. The main process gathers the weights in its machine's memory and writes them.

A folder is written beside its place, synced and renamed, so that a killed run leaves whole ones and a `.tmp-` that the next start
removes. One that is written again steps aside first, as `.old-`, which the next start puts back where the new one has not come.
The newest `keep` stay. Before the first update an optimiser has no state and its folder is absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from pipelines.errors import UserError
from train import weights
from train.config import ModelConfig
from train.model import Decoder
from train.parallel import ALONE, World, own_rows

OPTIMISER, STATE = "optimiser", "state.json"
_NAME = re.compile(r"^step-(\d{8,})$")
_TEMPORARY, _REPLACED = ".tmp-", ".old-"
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
_WAY_OUT = "remove the folder, and the run goes on from the checkpoint before it"


def finished(root: Path) -> list[Path]:
    """All whole checkpoints, oldest first."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := _NAME.match(path.name))]
    return [path for _, path in sorted(found)]


def sweep(root: Path) -> None:
    """Removes what a killed run left unfinished, and puts back what it was about to replace."""
    for path in root.glob(f"{_REPLACED}*"):
        target = root / path.name.removeprefix(_REPLACED)
        if target.exists():
            remove(path)
        else:
            path.rename(target)
    for path in root.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)


def remove(folder: Path) -> None:
    """Removes a checkpoint, which is never seen in part."""
    shutil.rmtree(folder.rename(folder.with_name(f"{_TEMPORARY}removed-{folder.name}")))


def save(
    root: Path,
    step: int,
    model: Decoder,
    optimiser: Optimizer,
    state: dict[str, Any],
    keep: int,
    world: World,
    tokenizer: bytes | None = None,
) -> Path:
    """Writes a checkpoint and removes the oldest beyond `keep`; to be called by all processes.

    `state`: JSON values of the caller, handed back by `read_state`.
    """
    target = root / f"step-{step:08d}"
    temporary = root / f"{_TEMPORARY}{target.name}"
    if world.main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    tensors: dict[str, Any] = get_model_state_dict(model, options=_FULL)
    if optimiser.state:
        moments = get_optimizer_state_dict(model, optimiser)["state"]
        with _not_told_that_one_process_is_alone():
            state_dict_saver.save({"state": moments}, checkpoint_id=temporary / OPTIMISER, no_dist=world.size == 1)
    if world.main:
        weights.write_object(temporary / weights.CONFIG, model.config.to_dict())
        weights.write_tensors(temporary / weights.WEIGHTS, tensors)
        if tokenizer is not None:
            (temporary / weights.TOKENIZER).write_bytes(tokenizer)
    files = _digests(temporary, _written(temporary, world), world)
    if world.main:
        weights.write_object(temporary / STATE, {**state, "step": step, "files": files})
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        replaced = root / f"{_REPLACED}{target.name}"
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
        _sync(root)
        for old in (*([replaced] if replaced.exists() else []), *finished(root)[:-keep]):
            remove(old)
    world.barrier()
    return target


@contextlib.contextmanager
def _not_told_that_one_process_is_alone() -> Iterator[None]:
    """torch warns of it even where it is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        yield


def _written(folder: Path, world: World) -> list[str]:
    """The files that this process has written."""
    every = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    of_others = tuple(f"{OPTIMISER}/__{rank}_" for rank in range(world.size) if rank != world.rank)
    own = [name for name in every if name.startswith(f"{OPTIMISER}/__{world.rank}_")]
    return [name for name in every if not name.startswith(of_others)] if world.main else own


def _digests(folder: Path, mine: list[str], world: World) -> dict[str, str]:
    """sha256 of the files of all processes, of which each computes those it names."""
    return {name: digest for some in world.gather({name: _digest(folder / name) for name in mine}) for name, digest in some.items()}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- reading ----------------------------------------------------------------------------------------------------------------


def read_state(folder: Path) -> dict[str, Any]:
    """What `save` was given, `step` and `files`. Raises UserError where the folder is no checkpoint of a run."""
    return weights.read_object(weights.require(str(folder), STATE) / STATE)


def verify(folder: Path, world: World = ALONE) -> None:
    """Raises UserError, in all processes, where a file of the checkpoint is missing or is not what was written.

    Each process reads its share of the files.
    """
    files = sorted(read_state(folder).get("files", {}).items())
    found = [_fault(folder / name, digest) for name, digest in files[world.rank :: world.size]]
    faults = [fault for some in world.gather(found) for fault in some if fault]
    if faults:
        raise UserError(f"{faults[0]}; {_WAY_OUT}")


def _fault(path: Path, digest: str) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    return None if _digest(path) == digest else f"{path}: damaged, it holds other bytes than were written"


def check_model(folder: Path, config: ModelConfig) -> None:
    """Raises UserError where the checkpoint is of another model, naming what differs."""
    theirs, ours = _fields(weights.read_config(str(folder))), _fields(config)
    wrong = [
        f"{name} {theirs.get(name)} there, {ours.get(name)} here"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    if wrong:
        raise UserError(f"{folder}: a checkpoint of another model: {'; '.join(wrong)}; take its settings, or another folder")


def _fields(config: ModelConfig) -> dict[str, Any]:
    fields = config.to_dict()
    moe = fields.pop("moe") or {}
    return fields | {f"moe.{name}": value for name, value in moe.items()}


def load(folder: Path, model: Decoder, optimiser: Optimizer, world: World) -> dict[str, Any]:
    """Sets model and optimiser to a checkpoint and returns its state; to be called by all processes, of whatever number.

    A process reads what it holds of the weights. Raises UserError where the checkpoint is damaged, or is of another model.
    """
    verify(folder, world)
    check_model(folder, model.config)
    optimiser.zero_grad(set_to_none=True)
    if (folder / OPTIMISER).is_dir():
        moments = get_optimizer_state_dict(model, optimiser)  # torch makes what there is not yet, to be written over
        with _not_told_that_one_process_is_alone():
            state_dict_loader.load({"state": moments["state"]}, checkpoint_id=folder / OPTIMISER, no_dist=world.size == 1)
        set_optimizer_state_dict(model, optimiser, moments)
    else:
        optimiser.state.clear()
    tensors = weights.read_tensors([folder / weights.WEIGHTS], weights.shapes_of(model))
    for name, parameter in model.state_dict().items():
        mine, rows = own_rows(parameter)
        mine.copy_(tensors[name][rows])
    return read_state(folder)
