"""The mixture: what share of a training run comes from each source, how often it is gone through, what a fraction of it takes.

A recipe names the tokens that a model is to be trained on and the proportions of the sources, as LLaMA (Touvron et al. 2023,
section 2.1 and table 1) and GLaM (Du et al. 2022, section 3 and its table of mixture weights) do. Of every source and variant:

    wanted     proportion x tokens of the run
    available  tokens of the training documents that the variant keeps, the end of each document counted as one
    epochs     wanted / available

Epochs of 1 and more: every document stands in the shards once, and `blend.json` says how often the trainer goes through them.
Below 1: documents are taken in the order of their draw, a hash of doc_id and seed, until the wanted tokens are there; that is the
same order in every variant. The others get the verdict `mixture`, and what is taken is less than one document over what is wanted.

It is solved over any number of documents in two steps of integers, so that no order of summing can move it: tokens by the first
bits of the draw, one histogram a part, say in which of BINS bins the last document falls (`deciding_bin`); the documents of that
one bin alone, 16 bytes each, say which one it is (`solve`). Bins are of 12 bits: a histogram is 32 KB, less than half of what a
quality draw sends of a part, and the one worker that solves a variant holds 4 MB for a billion documents.

Departures: the papers sample with replacement or say nothing of how a fraction is chosen; here it is a set of documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

DRAW_BITS = 53  # of a draw: `quality.sampling.uniform` times 2^53 is a whole number
BIN_BITS = 12
BINS = 1 << BIN_BITS
PURPOSE = "mixture"  # of the draw
# Muennighoff et al. 2023 (Scaling Data-Constrained Language Models, abstract): for a fixed compute budget, up to 4 epochs of
# repeated data change the loss negligibly compared to unique data; beyond, repetition is worth less and less.
MAX_EPOCHS = 4.0

# One document of a deciding bin. draw: 53 bits; tokens: the end of the document counted; source: its place among the sorted ones.
DRAWN = np.dtype([("draw", "<u8"), ("tokens", "<u4"), ("source", "<i4")])


def path(variant: str) -> str:
    """Where a variant's solved mixture stands in a run, by source; only where the recipe has a mixture."""
    return f"decisions/{variant}/mixture.json"


def wanted_tokens(weights: Mapping[str, float], tokens: int) -> dict[str, int]:
    """Source -> tokens wanted of it, by source; whole numbers that sum to `tokens`.

    weights: proportions on any scale, at least one above 0, read as the decimal numbers that they are written as. What is left of
    rounding down goes, one token each, to the largest remainders, and among equal ones to the first names.
    """
    exact = {source: Fraction(str(weights[source])) for source in sorted(weights)}
    total = sum(exact.values())
    parts = {source: divmod(tokens * weight, total) for source, weight in exact.items()}
    missing = tokens - sum(whole for whole, _ in parts.values())
    first = sorted(parts, key=lambda source: (-parts[source][1], source))[:missing]
    return {source: whole + (source in first) for source, (whole, _) in parts.items()}


def epochs(weights: Mapping[str, float], tokens: int, available: Mapping[str, int]) -> dict[str, float | None]:
    """Source -> how often it is gone through in `tokens` of training; None where something is wanted and nothing there."""
    return {source: ratio(count, available[source]) for source, count in wanted_tokens(weights, tokens).items()}


def ratio(wanted: int, available: int) -> float | None:
    """Epochs; None where something is wanted and nothing there, 0.0 where nothing is wanted."""
    if available == 0:
        return None if wanted else 0.0
    return wanted / available


def passes(wanted: int, in_shards: int) -> float:
    """How often a trainer goes through the shards of a source: 1.0 where documents were taken, else the epochs."""
    return max(1.0, wanted / in_shards) if in_shards else 1.0


def warning(source: str, wanted: int, available: int, max_epochs: float) -> str | None:
    """One line where a source runs dry: nothing there, or to be gone through more than `max_epochs` times; else None."""
    if wanted == 0 or (available and wanted <= max_epochs * available):
        return None
    if available == 0:
        return f"{source} has no tokens of the {wanted:,} wanted; give it text, or mixture.weights.{source} 0"
    return (
        f"{source} has {available:,} tokens of the {wanted:,} wanted: {wanted / available:.1f} epochs, over max_epochs"
        f" ({max_epochs:g}); give it more text or a smaller weight"
    )


