"""Memory that a step frees stays with the process: the next step takes the same amount again.

As it comes, glibc hands freed memory back to the kernel whenever enough of it lies at the heap's end, and takes large tensors from
the kernel one by one. A training step takes and frees every activation and gradient, so that all of these pages are faulted in and
cleared by the kernel again in each step: about a fifth of the CPU time of a small model
(bench/train_models.py, with and without --return-memory). Values do not change: tensors lie on 64 bytes either way.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>
_LARGEST_ON_HEAP = 32 << 20  # the largest that glibc accepts on 64 bits


def keep_freed_memory() -> bool:
    """From now on this process gives memory back only where 2 GiB lie free at the heap's end; false where malloc is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
