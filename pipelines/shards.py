"""Token shards: Megatron's `MMIDIDX` version 1, written from batches of ids and read back by memory mapping.

A shard is a pair of files. `.bin` holds the ids of all documents back to back, little-endian, each ended by the
end-of-document token; it has no header, so that it is at once nanoGPT's memmap. `.idx` says where documents lie:

    0        9 bytes    b"MMIDIDX\\0\\0"            18       uint64     sequences n
    9        uint64     version, 1                  26       uint64     document borders, n + 1
    17       uint8      dtype: 8 uint16, 4 int32    34       int32[n]   tokens of each sequence
                                                    34+4n    int64[n]   byte where each begins in .bin
                                                    34+12n   int64[n+1] borders: 0, 1, .., n (a document, a sequence)

Megatron-LM, GPT-NeoX and NeMo read it as it is (layout: `megatron/core/datasets/indexed_dataset.py`). A shard without
documents is an empty `.bin` and an index of 42 bytes, which `open_shard` reads; Megatron cannot map an empty file, so no blend
names one. `docs/tokens.md` tells it to readers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.errors import UserError
from pipelines.mixture import passes

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_UINT16, _INT32 = np.dtype("<u2"), np.dtype("<i4")
_CODES: dict[int, np.dtype] = {8: _UINT16, 4: _INT32}
_SMALL_VOCABULARY = 65_500  # Megatron's own border


def token_dtype(vocab_size: int) -> np.dtype:
    """Little-endian uint16 for a vocabulary under 65,500 ids, else int32."""
    return _UINT16 if vocab_size < _SMALL_VOCABULARY else _INT32


class Writable(Protocol):
    """What a shard is written to: a file, or a sink of the store."""

    def write(self, data: Any) -> int: ...


class ShardWriter:
    """Writes `.bin` to a stream as batches come, and holds 4 bytes a document until `index` is asked for."""

    def __init__(self, stream: Writable, dtype: np.dtype, end_of_document: int) -> None:
        """dtype: of `token_dtype`. Closing the stream is the caller's."""
        self._stream = stream
        self._dtype = dtype
        self._end_of_document = end_of_document
        self._lengths: list[np.ndarray] = []
        self.documents = 0
        self.tokens = 0

    def append(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        """Adds the documents ids[offsets[i] : offsets[i + 1]], each with the end-of-document token behind it.

        ids: any integer dtype, every id within the vocabulary. offsets: int64 [documents + 1], ascending.
        """
        begin, end = int(offsets[0]), int(offsets[-1])
        ended = np.insert(ids[begin:end], offsets[1:] - begin, self._end_of_document).astype(self._dtype, copy=False)
        self._stream.write(ended.data)
        self._lengths.append((np.diff(offsets) + 1).astype("<i4"))
        self.documents += len(offsets) - 1
        self.tokens += len(ended)

    def index(self) -> bytes:
        """The content of `.idx` for what was appended."""
        lengths = np.concatenate([np.empty(0, "<i4"), *self._lengths])
        header = _HEADER.pack(_MAGIC, _VERSION, _code(self._dtype), self.documents, self.documents + 1)
        begins = (_starts(lengths)[:-1] * self._dtype.itemsize).astype("<i8")
        borders = np.arange(self.documents + 1, dtype="<i8")
        return b"".join([header, lengths.tobytes(), begins.tobytes(), borders.tobytes()])


def _code(dtype: np.dtype) -> int:
    return next(code for code, known in _CODES.items() if known == dtype)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """int64 [documents + 1]: the first token of every document, and the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenShard:
    """An open shard: a sequence of documents, each an array of ids that ends with the end-of-document token."""

    ids: np.ndarray  # uint16 or int32 [tokens], memory-mapped: all documents back to back
    starts: np.ndarray  # int64 [documents + 1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        """The ids of a document, 0 to len - 1, without a copy."""
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        return self.ids[self.starts[document] : self.starts[document + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[document] for document in range(len(self)))

    @property
    def tokens(self) -> int:
        """Number of ids, end-of-document tokens included."""
        return len(self.ids)


def open_shard(prefix: str) -> TokenShard:
    """The shard `<prefix>.bin` and `<prefix>.idx` of the local file system.

    Files that are none, or that do not belong together, are a UserError that names the file.
    """
    bin_path, idx_path = prefix + ".bin", prefix + ".idx"
    index = _mapped(idx_path, np.dtype(np.uint8))
    if len(index) < _HEADER.size or bytes(index[: len(_MAGIC)]) != _MAGIC:
        raise UserError(
            f"{idx_path}: no Megatron index, it does not begin with MMIDIDX; give the prefix of a token shard"
        )
    _, version, code, sequences, borders = _HEADER.unpack(bytes(index[: _HEADER.size]))
    if version != _VERSION or code not in _CODES:
        raise UserError(f"{idx_path}: version {version} with dtype code {code}; only version 1 with 8 or 4 can be read")
    if borders != sequences + 1:
        raise UserError(
            f"{idx_path}: {sequences} sequences but {borders} document borders; only one a document can be read"
        )
    if len(index) != _HEADER.size + 12 * sequences + 8 * borders:
        raise UserError(
            f"{idx_path}: {len(index)} bytes do not hold {sequences} documents; the file is cut short or damaged"
        )
    at = _HEADER.size
    lengths = np.frombuffer(index, "<i4", sequences, at)
    begins = np.frombuffer(index, "<i8", sequences, at + 4 * sequences)
    starts = _starts(lengths)
    dtype = _CODES[code]
    documents = np.frombuffer(index, "<i8", borders, at + 12 * sequences)
    whole = np.array_equal(begins, starts[:-1] * dtype.itemsize) and np.array_equal(documents, np.arange(borders))
    if not whole or (sequences and lengths.min() < 0):
        raise UserError(f"{idx_path}: lengths and offsets disagree; the file is damaged")
    ids = _mapped(bin_path, dtype)
    if len(ids) != starts[-1]:
        raise UserError(
            f"{bin_path}: {len(ids)} tokens, but {idx_path} says {starts[-1]}; the files do not belong together"
        )
    return TokenShard(ids, starts)


def _mapped(path: str, dtype: np.dtype) -> np.ndarray:
    """The file as a read-only memory map; an empty file, which cannot be mapped, as an empty array."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size % dtype.itemsize:
                raise UserError(
                    f"{path}: {size} bytes are no whole number of {dtype.name} tokens; the file is cut short"
                )
            return np.memmap(file, dtype, "r") if size else np.empty(0, dtype)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; a shard is a pair of files, .bin and .idx"
        ) from error


