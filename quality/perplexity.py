"""Perplexity under an n-gram model of the document's language: how much a text surprises a reader of Wikipedia.

CCNet (Wenzek et al. 2020, section 3.3), which LLaMA's CommonCrawl path follows (Touvron et al. 2023, section 2.1): one 5-gram
Kneser-Ney model a language, trained on Wikipedia; the third of the pages with the lowest perplexity is the *head*, then *middle*
and *tail*. The model is interpolated modified Kneser-Ney (`ngrams` fits it), held in backoff form (Heafield et al. 2013):

    p(w | h) = stored p of the longest n-gram h' w that is in the table, times the backoffs of the longer contexts

Departures: tokens are those of the run's own BPE, not of a SentencePiece model; a document is one sequence between <s> and </s>,
not a sequence a line; contexts and n-grams are known by 64-bit hashes: in a table of 10^8 entries one that is not there is taken
for one that is with probability 10^-11.

The artefact is `perplexity.safetensors`: per language the table's keys (uint64) and values (float32, natural logarithms), and the
bounds of head and middle. No pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError
from quality import hash_table
from quality.text import kernel

ORDER = 5
FORMAT = 1
_CARD = "perplexity"
_BACKOFF = np.uint64(0x9E3779B97F4A7C15)  # a context's backoff stands beside the n-gram's own probability, under another key
_STEP = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True, slots=True)
class NgramModel:
    """One language's model. An open-addressing table; a key of 0 is an empty slot."""

    keys: np.ndarray  # uint64 [2^k]: `ngram_hash` of an n-gram, or `backoff_key` of a context
    values: np.ndarray  # float32 [2^k]: ln p(w | h), or ln of the context's backoff weight
    begin: int  # id of <s>: one past the vocabulary; </s> is the next
    unseen: float  # ln p of a token that the training text does not hold
    head: float  # perplexity up to which a document is of the head: the first tercile of the sample that was judged
    middle: float

    @property
    def end(self) -> int:
        return self.begin + 1


class PerplexityScorer:
    """Scores batches of token ids with the models of a run."""

    def __init__(self, models: Mapping[str, NgramModel]) -> None:
        self._models = dict(models)

    def __call__(self, ids: np.ndarray, offsets: np.ndarray, languages: list[str | None]) -> np.ndarray:
        """float32 [documents]: exp of the mean surprise of a token, end included; nan without a model or without a token.

        ids: any integer dtype [tokens]; offsets: int64 [documents + 1]; languages: the label of each document.
        """
        found = np.full(len(offsets) - 1, np.nan, np.float32)
        counts = np.diff(offsets)
        labels = np.array([label or "" for label in languages], object)
        for language, model in sorted(self._models.items()):
            chosen = np.flatnonzero((labels == language) & (counts > 0))
            if len(chosen):
                sums = np.empty(len(chosen), np.float64)
                _sum_surprise(ids, offsets, chosen, model.keys, model.values, model.begin, model.unseen, sums)
                with np.errstate(over="ignore"):
                    found[chosen] = np.exp(sums / (counts[chosen] + 1)).astype(np.float32)
        return found


def bucket(perplexity: float, model: NgramModel) -> str:
    """CCNet's bucket of a document: head, middle or tail."""
    return "head" if perplexity <= model.head else "middle" if perplexity <= model.middle else "tail"


# -- hashes and table -------------------------------------------------------------------------------------------------------


@kernel
def extended(state: np.uint64, token: np.int64) -> np.uint64:
    """The hash of an n-gram and one more token to its right; the empty n-gram has 0."""
    mixed = (state ^ (np.uint64(token) + np.uint64(1))) * _STEP
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    return mixed ^ (mixed >> np.uint64(29))


def extended_reference(state: int, token: int) -> int:
    """`extended` in plain Python."""
    whole = 2**64 - 1
    mixed = ((state ^ (token + 1)) * int(_STEP)) & whole
    mixed ^= mixed >> 32
    mixed = (mixed * 0xFF51AFD7ED558CCD) & whole
    return mixed ^ (mixed >> 29)


