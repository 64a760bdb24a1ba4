"""A training run in its folder: begins, goes on where it stood, tells what it does, stops when it is asked to.

    train.yaml           the settings in force, every default written out
    log.jsonl            what happened, one object a line (train/metrics.py)
    checkpoints/         step-00000123/ (train/checkpoint.py), the newest few

The same command begins a run and goes on with it, after a kill to the bit: everything that a step depends on is in the checkpoint
or a function of its number. (On a CPU; on a GPU some of torch's kernels add up in no fixed order.) SIGTERM ends it at the next step
with a checkpoint, `stopped` as the log's last line, and exit code 75, "try again" (sysexits.h), of which torchrun makes 1. In the
midst of gradients that are not finite it writes no checkpoint: the run goes on from the one before.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipelines import lock
from pipelines.errors import CheckError, UserError
from train import checkpoint, flops, metrics, run_config, run_file
from train.allocator import keep_freed_memory
from train.corpus import Corpus, open_corpus
from train.data import validation_sequences
from train.distill import Distiller
from train.energy import Meter, default_watts
from train.files import publish
from train.loop import Trainer
from train.parallel import World, joined
from train.run_config import Settings, filled
from train.validation import validate

CHECKPOINTS = "checkpoints"
_START = "step-00000000"
_RETURNS = 3  # to the oldest checkpoint, before training is said to diverge

Tell = Callable[[dict[str, Any]], None]


class Stopped(Exception):
    """The run was asked to end; it stands in its last checkpoint."""


def train(given: Settings, name: str, folder: Path, tell: Tell) -> dict[str, Any] | None:
    """Begins or goes on with the run in `folder`, to its end; the main process returns a summary, and `tell` gets its log's lines.

    `name` is what errors call the settings. Raises UserError on settings, data or checkpoints that do not fit, CheckError where
    training diverges, Stopped after SIGTERM.
    """
    with joined() as world:
        if given.data.path is None:
            raise UserError(f"{name}: data.path is missing: DIR/tokens/VARIANT of a winnow run")
        corpus = open_corpus(given.data.path, given.data.tokenizer, given.data.vocab_size)
        settings = run_config.complete(given, name, corpus.vocabulary.size)
        if world.device.type == "cpu":
            torch.set_num_threads(settings.threads)
            keep_freed_memory()
        with _folder(folder, settings, world), _asked_to_stop() as asked:
            run = _Run(settings, corpus, folder, world, tell if world.main else lambda line: None)
            try:
                summary = run.go(asked)
                return summary if world.main else None
            finally:
                run.close()


@contextlib.contextmanager
def _folder(folder: Path, settings: Settings, world: World) -> Iterator[None]:
    """The run's folder, locked by the main process, with train.yaml in it. Raises UserError where it is another run's.

    A run without a checkpoint but the one of its start has not begun: it may be given other settings, or other data.
    """
    if not world.main:
        world.barrier()
        yield
        return
    stored = folder / run_file.SETTINGS
    if folder.exists() and not stored.exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise UserError(f"{folder}: holds something else than a training run; give a folder of its own")
    with lock.hold(str(folder / ".lock"), str(folder)):
        begun = any(path.name != _START for path in checkpoint.finished(folder / CHECKPOINTS))
        if begun and stored.exists():
            changed = run_config.differences(run_file.load(str(stored)), settings)
            if changed:
                raise UserError(f"{folder}: another run is here: {'; '.join(changed)}; take its settings, or another folder")
        publish(stored, run_file.dump(settings).encode())
        checkpoint.sweep(folder / CHECKPOINTS)
        if not begun:
            shutil.rmtree(folder / CHECKPOINTS / _START, ignore_errors=True)
        world.barrier()
        yield


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Tells whether SIGTERM has come since; only the main thread can hear it."""
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.set())
    try:
        yield heard.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


