"""LLaMA models as Hugging Face's `LlamaForCausalLM` and back: the same numbers under other names, bit for bit.

Written are config.json, generation_config.json, model.safetensors and, with a tokenizer, tokenizer.json (copied) and
tokenizer_config.json. Ours and transformers' LLaMA (Touvron et al. 2023) agree on everything that computes: rotary positions turn
(i, i + d_head / 2), norms run in float32 with the config's epsilon, the output matrix is tied or not. What differs is storage:
query, key and value are one matrix here and three there, gate and value one here and two there.

A model with any other block has no counterpart and is refused. Coming back, so is what this trainer does not have: grouped
keys and values, scaled or partial rotary positions, other activations, biases in one half of a layer, quantised weights. What older
files repeat is left: the rates of rotary positions, the output matrix of a tied model.

Not carried: `init_scale`, which says how weights began. What the tokenizer does differs in one point: transformers turns the
characters <|endoftext|> within a text into the special token; winnow's shards keep them as characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pipelines.bpe_file import END_OF_DOCUMENT
from pipelines.errors import UserError
from train import weights
from train.config import ModelConfig
from train.model import Decoder

GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_INDEX = "model.safetensors.index.json"  # of weights in several files, as transformers writes large models


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the folder, the numbers in its weights and their type; `no_tokenizer` says why none is with them."""

    folder: str
    parameters: int
    dtype: str
    no_tokenizer: str | None


def export_checkpoint(checkpoint: str, out: str, tokenizer: str | None = None) -> Written:
    """Writes a checkpoint folder as the new folder `out` that transformers reads, with the weights in the type they have.

    tokenizer: a tokenizer.json; None takes the checkpoint's own where there is one. Raises UserError where a block has no
    counterpart, the checkpoint or tokenizer does not fit, or `out` is there already.
    """
    config = weights.read_config(checkpoint)
    lacking = without_counterpart(config)
    if lacking:
        raise UserError(f"{checkpoint}: no LlamaForCausalLM can hold this model: " + "; ".join(lacking))
    found = weights.read_tokenizer(checkpoint, tokenizer, config)
    ours = weights.read_tensors([Path(checkpoint, weights.WEIGHTS)], _shapes(config))
    dtype = _dtype(ours)
    end = None if found is None else found[1].end_of_document
    with weights.publishing_folder(out) as path:
        weights.write_object(path / weights.CONFIG, to_llama_config(config, dtype, end))
        weights.write_object(path / GENERATION_CONFIG, {"bos_token_id": end, "eos_token_id": end})
        weights.write_tensors(path / weights.WEIGHTS, to_llama(config, ours))
        if found is not None:
            (path / weights.TOKENIZER).write_bytes(found[0])
            weights.write_object(path / TOKENIZER_CONFIG, _tokenizer_config(config))
    return _written(out, ours, None if found is not None else "none was given, and the checkpoint has none")


def import_checkpoint(folder: str, out: str) -> Written:
    """Writes a LlamaForCausalLM of transformers as the new checkpoint folder `out`, its tokenizer.json too where winnow reads it.

    Raises UserError where the model has what this trainer does not, weights do not fit, or `out` is there already.
    """
    path = weights.require(folder, weights.CONFIG)
    config = from_llama_config(weights.read_object(path / weights.CONFIG), str(path / weights.CONFIG))
    files = _weight_files(path)
    theirs = weights.read_tensors(files, llama_shapes(config), _repeated(config))
    if config.tied_embeddings:
        _check_tied(files, theirs["model.embed_tokens.weight"])
    ours = from_llama(config, theirs)
    tokenizer, reason = None, "the folder has none"
    try:  # most LLaMA tokenizers are none of winnow's; the weights are of use without
        found = weights.read_tokenizer(folder, None, config)
        tokenizer = None if found is None else found[0]
    except UserError as error:
        reason = str(error)
    weights.write_checkpoint(out, config, ours, tokenizer)
    return _written(out, ours, None if tokenizer is not None else reason)


