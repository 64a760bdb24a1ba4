"""One training run of a sweep, in a process of its own: the loss on the validation shards, and the curve of training.

scores.json: loss in nats a token, None where it is not finite or where updates were left out, so that the run had not its compute;
tokens; curve. A function of job.json alone. Weights are deleted once that is written.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from pipelines.errors import CheckError
from train import child
from train.files import publish_json
from train.fleet import COSTS, JOB, SCORES


def work(folder: Path) -> None:
    """Does the job in `folder`, from where it stands."""
    from train import run
    from train.run_config import Settings

    settings = Settings.of(json.loads((folder / JOB).read_bytes())["settings"], str(folder / JOB))
    try:
        summary = run.train(settings, str(folder / JOB), folder / child.TRAINING, lambda line: None)
        assert summary is not None
    except CheckError:  # gradients stayed without bounds, whatever was left out
        summary = None
    log = child.read_log(folder)
    scores: dict[str, Any] = {"loss": None, "tokens": log[-1]["tokens"], "curve": None}
    if summary is not None and not summary["skipped"] and math.isfinite(summary["validation"]["loss"]):
        scores |= {"loss": summary["validation"]["loss"], "curve": child.curve(log)}
    publish_json(folder / COSTS, child.costs(log))
    publish_json(folder / SCORES, scores, indent=None)
    shutil.rmtree(folder / child.TRAINING / run.CHECKPOINTS)


if __name__ == "__main__":
    child.serve(work)