class _Run:
    def __init__(self, settings: Settings, corpus: Corpus, folder: Path, world: World, tell: Tell) -> None:
        self.settings, self.corpus, self.world, self.tell = settings, corpus, world, tell
        self.root = folder / CHECKPOINTS
        self.steps, batch = filled(settings.steps), filled(settings.batch)
        group = 1 if settings.model_config_of_run().moe is None else settings.model["moe"]["group"]
        if batch % (world.size * group):
            raise UserError(f"batch {batch} cannot be split over {world.size} processes in groups of {group}; change either")
        found = checkpoint.finished(self.root)
        self.trainer = (Trainer if settings.teacher is None else Distiller)(settings, corpus, world, not found)
        self.trainer.data.check_passes(self.steps * batch, settings.data.epochs)
        self.sources = validation_sequences(corpus, self.trainer.data.context, settings.validation.sequences)
        self.log: metrics.Log | None = None
        state = self._restore(found[-1]) if found else {}
        self.validation_due = bool(state.get("validation_due"))
        self.validation: dict[str, Any] = state.get("validation", {})  # the last one
        self.returns: int = state.get("returns", 0)  # rollbacks to the last checkpoint
        self.kwh_before: float = state.get("kwh", 0.0)
        if world.main:
            self.log = metrics.Log(folder, int(state.get("log_bytes", 0)), self.trainer.progress.step)
        self._begin(state)

    def _restore(self, last: Path) -> dict[str, Any]:
        """Goes to the last checkpoint; the state that it holds."""
        state = self.trainer.load(last)
        if state.get("data") != self.corpus.digest:
            raise UserError(
                f"{self.corpus.path}: not the shards that the run in {self.root.parent} began with (other sizes, weights or "
                "tokenizer); give the same variant, or another folder"
            )
        return state

    def _begin(self, state: dict[str, Any]) -> None:
        config, device, world = self.trainer.config, self.world.device, self.world
        dtype = torch.bfloat16 if self.settings.precision == "bf16" else torch.float32
        self.flops = self.trainer.flops_per_token
        self.peak = metrics.peak_flops(device, dtype) * world.size
        watts = self.settings.energy.watts or default_watts(device.type, torch.get_num_threads())
        self.meter = Meter(watts, self.settings.energy.pue, world.size, device.type != "cpu")
        counted = flops.parameters(config)
        facts = {
            "parameters": counted.total,
            "active_parameters": counted.active,
            "flops_per_token": self.flops,
            "peak_flops_per_second": self.peak,
            "precision": self.settings.precision,
            "device": device.type,
            "processes": world.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        if state:
            self._write("resume", step=self.trainer.progress.step, **facts)
        else:
            board = "beside this log" if self.log is not None and self.log.board is not None else "not installed"
            self._write("start", tensorboard=board, **facts)
            self._save()

    def close(self) -> None:
        """Closes the log."""
        if self.log is not None:
            self.log.close()

    def go(self, asked_to_stop: Callable[[], bool]) -> dict[str, Any]:
        """To the last step."""
        trainer, settings = self.trainer, self.settings
        while trainer.progress.step < self.steps or self.validation_due:
            if not self.validation_due:
                self._step()
                if trainer.progress.streak >= settings.faults.rollback_after:
                    self._roll_back()
                    continue
            step, end = trainer.progress.step, trainer.progress.step == self.steps
            stopping = self.world.any(asked_to_stop())
            self.validation_due = bool(self.sources) and (end or step % settings.validation.every == 0)
            if self.validation_due and not stopping:
                self.validation, self.validation_due = validate(trainer, self.sources), False
                self._write("validation", step=step, **self.validation)
            healthy = trainer.progress.streak == 0
            if end or (healthy and (stopping or step % settings.saving.every == 0)):
                self.returns = 0
                self._save()
            if stopping and (self.validation_due or not end):
                self._write("stopped", step=step)
                raise Stopped
        return self._end()

    def _step(self) -> None:
        start = time.perf_counter()
        facts = self.trainer.step()
        seconds = time.perf_counter() - start
        tally, progress = facts.tally, self.trainer.progress
        speed = tally.targets / seconds
        self._write(
            "step",
            step=progress.step,
            tokens=progress.targets,
            loss=tally.loss,
            learning_rate=facts.rate,
            gradient_norm=facts.norm,
            skipped=facts.skipped,
            **self.trainer.told(tally),
            seconds=seconds,
            tokens_per_second=speed,
            utilisation=speed * self.flops / self.peak,
            peak_memory_bytes=metrics.peak_memory(self.world.device),
            energy=self._energy(),
        )

    def _roll_back(self) -> None:
        """To the last checkpoint. One that was gone back to already may be at fault itself, its weights too large although the last
        gradient was finite: it is given up for the one before it. What is decided stands in the checkpoint: a kill changes nothing.
        """
        *before, last = checkpoint.finished(self.root)
        returns, given_up = self.returns, []
        while returns and before:
            given_up.append(last)
            last = before.pop()
            returns = checkpoint.read_state(last).get("returns", 0)
        from_step, streak, self.returns = self.trainer.progress.step, self.trainer.progress.streak, returns + 1
        if self.returns > _RETURNS:
            raise CheckError(
                f"{last}: {streak} gradients in a row were not finite, {self.returns} times after this checkpoint, and none is "
                "before it; lower optimiser.peak, or look at the data"
            )
        left_out = self.trainer.roll_back(last)
        self.world.barrier()  # all have found the place
        if self.world.main:
            for folder in given_up:
                checkpoint.remove(folder)
        self._write("rollback", step=self.trainer.progress.step, from_step=from_step, batches_left_out=left_out)
        self._save()

    def _save(self) -> None:
        facts = {
            "data": self.corpus.digest,
            "log_bytes": 0 if self.log is None else self.log.size,
            "kwh": self._energy()["kwh"],
            "validation_due": self.validation_due,
            "validation": self.validation,
            "returns": self.returns,
        }
        self.trainer.save(self.root, facts)

    def _energy(self) -> dict[str, Any]:
        """Of the run so far, before it was last begun too."""
        energy = self.meter.read()
        return {**asdict(energy), "kwh": self.kwh_before + energy.kwh}

    def _write(self, event: str, **facts: Any) -> None:
        if self.log is not None:
            self.tell(self.log.write(event, **facts))

    def _end(self) -> dict[str, Any]:
        progress = self.trainer.progress
        return {
            "folder": str(self.root.parent),
            "checkpoint": str(checkpoint.finished(self.root)[-1]),
            "steps": progress.step,
            "tokens": progress.targets,
            "skipped": progress.skipped,
            "rollbacks": progress.rollbacks,
            "validation": self.validation,
            "energy": self._energy(),
        }
