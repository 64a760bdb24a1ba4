"""Runs of words looked for in documents: an index of hashed n-grams by list, and the kernel that counts where they begin.

Words are those of near-duplicate detection (`words`): case and punctuation decide nothing. What lists are made of is told by
`evaluations` (n-grams of benchmark texts) and `terms` (words and phrases); both look for them here.

An index is a table of 64-bit hashes: an n-gram is taken for one of 10^7 others with a probability of 10^-12. It is kept as
safetensors; all that is no tensor stands in one key of its metadata, since safetensors writes several in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.characters import word_table
from pipelines.dedup.words import MOST_WORDS, find_words, hash_words
from pipelines.errors import UserError
from pipelines.reading import open_input
from quality import hash_table
from quality.text import buffers, kernel, mix

FORMAT = 1
MOST_LISTS = 64  # a bit each
LONGEST = 64  # words of an n-gram
_BLOCK = 1 << 20  # of a file
_BATCH = 1 << 20  # characters of texts that are hashed at once
_CARD = "winnow"
_STEP = np.uint64(0xF1357AEA2E62A9C5)  # odd: the words of an n-gram are the digits of a number to this base
_SEED = np.uint64(0x77696E6E6F772065)


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file of the user's, and the sha256 of its content when the run began."""

    url: str
    sha256: str


def given_file(url: str) -> GivenFile:
    """The file as it is now. A missing one is a UserError."""
    digest = hashlib.sha256()
    with open_input(url) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return GivenFile(url, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class PhraseIndex:
    """The n-grams of some lists, as an open-addressing table of at most half its slots."""

    names: tuple[str, ...]  # of the lists
    keys: np.ndarray  # uint64 [2^k]; 0 is an empty slot
    lists: np.ndarray  # uint64 [2^k]: bit i for names[i]
    lengths: np.ndarray  # int64: the n of the n-grams that there are, ascending
    texts: Mapping[str, tuple[int, int]]  # by list: texts, and how many of them are not looked for


def build(lists: Mapping[str, Iterable[str]], length_of: Callable[[np.ndarray], np.ndarray]) -> PhraseIndex:
    """The index of the n-grams of texts by list, in the order of `lists`.

    length_of: words of some texts (int64 [texts]) -> the n of the n-grams that are looked for (int64 [texts], at most LONGEST),
    or 0 where the text is not looked for.
    """
    if len(lists) > MOST_LISTS:
        raise ValueError(f"{len(lists)} lists; at most {MOST_LISTS} can be told apart")
    keys: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    lengths: set[int] = set()
    counted = {}
    for number, (name, texts) in enumerate(lists.items()):
        total = passed = 0
        found = [np.zeros(0, np.uint64)]
        for some in _batches(texts):
            hashes, offsets = word_hashes(some)
            chosen = length_of(np.diff(offsets)).astype(np.int64)
            if chosen.max(initial=0) > LONGEST:
                raise ValueError(f"an n-gram of {chosen.max()} words; it has at most {LONGEST}")
            total, passed = total + len(some), passed + int((chosen == 0).sum())
            lengths.update(np.unique(chosen[chosen > 0]).tolist())
            found.append(ngram_keys(hashes, offsets, chosen))
        keys.append(np.unique(np.concatenate(found)))
        masks.append(np.full(len(keys[-1]), 1 << number, np.uint64))
        counted[name] = (total, passed)
    every, places = np.unique(np.concatenate([*keys, np.zeros(0, np.uint64)]), return_inverse=True)
    joined = np.zeros(len(every), np.uint64)
    np.bitwise_or.at(joined, places, np.concatenate([*masks, np.zeros(0, np.uint64)]))
    size = 1 << max(4, (2 * len(every) - 1).bit_length())
    table, sets = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    hash_table.insert(every, joined, table, sets)
    return PhraseIndex(tuple(lists), table, sets, np.array(sorted(lengths), np.int64), counted)


def _batches(texts: Iterable[str]) -> Iterator[pa.Array]:
    """Texts as large_string arrays of about a million characters."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _BATCH:
            yield pa.array(held, pa.large_string())
            held, size = [], 0
    if held:
        yield pa.array(held, pa.large_string())


def word_hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of all words uint64, offsets int64 [texts + 1]) of a string array."""
    data, offsets = buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]) + MOST_WORDS, np.uint64)  # no word without a byte
    ends = np.zeros(len(texts) + 1, np.int64)
    _word_hashes(data, offsets, word_table(), _scratch(offsets), out, ends)
    return out[: ends[-1]], ends


