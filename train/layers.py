"""The dense parts of a decoder block: norms, positions, attention and the feed-forward layer.

* Norms run in float32 and return the type they were given.
* Rotary positions (Su et al. 2021) turn the pairs (i, i + d_head / 2), Hugging Face's layout of LLaMA's weights, in float32.
* `relative_bias` (T5, Raffel et al. 2020): a learned bias a head for each bucket of distances, one table a layer as in GLaM; half
  of the buckets hold one distance each, the others grow logarithmically up to `relative_max_distance`.
* `transformer_xl` (Dai et al. 2019, section 3.3; Gopher and Chinchilla): score = (q + u) k + (q + v) W_r r(distance), r sines and
  cosines; u and v belong to a layer.
* Attention is torch's scaled_dot_product_attention: flash where positions need no bias (rope, learned, none) and documents are
  not masked; otherwise scores carry a mask, and relative positions one number a head, query and key.

Departures from T5 and Switch: scores are divided by sqrt(d_head), which T5 folds into its initialisation; every layer has a table
of biases of its own, where T5's share the first one's.

Shape suffixes: B sequences, T queries, S keys, H heads, Q head width, D model width, P pairs (half of Q).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import GATED, Ffn, ModelConfig


@dataclass(frozen=True, slots=True)
class View:
    """What every layer of one call shares: where the tokens stand and what they may look at.

    position_BT: int64 [B or 1, T], from 0 in each document. allowed_B1TS: bool [B or 1, 1, T, S]; None where attention is plainly
    causal (T = S) or has one query. rotation: cosines and sines, float32 [B or 1, 1, T, P], for rope. relative_TS: int64, the
    bucket (relative_bias) or distance (transformer_xl) of each query and key.
    """

    position_BT: Tensor
    allowed_B1TS: Tensor | None
    rotation: tuple[Tensor, Tensor] | None
    relative_TS: Tensor | None


def make_view(config: ModelConfig, length: int, past: int, starts_BT: Tensor | None, device: torch.device) -> View:
    """The view of `length` tokens after `past` cached ones. starts_BT: bool, true at the first token of each document, or None."""
    index_T = torch.arange(past, past + length, device=device)
    distance_TS = index_T[:, None] - torch.arange(past + length, device=device)
    position_BT = index_T[None]
    allowed = (distance_TS >= 0)[None, None]
    if starts_BT is not None:
        position_BT = index_T - torch.where(starts_BT, index_T, 0).cummax(1).values
        document_BT = starts_BT.cumsum(1)
        allowed = allowed & (document_BT[:, :, None] == document_BT[:, None, :])[:, None]
    rotation, relative_TS = None, None
    if config.positions == "rope":
        rotation = angles(position_BT, config.d_head, config.rope_theta)
    elif config.positions == "relative_bias":
        relative_TS = relative_bucket(distance_TS, config.relative_buckets, config.relative_max_distance)
    elif config.positions == "transformer_xl":
        relative_TS = distance_TS.clamp(min=0)
    plain = starts_BT is None and relative_TS is None and (past == 0 or length == 1)
    return View(position_BT, None if plain else allowed, rotation, relative_TS)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.d_model))
        self.bias = nn.Parameter(torch.empty(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm that the config names."""
    return RMSNorm(config) if config.norm == "rmsnorm" else LayerNorm(config)


def activate(h: Tensor, kind: Ffn) -> Tensor:
    """The hidden units [..., F] of a first matrix's output: [..., 2 F] in gated kinds (gate, then value), else [..., F]."""
    if kind in GATED:
        gate, value = h.chunk(2, dim=-1)
        return (F.silu(gate) if kind == "swiglu" else F.gelu(gate, approximate="tanh")) * value
    return F.gelu(h, approximate="tanh") if kind == "gelu" else F.relu(h)


class FeedForward(nn.Module):
    """A dense feed-forward layer; gated kinds hold gate and value in one first matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.ffn
        width = 2 * config.d_ff if config.ffn in GATED else config.d_ff
        self.w_in = nn.Linear(config.d_model, width, bias=config.bias)
        self.w_out = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.w_out(activate(self.w_in(x_BTD), self.kind))
        return y_BTD


def angles(position_BT: Tensor, d_head: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [B, 1, T, P], of position / theta^(2 i / d_head)."""
    rate_P = theta ** (-torch.arange(0, d_head, 2, device=position_BT.device, dtype=torch.float32) / d_head)
    angle_B1TP = position_BT[:, None, :, None].float() * rate_P
    return angle_B1TP.cos(), angle_B1TP.sin()


