"""Interpolated modified Kneser-Ney estimation of an n-gram model (Chen & Goodman 1998, section 3 and equations 26 to 28).

For an n-gram g = h w of the highest order, a(g) is its count; of a lower order, the number of different tokens that stand to its
left (its continuation count), but for n-grams that begin with <s>, which nothing can stand to the left of. Then

    p(w | h) = (a(h w) - D(a(h w))) / a(h .) + gamma(h) p(w | h')        gamma(h) = what is missing to 1
    p(w)     = (a(w) - D(a(w))) / a(.) + gamma / V

with three discounts an order, for counts of 1, 2, and 3 or more: D1 = 1 - 2 Y n2/n1, D2 = 2 - 3 Y n3/n2, D3 = 3 - 4 Y n4/n3,
where Y = n1 / (n1 + 2 n2) and n1 .. n4 count the n-grams with that a. Where a text is so small that these do not exist or lie
outside of what they discount, they are 0.5, 1 and 1.5 (KenLM's fall-back, but that KenLM takes D3 = 3 where only n4 is 0). What
KenLM's estimator prints for a text is what `tests/quality/test_kenlm.py` holds this to.

`min_count` leaves n-grams of three tokens and more out of the table when they were seen less often; their probability mass goes
into gamma, so that every distribution still sums to 1. Counting is by sorted 64-bit hashes of all windows, order by order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quality.perplexity import ORDER, NgramModel, PerplexityScorer, backoff_keys, extended, table
from quality.text import kernel

_FALLBACK = (0.5, 1.0, 1.5)
_HEAD, _MIDDLE = 100 / 3, 200 / 3  # percentiles of perplexity: CCNet's thirds


def fit(documents: Sequence[np.ndarray], vocab_size: int, min_count: int = 2) -> NgramModel:
    """The model of token sequences (any integer dtype, ids under `vocab_size`); bounds of the buckets are infinite.

    Everything is held at once: the hashes of all windows, and per order the different n-grams with their counts.
    """
    begin = vocab_size
    text, room = _laid_out(documents, begin)
    hashes = _windows(text, room)
    keys: list[np.ndarray] = []
    values: list[np.ndarray] = []
    lower: tuple[np.ndarray, np.ndarray] | None = None  # (sorted hashes, p) of all n-grams of the order below
    counted = [_counted(hashes, room, length) for length in range(1, ORDER + 1)]
    uniform = 1.0 / (vocab_size + 1)  # every token and </s>
    unseen = uniform
    for length in range(1, ORDER + 1):
        grams, places, counts = counted[length - 1]
        begins = text[places] == begin
        adjusted = counts
        if length < ORDER:
            adjusted = _continuations(hashes[length - 1], counted[length][1], grams, counts, begins)
        predicted = ~begins | (length > 1)  # <s> is a context, never predicted
        adjusted = np.where(predicted, adjusted, 0)
        contexts = np.zeros(len(grams), np.uint64) if length == 1 else hashes[length - 2][places]
        known, group = np.unique(contexts, return_inverse=True)
        totals = np.bincount(group, adjusted)
        discounted = np.maximum(adjusted - _discounts(adjusted[predicted])[np.minimum(adjusted, 3)], 0.0)
        kept = predicted & ((counts >= min_count) | (length < 3))
        mass = np.bincount(group, np.where(kept, discounted, 0.0)) / np.maximum(totals, 1)
        gamma = 1.0 - mass
        if lower is None:
            suffix = np.full(len(grams), uniform)
            unseen = float(gamma[0]) * uniform
        else:
            suffix = lower[1][np.searchsorted(lower[0], hashes[length - 2][places + 1])]
        own = np.where(kept, discounted / np.maximum(totals, 1)[group], 0.0)
        probability = own + gamma[group] * suffix
        lower = grams, probability
        keys.append(grams[kept])
        values.append(np.log(probability[kept]))
        if length > 1:
            keys.append(backoff_keys(known))
            values.append(np.log(np.maximum(gamma, 1e-30)))
    return NgramModel(*table(np.concatenate(keys), np.concatenate(values)), begin, float(np.log(unseen)), np.inf, np.inf)


def with_bounds(model: NgramModel, documents: Sequence[np.ndarray]) -> NgramModel:
    """The model with the bounds of head and middle: terciles of the perplexity of `documents`."""
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    ids = np.concatenate([np.empty(0, np.int64), *documents])
    found = PerplexityScorer({"": model})(ids, offsets, [""] * len(documents))
    found = found[np.isfinite(found)]
    head, middle = (float(np.percentile(found, share, method="lower")) if len(found) else np.inf for share in (_HEAD, _MIDDLE))
    return NgramModel(model.keys, model.values, model.begin, model.unseen, head, middle)


def _laid_out(documents: Sequence[np.ndarray], begin: int) -> tuple[np.ndarray, np.ndarray]:
    """(<s> tokens </s> of all documents, int64 [n]; from each place, how many tokens its document still holds, int64 [n])."""
    pieces, rooms = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for document in documents:
        pieces += [np.array([begin]), document.astype(np.int64), np.array([begin + 1])]
        rooms.append(np.arange(len(document) + 2, 0, -1))
    return np.concatenate(pieces), np.concatenate(rooms)


def _windows(text: np.ndarray, room: np.ndarray) -> list[np.ndarray]:
    """For each length 1 .. ORDER the hash of the window that begins at each place (uint64 [n]); 0 where the document ends."""
    out = [np.zeros(len(text), np.uint64) for _ in range(ORDER)]
    for length in range(ORDER):
        _extend(text, room, out[max(length - 1, 0)], length, out[length])
    return out


@kernel
def _extend(text: np.ndarray, room: np.ndarray, before: np.ndarray, length: int, out: np.ndarray) -> None:
    for place in range(len(text) - length):
        if room[place] > length:
            out[place] = extended(before[place] if length else np.uint64(0), text[place + length])


def _counted(hashes: list[np.ndarray], room: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sorted hashes of the different n-grams, the first place of each, how often each stands)."""
    places = np.flatnonzero(room >= length)
    grams, first, counts = np.unique(hashes[length - 1][places], return_index=True, return_counts=True)
    return grams, places[first], counts


def _continuations(
    hashes: np.ndarray, longer: np.ndarray, grams: np.ndarray, counts: np.ndarray, begins: np.ndarray
) -> np.ndarray:
    """How many different tokens stand to the left of each n-gram; its count where it begins with <s>.

    hashes: of the windows as long as `grams`. longer: the first place of each n-gram that is one token longer; what follows its
    first token is one of `grams`.
    """
    to_the_left = np.bincount(np.searchsorted(grams, hashes[longer + 1]), minlength=len(grams))
    return np.where(begins, counts, to_the_left)


def _discounts(adjusted: np.ndarray) -> np.ndarray:
    """float64 [4]: what is taken off counts of 0, 1, 2, and 3 or more."""
    n1, n2, n3, n4 = (int((adjusted == number).sum()) for number in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 <= discount <= number for number, discount in enumerate(found, 1)):
            return np.array([0.0, *found])
    return np.array([0.0, *_FALLBACK])
