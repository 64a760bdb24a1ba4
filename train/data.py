"""Batches: token shards cut into sequences, in an order that is a function of (seed, step, index in the global batch).

**Packing.** A shard's tokens, documents back to back, are cut into sequences of `context` inputs; the target of each input is the
token behind it, so that sequence j holds tokens j T to j T + T, and every token but a shard's first is a target once a pass.
The last sequence is shorter: it is filled up with padding that is `valid` nowhere and has no targets. Sequences cross documents;
with `masked`, `starts` tells the model where documents begin, so that none sees another, and a document's first token is no
target.

**Order.** Sequence `index` of the global batch of `step` is place step x batch + index of the blend (blend.py). Nothing else
enters: not the number of processes, not the micro-batch, not what was read before.

**Validation** reads every source's validation shards from the start, or evenly spread sequences where there are more than are
wanted: the same ones at every call.

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError
from train.blend import Blend
from train.corpus import Corpus, Shard, Vocabulary, check_ids

IGNORE = -100  # train.losses.IGNORE, which is not imported here for torch's sake


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens_BT, targets_BT: int64, IGNORE where there is no target. starts_BT: bool, None where documents are not masked.
    valid_BT: bool, None where nothing is padding."""

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    starts_BT: np.ndarray | None
    valid_BT: np.ndarray | None

    @property
    def n_targets(self) -> int:
        """How many targets carry loss."""
        return int((self.targets_BT != IGNORE).sum())


def n_sequences(tokens: int, context: int) -> int:
    """How many sequences a shard of so many tokens gives."""
    return -(-(tokens - 1) // context) if tokens > 1 else 0


def pack(chosen: Iterable[tuple[Shard, int] | None], context: int, masked: bool, vocabulary: Vocabulary) -> Batch:
    """The sequences (shard, number), in this order; None is a sequence of nothing but padding.

    Raises UserError where an id is outside the vocabulary.
    """
    sequences = list(chosen)
    shape = (len(sequences), context)
    tokens_BT = np.zeros(shape, np.int64)
    targets_BT = np.full(shape, IGNORE, np.int64)
    starts_BT = np.zeros(shape, np.bool_)
    valid_BT = np.zeros(shape, np.bool_)
    for row, sequence in enumerate(sequences):
        if sequence is None:
            continue
        shard, number = sequence
        first = number * context
        stop = min(first + context, len(shard.file) - 1)
        ids = shard.file.ids[first : stop + 1].astype(np.int64)
        check_ids(shard.file, first, ids, vocabulary)
        size = stop - first
        tokens_BT[row, :size], targets_BT[row, :size], valid_BT[row, :size] = ids[:-1], ids[1:], True
        if masked:
            begins = shard.file.begins(first, stop + 1)
            starts_BT[row, :size] = begins[:-1]
            targets_BT[row, :size][begins[1:]] = IGNORE
    return Batch(tokens_BT, targets_BT, starts_BT if masked else None, None if valid_BT.all() else valid_BT)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The training sequences of a corpus, blended."""

    corpus: Corpus
    context: int
    masked: bool
    blend: Blend

    @classmethod
    def of(cls, corpus: Corpus, seed: int, context: int, masked: bool = False) -> TrainingData:
        """The order that `seed` gives."""
        shards = corpus.train
        counts = [n_sequences(len(shard.file), context) for shard in shards]
        blend = Blend.of(seed, [shard.name for shard in shards], counts, [shard.weight for shard in shards])
        return cls(corpus, context, masked, blend)

    def batch(self, places: Sequence[int]) -> Batch:
        """The sequences at these places of the run (step x global batch + index), in this order."""
        found = (self.blend.at(place) for place in places)
        chosen = [(self.corpus.train[one.part], one.sequence) for one in found]
        return pack(chosen, self.context, self.masked, self.corpus.vocabulary)

    def passes(self, places: int) -> list[float]:
        """How often each shard is gone through by the first `places` sequences."""
        return [count / n for count, n in zip(self.blend.counts(places), self.blend.sequences, strict=True)]

    def check_passes(self, places: int, allowed: float | None = None) -> None:
        """Raises UserError where a shard would be gone through more often than `allowed`, or than the blend allows where None."""
        for shard, passes, n in zip(self.corpus.train, self.passes(places), self.blend.sequences, strict=True):
            most = shard.epochs if allowed is None else allowed
            if passes * n > most * n + len(self.blend.names).bit_length():  # shares are even to one sequence a halving
                raise UserError(
                    f"{shard.name}: {places} sequences go through it {passes:.2f} times, {most:g} allowed; take fewer steps, "
                    f"or set data.epochs={-(-passes // 1):g}"
                )


def validation_sequences(corpus: Corpus, context: int, most: int) -> dict[str, list[tuple[Shard, int]]]:
    """Source -> its sequences to validate on, at most `most`, evenly spread; sources in the order of the blend."""
    every: dict[str, list[tuple[Shard, int]]] = {}
    for shard in corpus.validation:
        numbers = range(n_sequences(len(shard.file), context))
        every.setdefault(shard.source, []).extend((shard, number) for number in numbers)
    return {source: _spread(sequences, most) for source, sequences in every.items()}


def _spread(sequences: list[tuple[Shard, int]], most: int) -> list[tuple[Shard, int]]:
    count = len(sequences)
    return sequences if count <= most else [sequences[index * count // most] for index in range(most)]
