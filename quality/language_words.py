"""The rows of words: a word's own where the vocabulary has it, and those of its character n-grams that pruning has left.

As fastText does it (dictionary.cc): the word goes between "<" and ">"; at each of its characters begin n-grams of 2, 3 and
4 characters; an n-gram's bucket is its FNV-1a hash, bytes sign-extended to 32 bits, modulo 2,000,000. Pruning has left
42,765 of the buckets, and about one n-gram in ten has a row. So an n-gram is first looked up in `near`, a bit for each
residue of a bucket modulo 2^18, whose 32 kB stay in the nearest memory; what passes there (a quarter), among the kept
buckets of its residue modulo 2^13, all compared at once. Both append without a branch: written always, counted if it passes.
N-grams are hashed sixteen at a time.

Words go in batches, and a window of so many bytes of each, so that a word of any length needs no more memory than a short
one. (Numba counts references to every array at every call, at the cost of a dozen n-grams: hence no call for each word.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from quality.language_model import BUCKETS, DIM, END, LABEL, LONGEST, Classifier
from quality.text import U0, U1, U63, block, fold, inlined, kernel, load64, mask_high, store64, trailing_zeros


class Words(NamedTuple):
    """What the kernel reads of a classifier to find the rows of words."""

    near: np.ndarray  # uint64 [2^18 / 64]: bits of the residues that some kept bucket has
    groups: np.ndarray  # uint16 [2^13 + 1]: where the kept buckets of a residue modulo 2^13 begin
    marks: np.ndarray  # uint8 [kept + 16]: their higher bits
    vocabulary: np.ndarray  # uint32 [power of two]: bits of the hash_key of a word << 13 | its row + 1; 0 where free
    spelling: np.ndarray  # uint8: the vocabulary's words, one after the other
    spelling_offsets: np.ndarray  # int64 [words + 1]


class Scratch(NamedTuple):
    """Memory of `append_rows`; for one thread at a time."""

    spelled: np.ndarray  # uint8: the window
    states: np.ndarray  # uint32 [16]
    lanes: np.ndarray  # uint32 [16, ..]: buckets of the n-grams of 1.. bytes
    maybe: np.ndarray  # uint32: buckets that passed `near`
    stops: np.ndarray  # int64: how many buckets passed before each word
    upto: np.ndarray  # int32: how many rows were written before each bucket
    characters: np.ndarray  # int64: where they begin
    pad: np.ndarray  # uint8 [64]


KEY = 32  # bytes of a word's key: of the word, or of its beginning
WINDOW = 256  # bytes of "<word>" in which n-grams begin that are looked up together
_LANES = 16
_MOST_MAYBE = 8192  # buckets that pass `near` in a round, at the very most
_BITS = 13
_AHEAD = 4 * LONGEST  # bytes of the longest n-gram, so that it may reach beyond the window
_ROOM = WINDOW + _AHEAD + _LANES
_NEAR = 1 << 18
_GROUP = (1 << _BITS) - 1
_GROUP32 = np.uint32(_GROUP)
_BITS32, _B32 = np.uint32(_BITS), np.uint32(BUCKETS)
_OPEN, _CLOSE, _UNDERSCORE = (np.uint8(ord(sign)) for sign in "<>_")
_OFFSET, _PRIME = 2166136261, 16777619
_FIRST, _TIMES, _BUCKETS = np.uint32(_OFFSET), np.uint32(_PRIME), np.uint32(BUCKETS)
_LOW, _U6, _U2, _U3 = np.uint64(_NEAR - 1), np.uint64(6), np.uint64(2), np.uint64(3)
_LABEL_START = np.uint64(int.from_bytes(LABEL[:8], "little"))
_END = np.uint64(int.from_bytes(END, "little"))
_MIX = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F))
_M0, _M1, _M2 = _MIX

# [bytes of a key]: the bits of its four words that are the key's.
_KEEP = np.array([[(1 << 8 * min(max(n - 8 * word, 0), 8)) - 1 for word in range(4)] for n in range(KEY + 1)], np.uint64)


# -- tables ----------------------------------------------------------------------------------------------------------------


def new_scratch() -> Scratch:
    """Scratch for one thread."""
    return Scratch(
        np.zeros(_ROOM + 64, np.uint8),
        np.zeros(_LANES, np.uint32),
        np.zeros((_AHEAD, _ROOM), np.uint32),
        np.zeros(_MOST_MAYBE, np.uint32),
        np.zeros(1024, np.int64),
        np.zeros(_MOST_MAYBE+1, np.int32),
        np.zeros(_ROOM + 1, np.int64),
        np.zeros(64, np.uint8),
    )


def aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros that begin at a cache line, so that a row of 64 bytes lies in one line and not in two."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = np.zeros(size + 64, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + size].view(dtype).reshape(shape)


def tables(classifier: Classifier) -> tuple[Words, np.ndarray]:
    """(what finds rows, float32 [rows, DIM]: the rows in the order in which it numbers them: words, n-grams by bucket)."""
    buckets = classifier.ngrams[:, 0]
    order = np.lexsort((buckets, buckets & _GROUP))
    buckets, places = buckets[order], classifier.ngrams[order, 1]
    words = len(classifier.words)
    near = np.zeros(_NEAR // 64, np.uint64)
    low = buckets & (_NEAR - 1)
    np.bitwise_or.at(near, low >> 6, U1 << (low & 63).astype(np.uint64))
    sizes = np.bincount(buckets & _GROUP, minlength=_GROUP + 1)
    assert sizes.max() <= _LANES
    groups = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint16)
    marks = np.zeros(len(buckets) + _LANES, np.uint8)
    marks[: len(buckets)] = buckets >> _BITS
    rows = aligned((words + len(buckets), DIM), np.float32)
    rows[:words], rows[words:] = classifier.rows[:words], classifier.rows[words + places]
    spelling = np.frombuffer(b"".join(classifier.words), np.uint8)
    offsets = np.cumsum([0, *map(len, classifier.words)]).astype(np.int64)
    return Words(near, groups, marks, _vocabulary(spelling, offsets), spelling, offsets), rows


@kernel
def _vocabulary(spelling: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The open-addressed table of the vocabulary's words."""
    capacity = 4
    while capacity < 2 * offsets.shape[0]:
        capacity *= 2
    slots, pad = np.zeros(capacity, np.uint32), np.zeros(64, np.uint8)
    for word in range(offsets.shape[0] - 1):
        begin, size = offsets[word], offsets[word + 1] - offsets[word]
        first, second, third, fourth = word_key(spelling, spelling.ctypes.data, begin, size, pad)
        hashed = hash_key(first, second, third, fourth)
        slot = np.int64(hashed >> _U6) & (capacity - 1)
        while slots[slot] != 0:
            slot = (slot + 1) & (capacity - 1)
        slots[slot] = (np.uint32(hashed >> np.uint64(45)) << np.uint32(_BITS)) | np.uint32(word + 1)
    return slots


