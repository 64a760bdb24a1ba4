"""MinHash signatures of texts, LSH bands over them, and how they lie in Arrow columns.

A text is the set of its shingles (`ngram` consecutive words); two texts are as similar as their sets overlap (Jaccard;
Broder 1997, Lee et al. 2022 for language models). A signature holds, for each of `num_perm` permutations of the 32-bit
shingle hashes, the smallest value over the text: the share of equal minima estimates the similarity with standard error
sqrt(J (1 - J) / num_perm).

Words are maximal runs of letters, marks and numbers, in lower case; scripts that are written without spaces give one word a
character (`characters.UNSPACED`), punctuation separates and is otherwise not seen. A text of fewer than `ngram` words is one
shingle; a text without a word has no signature. Only the first `text_cap` bytes are read: in a text of many megabytes
nearly every minimum is that of a common phrase, so such texts pull unrelated ones into one cluster (seen by Marin).

Departures from datasketch: 32-bit multiply-add permutations (odd multiplier, modulo 2**32) instead of 61-bit arithmetic.
On well mixed shingle hashes the estimate has no bias and the standard error above, and eight permutations fit one vector
instruction. docs/normalisation.md is the specification.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.characters import (
    CLASS_SHIFT,
    CODE_MASK,
    GAP,
    PART_OF_WORD,
    WORD_OF_ITS_OWN,
    encode,
    word_table,
)
from quality.text import (
    ALL,
    U0,
    U1,
    U63,
    U64,
    block,
    buffers,
    decode,
    hash_bytes,
    hash_bytes_reference,
    kernel,
    load64,
    mask_continuation,
    mask_digits,
    mask_high,
    mask_letters,
    mix,
    store64,
    trailing_zeros,
)

NO_MINIMUM = np.uint32(0xFFFFFFFF)

_WORD_SEED = np.uint64(0x77696E6E6F772077)  # "winnow w"
_SHINGLE_SEED = np.uint64(0x77696E6E6F772073)  # "winnow s"
_BAND_SEED = np.uint64(0x77696E6E6F772062)  # "winnow b"
_WORD_STEP = np.uint64(0xF1357AEA2E62A9C5)  # odd; words of a shingle are the digits of a number to this base
_LOWER = np.uint64(0x2020202020202020)  # turns ASCII capitals into small letters and leaves digits alone
_HIGH = np.uint64(0x8080808080808080)
_WORDS = 512  # hashed between two updates of the minima
_LANES = 8  # shingles that share one pass over the permutations


@dataclass(frozen=True, slots=True)
class MinHashSpec:
    """What a signature depends on, besides the text. `text_cap` is in bytes of UTF-8."""

    num_perm: int
    ngram: int
    seed: int
    text_cap: int

    def permutations(self) -> tuple[np.ndarray, np.ndarray]:
        """(odd multipliers, increments), both uint32 [num_perm]: permutation p takes x to a[p] x + b[p] modulo 2**32."""
        drawn = [
            hashlib.blake2b(f"winnow minhash {self.seed} {p}".encode(), digest_size=8).digest()
            for p in range(self.num_perm)
        ]
        pairs = np.frombuffer(b"".join(drawn), "<u4").reshape(self.num_perm, 2)
        return pairs[:, 0] | np.uint32(1), np.ascontiguousarray(pairs[:, 1])


def signatures(texts: pa.Array, spec: MinHashSpec) -> tuple[np.ndarray, np.ndarray]:
    """(minima uint32 [documents, num_perm], valid bool [documents]) of a string array.

    A text without a word is not valid, and its minima are all NO_MINIMUM.
    """
    data, offsets = buffers(texts)
    multipliers, increments = spec.permutations()
    minima = np.full((len(texts), spec.num_perm), NO_MINIMUM, np.uint32)
    words = np.zeros(len(texts), np.int64)
    longest = min(int(np.diff(offsets).max(initial=0)), spec.text_cap)
    _sign(
        data,
        offsets,
        spec.text_cap,
        spec.ngram,
        word_table(),
        multipliers,
        increments,
        np.empty(2 * longest + 64, np.uint8),
        np.empty(_WORDS + spec.ngram, np.uint64),
        np.empty(_WORDS + spec.ngram + _LANES, np.uint32),
        np.empty(64, np.uint8),
        minima,
        words,
    )
    return minima, words > 0


# -- kernel -----------------------------------------------------------------------------------------------------------------


@kernel
def _sign(
    data: np.ndarray,
    offsets: np.ndarray,
    text_cap: int,
    ngram: int,
    table: np.ndarray,
    multipliers: np.ndarray,
    increments: np.ndarray,
    lowered: np.ndarray,
    hashes: np.ndarray,
    shingles: np.ndarray,
    pad: np.ndarray,
    minima: np.ndarray,
    words: np.ndarray,
) -> None:
    """Fills minima and words (their number); `hashes` holds the text's latest words, `lowered` one word."""
    source, padding = data.ctypes.data, pad.ctypes.data
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        if stop - at > text_cap:
            stop = at + text_cap
            while stop > at and data[stop] & 0xC0 == 0x80:
                stop -= 1
        row = minima[document]
        total = 0
        held = 0
        opened = np.int64(-1)  # where the word began that the scan is in
        while at < stop:
            if at + 64 <= data.shape[0]:
                base, place = source, at
            else:
                block(data, at, pad)
                base, place = padding, np.int64(0)
            used = min(np.int64(64), stop - at)
            part = mask_letters(base, place) | mask_digits(base, place)
            alone = U0
            high = mask_high(base, place)
            if high != U0:
                part, alone, used = _patch(data, at, used, high & ~mask_continuation(base, place), part, table)
            inside = ALL >> np.uint64(64 - used)
            part &= inside
            edges = ((part ^ ((part << U1) | np.uint64(opened >= 0))) | alone) & inside
            while edges != U0:
                bit = trailing_zeros(edges)
                edges &= edges - U1
                if opened >= 0:
                    hashes[held] = _word_hash(data, source, opened, at + bit, table, lowered)
                    held += 1
                    opened = np.int64(-1)
                if (part >> np.uint64(bit)) & U1:
                    opened = at + bit
                elif (alone >> np.uint64(bit)) & U1:
                    hashes[held] = _word_hash(data, source, at + bit, at + bit + decode(data, at + bit)[1], table, lowered)
                    held += 1
                if held >= _WORDS:
                    total += held
                    held = _lower_minima(hashes, held, ngram, multipliers, increments, shingles, row)
                    total -= held
            at += used
        if opened >= 0:
            hashes[held] = _word_hash(data, source, opened, stop, table, lowered)
            held += 1
        total += held
        if total > 0:
            _lower_minima(hashes, held, min(ngram, total), multipliers, increments, shingles, row)
        words[document] = total


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
            used = np.int64(bit)
            break
        kind = table[code] >> CLASS_SHIFT
        if kind == PART_OF_WORD:
            part |= ((U1 << np.uint64(width)) - U1) << np.uint64(bit)
        elif kind == WORD_OF_ITS_OWN:
            alone |= U1 << np.uint64(bit)
    return part, alone, used


