"""One training run of a comparison, in a process of its own: trains, scores what it learned, leaves its weights' verdicts behind.

    runs/<job>/job.json      what to do; written by the comparison
    runs/<job>/train/        the training run (train/run.py): settings, log, checkpoints while it trains
    runs/<job>/scores.json   last: bits of every evaluation document, loss curve, routing, tasks; a function of job.json alone
    runs/<job>/costs.json    seconds and energy, which are not

Called as `python -m train.compare.worker FOLDER PARENT`, the number of the comparison's process. It ends with 0, with 75 after
SIGTERM (the same call goes on where it stood), or with 1 or 2 and one line on standard error. Weights are deleted once they are
scored, unless the job says `keep`.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from pipelines.errors import CheckError, UserError
from train.files import publish_json, read_json_lines

JOB, TRAINING, SCORES, COSTS = "job.json", "train", "scores.json", "costs.json"
CURVE_POINTS = 100
_ON_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


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
    log = read_log(folder / TRAINING / "log.jsonl")
    scores: dict[str, Any] = {"tokens": log[-1]["tokens"], "curve": None}
    if summary is not None:
        scores |= {"curve": curve(log), **_scores(job, summary["checkpoint"])}
    costs = {"seconds": math.fsum(line["seconds"] for line in log), **log[-1]["energy"]}
    costs["tokens_per_second"] = log[-1]["tokens"] / costs["seconds"]
    publish_json(folder / COSTS, costs)
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


def read_log(path: Path) -> list[dict[str, Any]]:
    """The steps of a training run."""
    return [line for line in read_json_lines(path) if line["event"] == "step"]


def curve(steps: list[dict[str, Any]]) -> list[list[float]]:
    """[tokens, training loss in nats]: means over at most CURVE_POINTS stretches of equal length."""
    points = []
    count = min(CURVE_POINTS, len(steps))
    for number in range(count):
        some = steps[len(steps) * number // count : len(steps) * (number + 1) // count]
        points.append([some[-1]["tokens"], math.fsum(line["loss"] for line in some) / len(some)])
    return points


def _end_with_the_comparison(parent: int) -> None:
    """Where the comparison is killed, this process is asked to stop (Linux): it would hold its run's lock against the next one."""
    import ctypes
    import os
    import signal

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_ON_PARENTS_DEATH, signal.SIGTERM)
        if os.getppid() != parent:  # it died before this was said
            sys.exit(1)


def main() -> None:
    """The process."""
    _end_with_the_comparison(int(sys.argv[2]))
    from train import run

    try:
        work(Path(sys.argv[1]))
    except run.Stopped:
        sys.exit(run.STOPPED)
    except (UserError, CheckError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
