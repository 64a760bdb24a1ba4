"""Leaks: which evaluation texts stand, in part or nearly whole, in a corpus?

The other way round than `pipelines.dedup.evaluations`, which marks documents of the corpus: here the corpus stays as it is and the
evaluation texts that it gives away are named. Words are those of near-duplicate detection (`pipelines.dedup.words`): case and
punctuation decide nothing. An evaluation text leaks where one document of the corpus

* **ngram**: shares a run of 13 words with it (Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C), or of 8
  words where the evaluation text has fewer than 200 and a run of 13 would rarely be found whole; or else
* **jaccard**: is like it: the distinct word 5-grams that both have, by those that either has, are at least .7 (Broder 1997, "On the
  resemblance and containment of documents"), counted exactly. A text of one to four words is one shingle.

| evaluation text | what is looked for |
|---|---|
| 200 words or more | runs of 13; likeness |
| 8 to 199 words | runs of 8; likeness |
| 1 to 7 words | likeness only: so short a run cannot be told from everyday language, a whole document of the same words can |
| no word | nothing: it never leaks |

Departure: GPT-3 passes over n-grams that stand in more than ten documents; here every one counts, so that a text's verdict depends
on no other document. Words and n-grams are 64-bit hashes: a run is taken for one of 10^7 others with a probability of 10^-12.

The evaluation side is held (16 bytes a word and more); the corpus passes by, one batch at a time, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipelines.dedup.phrases import ngram_keys, word_hashes
from quality import hash_table
from quality.text import kernel

LONG_NGRAM, SHORT_NGRAM, LONG_TEXT = 13, 8, 200  # words
SHINGLE = 5  # words
SIMILAR_TENTHS = 7  # of the union: whole numbers, so that the threshold itself is met exactly
_BATCH = 1 << 20  # characters of evaluation texts that are hashed at once

Kind = Literal["ngram", "jaccard"]


@dataclass(frozen=True, slots=True)
class Leak:
    """Why a text leaks. value: its distinct n-grams that stand in the corpus, or the highest Jaccard similarity of a document."""

    kind: Kind
    value: int | float


def find_leaks(texts: Sequence[str], corpus: Iterable[pa.Array]) -> list[Leak | None]:
    """One a text: how it leaks into the corpus, None where it does not; an n-gram is named before a similarity.

    corpus: batches of documents (large_string, no nulls). Neither their order nor how they are cut into batches changes anything.
    """
    if not texts:
        return []
    hashes, offsets = _all_word_hashes(texts)
    words = np.diff(offsets)
    lengths = np.where(words < SHORT_NGRAM, 0, np.where(words < LONG_TEXT, SHORT_NGRAM, LONG_NGRAM))
    used = np.unique(lengths[lengths > 0])
    ngrams, shingles = _index(hashes, offsets, lengths), _index(hashes, offsets, np.minimum(words, SHINGLE))
    stands = np.zeros(ngrams.groups, np.bool_)
    best = np.zeros(len(texts))
    sizes = np.bincount(shingles.texts, minlength=len(texts))
    for batch in corpus:
        hashes, offsets = word_hashes(batch)
        words = np.diff(offsets)
        for length in used:
            _mark(ngram_keys(hashes, offsets, np.full(len(batch), length)), ngrams.keys, ngrams.places, stands)
        ends = np.cumsum(np.maximum(words - SHINGLE + 1, np.minimum(words, 1)))
        keys = ngram_keys(hashes, offsets, np.minimum(words, SHINGLE))
        _compare(keys, ends, shingles.keys, shingles.places, shingles.starts, shingles.texts, sizes, best)
    found = np.bincount(ngrams.texts, np.repeat(stands, np.diff(ngrams.starts)), len(texts)).astype(np.int64)
    return [
        Leak("ngram", shared) if shared else Leak("jaccard", similarity) if similarity else None
        for shared, similarity in zip(found.tolist(), best.tolist(), strict=True)
    ]


# -- the evaluation side ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Index:
    """Distinct keys, and the texts that hold each: those of group g are texts[starts[g] : starts[g + 1]]."""

    keys: np.ndarray  # uint64 [2^k], an open-addressing table
    places: np.ndarray  # int64 [2^k]: the group of a key
    starts: np.ndarray  # int64 [groups + 1]
    texts: np.ndarray  # int64

    @property
    def groups(self) -> int:
        return len(self.starts) - 1


def _index(hashes: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> _Index:
    """The index of the n-grams of texts, n by text; 0 for none."""
    counts = np.where(lengths > 0, np.maximum(np.diff(offsets) - lengths + 1, 0), 0)
    keys, texts = ngram_keys(hashes, offsets, lengths), np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((texts, keys))
    keys, texts = keys[order], texts[order]
    fresh = np.ones(len(keys), np.bool_)
    fresh[1:] = (keys[1:] != keys[:-1]) | (texts[1:] != texts[:-1])
    unique, starts = np.unique(keys[fresh], return_index=True)
    size = 1 << max(4, (2 * len(unique)).bit_length())
    table, places = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    hash_table.insert(unique, np.arange(len(unique)), table, places)
    return _Index(table, places, np.append(starts, fresh.sum()), texts[fresh])


def _all_word_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of all words uint64, offsets int64 [texts + 1])."""
    found = [word_hashes(batch) for batch in _batches(texts)]
    words = np.concatenate([np.diff(offsets) for _, offsets in found])
    return np.concatenate([hashes for hashes, _ in found]), np.concatenate([[0], np.cumsum(words)])


