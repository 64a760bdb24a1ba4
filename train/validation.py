"""Losses on validation shards, source by source: dropless and without noise, and beside it with the capacity of evaluation.

The reported loss is the dropless one: with a capacity a later token can take an earlier one's place (train/moe.py). The other is
for fidelity to Switch, which evaluates at capacity 2. Both are means over targets, in nats, of the same sequences at every call;
a sequence's loss does not depend on which others are computed with it, so neither do they on the number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from train.corpus import Shard
from train.data import pack
from train.loop import Trainer
from train.metrics import Tally
from train.moe import RoutingOptions

Sequences = Sequence[tuple[Shard, int]]


def validate(trainer: Trainer, sources: Mapping[str, Sequences]) -> dict[str, Any]:
    """{loss, targets, sources: {name: {loss, targets}}}; for sparse models also capacity_loss and dropped_share beside each loss.

    To be called by all processes.
    """
    names = ("dropless",) if trainer.config.moe is None else ("dropless", "capacity")
    whole = {name: Tally(trainer.config) for name in names}
    told: dict[str, Any] = {}
    for source, sequences in sources.items():
        found = {name: _tally(trainer, sequences, name) for name in names}
        for name, tally in found.items():
            whole[name].values += tally.values
        told[source] = _facts(found, trainer)
    return {**_facts(whole, trainer), "sources": told}


def _facts(found: Mapping[str, Tally], trainer: Trainer) -> dict[str, Any]:
    facts: dict[str, Any] = {"loss": found["dropless"].loss, "targets": found["dropless"].targets}
    if "capacity" in found:
        facts["capacity_loss"] = found["capacity"].loss
        facts["dropped_share"] = found["capacity"].routing(trainer.config, 1)["dropped_share"]
    return facts


def _tally(trainer: Trainer, sequences: Sequences, mode: Any) -> Tally:
    """Sums over sequences, spread over all processes; the last rows are filled up with padding to whole routing groups."""
    world, settings = trainer.world, trainer.settings
    group = 1 if trainer.config.moe is None else trainer.config.moe.group
    most = settings.micro_batch or max(1, trainer.batch // world.size)
    tally = Tally(trainer.config)
    left: list[tuple[Shard, int] | None] = list(sequences)
    while left:
        rows = min(most, -(-len(left) // (world.size * group)) * group)
        now, left = left[: rows * world.size], left[rows * world.size :]
        now += [None] * (rows * world.size - len(now))
        mine = now[world.rank * rows : (world.rank + 1) * rows]
        batch = pack(mine, trainer.data.context, trainer.data.masked, trainer.data.corpus.vocabulary)
        with torch.no_grad():
            tally.add(trainer.call(batch, RoutingOptions(mode)), batch.n_targets)
    tally.values = world.total(tally.values)
    return tally
