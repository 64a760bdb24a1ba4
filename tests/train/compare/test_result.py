"""From bits to verdicts: simulated comparisons whose truth is known, exchanged labels, unequal compute, and figures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import UserError
from train import verdict
from train.compare import result, shares
from train.compare.jobs import Arm, Contrast

DOCUMENTS = [
    {"domain": domain, "doc": f"{domain}#{n}", "cluster": f"{domain}-{n // 3}", "bytes": 400 + 37 * (n % 5), "leaked": None}
    for domain in ("essays", "letters")
    for n in range(60)
]
PRIMARY = Contrast("primary", 0, Arm("filtered", "filtered"), Arm("unfiltered", "unfiltered"), 8, "What?", ("quality",))
MATCHED = Contrast("matched", 1, Arm("filtered", "filtered"), Arm("matched", "matched"), 5, "Is it?")
ENDPOINT = ("essays", "letters")


def simulated(number: int, effect: float, seeds: int = 8, arms=("filtered", "unfiltered")):
    """Scores of runs in bits a byte around 3: what seeds add, what documents are, what a document is worse for an arm, noise."""
    draw = np.random.Generator(np.random.PCG64(number))
    sizes = np.array([document["bytes"] for document in DOCUMENTS])
    clusters = np.array([n // 3 for n in range(len(DOCUMENTS))])
    easy = draw.normal(3, 0.3, len(sizes))
    liking = draw.normal(0, 0.02, clusters.max() + 1)[clusters]  # a cluster likes one arm: no property of the arm
    runs = {}
    for seed in range(1, seeds + 1):
        for arm in arms:
            shift = -effect + liking if arm == "filtered" else 0.0
            rate = easy + shift + draw.normal(0, 0.02) + draw.normal(0, 0.02, len(sizes))
            runs[arm, seed] = {"bits": (rate * sizes).tolist(), "tokens": 1000}
    return runs


def judged(runs, contrast=PRIMARY, documents=DOCUMENTS):
    return result.judge(contrast, runs, documents, ENDPOINT, None)


def test_false_positives_of_two_hundred_comparisons_are_within_the_nominal_rate():
    """No effect: at 5 % each, 200 verdicts hold 10 wrong ones on average; 18 or more have a chance of 1.3 %."""
    wrong = [judged(simulated(n, 0.0))["endpoint"]["verdict"] in ("better", "worse") for n in range(200)]
    assert sum(wrong) < 18


def test_an_effect_of_five_hundredths_is_found():
    found = [judged(simulated(n, 0.05))["endpoint"]["verdict"] for n in range(40)]
    assert found.count("better") >= 36
    assert "worse" not in found


def test_exchanged_labels_exchange_the_verdict():
    runs = simulated(3, 0.08)
    exchanged = {({"filtered": "unfiltered", "unfiltered": "filtered"}[arm], seed): run for (arm, seed), run in runs.items()}
    first, second = judged(runs)["endpoint"], judged(exchanged)["endpoint"]
    assert (first["verdict"], second["verdict"]) == ("better", "worse")
    assert (second["gap"], second["low"], second["high"]) == pytest.approx((-first["gap"], -first["high"], -first["low"]))


def test_quality_is_named_only_where_matched_random_agrees():
    runs = simulated(5, 0.08, arms=("filtered", "unfiltered", "matched"))
    assert "because of quality: gap over" in result.judge_all([PRIMARY, MATCHED], runs, DOCUMENTS, ENDPOINT)[0]["sentence"]
    for seed in range(1, 9):
        runs["matched", seed] = runs["filtered", seed]
    found = result.judge_all([PRIMARY, MATCHED], runs, DOCUMENTS, ENDPOINT)[0]
    assert not found["because_of_quality"]
    assert "not shown to be because of quality" in found["sentence"]


def test_a_gap_is_the_sum_of_bits_by_the_sum_of_bytes_of_each_domain():
    runs = simulated(7, 0.03, seeds=2)
    found = judged(runs)
    for seed, gap in enumerate(found["endpoint"]["seed_gaps"], 1):
        by_hand = []
        for domain in ENDPOINT:
            at = [n for n, document in enumerate(DOCUMENTS) if document["domain"] == domain]
            bits = {arm: sum(runs[arm, seed]["bits"][n] for n in at) for arm in ("filtered", "unfiltered")}
            by_hand.append((bits["unfiltered"] - bits["filtered"]) / sum(DOCUMENTS[n]["bytes"] for n in at))
        assert gap == pytest.approx(sum(by_hand) / 2, rel=1e-9)


def test_leaked_documents_count_before_their_removal_only():
    documents = [{**one, "leaked": "ngram" if n % 60 < 10 else None} for n, one in enumerate(DOCUMENTS)]
    runs = simulated(9, 0.0)
    for (arm, _), run in runs.items():
        if arm == "filtered":
            pairs = zip(run["bits"], documents, strict=True)
            run["bits"] = [bits / (4 if document["leaked"] else 1) for bits, document in pairs]
    found = judged(runs, documents=documents)
    assert found["endpoint"] == judged(
        {key: {**run, "bits": run["bits"][10:60] + run["bits"][70:]} for key, run in runs.items()},
        documents=documents[10:60] + documents[70:],
    )["endpoint"]
    assert found["before_removal"]["gap"] > found["endpoint"]["gap"] + 0.2


def test_only_seeds_of_both_arms_count():
    runs = simulated(11, 0.02)
    del runs["unfiltered", 8]
    del runs["filtered", 2]
    assert judged(runs)["endpoint"]["seeds"] == 6
    assert result.judge_all([PRIMARY, MATCHED], {("filtered", 1): runs["filtered", 1]}, DOCUMENTS, ENDPOINT) == []


def test_two_seeds_are_too_few_and_one_has_no_interval():
    assert judged(simulated(1, 0.05, seeds=2))["endpoint"]["verdict"] == str(verdict.Verdict.TOO_FEW)
    one = judged(simulated(1, 0.05, seeds=1))["endpoint"]
    assert (one["low"], one["high"], one["seed_variance"]) == (None, None, None)


def test_unequal_compute_is_an_error():
    runs = simulated(1, 0.0)
    runs["filtered", 3]["tokens"] = 1002
    with pytest.raises(UserError, match=r"primary, seed 3: filtered was trained on 1,002 tokens, unfiltered on 1,000"):
        judged(runs)


def task(outcomes):
    """A run's score on a task of as many items."""
    told = {"task": "copa", "shots": 0, "chance": 0.5, "margin": 1.0, "items": len(outcomes), "acc": sum(outcomes) / len(outcomes)}
    return {"tasks": [{**told, "outcomes": {str(at): one for at, one in enumerate(outcomes)}}]}


