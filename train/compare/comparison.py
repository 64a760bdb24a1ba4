"""`winnow compare`: prepares, says what it will do, runs the pilot and then the runs, and tells what came out.

    plan      arms, contrasts, seeds, tokens, FLOPs and the time that they will take at the speed of this machine
    pilot     the second arm at each learning rate of the recipe: the one with the lowest loss is taken for all arms
    runs      in the order of their worth (jobs.py)
    result    result.json, costs.json and index.html, after every run that ends, so that a cut comparison is a smaller one
"""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipelines.errors import UserError
from pipelines.recipe_compare import Compare
from train import fleet, flops
from train.compare import earlier, jobs, result, runner
from train.compare.plan import Plan, make_plan, pilot_loss, pilot_so_far, plan_json, plan_text
from train.compare.prepare import SETTINGS, Comparison, prepare
from train.files import publish, publish_json, read_json_lines
from train.fleet import COSTS, SCORES
from train.verdict import ANOTHER_RUN

RESULT, COSTS_OF_ALL, PAGE, PLAN = "result.json", "costs.json", "index.html", "plan.json"
_COLUMNS = 100  # of a terminal

Say = Callable[[str], None]


def compare(
    folder: str,
    say: Say,
    settings: Compare | None = None,
    base: str = ".",
    budget: float | None = None,
    plan_only: bool = False,
    processes: int | None = None,
) -> dict[str, Any]:
    """Runs the comparison of the run in `folder` as far as the budget (seconds) goes; returns what --json prints.

    Raises UserError before any training on what would spoil it, CheckError where a run fails.
    """
    began = time.monotonic()
    made = prepare(folder, settings, base)
    count = processes or max(1, len(os.sched_getaffinity(0)))
    taken = [] if plan_only else earlier.take_over(made)
    left = None if budget is None else max(0.0, budget - (time.monotonic() - began))
    plan = make_plan(made, left, count)
    publish_json(made.folder / PLAN, plan_json(made, plan))
    say(plan_text(made, plan))
    if taken:
        say(f"{len(taken)} of the runs that are done are those of other comparisons of this run: {', '.join(taken)}")
    if plan_only:
        return {"folder": str(made.folder), "plan": plan_json(made, plan)}
    with runner.alone(made):
        return _run(made, plan, None if budget is None else began + budget, say)


def _run(made: Comparison, plan: Plan, deadline: float | None, say: Say) -> dict[str, Any]:
    """The pilot, the runs, and after each of them what came out so far."""
    count = plan.processes

    def tasks(wanted: Sequence[jobs.Job]) -> list[fleet.Task]:
        return [runner.task(made, job) for job in wanted]

    pilot, rate = pilot_so_far(made)
    while rate is None:
        if not fleet.run(tasks(pilot), count, deadline, say):
            raise UserError(f"{made.folder}: the budget ended within the pilot; give more: the same command goes on")
        pilot, rate = pilot_so_far(made)
    if pilot:
        say(f"learning rate {rate:g}, of {', '.join(f'{job.rate:g}' for job in pilot)}")
    chosen = rate

    def told_so_far() -> dict[str, Any]:
        told, costs = results(made, pilot, chosen)
        write(made, told, costs)
        return told

    results(made, pilot, chosen)  # runs of unequal compute that stand here already are an error before others are trained
    wanted = tasks(jobs.jobs(plan.contrasts, rate, made.tokens))
    whole = fleet.run(wanted, count, deadline, say, told_so_far) and not plan.left_out
    return {"folder": str(made.folder), "page": str(made.folder / PAGE), "complete": whole, "result": told_so_far()}


