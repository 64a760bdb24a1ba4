"""From a batch of texts to token ids: pieces by class masks, a cache of pieces already merged, merges for the rest.

Natural text repeats its words, so nearly every piece is answered by the cache: its bytes are the key, compared whole,
and the answer is what merging them gave. So no result depends on what the cache holds.

The cache is a hash table in sets of four slots of four uint64:

    key     up to 16 bytes in two words, zero-filled; of a longer piece a hash, and place in `long_keys` << 32 | length
    meta    bytes of the key (LONG for a longer piece), number of ids << 8, uses << 40
    value   up to two ids, or the place of the ids in `many_ids`

Pieces go in groups: keys first, asking for their slots, then answers, so that the memory's delay is waited for once a
group and not once a piece (measured: hits alone went from 171 to 280 MB a second).

A hit raises a slot's uses up to three. A new piece takes a slot of its set whose uses are spent, or else lowers the
uses of all four and goes uncached, so that words met once do not push out those met often. When a store is full, the
cache begins anew; a piece over 256 bytes is never cached.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines.bpe_merge import SHORT, merge
from pipelines.bpe_pieces import mark_pieces
from quality.text import U0, U1, fold, hash_bytes, inlined, kernel, load64, trailing_zeros


class Vocabulary(NamedTuple):
    """What the kernel reads of a tokenizer."""

    byte_ids: np.ndarray  # uint32 [256]: the id of every single byte
    merges: np.ndarray  # uint64 [capacity, 2], of bpe_merge.pair_table
    classes: np.ndarray  # uint8 [0x110000], of unicode_classes.character_classes
    split_digits: bool


class Cache(NamedTuple):
    """Pieces already merged; for one thread at a time."""

    slots: np.ndarray  # uint64 [sets * 4, 4]
    long_keys: np.ndarray  # uint8
    many_ids: np.ndarray  # uint32
    held: np.ndarray  # int64 [2]: bytes in long_keys, ids in many_ids


_GROUP = 8  # words of 64 bytes whose pieces go together
_WAYS, _SLOT_BYTES = 4, 32
_NOT_INLINE = -1
_INLINE = 16  # bytes of the longest key that stands in its slot
LONGEST_CACHED = 256  # bytes; also the most ids of a cached piece
_LONG = np.uint64(255)
_U8, _U32, _U40 = np.uint64(8), np.uint64(32), np.uint64(40)
_BYTE, _LOW = np.uint64(0xFF), np.uint64(0xFFFFFFFF)
_ONE_USE, _MOST_USES = np.uint64(1 << 40), np.uint64(3)
_GOLDEN, _SEED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)

# [bytes of a key]: the bits of its two words that are the key's.
_KEEP = np.array([[(1 << 8 * min(n, 8)) - 1, (1 << 8 * max(n - 8, 0)) - 1] for n in range(_INLINE + 1)], np.uint64)


def new_cache(slots: int, stored: int) -> Cache:
    """An empty cache. slots: a power of two, at least 4. stored: bytes of long keys and ids, at least 256 each."""
    return Cache(
        np.zeros((slots, 4), np.uint64), np.zeros(stored, np.uint8), np.zeros(stored, np.uint32), np.zeros(2, np.int64)
    )


@kernel
def encode(
    data: np.ndarray, offsets: np.ndarray, vocabulary: Vocabulary, cache: Cache, ids: np.ndarray, id_offsets: np.ndarray
) -> int:
    """Writes the token ids of every text data[offsets[i] : offsets[i + 1]] (valid UTF-8); how many in all.

    ids: uint32 [>= bytes of the texts + 2]. id_offsets: int64 [texts + 1], written from 0 on.
    """
    slots, many_ids = cache.slots, cache.many_ids  # taken out of the tuple once: each time costs a reference count
    base, slots_base = data.ctypes.data, slots.ctypes.data
    last_set = np.int64(slots.shape[0] // _WAYS - 1)
    longest = np.int64(0)
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    begins = np.empty(longest // 64 + 1, np.uint64)
    pad, pairs = np.zeros(64, np.uint8), np.empty(SHORT, np.uint64)
    keys = np.empty((64 * _GROUP, 2), np.uint64)
    firsts, ends = np.empty(64 * _GROUP, np.int64), np.empty(64 * _GROUP, np.int64)
    written = 0
    for text in range(offsets.shape[0] - 1):
        id_offsets[text] = written
        start, stop = offsets[text], offsets[text + 1]
        words = mark_pieces(data, start, stop, vocabulary.classes, vocabulary.split_digits, pad, begins)
        begin = next_begin = start
        for first_word in range(0, words, _GROUP):
            pieces = U0
            for word in range(first_word, min(first_word + _GROUP, words)):
                bits = begins[word] if word > 0 else begins[word] & ~U1
                while bits != U0:
                    end = start + 64 * word + trailing_zeros(bits)
                    bits &= bits - U1
                    first = np.int64(_NOT_INLINE)
                    if end - next_begin <= _INLINE:
                        key, more = _inline_key(data, base, next_begin, end - next_begin)
                        mixed = fold(key ^ _GOLDEN, more ^ (_SEED + np.uint64(end - next_begin)))
                        first = (np.int64(mixed >> _U8) & last_set) * _WAYS
                        prefetch(slots_base, first * _SLOT_BYTES)
                        prefetch(slots_base, first * _SLOT_BYTES + 64)
                        keys[pieces, 0], keys[pieces, 1] = key, more
                    firsts[pieces], ends[pieces] = first, end
                    pieces += U1
                    next_begin = end
            for piece in range(pieces):
                first, end = firsts[piece], ends[piece]
                if first == _NOT_INLINE:
                    written += _long_piece(data, begin, end - begin, vocabulary, cache, pairs, ids, written, last_set)
                else:
                    key, more, length = keys[piece, 0], keys[piece, 1], np.uint64(end - begin)
                    slot = _find(slots, first, key, more, length)
                    if slot >= 0:
                        written = _answer(slots, many_ids, slot, ids, written)
                    else:
                        count = _merge(data, begin, end - begin, vocabulary, pairs, ids, written)
                        _keep(cache, first, key, more, length, ids, written, count)
                        written += count
                begin = end
    id_offsets[offsets.shape[0] - 1] = written
    return written


@kernel
def _merge(
    data: np.ndarray, begin: int, size: int, vocabulary: Vocabulary, pairs: np.ndarray, ids: np.ndarray, written: int
) -> int:
    """Writes the ids of a piece to ids[written:] without the cache; how many."""
    for i in range(size):
        ids[written + i] = vocabulary.byte_ids[data[begin + i]]
    return merge(ids, written, size, vocabulary.merges, pairs)


@kernel
def _long_piece(
    data: np.ndarray,
    begin: int,
    size: int,
    vocabulary: Vocabulary,
    cache: Cache,
    pairs: np.ndarray,
    ids: np.ndarray,
    written: int,
    last_set: int,
) -> int:
    """Writes the ids of a piece that is too long for an inline key to ids[written:]; how many."""
    if size > LONGEST_CACHED:
        return _merge(data, begin, size, vocabulary, pairs, ids, written)
    key = hash_bytes(data, begin, begin + size, _SEED)
    first = (np.int64(key >> _U8) & last_set) * _WAYS
    slot = _find_long(cache, first, key, data, begin, size)
    if slot >= 0:
        return _answer(cache.slots, cache.many_ids, slot, ids, written) - written
    count = _merge(data, begin, size, vocabulary, pairs, ids, written)
    _restart_when_full(cache, size, count)
    place = cache.held[0]
    if _keep(cache, first, key, (np.uint64(place) << _U32) | np.uint64(size), _LONG, ids, written, count):
        for i in range(size):
            cache.long_keys[place + i] = data[begin + i]
        cache.held[0] = place + size
    return count


# -- the cache ---------------------------------------------------------------------------------------------------------


@intrinsic
def prefetch(typing_context: Any, base: Any, at: Any) -> Any:
    """Asks for the cache line at `base` + `at` without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        shape = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], shape)
        read, keep, of_data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(builder.add(args[0], args[1]), pointer), read, keep, of_data])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), generate


