"""A second classifier whose positives are other sources than the first one's: a control that parts quality from domain.

If what helps is that a text is written with care, a classifier that learned from books helps an encyclopedia's readers nearly as
much as one that learned from an encyclopedia; if what helps is that it looks like the evaluation set, it does not.
It learns as the recipe's own does (quality/classifier_fit.py), against the same web sources, from documents that the second arm
keeps for training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import UserError
from quality import classifier_fit
from quality.classifier import Classifier, Scorer
from train.compare.documents import Rows, Run, read_rows, read_texts
from train.compare.pools import drawn

_TOKENS_A_MEGABYTE = 250_000


def fit_second(run: Run, variant: str, positives: list[str]) -> tuple[Classifier, dict[str, Any]]:
    """The classifier of `positives` against the recipe's web sources, with its measured AUCs.

    Raises UserError where a source has no document that the variant keeps, or is a positive of the first classifier too.
    """
    chosen = run.recipe.fit.quality
    if chosen is None:
        raise UserError("compare.second: the run has no classifier to be held against; give the recipe fit.quality")
    if shared := sorted({*positives} & {*chosen.curated, *chosen.web}):
        raise UserError(f"compare.second: {shared[0]!r} is a source of the first classifier; name others")
    examples = [
        _example(run, variant, source, curated, chosen.sample_mb / len(names))
        for names, curated in ((positives, True), (chosen.web, False))
        for source in names
    ]
    fitted = classifier_fit.fit(examples, [], classifier_fit.FitSettings(seed=run.recipe.seed))
    return fitted, dict(fitted.metrics)


def _example(run: Run, variant: str, source: str, curated: bool, megabytes: float) -> classifier_fit.Example:
    rows = read_rows(run, variant, [source])
    if not len(rows):
        raise UserError(f"compare.second: {variant} keeps no document of {source}; loosen its rules, or name another source")
    sample = drawn(rows, int(megabytes * _TOKENS_A_MEGABYTE), run.recipe.seed, "compare second")
    if not len(sample):
        raise UserError(f"compare.second: a document of {source} is more than twice its sample of {megabytes:g} MB; name another")
    texts = pa.concat_arrays(list(read_texts(run, sample)))
    doc_ids = pa.array([one.tobytes() for one in sample.doc_id_R], pa.binary(16))
    return classifier_fit.Example(source, curated, texts, doc_ids)


def judged(run: Run, rows: Rows, classifier: Classifier) -> Rows:
    """The rows with this classifier's quality."""
    scorer = Scorer(classifier)
    return rows.with_quality(np.concatenate([np.zeros(0, np.float32), *(scorer(texts) for texts in read_texts(run, rows))]))
