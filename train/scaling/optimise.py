"""scipy.optimize, loaded when first needed and with one BLAS thread.

L-BFGS solves systems of at most 20 unknowns some hundred times a search. Where other programs use the cores, a second BLAS thread
only waits for the first: measured on two busy cores, ten searches took 3.2 CPU seconds with two threads and 0.12 with one.
"""

from __future__ import annotations

import os
from typing import Any

_THREADS = "OPENBLAS_NUM_THREADS"


def optimiser() -> Any:
    """The module. scipy's own BLAS reads its number of threads once, when it is loaded; the environment is left as it was."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        import scipy.optimize
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before
    return scipy.optimize