def _batches(texts: Sequence[str]) -> Iterator[pa.Array]:
    """Texts as large_string arrays of about a million characters: hashing needs room for a word a byte."""
    begin = size = 0
    for number, text in enumerate(texts, 1):
        size += len(text)
        if size >= _BATCH or number == len(texts):
            yield pa.array(texts[begin:number], pa.large_string())
            begin, size = number, 0


# -- kernels ------------------------------------------------------------------------------------------------------------------


@kernel
def _find(key: np.uint64, table: np.ndarray) -> np.int64:
    """The slot of a key, or -1."""
    mask = np.uint64(len(table) - 1)
    slot = key & mask
    while table[slot] != hash_table.EMPTY:
        if table[slot] == key:
            return np.int64(slot)
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@kernel
def _mark(keys: np.ndarray, table: np.ndarray, places: np.ndarray, stands: np.ndarray) -> None:
    """Sets `stands` of the groups of those keys that the table holds."""
    for key in keys:
        slot = _find(key, table)
        if slot >= 0:
            stands[places[slot]] = True


@kernel
def _compare(
    keys: np.ndarray,
    ends: np.ndarray,
    table: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    texts: np.ndarray,
    sizes: np.ndarray,
    best: np.ndarray,
) -> None:
    """Raises best[t] to the Jaccard similarity of text t and any document, where that is at least the threshold.

    keys: shingles of the documents one after the other, those of document d before ends[d]. sizes: distinct shingles of each text.
    A similarity never passes the share of the document's distinct shingles that stand in any text at all, so that documents where
    this share is too low, nearly all, are done with before a single pair is looked at.
    """
    longest = begin = np.int64(0)
    for end in ends:
        longest, begin = max(longest, end - begin), end
    room = np.int64(16)
    while room < 2 * longest:
        room *= 2
    others, used = np.zeros(room, np.uint64), np.empty(longest, np.int64)  # shingles that stand in no text: a set, its slots
    hit, is_hit = np.empty(longest, np.int64), np.zeros(len(starts) - 1, np.bool_)
    shared, touched = np.zeros(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    begin = np.int64(0)
    for end in ends:
        hits = np.int64(0)
        for i in range(begin, end):
            slot = _find(keys[i], table)
            if slot >= 0 and not is_hit[places[slot]]:
                is_hit[places[slot]] = True
                hit[hits] = places[slot]
                hits += 1
        misses = np.int64(0)
        if hits:
            misses = _count_others(keys[begin:end], table, others, used, (10 - SIMILAR_TENTHS) * hits // SIMILAR_TENTHS)
        if hits and SIMILAR_TENTHS * (hits + misses) <= 10 * hits:
            some = np.int64(0)
            for i in range(hits):
                for text in texts[starts[hit[i]] : starts[hit[i] + 1]]:
                    if shared[text] == 0:
                        touched[some] = text
                        some += 1
                    shared[text] += 1
            for text in touched[:some]:
                union = sizes[text] + hits + misses - shared[text]
                if 10 * shared[text] >= SIMILAR_TENTHS * union:
                    best[text] = max(best[text], shared[text] / union)
                shared[text] = 0
        for i in range(hits):
            is_hit[hit[i]] = False
        begin = end


@kernel
def _count_others(keys: np.ndarray, table: np.ndarray, others: np.ndarray, used: np.ndarray, most: np.int64) -> np.int64:
    """Distinct keys that the table does not hold; no longer counted once they are more than `most`. Leaves `others` empty."""
    mask = np.uint64(len(others) - 1)
    count = np.int64(0)
    for key in keys:
        if count > most:
            break
        if _find(key, table) >= 0:
            continue
        slot = key & mask
        while others[slot] != hash_table.EMPTY and others[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if others[slot] == hash_table.EMPTY:
            others[slot] = key
            used[count] = np.int64(slot)
            count += 1
    for i in range(count):
        others[used[i]] = hash_table.EMPTY
    return count
