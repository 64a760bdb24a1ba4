"""One training run of a comparison, in a process of its own: trains, scores what it learned, leaves its weights' verdicts behind.

    runs/<job>/job.json      what to do; written by the comparison
    runs/<job>/train/        the training run (train/run.py): settings, log, checkpoints while it trains
    runs/<job>/scores.json   bits of every evaluation document, loss curve, routing, tasks; a function of job.json alone

Weights are deleted once they are scored, unless the job says `keep`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipelines.errors import CheckError
from train import child
from train.child import TRAINING
from train.files import publish_json, read_json_lines
from train.fleet import COSTS, JOB, SCORES


def work(folder: Path) -> None:
    """Does the job in `folder`, from where it stands."""
    import torch

    from train import run
    from train.run_config import Settings

    torch.set_num_threads(1)
    job = json.loads((folder / JOB).read_bytes())
    settings = Settings.of(job["settings"], str(folder / JOB))
    try:
        summary = run.train(settings, str(folder / JOB), folder / TRAINING, lambda line: None)
        assert summary is not None
        if summary["skipped"] or summary["rollbacks"]:
            told = f"{summary['skipped']} steps were skipped, {summary['rollbacks']} rolled back"
            raise CheckError(f"{folder}: {told}: arms would not have the same compute; lower compare.rates")
    except CheckError:
        if job["documents"] is not None:
            raise
        summary = None  # a pilot at a rate that is too high: it loses
    log = child.read_log(folder)
    scores: dict[str, Any] = {"tokens": log[-1]["tokens"], "curve": None}
    if summary is not None:
        scores |= {"curve": child.curve(log), **_scores(job, summary["checkpoint"])}
    publish_json(folder / COSTS, child.costs(log))
    publish_json(folder / SCORES, scores, indent=None)
    if not job["keep"]:
        shutil.rmtree(folder / TRAINING / run.CHECKPOINTS)


def _scores(job: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """What is measured of a trained model; nothing for a pilot, of which only the losses of training count."""
    if job["documents"] is None:
        return {}
    from train import evaluate
    from train.compare import experts, measures

    model, encoder = evaluate.load(checkpoint, job["settings"]["data"]["tokenizer"])
    documents = read_documents(Path(job["documents"]), encoder)
    rows = evaluate.document_losses(model, encoder, documents)
    found: dict[str, Any] = {"bits": [row.bits for row in rows]}
    if job["experts"]:
        counts_NLE = experts.document_counts(model, encoder, documents)
        found["routing"] = experts.shares(counts_NLE, documents)
        found["information"] = experts.against_shuffled(counts_NLE, documents) if len(found["routing"]) > 1 else None
    if job["tasks"] is not None:
        found["tasks"] = measures.tasks(model, encoder, job["tasks"])
    if job["bias"] is not None:
        found["bias"] = measures.bias(model, encoder, job["bias"], documents)
    return found


def read_documents(path: Path, encoder: Any) -> list[Any]:
    """The evaluation documents that the comparison chose."""
    from train.evaluate import Document

    return [Document(row["domain"], row["doc"], row["cluster"], row["text"], encoder(row["text"])) for row in read_json_lines(path)]


if __name__ == "__main__":
    child.serve(work)
