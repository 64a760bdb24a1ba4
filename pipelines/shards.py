"""Megatron token shards, written and read: `.bin` with the ids back to back, `.idx` with lengths, offsets and documents.

The one format that Megatron-LM, GPT-NeoX, NeMo and MaxText read directly, and whose `.bin` is at once nanoGPT's memmap. Version
1 of the index, little-endian throughout, one sequence a document:

    9 B  b"MMIDIDX\\0\\0"    u64 version 1    u8 dtype code    u64 sequences n    u64 documents n + 1
    int32[n] tokens a sequence    int64[n] byte offset of each sequence    int64[n + 1] sequence at which each document begins

Ids are uint16 for vocabularies under 65,500 and int32 otherwise (Megatron's own rule). Every document ends with the
end-of-document token.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_CODES: dict[int, np.dtype] = {8: np.dtype("<u2"), 4: np.dtype("<i4")}
_LARGEST_SHORT_VOCABULARY = 65_500


class Writable(Protocol):
    def write(self, data: Any) -> int: ...


def token_dtype(vocab_size: int) -> np.dtype:
    """The dtype of the ids of a vocabulary: little-endian uint16 or int32."""
    return _CODES[8] if vocab_size < _LARGEST_SHORT_VOCABULARY else _CODES[4]


class ShardWriter:
    """Writes documents to a `.bin` stream as they come; `index` is the `.idx` at the end. Holds 4 bytes a document."""

    def __init__(self, stream: Writable, dtype: np.dtype, end_of_document: int) -> None:
        self._stream, self._dtype, self._end = stream, dtype, end_of_document
        self._lengths: list[np.ndarray] = []

    @property
    def documents(self) -> int:
        return sum(map(len, self._lengths))

    @property
    def tokens(self) -> int:
        """End-of-document tokens included."""
        return int(sum(lengths.sum(dtype=np.int64) for lengths in self._lengths))

    def append(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        """Adds documents: ids [total], offsets int64 [documents + 1] from 0; their end tokens are put in here."""
        documents = len(offsets) - 1
        if documents == 0:
            return
        out = np.full(len(ids) + documents, self._end, self._dtype)
        own = np.ones(len(out), bool)
        own[offsets[1:] + np.arange(documents)] = False
        out[own] = ids
        self._stream.write(out)
        self._lengths.append((np.diff(offsets) + 1).astype(np.int32))

    def index(self) -> bytes:
        """The content of the `.idx`."""
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths]).astype("<i4")
        starts = np.zeros(len(lengths), "<i8")
        starts[1:] = np.cumsum(lengths[:-1], dtype=np.int64) * self._dtype.itemsize
        code = next(code for code, dtype in _CODES.items() if dtype == self._dtype)
        header = _HEADER.pack(MAGIC, 1, code, len(lengths), len(lengths) + 1)
        return header + lengths.tobytes() + starts.tobytes() + np.arange(len(lengths) + 1, dtype="<i8").tobytes()


@dataclass(frozen=True, slots=True)
class TokenShard:
    """A shard opened for reading: `ids` is a memory map of the `.bin`; document i is ids[starts[i] : starts[i + 1]]."""

    ids: np.ndarray  # uint16 or int32 [tokens]
    starts: np.ndarray  # int64 [documents + 1], in tokens

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        return self.ids[self.starts[document] : self.starts[document + 1]]


def open_shard(prefix: str) -> TokenShard:
    """The shard `<prefix>.bin` and `<prefix>.idx`. Files that do not fit each other are UserErrors that say which and how."""
    path = prefix + ".idx"
    try:
        with open(path, "rb") as stream:
            content = stream.read()
        size = os.path.getsize(prefix + ".bin")
    except OSError as error:
        raise UserError(f"{error.filename}: no such shard file ({error.strerror})") from error
    if len(content) < _HEADER.size:
        raise UserError(f"{path}: cut off within its header; build the run again")
    magic, version, code, sequences, documents = _HEADER.unpack_from(content)
    if magic != MAGIC or version != 1 or code not in _CODES:
        raise UserError(f"{path}: not a Megatron index of version 1 with uint16 or int32 tokens")
    if len(content) != _HEADER.size + 12 * sequences + 8 * documents:
        raise UserError(f"{path}: {len(content)} bytes do not hold the {sequences} sequences that it names; build again")
    dtype = _CODES[code]
    lengths = np.frombuffer(content, "<i4", sequences, _HEADER.size)
    starts = np.zeros(sequences + 1, np.int64)
    starts[1:] = np.cumsum(lengths, dtype=np.int64)
    if size != starts[-1] * dtype.itemsize:
        raise UserError(f"{prefix}.bin: {size} bytes, but its index names {starts[-1]} tokens; build the run again")
    ids = np.memmap(prefix + ".bin", dtype, "r") if size else np.empty(0, dtype)
    return TokenShard(ids, starts)


def blend(
    entries: Sequence[tuple[str, str, int, int]], weights: Mapping[str, float]
) -> list[dict[str, str | int | float]]:
    """What a trainer reads: entries are (prefix, source, tokens, documents); weights by source where the recipe gives them.

    A source's weight is shared by its shards in proportion to tokens. Sources without one share, by tokens, what the given
    weights leave of 1; where all have one, or what is given exceeds 1, weights are scaled to sum to 1. Epochs are 1: each
    document stands once in the shards.
    """
    tokens: dict[str, int] = {}
    for _, source, count, _ in entries:
        tokens[source] = tokens.get(source, 0) + count
    given = {source: weights[source] for source in tokens if source in weights and tokens[source]}
    free = sum(count for source, count in tokens.items() if source not in weights)
    rest = max(0.0, 1.0 - sum(given.values())) if free else 0.0
    by_source = {source: given.get(source, rest * tokens[source] / free if free else 0.0) for source in tokens}
    total = sum(by_source.values())
    return [
        {
            "prefix": prefix,
            "tokens": count,
            "documents": documents,
            "weight": by_source[source] / total * count / tokens[source] if total and tokens[source] else 0.0,
            "epochs": 1.0,
        }
        for prefix, source, count, documents in entries
    ]
