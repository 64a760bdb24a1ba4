"""The published models, as configs that this trainer builds, with what their papers print beside them.

* **GLaM** (Du et al. 2022, table 4): every second layer sparse, top-2, GEGLU in dense layers, experts of two matrices with GELU,
  relative bias, capacity 2. Not stated by the paper: the norm (RMSNorm here) and the vocabulary that its counts hold; the paper
  trains with 256,000 pieces, but only the largest model's counts fit that, the others fit 32,000: chosen a row, to fit.
* **Switch** (Fedus et al. 2022, table 9): top-1, capacity 1.25, jitter, initialisation scale 0.1; expert dropout, which the paper
  has for fine-tuning, is a setting and off. The paper's models are T5 encoder-decoders; here a decoder of as many layers as both
  halves have, so without cross-attention.
* **LLaMA** (Touvron et al. 2023, table 2), feed-forward width 256 ceil(8 d / 3 / 256), output matrix of its own.
* **Gopher and Chinchilla** (Rae et al. 2021; Hoffmann et al. 2022, table 4): Transformer-XL positions, tied embeddings.
* **GPT-3** (Brown et al. 2020, table 2.1): LayerNorm, biases, learned positions, tied embeddings; attention dense everywhere.
* **tiny**: one model of each house with about a million active parameters, for a CPU.

Learning rates and tokens a batch are those of LLaMA's table 2, GPT-3's table 2.1, Chinchilla's table 4 (Gopher's stand there too;
both double the batch midway, here it stays as it begins) and GLaM's section 5.1; Switch says 2^20 tokens, and an M is taken as that
many everywhere. Switch has no learning rate here: it gets GLaM's. Those of the tiny models were tried here.

A misfit is a published number that the published shape does not give.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass

from pipelines.errors import UserError
from train.config import Ffn, ModelConfig, MoEConfig
from train.memory import Optimiser

_M = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named model. Published numbers are None where there is none; `published_flops` is forward FLOPs a token.

    peak: the learning rate of its paper, for `optimiser`. batch_tokens: of an update.
    """

    name: str
    config: ModelConfig
    optimiser: Optimiser
    peak: float | None = None
    batch_tokens: int | None = None
    published_total: float | None = None
    published_active: float | None = None
    published_flops: float | None = None
    misfit: str | None = None


