"""Overlap with evaluation sets: does a document hold words that a benchmark will ask for?

After GPT-3 (Brown et al. 2020, appendix C), which GLaM follows (Du et al. 2022, section 5.1): a document overlaps with an
evaluation text when they share an n-gram of words; n is 13, or the number of words of a text that has fewer, down to 8. A shorter
text cannot be told from everyday language and is not looked for; how many these are is counted. Words are those of
near-duplicate detection (`words`): case and punctuation decide nothing.

Departures: GPT-3 passes over n-grams that stand in more than ten training documents, which depends on the corpus and would let a
document's verdict change with its neighbours; here every n-gram counts. The whole document is dropped, where GPT-3 cuts 200
characters around the overlap out of it.

An index is a table of 64-bit hashes: an n-gram is taken for one of 10^7 others with a probability of 10^-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.characters import word_table
from pipelines.dedup.words import MOST_WORDS, find_words, hash_words, word_hash_reference, words_reference
from quality.text import buffers, kernel, mix

NGRAM, SHORTEST = 13, 8  # words
MOST_SETS = 64
_STEP = np.uint64(0xF1357AEA2E62A9C5)  # odd: the words of an n-gram are the digits of a number to this base
_SEED = np.uint64(0x77696E6E6F772065)
_EMPTY = np.uint64(0)


@dataclass(frozen=True, slots=True)
class EvaluationIndex:
    """The n-grams of some evaluation sets, as an open-addressing table of at most half its slots."""

    names: tuple[str, ...]  # of the sets
    keys: np.ndarray  # uint64 [2^k]; 0 is an empty slot
    sets: np.ndarray  # uint64 [2^k]: bit i for names[i]
    lengths: np.ndarray  # int64: the n of the n-grams that there are
    texts: Mapping[str, tuple[int, int]]  # by set: texts, and how many of them are too short to look for


def build_index(sets: Mapping[str, Iterable[str]]) -> EvaluationIndex:
    """The index of evaluation texts by set; at most 64 sets."""
    if len(sets) > MOST_SETS:
        raise ValueError(f"{len(sets)} evaluation sets; at most {MOST_SETS} can be told apart")
    names = tuple(sorted(sets))
    found: dict[int, int] = {}
    lengths: set[int] = set()
    texts = {}
    for number, name in enumerate(names):
        total = short = 0
        for text in sets[name]:
            total += 1
            hashes = [word_hash_reference(word) for word in words_reference(text)]
            length = min(NGRAM, len(hashes))
            if length < SHORTEST:
                short += 1
                continue
            lengths.add(length)
            for key in ngram_hashes_reference(hashes, length):
                found[key] = found.get(key, 0) | (1 << number)
        texts[name] = (total, short)
    size = 1 << max(4, (2 * len(found) - 1).bit_length())
    keys, masks = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    order = sorted(found)
    _insert(np.array(order, np.uint64), np.array([found[key] for key in order], np.uint64), keys, masks)
    return EvaluationIndex(names, keys, masks, np.array(sorted(lengths), np.int64), texts)


def ngram_hashes_reference(word_hashes: list[int], length: int) -> list[int]:
    """The hash of every `length` consecutive words, in plain Python."""
    whole = 2**64
    hashes = []
    for first in range(len(word_hashes) - length + 1):
        digits = 0
        for word in word_hashes[first : first + length]:
            digits = (digits * int(_STEP) + word) % whole
        product = ((digits ^ 0xA0761D6478BD642F) * ((int(_SEED) + length) ^ 0x9E3779B97F4A7C15)) % 2**128
        hashes.append(((product ^ (product >> 64)) % whole) or 1)
    return hashes


def overlaps(texts: pa.Array, index: EvaluationIndex) -> tuple[np.ndarray, np.ndarray]:
    """(shared n-grams int32 [documents], sets uint64 [documents], bit i for index.names[i]) of a string array.

    Every place of a document where an n-gram of the index begins counts.
    """
    data, offsets = buffers(texts)
    counts, sets = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.uint64)
    if len(index.lengths):
        longest = int(np.diff(offsets).max(initial=0))
        scratch = (
            np.empty(MOST_WORDS, np.int64),
            np.empty(MOST_WORDS, np.int64),
            np.empty(MOST_WORDS + NGRAM, np.uint64),
            np.empty(MOST_WORDS + NGRAM + 1, np.uint64),
            np.empty(2 * longest + 64, np.uint8),
            np.empty(64, np.uint8),
        )
        powers = np.array([pow(int(_STEP), int(length), 2**64) for length in index.lengths], np.uint64)
        _overlaps(data, offsets, word_table(), index.keys, index.sets, index.lengths, powers, scratch, counts, sets)
    return counts, sets


# -- kernels -----------------------------------------------------------------------------------------------------------


@kernel
def _insert(keys: np.ndarray, masks: np.ndarray, out_keys: np.ndarray, out_masks: np.ndarray) -> None:
    last = np.uint64(len(out_keys) - 1)
    for i in range(len(keys)):
        slot = keys[i] & last
        while out_keys[slot] != _EMPTY:
            slot = (slot + np.uint64(1)) & last
        out_keys[slot] = keys[i]
        out_masks[slot] = masks[i]


@kernel
def _overlaps(
    data: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    keys: np.ndarray,
    masks: np.ndarray,
    lengths: np.ndarray,
    powers: np.ndarray,
    scratch: tuple[np.ndarray, ...],
    counts: np.ndarray,
    sets: np.ndarray,
) -> None:
    """Fills counts and sets. `sums[i]` is the number whose digits are the first i words that are held.

    An n-gram that begins among the last words held waits for the next ones, so that each is looked up once.
    """
    starts, stops, hashes, sums, lowered, pad = scratch
    last = np.uint64(len(keys) - 1)
    longest = lengths[-1]
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        held, opened = 0, -1
        while at < stop:
            at, opened, found = find_words(data, at, stop, opened, table, pad, starts, stops)
            hash_words(data, starts, stops, found, table, lowered, hashes[held:])
            held += found
            sums[0] = np.uint64(0)
            for i in range(held):
                sums[i + 1] = sums[i] * _STEP + hashes[i]
            done = at >= stop
            ready = held if done else max(0, held - longest + 1)
            for first in range(ready):
                for which in range(len(lengths)):
                    length = lengths[which]
                    if first + length > held:
                        break
                    digits = sums[first + length] - sums[first] * powers[which]
                    key = mix(digits, _SEED + np.uint64(length))
                    if key == _EMPTY:
                        key = np.uint64(1)
                    slot = key & last
                    while keys[slot] != _EMPTY:
                        if keys[slot] == key:
                            counts[document] += 1
                            sets[document] |= masks[slot]
                            break
                        slot = (slot + np.uint64(1)) & last
            for i in range(ready, held):
                hashes[i - ready] = hashes[i]
            held -= ready
