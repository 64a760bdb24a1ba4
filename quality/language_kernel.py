"""lid.176 on batches of Arrow text, compiled: a text's words, the rows of each, their mean, and the most probable label.

As fastText does it (Joulin et al. 2016; fasttext.cc, loss.cc): words are what space, tab, line ends and NUL leave apart; a text is
the mean of the rows of its words, of their n-grams (`language_words`) and of the end of line; hierarchical softmax walks a
Huffman tree over the labels' counts and gives up branches that cannot win. Sums run in one order, in float32: labels are
fastText's, probabilities differ by some 1e-6 (its own sums run in another order).

Departure: in fastText the literal word "</s>" ends the text. Here it is a word without rows, so that nobody can hide a text
behind it. A word that begins with "__label__" has no rows in either.

Most words of a text were seen before. A cache keyed by a word's exact bytes holds its rows: 4 ways a set, a 2-bit use count;
what it answers is what would be computed, so no result depends on it. Texts go in rounds of 1,024 bytes: all words of a round
are looked up, the rows of the missing ones computed together, then everything is added up in the order of the text.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines.bpe_kernel import prefetch
from quality.language_model import DIM, END, Classifier
from quality.language_words import KEY, WINDOW, Scratch, Words, aligned, append_rows, hash_key, new_scratch, tables, word_key
from quality.text import ALL, U0, U1, block, kernel, load64, mask_equal, mask_regex_space, store64, trailing_zeros

_WAYS = 4
_MOST_HELD = 15  # rows of a word in the cache
_BLOCKS = 16  # of 64 bytes, in a round
_ROUND_WORDS = 32 * _BLOCKS + 1
_BUFFER = 4096  # row numbers that wait to be added up
_LANES1, _LANES8000, _FFFC = np.uint64(0x0001000100010001), np.uint64(0x8000800080008000), np.uint64(0xFFFCFFFCFFFCFFFC)
_U2, _U3, _U4, _U16, _U48, _U50, _U63 = (np.uint64(n) for n in (2, 3, 4, 16, 48, 50, 63))


class Tables(NamedTuple):
    """A classifier as the kernel reads it. Nodes of the tree: first the labels, then the inner ones, the root last."""

    words: Words
    rows: np.ndarray  # float32 [rows, DIM]
    end_row: int  # of the end of line
    nodes: np.ndarray  # float32 [labels, DIM]: weights of the inner nodes
    left: np.ndarray  # int32 [2 labels - 1]: children of a node, -1 for a label
    right: np.ndarray


class Cache(NamedTuple):
    """Rows of words. A set is one word of tags, 16 bits a way: 14 of the hash, 2 of use; 0 where free."""

    tags: np.ndarray  # uint64 [sets]
    records: np.ndarray  # uint64 [4 sets, 8]: the key (32 bytes), row numbers (uint16 [15]), how many (uint16)


class Round(NamedTuple):
    """The words of a round; for one thread at a time."""

    begins: np.ndarray  # int64: where each begins in the data, and where it ends
    ends: np.ndarray
    keys: np.ndarray  # uint64 [words, 4]
    hashes: np.ndarray  # uint64
    where: np.ndarray  # int64: its record in the cache, or -1
    missed: np.ndarray  # int64: the words that are not in the cache
    fresh: np.ndarray  # uint16: their rows
    places: np.ndarray  # int64: where the rows of each begin


class State(NamedTuple):
    """All that one thread needs besides the tables."""

    cache: Cache
    round: Round
    scratch: Scratch


def build(classifier: Classifier) -> Tables:
    """The tables of a classifier, with fastText's Huffman tree: of equally rare nodes a label goes first."""
    words, rows = tables(classifier)
    labels = len(classifier.labels)
    counts = [*classifier.label_counts.tolist(), *[10**15] * (labels - 1)]
    left, right = np.full(2 * labels - 1, -1, np.int32), np.full(2 * labels - 1, -1, np.int32)
    label, inner = labels - 1, labels
    for parent in range(labels, 2 * labels - 1):
        pair = []
        for _ in range(2):
            if label >= 0 and counts[label] < counts[inner]:
                pair.append(label)
                label -= 1
            else:
                pair.append(inner)
                inner += 1
        left[parent], right[parent] = pair
        counts[parent] = counts[pair[0]] + counts[pair[1]]
    return Tables(words, rows, classifier.words.index(END), classifier.nodes, left, right)


