"""train.export: transformers' LlamaForCausalLM reads what was written and gives our logits; what comes back is equal to the bit."""

import dataclasses
import json
import os

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines import bpe, bpe_file
from tests.errors import one_line
from tests.train.models import DENSE, MOE, tokens
from train import export, presets, weights
from train.config import ModelConfig
from train.model import build

SMALL = dataclasses.replace(DENSE, ffn="swiglu")
LLAMAS = {
    "untied": SMALL,
    "tied": dataclasses.replace(SMALL, tied_embeddings=True),
    "eps": dataclasses.replace(SMALL, norm_eps=0.3),
    "theta": dataclasses.replace(SMALL, rope_theta=50.0),
    "bias": dataclasses.replace(SMALL, bias=True),
    "wide heads": dataclasses.replace(SMALL, d_head=12),
    "one layer": dataclasses.replace(SMALL, n_layers=1, n_heads=4, d_head=4, vocab_size=257),
    "llama-tiny": presets.get("llama-tiny", vocab_size=300, context=64),
}


def checkpoint(folder, config: ModelConfig, dtype=torch.float32, tokenizer=None) -> str:
    """A checkpoint whose gains and biases are random too, so that one that went astray is seen."""
    made = build(config, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.5, 0.5, generator=generator)
    weights.write_checkpoint(str(folder), config, made.to(dtype).state_dict(), tokenizer)
    return str(folder)


def read_by_transformers(folder, **options):
    transformers = pytest.importorskip("transformers")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize("kind", LLAMAS)
def test_transformers_gives_our_logits(kind, tmp_path):
    """Within 1e-4 of the reference, and the settings are seen: each kind but the first differs from it in one."""
    config = LLAMAS[kind]
    source = checkpoint(tmp_path / "made", config)
    export.export_checkpoint(source, str(tmp_path / "llama"))
    theirs, ours = read_by_transformers(tmp_path / "llama"), weights.load_model(source)
    inputs = tokens(2, config.context, vocab=config.vocab_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs).logits_BTV, theirs(inputs).logits, rtol=0, atol=1e-4)
    assert theirs.dtype == torch.float32
    assert theirs.config.max_position_embeddings == config.context
    shared = theirs.lm_head.weight.data_ptr() == theirs.model.embed_tokens.weight.data_ptr()
    assert shared == config.tied_embeddings


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_what_published_files_repeat_is_left(kind, tmp_path):
    """LLaMA's converted files hold rotary rates, float32 in a file of float16, and some the output matrix of a tied model."""
    config = LLAMAS[kind]
    source = checkpoint(tmp_path / "made", config, torch.float16)
    export.export_checkpoint(source, str(tmp_path / "llama"))
    file = tmp_path / "llama" / "model.safetensors"
    held = load_file(file)
    rates = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(config.n_layers)}
    head = held["model.embed_tokens.weight"].clone() if kind == "tied" else held["lm_head.weight"]
    save_file({**held, **rates, "lm_head.weight": head}, file)
    export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "back"))
    back, wanted = (load_file(folder / "model.safetensors") for folder in (tmp_path / "back", tmp_path / "made"))
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[name], wanted[name]) for name in back)
    save_file({**held, "lm_head.weight": head + 1}, file)
    if kind == "tied":
        refused = lambda: export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "other"))  # noqa: E731
        one_line(refused, file, "lm_head.weight is not the embedding")


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_way_out_and_back_changes_no_bit(kind, dtype, tmp_path):
    config = LLAMAS[kind]
    source = checkpoint(tmp_path / "made", config, dtype)
    written = export.export_checkpoint(source, str(tmp_path / "llama"))
    back = export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "back"))
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()
    assert written.dtype == back.dtype == str(dtype).removeprefix("torch.")
    assert written.parameters == back.parameters == sum(w.numel() for w in build(config, 0).parameters())


