"""Hashed word 1-2-grams, compiled: the feature sets of a batch, and the score of a batch without building them.

Words are what ASCII white space of `str.split` leaves apart, ASCII letters lower-cased; features are the set of words and of
pairs of neighbours, hashed to 2^bits buckets; a row has the value 1 / sqrt(features) in each of them (L2 norm 1). Only the
first `TEXT_CAP` bytes of a text count, so that length is no feature. `features_reference` says all of it in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quality.text import U0, U1, fold, kernel, mix

TEXT_CAP = 10_000
_WORD = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def new_seen(bits: int) -> np.ndarray:
    """uint64 [2^bits / 64], zero: a bit for every bucket. Of 20 bits it stays in the processor's cache, so that it costs little."""
    return np.zeros(max(1, (1 << bits) >> 6), np.uint64)


_BLANK = 32
# Bytes as words see them: blanks are one, ASCII letters are lower-case.
_FOLDED = np.array([_BLANK if 9 <= b <= 13 or 28 <= b <= 31 else b + 32 if 65 <= b <= 90 else b for b in range(256)], np.uint8)


@kernel
def document_features(data: np.ndarray, start: int, stop: int, bits: int, seen: np.ndarray, out: np.ndarray) -> int:
    """Writes the distinct features of one text into out (int32), in order of first occurrence; returns how many.

    seen: see `new_seen`, left as it was found. out: room for one more than there are.
    """
    stop = min(stop, start + TEXT_CAP)
    shift = np.uint64(64 - bits)
    count = 0
    previous = U0
    at = start
    while at < stop:
        byte = _FOLDED[data[at]]
        if byte == _BLANK:
            at += 1
            continue
        state = _WORD
        while byte != _BLANK:
            state = (state ^ np.uint64(byte)) * _PRIME
            at += 1
            byte = _FOLDED[data[at]] if at < stop else np.uint8(_BLANK)
        word = fold(state, _SPREAD)
        count = _add(np.int64(word >> shift), seen, out, count)
        if previous != U0:
            count = _add(np.int64(mix(previous, word) >> shift), seen, out, count)
        previous = word
    for i in range(count):
        seen[out[i] >> 6] = U0
    return count


@kernel
def _add(place: int, seen: np.ndarray, out: np.ndarray, count: int) -> Any:
    """Writes a feature to out[count], to stay if it was not seen before; returns the new count. A branch could not be foretold."""
    word, bit = seen[place >> 6], np.uint64(place & 63)
    out[count] = place
    seen[place >> 6] = word | (U1 << bit)
    return count + np.int64(((word >> bit) & U1) ^ U1)


@kernel
def batch_features(
    data: np.ndarray, offsets: np.ndarray, bits: int, seen: np.ndarray, indptr: np.ndarray, indices: np.ndarray
) -> int:
    """CSR rows of a batch: indptr int64 [n + 1], indices int32 [enough: one a byte of capped text]; returns the total."""
    total = 0
    indptr[0] = 0
    for document in range(offsets.shape[0] - 1):
        total += document_features(
            data, offsets[document], offsets[document + 1], bits, seen, indices[total:]
        )
        indptr[document + 1] = total
    return total


@kernel
def batch_margins(
    data: np.ndarray,
    offsets: np.ndarray,
    bits: int,
    weights: np.ndarray,
    bias: float,
    seen: np.ndarray,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """out float64 [n]: bias + sum of weights / sqrt(features), summed in order of first occurrence."""
    for document in range(offsets.shape[0] - 1):
        count = document_features(data, offsets[document], offsets[document + 1], bits, seen, scratch)
        total = 0.0
        for i in range(count):
            total += weights[scratch[i]]
        out[document] = bias + total / np.sqrt(max(count, 1))


def words_reference(text: bytes) -> list[bytes]:
    """The words of a text's UTF-8, in plain Python."""
    blanks = bytes([*range(9, 14), *range(28, 33)])
    return text[:TEXT_CAP].translate(bytes.maketrans(blanks, b" " * len(blanks))).lower().split(b" ")


def features_reference(text: bytes, bits: int) -> dict[int, list[bytes]]:
    """Bucket -> the words and pairs that fall into it, in plain Python."""
    full = (1 << 64) - 1

    def folded(left: int, right: int) -> int:
        product = left * right
        return (product & full) ^ (product >> 64)

    def word_hash(word: bytes) -> int:
        state = int(_WORD)
        for byte in word:
            state = (state ^ byte) * int(_PRIME) & full
        return folded(state, int(_SPREAD))

    found: dict[int, list[bytes]] = {}
    previous: tuple[int, bytes] | None = None
    for word in words_reference(text):
        if not word:
            continue
        hashed = word_hash(word)
        names = [(hashed, word)]
        if previous is not None:
            pair = folded(previous[0] ^ 0xA0761D6478BD642F, hashed ^ 0x9E3779B97F4A7C15)
            names.append((pair, previous[1] + b" " + word))
        for value, name in names:
            uses = found.setdefault(value >> (64 - bits), [])
            if name not in uses:
                uses.append(name)
        previous = (hashed, word)
    return found


