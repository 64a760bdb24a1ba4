"""MinHash signatures of texts, LSH bands over them, and how they lie in Arrow columns.

A text is the set of its shingles (`ngram` consecutive words); two texts are as similar as their sets overlap (Jaccard;
Broder 1997, Lee et al. 2022 for language models). A signature holds, for each of `num_perm` permutations of the 32-bit
shingle hashes, the smallest value over the text: the share of equal minima estimates the similarity with standard error
sqrt(J (1 - J) / num_perm).

`words` says what a word is; punctuation separates and is otherwise not seen. A text of fewer than `ngram` words is one
shingle; a text without a word has no signature. Only the first `text_cap` bytes are read: in a text of many megabytes
nearly every minimum is that of a common phrase, so such texts pull unrelated ones into one cluster (seen by Marin).

Departure from datasketch: 32-bit multiply-add permutations (odd multiplier, modulo 2**32) instead of 61-bit arithmetic.
On well mixed shingle hashes the estimate keeps the standard error above, and eight permutations fit one vector
instruction. docs/normalisation.md is the specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.characters import word_table
from pipelines.dedup.words import (
    MOST_WORDS,
    find_words,
    hash_words,
    mix_reference,
    word_hash_reference,
    words_reference,
)
from quality.text import U0, buffers, hash_bytes, hash_bytes_reference, kernel, mix

NO_MINIMUM = np.uint32(0xFFFFFFFF)

_SHINGLE_SEED = np.uint64(0x77696E6E6F772073)
_BAND_SEED = np.uint64(0x77696E6E6F772062)
_WORD_STEP = np.uint64(0xF1357AEA2E62A9C5)  # odd; the words of a shingle are the digits of a number to this base
_LANES = 8  # shingles that share one pass over the permutations


@dataclass(frozen=True, slots=True)
class MinHashSpec:
    """What a signature depends on, besides the text. `text_cap` is in bytes of UTF-8."""

    num_perm: int
    ngram: int
    seed: int
    text_cap: int

    def permutations(self) -> tuple[np.ndarray, np.ndarray]:
        """(odd multipliers a, increments b), uint32 [num_perm]: permutation p takes x to a[p] x + b[p] modulo 2**32."""
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
    scratch = (
        np.empty(MOST_WORDS, np.int64),
        np.empty(MOST_WORDS, np.int64),
        np.empty(MOST_WORDS + spec.ngram, np.uint64),
        np.empty(MOST_WORDS + spec.ngram + _LANES, np.uint32),
        np.empty(2 * longest + 64, np.uint8),
        np.empty(64, np.uint8),
    )
    _sign(data, offsets, spec.text_cap, spec.ngram, word_table(), multipliers, increments, scratch, minima, words)
    return minima, words > 0


def signature_reference(text: str, spec: MinHashSpec) -> list[int] | None:
    """The minima of one text in plain Python; None without a word."""
    read = text.encode()[: spec.text_cap].decode(errors="ignore")  # a character that the cap cuts is not read
    hashes = [word_hash_reference(word) for word in words_reference(read)]
    if not hashes:
        return None
    size = min(spec.ngram, len(hashes))
    shingles = set()
    for first in range(len(hashes) - size + 1):
        digits = 0
        for word_hash in hashes[first : first + size]:
            digits = (digits * int(_WORD_STEP) + word_hash) % 2**64
        shingles.add(mix_reference(digits, int(_SHINGLE_SEED)) >> 32)
    multipliers, increments = (parameters.tolist() for parameters in spec.permutations())
    return [min((a * x + b) % 2**32 for x in shingles) for a, b in zip(multipliers, increments, strict=True)]


# -- what is done with signatures --------------------------------------------------------------------------------------


def band_hashes(minima: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands]: a hash of each band's number and its `rows` minima; what is left over is not used.

    `minima` is uint32 [documents, bands * rows or more]. Signatures that are not valid would all meet: leave them out.
    """
    if bands * rows > minima.shape[1]:
        raise ValueError(f"{bands} bands of {rows} rows need {bands * rows} minima, not {minima.shape[1]}")
    buckets = np.empty((len(minima), bands), np.uint64)
    _hash_bands(np.ascontiguousarray(minima, "<u4").view(np.uint8), rows, buckets)
    return buckets