def rotate(x_BHTQ: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on queries or keys; computed in float32, returned in the type of x."""
    cos_B1TP, sin_B1TP = rotation
    left, right = x_BHTQ.chunk(2, dim=-1)
    turned = torch.cat((left * cos_B1TP - right * sin_B1TP, right * cos_B1TP + left * sin_B1TP), dim=-1)
    return turned.to(x_BHTQ.dtype)


def relative_bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """int64, T5's bucket of each distance into the past (negative ones count as 0)."""
    distance = distance.clamp(min=0)
    exact = buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / torch.log(torch.tensor(max_distance / exact))
    far = exact + (ratio * (buckets - exact)).to(torch.int64)
    return torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


def sinusoid(length: int, width: int, device: torch.device) -> Tensor:
    """float32 [length, width]: row d holds sines, then cosines, of d / 10000^(2 i / width)."""
    rate = 10_000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rate
    return torch.cat((angle.sin(), angle.cos()), dim=1)


class Attention(nn.Module):
    """Causal self-attention of all heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads, width = config.n_heads, config.d_attention
        self.qkv = nn.Linear(config.d_model, 3 * width, bias=config.bias)
        self.out = nn.Linear(width, config.d_model, bias=config.bias)
        if config.positions == "relative_bias":
            self.relative_bias = nn.Parameter(torch.empty(config.relative_buckets, heads))
        if config.positions == "transformer_xl":
            self.relative = nn.Linear(config.d_model, width, bias=False)
            self.content_bias = nn.Parameter(torch.empty(heads, config.d_head))
            self.position_bias = nn.Parameter(torch.empty(heads, config.d_head))

    def forward(self, x_BTD: Tensor, view: View, cache: tuple[Tensor, Tensor] | None = None, past: int = 0) -> Tensor:
        """[B, T, D]. cache: keys and values, each [B, H, room, Q], of which `past` are filled; the new ones are written behind."""
        n_sequences, length, _ = x_BTD.shape
        config = self.config
        qkv_3BHTQ = self.qkv(x_BTD).view(n_sequences, length, 3, config.n_heads, config.d_head).permute(2, 0, 3, 1, 4)
        q_BHTQ, k_BHSQ, v_BHSQ = qkv_3BHTQ.unbind(0)
        if view.rotation is not None:
            q_BHTQ, k_BHSQ = rotate(q_BHTQ, view.rotation), rotate(k_BHSQ, view.rotation)
        if cache is not None:
            for stored, new in zip(cache, (k_BHSQ, v_BHSQ), strict=True):
                stored[:, :, past : past + length] = new
            k_BHSQ, v_BHSQ = (stored[:, :, : past + length].to(q_BHTQ.dtype) for stored in cache)
        mask = view.allowed_B1TS
        if view.relative_TS is not None:
            assert mask is not None
            q_BHTQ, bias = self._relative(q_BHTQ, view.relative_TS)
            mask = torch.where(mask, bias, float("-inf")).to(q_BHTQ.dtype)
        causal = mask is None and length == k_BHSQ.shape[2]
        y_BHTQ = F.scaled_dot_product_attention(q_BHTQ, k_BHSQ, v_BHSQ, attn_mask=mask, is_causal=causal)
        y_BTD: Tensor = self.out(y_BHTQ.transpose(1, 2).flatten(2))
        return y_BTD

    def _relative(self, q_BHTQ: Tensor, relative_TS: Tensor) -> tuple[Tensor, Tensor]:
        """(queries, what is added to the scores [B or 1, H, T, S]) of the two kinds of relative positions."""
        config = self.config
        if config.positions == "relative_bias":
            return q_BHTQ, F.embedding(relative_TS, self.relative_bias).permute(2, 0, 1)[None]
        code_SD = sinusoid(relative_TS.shape[1], config.d_model, q_BHTQ.device)
        r_HSQ = self.relative(code_SD.to(self.relative.weight.dtype)).view(-1, config.n_heads, config.d_head).transpose(0, 1)
        score_BHTS = (q_BHTQ + self.position_bias[:, None]).to(r_HSQ.dtype) @ r_HSQ.transpose(1, 2)  # S: distances, not keys
        bias_BHTS = score_BHTS.gather(3, relative_TS.expand_as(score_BHTS)) * config.d_head**-0.5
        return (q_BHTQ + self.content_bias[:, None]).to(q_BHTQ.dtype), bias_BHTS
