"""Text from a checkpoint: a prompt is continued token by token, with the keys and values of what was read kept (a KV cache).

* A continuation is a function of (weights, prompt, its number, seed, temperature, top_p) and of nothing else: each sequence is read
  by itself and draws from a generator of its own, keyed by (seed, number, the prompt's ids), so that neither the order of prompts
  nor which others there are changes a token.
* Sparse layers route dropless and without noise, as all reported losses do: no token's expert depends on another token.
* Temperature divides the logits; 0 takes the likeliest token. top_p keeps the fewest likeliest tokens that hold that much
  probability (nucleus sampling, Holtzman et al. 2020), among equal ones the first ids.
* A prompt is encoded as the shards are: "<|endoftext|>" within it are characters. The token itself begins an empty prompt (what
  stands before every document in the shards) and ends a continuation.
* A prompt that fills the model's context is refused, since a cut one would be another question; a continuation ends where the
  context does, and says so. No window slides: positions beyond the context were never trained.

Tested on CPUs; not run on a GPU yet. Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pipelines.errors import UserError
from train import losses, weights
from train.model import Decoder, KVCache

Finish = Literal["end", "max_tokens", "context"]  # the model ended the document; enough tokens; the context is full


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How tokens are drawn, and how many at most. Raises UserError on values that mean nothing."""

    max_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature must be a number of at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A continuation: `text` and `ids` without the prompt and without the token that ended it. `number` counts from 0 a prompt."""

    prompt: str
    number: int
    text: str
    ids: tuple[int, ...]
    finish: Finish


def sample(
    checkpoint: str, prompts: Sequence[str], drawing: Drawing, tokenizer: str | None = None, samples: int = 1, device: Any = "cpu"
) -> list[Sample]:
    """`samples` continuations of each prompt, prompt by prompt, by the model of a checkpoint folder.

    tokenizer: a tokenizer.json; None takes the checkpoint's own. Raises UserError where there is none or it has another vocabulary,
    where the checkpoint is none, a prompt fills the context, or the weights give logits that are not numbers.
    """
    from tokenizers import Tokenizer as Codec

    config = weights.read_config(checkpoint)
    found = weights.read_tokenizer(checkpoint, tokenizer, config)
    if found is None:
        raise UserError(f"{checkpoint}: no {weights.TOKENIZER} in it: name the run's, e.g. RUN/models/tokenizer.json")
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    codec, end = Codec.from_buffer(found[0]), found[1].end_of_document
    codec.encode_special_tokens = True  # their names within a prompt stay characters
    encoded = [codec.encode(prompt, add_special_tokens=False).ids or [end] for prompt in prompts]
    for ids in encoded:
        _check_room(len(ids), config.context)
    model = weights.load_model(checkpoint, device)
    made = []
    for prompt, ids in zip(prompts, encoded, strict=True):
        for number in range(samples):
            drawn, finish = continuation(model, ids, end, drawing, number)
            made.append(Sample(prompt, number, codec.decode(drawn, skip_special_tokens=False), tuple(drawn), finish))
    return made


def continuation(
    model: Decoder, prompt: Sequence[int], end: int | None, drawing: Drawing, number: int = 0
) -> tuple[list[int], Finish]:
    """The ids that go on after `prompt` (at least one id), up to and without `end`. Raises UserError as `sample` does."""
    room = min(model.config.context, len(prompt) + drawing.max_tokens)
    _check_room(len(prompt), model.config.context)
    reader, generator = Reader(model, room), generator_of(drawing.seed, number, prompt)
    drawn: list[int] = []
    logits_V = reader.read(prompt)
    while True:
        token = draw(logits_V, drawing.temperature, drawing.top_p, torch.rand((), generator=generator, dtype=torch.float64).item())
        if token == end:
            return drawn, "end"
        drawn.append(token)
        if len(drawn) == drawing.max_tokens:
            return drawn, "max_tokens"
        if len(prompt) + len(drawn) == model.config.context:
            return drawn, "context"
        logits_V = reader.read([token])


class Reader:
    """A model that reads one sequence of at most `room` tokens, piece by piece."""

    def __init__(self, model: Decoder, room: int) -> None:
        weight = model.output_weight
        self.model, self.device = model, weight.device
        self.cache = KVCache(model.config, 1, room, weight.device, weight.dtype)

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Tensor:
        """float32 [V], on the CPU: the logits of what comes after these ids, which come after those read before."""
        tokens_BT = torch.tensor([ids], dtype=torch.int64, device=self.device)
        hidden_BTD, _ = self.model.hidden(tokens_BT, cache=self.cache)
        logits_BTV = losses.logits(hidden_BTD[:, -1:], self.model.output_weight)
        return logits_BTV[0, 0].float().cpu()


def draw(logits_V: Tensor, temperature: float, top_p: float, uniform: float) -> int:
    """The token at `uniform` (in [0, 1)) of the distribution's inverse, tokens in order of probability, equal ones by id.

    Computed in float64. Raises UserError where the logits are not finite: then the weights are of no use.
    """
    if not torch.isfinite(logits_V).all():
        raise UserError("the model's logits are not finite: its training diverged; take an earlier checkpoint")
    sorted_V, order_V = logits_V.double().sort(descending=True, stable=True)
    if temperature == 0:
        return int(order_V[0])
    cumulative_V = ((sorted_V - sorted_V[0]) / temperature).softmax(0).cumsum(0)
    kept = int((cumulative_V < top_p).sum()) + 1  # the token that reaches top_p is in
    nucleus_K = cumulative_V[:kept]
    chosen = int(torch.searchsorted(nucleus_K, uniform * nucleus_K[-1].item(), right=True))
    return int(order_V[min(chosen, len(nucleus_K) - 1)])


def generator_of(seed: int, number: int, prompt: Sequence[int]) -> torch.Generator:
    """The generator of one continuation: a hash of the seed, the continuation's number and the prompt's ids."""
    key = f"{seed}\0{number}\0{','.join(map(str, prompt))}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1)


def _check_room(length: int, context: int) -> None:
    if length >= context:
        raise UserError(f"the prompt has {length} tokens, but the model's context is {context}: give one of at most {context - 1}")