@inlined
def _inline_key(data: np.ndarray, base: int, begin: int, size: int) -> tuple[np.uint64, np.uint64]:
    """data[begin : begin + size], of up to 16 bytes, in two zero-filled words; `base` is the address of data."""
    if begin + _INLINE <= data.shape[0]:
        return load64(base, begin) & _KEEP[size, 0], load64(base, begin + 8) & _KEEP[size, 1]
    key, more = U0, U0
    for i in range(size):
        if i < 8:
            key |= np.uint64(data[begin + i]) << np.uint64(8 * i)
        else:
            more |= np.uint64(data[begin + i]) << np.uint64(8 * (i - 8))
    return key, more


@inlined
def _find(slots: np.ndarray, first: int, key: np.uint64, more: np.uint64, length: np.uint64) -> int:
    """The slot of an inline key in the set that begins at `first`, or -1."""
    found = -1
    for way in range(_WAYS):
        slot = np.uint64(first + way)  # unsigned: numba would ask of a signed index whether it counts from the end
        if slots[slot, 0] == key and slots[slot, 1] == more and slots[slot, 2] & _BYTE == length:
            found = first + way
            break
    return found


@kernel
def _find_long(cache: Cache, first: int, key: np.uint64, data: np.ndarray, begin: int, size: int) -> int:
    """The slot of the piece data[begin : begin + size], whose hash is `key`, or -1."""
    for slot in range(first, first + _WAYS):
        more = cache.slots[slot, 1]
        if cache.slots[slot, 0] == key and cache.slots[slot, 2] & _BYTE == _LONG and more & _LOW == np.uint64(size):
            place = np.int64(more >> _U32)
            same = True
            for i in range(size):
                if cache.long_keys[place + i] != data[begin + i]:
                    same = False
                    break
            if same:
                return slot
    return -1