def band_hash_reference(minima: Sequence[int], band: int) -> int:
    """One band's hash from its minima, in plain Python."""
    key = b"".join(minimum.to_bytes(4, "little") for minimum in minima)
    return hash_bytes_reference(key, mix_reference(int(_BAND_SEED), band))


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows) that datasketch takes for a Jaccard threshold: false positives and negatives are weighted alike."""
    from datasketch.lsh import _optimal_param  # the optimiser itself has no public name

    bands, rows = _optimal_param(threshold, num_perm, 0.5, 0.5)
    return int(bands), int(rows)


def agreement(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32 [pairs]: the share of equal minima, row by row: the estimate of Jaccard's similarity.

    The standard error is sqrt(J (1 - J) / num_perm), .04 at J = .8 of 112. Minima cut to 16 bits may be given: unequal
    ones then agree once in 65,536, which raises the estimate by (1 - J) / 65,536 on average.
    """
    equal: np.ndarray = np.count_nonzero(left == right, axis=1)
    return (equal / np.float64(left.shape[1])).astype(np.float32)


def pack(minima: np.ndarray, valid: np.ndarray) -> pa.Array:
    """binary [documents]: each row's minima as little-endian uint32 bytes, null where it is not valid."""
    width = minima.shape[1] * 4
    offsets = np.zeros(len(valid) + 1, np.int64)
    np.cumsum(valid * np.int64(width), out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{len(valid)} signatures of {width} bytes are too many for one array: pack fewer at a time")
    return pa.Array.from_buffers(
        pa.binary(),
        len(valid),
        [
            pa.py_buffer(np.packbits(valid, bitorder="little")),
            pa.py_buffer(offsets.astype(np.int32)),
            pa.py_buffer(np.ascontiguousarray(minima[valid], "<u4")),
        ],
    )


def unpack(array: pa.Array | pa.ChunkedArray, num_perm: int) -> tuple[np.ndarray, np.ndarray]:
    """(minima uint32 [documents, num_perm], valid bool [documents]) of a packed column; NO_MINIMUM where it is null."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    minima = np.full((len(array), num_perm), NO_MINIMUM, np.uint32)
    present = array.drop_null()
    if len(present) == 0:
        return minima, valid
    offsets = np.frombuffer(present.buffers()[1], np.int32)[present.offset : present.offset + len(present) + 1]
    sizes = np.unique(np.diff(offsets))
    if sizes.tolist() != [num_perm * 4]:
        raise ValueError(f"signatures of {sizes.tolist()} bytes, {num_perm * 4} expected: made with other permutations")
    values = np.frombuffer(present.buffers()[2], "<u4", count=len(present) * num_perm, offset=int(offsets[0]))
    minima[valid] = values.reshape(len(present), num_perm)
    return minima, valid


# -- kernels -----------------------------------------------------------------------------------------------------------


@kernel
def _sign(
    data: np.ndarray,
    offsets: np.ndarray,
    text_cap: int,
    ngram: int,
    table: np.ndarray,
    multipliers: np.ndarray,
    increments: np.ndarray,
    scratch: tuple[np.ndarray, ...],
    minima: np.ndarray,
    words: np.ndarray,
) -> None:
    """Fills minima and words (their number in each text)."""
    starts, stops, hashes, shingles, lowered, pad = scratch
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        if stop - at > text_cap:
            stop = at + text_cap
            while stop > at and data[stop] & 0xC0 == 0x80:
                stop -= 1
        row = minima[document]
        total, held, opened = 0, 0, -1
        while at < stop:
            at, opened, found = find_words(data, at, stop, opened, table, pad, starts, stops)
            hash_words(data, starts, stops, found, table, lowered, hashes[held:])
            total += found
            held = _lower_minima(hashes, held + found, ngram, multipliers, increments, shingles, row)
        if 0 < total < ngram:
            _lower_minima(hashes, held, total, multipliers, increments, shingles, row)
        words[document] = total


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
    """Takes the shingles of hashes[:held] into the minima; the words that later ones need move to the front.

    Answers with their number: ngram - 1, or fewer while there are no more.
    """
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


@kernel
def _hash_bands(minima_bytes: np.ndarray, rows: int, buckets: np.ndarray) -> None:
    """`minima_bytes` is the signature matrix, uint8 [documents, 4 * num_perm]."""
    for document in range(buckets.shape[0]):
        row = minima_bytes[document]
        for band in range(buckets.shape[1]):
            start = band * rows * 4
            buckets[document, band] = hash_bytes(row, start, start + rows * 4, mix(_BAND_SEED, np.uint64(band)))
