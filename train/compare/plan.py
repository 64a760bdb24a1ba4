"""What a comparison will run, and how long that takes: the pilot so far, the contrasts that a budget affords, and both in words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import UserError
from train.compare import jobs, runner
from train.compare.prepare import Comparison
from train.fleet import SCORES, minutes

# Scoring a byte of evaluation text costs as much as training on this many tokens: .195, the median of 65 runs of the comparison in
# docs/comparison.md (glam-tiny over a vocabulary of 4,096; tasks and biases of 16 more: .24 on top).
_TOKENS_A_BYTE = 0.2
_START_SECONDS = 5.0  # of a process, until it trains; a guess
_LAST = 0.1  # of a pilot's curve: its loss is the mean over this end


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


def make_plan(made: Comparison, left: float | None, processes: int) -> Plan:
    """left: seconds that remain of the budget; None is no limit."""
    pilot, rate = pilot_so_far(made)
    runs = [] if rate is None else jobs.jobs(made.contrasts, rate, made.tokens)
    done = {job.name for job in [*pilot, *runs] if runner.is_done(made, job)}
    speed = runner.measured_speed(made)
    scoring = scoring_tokens(made, speed)
    trying = sum(job.tokens + scoring for job in pilot if job.name not in done)
    afforded = math.inf if left is None else left * speed * processes - trying
    taken, rest = jobs.within(made.contrasts, made.tokens, afforded, done, scoring)
    every = [*pilot, *jobs.jobs(taken, 1.0, made.tokens)]
    todo = [job for job in every if job.name not in done]
    tokens = sum(job.tokens for job in todo)
    seconds = (tokens + scoring * len(todo)) / speed / processes
    return Plan(tuple(taken), tuple(rest), tuple(pilot), len(every), len(every) - len(todo), tokens, speed, processes, seconds)


def scoring_tokens(made: Comparison, speed: float) -> int:
    """What a run costs beside its training, in tokens of training: the start of its process, and the evaluation texts, which are
    read forward only, but in float32 and, where they are long, nearly twice. Tasks and biases of the primary arms come on top."""
    read = sum(facts["bytes"] + facts["removed_bytes"] for facts in made.sets.values())
    return round(read * _TOKENS_A_BYTE + _START_SECONDS * speed)


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
    """The rate whose run ended with the lowest loss; of equal ones the lowest. Raises UserError where none stayed finite."""
    if not pilot:
        return made.settings.rates[0]
    losses = {job.rate: loss for job in pilot if (loss := pilot_loss(made, job)) is not None}
    if not losses:
        raise UserError("compare.rates: gradients were not finite at any of them; give lower ones")
    return min(sorted(losses), key=losses.__getitem__)


def pilot_loss(made: Comparison, job: jobs.Job) -> float | None:
    """Mean loss (nats) over the last tenth of a pilot: on text that it had not seen, unless its pool is gone through again. None
    where a gradient was not finite."""
    points = json.loads((runner.folder_of(made, job) / SCORES).read_bytes())["curve"]
    if points is None:
        return None
    last = points[-max(1, round(_LAST * len(points))) :]
    return math.fsum(loss for _, loss in last) / len(last)


# -- in words -------------------------------------------------------------------------------------------------------------------


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
        "estimand": contrast.estimand,
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
    asked = [[one.name, one.first.name, one.second.name, one.seeds, one.estimand] for one in plan.contrasts]
    judged = [
        [name, facts["group"], facts["documents"], facts["clusters"], facts["bytes"], sum(facts["removed"].values())]
        for name, facts in made.sets.items()
    ]
    lines = [
        f"comparison {made.id} in {made.folder}",
        table(["arm", "documents", "tokens in its pool", "tokens a run", "passes"], rows),
        table(["contrast", "first", "second", "seeds", "estimand"], asked),
        table(["evaluation set", "group", "documents", "clusters", "bytes", "leaks"], judged),
        f"primary endpoint: {', '.join(made.settings.domains)}" + (", equal weight each" if len(made.settings.domains) > 1 else ""),
        f"{plan.runs} runs, {plan.done} of them done; {plan.tokens:,} tokens to train, {plan.tokens * made.flops:.2e} FLOPs;\n"
        f"{plan.processes} processes at {plan.tokens_per_second:,.0f} tokens/s: about {minutes(plan.seconds)}",
    ]
    if plan.left_out:
        lines.append(f"left out for the budget: {', '.join(one.name for one in plan.left_out)}")
    return "\n\n".join(lines)
