"""index/: from a document's id, locator or URL to its part and row, without reading the tables.

Two flat arrays, sorted by key: `keys.bin` (uint64, a hash of the name) and `rows.bin` (int64, part index << 32 | row). A name
is found by bisection; that a hit is right is seen at the row itself. `parts.json` lists the parts by index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from pipelines.parts import ROW_BITS, Part
from pipelines.store import Store, read_columns

KEYS, ROWS, PARTS = "index/keys.bin", "index/rows.bin", "index/parts.json"


def name_key(name: str) -> int:
    """The 64-bit key of a doc_id (hex), a locator or a URL."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def write_index(store: Store, parts: Sequence[Part]) -> None:
    """Publishes the index of a run: three names a document at the most, 16 bytes each."""
    keys, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for part in parts:
        table = read_columns(store, part.path("documents"), ["doc_id", "locator", "url"])
        numbers = np.arange(len(table), dtype=np.int64) + (part.index << ROW_BITS)
        for column in table.columns:
            names = [value.hex() if isinstance(value, bytes) else value for value in column.to_pylist()]
            found = np.array([name is not None for name in names], bool)
            keys.append(np.array([name_key(name) for name in names if name is not None], np.uint64))
            rows.append(numbers[found])
    all_keys, all_rows = np.concatenate(keys), np.concatenate(rows)
    order = np.lexsort((all_rows, all_keys))
    store.publish(KEYS, all_keys[order].astype("<u8").tobytes())
    store.publish(ROWS, all_rows[order].astype("<i8").tobytes())
    store.publish_json(PARTS, [{"source": part.source, "name": part.name} for part in parts])


def find(store: Store, name: str) -> list[tuple[str, str, int]]:
    """(source, part, row) of every document that goes by `name`, or by a name with the same key."""
    parts = store.read_json(PARTS)
    keys = np.frombuffer(store.read(KEYS), "<u8")
    key = np.uint64(name_key(name))
    start, stop = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
    rows = np.frombuffer(store.read(ROWS), "<i8")[start:stop]
    return [
        (parts[row >> ROW_BITS]["source"], parts[row >> ROW_BITS]["name"], int(row & ((1 << ROW_BITS) - 1)))
        for row in rows.tolist()
    ]
