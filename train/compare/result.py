"""From the runs' scores to what they say: gaps with intervals, verdicts, sentences. Pure: all of it is recomputed from the bits.

`result.json` holds bits of every run and bytes of every document, so that anyone can do this again. Documents that leak into a
training corpus count nowhere but in `before_removal`. A contrast is judged on the seeds that both of its arms have finished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import UserError
from train import gaps, verdict
from train.compare import shares
from train.compare.jobs import Contrast
from train.gaps import Cells, Estimate

FORMAT = 1
COMPUTE_TOLERANCE = 1e-3  # arms of a contrast may differ by so much of their FLOPs

Runs = Mapping[tuple[str, int], Mapping[str, Any]]  # (arm, seed) -> its scores


def paired_seeds(contrast: Contrast, runs: Runs) -> list[int]:
    """The seeds that both arms have."""
    return [
        seed
        for seed in range(1, contrast.seeds + 1)
        if (contrast.first.name, seed) in runs and (contrast.second.name, seed) in runs
    ]


def check_compute(contrast: Contrast, runs: Runs) -> None:
    """Raises UserError where a pair of runs was not trained on as many tokens, and so FLOPs: the model is the same."""
    for seed in paired_seeds(contrast, runs):
        first, second = (runs[arm.name, seed]["tokens"] for arm in (contrast.first, contrast.second))
        if abs(first - second) > COMPUTE_TOLERANCE * max(first, second):
            raise UserError(
                f"{contrast.name}, seed {seed}: {contrast.first.name} was trained on {first:,} tokens, {contrast.second.name} on "
                f"{second:,}: arms must have equal compute; delete the folder of the shorter run"
            )


def cells_of(contrast: Contrast, runs: Runs, documents: Sequence[Mapping[str, Any]], leaked: bool = False) -> Cells:
    """Bits of both arms, paired by seed and document; leaked: also on documents that leak."""
    chosen = [place for place, document in enumerate(documents) if leaked or document["leaked"] is None]
    seeds = paired_seeds(contrast, runs)
    first_SN, second_SN = (
        np.array([[runs[arm.name, seed]["bits"][place] for place in chosen] for seed in seeds])
        for arm in (contrast.first, contrast.second)
    )
    rows = [documents[place] for place in chosen]
    bytes_N = np.array([row["bytes"] for row in rows])
    return gaps.tabulate(first_SN, second_SN, bytes_N, [row["cluster"] for row in rows], [row["domain"] for row in rows])


def judge(
    contrast: Contrast, runs: Runs, documents: Sequence[Mapping[str, Any]], endpoint: Sequence[str], matched: Cells | None
) -> dict[str, Any]:
    """A contrast as result.json has it. matched: of the first arm over matched random, for the primary contrast."""
    check_compute(contrast, runs)
    cells = cells_of(contrast, runs, documents)
    names = (contrast.first.name, contrast.second.name)
    found = verdict.contrast(cells, endpoint, names, contrast.steps, matched)
    before = verdict.decide(gaps.estimate(cells_of(contrast, runs, documents, leaked=True), endpoint))
    return {
        "name": contrast.name,
        "question": contrast.question,
        "first": names[0],
        "second": names[1],
        "estimand": contrast.estimand,
        "steps": list(contrast.steps),
        "endpoint": finding_json(found.primary),
        "domains": {name: finding_json(one) for name, one in found.domains.items()},
        "before_removal": finding_json(before),
        "because_of_quality": found.because_of_quality,
        "sentence": found.sentence,
    }


def finding_json(finding: verdict.Finding) -> dict[str, Any]:
    """Numbers of a finding; null where a variance is unknown and with it the interval."""
    gap: Estimate = finding.estimate
    return {
        "verdict": str(finding.verdict),
        "gap": gap.gap,
        "low": _known(finding.low),
        "high": _known(finding.high),
        "level": finding.level,
        "flip_p": gap.flip_p(),
        "equivalence_p": finding.equivalence_p,
        "within_margin": finding.within_margin,
        "seeds": gap.seeds,
        "clusters": gap.clusters,
        "seed_gaps": list(gap.seed_gaps),
        "seed_variance": _known(gap.seed_variance),
        "document_variance": _known(gap.document_variance),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def judge_all(
    contrasts: Sequence[Contrast], runs: Runs, documents: Sequence[Mapping[str, Any]], endpoint: Sequence[str]
) -> list[dict[str, Any]]:
    """Every contrast of which at least one pair of runs is finished, in the order given."""
    by_name = {contrast.name: contrast for contrast in contrasts}
    found = []
    for contrast in contrasts:
        if not paired_seeds(contrast, runs):
            continue
        control = by_name.get("matched") if contrast.name == "primary" else None
        matched = cells_of(control, runs, documents) if control is not None and paired_seeds(control, runs) else None
        found.append(judge(contrast, runs, documents, endpoint, matched))
    return found


# -- tasks, bias, experts -----------------------------------------------------------------------------------------------------


def tasks_by_arm(arms: Sequence[str], runs: Runs) -> dict[str, dict[str, Any]]:
    """{task, its category and shots: {arm: accuracy with its interval over seeds and items, chance, margin, items}}."""
    return {name: {arm: _task(scores) for arm, scores in by_arm.items()} for name, by_arm in _scores_of_tasks(arms, runs).items()}


def task_differences(arms: tuple[str, str], runs: Runs) -> dict[str, dict[str, Any]]:
    """{task: first arm's accuracy less the second's, as `shares.contrast` has it}, run by run and item by item, over the seeds that
    both arms have."""
    found = {}
    for name, by_arm in _scores_of_tasks(arms, both_have(arms, runs)).items():
        first, second = ([_as_shares(name, score) for score in by_arm[arm]] for arm in arms)
        found[name] = shares.contrast(second, first)["all"]
    return found


def both_have(arms: tuple[str, str], runs: Runs) -> Runs:
    """The runs of the seeds that both arms have."""
    return {(arm, seed): run for (arm, seed), run in runs.items() if all((one, seed) in runs for one in arms)}


def _scores_of_tasks(arms: Sequence[str], runs: Runs) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """{task: {arm: a run's score a seed, seeds in order}}."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for (arm, _), run in sorted(runs.items()):
        if arm in arms:
            for score in run.get("tasks") or ():
                name = score["task"] + (f", {score['shots']} shots" if score["shots"] else "")
                found.setdefault(name, {}).setdefault(arm, []).append(score)
    return found


def _as_shares(name: str, score: Mapping[str, Any]) -> shares.Result:
    rows = [{"item": item, "cluster": item, "categories": [], "outcome": one} for item, one in score["outcomes"].items()]
    return shares.result(name, rows)


def _task(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    outcome_SN = np.array([list(score["outcomes"].values()) for score in scores])
    accuracy = shares.share(list(scores[0]["outcomes"]), outcome_SN)
    margins = [score["margin"] for score in scores if score["margin"] is not None]
    return {
        "acc": accuracy["share"],
        "low": accuracy["low"],
        "high": accuracy["high"],
        "over": accuracy["over"],
        "chance": scores[0]["chance"],
        "margin": math.fsum(margins) / len(margins) if margins else None,
        "items": scores[0]["items"],
        "seeds": len(scores),
    }


def bias_by_arm(arms: tuple[str, str], runs: Runs) -> dict[str, Any]:
    """{measure: {"arms": {arm: {category: share with its interval}}, "differences": {category: second arm less first}}}, over the
    seeds that both arms have."""
    runs = both_have(arms, runs)
    seeds = sorted({seed for _, seed in runs})
    found: dict[str, Any] = {}
    for measure in sorted({name for run in runs.values() for name in run.get("bias") or ()}):
        by_arm = {arm: [runs[arm, seed]["bias"][measure] for seed in seeds] for arm in arms}
        if seeds:
            differences = shares.contrast(by_arm[arms[0]], by_arm[arms[1]])
            found[measure] = {"arms": shares.summarise(by_arm), "differences": differences}
    return found


def experts_by_arm(arms: Sequence[str], runs: Runs) -> dict[str, Any]:
    """Mutual information of domain and expert by arm, of the mean over sparse layers, which is the one test, and of each layer:
    means over seeds, and how many seeds pass what shuffled labels give. Routing shares are the first seed's: experts of two seeds
    have nothing in common but their number."""
    layers, means, routing = [], [], {}
    for arm in arms:
        mine = [run for (name, _), run in sorted(runs.items()) if name == arm and run.get("information")]
        if not mine:
            continue
        routing[arm] = mine[0]["routing"]
        means.append({"arm": arm, **_information([run["information"]["mean"] for run in mine])})
        for layer in range(len(mine[0]["information"]["layers"])):
            layers.append({"arm": arm, "layer": layer, **_information([run["information"]["layers"][layer] for run in mine])})
    return {"mean": means, "layers": layers, "routing": routing}


def _information(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What seeds found of one layer, or of the mean over layers."""
    return {
        "information_bits": _mean(found, "bits"),
        "shuffled_mean": _mean(found, "shuffled_mean"),
        "shuffled_95": _mean(found, "shuffled_95"),
        "p": max(one["p"] for one in found),
        "seeds": len(found),
        "above": sum(one["bits"] > one["shuffled_95"] for one in found),
    }


def _mean(found: Sequence[Mapping[str, Any]], key: str) -> float:
    return math.fsum(one[key] for one in found) / len(found)