# -- which documents a fraction takes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deciding:
    """The bin in which the wanted tokens are reached, with the tokens of the bins before it; bin is None where nothing is cut."""

    wanted: int
    available: int
    bin: int | None = None
    before: int = 0


@dataclass(frozen=True, slots=True)
class Solution:
    """What the mixture takes of one source: documents whose draw, in [0, 1), is below `bound`; `taken` tokens."""

    wanted: int
    available: int
    taken: int
    bound: float

    @property
    def epochs(self) -> float | None:
        return ratio(self.wanted, self.available)


def histogram(draws: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """int64 [BINS]: tokens (int64 [documents]) by the first bits of the draws (float64 [documents] in [0, 1))."""
    found = np.zeros(BINS, np.int64)
    np.add.at(found, bin_of(draws), tokens)
    return found


def bin_of(draws: np.ndarray) -> np.ndarray:
    """int64 [documents], 0 to BINS - 1; exact, since a draw is a multiple of 2^-53."""
    return (draws * BINS).astype(np.int64)


def deciding_bin(summed: np.ndarray, wanted: int) -> Deciding:
    """Where `wanted` tokens are reached in a histogram (int64 [BINS]) of all training documents that a variant keeps."""
    reached = np.cumsum(summed)
    available = int(reached[-1])
    if wanted >= available or wanted == 0:
        return Deciding(wanted, available)
    place = int(np.searchsorted(reached, wanted))
    return Deciding(wanted, available, place, int(reached[place] - summed[place]))


def solve(decided: Deciding, drawn: np.ndarray) -> Solution:
    """The bound of a source. drawn: DRAWN [documents], all of its documents in the deciding bin, in any order.

    The document that reaches the wanted tokens is taken. Documents of one draw (a chance of 2^-53 a pair) share their fate.
    """
    wanted, available = decided.wanted, decided.available
    if decided.bin is None:
        return Solution(wanted, available, available, 1.0) if wanted else Solution(wanted, available, 0, 0.0)
    draws, places = np.unique(drawn["draw"], return_inverse=True)
    tokens = np.zeros(len(draws), np.int64)
    np.add.at(tokens, places, drawn["tokens"].astype(np.int64))
    reached = decided.before + np.cumsum(tokens)
    last = int(np.searchsorted(reached, wanted))
    return Solution(wanted, available, int(reached[last]), (int(draws[last]) + 1) / 2**DRAW_BITS)


# -- published mixtures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """One row of a paper's table, as printed; None where the table has no such column."""

    percent: float  # of a batch
    tokens: int | None = None
    epochs: float | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A mixture as a paper prints it. `run_tokens`: the training run that its epochs are for."""

    citation: str
    sources: dict[str, PublishedSource]
    run_tokens: int | None = None

    @property
    def weights(self) -> dict[str, float]:
        """As a recipe's `mixture.weights`."""
        return {name: source.percent for name, source in self.sources.items()}


LLAMA = Published(
    "Touvron et al. 2023, LLaMA: Open and Efficient Foundation Language Models, arXiv:2302.13971, table 1",
    {
        "common_crawl": PublishedSource(67.0, epochs=1.10, disk_bytes=3_300_000_000_000),
        "c4": PublishedSource(15.0, epochs=1.06, disk_bytes=783_000_000_000),
        "github": PublishedSource(4.5, epochs=0.64, disk_bytes=328_000_000_000),
        "wikipedia": PublishedSource(4.5, epochs=2.45, disk_bytes=83_000_000_000),
        "books": PublishedSource(4.5, epochs=2.23, disk_bytes=85_000_000_000),
        "arxiv": PublishedSource(2.5, epochs=1.06, disk_bytes=92_000_000_000),
        "stackexchange": PublishedSource(2.0, epochs=1.03, disk_bytes=78_000_000_000),
    },
    1_400_000_000_000,
)

GLAM = Published(
    "Du et al. 2022, GLaM: Efficient Scaling of Language Models with Mixture-of-Experts, arXiv:2112.06905, section 3",
    {
        "filtered_webpages": PublishedSource(42.0, tokens=143_000_000_000),
        "wikipedia": PublishedSource(6.0, tokens=3_000_000_000),
        "conversations": PublishedSource(28.0, tokens=174_000_000_000),
        "forums": PublishedSource(2.0, tokens=247_000_000_000),
        "books": PublishedSource(20.0, tokens=390_000_000_000),
        "news": PublishedSource(2.0, tokens=650_000_000_000),
    },
)