def ngram_keys(hashes: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Keys (uint64, never 0) of the n-grams of each text, n by text (int64 [texts]; 0 for none), from what `word_hashes` gives."""
    out = np.empty(int(np.where(lengths > 0, np.maximum(np.diff(offsets) - lengths + 1, 0), 0).sum()), np.uint64)
    _ngram_keys(hashes, offsets, lengths, out)
    return out


def ngram_key_reference(word_hashes: list[int]) -> int:
    """The key of an n-gram of word hashes, in plain Python."""
    whole, digits = 2**64, 0
    for word in word_hashes:
        digits = (digits * int(_STEP) + word) % whole
    product = ((digits ^ 0xA0761D6478BD642F) * ((int(_SEED) + len(word_hashes)) ^ 0x9E3779B97F4A7C15)) % 2**128
    return ((product ^ (product >> 64)) % whole) or 1


def find(texts: pa.Array, index: PhraseIndex) -> tuple[np.ndarray, np.ndarray]:
    """(n-grams found int32 [documents], and by list int32 [documents, lists]) of a string array.

    Every place of a document where an n-gram of the index begins counts once, and once for every list that holds it.
    """
    data, offsets = buffers(texts)
    counts, by_list = np.zeros(len(texts), np.int32), np.zeros((len(texts), len(index.names)), np.int32)
    if len(index.lengths):
        room = MOST_WORDS + int(index.lengths[-1])
        scratch = (np.empty(room, np.uint64), np.empty(room + 1, np.uint64), *_scratch(offsets))
        powers = np.array([pow(int(_STEP), int(length), 2**64) for length in index.lengths], np.uint64)
        _find(data, offsets, word_table(), index.keys, index.lists, index.lengths, powers, scratch, counts, by_list)
    return counts, by_list


def _scratch(offsets: np.ndarray) -> tuple[np.ndarray, ...]:
    """What finding and hashing words needs: starts, stops, room for a text in lower case, a padded block."""
    lowered = np.empty(2 * int(np.diff(offsets).max(initial=0)) + 64, np.uint8)
    return np.empty(MOST_WORDS, np.int64), np.empty(MOST_WORDS, np.int64), lowered, np.empty(64, np.uint8)


# -- the artefact ------------------------------------------------------------------------------------------------------


def save(index: PhraseIndex) -> bytes:
    """The index as safetensors; equal indexes give equal bytes."""
    from safetensors.numpy import save as save_tensors

    tensors = {"keys": index.keys, "lists": index.lists, "lengths": index.lengths}
    card = {"format": FORMAT, "names": list(index.names), "texts": {name: list(found) for name, found in index.texts.items()}}
    return bytes(save_tensors(tensors, {_CARD: json.dumps(card, sort_keys=True)}))


def load(data: bytes, name: str) -> PhraseIndex:
    """The index of a file that `save` wrote; `name` stands in errors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        size = int.from_bytes(data[:8], "little")
        card = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_CARD])
        if card["format"] != FORMAT:
            raise UserError(f"{name}: an index of format {card['format']}, not {FORMAT}; build the run again")
        tensors = load_tensors(data)
        texts = {key: (found[0], found[1]) for key, found in card["texts"].items()}
        return PhraseIndex(tuple(card["names"]), tensors["keys"], tensors["lists"], tensors["lengths"], texts)
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{name}: not an index of phrases: {error}; build the run again") from error


# -- kernels -----------------------------------------------------------------------------------------------------------


@kernel
def _key(digits: np.uint64, length: np.int64) -> np.uint64:
    key = mix(digits, _SEED + np.uint64(length))
    return np.uint64(1) if key == hash_table.EMPTY else key


@kernel
def _word_hashes(
    data: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    scratch: tuple[np.ndarray, ...],
    out: np.ndarray,
    ends: np.ndarray,
) -> None:
    starts, stops, lowered, pad = scratch
    count = 0
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        opened = -1
        while at < stop:
            at, opened, found = find_words(data, at, stop, opened, table, pad, starts, stops)
            hash_words(data, starts, stops, found, table, lowered, out[count:])
            count += found
        ends[document + 1] = count


@kernel
def _ngram_keys(hashes: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    count = 0
    for text in range(len(lengths)):
        length = lengths[text]
        if length == 0:
            continue
        for first in range(offsets[text], offsets[text + 1] - length + 1):
            digits = np.uint64(0)
            for i in range(first, first + length):
                digits = digits * _STEP + hashes[i]
            out[count] = _key(digits, length)
            count += 1


@kernel
def _find(
    data: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    keys: np.ndarray,
    masks: np.ndarray,
    lengths: np.ndarray,
    powers: np.ndarray,
    scratch: tuple[np.ndarray, ...],
    counts: np.ndarray,
    by_list: np.ndarray,
) -> None:
    """Fills counts and by_list. `sums[i]` is the number whose digits are the first i words that are held.

    An n-gram that begins among the last words held waits for the next ones, so that each is looked up once.
    """
    hashes, sums, starts, stops, lowered, pad = scratch
    last = np.uint64(len(keys) - 1)
    longest = lengths[-1]
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        held, opened = 0, -1
        while at < stop:
            at, opened, found = find_words(data, at, stop, opened, table, pad, starts, stops)
            hash_words(data, starts, stops, found, table, lowered, hashes[held:])
            held += found
            sums[0] = np.uint64(0)
            for i in range(held):
                sums[i + 1] = sums[i] * _STEP + hashes[i]
            done = at >= stop
            ready = held if done else max(0, held - longest + 1)
            for first in range(ready):
                for which in range(len(lengths)):
                    length = lengths[which]
                    if first + length > held:
                        break
                    digits = sums[first + length] - sums[first] * powers[which]
                    key = _key(digits, length)
                    slot = key & last
                    while keys[slot] != hash_table.EMPTY:
                        if keys[slot] == key:
                            counts[document] += 1
                            mask = masks[slot]
                            for one in range(by_list.shape[1]):
                                by_list[document, one] += np.int32((mask >> np.uint64(one)) & np.uint64(1))
                            break
                        slot = (slot + np.uint64(1)) & last
            for i in range(ready, held):
                hashes[i - ready] = hashes[i]
            held -= ready
