"""One training step, exact however it is split: over micro-batches, over processes, over interruptions.

* The loss is the sum over the global batch's targets divided by their number; auxiliary losses are means over its routing groups.
  Each micro-batch and process adds its share, so that gradients do not depend on the split but for rounding.
* Jitter and dropout are keyed by (seed, batch number, index in the global batch), never drawn from a generator.
* A gradient that is not finite skips the update: weights and optimiser stay, the step counts. After several in a row the run goes
  back to its last checkpoint, and the batches since then are never seen again (GLaM, Du et al. 2022, section 5.1); where that does
  not help, to the checkpoint before it.

Weights are float32; in bf16 matrix products run in bfloat16 (autocast), routers, norms and losses in float32.

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from train import checkpoint, flops, losses, model, optim, schedule
from train.corpus import Corpus
from train.data import Batch, TrainingData
from train.grouped import check_widths
from train.metrics import Tally
from train.moe import RoutingOptions
from train.noise import noise_keys
from train.parallel import World, initialise, reducing, replicate, shard
from train.run_config import Settings, filled


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. The next batch is number step + offset: batches that a rollback left out stand between."""

    step: int = 0  # updates, skipped ones too
    offset: int = 0
    targets: int = 0  # tokens learned from or skipped
    skipped: int = 0  # updates that were not made, in all
    streak: int = 0  # the same, since the last that was made
    rollbacks: int = 0


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What one step did: sums over the global batch, the gradients' norm before clipping, the rate, whether it was skipped."""

    tally: Tally
    norm: float
    rate: float
    skipped: bool


