"""Autocast where torch does not see to it itself: which type products run in, and regions that stay in float32.

Devices without autocast (meta) run in the type they are given.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The type of matrix products with x: autocast's where it is on, else x's."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """A region in which products on x's device keep their types."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()
