"""Python's cycle collector, kept from what imports make.

Beam and what it brings along are 300,000 objects that live as long as the process. Left alone, the collector walks them while they
are imported, in every full collection, and again as the process ends: more than one CPU second a build.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def resting() -> Iterator[None]:
    """Around the imports of a command. What stands at the end is never looked at again; what comes after is collected as always."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