# -- configs ------------------------------------------------------------------------------------------------------------------


def without_counterpart(config: ModelConfig) -> list[str]:
    """Every block of the model that LLaMA does not have, and why, as phrases; empty for a LLaMA."""
    moe = config.moe
    heads = f"{config.n_heads} heads in d_model {config.d_model}"
    phrases = {
        f"sparse layers ({moe.experts if moe else 0} experts): its feed-forward layers are dense": moe is not None,
        f"ffn {config.ffn}: its feed-forward layer is SwiGLU": config.ffn != "swiglu",
        f"positions {config.positions}: its attention knows rotary positions only": config.positions != "rope",
        f"norm {config.norm}: its norm is RMSNorm": config.norm != "rmsnorm",
        f"norm_place {config.norm_place}: its norms stand before the blocks": config.norm_place != "pre",
        f"{heads}: transformers wants a width that its heads divide": config.d_model % config.n_heads != 0,
    }
    return [phrase for phrase, holds in phrases.items() if holds]


def to_llama_config(config: ModelConfig, dtype: str, end_of_document: int | None) -> dict[str, Any]:
    """transformers' config.json. `rope_theta` stands twice: where transformers 5 looks and where other readers do."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def from_llama_config(values: dict[str, Any], name: str) -> ModelConfig:
    """Our config of transformers' config.json; absent fields take LlamaConfig's defaults. `name` is what errors call it."""
    _refuse_foreign(values, name)
    heads = _field(values, name, "num_attention_heads")
    width = _field(values, name, "hidden_size")
    rope = _rope(values, name)
    try:
        return ModelConfig.from_dict(
            {
                "vocab_size": _field(values, name, "vocab_size"),
                "context": values.get("max_position_embeddings", 2048),
                "d_model": width,
                "n_layers": _field(values, name, "num_hidden_layers"),
                "n_heads": heads,
                "d_head": values.get("head_dim") or width // heads,
                "d_ff": _field(values, name, "intermediate_size"),
                "norm_eps": values.get("rms_norm_eps", 1e-6),
                "rope_theta": rope.get("rope_theta") or values.get("rope_theta") or 10_000.0,
                "bias": values.get("attention_bias", False),
                "tied_embeddings": values.get("tie_word_embeddings", False),
            }
        )
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _refuse_foreign(values: dict[str, Any], name: str) -> None:
    heads = values.get("num_attention_heads")
    grouped = values.get("num_key_value_heads")
    rope = _rope(values, name)
    kind = rope.get("rope_type", rope.get("type", "default"))
    phrases = {
        f"model_type {values.get('model_type')!r}: only llama has a counterpart here": values.get("model_type") != "llama",
        f"{grouped} heads of keys and values for {heads} of queries: attention here has one each": grouped not in (None, heads),
        f"hidden_act {values.get('hidden_act')}: the feed-forward layer here is SwiGLU": values.get("hidden_act", "silu") != "silu",
        f"rope_type {kind}: rotary positions here are not scaled": kind != "default",
        "partial_rotary_factor: rotary positions here turn whole heads": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "attention_bias is not mlp_bias: here all linear layers have biases or none": (
            values.get("attention_bias", False) != values.get("mlp_bias", False)
        ),
        "quantization_config: weights here are not quantised": values.get("quantization_config") is not None,
    }
    found = [phrase for phrase, holds in phrases.items() if holds]
    if found:
        raise UserError(f"{name}: not a LLaMA that this trainer builds: " + "; ".join(found))


def _rope(values: dict[str, Any], name: str) -> dict[str, Any]:
    """What is said of rotary positions, under transformers 5's name or the older one."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"{name}: rope_parameters: expected an object, not {rope!r}")
    return rope


def _field(values: dict[str, Any], name: str, key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name}: {key}: expected a number above 0, not {value!r}")
    return value


