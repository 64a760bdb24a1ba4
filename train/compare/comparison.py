"""`winnow compare`: prepares, says what it will do, runs the pilot and then the runs, and tells what came out.

    plan      arms, contrasts, seeds, tokens, FLOPs and the time that they will take at the speed of this machine
    pilot     the second arm at each learning rate of the recipe: the one with the lowest loss is taken for all arms
    runs      in the order of their worth (jobs.py)
    result    result.json, costs.json and index.html, after every run that ends, so that a cut comparison is a smaller one
"""

from __future__ import annotations

import json
import math
import os
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import lock
from pipelines.errors import UserError
from pipelines.recipe_compare import Compare
from train import flops
from train.compare import jobs, result, runner
from train.compare.prepare import ANOTHER_RUN, Comparison, prepare
from train.compare.worker import COSTS, SCORES, publish, read_rows

RESULT, COSTS_OF_ALL, PAGE, PLAN = "result.json", "costs.json", "index.html", "plan.json"
_SCORING = 1.15  # of the time of training, with the scoring of what was learned and the start of a process
_COLUMNS = 100  # of a terminal
_LAST = 0.1  # of a pilot's curve: its loss is the mean over this end

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, and how long it should take."""

    contrasts: tuple[jobs.Contrast, ...]
    left_out: tuple[jobs.Contrast, ...]
    pilot: tuple[jobs.Job, ...]
    runs: int
    done: int
    tokens: int  # of all runs that are not done
    tokens_per_second: float  # of one process
    processes: int
    seconds: float


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
    left = None if budget is None else max(0.0, budget - (time.monotonic() - began))
    plan = make_plan(made, left, count)
    publish(made.folder / PLAN, plan_json(made, plan))
    say(plan_text(made, plan))
    if plan_only:
        return {"folder": str(made.folder), "plan": plan_json(made, plan)}
    with lock.hold(str(made.folder / "runs" / ".lock"), str(made.folder)):
        return _run(made, plan, None if budget is None else began + budget, say)


def _run(made: Comparison, plan: Plan, deadline: float | None, say: Say) -> dict[str, Any]:
    """The pilot, the runs, and after each of them what came out so far."""
    count = plan.processes
    seeds = made.settings.seeds
    primary = tuple(arm.name for arm in (made.contrasts[0].first, made.contrasts[0].second))

    def described(wanted: Sequence[jobs.Job]) -> list[tuple[jobs.Job, dict[str, Any]]]:
        return [(job, runner.describe(made, job, primary, seeds)) for job in wanted]

    pilot, rate = pilot_so_far(made)
    while rate is None:
        if not runner.run_jobs(made, described(pilot), count, deadline, say):
            raise UserError(f"{made.folder}: the budget ended within the pilot; give more: the same command goes on")
        pilot, rate = pilot_so_far(made)
    if pilot:
        say(f"learning rate {rate:g}, of {', '.join(f'{job.rate:g}' for job in pilot)}")
    chosen = rate

    def told_so_far() -> dict[str, Any]:
        told, costs = results(made, pilot, chosen)
        write(made, told, costs)
        return told

    wanted = described(jobs.jobs(plan.contrasts, rate, made.tokens))
    whole = runner.run_jobs(made, wanted, count, deadline, say, told_so_far) and not plan.left_out
    runner.forget_weights(made)
    return {"folder": str(made.folder), "page": str(made.folder / PAGE), "complete": whole, "result": told_so_far()}


def make_plan(made: Comparison, left: float | None, processes: int) -> Plan:
    """left: seconds that remain of the budget; None is no limit."""
    pilot, rate = pilot_so_far(made)
    runs = [] if rate is None else jobs.jobs(made.contrasts, rate, made.tokens)
    done = {job.name for job in [*pilot, *runs] if runner.is_done(made, job)}
    speed = runner.measured_speed(made)
    trying = sum(job.tokens for job in pilot if job.name not in done)
    afforded = math.inf if left is None else left * speed * processes / _SCORING - trying
    taken, rest = jobs.within(made.contrasts, made.tokens, afforded, done)
    every = [*pilot, *jobs.jobs(taken, 1.0, made.tokens)]
    todo = [job for job in every if job.name not in done]
    tokens = sum(job.tokens for job in todo)
    seconds = tokens * _SCORING / speed / processes
    return Plan(tuple(taken), tuple(rest), tuple(pilot), len(every), len(every) - len(todo), tokens, speed, processes, seconds)


def pilot_so_far(made: Comparison) -> tuple[list[jobs.Job], float | None]:
    """(the pilot's runs by rate, the rate that it chose); None where a run of them is still to be done."""
    pilot = jobs.pilot(made.settings, made.tokens)
    while all(runner.is_done(made, job) for job in pilot):
        rate = chosen_rate(made, pilot)
        more = jobs.beyond(made.settings, pilot, rate)
        if more is None:
            return pilot, rate
        pilot = sorted([*pilot, more], key=lambda job: job.rate)
    return pilot, None


def chosen_rate(made: Comparison, pilot: Sequence[jobs.Job]) -> float:
    """The rate whose run ended with the lowest loss; of equal ones the lowest."""
    if not pilot:
        return made.settings.rates[0]
    return min(pilot, key=lambda job: (pilot_loss(made, job), job.rate)).rate


def pilot_loss(made: Comparison, job: jobs.Job) -> float:
    """Mean loss (nats) over the last tenth of a pilot: on text that it had not seen, unless its pool is gone through again."""
    points = json.loads((runner.folder_of(made, job) / SCORES).read_bytes())["curve"]
    last = points[-max(1, round(_LAST * len(points))) :]
    return math.fsum(loss for _, loss in last) / len(last)


def results(made: Comparison, pilot: Sequence[jobs.Job], rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """(result.json, costs.json) of what is finished."""
    documents = read_rows(made.documents)
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
        "settings": made.settings.model_dump(mode="json"),
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
        "bias": result.bias_by_arm(primary, scores),
        "experts": result.experts_by_arm(primary, scores),
        "limits": list(limits(made, pilot, rate, len(every) - len(done))),
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
    costs = {"runs": {job.name: _read(made, job, COSTS) for job in [*pilot, *done]}}
    return told, costs


def _read(made: Comparison, job: jobs.Job, name: str) -> Any:
    return json.loads((runner.folder_of(made, job) / name).read_bytes())


def limits(made: Comparison, pilot: Sequence[jobs.Job], rate: float, missing: int) -> list[str]:
    """What a reader must know before believing any of it."""
    counted = flops.parameters(made.model)
    said = [
        f"One model of {counted.active:,} active parameters ({counted.total:,} in all), {made.tokens:,} tokens a run: what holds "
        "at this size need not hold at another.",
        *_of_pools(made),
        *made.limits,
    ]
    if missing:
        said.append(f"{missing} of the planned runs are not done; contrasts stand on the seeds that are.")
    if len(pilot) > 1 and rate in (pilot[0].rate, pilot[-1].rate):
        said.append(f"The best learning rate, {rate:g}, is at an end of the pilot's range: a better one may lie beyond.")
    if pilot:
        one, other = made.contrasts[0].first.name, made.contrasts[0].second.name
        said.append(f"The learning rate was chosen on {other}: {one} may do better at another, so that its gap is rather too low.")
    if made.settings.endpoint == "positives":
        said.append("The endpoint is on the source of the classifier's positives: it flatters a filter that looks for them.")
    repeated = [name for name, pool in sorted(made.pools.items()) if made.tokens > pool.tokens]
    if repeated:
        said.append(f"Pools that a run goes through more than once: {', '.join(repeated)}.")
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

    publish(made.folder / RESULT, told)
    publish(made.folder / COSTS_OF_ALL, costs)
    temporary = made.folder / f".{PAGE}.tmp"
    temporary.write_text(page.render(told, costs), "utf-8")
    temporary.replace(made.folder / PAGE)


# -- the plan in words --------------------------------------------------------------------------------------------------------


def plan_json(made: Comparison, plan: Plan) -> dict[str, Any]:
    """The plan as `--plan --json` prints it."""
    return {
        "id": made.id,
        "runs": plan.runs,
        "done": plan.done,
        "tokens_a_run": made.tokens,
        "tokens_to_train": plan.tokens,
        "flops_to_train": plan.tokens * made.flops,
        "tokens_per_second": plan.tokens_per_second,
        "processes": plan.processes,
        "seconds": plan.seconds,
        "pilot_rates": [job.rate for job in plan.pilot],
        "contrasts": [_contrast_json(one) for one in plan.contrasts],
        "left_out": [_contrast_json(one) for one in plan.left_out],
        "pools": {name: {"tokens": pool.tokens, "documents": pool.documents} for name, pool in made.pools.items()},
        "sets": made.sets,
        "endpoint": list(made.settings.domains),
    }


def _contrast_json(contrast: jobs.Contrast) -> dict[str, Any]:
    return {
        "name": contrast.name,
        "first": contrast.first.name,
        "second": contrast.second.name,
        "seeds": contrast.seeds,
        "question": contrast.question,
        "steps": list(contrast.steps),
    }


def plan_text(made: Comparison, plan: Plan) -> str:
    """The plan for people."""
    from pipelines.overview import table

    arms = {arm.name: arm for contrast in plan.contrasts for arm in (contrast.first, contrast.second)}
    rows = []
    for arm in arms.values():
        pool = made.pool(arm)
        rows.append([arm.name, pool.documents, pool.tokens, made.tokens * arm.tokens_times, f"{made.passes(arm):.2f}"])
    asked = [[one.name, one.first.name, one.second.name, one.seeds] for one in plan.contrasts]
    judged = [
        [name, facts["group"], facts["documents"], facts["clusters"], facts["bytes"], sum(facts["removed"].values())]
        for name, facts in made.sets.items()
    ]
    lines = [
        f"comparison {made.id} in {made.folder}",
        table(["arm", "documents", "tokens in its pool", "tokens a run", "passes"], rows),
        table(["contrast", "first", "second", "seeds"], asked),
        table(["evaluation set", "group", "documents", "clusters", "bytes", "leaks"], judged),
        f"primary endpoint: {', '.join(made.settings.domains)}, equal weight each",
        f"{plan.runs} runs, {plan.done} of them done; {plan.tokens:,} tokens to train, {plan.tokens * made.flops:.2e} FLOPs;\n"
        f"{plan.processes} processes at {plan.tokens_per_second:,.0f} tokens/s: about {runner.minutes(plan.seconds)}",
    ]
    if plan.left_out:
        lines.append(f"left out for the budget: {', '.join(one.name for one in plan.left_out)}")
    return "\n\n".join(lines)


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
