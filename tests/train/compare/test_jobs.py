"""The plan of runs: each once, in the order of their worth, whole ranks within a budget."""

from __future__ import annotations

import pytest

from pipelines.errors import UserError
from pipelines.recipe_compare import CONTROLS
from tests.train.compare import comparisons
from train.compare import jobs

SETS = {"essays": {"group": "unseen", "files": ["essays.jsonl"]}}
STEPS = {"primary": ("quality",), "glam": ("quality",), "ladder_unfiltered": ("rules",), "ladder_deduplicated": ("exact", "near")}


def all_of(**changes):
    asked = {"seeds": 8, "tokens": 1000, "second": ["books"], "ladder": ["raw", "deduplicated"], "controls": list(CONTROLS)}
    return jobs.contrasts(comparisons.settings(SETS, **{**asked, **changes}), STEPS)


def test_every_contrast_of_the_issue_is_there_with_its_seeds():
    assert {one.name: one.seeds for one in all_of()} == {
        "primary": 8, "matched": 5, "sources": 5, "aa": 5, "cut": 5, "second": 5, "positives": 5, "glam": 5,
        "sweep_8": 3, "sweep_8_matched": 3, "sweep_64": 3, "sweep_64_matched": 3,
        "ladder_deduplicated": 3, "ladder_unfiltered": 3, "rate_half": 2, "rate_twice": 2, "doubled": 3,
    }  # fmt: skip


def test_runs_go_by_seed_and_the_primary_is_first_of_each():
    runs = jobs.jobs(all_of(), 0.004, 1000)
    assert len({run.name for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    for seed in range(1, 9):
        assert [run.arm.name for run in runs if run.seed == seed][:2] == ["filtered", "unfiltered"]


def test_as_many_runs_as_the_arms_have_seeds():
    # primary 2 x 8; four controls of 5; glam 2 x 5; sweeps 4 x 3; raw and deduplicated 3; rates 4 x 2; doubled 2 x 3
    assert len(jobs.jobs(all_of(), 0.004, 1000)) == 16 + 20 + 10 + 12 + 6 + 8 + 6


def test_any_prefix_of_the_runs_holds_whole_pairs_of_the_primary_contrast():
    runs = jobs.jobs(all_of(), 0.004, 1000)
    for stop in range(2, len(runs)):
        seeds = {name: {run.seed for run in runs[:stop] if run.arm.name == name} for name in ("filtered", "unfiltered")}
        assert len(seeds["filtered"] ^ seeds["unfiltered"]) <= 1


def test_rates_and_tokens_are_factors():
    found = {run.name: run for run in jobs.jobs(all_of(), 0.004, 1000)}
    assert found["filtered_rate_half-s1"].rate == 0.002
    assert found["unfiltered_rate_twice-s2"].rate == 0.008
    assert found["filtered_doubled-s3"].tokens == 2000
    assert found["filtered-s1"].rate == 0.004


def test_a_budget_leaves_out_the_last_ranks_and_never_the_primary():
    every = all_of()
    for afforded in (0, 16_000, 21_000, 26_000, 60_000, 10**9):
        taken, rest = jobs.within(every, 1000, afforded)
        assert [*taken, *rest] == every
        assert taken[0].name == "primary"
        tokens = sum(run.tokens for run in jobs.jobs(taken, 1.0, 1000))
        assert tokens <= max(afforded, 16_000)
        if rest:
            assert max(one.rank for one in taken) < min(one.rank for one in rest)
    assert [one.name for one in jobs.within(every, 1000, 21_000)[0]] == ["primary", "matched", "sources"]


def test_runs_that_are_done_cost_nothing_of_a_budget():
    every = all_of()
    done = {run.name for run in jobs.jobs(jobs.within(every, 1000, 26_000)[0], 1.0, 1000)}
    assert jobs.within(every, 1000, 0, done)[0] == jobs.within(every, 1000, 26_000)[0]
    assert jobs.within(every, 1000, 5_000, done)[0] == jobs.within(every, 1000, 31_000)[0]


def test_controls_that_need_something_are_left_out_without_it():
    names = {one.name for one in all_of(second=[], ladder=[])}
    assert not names & {"second", "positives", "ladder_unfiltered"}
    assert "sweep_8_matched" not in {one.name for one in all_of(controls=["sweep"])}
    asked = comparisons.settings(SETS, controls=["glam"])
    assert [one.name for one in jobs.contrasts(asked, {"primary": ("quality",)})] == ["primary"]


def test_few_seeds_bound_the_controls_too():
    assert {one.seeds for one in all_of(seeds=2)} == {2}


def test_a_pilot_runs_the_second_arm_at_every_rate_with_a_seed_of_its_own():
    found = jobs.pilot(comparisons.settings(SETS, rates=[0.008, 0.002]), 1000)
    assert [(run.arm.pool, run.seed, run.rate) for run in found] == [("unfiltered", 0, 0.002), ("unfiltered", 0, 0.008)]
    assert jobs.pilot(comparisons.settings(SETS, rates=[0.004]), 1000) == []


def test_an_arm_of_another_run_has_a_name_of_its_own():
    assert jobs.arm_name("../other:filtered") == "other_filtered"
    assert jobs.arm_name("filtered") == "filtered"


def test_a_pilot_goes_on_where_the_best_rate_is_at_an_end():
    asked = comparisons.settings(SETS, rates=[0.002, 0.004])
    runs = jobs.pilot(asked, 1000)
    assert jobs.beyond(asked, runs, 0.004).rate == 0.008
    assert jobs.beyond(asked, runs, 0.002).rate == 0.001
    three = [*runs, jobs.beyond(asked, runs, 0.004)]
    assert jobs.beyond(asked, three, 0.004) is None
    more = [*three, *(jobs.Job(runs[0].arm, 0, rate, 1000) for rate in (0.016, 0.032))]
    assert jobs.beyond(asked, more, 0.032) is None  # three more at most
    assert jobs.beyond(comparisons.settings(SETS, rates=[0.002]), [], 0.002) is None


@pytest.mark.parametrize("name", ["filtered_8", "filtered_doubled", "unfiltered_rate_half", "glam_filtered"])
def test_a_variant_that_is_called_as_an_arm_of_a_control_is_refused(name):
    """Runs go by the arm's name: the ladder would be judged on the control's runs."""
    steps = {**STEPS, f"ladder_{name}": ("rules",)}
    asked = comparisons.settings(SETS, seeds=8, tokens=1000, ladder=["raw", name], controls=list(CONTROLS), second=["books"])
    with pytest.raises(UserError, match=f"an arm of a control is called {name} too; give the variant another name"):
        jobs.contrasts(asked, steps)


def test_the_estimand_of_every_contrast_is_named():
    named = {one.name: one.estimand for one in all_of()}
    assert named.pop("glam") == "GLaM's mixture"
    assert set(named.values()) == {"web only"}