# -- keys ------------------------------------------------------------------------------------------------------------------


@inlined
def word_key(
    data: np.ndarray, base: int, begin: int, size: int, pad: np.ndarray
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The first KEY bytes of the word of `size` bytes at `begin`, in four zero-filled words; base: data's address."""
    source = base + begin
    if begin + KEY > data.shape[0]:
        block(data, begin, pad)
        source = pad.ctypes.data
    held = np.uint64(min(size, KEY))
    first, second = load64(source, 0) & _KEEP[held, 0], load64(source, 8) & _KEEP[held, 1]
    third, fourth = U0, U0
    if size > 16:
        third, fourth = load64(source, 16) & _KEEP[held, 2], load64(source, 24) & _KEEP[held, 3]
    return first, second, third, fourth


@inlined
def hash_key(first: np.uint64, second: np.uint64, third: np.uint64, fourth: np.uint64) -> np.uint64:
    """64 bits of a key."""
    hashed = fold(first ^ _M0, second ^ _M1)
    if third != U0:
        hashed = fold(hashed ^ third, fourth ^ _M2)
    return hashed


# -- rows ------------------------------------------------------------------------------------------------------------------


@kernel
def append_rows(
    data: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    hashes: np.ndarray,
    chosen: np.ndarray,
    count: int,
    first: int,
    words: Words,
    scratch: Scratch,
    rows: np.ndarray,
    places: np.ndarray,
) -> None:
    """The rows of the words chosen[:count]: word number w is data[begins[w] : ends[w]], with hash_key hashes[w].

    Of "<word>", n-grams that begin in the WINDOW bytes from byte `first` on; the word's own row goes with first = 0.
    rows: uint16, written from 0 on. places: int64 [count + 1], where the rows of each begin, and the end of the last.
    """
    near, groups, marks, vocabulary, spelling, spelling_offsets = words
    spelled, states, lanes, maybe, stops, upto, characters, _ = scratch
    base, spelled_base, lanes_base, states_base = data.ctypes.data, spelled.ctypes.data, lanes.ctypes.data, states.ctypes.data
    marks_base = marks.ctypes.data
    lane_bytes = lanes.shape[1] * 4
    last_slot = np.uint64(vocabulary.shape[0] - 1)
    passed: Any = U0
    for item in range(count):
        stops[item] = np.int64(passed)
        word = np.uint64(chosen[item])
        begin, size = begins[word], ends[word] - begins[word]
        # Spell the window.
        limit = min(WINDOW + _AHEAD, size + 2 - first)  # bytes of "<word>" that are looked at
        stop = np.uint64(min(WINDOW, limit))  # n-grams begin before
        spelled[0] = _OPEN
        to = 1 if first == 0 else 0
        source = begin + first + to - 1
        if source + limit + 16 <= data.shape[0]:
            while to < limit:
                store64(spelled_base, to, load64(base, source))
                store64(spelled_base, to + 8, load64(base, source + 8))
                to += 16
                source += 16
        else:
            while to < limit:
                spelled[to] = data[min(source, data.shape[0] - 1)]
                to += 1
                source += 1
        if first + limit == size + 2:
            spelled[np.uint64(limit - 1)] = _CLOSE
        if first == 0:
            if size == 4 and load64(spelled_base, 1) & _KEEP[4, 0] == _END:
                continue
            if size >= 9 and load64(spelled_base, 1) == _LABEL_START and spelled[9] == _UNDERSCORE:
                continue
            # The vocabulary.
            hashed = hashes[word]
            slot = (hashed >> _U6) & last_slot
            tag = np.uint32(hashed >> np.uint64(45))
            while vocabulary[slot] != 0:
                if vocabulary[slot] >> _BITS32 == tag:
                    row = np.uint64(vocabulary[slot] & _GROUP32) - U1
                    start = spelling_offsets[row]
                    same = spelling_offsets[row + U1] - start == size
                    for i in range(size if same else 0):
                        same = same and spelling[start + i] == data[begin + i]
                    if same:
                        maybe[passed] = _BUCKETS + np.uint32(row)
                        passed += U1
                        break
                slot = (slot + U1) & last_slot
        # Buckets that pass `near`.
        high = U0
        for at in range(0, limit, 64):
            part = mask_high(spelled_base, at)
            if limit - at < 64:
                part &= (U1 << np.uint64(limit - at)) - U1
            high |= part
        if high == U0:
            for at in range(0, np.int64(stop), _LANES):
                states[:] = _FIRST
                for step in range(4):
                    hash_lanes(spelled_base + at + step, states_base, lanes_base + 4 * at + step * lane_bytes)
            place: Any = U0
            whole = np.uint64(min(np.int64(stop), max(limit - LONGEST + 1, 0)))
            while place < whole:
                passed = _pass(near, lanes[1, place], maybe, passed)
                passed = _pass(near, lanes[2, place], maybe, passed)
                passed = _pass(near, lanes[3, place], maybe, passed)
                place += U1
            while place < stop:
                if place + _U2 <= np.uint64(limit):
                    passed = _pass(near, lanes[1, place], maybe, passed)
                if place + _U3 <= np.uint64(limit):
                    passed = _pass(near, lanes[2, place], maybe, passed)
                place += U1
        else:
            total: Any = U0
            widest = np.uint8(0)
            for at in range(limit):
                characters[total] = at
                byte = spelled[at]
                widest = max(widest, byte)
                total += np.uint64((byte & np.uint8(0xC0)) != np.uint8(0x80))
            characters[total] = limit
            width = 2 + (widest >= 0xE0) + (widest >= 0xF0)
            steps = 4 * width
            for at in range(0, np.int64(stop), _LANES):
                states[:] = _FIRST
                for step in range(steps):
                    hash_lanes(spelled_base + at + step, states_base, lanes_base + 4 * at + step * lane_bytes)
            one: Any = U0
            while one + U1 < total and characters[one] < np.int64(stop):
                at = characters[one]
                place = np.uint64(at)
                for more in range(2, LONGEST + 1):
                    if one + np.uint64(more - 1) < total:
                        length = np.uint64(min(characters[one + np.uint64(more)] - at, steps))
                        passed = _pass(near, lanes[length - U1, place], maybe, passed)
                one += U1
    stops[count] = np.int64(passed)
    # Rows of those that are kept.
    written: Any = U0
    n_words = np.uint32(spelling_offsets.shape[0] - 1)
    number: Any = U0
    while number < passed:
        upto[number] = np.int32(written)
        bucket = maybe[number]
        group = np.uint64(bucket & _GROUP32)
        low, next_ = np.uint64(groups[group]), np.uint64(groups[group + U1])
        mask = equal_lanes(marks_base, np.int64(low), np.int64(bucket >> _BITS32)) & ((U1 << (next_ - low)) - U1)
        own = bucket >= _B32
        rows[written] = np.uint16((bucket - _B32) if own else (n_words + np.uint32(low) + np.uint32(trailing_zeros(mask))))
        written += np.uint64(own | (mask != U0))
        number += U1
    upto[passed] = np.int32(written)
    for item in range(count + 1):
        places[item] = upto[stops[item]]


@inlined
def _pass(near: np.ndarray, bucket: np.uint32, maybe: np.ndarray, passed: np.uint64) -> Any:
    """Appends the bucket to `maybe`, to stay if `near` has it; returns how many have passed."""
    maybe[passed] = bucket
    low = np.uint64(bucket) & _LOW
    return passed + ((near[low >> _U6] >> (low & U63)) & U1)


@intrinsic
def hash_lanes(typing_context: Any, source: Any, states: Any, target: Any) -> Any:
    """One byte further in 16 FNV-1a hashes side by side, and their buckets; all by their addresses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, states, target = args
        narrow, wide = ir.VectorType(ir.IntType(8), _LANES), ir.VectorType(ir.IntType(32), _LANES)

        def all_lanes(value: int) -> Any:
            return ir.Constant(wide, [value] * _LANES)

        byte = builder.sext(builder.load(builder.inttoptr(source, narrow.as_pointer()), align=1), wide)
        pointer = builder.inttoptr(states, wide.as_pointer())
        state = builder.mul(builder.xor(builder.load(pointer, align=4), byte), all_lanes(_PRIME))
        builder.store(state, pointer, align=4)
        builder.store(builder.urem(state, all_lanes(BUCKETS)), builder.inttoptr(target, wide.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def equal_lanes(typing_context: Any, base: Any, at: Any, byte: Any) -> Any:
    """16 bits: which of the 16 bytes at base + at equal `byte`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), _LANES)
        value = builder.load(builder.inttoptr(builder.add(args[0], args[1]), vector.as_pointer()), align=1)
        narrow = builder.trunc(args[2], ir.IntType(8))
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), narrow, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        splat = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)
        equal = builder.icmp_unsigned("==", value, splat)
        return builder.zext(builder.bitcast(equal, ir.IntType(_LANES)), ir.IntType(64))

    return types.uint64(types.intp, types.int64, types.int64), generate