def test_what_transformers_saves_comes_in(tmp_path):
    """Its own config.json, defaults and all, and weights in several files; the reference for logits is that model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
            max_position_embeddings=32, rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rms_norm_eps=1e-5,
        )
    ).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "llama", max_shard_size="8KB")
    assert sum(name.endswith(".safetensors") for name in os.listdir(tmp_path / "llama")) > 1
    export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "ours"))
    ours = weights.load_model(str(tmp_path / "ours"))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens(2, 32)).logits_BTV, theirs(tokens(2, 32)).logits, rtol=0, atol=1e-4)
    assert (ours.config.rope_theta, ours.config.norm_eps, ours.config.context) == (500.0, 1e-5, 32)
    first = min(name for name in os.listdir(tmp_path / "llama") if name.endswith(".safetensors"))
    (tmp_path / "llama" / first).unlink()
    one_line(lambda: export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "none")), first, "missing")


def test_older_files_say_theta_and_scaling_at_the_top():
    """Fields as transformers 4 wrote them."""
    old = {"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
           "intermediate_size": 8, "rope_theta": 77.0, "rope_scaling": None}  # fmt: skip
    config = export.from_llama_config(old, "config.json")
    assert (config.rope_theta, config.d_head, config.norm_eps, config.context) == (77.0, 4, 1e-6, 2048)
    scaled = {**old, "rope_scaling": {"type": "linear", "factor": 2.0}}
    one_line(lambda: export.from_llama_config(scaled, "config.json"), "config.json", "rope_type linear")


# -- blocks without a counterpart ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "block"),
    [
        ({"moe": MOE}, "sparse layers (4 experts)"),
        ({"ffn": "geglu"}, "ffn geglu"),
        ({"ffn": "gelu"}, "ffn gelu"),
        ({"ffn": "relu"}, "ffn relu"),
        ({"positions": "relative_bias"}, "positions relative_bias"),
        ({"positions": "transformer_xl"}, "positions transformer_xl"),
        ({"positions": "learned"}, "positions learned"),
        ({"positions": "none"}, "positions none"),
        ({"norm": "layernorm"}, "norm layernorm"),
        ({"norm_place": "post"}, "norm_place post"),
        ({"n_heads": 3}, "3 heads in d_model 16"),
    ],
)
def test_a_block_without_a_counterpart_is_named(changes, block, tmp_path):
    source = checkpoint(tmp_path / "made", dataclasses.replace(SMALL, **changes))
    one_line(lambda: export.export_checkpoint(source, str(tmp_path / "llama")), source, "LlamaForCausalLM", f"{block}: ")
    assert os.listdir(tmp_path) == ["made"]


def test_of_the_presets_exactly_llamas_have_one():
    able = {name for name, preset in presets.PRESETS.items() if not export.without_counterpart(preset.config)}
    assert able == {name for name in presets.PRESETS if name.startswith("llama-")}
    every = export.without_counterpart(presets.PRESETS["glam-64b-64e"].config)
    assert [phrase.split(":")[0] for phrase in every] == ["sparse layers (64 experts)", "ffn geglu", "positions relative_bias"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "mixtral"}, "model_type 'mixtral'"),
        ({"num_key_value_heads": 1}, "1 heads of keys and values for 2 of queries"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}}, "rope_type llama3"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": [1]}, "rope_parameters: expected an object"),
        ({"attention_bias": True}, "attention_bias is not mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vocab_size": None}, "vocab_size: expected a number above 0"),
        ({"rms_norm_eps": "1e-6"}, "norm_eps: '1e-6' is not float"),
    ],
)
def test_what_this_trainer_does_not_have_is_named(changes, problem, tmp_path):
    export.export_checkpoint(checkpoint(tmp_path / "made", SMALL), str(tmp_path / "llama"))
    path = tmp_path / "llama" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    one_line(lambda: export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "back")), path, problem)
    assert not (tmp_path / "back").exists()


def test_weights_that_do_not_fit_name_tensor_and_both_shapes(tmp_path):
    export.export_checkpoint(checkpoint(tmp_path / "made", SMALL), str(tmp_path / "llama"))
    path = tmp_path / "llama" / "model.safetensors"
    state = load_file(path)
    back = lambda: export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "back"))  # noqa: E731
    save_file({**state, "model.layers.1.self_attn.k_proj.weight": torch.zeros(8, 16)}, path)
    one_line(back, "model.layers.1.self_attn.k_proj.weight is [8, 16]", "asks for [16, 16]")
    save_file({name: tensor for name, tensor in state.items() if name != "lm_head.weight"}, path)
    one_line(back, "lm_head.weight is missing")
    one_line(lambda: export.import_checkpoint(str(tmp_path / "made"), str(tmp_path / "back")), "model_type None")


def test_what_is_there_stays(tmp_path):
    source = checkpoint(tmp_path / "made", SMALL)
    one_line(lambda: export.export_checkpoint(source, source), source, "already there")


# -- the tokenizer ------------------------------------------------------------------------------------------------------------

TEXT = "  the dog's hat,\n\n\tété 1234 — 日本 "


@pytest.mark.parametrize("digits", ["split", "runs"])
def test_auto_tokenizer_gives_the_ids_of_the_shards(digits, tmp_path):
    """The reference is the encoder that writes them; the model type LLaMA must not bring LLaMA's own pre-tokenizer."""
    transformers = pytest.importorskip("transformers")
    made = bpe.train(iter([TEXT * 3, "the cat sat on the mat 1234 1234 " * 9]), 290, digits)
    config = dataclasses.replace(SMALL, vocab_size=made.vocab_size)
    source = checkpoint(tmp_path / "made", config)
    (tmp_path / "tokenizer.json").write_bytes(bpe_file.save(made))
    written = export.export_checkpoint(source, str(tmp_path / "llama"), str(tmp_path / "tokenizer.json"))
    assert written.no_tokenizer is None
    assert (tmp_path / "llama" / "tokenizer.json").read_bytes() == bpe_file.save(made)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")
    ids, _ = bpe.Encoder(made)(pa.array([TEXT]))
    assert theirs(TEXT).input_ids == ids.tolist()
    assert theirs.decode(ids.tolist()) == TEXT
    assert (theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (made.end_of_document,) * 2 + (made.vocab_size,)
    assert theirs.model_max_length == config.context
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "llama")
    assert generation.eos_token_id == read_by_transformers(tmp_path / "llama").config.eos_token_id == made.end_of_document
    back = export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "back"))
    assert back.no_tokenizer is None
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == bpe_file.save(made)


def test_tokenizers_that_do_not_fit_and_none(tmp_path):
    source = checkpoint(tmp_path / "made", SMALL)
    (tmp_path / "tokenizer.json").write_bytes(bpe_file.save(bpe_file.bytes_only()))
    given = str(tmp_path / "tokenizer.json")
    one_line(lambda: export.export_checkpoint(source, str(tmp_path / "llama"), given), given, "257 ids", "has 61")
    written = export.export_checkpoint(source, str(tmp_path / "llama"))
    assert "none was given" in written.no_tokenizer
    assert sorted(os.listdir(tmp_path / "llama")) == ["config.json", "generation_config.json", "model.safetensors"]
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    back = export.import_checkpoint(str(tmp_path / "llama"), str(tmp_path / "back"))
    assert "no byte-level BPE" in back.no_tokenizer
    assert not (tmp_path / "back" / "tokenizer.json").exists()
