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
    checkpoint, failed = "", None
    try:
        summary = run.train(settings, str(folder / JOB), folder / TRAINING, lambda line: None)
        assert summary is not None
        if summary["skipped"] or summary["rollbacks"]:
            told = f"{summary['skipped']} steps were skipped, {summary['rollbacks']} rolled back"
            raise CheckError(f"{folder}: {told}: arms would not have the same compute; lower compare.rates")
        checkpoint = summary["checkpoint"]
    except CheckError as error:
        if job["required"]:
            raise
        failed = str(error).replace(str(folder), folder.name)  # a pilot's rate is too high: it loses; a control is left out
    log = child.read_log(folder)
    scores: dict[str, Any] = {"tokens": log[-1]["tokens"], "curve": None}
    if failed is None:
        scores |= {"curve": child.curve(log), **_scores(job, checkpoint)}
    elif job["documents"] is not None:
        scores["failed"] = failed
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
    every = read_documents(Path(job["documents"]), encoder)
    rows = evaluate.document_losses(model, encoder, [document for document, _ in every])
    found: dict[str, Any] = {"bits": [row.bits for row in rows]}
    documents = [document for document, leaked in every if not leaked]  # what an arm may have learned tells nothing of the rest
    if job["experts"]:
        counts_NLE = experts.document_counts(model, encoder, documents)
        found["routing"] = experts.shares(counts_NLE, documents)
        found["information"] = experts.against_shuffled(counts_NLE, documents) if len(found["routing"]) > 1 else None
    if job["tasks"] is not None:
        found["tasks"] = measures.tasks(model, encoder, job["tasks"])
    if job["bias"] is not None:
        found["bias"] = measures.bias(model, encoder, job["bias"], documents)
    return found


def read_documents(path: Path, encoder: Any) -> list[tuple[Any, bool]]:
    """The evaluation documents that the comparison chose, each with whether it leaks into what an arm may learn from."""
    from train.evaluate import Document

    return [
        (Document(row["domain"], row["doc"], row["cluster"], row["text"], encoder(row["text"])), row["leaked"] is not None)
        for row in read_json_lines(path)
    ]


if __name__ == "__main__":
    child.serve(work)
