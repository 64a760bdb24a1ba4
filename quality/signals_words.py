"""The words of a text, out of its bitmaps: a 64-bit hash each, and how many characters the words before it have.

The hash of up to 16 bytes is one multiplication of two loads, zero-filled, xored with their number. Both factors have
been xored with a byte that UTF-8 does not have, so neither is ever zero. Longer words go through `hash_bytes`.
"""

from __future__ import annotations

import numpy as np

from quality.signals_masks import LEAD, NONSPACE, REFUSED
from quality.signals_reference import C4_LONGEST_WORD
from quality.text import ALL, U0, U1, U63, fold, hash_bytes, kernel, load64, popcount, trailing_zeros

_FIRST, _SECOND = np.uint64(0xF5C1FBA7E3F9D2FF), np.uint64(0xFFCBF6E1FDAEC3F7)
_LENGTH, _LONG_SEED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x9D8C6F2B51E7A34D)
_INLINE = 16


@kernel
def hash_words(
    data: np.ndarray, start: int, masks: np.ndarray, blocks: int, keys: np.ndarray, reach: np.ndarray
) -> int:
    """Writes the hash of every word of the text that begins at `start`; returns the number of words.

    keys: uint64 [words]. reach: int32 [words + 1], characters in the words before. A word that C4 takes for no word is
    marked in the bitmap REFUSED at its last byte.
    """
    base, size = data.ctypes.data, data.shape[0]
    words, characters, opened = 0, 0, 0
    before = U0  # 1 within a word at the end of the block before
    reach[0] = 0
    for number in range(blocks):
        nonspace = masks[number, NONSPACE]
        counted = masks[number, LEAD] & nonspace
        shifted = (nonspace << U1) | before
        starts, ends = nonspace & ~shifted, shifted & ~nonspace
        at = start + 64 * number
        if before == U0:
            opened = at + trailing_zeros(starts)
            starts &= starts - U1
        before = nonspace >> U63
        while ends != U0:
            bit = trailing_zeros(ends)
            ends &= ends - U1
            length = at + bit - opened
            if length <= _INLINE and opened + _INLINE <= size:
                key = _short_hash(load64(base, opened), load64(base, opened + 8), length)
            else:
                key = word_hash(data, opened, at + bit)
            keys[words] = key
            words += 1
            reach[words] = characters + popcount(counted & ((U1 << np.uint64(bit)) - U1))
            if length > C4_LONGEST_WORD and reach[words] - reach[words - 1] > C4_LONGEST_WORD:
                last = at + bit - 1 - start
                masks[last >> 6, REFUSED] |= U1 << np.uint64(last & 63)
            opened = at + trailing_zeros(starts)
            starts &= starts - U1
        characters += popcount(counted)
    return words


@kernel
def _short_hash(first: np.uint64, second: np.uint64, length: int) -> np.uint64:
    """The hash of a word of 1 to 16 bytes, the first ones of two loads."""
    first &= ALL >> np.uint64(64 - 8 * min(length, 8))
    second = second & (ALL >> np.uint64(128 - 8 * length)) if length > 8 else U0
    return fold(first ^ _FIRST, second ^ _SECOND) ^ (np.uint64(length) * _LENGTH)


@kernel
def word_hash(data: np.ndarray, start: int, stop: int) -> np.uint64:
    """The hash of the word data[start:stop], wherever it stands."""
    if stop - start > _INLINE:
        return hash_bytes(data, start, stop, _LONG_SEED)
    first, second = U0, U0
    for i in range(stop - start):
        if i < 8:
            first |= np.uint64(data[start + i]) << np.uint64(8 * i)
        else:
            second |= np.uint64(data[start + i]) << np.uint64(8 * (i - 8))
    return _short_hash(first, second, stop - start)