class Trainer:
    """A model, its optimiser and its data, at some point of a run."""

    def __init__(self, settings: Settings, corpus: Corpus, world: World, begins: bool = True) -> None:
        """`settings` completed. All processes call this with the same arguments. The model is the seed's; where the run does not
        begin, but is to `load` a checkpoint, its weights are not set."""
        self.settings, self.world, self.config = settings, world, settings.model_config_of_run()
        self.batch = filled(settings.batch)
        self.groups = self.batch // (1 if self.config.moe is None else self.config.moe.group)
        self.data = TrainingData.of(corpus, settings.seed, filled(settings.context), settings.data.masked)
        self.progress = Progress()
        self._check_widths()
        self.model = self.build()
        if settings.compile:
            for block in self.model.blocks:
                block.compile()
        shard(self.model, settings.parallel, settings.precision == "bf16", world)
        if begins:
            self.initialise()
        self.wrapped = replicate(self.model, settings.parallel, world)
        chosen = settings.optimiser
        betas = (filled(chosen.beta1), filled(chosen.beta2))
        self.optimiser = optim.make_optimiser(self.model, filled(chosen.kind), betas, filled(chosen.weight_decay))

    def _check_widths(self) -> None:
        """Raises UserError where the experts' products cannot run in the run's precision: before anything is written."""
        moe, spread = self.config.moe, self.settings.parallel == "experts" and self.world.size > 1
        if moe is not None and (spread or moe.dispatch == "grouped"):
            dtype = torch.bfloat16 if self.settings.precision == "bf16" else torch.float32
            otherwise = ", or another parallel with dispatch: padded" if spread else ", or dispatch: padded"
            check_widths(dtype, self.config.d_model, moe.d_ff, otherwise=otherwise)

    def build(self) -> model.Decoder:
        """The model on the meta device: shapes without memory."""
        with torch.device("meta"):
            return model.Decoder(self.config, self.settings.checkpointing)

    def initialise(self) -> None:
        """Sets the initial weights."""
        initialise(self.model, self.settings.seed, self.world)

    @property
    def flops_per_token(self) -> int:
        """Of the matrix multiplications of a step."""
        return flops.matmul_training(self.config, filled(self.settings.context))

    def tally(self) -> Tally:
        """Nothing added up yet."""
        return Tally(self.config)

    def told(self, tally: Tally) -> dict[str, Any]:
        """What the log says of a step beside its loss."""
        return tally.routing(self.config, self.groups)

    def step(self) -> StepFacts:
        """One update, or a skipped one; advances `progress`."""
        tally = self._gradients()
        norm = optim.gradient_norm(self.model.parameters())
        finite = bool(torch.isfinite(norm))
        rate = self._rate(self.progress.step + 1)
        if finite:
            if isinstance(self.settings.optimiser.clip, float):
                optim.clip_gradients(self.model.parameters(), norm, self.settings.optimiser.clip)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            targets=self.progress.targets + tally.targets,
            skipped=self.progress.skipped + (not finite),
            streak=0 if finite else self.progress.streak + 1,
        )
        return StepFacts(tally, float(norm), rate, not finite)

    def _rate(self, update: int) -> float:
        chosen = self.settings.schedule
        return schedule.rate(
            filled(chosen.kind),
            update,
            peak=filled(self.settings.optimiser.peak),
            steps=filled(self.settings.steps),
            warmup=filled(chosen.warmup),
            floor=chosen.floor,
            hold=chosen.hold,
        )

    def _gradients(self) -> Tally:
        """The gradients of the global batch, in every process; returns what was summed over all of them."""
        world, number = self.world, self.progress.step + self.progress.offset
        rows = self.batch // world.size
        first = world.rank * rows  # this process's rows of the global batch
        whole = self.data.batch(range(number * self.batch + first, number * self.batch + first + rows))
        targets = int(world.total(torch.tensor(whole.n_targets)))
        keys_B = noise_keys(self.settings.seed, number, torch.arange(first, first + rows))
        tally = self.tally()
        size = self.settings.micro_batch or rows
        for start in range(0, rows, size):
            part, mine = slice_batch(whole, start, start + size), slice(start, start + size)
            options = RoutingOptions("train", keys_B[mine].to(world.device))
            with reducing(self.wrapped, start + size >= rows):
                outputs = self.call(part, options)
                # Processes' gradients are averaged, so each takes its share times their number.
                loss = losses.training_loss(outputs, self.config, max(targets, 1), self.groups) * world.size
                loss.backward()
            tally.add(outputs, part.n_targets)
        tally.values = world.total(tally.values)
        return tally

    def call(self, batch: Batch, options: RoutingOptions) -> model.Outputs:
        """The model's losses on a batch, in the run's precision."""
        device = self.world.device
        tensors = [
            None if array is None else torch.from_numpy(array).to(device)
            for array in (batch.tokens_BT, batch.targets_BT, batch.starts_BT, batch.valid_BT)
        ]
        tokens_BT, targets_BT, starts_BT, valid_BT = tensors
        with self.autocast():
            outputs: model.Outputs = (self.wrapped if torch.is_grad_enabled() else self.model)(
                tokens_BT, targets_BT, starts_BT=starts_BT, valid_BT=valid_BT, routing=options
            )
        return outputs

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The region in which the run's precision holds."""
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, torch.bfloat16)

    # -- checkpoints --------------------------------------------------------------------------------------------------------

    def save(self, root: Path, extra: dict[str, Any]) -> Path:
        """Writes a checkpoint of where the run stands."""
        state = {**extra, "progress": asdict(self.progress), "processes": self.world.size}
        keep, tokenizer = self.settings.saving.keep, self.data.corpus.vocabulary.path
        return checkpoint.save(
            root,
            self.progress.step,
            self.model,
            self.optimiser,
            state,
            keep,
            self.world,
            None if tokenizer is None else Path(tokenizer).read_bytes(),
        )

    def load(self, folder: Path) -> dict[str, Any]:
        """Goes to a checkpoint, written by whatever number of processes; returns its state."""
        state = checkpoint.load(folder, self.model, self.optimiser, self.world)
        self.progress = Progress(**state["progress"])
        return state

    def roll_back(self, folder: Path) -> list[int]:
        """Goes back to a checkpoint; the batches since then are left out, counts of faults stay. Returns the first and the last."""
        before = self.progress
        self.load(folder)
        now = self.progress
        self.progress = replace(
            now,
            offset=before.step + before.offset - now.step,
            skipped=before.skipped,
            rollbacks=before.rollbacks + 1,
        )
        return [now.step + now.offset, before.step + before.offset - 1]


def slice_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Rows of a batch. Where none of them is padded, they say so as a batch of their own would."""
    valid_BT = None if batch.valid_BT is None else batch.valid_BT[start:stop]
    return Batch(
        batch.tokens_BT[start:stop],
        batch.targets_BT[start:stop],
        None if batch.starts_BT is None else batch.starts_BT[start:stop],
        None if valid_BT is None or valid_BT.all() else valid_BT,
    )