@kernel
def _word_hash(data: np.ndarray, source: int, start: int, stop: int, table: np.ndarray, lowered: np.ndarray) -> np.uint64:
    """The hash of the word data[start:stop]; nearly all words are ASCII and fit two loads, which cost no branch."""
    size = stop - start
    if size <= 16 and start + 16 <= data.shape[0]:
        spare = np.uint64(128 - 8 * size)  # bits of the two loads behind the word
        keep_first = ALL >> (max(spare, U64) - U64)
        keep_second = (ALL >> (spare & U63)) & (U0 - np.uint64(size > 8))
        first = load64(source, start) & keep_first
        second = load64(source, start + 8) & keep_second
        if (first | second) & _HIGH == U0:
            short = mix(_WORD_SEED ^ np.uint64(size), first | (_LOWER & keep_first))
            return mix(short, second | (_LOWER & keep_second)) if size > 8 else short
    return _long_word_hash(data, start, stop, table, lowered)


@kernel
def _long_word_hash(data: np.ndarray, start: int, stop: int, table: np.ndarray, lowered: np.ndarray) -> np.uint64:
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
    state = _WORD_SEED ^ np.uint64(size)
    target = lowered.ctypes.data
    for i in range(0, size, 8):
        state = mix(state, load64(target, i))
    return state


@kernel
def _lower_minima(
    hashes: np.ndarray,
    held: int,
    ngram: int,
    multipliers: np.ndarray,
    increments: np.ndarray,
    shingles: np.ndarray,
    minima: np.ndarray,
) -> int:
    """Takes the shingles of hashes[:held] into the minima; keeps the last ngram - 1 words for what follows, their number
    is the answer."""
    count = held - ngram + 1
    if count <= 0:
        return held
    for i in range(count):
        digits = U0
        for k in range(i, i + ngram):
            digits = digits * _WORD_STEP + hashes[k]
        shingles[i] = np.uint32(mix(digits, _SHINGLE_SEED) >> np.uint64(32))
    for i in range(count, count + (-count) % _LANES):
        shingles[i] = shingles[count - 1]  # a shingle seen twice changes nothing
    for i in range(0, count, _LANES):
        x0, x1, x2, x3 = shingles[i], shingles[i + 1], shingles[i + 2], shingles[i + 3]
        x4, x5, x6, x7 = shingles[i + 4], shingles[i + 5], shingles[i + 6], shingles[i + 7]
        for p in range(minima.shape[0]):
            a, b = multipliers[p], increments[p]
            low = min(minima[p], np.uint32(x0 * a + b))
            low = min(low, np.uint32(x1 * a + b))
            low = min(low, np.uint32(x2 * a + b))
            low = min(low, np.uint32(x3 * a + b))
            low = min(low, np.uint32(x4 * a + b))
            low = min(low, np.uint32(x5 * a + b))
            low = min(low, np.uint32(x6 * a + b))
            minima[p] = min(low, np.uint32(x7 * a + b))
    for k in range(ngram - 1):
        hashes[k] = hashes[count + k]
    return ngram - 1