def backoff_keys(contexts: np.ndarray) -> np.ndarray:
    """The keys under which the backoffs of contexts (their hashes, uint64) stand."""
    return contexts ^ _BACKOFF


def table(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(keys, values) as an open-addressing table, at most two thirds full. Keys are unique, uint64 [n]; values float32 [n].

    Keys go in in ascending order, so that equal content is equal bytes.
    """
    size = 1 << max(4, math.ceil(math.log2(max(1, len(keys)) * 1.5)))
    order = np.argsort(keys)
    out_keys, out_values = np.zeros(size, np.uint64), np.zeros(size, np.float32)
    hash_table.insert(keys[order], values[order].astype(np.float32), out_keys, out_values)
    return out_keys, out_values


@kernel
def _find(keys: np.ndarray, values: np.ndarray, key: np.uint64) -> np.float32:
    """The value under a key, or nan."""
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while keys[slot] != hash_table.EMPTY:
        if keys[slot] == key:
            return values[slot]
        slot = (slot + np.uint64(1)) & mask
    return np.float32(np.nan)


@kernel
def _sum_surprise(
    ids: np.ndarray,
    offsets: np.ndarray,
    chosen: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    begin: int,
    unseen: float,
    sums: np.ndarray,
) -> None:
    """-sum of ln p over each chosen document, </s> included.

    `states[k]` is the hash of the last k tokens: a new token extends each of them, so that an n-gram costs one step a token. Tables
    hold the suffix of whatever they hold, so that a search upwards may stop at the first n-gram that is not there.
    """
    states = np.zeros(ORDER + 1, np.uint64)
    for at in range(len(chosen)):
        first, last = offsets[chosen[at]], offsets[chosen[at] + 1]
        states[:] = np.uint64(0)
        states[1] = extended(np.uint64(0), begin)
        known = 1  # tokens of context that there are
        total = 0.0
        for position in range(first, last + 1):
            token = np.int64(ids[position]) if position < last else begin + 1
            matched = 0
            log_p = unseen
            longest = min(known, ORDER - 1)
            for length in range(longest + 1):  # of the context
                found = _find(keys, values, extended(states[length], token))
                if np.isnan(found):
                    break
                matched = length + 1
                log_p = np.float64(found)
            for length in range(max(matched, 1), longest + 1):
                found = _find(keys, values, states[length] ^ _BACKOFF)
                if np.isnan(found):
                    break
                log_p += np.float64(found)
            total -= log_p
            for length in range(longest, -1, -1):
                states[length + 1] = extended(states[length], token)
            known += 1
        sums[at] = total


# -- the artefact -----------------------------------------------------------------------------------------------------------


def save(models: Mapping[str, NgramModel]) -> bytes:
    """The models as one safetensors file; equal models give equal bytes."""
    from safetensors.numpy import save as save_tensors

    tensors, facts = {}, {}
    for language, model in sorted(models.items()):
        tensors[f"{language}.keys"], tensors[f"{language}.values"] = model.keys, model.values
        facts[language] = [model.begin, model.unseen, model.head, model.middle]
    # One key: safetensors writes several in any order.
    return bytes(save_tensors(tensors, {_CARD: json.dumps({"format": FORMAT, "models": facts}, sort_keys=True)}))


def load(data: bytes, name: str) -> dict[str, NgramModel]:
    """The models of a file that `save` wrote; `name` stands in errors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        size = int.from_bytes(data[:8], "little")
        card = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_CARD])
        if card["format"] != FORMAT:
            raise UserError(f"{name}: perplexity models of format {card['format']}, not {FORMAT}; build the run again")
        tensors = load_tensors(data)
        return {
            language: NgramModel(tensors[f"{language}.keys"], tensors[f"{language}.values"], *facts)
            for language, facts in card["models"].items()
        }
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{name}: not a file of perplexity models: {error}; build the run again") from error
