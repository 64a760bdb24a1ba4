"""The grid of a sweep: models of one family at several widths, each at several compute budgets.

As in Chinchilla's approach 2 (Hoffmann et al. 2022, section 3.2), a budget C gives a model of N parameters D = C / (6 N) tokens,
and every cell is a run of its own whose learning rate ends its cosine at its own last token. That a schedule made for another
length, a warm-up that is long for small models, or one rate for all sizes bend the frontier is Porian et al.'s finding (2024): so
warm-up is a tenth of each run (2,000 updates at most), and several rates are tried for each width, at the smallest of its budgets;
the best goes on to the larger ones.

A width scales its preset: heads of the same size, depth and feed-forward widths in proportion, so that the shape stays (Kaplan et
al. 2020, section 3.1: of one size, shape matters little). N holds the active parameters with the embedding, which at these sizes is
most of it; the table has the count without it too.

A cell is left out where it would be fewer than LEAST_STEPS updates, or where it would go through the text more than MOST_PASSES
times, beyond which repeated text is not worth new text (Muennighoff et al. 2023).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
    """A size at a budget (training FLOPs, 6 N D to half an update)."""

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
    """The family's model of a width. Raises UserError where it is not a whole number of heads."""
    if width % base.d_head:
        raise UserError(f"--width {width}: heads are {base.d_head} wide, give multiples of that")
    share, every = width / base.d_model, 1 if base.moe is None else base.moe.every
    moe = None if base.moe is None else dataclasses.replace(base.moe, d_ff=_scaled(base.moe.d_ff, share))
    config = dataclasses.replace(
        base,
        d_model=width,
        n_heads=width // base.d_head,
        d_ff=_scaled(base.d_ff, share),
        n_layers=every * max(1, round(base.n_layers * share / every)),
        moe=moe,
    )
    counted = flops.parameters(config)
    return Size(config, counted.active, counted.active_non_embedding, counted.total)


def _scaled(width: int, share: float) -> int:
    return _ROUND * max(1, round(width * share / _ROUND))


def default_widths(base: ModelConfig) -> list[int]:
    """A quarter to twice the preset's width, in whole heads."""
    return sorted({base.d_head * max(1, round(base.d_model * share / base.d_head)) for share in DEFAULT_WIDTHS})


def grid(sizes: Sequence[Size], budgets: Sequence[float], tokens_a_step: int, unique_tokens: float) -> list[Cell]:
    """All cells, left-out ones too, by budget and then by width. tokens_a_step: of an update; unique_tokens: that there are."""
    cells = []
    for budget in sorted(set(budgets)):
        for size in sorted(sizes, key=lambda one: one.width):
            steps = max(1, round(budget / (FLOPS_A_PARAMETER_TOKEN * size.params * tokens_a_step)))
            tokens = steps * tokens_a_step
            cells.append(Cell(size, budget, steps, tokens, tokens / unique_tokens))
    return cells


def smallest(cells: Sequence[Cell], size: Size) -> Cell:
    """The cell of the smallest budget that a size is run at: where its rates are tried."""
    return min((cell for cell in cells if cell.size is size and cell.why_not is None), key=lambda cell: cell.flops)
