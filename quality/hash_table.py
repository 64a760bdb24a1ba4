"""An open-addressing table of 64-bit hashes: what n-gram models and indexes of phrases are looked up in.

A key of 0 is an empty slot, so no key may be 0; the number of slots is a power of two, with at least one of them empty. Linear
probing. Keys go in in the order given: sort them, and equal content is equal bytes.
"""

from __future__ import annotations

import numpy as np

from quality.text import kernel

EMPTY = np.uint64(0)


@kernel
def insert(keys: np.ndarray, values: np.ndarray, out_keys: np.ndarray, out_values: np.ndarray) -> None:
    """Puts unique keys (uint64 [n]) with their values into an empty table (uint64 [2^k], values of one dtype [2^k])."""
    mask = np.uint64(len(out_keys) - 1)
    for i in range(len(keys)):
        slot = keys[i] & mask
        while out_keys[slot] != EMPTY:
            slot = (slot + np.uint64(1)) & mask
        out_keys[slot] = keys[i]
        out_values[slot] = values[i]
