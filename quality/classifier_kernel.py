"""Hashed word 1-2-grams, compiled: the feature sets of a batch, and the score of a batch without building them.

Words are what ASCII white space of `str.split` leaves apart, ASCII letters lower-cased; features are the set of words and of
pairs of neighbours, hashed to 2^bits buckets; a row has the value 1 / sqrt(features) in each of them (L2 norm 1). Only the
first `TEXT_CAP` bytes of a text count, so that length is no feature. `features_reference` says all of it in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quality.text import ALL, U0, U1, U63, block, fold, inlined, kernel, load64, mask_split_space, mix, trailing_zeros

TEXT_CAP = 10_000
_WORD = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_U6 = np.uint64(6)
_ONES = 0x0101010101010101
_SEVEN, _EIGHTH, _FROM_A, _FROM_BRACKET = (np.uint64(_ONES * n) for n in (127, 128, 128 - ord("A"), 128 - ord("[")))


def new_seen(bits: int) -> np.ndarray:
    """uint64 [2^bits / 64], zero: a bit for every bucket. Of 20 bits it stays in the processor's cache, so that it costs little."""
    return np.zeros(max(1, (1 << bits) >> 6), np.uint64)


# Bytes as words see them: ASCII letters are lower-case.
_LOWER = np.array([b + 32 if 65 <= b <= 90 else b for b in range(256)], np.uint8)


@kernel
def document_features(
    data: np.ndarray, start: int, stop: int, bits: int, seen: np.ndarray, pad: np.ndarray, out: np.ndarray
) -> int:
    """Writes the distinct features of one text into out (int32), in order of first occurrence; returns how many.

    seen: see `new_seen`, left as it was found. pad: uint8 [>= 64], see `block`. out: room for one more than there are.
    """
    stop = min(stop, start + TEXT_CAP)
    base, size = data.ctypes.data, data.shape[0]
    shift = np.uint64(64 - bits)
    count: Any = U0
    begin = start
    previous = carry = U0
    for at in range(start, stop + 1, 64):  # a text of whole blocks ends in one more, of blanks
        if at + 64 <= size:
            blank = mask_split_space(base, at)
        else:
            block(data, at, pad)
            blank = mask_split_space(pad.ctypes.data, 0)
        if stop - at < 64:
            blank |= ALL << np.uint64(stop - at)
        edges = ~blank ^ ((~blank << U1) | carry)
        carry = ~blank >> U63
        while edges != U0:
            place = np.uint64(trailing_zeros(edges))
            edges &= edges - U1
            here: Any = at + np.int64(place)
            if (blank >> place) & U1 == U0:
                begin = here
                continue
            if here - begin <= 8 and begin + 8 <= size:
                state = _short_word(load64(base, begin), here - begin)
            else:
                state = _WORD
                for i in range(begin, here):
                    state = (state ^ np.uint64(_LOWER[data[i]])) * _PRIME
            word = fold(state, _SPREAD)
            count = _add(word >> shift, seen, out, count)
            if previous != U0:
                count = _add(mix(previous, word) >> shift, seen, out, count)
            previous = word
    found: Any = np.int64(count)
    for i in range(found):
        seen[np.uint64(out[i]) >> _U6] = U0
    return found


@inlined
def _short_word(word: np.uint64, size: int) -> np.uint64:
    """FNV-1a of the first `size` (1 to 8) bytes, in lower case. All eight are hashed: a loop's end could not be foretold."""
    low = word & _SEVEN
    capitals = (low + _FROM_A) & ~(low + _FROM_BRACKET) & ~word & _EIGHTH
    word |= capitals >> np.uint64(2)
    state = _WORD
    for i in range(8):
        more = (state ^ ((word >> np.uint64(8 * i)) & np.uint64(255))) * _PRIME
        state = more if i < size else state
    return state


@inlined
def _add(place: np.uint64, seen: np.ndarray, out: np.ndarray, count: np.uint64) -> Any:
    """Writes a feature to out[count], to stay if it was not seen before; returns the new count. A branch could not be foretold.

    Places and count are unsigned: of a signed index compiled code asks whether it counts from the end.
    """
    word, bit = seen[place >> _U6], place & U63
    out[count] = np.int32(place)
    seen[place >> _U6] = word | (U1 << bit)
    return count + (((word >> bit) & U1) ^ U1)


@kernel
def batch_features(
    data: np.ndarray, offsets: np.ndarray, bits: int, seen: np.ndarray, indptr: np.ndarray, indices: np.ndarray
) -> int:
    """CSR rows of a batch: indptr int64 [n + 1], indices int32 [enough: one a byte of capped text]; returns the total."""
    total = 0
    pad = np.empty(64, np.uint8)
    indptr[0] = 0
    for document in range(offsets.shape[0] - 1):
        total += document_features(
            data, offsets[document], offsets[document + 1], bits, seen, pad, indices[total:]
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
    pad = np.empty(64, np.uint8)
    for document in range(offsets.shape[0] - 1):
        count = document_features(data, offsets[document], offsets[document + 1], bits, seen, pad, scratch)
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