def results(made: Comparison, pilot: Sequence[jobs.Job], rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """(result.json, costs.json) of what is finished."""
    documents = read_json_lines(made.documents)
    rows = [
        {
            "domain": row["domain"],
            "doc": row["doc"],
            "cluster": row["cluster"],
            "bytes": len(row["text"].encode()),
            "leaked": row["leaked"],
        }
        for row in documents
    ]
    every = jobs.jobs(made.contrasts, rate, made.tokens)
    done = [job for job in every if runner.is_done(made, job)]
    scores = {(job.arm.name, job.seed): _read(made, job, SCORES) for job in done}
    failed = {f"{arm}-s{seed}": found["failed"] for (arm, seed), found in scores.items() if "failed" in found}
    done = [job for job in done if job.name not in failed]
    scores = {key: found for key, found in scores.items() if "failed" not in found}
    primary = (made.contrasts[0].first.name, made.contrasts[0].second.name)
    endpoint = made.settings.domains
    contrasts = result.judge_all(made.contrasts, scores, rows, endpoint)
    verdict = contrasts[0]["sentence"] if contrasts and contrasts[0]["name"] == "primary" else "no pair of runs is finished"
    config = made.model
    counted = flops.parameters(config)
    told = {
        "format": result.FORMAT,
        "id": made.id,
        "recipe": made.run.recipe.name,
        "settings": made.told,
        "primary": list(primary),
        "endpoint": list(endpoint),
        "verdict": verdict,
        "model": {
            "preset": made.settings.model.get("preset"),
            "parameters": counted.total,
            "active_parameters": counted.active,
            "flops_per_token": made.flops,
            "context": config.context,
            "vocab_size": config.vocab_size,
        },
        "rate": {"chosen": rate, "pilot": [{"rate": job.rate, "loss": pilot_loss(made, job)} for job in pilot]},
        "pools": {name: pool.to_json() for name, pool in sorted(made.pools.items())},
        "sets": made.sets,
        "contrasts": contrasts,
        "tasks": result.tasks_by_arm(primary, scores),
        "task_differences": result.task_differences(primary, scores),
        "bias": result.bias_by_arm(primary, scores),
        "experts": result.experts_by_arm(primary, scores),
        "limits": list(limits(made, pilot, rate, len(every) - len(done) - len(failed), failed)),
        "documents": rows,
        "runs": [
            {
                "job": job.name,
                "arm": job.arm.name,
                "pool": job.arm.pool_of(job.seed),
                "seed": job.seed,
                "rate": job.rate,
                "tokens": scores[job.arm.name, job.seed]["tokens"],
                "flops": scores[job.arm.name, job.seed]["tokens"] * made.flops,
                "epochs": made.passes(job.arm, job.seed),
                "bits": scores[job.arm.name, job.seed]["bits"],
                "curve": scores[job.arm.name, job.seed]["curve"],
            }
            for job in done
        ],
    }
    costs = {"runs": {job.name: _read(made, job, COSTS) for job in [*pilot, *done]}, "other_endpoints": other_endpoints(made)}
    return told, costs


def other_endpoints(made: Comparison) -> list[dict[str, Any]]:
    """Comparisons of the same documents that have a result on another endpoint: one may have been chosen in sight of the other."""
    found = []
    mine = json.loads((made.folder / SETTINGS).read_bytes())
    for path in sorted(made.folder.parent.glob(f"*/{RESULT}")):
        other = json.loads((path.parent / SETTINGS).read_bytes())
        if path.parent != made.folder and other["run"] == mine["run"]:
            endpoint = Compare.model_validate(other["compare"]).domains
            if endpoint != made.settings.domains:
                found.append({"id": path.parent.name, "endpoint": list(endpoint)})
    return found


def _read(made: Comparison, job: jobs.Job, name: str) -> Any:
    return json.loads((runner.folder_of(made, job) / name).read_bytes())


def limits(
    made: Comparison, pilot: Sequence[jobs.Job], rate: float, missing: int, failed: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """What a reader must know before believing any of it. failed: runs of controls by name, and why."""
    counted = flops.parameters(made.model)
    said = [
        f"One model of {counted.active:,} active parameters ({counted.total:,} in all), {made.tokens:,} tokens a run: what holds "
        "at this size need not hold at another.",
        *_of_pools(made),
        *made.limits,
    ]
    if missing:
        said.append(f"{missing} of the planned runs are not done; contrasts stand on the seeds that are.")
    said += [f"A run of a control failed and counts nowhere: {name} ({why})." for name, why in sorted(failed.items())]
    if len(pilot) > 1 and rate in (pilot[0].rate, pilot[-1].rate):
        said.append(f"The best learning rate, {rate:g}, is at an end of the pilot's range: a better one may lie beyond.")
    if pilot:
        one, other = made.contrasts[0].first.name, made.contrasts[0].second.name
        said.append(f"The learning rate was chosen on {other}: {one} may do better at another, so that its gap is rather too low.")
    held = sorted(name for name, one in made.settings.sets.items() if not one.files and made.sets[name]["trained_hosts"] is None)
    if held:
        said.append(
            f"Held out by the run itself, by near-duplicate cluster and not by thread, host or author: {', '.join(held)}. Other "
            "texts of the same hosts and authors may be in the pools."
        )
    if made.run.recipe.fit.tokenizer.file is not None:
        said.append("The tokenizer was given as a file: whether it learned from evaluation texts cannot be known here.")
    if made.settings.endpoint == "positives":
        said.append("The endpoint is on the source of the classifier's positives: it flatters a filter that looks for them.")
    repeated = {
        pool
        for contrast in made.contrasts
        for arm in (contrast.first, contrast.second)
        for seed in range(1, contrast.seeds + 1)
        for pool, passes in made.passes_by_pool(arm, seed).items()
        if passes > 1
    }
    if repeated:
        said.append(f"Pools that a run goes through more than once: {', '.join(sorted(repeated))}.")
    return said


def _of_pools(made: Comparison) -> list[str]:
    """What the sizes of the primary contrast's pools, by a run's length, leave open."""
    arms = (made.contrasts[0].first, made.contrasts[0].second)
    names, passes = " and ".join(arm.name for arm in arms), [made.passes(arm) for arm in arms]
    said = [
        f"The pools of {names} are one draw, the same for all seeds; a run goes through them {passes[0]:.2f} and {passes[1]:.2f} "
        "times. The luck of that draw is in the intervals only so far as runs see different parts of it."
    ]
    if made.contrasts[0].steps == (ANOTHER_RUN,):
        said.append("The arms are of two runs: whatever else differs between the runs is in the gap too.")
    if max(passes) <= 1:
        said.append(
            f"No run of {names} sees a document twice: their gap tells which documents are better, not whether few good ones make "
            "up for many others. Contrasts of small pools ask that."
        )
    return said


def write(made: Comparison, told: dict[str, Any], costs: dict[str, Any]) -> None:
    """result.json, costs.json and the page."""
    from train.compare import page

    publish_json(made.folder / RESULT, told)
    publish_json(made.folder / COSTS_OF_ALL, costs)
    publish(made.folder / PAGE, page.render(told, costs).encode())


def result_text(told: dict[str, Any]) -> str:
    """What came out, for people."""
    from pipelines.overview import table

    rows = []
    for one in told["contrasts"]:
        finding = one["endpoint"]
        names = [one["name"], one["first"], one["second"]]
        rows.append([*names, finding["seeds"], f"{finding['gap']:+.4f}", _interval(finding), finding["verdict"]])
    domains = []
    if told["contrasts"]:
        first = told["contrasts"][0]
        domains = [
            [name, told["sets"][name]["group"], f"{one['gap']:+.4f}", _interval(one)] for name, one in first["domains"].items()
        ]
    lines = [
        "gap in bits per byte, above zero: the first arm is better",
        table(["contrast", "first", "second", "seeds", "gap", "95 % interval", "verdict"], rows),
        table(["evaluation set", "group", "gap", "simultaneous interval"], domains),
        textwrap.fill(told["verdict"], _COLUMNS),
    ]
    return "\n\n".join(lines)


def _interval(finding: dict[str, Any]) -> str:
    return "none" if finding["low"] is None else f"{finding['low']:+.4f} to {finding['high']:+.4f}"