def get(name: str, vocab_size: int | None = None, context: int | None = None) -> ModelConfig:
    """A preset's config, with the vocabulary and context of the data where given. Raises UserError on an unknown name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        raise UserError(f"{name}: no such preset" + (f"; did you mean {near[0]}?" if near else "; see winnow train presets"))
    config = PRESETS[name].config
    return dataclasses.replace(config, vocab_size=vocab_size or config.vocab_size, context=context or config.context)


def _glam(
    name: str, layers: int, d: int, d_ff: int, heads: int, d_head: int, experts: int, total: float, active: float,
    vocab: int = 32_000, flops: float | None = None, misfit: str | None = None,
) -> Preset:  # fmt: skip
    moe = None
    if experts:
        moe = MoEConfig(experts=experts, top_k=2, d_ff=d_ff, ffn="gelu", every=2, renormalise=True, capacity_train=2.0)
    config = ModelConfig(
        vocab_size=vocab, context=1024, d_model=d, n_layers=layers, n_heads=heads, d_head=d_head, d_ff=d_ff, ffn="geglu",
        positions="relative_bias", tied_embeddings=True, moe=moe,
    )  # fmt: skip
    return Preset(name=name, config=config, optimiser="adafactor", peak=0.01, batch_tokens=_M, published_total=total,
                  published_active=active, published_flops=flops, misfit=misfit)  # fmt: skip


def _switch(
    name: str, layers: int, d: int, d_ff: int, heads: int, experts: int, every: int, ffn: Ffn, total: float,
    misfit: str | None = None,
) -> Preset:  # fmt: skip
    moe = MoEConfig(experts=experts, top_k=1, d_ff=d_ff, ffn=ffn, every=every, capacity_train=1.25, jitter=0.01)
    config = ModelConfig(
        vocab_size=32_128, context=512, d_model=d, n_layers=2 * layers, n_heads=heads, d_head=64, d_ff=d_ff, ffn=ffn,
        positions="relative_bias", tied_embeddings=True, init_scale=0.1, moe=moe,
    )  # fmt: skip
    return Preset(name=name, config=config, optimiser="adafactor", batch_tokens=_M, published_total=total, misfit=misfit)


def _llama(name: str, layers: int, d: int, heads: int, total: float, peak: float) -> Preset:
    config = ModelConfig(
        vocab_size=32_000, context=2048, d_model=d, n_layers=layers, n_heads=heads, d_head=d // heads,
        d_ff=256 * math.ceil(8 * d // 3 / 256), ffn="swiglu", positions="rope",
    )  # fmt: skip
    return Preset(name=name, config=config, optimiser="adamw", peak=peak, batch_tokens=4 * _M, published_total=total)


def _gopher(name: str, layers: int, d: int, heads: int, total: float, peak: float, batch: float) -> Preset:
    config = ModelConfig(
        vocab_size=32_000, context=2048, d_model=d, n_layers=layers, n_heads=heads, d_head=128, d_ff=4 * d, ffn="gelu",
        positions="transformer_xl", tied_embeddings=True,
    )  # fmt: skip
    return Preset(name=name, config=config, optimiser="adamw", peak=peak, batch_tokens=round(batch * _M), published_total=total)


def _gpt3(
    name: str, layers: int, d: int, heads: int, d_head: int, total: float, peak: float, batch: float,
    flops: float | None = None, misfit: str | None = None,
) -> Preset:  # fmt: skip
    config = ModelConfig(
        vocab_size=50_257, context=2048, d_model=d, n_layers=layers, n_heads=heads, d_head=d_head, d_ff=4 * d, ffn="gelu",
        norm="layernorm", norm_eps=1e-5, positions="learned", bias=True, tied_embeddings=True,
    )  # fmt: skip
    return Preset(name=name, config=config, optimiser="adamw", peak=peak, batch_tokens=round(batch * _M), published_total=total,
                  published_flops=flops, misfit=misfit)  # fmt: skip


def _tiny(name: str, ffn: Ffn, moe: MoEConfig | None = None, init_scale: float = 1.0) -> Preset:
    config = ModelConfig(
        vocab_size=4096, context=256, d_model=128, n_layers=4, n_heads=4, d_head=32, d_ff=344, ffn=ffn,
        tied_embeddings=True, init_scale=init_scale, moe=moe,
    )  # fmt: skip
    return Preset(name=name, config=config, optimiser="adamw", peak=4e-3)


_TINY_GLAM = MoEConfig(experts=8, top_k=2, d_ff=256, ffn="gelu", renormalise=True)
_TINY_SWITCH = MoEConfig(experts=8, top_k=1, d_ff=344, ffn="geglu", capacity_train=1.25, jitter=0.01)
_ABOVE = "every vocabulary leaves the 0.1B rows about 5 % above the published counts"
_SWITCH_XXL = "experts in every second layer, as the table says, give 200 B; in every layer they give 390 B"

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _tiny("llama-tiny", "swiglu"),
        _tiny("glam-tiny", "geglu", _TINY_GLAM),
        _tiny("switch-tiny", "geglu", _TINY_SWITCH, init_scale=0.1),
        # layers, d_model, d_ff, heads, d_head, experts; parameters in all, active
        _glam("glam-0.1b", 12, 768, 3072, 12, 64, 0, 130e6, 130e6, misfit=_ABOVE),
        _glam("glam-0.1b-64e", 12, 768, 3072, 12, 64, 64, 1.9e9, 145e6, misfit=_ABOVE),
        _glam("glam-1.7b", 24, 2048, 8192, 16, 128, 0, 1.7e9, 1.7e9),
        _glam("glam-1.7b-32e", 24, 2048, 8192, 16, 128, 32, 20e9, 1.878e9, misfit="the table's shape gives 14 B in all, not 20 B"),
        _glam("glam-1.7b-64e", 24, 2048, 8192, 16, 128, 64, 27e9, 1.879e9),
        _glam("glam-1.7b-128e", 24, 2048, 8192, 16, 128, 128, 53e9, 1.881e9),
        _glam("glam-1.7b-256e", 24, 2048, 8192, 16, 128, 256, 105e9, 1.886e9),
        _glam("glam-8b", 32, 4096, 16384, 32, 128, 0, 8.7e9, 8.7e9),
        _glam("glam-8b-64e", 32, 4096, 16384, 32, 128, 64, 143e9, 9.8e9),
        _glam("glam-137b", 64, 8192, 65536, 128, 128, 0, 137e9, 137e9),
        _glam("glam-64b-64e", 64, 8192, 32768, 128, 128, 64, 1.2e12, 96.6e9, vocab=256_000, flops=180e9,
              misfit="2 FLOPs a weight give 193 GFLOP a token, not 180"),
        # layers of each half, d_model, d_ff, heads, experts, every
        _switch("switch-base", 12, 768, 2048, 12, 128, 2, "geglu", 7e9),
        _switch("switch-large", 24, 1024, 2816, 16, 128, 2, "geglu", 26e9),
        _switch("switch-xxl", 24, 4096, 10240, 64, 64, 2, "geglu", 395e9, misfit=_SWITCH_XXL),
        _switch("switch-c", 15, 2080, 6144, 32, 2048, 1, "relu", 1571e9),
        # layers, d_model, heads; parameters; learning rate
        _llama("llama-7b", 32, 4096, 32, 6.7e9, 3e-4),
        _llama("llama-13b", 40, 5120, 40, 13.0e9, 3e-4),
        _llama("llama-33b", 60, 6656, 52, 32.5e9, 1.5e-4),
        _llama("llama-65b", 80, 8192, 64, 65.2e9, 1.5e-4),
        # ...; M tokens a batch
        _gopher("gopher-280b", 80, 16384, 128, 280e9, 4e-5, 3),
        _gopher("chinchilla-70b", 80, 8192, 64, 70e9, 1e-4, 1.5),
        # layers, d_model, heads, d_head; parameters; learning rate; M tokens a batch
        _gpt3("gpt3-125m", 12, 768, 12, 64, 125e6, 6e-4, 0.5),
        _gpt3("gpt3-350m", 24, 1024, 16, 64, 350e6, 3e-4, 0.5),
        _gpt3("gpt3-760m", 24, 1536, 16, 96, 760e6, 2.5e-4, 0.5),
        _gpt3("gpt3-1.3b", 24, 2048, 24, 128, 1.3e9, 2e-4, 1, misfit="24 heads of 128 are wider than d_model 2048 and give 1.5 B"),
        _gpt3("gpt3-2.7b", 32, 2560, 32, 80, 2.7e9, 1.6e-4, 1),
        _gpt3("gpt3-6.7b", 32, 4096, 32, 128, 6.7e9, 1.2e-4, 2),
        _gpt3("gpt3-13b", 40, 5140, 40, 128, 13.0e9, 1e-4, 2, misfit="d_model 5140 is not 40 heads of 128"),
        _gpt3("gpt3-175b", 96, 12288, 96, 128, 175e9, 6e-5, 3.2, flops=350e9),
    )
}  # fmt: skip
