"""Text to token ids and back: byte-level BPE, trained by Hugging Face `tokenizers`, applied by a compiled kernel.

`bpe_file` says what a tokenizer is, `bpe_pieces` where pieces begin, `bpe_merge` how one is merged, `bpe_kernel` how a
batch is encoded. The ids are those of `tokenizers` and `tiktoken` for the same merges, except that names of special
tokens within a text are ordinary characters here (tiktoken's `encode_ordinary`).

Sources: Sennrich et al. 2016 (BPE on words), Radford et al. 2019 (bytes, the pattern), Touvron et al. 2023 (digits).
Departure from LLaMA: its SentencePiece works on characters with bytes as the fallback; here bytes are the alphabet.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.bpe_file import END_OF_DOCUMENT, PATTERNS, Digits
from pipelines.bpe_file import Tokenizer as Tokenizer
from pipelines.bpe_file import bytes_only as bytes_only
from pipelines.bpe_file import load as load
from pipelines.bpe_file import save as save
from pipelines.bpe_kernel import Vocabulary, encode, new_cache
from pipelines.bpe_merge import pair_table
from pipelines.unicode_classes import character_classes
from quality.text import buffers

MIN_VOCAB_SIZE = 257  # the bytes and the end-of-document token
_MIN_COUNT = 2  # a pair that occurs once teaches nothing

_CACHE_SLOTS = 1 << 17  # 4 MiB; fits the words of natural text, more slots were no faster
_CACHE_STORED = 1 << 21  # 2 MiB of long keys and 8 MiB of ids


def train(texts: Iterator[str], vocab_size: int, digits: Digits) -> Tokenizer:
    """A tokenizer of at most `vocab_size` ids: the bytes in GPT-2's order, merges by rank, `<|endoftext|>` last.

    A small corpus has fewer pairs that occur twice than were asked for; then the vocabulary is smaller, and is what
    came out. The result depends on the multiset of texts alone, not on their order or on threads. Holds the distinct
    pieces of the texts in memory, not the texts.
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Trainee

    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"a byte-level vocabulary has at least {MIN_VOCAB_SIZE} ids, not {vocab_size}")
    trainee = Trainee(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[digits]), "isolated")
    trainee.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=_MIN_COUNT,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trainee.train_from_iterator(texts, trainer)
    content = json.loads(trainee.to_str())
    end_of_document = {"id": len(content["model"]["vocab"]), "content": END_OF_DOCUMENT, "special": True}
    return load(json.dumps({**content, "added_tokens": [end_of_document]}).encode(), "the trained tokenizer")


class Encoder:
    """Encodes batches with one tokenizer. Holds a cache: make one a thread; one that is shared takes turns."""

    def __init__(
        self, tokenizer: Tokenizer, *, cache_slots: int = _CACHE_SLOTS, cache_stored: int = _CACHE_STORED
    ) -> None:
        """cache_slots: a power of two, at least 4, of 32 bytes each. cache_stored: at least 256, of 5 bytes each."""
        specials = set(tokenizer.specials)
        number = {token: i for i, token in enumerate(tokenizer.tokens) if i not in specials}
        halves = np.array(tokenizer.merges, np.uint32).reshape(-1, 2)
        merged = [number[tokenizer.tokens[left] + tokenizer.tokens[right]] for left, right in tokenizer.merges]
        self._vocabulary = Vocabulary(
            byte_ids=np.array([number[bytes([byte])] for byte in range(256)], np.uint32),
            merges=pair_table(halves[:, 0].copy(), halves[:, 1].copy(), np.array(merged, np.uint32)),
            classes=character_classes(),
            split_digits=tokenizer.digits == "split",
        )
        self._cache = new_cache(cache_slots, cache_stored)
        self._turn = threading.Lock()

    def __call__(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(ids uint32 [total], offsets int64 [texts + 1], from 0) of string or large_string texts without nulls."""
        data, offsets = buffers(texts)
        if offsets[-1] == offsets[0]:
            return np.empty(0, np.uint32), np.zeros(len(offsets), np.int64)
        ids = np.empty(int(offsets[-1] - offsets[0]) + 2, np.uint32)  # pages that get no ids are never touched
        id_offsets = np.empty(len(offsets), np.int64)
        with self._turn:
            total = encode(data, offsets, self._vocabulary, self._cache, ids, id_offsets)
        return ids[:total], id_offsets


def decode(tokenizer: Tokenizer, ids: np.ndarray) -> bytes:
    """The bytes of `ids`, any integer dtype; a special token gives its name."""
    return b"".join([tokenizer.tokens[number] for number in ids.tolist()])


def pack_ids(ids: np.ndarray, offsets: np.ndarray, dtype: np.dtype) -> pa.Array:
    """large_binary [texts]: the ids of each text as packed `dtype`, which holds every id of the vocabulary.

    ids [total], offsets int64 [texts + 1] from 0, as an Encoder gives them.
    """
    packed = np.ascontiguousarray(ids, dtype)
    byte_offsets = offsets * dtype.itemsize
    arrow_buffers = [None, pa.py_buffer(byte_offsets), pa.py_buffer(packed)]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, arrow_buffers)