def test_tasks_are_told_by_arm():
    """Reference: shares.share, whose variance holds seeds and items; three of four items, then all of them."""
    runs = {("filtered", 1): task([1, 1, 1, 0]), ("filtered", 2): task([1, 1, 1, 1]), ("matched", 1): task([0, 0, 0, 0])}
    found = result.tasks_by_arm(("filtered", "unfiltered"), runs)
    assert list(found) == ["copa"]
    assert list(found["copa"]) == ["filtered"]
    told = found["copa"]["filtered"]
    assert (told["acc"], told["seeds"], told["items"], told["over"]) == (0.875, 2, 4, "seeds and items")
    expected = shares.share(["0", "1", "2", "3"], np.array([[1, 1, 1, 0], [1, 1, 1, 1.0]]))
    assert (told["low"], told["high"]) == (expected["low"], expected["high"])
    assert 0 <= told["low"] < 0.875 < told["high"] <= 1


def test_the_difference_of_two_arms_is_paired_by_seed_and_item():
    """Reference by hand: the first arm is right on one item more of ten, in each of three seeds; other items' luck falls out."""
    easy = [1, 0, 1, 0, 1, 0, 1, 0, 1]
    first, second = task([*easy, 1]), task([*easy, 0])
    runs = {(arm, seed): run for seed in (1, 2, 3) for arm, run in (("filtered", first), ("unfiltered", second))}
    runs["filtered", 4] = first  # without its pair
    found = result.task_differences(("filtered", "unfiltered"), runs)["copa"]
    assert (found["difference"], found["seeds"], found["items"]) == (pytest.approx(0.1), 3, 10)
    assert found["low"] < 0.1 < found["high"]
    swapped = result.task_differences(("unfiltered", "filtered"), runs)["copa"]
    assert swapped["difference"] == pytest.approx(-0.1)
    assert (swapped["low"], swapped["high"]) == pytest.approx((-found["high"], -found["low"]))


def test_expert_use_has_the_one_test_of_the_mean_and_each_layer():
    def information(*bits):
        every = [{"bits": one, "shuffled_mean": 0.1, "shuffled_95": 0.2, "p": 0.005} for one in bits]
        return {"information": {"mean": {**every[0], "bits": sum(bits) / len(bits), "p": 0.01}, "layers": every}, "routing": {}}

    found = result.experts_by_arm(("filtered", "unfiltered"), {("filtered", 1): information(0.1, 0.5)})
    assert [(one["arm"], one["p"], one["above"]) for one in found["mean"]] == [("filtered", 0.01, 1)]
    assert [(one["layer"], one["above"]) for one in found["layers"]] == [(0, 0), (1, 1)]