@inlined
def _answer(slots: np.ndarray, many_ids: np.ndarray, slot: int, ids: np.ndarray, written: int) -> int:
    """Writes the ids of a slot to ids[written:], which has room for two at least; where the next ids go."""
    meta, value = slots[slot, 2], slots[slot, 3]
    slots[slot, 2] = meta + (_ONE_USE if meta >> _U40 < _MOST_USES else U0)
    ids[written], ids[written + 1] = np.uint32(value), np.uint32(value >> _U32)
    count = np.int64((meta >> _U8) & _LOW)
    if count > 2:
        _copy(many_ids, np.int64(value), count, ids, written)
    return int(written + count)


@kernel
def _copy(source: np.ndarray, place: int, count: int, target: np.ndarray, to: int) -> None:
    for i in range(count):
        target[to + i] = source[place + i]


@kernel
def _keep(
    cache: Cache,
    first: int,
    key: np.uint64,
    more: np.uint64,
    length: np.uint64,
    ids: np.ndarray,
    written: int,
    count: int,
) -> bool:
    """Puts a piece and its ids[written : written + count] into the set at `first` if one of its slots is to be had."""
    slots = cache.slots
    chosen = -1
    for slot in range(first, first + _WAYS):
        if slots[slot, 2] >> _U40 == U0:
            chosen = slot
            break
    if chosen < 0:
        for slot in range(first, first + _WAYS):
            slots[slot, 2] -= _ONE_USE
        return False
    _restart_when_full(cache, 0, count)
    value = np.uint64(ids[written])
    if count == 2:
        value |= np.uint64(ids[written + 1]) << _U32
    elif count > 2:
        place = cache.held[1]
        value = np.uint64(place)
        for i in range(count):
            cache.many_ids[place + i] = ids[written + i]
        cache.held[1] = place + count
    slots[chosen, 0] = key
    slots[chosen, 1] = more
    slots[chosen, 2] = length | (np.uint64(count) << _U8) | _ONE_USE
    slots[chosen, 3] = value
    return True


@kernel
def _restart_when_full(cache: Cache, key_bytes: int, id_count: int) -> None:
    """Empties the cache if its stores have no room for so many more."""
    if cache.held[0] + key_bytes > cache.long_keys.shape[0] or cache.held[1] + id_count > cache.many_ids.shape[0]:
        cache.slots[:, :] = U0
        cache.held[:] = 0
