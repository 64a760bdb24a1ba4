"""Python's cycle collector, kept from what the imports made: import this first, and call `keep` after the last import.

Beam and what it brings along are 300,000 objects that live as long as the process. Left alone, the collector walks them while they
are imported, in every full collection, and again as the process ends: more than one CPU second a build.
"""

from __future__ import annotations

import gc

gc.disable()


def keep() -> None:
    """What stands now is never looked at again; what comes after is collected as always."""
    gc.freeze()
    gc.enable()
