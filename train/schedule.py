"""Learning rates: pure functions of the number of the update, which counts from 1 to the run's horizon.

* **cosine** (LLaMA, Touvron et al. 2023, section 2.3; GPT-3): linear warm-up to the peak, then half a cosine that reaches
  `floor` x peak exactly at the last update. Hoffmann et al. 2022 (section 3.1, appendix B): the horizon must be the run's own.
* **inverse_sqrt** (GLaM, Du et al. 2022, section 5.1; Raffel et al. 2020): the peak for the first `hold` updates, then
  peak x sqrt(hold / update). A warm-up multiplies it.
"""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["cosine", "inverse_sqrt"]


def rate(kind: Kind, update: int, *, peak: float, steps: int, warmup: int, floor: float, hold: int) -> float:
    """The learning rate of update 1, 2, ..., steps; warmup: updates that rise to the peak, 0 for none."""
    if kind == "inverse_sqrt":
        return peak * min(1.0, update / warmup if warmup else 1.0) * min(1.0, math.sqrt(hold / update))
    if update < warmup:
        return peak * update / warmup
    done = 1.0 if update >= steps else (update - warmup) / (steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
