"""Merging the bytes of one piece into tokens: always the pair of lowest rank, the leftmost of equal ones.

Sennrich et al. 2016, as GPT-2 applies it. Short pieces search the lowest pair anew after each merge, which is fastest
up to about a hundred bytes; long ones keep pairs in a heap over a linked list, n log n for a piece of n bytes and 24 n
bytes of scratch, so that a megabyte without a space costs hardly more a byte than a few letters do.

A pair of ids is looked up in an open-addressing table, uint64 [capacity, 2]: (left << 32 | right) + 1, 0 where free,
then rank << 32 | merged id. A pair that does not merge answers NO_PAIR, which is above every rank.
"""

from __future__ import annotations

import numpy as np

from quality.text import ALL, U1, kernel

NO_PAIR = ALL
SHORT = 96  # bytes of the longest piece that is merged by searching

_U32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_DEAD = -1


@kernel
def pair_table(left: np.ndarray, right: np.ndarray, merged: np.ndarray) -> np.ndarray:
    """The table of merges given in order of rank: ids uint32 [merges] of both halves and of the whole."""
    capacity = 4
    while capacity < 3 * left.shape[0]:
        capacity *= 2
    table = np.zeros((capacity, 2), np.uint64)
    for rank in range(left.shape[0]):
        key = ((np.uint64(left[rank]) << _U32) | np.uint64(right[rank])) + U1
        slot = np.int64((key * _GOLDEN) >> _U32) & (capacity - 1)
        while table[slot, 0] != 0:
            slot = (slot + 1) & (capacity - 1)
        table[slot, 0] = key
        table[slot, 1] = (np.uint64(rank) << _U32) | np.uint64(merged[rank])
    return table


@kernel
def _pair(table: np.ndarray, left: int, right: int) -> np.uint64:
    """rank << 32 | merged id of two neighbours, or NO_PAIR."""
    last = table.shape[0] - 1
    key = ((np.uint64(left) << _U32) | np.uint64(right)) + U1
    slot = np.int64((key * _GOLDEN) >> _U32) & last
    while table[slot, 0] != 0:
        if table[slot, 0] == key:
            return table[slot, 1]
        slot = (slot + 1) & last
    return NO_PAIR


@kernel
def merge(ids: np.ndarray, first: int, size: int, table: np.ndarray, pairs: np.ndarray) -> int:
    """Merges ids[first : first + size] (uint32, one a byte) in place; how many are left. pairs: uint64 [SHORT]."""
    if size <= SHORT:
        return _merge_short(ids, first, size, table, pairs)
    return _merge_long(ids, first, size, table)


@kernel
def _merge_short(ids: np.ndarray, first: int, size: int, table: np.ndarray, pairs: np.ndarray) -> int:
    for i in range(size - 1):
        pairs[i] = _pair(table, ids[first + i], ids[first + i + 1])
    while size > 1:
        lowest = 0
        for i in range(1, size - 1):
            if pairs[i] < pairs[lowest]:
                lowest = i
        if pairs[lowest] == NO_PAIR:
            break
        ids[first + lowest] = np.uint32(pairs[lowest] & _LOW)
        size -= 1
        for i in range(lowest + 1, size):
            ids[first + i] = ids[first + i + 1]
        for i in range(lowest + 1, size - 1):
            pairs[i] = pairs[i + 1]
        if lowest > 0:
            pairs[lowest - 1] = _pair(table, ids[first + lowest - 1], ids[first + lowest])
        if lowest < size - 1:
            pairs[lowest] = _pair(table, ids[first + lowest], ids[first + lowest + 1])
    return size


@kernel
def _merge_long(ids: np.ndarray, first: int, size: int, table: np.ndarray) -> int:
    """The heap holds rank << 32 | position. An entry is stale unless the pair at its position still has its rank."""
    after, before = np.empty(size, np.int32), np.empty(size, np.int32)
    heap = np.empty(2 * size, np.uint64)  # each merge takes one entry out and puts at most two in
    held = 0
    for i in range(size):
        after[i], before[i] = i + 1, i - 1
        if i + 1 < size:
            held = _push(heap, held, _pair(table, ids[first + i], ids[first + i + 1]), i)
    while held > 0:
        entry = heap[0]
        held = _pop(heap, held)
        here = np.int64(entry & _LOW)
        gone = np.int64(after[here])
        if gone in (_DEAD, size):
            continue
        found = _pair(table, ids[first + here], ids[first + gone])
        if found == NO_PAIR or found >> _U32 != entry >> _U32:
            continue
        ids[first + here] = np.uint32(found & _LOW)
        right, left = np.int64(after[gone]), np.int64(before[here])
        after[here], after[gone] = right, _DEAD
        if right < size:
            before[right] = here
            held = _push(heap, held, _pair(table, ids[first + here], ids[first + right]), here)
        if left >= 0:
            held = _push(heap, held, _pair(table, ids[first + left], ids[first + here]), left)
    count, here = 0, np.int64(0)
    while here < size:
        ids[first + count] = ids[first + here]
        count += 1
        here = np.int64(after[here])
    return count


@kernel
def _push(heap: np.ndarray, held: int, found: np.uint64, position: int) -> int:
    """Puts the pair `found` at `position` into the heap of `held` entries, unless it is none; entries held now."""
    if found == NO_PAIR:
        return held
    entry = (found & ~_LOW) | np.uint64(position)
    slot = held
    while slot > 0 and heap[(slot - 1) >> 1] > entry:
        heap[slot] = heap[(slot - 1) >> 1]
        slot = (slot - 1) >> 1
    heap[slot] = entry
    return held + 1


@kernel
def _pop(heap: np.ndarray, held: int) -> int:
    """Takes the lowest entry off the heap of `held` entries; entries held now."""
    held -= 1
    entry = heap[held]
    slot = 0
    while True:
        child = 2 * slot + 1
        if child >= held:
            break
        if child + 1 < held and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[slot] = heap[child]
        slot = child
    heap[slot] = entry
    return held
