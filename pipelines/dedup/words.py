"""The words of a text and their 64-bit hashes, for MinHash: found 64 bytes at a time, in UTF-8 as it lies in Arrow.

A word is a maximal run of letters, marks and numbers (Unicode categories L, M and N), in lower case character by
character; in scripts written without spaces (`characters.UNSPACED`) every such character is a word of its own.
Everything else is a gap. The hash takes the lower-case UTF-8 eight bytes at a time, the last ones zero-filled; the
length goes into the start value.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from pipelines.dedup.characters import (
    CLASS_SHIFT,
    CODE_MASK,
    PART_OF_WORD,
    UNSPACED,
    WORD_OF_ITS_OWN,
    encode,
)
from quality.text import (
    ALL,
    U0,
    U1,
    block,
    decode,
    kernel,
    load64,
    mask_continuation,
    mask_digits,
    mask_high,
    mask_letters,
    mix,
    trailing_zeros,
)

WORDS_AT_ONCE = 512  # found, hashed and used before the scan goes on
MOST_WORDS = WORDS_AT_ONCE + 64  # that `find_words` may write: a block is finished before the count is looked at
WORD_SEED = np.uint64(0x77696E6E6F772077)

_LOWER = np.uint64(0x2020202020202020)  # turns ASCII capitals into small letters and leaves digits alone
_HIGH = np.uint64(0x8080808080808080)


def words_reference(text: str) -> list[str]:
    """The words of a text, in plain Python."""
    words: list[str] = []
    run = ""
    for character in text:
        counts = unicodedata.category(character)[0] in "LMN"
        alone = counts and any(first <= ord(character) <= last for first, last in UNSPACED)
        if counts and not alone:
            lower = character.lower()
            run += lower if len(lower) == 1 else character
            continue
        words += [run] * bool(run) + [character] * alone
        run = ""
    return words + [run] * bool(run)


def word_hash_reference(word: str) -> int:
    """The hash of a word of `words_reference`, in plain Python."""
    key = word.encode()
    state = int(WORD_SEED) ^ len(key)
    for at in range(0, len(key), 8):
        state = mix_reference(state, int.from_bytes(key[at : at + 8], "little"))
    return state


def mix_reference(left: int, right: int) -> int:
    """`quality.text.mix` in plain Python."""
    product = (left ^ 0xA0761D6478BD642F) * (right ^ 0x9E3779B97F4A7C15)
    return (product ^ (product >> 64)) & 0xFFFFFFFFFFFFFFFF


# -- kernels -----------------------------------------------------------------------------------------------------------
# What runs once a word takes addresses and numbers only: numba counts references, atomically, for arrays that are
# handed to a function, and that cost more than the hash.


@kernel
def find_words(
    data: np.ndarray,
    at: int,
    stop: int,
    opened: int,
    table: np.ndarray,
    pad: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
) -> tuple[int, int, int]:
    """Writes the bounds of the next words of data[at:stop] until there are `WORDS_AT_ONCE` or the text ends.

    `opened` is where the word began that the scan is in, or -1. Answers (at, opened, words found).
    """
    source, padding = data.ctypes.data, pad.ctypes.data
    found = 0
    while at < stop and found < WORDS_AT_ONCE:
        if at + 64 <= data.shape[0]:
            base, place = source, at
        else:
            block(data, at, pad)
            base, place = padding, 0
        used = min(64, stop - at)
        part = mask_letters(base, place) | mask_digits(base, place)
        alone = U0
        leads = mask_high(base, place) & ~mask_continuation(base, place)
        if leads != U0:
            part, alone, used = _patch(data, at, used, leads, part, table)
        inside = ALL >> np.uint64(64 - used)
        part &= inside
        edges = ((part ^ ((part << U1) | np.uint64(opened >= 0))) | alone) & inside
        while edges != U0:
            bit = trailing_zeros(edges)
            edges &= edges - U1
            if opened >= 0:
                starts[found], stops[found] = opened, at + bit
                found += 1
                opened = -1
            if (part >> np.uint64(bit)) & U1 != U0:
                opened = at + bit
            elif (alone >> np.uint64(bit)) & U1 != U0:
                starts[found], stops[found] = at + bit, at + bit + decode(data, at + bit)[1]
                found += 1
        at += used
    if at >= stop and opened >= 0:
        starts[found], stops[found] = opened, stop
        found += 1
    return at, opened, found


@kernel
def _patch(
    data: np.ndarray, at: int, used: int, leads: np.uint64, part: np.uint64, table: np.ndarray
) -> tuple[np.uint64, np.uint64, int]:
    """(bytes in words, first bytes of words of their own, bytes used) of a block with non-ASCII characters at `leads`.

    A character that does not end within the block is left to the next one.
    """
    alone = U0
    while leads != U0:
        bit = trailing_zeros(leads)
        if bit >= used:
            break
        leads &= leads - U1
        code, width = decode(data, at + bit)
        if bit + width > used:
            used = bit
            break
        kind = table[code] >> CLASS_SHIFT
        if kind == PART_OF_WORD:
            part |= ((U1 << np.uint64(width)) - U1) << np.uint64(bit)
        elif kind == WORD_OF_ITS_OWN:
            alone |= U1 << np.uint64(bit)
    return part, alone, used


@kernel
def hash_words(
    data: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    count: int,
    table: np.ndarray,
    lowered: np.ndarray,
    hashes: np.ndarray,
) -> None:
    """hashes[i] of the word data[starts[i]:stops[i]]; nearly all words are ASCII and fit two loads."""
    source = data.ctypes.data
    for i in range(count):
        start, size = starts[i], stops[i] - starts[i]
        if size <= 16 and start + 16 <= data.shape[0] and _is_ascii(source, start, size):
            hashes[i] = _short_word_hash(source, start, size)
        else:
            hashes[i] = _word_hash(data, start, stops[i], table, lowered)


@kernel
def _keep(size: int) -> tuple[np.uint64, np.uint64]:
    """Masks of the first `size` (1 to 16) bytes of two eight-byte loads."""
    first = ALL >> np.uint64(64 - 8 * min(size, 8))
    second = ALL >> np.uint64(128 - 8 * size) if size > 8 else U0
    return first, second


@kernel
def _is_ascii(source: int, start: int, size: int) -> bool:
    first, second = _keep(size)
    return ((load64(source, start) & first) | (load64(source, start + 8) & second)) & _HIGH == U0


@kernel
def _short_word_hash(source: int, start: int, size: int) -> np.uint64:
    """`_word_hash` of 1 to 16 ASCII bytes; both cases are computed, which is cheaper than a branch foretold badly."""
    first, second = _keep(size)
    short = mix(WORD_SEED ^ np.uint64(size), (load64(source, start) | _LOWER) & first)
    long = mix(short, (load64(source, start + 8) | _LOWER) & second)
    return long if size > 8 else short


@kernel
def _word_hash(data: np.ndarray, start: int, stop: int, table: np.ndarray, lowered: np.ndarray) -> np.uint64:
    """The hash of any word: its lower case goes to `lowered`, then eight bytes at a time, the last ones zero-filled."""
    size = 0
    at = start
    while at < stop:
        if data[at] < 0x80:
            lowered[size] = data[at] | 0x20
            size += 1
            at += 1
        else:
            code, width = decode(data, at)
            size += encode(table[code] & CODE_MASK, lowered, size)
            at += width
    for i in range(size, size + 8):
        lowered[i] = 0
    target = lowered.ctypes.data
    state = WORD_SEED ^ np.uint64(size)
    for i in range(0, size, 8):
        state = mix(state, load64(target, i))
    return state
