"""The second classifier: other positives, the same web, and scores for every document that could be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import UserError
from train.compare import documents, second


def test_it_tells_the_styles_apart_though_it_never_saw_the_first_ones_positives(comparable):
    """Reference: the first classifier, on the same documents. In the small corpus both look for the same style."""
    run = documents.Run.open(str(comparable))
    rows = documents.read_rows(run, "unfiltered", ["web"])
    classifier, metrics = second.fit_second(run, "unfiltered", ["books"])
    judged = second.judged(run, rows, classifier)
    assert len(judged) == len(rows)
    assert metrics["held_out_slice"]["auc"] > 0.9
    assert np.corrcoef(judged.quality_R, rows.quality_R)[0, 1] > 0.8


def test_texts_stand_in_the_order_of_the_rows(comparable):
    run = documents.Run.open(str(comparable))
    rows = documents.read_rows(run, "unfiltered", ["web"])
    some = rows.take(np.arange(0, len(rows), 3))
    texts = [text for batch in documents.read_texts(run, some) for text in batch.to_pylist()]
    every = [text for batch in documents.read_texts(run, rows) for text in batch.to_pylist()]
    assert texts == every[::3]


@pytest.mark.parametrize("source", ["wiki", "web"])
def test_sources_of_the_first_one_are_refused(comparable, source):
    run = documents.Run.open(str(comparable))
    with pytest.raises(UserError, match=rf"compare\.second: '{source}' is a source of the first classifier; name others"):
        second.fit_second(run, "unfiltered", [source])


def test_steps_between_variants_are_named_in_the_order_of_judgement(comparable):
    run = documents.Run.open(str(comparable))
    steps = documents.steps_between
    assert steps(run, "filtered", "unfiltered", ["web"]) == ("quality",)
    assert steps(run, "filtered", "raw", ["web"]) == ("rules", "exact", "near", "quality")
    assert steps(run, "filtered", "filtered", ["web"]) == ()
    assert steps(run, "filtered", "unfiltered", ["wiki"]) == ()  # a curated source is never drawn