# -- blends ------------------------------------------------------------------------------------------------------------


def blend(
    shards: Sequence[tuple[str, str, int, int]], wanted: Mapping[str, int] | None = None
) -> list[dict[str, str | int | float]]:
    """What a trainer needs to mix shards: {prefix, tokens, documents, weight, epochs} of each that has tokens, in order.

    shards: (prefix, source, tokens, documents). wanted: of a mixture, the tokens that training wants of each source; without one
    a source has its share of all tokens. A source's share is split over its shards by tokens; what a source without tokens was
    to have goes to the others in proportion, so that all weights sum to 1. epochs: how often a shard is gone through when the
    whole mixture has been trained on, 1.0 without one and where documents were taken until the wanted tokens were there.
    """
    tokens: dict[str, int] = {}
    for _, source, count, _ in shards:
        tokens[source] = tokens.get(source, 0) + count
    given = tokens if wanted is None else {source: wanted[source] for source, count in tokens.items() if count}
    everything = max(sum(given.values()), 1)
    proportions = {source: count / everything for source, count in given.items()}
    total = sum(proportions.values())
    return [
        {
            "prefix": prefix,
            "tokens": count,
            "documents": documents,
            "weight": proportions[source] / total * count / tokens[source],
            "epochs": 1.0 if wanted is None else passes(wanted[source], tokens[source]),
        }
        for prefix, source, count, documents in shards
        if count
    ]
