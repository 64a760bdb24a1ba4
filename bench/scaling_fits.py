"""Scaling laws fitted to published measurements, with bootstrap intervals, beside what their authors published.

    python bench/scaling_fits.py FOLDER [--resamples 200]

FOLDER holds `dm_routing_curves.csv.gz` (google-deepmind/scaling_laws_for_routing, data/curves.csv.gz; runs of Clark et al. 2022)
and `mlfoundations_scaling.csv` (mlfoundations/scaling, exp_data; runs of Gadre et al. 2024: a line a model and evaluation set, with
name, dataset, params, params_no_embed, tokens, val_data, loss). No figure here depends on the machine, except the seconds.

* Routed law: last row of each run of one expert a token in every second layer, with the dense runs of the same sizes; E_start and
  E_max held at the paper's, and free.
* Approach 3: each training set's models on the C4 validation loss, N without embeddings. Half of these are over-trained.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from pathlib import Path

import numpy as np

from train.scaling import fit, routed
from train.scaling.laws import CLARK
from train.scaling.rows import Rows, read

ROUTERS = {"S-Base": "S-BASE", "RL-R": "RL-R", "Hash": "HASH"}
PUBLISHED = {"S-Base": "-.082 -.108 .009 1.104", "RL-R": "-.083 -.126 .012 1.111", "Hash": "-.087 -.136 .012 1.157"}
C4 = "training/eval_data/c4_val/shard-{0000000..0000010}.tar"


def final_runs(path: Path) -> list[dict[str, str]]:
    last: dict[str, dict[str, str]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["step"]) >= int(last.get(row["hyper_id"], row)["step"]):
                last[row["hyper_id"]] = row
    return [row for row in last.values() if (row["k"], row["routing_frequency"], row["flop_increase"]) == ("1", "0.5", "1.0")]


def show(name: str, values: dict[str, float], intervals: dict[str, tuple[float, float]]) -> None:
    print(name)
    for key, value in values.items():
        low, high = intervals[key]
        print(f"  {key:<9}{value:>11.5g}   {low:.5g} to {high:.5g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()

    runs = final_runs(arguments.folder / "dm_routing_curves.csv.gz")
    for router, name in ROUTERS.items():
        chosen = [row for row in runs if row["router_type"] in (router, "Dense")]
        columns = {"params": "dense_parameter_count", "experts": "num_experts", "loss": "loss_validation"}
        rows = Rows(router, {ours: np.array([float(row[theirs]) for row in chosen]) for ours, theirs in columns.items()})
        law = CLARK[name]
        for kind, bounds in (("E_start, E_max held", (law.start, law.limit)), ("E_start, E_max free", None)):
            start = time.process_time()
            found = routed.fit(rows, arguments.resamples, 0, bounds)
            values = {key: getattr(found.law, key) for key in routed.NAMES}
            seconds = time.process_time() - start
            head = f"{router}, {found.rows} runs, {kind}: rms {found.error:.5f}, {found.lost} lost, {seconds:.1f} CPU s"
            show(f"{head}; published a b c d: {PUBLISHED[router]}", values, routed.intervals(found.resamples))

    for dataset in ("c4_original", "rpj", "rw_original"):
        start = time.process_time()
        where, column = {"dataset": dataset, "val_data": C4}, {"params": "params_no_embed"}
        rows = read(str(arguments.folder / "mlfoundations_scaling.csv"), ("params", "tokens", "loss"), column, where)
        fitted = fit.fit(rows, arguments.resamples, 0)
        values = {key: getattr(fitted.law, key) for key in ("e", "a", "b", "alpha", "beta", "exponent")}
        pairs = zip(rows["params"].tolist(), rows["tokens"].tolist(), strict=True)
        predicted = np.array([fitted.law.loss(params, tokens) for params, tokens in pairs])
        error = float(np.sqrt((np.log(predicted / rows["loss"]) ** 2).mean()))
        about = f"rms of log loss {error:.4f}, {fitted.lost} lost, {time.process_time() - start:.1f} CPU s"
        show(f"approach 3, {dataset} on C4, {fitted.rows} models: {about}", values, fit.intervals(fitted.resamples))


if __name__ == "__main__":
    main()
