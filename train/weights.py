"""A checkpoint folder as a model: `config.json` (the ModelConfig) and `model.safetensors` (every weight by its state-dict name).

The folder's other files (optimiser, tokenizer.json, ...) are not read here, except the tokenizer on request. Weights are checked
against the config by name, shape and type before one is used, so that a file that does not belong to its config is one line.
A `config.json` without a `version` has version 1; a change that an older reader would misread raises the number.

Folders of weights appear whole or not at all: written beside their place under a temporary name, synced, renamed. Local disks only,
because weights are mapped into memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines import bpe_file
from pipelines.errors import UserError
from train.config import ModelConfig
from train.model import Decoder

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
VERSION = 1
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Shapes = Mapping[str, tuple[int, ...]]


def load_model(folder: str, device: Any = "cpu") -> Decoder:
    """The model of a checkpoint folder, its weights in the type they were stored in. Raises UserError on what does not fit."""
    config = read_config(folder)
    with torch.device("meta"):
        model = Decoder(config)
    tensors = read_tensors([Path(folder, WEIGHTS)], shapes_of(model))
    model.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, assign=True)
    return model


def read_config(folder: str) -> ModelConfig:
    """The config of a checkpoint folder. Raises UserError where the folder is none, or the config of another version."""
    path = Path(folder, CONFIG)
    values = read_object(require(folder, CONFIG, WEIGHTS) / CONFIG)
    if "model_type" in values:
        raise UserError(f"{path}: a Hugging Face model ({values['model_type']}); winnow train import makes a checkpoint of a LLaMA")
    version = values.pop("version", 1)
    if version != VERSION:
        raise UserError(f"{path}: version {version!r}, but this winnow reads version {VERSION}: use the winnow that wrote it")
    try:
        return ModelConfig.from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def write_checkpoint(folder: str, config: ModelConfig, tensors: Mapping[str, Tensor], tokenizer: bytes | None = None) -> None:
    """Publishes a checkpoint folder. Raises UserError where the folder is there already."""
    with publishing_folder(folder) as path:
        write_object(path / CONFIG, config.to_dict())
        write_tensors(path / WEIGHTS, tensors)
        if tokenizer is not None:
            (path / TOKENIZER).write_bytes(tokenizer)


def shapes_of(model: Decoder) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight; the model may stand on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# -- tensors ------------------------------------------------------------------------------------------------------------------


def read_tensors(paths: list[Path], wanted: Shapes, ignored: Container[str] = ()) -> dict[str, Tensor]:
    """The tensors `wanted` of safetensors files, of one floating-point type, on the CPU, mapped from the files where that can be.

    Tensors named in `ignored` may be there and are left.

    Raises UserError on a damaged file, a missing or foreign tensor, another shape (naming both), or mixed types.
    """
    where: dict[str, Path] = {}
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name not in ignored]  # noqa: SIM118  (it is no mapping)
                for name in names:
                    _check_shape(path, name, tuple(file.get_slice(name).get_shape()), wanted)
                tensors |= {name: file.get_tensor(name) for name in names}
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing, but the folder's index names it") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}): copy or write it again") from error
        where |= dict.fromkeys(names, path)
    for name in wanted:
        if name not in tensors:
            raise UserError(f"{paths[0]}: {name} is missing, which the config asks for: weights and config are of two models")
    _check_types(where, tensors)
    return {name: tensors[name] for name in wanted}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file: equal tensors give equal bytes, whatever their order (safetensors sorts them).

    Raises UserError where the disk takes no more.
    """
    path.touch()
    mode = path.stat().st_mode  # what the umask gives; safetensors would leave a file that only its owner may read
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{path.parent}: the weights could not be written ({error}): make room, or choose another place") from error
    path.chmod(mode)


def _check_shape(path: Path, name: str, shape: tuple[int, ...], wanted: Shapes) -> None:
    if name not in wanted:
        raise UserError(f"{path}: {name} {list(shape)} is no weight of the config's model: weights and config are of two models")
    if shape != wanted[name]:
        raise UserError(f"{path}: {name} is {list(shape)}, but the config asks for {list(wanted[name])}")


def _check_types(where: Mapping[str, Path], tensors: Mapping[str, Tensor]) -> None:
    first = next(iter(tensors))
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise UserError(f"{where[name]}: {name} is {_type(tensor)}; weights are float32, bfloat16 or float16")
        if tensor.dtype != tensors[first].dtype:
            raise UserError(f"{where[name]}: {name} is {_type(tensor)}, but {first} is {_type(tensors[first])}: give all one type")


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# -- folders and small files --------------------------------------------------------------------------------------------------


def require(folder: str, *names: str) -> Path:
    """The folder, if it holds these files. Raises UserError, which names a step's folder where a run of them was given."""
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{folder}: no such folder; give a checkpoint's, e.g. step-00000123")
    absent = [name for name in names if not (path / name).is_file()]
    if absent:
        steps = sorted(step.name for step in path.glob("step-*") if all((step / name).is_file() for name in names))
        way_out = f"give one of its checkpoints, e.g. {steps[-1]}" if steps else "a checkpoint has " + " and ".join(names)
        raise UserError(f"{folder}: not a checkpoint folder (no {absent[0]}): {way_out}")
    return path


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises UserError on anything else."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected one JSON object, not {type(values).__name__}")
    return values


def write_object(path: Path, values: Mapping[str, Any]) -> None:
    """One JSON object, with sorted keys."""
    path.write_bytes(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def publishing_folder(folder: str) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an exception. Raises UserError where that is taken."""
    final = Path(os.path.abspath(folder))
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise UserError(f"{folder}: already there; give a new folder, or remove it")
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        temporary.rename(final)
        _sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already where all went well


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- the tokenizer ------------------------------------------------------------------------------------------------------------


def read_tokenizer(folder: str, given: str | None, config: ModelConfig) -> tuple[bytes, bpe_file.Tokenizer] | None:
    """The bytes and value of the tokenizer.json that was given, else the checkpoint's own, else None.

    Raises UserError where it cannot be read or its vocabulary is not the model's.
    """
    path = Path(given) if given is not None else Path(folder, TOKENIZER)
    if path.is_dir():
        path = path / TOKENIZER
    if given is None and not path.is_file():
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a tokenizer.json, e.g. RUN/models/tokenizer.json") from error
    tokenizer = bpe_file.load(data, str(path))
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{path}: {tokenizer.vocab_size} ids, but the model of {folder} has {config.vocab_size}: give the tokenizer of the run"
            " that it was trained on"
        )
    return data, tokenizer
