"""The proof that copies stay together, in every build and by `verify`: no text is both kept for training and held out, in whichever
variants, and a variant that drops exact copies keeps a text once.

It goes by the content hashes of documents/, not by the clusters from which select decides. In memory: 24 bytes a document, and
three times that while they are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.cluster_parts import part_ids
from pipelines.errors import CheckError


class Copies:
    """The texts of a run that stand more than once. hashes: of the documents of every part, binary(16)."""

    def __init__(self, hashes: Sequence[pa.ChunkedArray]) -> None:
        sizes = [len(column) for column in hashes]
        high, low = np.concatenate([np.empty((0, 2), np.uint64), *(np.stack(part_ids(one), axis=1) for one in hashes)]).T
        order = np.lexsort((low, high))
        high, low = high[order], low[order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        text = np.cumsum(fresh) - 1
        repeated = np.bincount(text) > 1
        numbers = np.where(repeated, np.cumsum(repeated) - 1, -1)
        texts = np.empty(len(order), np.int64)
        texts[order] = numbers[text]
        # By part, int64 [rows]: the number of each document's text, -1 where it stands alone.
        self._texts = np.split(texts, np.cumsum(sizes, dtype=np.int64)[:-1])
        self._sides: dict[str, np.ndarray] = {}  # split -> bool [texts]: kept for it by some variant
        self._count = int(repeated.sum())

    def of(self, part: int, kept: np.ndarray) -> np.ndarray:
        """int64 [n]: numbers of the texts that stand more than once, of the documents of a part in `kept` (bool [rows])."""
        found = self._texts[part][kept]
        return found[found >= 0]

    def hold(self, where: str, once: bool, kept: dict[str, np.ndarray]) -> None:
        """Takes what a variant, `where`, keeps: split -> numbers of texts; with `once` each of them once. Else a CheckError."""
        counts = np.bincount(np.concatenate(list(kept.values())), minlength=self._count)
        if once and (counts > 1).any():
            said = f"{(counts > 1).sum()} texts are kept more than once, though exact copies are dropped"
            raise CheckError(f"{where}: {said}; please report this run")
        for split, texts in kept.items():
            self._sides.setdefault(split, np.zeros(self._count, bool))[texts] = True
        both = np.sum(list(self._sides.values()), axis=0) > 1
        if both.any():
            raise CheckError(f"{where}: {both.sum()} texts are kept both for training and for validation; please report this run")
