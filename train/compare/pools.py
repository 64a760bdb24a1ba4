"""Which documents an arm trains on: every control of a comparison is a way to draw rows from two variants.

    random    rows of the second arm, drawn without a look at them, as many tokens as the first arm has: what less text alone does
    matched   per source and tenth of document length as many tokens as the first arm takes there, drawn without a look: the first
              arm over matched is the choice of documents, matched over the second arm the choice of sources and lengths
    cut       in every draw of the recipe the documents of highest quality, as many tokens as the draw kept (LLaMA, Touvron et al.
              2023, section 2.1) in place of the draw (GLaM, Du et al. 2022, section 3)
    second    the recipe's own draw with another classifier's scores, solved for the same share of tokens
    fraction  a part of a pool: a run then goes through it more often (GLaM trained on 143 B filtered against 7 T unfiltered tokens)

All draws are hashes of a document's id with the recipe's seed and a purpose: a larger draw holds a smaller one, and no order, part
or worker changes it. Pools that are drawn without a look are drawn anew for every seed of a run (`number`), so that the luck of one
draw is in the interval: an A/A test over one and the same subset finds the subset's own difference, and calls it real. Pools differ
from the wanted tokens by less than a document (a cell of `matched`, or a step of quality).

Shapes: R rows.
"""

from __future__ import annotations

import numpy as np

from pipelines.select_settings import VariantSettings
from pipelines.select_solve import resolve
from quality import sampling
from train.compare.documents import Rows

DECILES = 10


def nearest_prefix(tokens_R: np.ndarray, wanted: int) -> int:
    """How many rows from the first one on have a sum nearest to `wanted` tokens; of two equally near the fewer."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens_R)])
    return int(np.abs(sums - wanted).argmin())


def drawn(rows: Rows, wanted: int, seed: int, purpose: str) -> Rows:
    """Rows in the order of their hash until `wanted` tokens are there."""
    order = np.argsort(sampling.uniform(rows.doc_id_R, seed, purpose), kind="stable")
    return rows.take(order[: nearest_prefix(rows.tokens_R[order], wanted)])


def random(first: Rows, second: Rows, seed: int, number: int) -> Rows:
    """As many tokens as the first arm has, out of the second arm's documents."""
    return drawn(second, first.tokens, seed, f"compare random {number}")


def fraction(rows: Rows, divisor: int, seed: int, number: int) -> Rows:
    """One part in `divisor` of a pool, by tokens."""
    return drawn(rows, round(rows.tokens / divisor), seed, f"compare fraction {number}")


def length_cells(rows: Rows, first: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(cell of each of `rows`, cell of each of `first`), int64: source x tenth of the lengths of `rows` in that source; -1 in a
    source of which `rows` have none."""
    cells, others = np.zeros(len(rows), np.int64), np.full(len(first), -1, np.int64)
    for source in range(len(rows.sources)):
        mine, theirs = rows.source_R == source, first.source_R == source
        if not mine.any():
            continue
        bounds = np.quantile(rows.tokens_R[mine], np.arange(1, DECILES) / DECILES, method="inverted_cdf")
        cells[mine] = source * DECILES + np.searchsorted(bounds, rows.tokens_R[mine], "left")
        others[theirs] = source * DECILES + np.searchsorted(bounds, first.tokens_R[theirs], "left")
    return cells, others


def matched(first: Rows, second: Rows, seed: int, number: int) -> Rows:
    """Per source and length decile as many tokens as the first arm has there, out of the second arm's documents."""
    cells, taken = length_cells(second, first)
    there = taken >= 0
    wanted = np.bincount(taken[there], first.tokens_R[there], len(second.sources) * DECILES)
    order = np.argsort(sampling.uniform(second.doc_id_R, seed, f"compare matched {number}"), kind="stable")
    chosen = [np.zeros(0, np.int64)]
    for cell in np.unique(cells):
        places = order[cells[order] == cell]
        chosen.append(places[: nearest_prefix(second.tokens_R[places], round(wanted[cell]))])
    return second.take(np.concatenate(chosen))


def _by_draw(rows: Rows, variant: VariantSettings) -> dict[str | None, np.ndarray]:
    """Places (int64) of the rows by the draw that judges their source, None where none does."""
    groups: dict[str | None, list[int]] = {}
    for place, source in enumerate(rows.sources):
        groups.setdefault(variant.draws.get(source), []).append(place)
    return {group: np.flatnonzero(np.isin(rows.source_R, sources)) for group, sources in groups.items()}


def _undrawn(first: Rows, second: Rows, variant: VariantSettings) -> np.ndarray:
    """Places of the second arm's rows of undrawn sources that the first arm has too."""
    places = _by_draw(second, variant).get(None, np.zeros(0, np.int64))
    return places[np.isin(second.row_R[places], first.row_R)]


def cut(first: Rows, second: Rows, variant: VariantSettings, seed: int) -> Rows:
    """The best documents of every draw; where a step of quality has more than are wanted, hashes choose. `variant`: of `first`."""
    chosen = [_undrawn(first, second, variant)]
    kept = _by_draw(first, variant)
    hashes = sampling.uniform(second.doc_id_R, seed, "compare cut")
    for group, places in _by_draw(second, variant).items():
        if group is not None:
            best = np.lexsort((hashes[places], -sampling.quality_bin(second.quality_R[places])))
            wanted = int(first.tokens_R[kept[group]].sum())
            chosen.append(places[best[: nearest_prefix(second.tokens_R[places[best]], wanted)]])
    return second.take(np.concatenate(chosen))


def second_draw(first: Rows, judged: Rows, variant: VariantSettings, seed: int, purpose: str) -> Rows:
    """The draws of `variant` (of `first`) over `judged`: the second arm's rows with another classifier's quality.

    `purpose` is that of the recipe's own draw, so that a document's chance is tried by the same number under both classifiers.
    """
    chosen = [_undrawn(first, judged, variant)]
    kept = _by_draw(first, variant)
    uniform = sampling.uniform(judged.doc_id_R, seed, purpose)
    for group, places in _by_draw(judged, variant).items():
        if group is None or not len(places):
            continue
        tokens = judged.tokens_R[places]
        histogram = np.zeros(sampling.BINS, np.int64)
        np.add.at(histogram, sampling.quality_bin(judged.quality_R[places]), tokens)
        rate = int(first.tokens_R[kept[group]].sum()) / max(int(tokens.sum()), 1)
        draw = variant.draw_of(group).model_copy(update={"keep_rate": min(1.0, rate), "threshold": None})
        keeping = resolve(draw, histogram).probability(judged.quality_R[places].astype(np.float64))
        chosen.append(places[uniform[places] < keeping])
    return judged.take(np.concatenate(chosen))


def sequences_of(tokens: int, context: int) -> int:
    """Whole sequences of `context` inputs with their targets that so many tokens give: a pool is cut to them, so that every
    sequence of every arm has the same number of targets, and equal steps are equal compute."""
    return max(0, tokens - 1) // context
