"""Reading any Megatron `.bin/.idx` pair by memory mapping: winnow's own shards and those of other tools.

Layout (Megatron-LM, `megatron/core/datasets/indexed_dataset.py`, version 1): a header of 34 bytes (magic `MMIDIDX\\0\\0`, version,
dtype code, number of sequences n, number of document borders m), int32 [n] tokens of each sequence, int64 [n] the byte where each
begins in `.bin`, int64 [m] document borders counted in sequences, from 0 to n. A document may be several sequences; a file of
images has n more bytes of modes and is refused. `.bin` is the ids back to back.

Nothing is held in memory but one int64 a document; an index is checked in full when it is opened, so that one that lies is an
error before the first step and not a wrong token.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_CODES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_FLOATS = (6, 7)
_CHECKED_AT_ONCE = 1 << 20  # sequences


@dataclass(frozen=True, slots=True)
class TokenFile:
    """An open pair: `ids` integer [tokens], memory-mapped, all documents back to back; `starts` int64 [documents + 1]."""

    prefix: str
    ids: np.ndarray
    starts: np.ndarray

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    def __len__(self) -> int:
        return len(self.ids)

    def document_at(self, token: int) -> int:
        """The number of the document that holds a token."""
        return int(np.searchsorted(self.starts, token, "right")) - 1

    def begins(self, first: int, stop: int) -> np.ndarray:
        """bool [stop - first]: whether a document begins at each of these tokens."""
        low, high = np.searchsorted(self.starts[:-1], [first, stop])
        marks = np.zeros(stop - first, np.bool_)
        marks[self.starts[low:high] - first] = True
        return marks


def open_tokens(prefix: str) -> TokenFile:
    """The pair `<prefix>.bin`, `<prefix>.idx`. Raises UserError, naming the file, where it is none or the two disagree."""
    idx, bin_path = prefix + ".idx", prefix + ".bin"
    index = _map(idx, np.dtype("<u1"))
    if len(index) < _HEADER.size or bytes(index[: len(_MAGIC)]) != _MAGIC:
        raise UserError(f"{idx}: no Megatron index, it does not begin with MMIDIDX; give the prefix of a .bin/.idx pair")
    _, version, code, sequences, borders = _HEADER.unpack(bytes(index[: _HEADER.size]))
    if version != 1 or code not in _CODES:
        holds = "numbers that are no token ids" if code in _FLOATS else "an unknown kind of numbers"
        raise UserError(f"{idx}: version {version}, dtype code {code}: {holds}; only version 1 with integers can be read")
    if borders < 1:
        raise UserError(f"{idx}: no document borders, not even the first; the file is damaged")
    size = _HEADER.size + 12 * sequences + 8 * borders
    if len(index) == size + sequences and sequences:
        raise UserError(f"{idx}: an index of a multimodal file; only text can be trained on")
    if len(index) != size:
        raise UserError(
            f"{idx}: {len(index)} bytes do not hold {sequences} sequences and {borders} document borders; "
            "the file is cut short or damaged, write it again"
        )
    dtype = np.dtype(_CODES[code])
    at = _HEADER.size
    lengths = np.frombuffer(index, "<i4", sequences, at)
    begins = np.frombuffer(index, "<i8", sequences, at + 4 * sequences)
    documents = np.frombuffer(index, "<i8", borders, at + 12 * sequences)
    tokens = _check_sequences(idx, lengths, begins, dtype.itemsize)
    if documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise UserError(f"{idx}: document borders do not rise from 0 to {sequences}; the index is damaged, write it again")
    ids = _map(bin_path, dtype)
    if len(ids) != tokens:
        what = "is cut short" if len(ids) < tokens else "is longer than that"
        raise UserError(f"{bin_path}: {len(ids)} tokens, but {idx} says {tokens}; the file {what}: build or copy the pair again")
    starts = np.append(begins, tokens * dtype.itemsize)[documents] // dtype.itemsize
    return TokenFile(prefix, ids, starts.astype(np.int64))


def _check_sequences(idx: str, lengths: np.ndarray, begins: np.ndarray, itemsize: int) -> int:
    """The number of tokens; raises UserError where lengths and offsets do not tell the same story."""
    tokens = 0
    for first in range(0, len(lengths), _CHECKED_AT_ONCE):
        some = lengths[first : first + _CHECKED_AT_ONCE].astype(np.int64)
        ends = tokens + some.cumsum()
        wrong = (some < 0) | (begins[first : first + _CHECKED_AT_ONCE] != (ends - some) * itemsize)
        if wrong.any():
            number = first + int(wrong.argmax())
            raise UserError(f"{idx}: length and offset of sequence {number} disagree; the index is damaged, write it again")
        tokens = int(ends[-1])
    return tokens


def _map(path: str, dtype: np.dtype) -> np.ndarray:
    """The file as a read-only memory map; an empty file, which cannot be mapped, as an empty array."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size % dtype.itemsize:
                raise UserError(f"{path}: {size} bytes are no whole number of {dtype.name} tokens; the file is cut short")
            return np.memmap(file, dtype, "r") if size else np.empty(0, dtype)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; a shard is a pair of files, .bin and .idx") from error
