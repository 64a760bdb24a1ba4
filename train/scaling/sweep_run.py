"""A sweep in its folder: plans, runs, and writes the measurements that the fits read.

    sweep.yaml      the settings that all runs share, and the digest of the data
    runs/           w<width>-c<FLOPs>-r<rate>-s<seed>/, one a run (train/fleet.py); seed 0: to choose a rate
    runs.csv        the runs at the rate of their width: for approaches 2 and 3
    curves.csv      their training losses on the way: for approach 1

Runs go by budget, the smallest first, and the tables are written after each: whatever stops a sweep leaves a smaller one. A
command says the whole grid that it wants. What is there of it is not run again, so that one with more budgets, widths, rates or
seeds adds to an earlier one; a smaller budget than before has the rates tried anew.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import lock
from pipelines.errors import UserError
from train import fleet, run_config, run_file
from train.corpus import Corpus, open_corpus
from train.data import TrainingData
from train.files import publish
from train.fleet import Say, Task
from train.run_config import SavingSettings, Settings, ValidationSettings, filled
from train.scaling import sweep
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN
from train.scaling.sweep import Cell, Size

RUNS, CURVES, SHARED = "runs.csv", "curves.csv", "sweep.yaml"
_COLUMNS = ("run", "width", "layers", "experts", "params", "non_embedding", "total", "tokens", "flops", "loss", "rate", "seed")
_SAVES = 5  # checkpoints a run
_VALIDATION_SEQUENCES = 256  # of a source: what is fitted is to be measured better than what is only looked at
_TUNING_SEED = 0  # its losses choose; what they chose is then measured by others
_OWN = ("steps", "seed", "data.epochs", "schedule.warmup", "teacher")  # settings that a sweep sets itself, or cannot take


class Run(NamedTuple):
    """One training run: what is measured by it, and how it is trained."""

    cell: Cell
    rate: float
    seed: int
    task: Task

    @property
    def is_done(self) -> bool:
        """Whether it has ended, with a loss or without."""
        return fleet.is_done(self.task.folder, self.rate)

    @property
    def scores(self) -> dict[str, Any]:
        """Of a run that is done."""
        found: dict[str, Any] = json.loads((self.task.folder / fleet.SCORES).read_bytes())
        return found


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was asked for. shared: what sweep.yaml says; cells: all of the grid, those that are left out too; rates: one, or those
    to choose from for each width."""

    folder: Path
    given: Settings
    shared: Settings
    corpus: Corpus
    cells: tuple[Cell, ...]
    rates: tuple[float, ...]
    seeds: int

    @property
    def live(self) -> list[Cell]:
        """The cells that are run."""
        return [cell for cell in self.cells if cell.why_not is None]

    @property
    def sizes(self) -> list[Size]:
        """Those that are run at some budget."""
        return list(dict.fromkeys(cell.size for cell in self.live))

    def run_of(self, cell: Cell, rate: float, seed: int) -> Run:
        """A cell at a rate with a seed."""
        name = f"w{cell.size.width}-c{_short(cell.flops)}-r{_short(rate)}-s{seed}"
        settings = self.given.model_copy(
            update={
                "model": cell.size.config.to_dict(),
                "seed": seed,
                "steps": cell.steps,
                "threads": 1,
                "data": self.given.data.model_copy(update={"epochs": 1e6}),  # the grid has judged them
                "optimiser": self.given.optimiser.model_copy(update={"peak": rate}),
                "validation": ValidationSettings(every=cell.steps, sequences=self.given.validation.sequences),
                "saving": SavingSettings(every=max(1, cell.steps // _SAVES), keep=1),
            }
        )
        told = {"settings": settings.model_dump(mode="json")}
        task = Task(name, self.folder / "runs" / name, "train.scaling.sweep_worker", told, float(cell.tokens * cell.size.params))
        return Run(cell, rate, seed, task)


def _short(value: float) -> str:
    """A number in a name: as short as it can be without being another one."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def prepare(
    given: Settings, name: str, folder: Path, budgets: Sequence[float], widths: Sequence[int], rates: Sequence[float], seeds: int
) -> Sweep:
    """Settles the grid. Raises UserError on settings and data that cannot be swept over, on a folder of something else, and where
    no cell is left."""
    said = {"steps": given.steps, "teacher": given.teacher, "data.epochs": given.data.epochs}
    said |= {"schedule.warmup": given.schedule.warmup, "seed": None if given.seed == 1 else given.seed}
    for key in _OWN:
        if said[key] is not None:
            raise UserError(f"{name}: a sweep has no {key} of its own; leave it out")
    if given.data.path is None:
        raise UserError(f"{name}: data.path is missing: DIR/tokens/VARIANT of a winnow run")
    corpus = open_corpus(given.data.path, given.data.tokenizer, given.data.vocab_size)
    if not corpus.validation:
        raise UserError(f"{given.data.path}: no validation shard to measure losses on; set tokens.validation in the recipe")
    given = _with_defaults(given)
    base = run_config.complete(given.model_copy(update={"steps": sweep.LEAST_STEPS}), name, corpus.vocabulary.size)
    shared = base.model_copy(
        update={"steps": None, "schedule": given.schedule, "data": base.data.model_copy(update={"path": _digest(corpus)})}
    )
    model, batch, context = base.model_config_of_run(), filled(base.batch), filled(base.context)
    sizes = [sweep.size_of(model, width) for width in sorted(set(widths)) or sweep.default_widths(model)]
    data = TrainingData.of(corpus, 1, context)
    cells = sweep.grid(sizes, budgets, batch * context, lambda steps: max(data.passes(steps * batch)))
    peak = filled(base.optimiser.peak)
    tried = sorted(set(rates)) or [peak * times for times in sweep.DEFAULT_RATES]
    found = Sweep(folder, given, shared, corpus, tuple(cells), tuple(tried), seeds)
    if not found.live:
        raise UserError(
            f"--flops {cells[-1].flops:g}: no width is left ({', '.join(f'{c.size.width}: {c.why_not}' for c in cells)}); "
            f"a run needs {sweep.LEAST_STEPS} updates and at most {sweep.MOST_PASSES:g} passes: give other budgets or widths"
        )
    _check_folder(found)
    return found


def _with_defaults(given: Settings) -> Settings:
    """What a sweep takes where nothing is said: a cosine also for presets that learn by Adafactor, more sequences to measure on."""
    update: dict[str, Any] = {"schedule": given.schedule.model_copy(update={"kind": given.schedule.kind or "cosine"})}
    if "sequences" not in given.validation.model_fields_set:
        update["validation"] = given.validation.model_copy(update={"sequences": _VALIDATION_SEQUENCES})
    return given.model_copy(update=update)


def _digest(corpus: Corpus) -> str:
    """Of what is trained on, and of what is measured on."""
    held = json.dumps([corpus.digest, [[shard.name, len(shard.file)] for shard in corpus.validation]])
    return hashlib.blake2b(held.encode(), digest_size=16).hexdigest()


def _check_folder(asked: Sweep) -> None:
    """Raises UserError where the folder has another sweep, or something else."""
    path = asked.folder / SHARED
    if path.exists():
        stored = run_file.load(str(path))
        changed = run_config.differences(stored, asked.shared)
        if stored.data.path != asked.shared.data.path:
            changed.append("other shards, or another tokenizer")
        if (there := stored.validation.sequences) != (now := asked.shared.validation.sequences):
            changed.append(f"validation.sequences: {there} there, {now} now")
        if changed:
            raise UserError(f"{asked.folder}: another sweep is here: {'; '.join(changed)}; take its settings, or another folder")
    elif asked.folder.exists() and any(not one.name.startswith(".") for one in asked.folder.iterdir()):
        raise UserError(f"{asked.folder}: holds something else than a sweep; give a folder of its own")


def tuning(asked: Sweep) -> tuple[list[Run], dict[int, float]]:
    """(the runs that choose each width's rate, by budget; width -> its rate, for those for which they are done).

    Rates are tried at a width's smallest budget. That of the lowest loss is chosen, of equal ones the lowest; where it is an end of
    those tried, the search goes on beyond, MOST_MORE times at most. Raises UserError where a width learned at none of them.
    """
    if len(asked.rates) == 1:
        return [], {size.width: asked.rates[0] for size in asked.sizes}
    tried: list[Run] = []
    chosen: dict[int, float] = {}
    for size in asked.sizes:
        cell, rates = sweep.smallest(asked.live, size), list(asked.rates)
        while True:
            here = [asked.run_of(cell, rate, _TUNING_SEED) for rate in rates]
            if not all(one.is_done for one in here):
                break
            best = _best(here)
            if best not in (rates[0], rates[-1]) or len(rates) == len(asked.rates) + sweep.MOST_MORE:
                chosen[size.width] = best
                break
            rates = sorted([*rates, best * 2 if best == rates[-1] else best / 2])
        tried += here
    tried.sort(key=lambda one: (one.cell.flops, one.cell.size.width, one.rate))
    return tried, chosen


def _best(tried: Sequence[Run]) -> float:
    losses = {one.rate: loss for one in tried if (loss := one.scores["loss"]) is not None}
    if not losses:
        width = tried[0].cell.size.width
        raise UserError(f"--width {width}: gradients were not finite at any rate; give lower ones with --rate")
    return min(losses, key=lambda rate: (losses[rate], rate))


def runs(asked: Sweep, rates: Mapping[int, float]) -> list[Run]:
    """All that is measured of the widths that have a rate, by budget, seed and width."""
    wanted = [(cell.flops, seed, cell.size.width, cell) for cell in asked.live for seed in range(1, asked.seeds + 1)]
    wanted.sort(key=lambda one: one[:3])
    return [asked.run_of(cell, rates[width], seed) for _, seed, width, cell in wanted if width in rates]


def run(asked: Sweep, processes: int, deadline: float | None, say: Say) -> bool:
    """Runs all that is not done, until the deadline (of time.monotonic); whether all is. Raises CheckError where a run fails."""
    asked.folder.mkdir(parents=True, exist_ok=True)
    with lock.hold(str(asked.folder / ".lock"), str(asked.folder)):
        _check_folder(asked)
        publish(asked.folder / SHARED, run_file.dump(asked.shared).encode())
        tried, rates = tuning(asked)
        while len(rates) < len(asked.sizes):
            if not fleet.run([one.task for one in tried], processes, deadline, say):
                write(asked)
                return False
            tried, rates = tuning(asked)
        write(asked)
        return fleet.run([one.task for one in runs(asked, rates)], processes, deadline, say, lambda: write(asked))


def measured(asked: Sweep) -> list[dict[str, Any]]:
    """A row of runs.csv for every run that is done and learned, with its curve."""
    rows = []
    for one in runs(asked, tuning(asked)[1]):
        if one.is_done and (scores := one.scores)["loss"] is not None:
            size = one.cell.size
            counts = {"params": size.params, "non_embedding": size.non_embedding, "total": size.total}
            row = {"run": one.task.name, "width": size.width, "layers": size.config.n_layers, "experts": size.experts, **counts}
            row |= {"tokens": scores["tokens"], "flops": one.cell.flops, "loss": scores["loss"], "rate": one.rate, "seed": one.seed}
            rows.append({**row, "curve": scores["curve"]})
    return rows


def write(asked: Sweep) -> None:
    """runs.csv and curves.csv of what is done."""
    rows = measured(asked)
    publish(asked.folder / RUNS, _csv(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows)))
    steps = (
        [row["run"], row["params"], row["non_embedding"], tokens, FLOPS_A_PARAMETER_TOKEN * row["params"] * tokens, loss]
        for row in rows
        for tokens, loss in row["curve"]
    )
    publish(asked.folder / CURVES, _csv(("run", "params", "non_embedding", "tokens", "flops", "loss"), steps))


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode()
