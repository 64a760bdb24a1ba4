"""Repeated n-grams of words by naming their prefixes: exact, and linear in the number of words whatever they are.

A word's name is the number of its hash in order of first occurrence. A longer n-gram can repeat only where the two
(n-1)-grams in it repeat, so only those positions are looked at; the names of the two are its key, and equal keys are
equal n-grams. The hash of a word is the only thing that is trusted.

Names come from one open-addressed table of int32, which is not emptied between uses: numbers below a floor are of uses
before. Where a key stands in it depends on a random factor, the names do not: so no text can be made that has all its
keys in one place. Whether a key is new is hard to foretell, so the loops write first and count after, without a branch.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from quality.signals_reference import COUNTERS, STOP_WORDS
from quality.text import kernel, leading_zeros

_TOP, _DUPLICATE = COUNTERS.index("top_2_gram_characters") - 2, COUNTERS.index("duplicate_5_gram_characters") - 5
_STOP_WORDS = COUNTERS.index("distinct_stop_words")
_LONGEST = 10
_LONGEST_TOP = 4
_U32 = np.uint64(32)
_FULL = np.iinfo(np.int32).max


class Names(NamedTuple):
    """Scratch memory for n keys."""

    keys: np.ndarray  # uint64 [n]: keys in, then the key of each name
    names: np.ndarray  # int32 [n]
    places: np.ndarray  # int32 [n]: the word at which an n-gram begins
    counts: np.ndarray  # int32 [n]: of each name
    firsts: np.ndarray  # int32 [n]: the index of the first key of each name
    slots: np.ndarray  # int32 [power of two > 2 n]: floor + name
    state: np.ndarray  # uint64 [2]: floor; the factor of keys, odd


def new_names(size: int) -> Names:
    """Room for `size` keys; memory that is not needed is never touched."""
    keys = np.empty(size, np.uint64)
    names, places, counts, firsts = (np.empty(size, np.int32) for _ in range(4))
    slots = np.zeros(2 << (size | 7).bit_length(), np.int32)
    factor = int.from_bytes(os.urandom(8), "little") | 1
    return Names(keys, names, places, counts, firsts, slots, np.array([1, factor], np.uint64))


@kernel
def assign(
    keys: np.ndarray,
    count: int,
    slots: np.ndarray,
    state: np.ndarray,
    names: np.ndarray,
    counts: np.ndarray,
    firsts: np.ndarray,
) -> int:
    """Names keys[:count] in order of first occurrence; returns the number of names. The arrays are those of Names."""
    low, factor = int(np.int64(state[0])), state[1]
    if low + count > _FULL:
        low = 1
        for slot in range(slots.shape[0]):
            slots[slot] = 0
    bits = 65 - leading_zeros(np.uint64(count | 7))  # the table is less than half full
    shift, last = np.uint64(64 - bits), (1 << bits) - 1
    distinct = 0
    for i in range(count):
        key = keys[i]
        keys[distinct], counts[distinct], firsts[distinct] = key, 0, i  # in case that it is new
        slot = int(np.int64((key * factor) >> shift))
        while True:
            name = int(slots[slot]) - low
            name = name if name >= 0 else distinct
            if keys[name] == key:
                break
            slot = (slot + 1) & last
        slots[slot] = low + name
        names[i] = name
        counts[name] += 1
        distinct += name == distinct
    state[0] = np.uint64(low + distinct)
    return distinct


@kernel
def count_ngrams(reach: np.ndarray, words: int, stop_words: np.ndarray, memory: Names, row: np.ndarray) -> None:
    """Counts n-grams and stop words of a text of which `memory.keys` holds the hashes of the words.

    reach: int32 [words + 1], characters in the words before. stop_words: uint64 [STOP_WORDS], their hashes.
    row: int64 [COUNTERS].
    """
    keys, names, places, counts, firsts, slots, state = memory
    distinct = assign(keys, words, slots, state, names, counts, firsts)
    row[_STOP_WORDS] = _count_stop_words(keys, distinct, stop_words)
    for word in range(words):
        places[word] = word
    held = _keep_repeated(words, counts, places, names)
    for n in range(2, _LONGEST + 1):
        if n > words:
            break
        found = _lengthen(names, held, places, keys)
        distinct = assign(keys, found, slots, state, names, counts, firsts)
        if n <= _LONGEST_TOP:
            most, place = 1, 0
            for name in range(distinct):
                if counts[name] > most:
                    most, place = counts[name], places[firsts[name]]
            row[_TOP + n] = (reach[place + n] - reach[place] + n - 1) * most
        else:
            row[_DUPLICATE + n] = _duplicate_characters(names, found, places, n, reach, firsts)
        held = _keep_repeated(found, counts, places, names)


@kernel
def _count_stop_words(keys: np.ndarray, distinct: int, stop_words: np.ndarray) -> int:
    """How many of `stop_words` are among keys[:distinct]."""
    found = 0
    for name in range(distinct):
        hit = False
        for i in range(len(STOP_WORDS)):
            hit |= keys[name] == stop_words[i]
        found += hit
    return found


@kernel
def _keep_repeated(found: int, counts: np.ndarray, places: np.ndarray, names: np.ndarray) -> int:
    """Moves the n-grams that occur more than once to the front; returns how many."""
    kept = 0
    for i in range(found):
        name = names[i]
        places[kept], names[kept] = places[i], name
        kept += counts[name] > 1
    return kept


@kernel
def _lengthen(names: np.ndarray, held: int, places: np.ndarray, keys: np.ndarray) -> int:
    """Writes the keys of the (n+1)-grams that may repeat, given the n-grams that do; returns how many."""
    found = int(np.int64(0))  # numba compiles twice what is called with a plain 0
    for i in range(held - 1):
        place = places[i]
        keys[found] = (np.uint64(names[i]) << _U32) | np.uint64(names[i + 1])
        places[found] = place
        found += places[i + 1] == place + 1
    return found


@kernel
def _duplicate_characters(
    names: np.ndarray, found: int, places: np.ndarray, n: int, reach: np.ndarray, seen: np.ndarray
) -> int:
    """Characters in n-grams that stood before, without overlap. seen: `firsts`, overwritten with -1 at names met."""
    characters, free = 0, 0
    for i in range(found):
        place, name = places[i], names[i]
        if place >= free:
            if seen[name] < 0:
                characters += reach[place + n] - reach[place]
                free = place + n
            else:
                seen[name] = -1
    return characters
