"""The grid of a sweep: models of one family at several widths, each at several compute budgets.

A budget C gives a model of N parameters D = C / (6 N) tokens, as in Chinchilla's approach 2 (Hoffmann et al. 2022, section 3.2).
What is held to:

* Every cell is a run of its own, whose learning rate ends its cosine at its own last token: Hoffmann et al. (appendix B) find that
  a longer cosine costs loss. Porian et al. (2024) find that to matter less than three other things, which are seen to as well:
* warm-up is a tenth of each run (2,000 updates at most), not as long as small models' runs;
* the learning rate is tuned for each size: at the smallest budget that a width is run at, with a seed that measures nothing;
* N holds the output matrix: active parameters with the embedding, which where they are tied is the same matrix.

Departures: 6 N D counts FLOPs, not appendix F's sums; losses are those of validation shards, not smoothed ones of training; one
rate serves all budgets of a width.

A width scales its preset: heads of the same size, depth and feed-forward widths in proportion, so that the shape stays (Kaplan et
al. 2020, section 3.1: of one size, shape matters little).

A cell is left out where it would be fewer than LEAST_STEPS updates, or where a shard would be gone through more than MOST_PASSES
times: up to four passes are nearly as good as new text (Muennighoff et al. 2023).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.errors import UserError
from train import flops
from train.config import ModelConfig
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN

LEAST_STEPS = 100  # updates
MOST_PASSES = 4.0
DEFAULT_WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the preset's
DEFAULT_RATES = (0.5, 1.0, 2.0)  # of the preset's peak
MOST_MORE = 2  # rates beyond those that were to be tried
_ROUND = 8  # feed-forward widths are multiples of it: what grouped multiplication can take


@dataclass(frozen=True, slots=True)
class Size:
    """One model of the family. params: active ones with the embedding, N; total: with all experts."""

    config: ModelConfig
    params: int
    non_embedding: int
    total: int

    @property
    def width(self) -> int:
        """d_model."""
        return self.config.d_model

    @property
    def experts(self) -> int:
        """Of a sparse layer; 1 is dense."""
        return 1 if self.config.moe is None else self.config.moe.experts


@dataclass(frozen=True, slots=True)
class Cell:
    """A size at a budget (training FLOPs, 6 N D to half an update). passes: of the shard that is gone through most often."""

    size: Size
    flops: float
    steps: int
    tokens: int
    passes: float

    @property
    def why_not(self) -> str | None:
        """Why it is left out; None where it is run."""
        if self.steps < LEAST_STEPS:
            return f"{self.steps} updates"
        return f"{self.passes:.1f} passes" if self.passes > MOST_PASSES else None


def size_of(base: ModelConfig, width: int) -> Size:
    """The family's model of a width. Raises UserError where that is not a whole number of heads."""
    step = _whole_heads(base)
    if width % step:
        raise UserError(f"--width {width}: gives no whole number of heads; give multiples of {step}")
    config = base if width == base.d_model else _scaled(base, width)
    counted = flops.parameters(config)
    return Size(config, counted.active, counted.active_non_embedding, counted.total)


def _whole_heads(base: ModelConfig) -> int:
    return base.d_model // math.gcd(base.d_model, base.n_heads)


def _scaled(base: ModelConfig, width: int) -> ModelConfig:
    share, every = width / base.d_model, 1 if base.moe is None else base.moe.every

    def feed_forward(d_ff: int) -> int:
        return _ROUND * max(1, round(d_ff * share / _ROUND))

    return dataclasses.replace(
        base,
        d_model=width,
        n_heads=base.n_heads * width // base.d_model,
        d_ff=feed_forward(base.d_ff),
        n_layers=every * max(1, round(base.n_layers * share / every)),
        moe=None if base.moe is None else dataclasses.replace(base.moe, d_ff=feed_forward(base.moe.d_ff)),
    )


def default_widths(base: ModelConfig) -> list[int]:
    """A quarter to twice the preset's width, in whole heads."""
    step = _whole_heads(base)
    return sorted({step * max(1, round(base.d_model * share / step)) for share in DEFAULT_WIDTHS})


def grid(
    sizes: Sequence[Size], budgets: Sequence[float], tokens_a_step: int, passes: Callable[[int], float]
) -> list[Cell]:
    """All cells, left-out ones too, by budget and then by width. passes: how often so many updates go through the shard that they
    go through most often."""
    cells = []
    for budget in sorted(set(budgets)):
        for size in sorted(sizes, key=lambda one: one.width):
            steps = max(1, round(budget / (FLOPS_A_PARAMETER_TOKEN * size.params * tokens_a_step)))
            cells.append(Cell(size, budget, steps, steps * tokens_a_step, passes(steps)))
    return cells


def smallest(cells: Sequence[Cell], size: Size) -> Cell:
    """The cell of the smallest budget that a size is run at: where its rates are tried."""
    return min((cell for cell in cells if cell.size is size and cell.why_not is None), key=lambda cell: cell.flops)
