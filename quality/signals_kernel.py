"""The counters of a batch of texts, compiled; equal to `signals_reference` integer for integer.

    signals_masks    bytes -> bitmaps of words, characters, lines; counters of characters and symbols
    signals_words    bitmaps -> a hash of every word
    signals_ngrams   hashes -> repeated n-grams
    signals_lines    bitmaps -> counters of lines, C4's judgement, repeated lines and paragraphs

The kernels allocate nothing: they work in a Scratch with room for the longest text of the batch. That is 31 bytes for
every byte of it, all of them used only by a text of single letters on lines of their own; prose uses about 8, and the
pages of the rest are never touched. Time is linear in the bytes, whatever they are.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from quality.signals_lines import BODY, count_lines
from quality.signals_masks import BITMAPS, mark
from quality.signals_ngrams import Names, count_ngrams, new_names
from quality.signals_reference import COUNTERS, STOP_WORDS
from quality.signals_words import hash_words, word_hash
from quality.text import buffers, kernel, python_classes

LONGEST_TEXT = (1 << 31) - 1  # bytes; places and counts are int32


class Scratch(NamedTuple):
    """Memory for texts of up to `longest` bytes; for one thread at a time."""

    longest: int
    pad: np.ndarray  # uint8 [64]
    masks: np.ndarray  # uint64 [blocks, BITMAPS]
    reach: np.ndarray  # int32 [words + 1]
    body: np.ndarray  # int32 [lines, BODY]
    names: Names


def new_scratch(longest: int) -> Scratch:
    """Scratch for texts of up to `longest` bytes."""
    most = longest // 2 + 1  # words, or non-empty lines: there is a byte between two
    return Scratch(
        longest,
        np.empty(64, np.uint8),
        np.empty((longest // 64 + 1, BITMAPS), np.uint64),
        np.empty(most + 1, np.int32),
        np.empty((most, BODY), np.int32),
        new_names(most),
    )


def count(texts: pa.Array, scratch: Scratch) -> np.ndarray:
    """int64 [n, len(COUNTERS)] of large_string [n] without nulls, none of them longer than `scratch.longest` bytes."""
    data, offsets = buffers(texts)
    counts = np.zeros((len(texts), len(COUNTERS)), np.int64)
    _count(data, offsets, _classes(), _stop_words(), scratch, counts)
    return counts


@functools.cache
def _classes() -> np.ndarray:
    return python_classes()


@functools.cache
def _stop_words() -> np.ndarray:
    """uint64 [8]: the hashes of the stop words."""
    words = [np.array(list(word.encode()), np.uint8) for word in STOP_WORDS]
    return np.array([word_hash(word, 0, len(word)) for word in words], np.uint64)


@kernel
def _count(
    data: np.ndarray,
    offsets: np.ndarray,
    classes: np.ndarray,
    stop_words: np.ndarray,
    scratch: Scratch,
    counts: np.ndarray,
) -> None:
    masks, reach, body, names = scratch.masks, scratch.reach, scratch.body, scratch.names
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        row = counts[text]
        blocks = mark(data, start, stop, classes, scratch.pad, masks, row)
        words = hash_words(data, start, masks, blocks, names.keys, reach)
        count_ngrams(reach, words, stop_words, names, row)
        count_lines(data, start, masks, blocks, body, names, row)
