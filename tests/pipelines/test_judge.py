"""Verdicts on small tables: the order of judgement, and for each the reason, the number and what it was held against."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.judge import (
    Judgement,
    ResolvedDraw,
    decisions_table,
    judge_duplicates,
    judge_length,
    judge_mixture,
    judge_quality,
    judge_text,
    splits,
)
from pipelines.recipe import Draw, Languages, Policy
from pipelines.schema import Reason, stage_of
from quality import sampling
from quality.signals import SIGNAL_FIELDS

NOTHING = np.zeros(4, bool)


def _signals(languages, scores, words):
    columns = {field.name: pa.array([1] * len(words), field.type) for field in SIGNAL_FIELDS}
    columns |= {"words": pa.array(words, pa.int32()), "language": languages, "language_score": pa.array(scores, pa.float32())}
    return pa.table(columns)


def _rows(judgement):
    return decisions_table(judgement, np.zeros(judgement.rows, bool)).to_pylist()


def test_a_verdict_names_its_first_reason_with_its_number():
    chosen = {"gopher": {"alphabetic_words.low": 0, "stop_words.low": 0}}
    policy = Policy(languages=Languages(keep=["en"], min_score=0.5), rules=chosen)
    judgement = Judgement(4)
    judge_text(judgement, _signals(["de", "en", "en", "en"], [0.9, 0.4, 0.5, 0.9], [1, 1, 49, 50]), policy, NOTHING, {})
    rows = _rows(judgement)
    assert [row["verdict"] for row in rows[:3]] == ["language", "language_score", "gopher_words"]
    assert [row["stage"] for row in rows[:3]] == ["language", "language", "rules"]
    assert [row["value"] for row in rows[:3]] == [pytest.approx(0.9), pytest.approx(0.4), 49.0]
    assert [row["threshold"] for row in rows[:3]] == [None, 0.5, 50.0]


def test_a_dropped_document_is_never_looked_at_again():
    judgement = Judgement(3)
    keepers = np.array([[1, 2], [3, 4]], np.uint64)
    judge_duplicates(judgement, Reason.DUPLICATE_EXACT, np.array([0, 1]), keepers, 1.0, 1.0)
    judge_duplicates(judgement, Reason.DUPLICATE_NEAR, np.array([1, 2]), keepers, np.full(3, 0.8), 0.7)
    judge_length(judgement, np.zeros(3), Policy(min_bytes=1))
    rows = _rows(judgement)
    assert [row["verdict"] for row in rows] == ["duplicate_exact", "duplicate_exact", "duplicate_near"]
    assert [row["stage"] for row in rows] == ["exact", "exact", "near"]
    assert [row["duplicate_of"] for row in rows] == [
        (1).to_bytes(8, "big") + (2).to_bytes(8, "big"),
        (3).to_bytes(8, "big") + (4).to_bytes(8, "big"),  # the exact copy keeps its keeper when it is judged again
        (3).to_bytes(8, "big") + (4).to_bytes(8, "big"),
    ]
    assert (rows[2]["value"], rows[2]["threshold"]) == (0.8, 0.7)


def test_a_cut_keeps_from_the_threshold_on():
    judgement = Judgement(4)
    quality = np.array([0.4999, 0.5, 0.5001, 0.0], np.float32)
    emptied = np.array([False, False, False, True])
    solved = ResolvedDraw(Draw(draw="cut", threshold=0.5), threshold=0.5)
    judge_quality(judgement, quality, np.zeros((4, 16), np.uint8), solved, 1, emptied)
    rows = _rows(judgement)
    assert [row["verdict"] for row in rows] == ["quality_cut", "keep", "keep", "keep"]
    assert (rows[0]["value"], rows[0]["threshold"]) == (0.4999, 0.5)


@pytest.mark.parametrize("shift", [0.0, 2.5])
def test_a_lost_draw_names_the_quality_that_would_have_won_it(shift):
    random = np.random.default_rng(1)
    ids, quality = random.integers(0, 256, (500, 16), np.uint8), np.rint(random.random(500) * 1e4).astype(np.float64) / 1e4
    solved = ResolvedDraw(Draw(draw="pareto"), shift=shift)
    judgement = Judgement(500)
    judge_quality(judgement, quality.astype(np.float32), ids, solved, 7, np.zeros(500, bool))
    rows = _rows(judgement)
    kept = sampling.uniform(ids, 7, "quality") < sampling.keep_probability(quality, 9, shift)
    assert [row["verdict"] == "keep" for row in rows] == kept.tolist()
    assert 0 < kept.sum() < 500
    for row in rows:
        if row["verdict"] == "quality_draw":
            assert row["value"] < row["threshold"] + 1e-4


def test_the_mixture_speaks_last_and_never_of_what_is_held_out():
    judgement = Judgement(4)
    judge_length(judgement, np.array([0, 9, 9, 9]), Policy(min_bytes=1))
    draws, validation = np.array([0.9, 0.9, 0.9, 0.25]), np.array([False, False, True, False])
    judge_mixture(judgement, draws, 0.5, validation)
    rows = decisions_table(judgement, validation).to_pylist()
    assert [row["verdict"] for row in rows] == ["too_short", "mixture", "keep", "keep"]
    assert (rows[1]["stage"], rows[1]["value"], rows[1]["threshold"]) == ("mixture", 0.9, 0.5)
    again = Judgement(1)
    judge_mixture(again, np.array([0.5]), 0.5, np.array([False]))  # the bound itself is the first draw that is not taken
    assert _rows(again)[0]["verdict"] == "mixture"


def test_the_split_belongs_to_the_cluster():
    groups = np.random.default_rng(2).integers(0, 256, (5000, 16), np.uint8)
    found = splits(groups, 1, 0.1)
    assert (splits(groups[::-1], 1, 0.1)[::-1] == found).all()
    assert found.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 5000))


def test_every_reason_has_its_stage():
    assert {reason: str(stage_of(reason)) for reason in Reason} == {
        "removed": "removal",
        "language": "language",
        "language_score": "language",
        "perplexity": "rules",
        "contaminated": "decontamination",
        "duplicate_exact": "exact",
        "duplicate_near": "near",
        "quality_draw": "quality",
        "quality_cut": "quality",
        "too_short": "paragraphs",
        "mixture": "mixture",
    }
    assert stage_of("gopher_words") == "rules"