def _tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    """What AutoTokenizer needs beside tokenizer.json: the class that reads the file as it is, and the special token."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_DOCUMENT,
        "eos_token": END_OF_DOCUMENT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.context,
    }


# -- weights ------------------------------------------------------------------------------------------------------------------


def counterparts(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Each weight of ours -> the weights of transformers' that it is, their rows below one another in equal shares."""
    found: dict[str, tuple[str, ...]] = {}
    found["embedding.weight"] = ("model.embed_tokens.weight",)
    found["final_norm.weight"] = ("model.norm.weight",)
    if not config.tied_embeddings:
        found["head.weight"] = ("lm_head.weight",)
    for layer in range(config.n_layers):
        here, there = f"blocks.{layer}", f"model.layers.{layer}"
        found[f"{here}.attention_norm.weight"] = (f"{there}.input_layernorm.weight",)
        found[f"{here}.ffn_norm.weight"] = (f"{there}.post_attention_layernorm.weight",)
        for kind in ("weight", "bias") if config.bias else ("weight",):
            found[f"{here}.attention.qkv.{kind}"] = tuple(f"{there}.self_attn.{one}_proj.{kind}" for one in "qkv")
            found[f"{here}.attention.out.{kind}"] = (f"{there}.self_attn.o_proj.{kind}",)
            found[f"{here}.ffn.w_in.{kind}"] = (f"{there}.mlp.gate_proj.{kind}", f"{there}.mlp.up_proj.{kind}")
            found[f"{here}.ffn.w_out.{kind}"] = (f"{there}.mlp.down_proj.{kind}",)
    return found


def to_llama(config: ModelConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' weights: views of ours."""
    return {
        there: part
        for here, names in counterparts(config).items()
        for there, part in zip(names, ours[here].chunk(len(names)), strict=True)
    }


def from_llama(config: ModelConfig, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_llama`."""
    return {here: torch.cat([theirs[there] for there in names]) for here, names in counterparts(config).items()}


def llama_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight of transformers' model."""
    ours = _shapes(config)
    found: dict[str, tuple[int, ...]] = {}
    for here, names in counterparts(config).items():
        rows, *rest = ours[here]
        found |= dict.fromkeys(names, (rows // len(names), *rest))
    return found


def _repeated(config: ModelConfig) -> frozenset[str]:
    """Tensors that older checkpoints hold and transformers does not read: the rates of rotary positions, which the config tells,
    and the output matrix of a model that ties it to the embedding."""
    rates = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(config.n_layers)}
    return frozenset(rates | ({"lm_head.weight"} if config.tied_embeddings else set()))


def _check_tied(files: list[Path], embedding: Tensor) -> None:
    for path in files:
        with safe_open(path, framework="pt") as file:
            if "lm_head.weight" in file.keys() and not torch.equal(file.get_tensor("lm_head.weight"), embedding):  # noqa: SIM118
                raise UserError(
                    f"{path}: lm_head.weight is not the embedding, but config.json ties the two; set tie_word_embeddings to false"
                )


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return weights.shapes_of(Decoder(config))


def _weight_files(path: Path) -> list[Path]:
    if (path / weights.WEIGHTS).is_file() or not (path / _INDEX).is_file():
        return [weights.require(str(path), weights.WEIGHTS) / weights.WEIGHTS]
    index = weights.read_object(path / _INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise UserError(f"{path / _INDEX}: no weight_map that says which file holds a weight")
    return [path / name for name in sorted(set(index.values()))]


def _written(folder: str, ours: dict[str, Tensor], no_tokenizer: str | None) -> Written:
    return Written(folder, sum(tensor.numel() for tensor in ours.values()), _dtype(ours), no_tokenizer)


def _dtype(tensors: dict[str, Tensor]) -> str:
    return str(next(iter(tensors.values())).dtype).removeprefix("torch.")
