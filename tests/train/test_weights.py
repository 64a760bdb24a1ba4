"""train.weights: what was written is what is read, bit for bit, and every way in which a folder can be wrong is one line."""

import dataclasses
import json
import os
import resource
import signal
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines import bpe_file
from tests.errors import one_line
from tests.train.models import DENSE, SPARSE, moe, tokens
from train import weights
from train.model import build

KINDS = {
    "llama": dataclasses.replace(DENSE, ffn="swiglu"),
    "glam": dataclasses.replace(SPARSE, positions="relative_bias", tied_embeddings=True),
    "switch": moe(top_k=1, renormalise=False, every=1, ffn="geglu"),
    "chinchilla": dataclasses.replace(DENSE, ffn="gelu", positions="transformer_xl"),
    "gpt3": dataclasses.replace(DENSE, ffn="gelu", positions="learned", norm="layernorm", bias=True, tied_embeddings=True),
    "post": dataclasses.replace(SPARSE, norm_place="post", positions="none"),
}


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of the small dense model."""
    weights.write_checkpoint(str(tmp_path / "step-00000007"), DENSE, build(DENSE, 0).state_dict())
    return tmp_path / "step-00000007"


def change_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_written_model_is_read_back_to_the_bit(kind, dtype, tmp_path):
    made = build(KINDS[kind], 3).to(dtype)
    weights.write_checkpoint(str(tmp_path / "made"), KINDS[kind], made.state_dict())
    read = weights.load_model(str(tmp_path / "made"))
    assert read.config == KINDS[kind]
    state = read.state_dict()
    assert state.keys() == made.state_dict().keys()
    assert all(torch.equal(state[name], tensor) and state[name].dtype == dtype for name, tensor in made.state_dict().items())
    if dtype != torch.float32:
        return  # the trainer computes in float32 or under autocast
    with torch.no_grad():
        assert torch.equal(read(tokens(2, 9)).logits_BTV, made(tokens(2, 9)).logits_BTV)


def test_a_plain_config_and_state_dict_are_a_checkpoint(tmp_path):
    """What a trainer writes with nothing but json and safetensors; `version` 1 may be said."""
    made = build(DENSE, 1)
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    for extra in ({}, {"version": 1}):
        (tmp_path / "config.json").write_text(json.dumps({**DENSE.to_dict(), **extra}))
        assert torch.equal(weights.load_model(str(tmp_path)).head.weight, made.head.weight)


def test_equal_weights_give_equal_bytes_in_any_order(tmp_path):
    state = build(SPARSE, 0).state_dict()
    weights.write_tensors(tmp_path / "a", state)
    weights.write_tensors(tmp_path / "b", dict(reversed(state.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_others_may_read_weights_as_they_may_read_any_file(folder):
    """safetensors alone makes files of mode 600."""
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


# -- not a checkpoint ---------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path):
    one_line(lambda: weights.load_model(str(tmp_path / "none")), tmp_path / "none", "no such folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_checkpoint(folder, name):
    (folder / name).unlink()
    one_line(lambda: weights.load_model(str(folder)), folder, "not a checkpoint folder", f"no {name}")


def test_a_folder_of_checkpoints_names_the_last(folder):
    for step in ("step-00000012", "step-00000100"):
        (folder.parent / step).mkdir()
    (folder.parent / "step-00000012" / "config.json").write_text("{}")
    (folder.parent / "step-00000012" / "model.safetensors").write_text("")
    one_line(lambda: weights.load_model(str(folder.parent)), "not a checkpoint folder", "e.g. step-00000012")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "not JSON"), ("[1]", "expected one JSON object, not list"), ('"\udcff"'.encode(errors="surrogateescape"), "not JSON")],
)
def test_a_config_that_is_no_object(folder, text, problem):
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    one_line(lambda: weights.load_model(str(folder)), folder / "config.json", problem)


def test_a_config_of_another_version_or_kind(folder):
    read = lambda: weights.load_model(str(folder))  # noqa: E731
    change_config(folder, version=2)
    one_line(read, folder / "config.json", "version 2", "reads version 1")
    change_config(folder, version=1, rotation="yarn")
    one_line(read, folder / "config.json", "rotation: no such field")
    change_config(folder, model_type="llama")
    one_line(read, folder / "config.json", "a Hugging Face model (llama)")


# -- weights that do not fit --------------------------------------------------------------------------------------------------


def test_a_shape_that_is_not_the_configs_names_tensor_and_both_shapes(folder):
    change_config(folder, d_ff=32)
    one_line(lambda: weights.load_model(str(folder)), "blocks.0.ffn.w_in.weight is [48, 16]", "asks for [64, 16]")


def test_missing_and_foreign_tensors(folder):
    change_config(folder, n_layers=1)
    one_line(lambda: weights.load_model(str(folder)), "blocks.1.", "no weight of the config's model")
    change_config(folder, n_layers=2, bias=True)
    one_line(lambda: weights.load_model(str(folder)), "blocks.0.attention.qkv.bias is missing")


def test_types_that_are_mixed_or_no_floats(folder):
    read = lambda: weights.load_model(str(folder))  # noqa: E731
    change_weights(folder, lambda state: state.update({"head.weight": state["head.weight"].bfloat16()}))
    one_line(read, "float32", "bfloat16", "give all one type")
    change_weights(folder, lambda state: state.update({"head.weight": state["head.weight"].to(torch.int8)}))
    one_line(read, "head.weight is int8")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header"])
def test_a_damaged_file(folder, damage):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    changed = {"cut": data[:-1], "empty": b"", "text": b"a" * 100, "header": struct.pack("<Q", 1 << 40) + data[8:]}[damage]
    path.write_bytes(changed)
    one_line(lambda: weights.load_model(str(folder)), path, "not a whole safetensors file")


# -- writing ------------------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_there_stays(folder):
    before = (folder / "model.safetensors").read_bytes()
    one_line(lambda: weights.write_checkpoint(str(folder), DENSE, {}), folder, "already there")
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_failed_write_leaves_nothing(tmp_path):
    """A tokenizer that is no bytes fails when config and weights are written."""
    with pytest.raises(TypeError):
        weights.write_checkpoint(str(tmp_path / "made"), DENSE, build(DENSE, 0).state_dict(), tokenizer="text")
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full(tmp_path):
    """A file may grow to 4,000 bytes and no further; nothing is left behind."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        one_line(lambda: weights.write_checkpoint(str(tmp_path / "made"), DENSE, build(DENSE, 0).state_dict()), "make room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "made").mkdir()
    weights.write_checkpoint(str(tmp_path / "made"), DENSE, build(DENSE, 0).state_dict())
    assert sorted(os.listdir(tmp_path)) == ["made"]
    assert sorted(os.listdir(tmp_path / "made")) == ["config.json", "model.safetensors"]


# -- the tokenizer ------------------------------------------------------------------------------------------------------------


def test_the_tokenizer_given_the_checkpoints_own_or_none(folder, tmp_path):
    config = dataclasses.replace(DENSE, vocab_size=257)
    data = bpe_file.save(bpe_file.bytes_only())
    assert weights.read_tokenizer(str(folder), None, config) is None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tokenizer.json").write_bytes(data)
    for given in ("models", "models/tokenizer.json"):
        assert weights.read_tokenizer(str(folder), str(tmp_path / given), config) == (data, bpe_file.bytes_only())
    (folder / "tokenizer.json").write_bytes(data)
    assert weights.read_tokenizer(str(folder), None, config) == (data, bpe_file.bytes_only())


def test_a_tokenizer_of_another_vocabulary_or_none(folder, tmp_path):
    path = tmp_path / "tokenizer.json"
    read = lambda: weights.read_tokenizer(str(folder), str(path), DENSE)  # noqa: E731
    one_line(read, path, "No such file")
    path.write_bytes(bpe_file.save(bpe_file.bytes_only()))
    one_line(read, path, "257 ids", "has 61")
    path.write_text("{}")
    one_line(read, path, "no byte-level BPE tokenizer.json")
