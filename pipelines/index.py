"""index/: from a document's id, locator or URL to its part and row, without reading the tables.

Two flat arrays, sorted by key: `keys.bin` (uint64, a hash of the name) and `rows.bin` (int64, part index << 32 | row). Keys are
hashes, so a name's place is known but for a few thousand: it is looked for there first, then by bisection, and little is read of
either file. That a hit is right is seen at the row itself. `parts.json` lists the parts by index.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import BinaryIO

import numpy as np

from pipelines.parts import ROW_BITS, Part
from pipelines.store import Store, read_columns

KEYS, ROWS, PARTS = "index/keys.bin", "index/rows.bin", "index/parts.json"
_WINDOW = 8192  # keys that are read at once, at the least


def name_key(name: str) -> int:
    """The 64-bit key of a doc_id (hex), a locator or a URL."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def write_index(store: Store, parts: Sequence[Part]) -> None:
    """Publishes the index of a run: three names a document at the most, 16 bytes each."""
    entries = [(np.empty(0, np.uint64), np.empty(0, np.int64)), *store.each(parts, partial(_entries, store))]
    all_keys, all_rows = (np.concatenate(column) for column in zip(*entries, strict=True))
    order = np.lexsort((all_rows, all_keys))
    store.publish(KEYS, all_keys[order].astype("<u8").tobytes())
    store.publish(ROWS, all_rows[order].astype("<i8").tobytes())
    store.publish_json(PARTS, [{"source": part.source, "name": part.name} for part in parts])


def _entries(store: Store, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint64 [n], rows int64 [n]) of the names of a part's documents."""
    table = read_columns(store, part.path("documents"), ["doc_id", "locator", "url"])
    numbers = np.arange(len(table), dtype=np.int64) + (part.index << ROW_BITS)
    keys, rows = [], []
    for column in table.columns:
        names = [value.hex() if isinstance(value, bytes) else value for value in column.to_pylist()]
        found = np.array([name is not None for name in names], bool)
        keys.append(np.array([name_key(name) for name in names if name is not None], np.uint64))
        rows.append(numbers[found])
    return np.concatenate(keys), np.concatenate(rows)


class Index:
    """The index of a run, opened: see `opened`."""

    def __init__(self, store: Store, keys: BinaryIO, rows: BinaryIO) -> None:
        self._store, self._keys, self._rows = store, keys, rows
        self._size = keys.seek(0, os.SEEK_END) // 8
        self._window = max(_WINDOW, 4 * math.isqrt(self._size))  # four standard deviations of a key's place to either side

    def find(self, name: str) -> list[tuple[str, str, int]]:
        """(source, part, row) of every document that goes by `name`, or by a name with the same key."""
        key = name_key(name)
        start, stop = self._first(key), self._first(key + 1)
        self._rows.seek(8 * start)
        rows = np.frombuffer(self._rows.read(8 * (stop - start)), "<i8")
        return [(*self._parts[row >> ROW_BITS], int(row & ((1 << ROW_BITS) - 1))) for row in rows.tolist()]

    def _first(self, key: int) -> int:
        """The place of the first key that is not below `key`."""
        low, high, middle = 0, self._size, key * self._size >> 64
        while low < high:
            start = max(low, min(middle - self._window // 2, high - self._window))
            self._keys.seek(8 * start)
            found = np.frombuffer(self._keys.read(8 * min(self._window, high - start)), "<u8")
            below = int(np.count_nonzero(found < key)) if key < 1 << 64 else len(found)
            if 0 < below < len(found):
                return start + below
            low, high = (start + len(found), high) if below else (low, start)
            middle = (low + high) // 2
        return low

    @cached_property
    def _parts(self) -> list[tuple[str, str]]:
        return [(part["source"], part["name"]) for part in self._store.read_json(PARTS)]


@contextmanager
def opened(store: Store) -> Iterator[Index]:
    """The index of a run, for any number of names."""
    with store.open(KEYS) as keys, store.open(ROWS) as rows:
        yield Index(store, keys, rows)
