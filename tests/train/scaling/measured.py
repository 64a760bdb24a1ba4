"""Measurements made from laws, for the tests."""

from __future__ import annotations

import numpy as np

from train.scaling.rows import Rows


def grid(sizes: int, lengths: int) -> tuple[np.ndarray, np.ndarray]:
    """Every size with every number of tokens: two float64 [sizes x lengths]."""
    params, tokens = np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e9, 3e11, lengths), indexing="ij")
    return params.ravel(), tokens.ravel()


def rows_of(**values: np.ndarray) -> Rows:
    """As if a file of that name had held them."""
    return Rows("made", values)
