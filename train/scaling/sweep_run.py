"""A sweep in its folder: plans, runs, and writes the measurements that the fits read.

    sweep.yaml      the settings that all runs share
    runs/           w<width>-c<FLOPs>-r<rate>-s<seed>/, one a run (train/fleet.py)
    runs.csv        the runs at the rate of their width: for approaches 2 and 3, and the routed law
    curves.csv      their training losses on the way: for approach 1

Runs go by budget, the smallest first, and the tables are written after each: whatever stops a sweep leaves a smaller one. The same
command goes on; one with more budgets, widths, rates or seeds adds to what is there.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import lock
from pipelines.errors import UserError
from train import fleet, run_config, run_file
from train.corpus import Corpus, open_corpus
from train.files import publish
from train.fleet import Say, Task
from train.run_config import SavingSettings, Settings, ValidationSettings, filled
from train.scaling import sweep
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN
from train.scaling.sweep import Cell, Size

RUNS, CURVES, SHARED = "runs.csv", "curves.csv", "sweep.yaml"
_COLUMNS = ("run", "width", "layers", "experts", "params", "non_embedding", "total", "tokens", "flops", "loss", "rate", "seed")
_SAVES = 5  # checkpoints a run


class Run(NamedTuple):
    """One training run: what is measured by it, and how it is trained."""

    cell: Cell
    rate: float
    seed: int
    task: Task


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was asked for. base: given, with its defaults; cells: all of the grid, those that are left out too; rates: one, or those
    to choose from for each width."""

    folder: Path
    given: Settings
    base: Settings
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
        name = f"w{cell.size.width}-c{cell.flops:g}-r{rate:g}-s{seed}"
        settings = self.given.model_copy(
            update={
                "model": cell.size.config.to_dict(),
                "seed": seed,
                "steps": cell.steps,
                "data": self.given.data.model_copy(update={"epochs": math.ceil(cell.passes)}),
                "optimiser": self.given.optimiser.model_copy(update={"peak": rate}),
                "validation": ValidationSettings(every=cell.steps, sequences=self.given.validation.sequences),
                "saving": SavingSettings(every=max(1, cell.steps // _SAVES), keep=1),
            }
        )
        told = {"settings": settings.model_dump(mode="json")}
        task = Task(name, self.folder / "runs" / name, "train.scaling.sweep_worker", told, float(cell.tokens * cell.size.params))
        return Run(cell, rate, seed, task)


def prepare(
    given: Settings, name: str, folder: Path, budgets: Sequence[float], widths: Sequence[int], rates: Sequence[float], seeds: int
) -> Sweep:
    """Settles the grid. Raises UserError on settings and data that cannot be swept over, and where no cell is left."""
    if given.data.path is None:
        raise UserError(f"{name}: data.path is missing: DIR/tokens/VARIANT of a winnow run")
    corpus = open_corpus(given.data.path, given.data.tokenizer, given.data.vocab_size)
    if not corpus.validation:
        raise UserError(f"{given.data.path}: no validation shard to measure losses on; set tokens.validation in the recipe")
    if given.teacher is not None:
        raise UserError(f"{name}: a sweep trains without a teacher; leave teacher out")
    base = run_config.complete(given.model_copy(update={"steps": 1}), name, corpus.vocabulary.size)
    model = base.model_config_of_run()
    sizes = [sweep.size_of(model, width) for width in sorted(set(widths)) or sweep.default_widths(model)]
    tokens = filled(base.batch) * filled(base.context)
    unique = float(sum(len(shard.file) for shard in corpus.train))
    cells = sweep.grid(sizes, budgets, tokens, unique)
    peak = filled(base.optimiser.peak)
    tried = sorted(set(rates)) or [peak * times for times in sweep.DEFAULT_RATES]
    found = Sweep(folder, given, base, corpus, tuple(cells), tuple(tried), seeds)
    if not found.live:
        raise UserError(
            f"--flops {cells[-1].flops:g}: no width is left ({', '.join(f'{c.size.width}: {c.why_not}' for c in cells)}); "
            f"a run needs {sweep.LEAST_STEPS} updates and at most {sweep.MOST_PASSES:g} passes: give other budgets or widths"
        )
    return found


def tuning(asked: Sweep) -> tuple[list[Run], dict[int, float] | None]:
    """(the runs that choose each width's rate, by budget; width -> its rate, None while some of them are still to be done).

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
            here = [asked.run_of(cell, rate, 1) for rate in rates]
            if not all(fleet.is_done(one.task.folder, one.rate) for one in here):
                break
            best = _best(here)
            if best not in (rates[0], rates[-1]) or len(rates) == len(asked.rates) + sweep.MOST_MORE:
                chosen[size.width] = best
                break
            rates = sorted([*rates, best * 2 if best == rates[-1] else best / 2])
        tried += here
    tried.sort(key=lambda one: (one.cell.flops, one.cell.size.width, one.rate))
    return tried, chosen if len(chosen) == len(asked.sizes) else None


def _best(tried: Sequence[Run]) -> float:
    losses = {one.rate: loss for one in tried if (loss := _scores(one.task)["loss"]) is not None}
    if not losses:
        width = tried[0].cell.size.width
        raise UserError(f"--width {width}: gradients were not finite at any rate; give lower ones with --rate")
    return min(losses, key=lambda rate: (losses[rate], rate))


def runs(asked: Sweep, rates: Mapping[int, float]) -> list[Run]:
    """All that is measured, by budget, seed and width."""
    wanted = [(cell.flops, seed, cell.size.width, cell) for cell in asked.live for seed in range(1, asked.seeds + 1)]
    return [asked.run_of(cell, rates[width], seed) for _, seed, width, cell in sorted(wanted, key=lambda one: one[:3])]


def run(asked: Sweep, processes: int, deadline: float | None, say: Say) -> bool:
    """Runs all that is not done; whether all is. Raises UserError where the folder is another's, or the time was too short."""
    asked.folder.mkdir(parents=True, exist_ok=True)
    with lock.hold(str(asked.folder / ".lock"), str(asked.folder)):
        _share(asked)
        tried, rates = tuning(asked)
        while rates is None:
            if not fleet.run([one.task for one in tried], processes, deadline, say):
                raise UserError(f"{asked.folder}: the budget ended while rates were tried; give more: the same command goes on")
            tried, rates = tuning(asked)
        wanted = runs(asked, rates)
        write(asked, wanted)
        return fleet.run([one.task for one in wanted], processes, deadline, say, lambda: write(asked, wanted))


def _share(asked: Sweep) -> None:
    """Keeps the settings that all runs share, or holds them against those that are kept."""
    path = asked.folder / SHARED
    shared = asked.base.model_copy(update={"data": asked.base.data.model_copy(update={"path": asked.corpus.digest})})
    if path.exists():
        stored = run_file.load(str(path))
        changed = run_config.differences(stored, shared)
        if stored.data.path != shared.data.path:
            changed.append("other shards, or another tokenizer")
        if changed:
            raise UserError(f"{asked.folder}: another sweep is here: {'; '.join(changed)}; take its settings, or another folder")
    elif any(one.name != ".lock" for one in asked.folder.iterdir()):
        raise UserError(f"{asked.folder}: holds something else than a sweep; give a folder of its own")
    publish(path, run_file.dump(shared).encode())


def _scores(task: Task) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((task.folder / fleet.SCORES).read_bytes())
    return found


def measured(wanted: Sequence[Run]) -> list[dict[str, Any]]:
    """A row of runs.csv for every run that is done and learned, with its curve."""
    rows = []
    for cell, rate, seed, task in wanted:
        if fleet.is_done(task.folder, rate) and (scores := _scores(task))["loss"] is not None:
            size = cell.size
            counts = {"params": size.params, "non_embedding": size.non_embedding, "total": size.total}
            row = {"run": task.name, "width": size.width, "layers": size.config.n_layers, "experts": size.experts, **counts}
            row |= {"tokens": scores["tokens"], "flops": cell.flops, "loss": scores["loss"], "rate": rate, "seed": seed}
            rows.append({**row, "curve": scores["curve"]})
    return rows


def write(asked: Sweep, wanted: Sequence[Run]) -> None:
    """runs.csv and curves.csv of what is done."""
    rows = measured(wanted)
    publish(asked.folder / RUNS, _csv(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows)))
    steps = (
        [row["run"], row["params"], tokens, FLOPS_A_PARAMETER_TOKEN * row["params"] * tokens, loss]
        for row in rows
        for tokens, loss in row["curve"]
    )
    publish(asked.folder / CURVES, _csv(("run", "params", "tokens", "flops", "loss"), steps))


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode()