def new_state(slots: int) -> State:
    """State with a cache of `slots` words (a power of two, at least 4) of 64 bytes each."""
    cache = Cache(aligned((slots // _WAYS,), np.uint64), aligned((slots, 8), np.uint64))
    n = _ROUND_WORDS
    fresh = np.zeros(3 * (64 * _BLOCKS + 2 * n + WINDOW), np.uint16)
    whole, keys, hashes = (np.zeros(n, np.int64) for _ in range(4)), np.zeros((n, 4), np.uint64), np.zeros(n, np.uint64)
    begins, ends, where, missed = whole
    return State(cache, Round(begins, ends, keys, hashes, where, missed, fresh, np.zeros(n + 1, np.int64)), new_scratch())


@kernel
def identify(
    data: np.ndarray, offsets: np.ndarray, tables: Tables, state: State, labels: np.ndarray, scores: np.ndarray
) -> None:
    """labels: int64 [n], numbers of the most probable labels, -1 for a text without a word; scores: float32 [n]."""
    hidden = np.zeros(DIM, np.float32)
    numbers = np.zeros(_BUFFER, np.uint16)
    stack, stack_scores = np.empty(512, np.int32), np.empty(512, np.float32)
    added = np.zeros(2, np.int64)  # row numbers that wait in `numbers`, rows that are in `hidden`
    cache, words, scratch = state
    zero = np.int64(0)
    for text in range(offsets.shape[0] - 1):
        at, stop, opened, many = offsets[text], offsets[text + 1], -1, 0
        hidden[:] = 0
        added[:] = 0
        while at < stop:
            held, opened = find_words(data, at, stop, opened, scratch.pad, words.begins, words.ends)
            at += 64 * _BLOCKS
            many += held
            misses = look_up(data, held, cache, words, scratch.pad)
            begins, ends, hashes = words.begins, words.ends, words.hashes
            chosen, fresh, places = words.missed, words.fresh, words.places
            append_rows(data, begins, ends, hashes, chosen, misses, zero, tables.words, scratch, fresh, places)
            gather(data, held, tables, cache, words, scratch, hidden, numbers, added)
            keep(cache, words, misses)
        numbers[added[0]] = tables.end_row
        add_rows(hidden.ctypes.data, tables.rows.ctypes.data, numbers.ctypes.data, added[0] + 1)
        hidden *= np.float32(1.0 / (added[1] + added[0] + 1))
        label, score = best(hidden, tables, stack, stack_scores)
        labels[text] = label if many > 0 else -1
        scores[text] = score
    numbers[0] = hidden.shape[0]  # raw pointers do not keep arrays alive


@kernel
def find_words(
    data: np.ndarray, at: int, stop: int, opened: int, pad: np.ndarray, begins: np.ndarray, ends: np.ndarray
) -> tuple[Any, Any]:
    """(how many words end in the round from byte `at`, where the word begins that goes on behind it or -1).

    opened: where a word of the round before begins that goes on here, or -1.
    """
    base = data.ctypes.data
    held = U0
    begin, inside = opened, opened >= 0
    carry = np.uint64(inside)
    round_stop = min(stop, at + 64 * _BLOCKS)
    while at < round_stop:
        if at + 64 <= data.shape[0]:
            blank = mask_regex_space(base, at) | mask_equal(base, at, 0)
        else:
            block(data, at, pad)
            blank = mask_regex_space(pad.ctypes.data, 0) | mask_equal(pad.ctypes.data, 0, 0)
        if stop - at < 64:
            blank |= ALL << np.uint64(stop - at)
        ink = ~blank
        edges = ink ^ ((ink << U1) | carry)
        carry = ink >> _U63
        while edges != U0:
            here = at + trailing_zeros(edges)
            edges &= edges - U1
            if inside:
                begins[held], ends[held] = begin, here
                held += U1
            begin, inside = here, not inside
        at += 64
    if inside and at >= stop:
        begins[held], ends[held] = begin, stop
        held += U1
        inside = False
    return np.int64(held), (begin if inside else -1)


@kernel
def look_up(data: np.ndarray, count: int, cache: Cache, words: Round, pad: np.ndarray) -> Any:
    """Finds the first `count` words in the cache; returns how many are not there."""
    tags, records = cache
    begins, ends, keys, hashes, where, missed, _, _ = words
    base, records_base = data.ctypes.data, records.ctypes.data
    last_set = np.uint64(tags.shape[0] - 1)
    word, many = U0, np.uint64(count)
    while word < many:
        begin = begins[word]
        k0, k1, k2, k3 = word_key(data, base, begin, ends[word] - begin, pad)
        keys[word, 0], keys[word, 1], keys[word, 2], keys[word, 3] = k0, k1, k2, k3
        hashed = hash_key(k0, k1, k2, k3)
        hashes[word] = hashed
        chosen = hashed & last_set
        differ = (tags[chosen] ^ ((hashed >> _U50) << _U2) * _LANES1) & _FFFC
        lane = np.uint64(trailing_zeros((differ - _LANES1) & ~differ & _LANES8000)) >> _U4
        slot = (chosen << _U2) | (lane & _U3)
        where[word] = np.int64(slot)
        prefetch(records_base, np.int64(slot if lane < _U4 else U0) * 64)
        word += U1
    misses = U0
    word = U0
    while word < many:
        slot = np.uint64(where[word])
        differ = (records[slot, 0] ^ keys[word, 0]) | (records[slot, 1] ^ keys[word, 1])
        differ |= (records[slot, 2] ^ keys[word, 2]) | (records[slot, 3] ^ keys[word, 3])
        if differ == U0 and ends[word] - begins[word] <= KEY:
            shift = (slot & _U3) << _U4
            t = tags[slot >> _U2]
            if (t >> shift) & _U3 != _U3:
                tags[slot >> _U2] = t + (U1 << shift)
        else:
            lanes = tags[slot >> _U2]
            free = ~(lanes | (lanes >> U1)) & _LANES1
            if free != U0:
                prefetch(records_base, np.int64((slot & ~_U3) | (np.uint64(trailing_zeros(free)) >> _U4)) * 64)
            where[word] = -1
            missed[misses] = np.int64(word)
            misses += U1
        word += U1
    return np.int64(misses)


@kernel
def gather(
    data: np.ndarray,
    count: int,
    tables: Tables,
    cache: Cache,
    words: Round,
    scratch: Scratch,
    hidden: np.ndarray,
    numbers: np.ndarray,
    added: np.ndarray,
) -> None:
    """Appends the rows of the words to `numbers`, in the order of the text, and adds them up when it is full."""
    records = cache.records
    begins, ends, _, _, where, _, fresh, places = words
    numbers_base, rows_base, hidden_base = numbers.ctypes.data, tables.rows.ctypes.data, hidden.ctypes.data
    records_base, fresh_base = records.ctypes.data, fresh.ctypes.data
    to = added[0]
    word, many, miss = U0, np.uint64(count), U0
    while word < many:
        slot = where[word]
        if to + 512 > _BUFFER:
            add_rows(hidden_base, rows_base, numbers_base, to)
            added[1] += to
            to = 0
        target = numbers_base + 2 * to
        if slot >= 0:
            source = records_base + 64 * slot + 32
            store64(target, 0, load64(source, 0))
            store64(target, 8, load64(source, 8))
            store64(target, 16, load64(source, 16))
            last = load64(source, 24)
            store64(target, 24, last)
            to += np.int64(last >> _U48)
        elif ends[word] - begins[word] <= WINDOW - 2:
            place = places[miss]
            many_rows = places[miss + U1] - place
            miss += U1
            if to + many_rows + 16 > _BUFFER:
                add_rows(hidden_base, rows_base, numbers_base, to)
                added[1] += to
                to = 0
                target = numbers_base
            for part in range(0, 2 * many_rows, 8):
                store64(target, part, load64(fresh_base + 2 * place, part))
            to += many_rows
        else:
            miss += U1
            add_rows(hidden_base, rows_base, numbers_base, to)
            added[1] += to
            to = long_word(data, words, np.int64(word), tables, scratch, hidden, numbers, added)
        word += U1
    added[0] = to


@kernel
def long_word(
    data: np.ndarray,
    words: Round,
    word: int,
    tables: Tables,
    scratch: Scratch,
    hidden: np.ndarray,
    numbers: np.ndarray,
    added: np.ndarray,
) -> Any:
    """Adds up the rows of a word that is longer than a window, window by window; returns 0: none wait."""
    first, size = 0, words.ends[word] - words.begins[word] + 2
    chosen, place = np.array([word]), np.zeros(2, np.int64)
    while first < size:
        append_rows(data, words.begins, words.ends, words.hashes, chosen, 1, first, tables.words, scratch, numbers, place)
        add_rows(hidden.ctypes.data, tables.rows.ctypes.data, numbers.ctypes.data, place[1])
        added[1] += place[1]
        first += WINDOW
    return 0


@kernel
def keep(cache: Cache, words: Round, count: int) -> None:
    """Takes the missed words into the cache, where a way is free; where none is, all ways of the set lose a use."""
    tags, records = cache
    begins, ends, keys, hashes, _, missed, fresh, places = words
    fresh_base = fresh.ctypes.data
    last_set = np.uint64(tags.shape[0] - 1)
    for miss in range(count):
        word = np.uint64(missed[miss])
        place = places[miss]
        many = places[miss + 1] - place
        if ends[word] - begins[word] > KEY or many > _MOST_HELD:
            continue
        hashed = hashes[word]
        chosen = hashed & last_set
        tag = (hashed >> _U50) << _U2
        lanes = tags[chosen]
        differ = (lanes ^ tag * _LANES1) & _FFFC
        if (differ - _LANES1) & ~differ & _LANES8000 != U0 and tag != U0:
            continue
        uses = (lanes | (lanes >> U1)) & _LANES1
        if uses == _LANES1:
            tags[chosen] = lanes - _LANES1
            continue
        lane = np.uint64(trailing_zeros(~uses & _LANES1)) >> _U4
        shift = lane << _U4
        tags[chosen] = (lanes & ~(np.uint64(0xFFFF) << shift)) | ((tag | U1) << shift)
        slot = (chosen << _U2) | lane
        for k in range(4):
            records[slot, k] = keys[word, k]
        source = fresh_base + 2 * place
        records[slot, 4] = load64(source, 0)
        records[slot, 5] = load64(source, 8)
        records[slot, 6] = load64(source, 16)
        records[slot, 7] = (load64(source, 24) & np.uint64(0xFFFFFFFFFFFF)) | (np.uint64(many) << _U48)


@intrinsic
def add_rows(typing_context: Any, total: Any, rows: Any, numbers: Any, count: Any) -> Any:
    """total (float32 [DIM]) += the rows of `count` numbers (uint16), one after the other; all by their addresses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, rows, numbers, count = args
        vector, i64, i16 = ir.VectorType(ir.FloatType(), DIM), ir.IntType(64), ir.IntType(16)
        target = builder.inttoptr(total, vector.as_pointer())
        before = builder.load(target, align=4)
        entry = builder.block
        loop, leave = builder.append_basic_block("rows"), builder.append_basic_block("summed")
        builder.cbranch(builder.icmp_signed(">", count, i64(0)), loop, leave)
        builder.position_at_end(loop)
        index, sum_ = builder.phi(i64), builder.phi(vector)
        number = builder.load(builder.inttoptr(builder.add(numbers, builder.shl(index, i64(1))), i16.as_pointer()), align=2)
        row = builder.load(
            builder.inttoptr(builder.add(rows, builder.shl(builder.zext(number, i64), i64(6))), vector.as_pointer()), align=4
        )
        more = builder.fadd(sum_, row)
        following = builder.add(index, i64(1))
        index.add_incoming(i64(0), entry)
        index.add_incoming(following, loop)
        sum_.add_incoming(before, entry)
        sum_.add_incoming(more, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, leave)
        builder.position_at_end(leave)
        result = builder.phi(vector)
        result.add_incoming(before, entry)
        result.add_incoming(more, loop)
        builder.store(result, target, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.int64), generate


@kernel
def best(hidden: np.ndarray, tables: Tables, stack: np.ndarray, stack_scores: np.ndarray) -> tuple[Any, Any]:
    """(number of the most probable label, its probability) of the mean `hidden` (float32 [DIM])."""
    inner = (tables.left.shape[0] + 1) // 2
    lowest = np.float32(math.log(1e-5))
    label, top = -1, np.float32(-np.inf)
    stack[0], stack_scores[0], depth = tables.left.shape[0] - 1, np.float32(0), 1
    while depth > 0:
        depth -= 1
        node, score = stack[depth], stack_scores[depth]
        if score < lowest or score < top:
            continue
        if tables.left[node] < 0:
            label, top = node, score
            continue
        dot = np.float32(0)
        for k in range(DIM):
            dot += tables.nodes[node - inner, k] * hidden[k]
        p = np.float32(1.0 / np.float64(np.float32(1) + np.float32(math.exp(-dot))))
        stack[depth], stack_scores[depth] = tables.right[node], score + np.float32(math.log(np.float64(p) + 1e-5))
        q = np.float32(1.0 - np.float64(p))
        stack[depth + 1], stack_scores[depth + 1] = tables.left[node], score + np.float32(math.log(np.float64(q) + 1e-5))
        depth += 2
    return label, np.float32(math.exp(top))
