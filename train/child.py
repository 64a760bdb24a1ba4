"""The process of one training run among several (train/fleet.py): how it is called, how it ends, and what its log comes to.

Called as `python -m MODULE FOLDER PARENT`, PARENT being the number of the process that started it. It ends with 0, with 75 after
SIGTERM (the same call goes on where it stood), or with 1 or 2 and one line on standard error.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import CheckError, UserError
from train.files import read_json_lines

STOPPED = 75  # the exit code after SIGTERM: "try again" (sysexits.h)
TRAINING = "train"  # the training run in a task's folder (train/run.py)
CURVE_POINTS = 100
_ON_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def serve(work: Callable[[Path], None]) -> None:
    """Does the work in the folder that the command line names."""
    _end_with(int(sys.argv[2]))  # first: torch takes seconds to be imported
    from train import run

    try:
        work(Path(sys.argv[1]))
    except run.Stopped:
        sys.exit(STOPPED)
    except (UserError, CheckError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def _end_with(parent: int) -> None:
    """Where the parent is killed, this process is asked to stop (Linux): it would hold its run's lock against the next one."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_ON_PARENTS_DEATH, signal.SIGTERM)
        if os.getppid() != parent:  # it died before this was said
            sys.exit(1)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The steps of the training run in a task's folder."""
    return [line for line in read_json_lines(folder / TRAINING / "log.jsonl") if line["event"] == "step"]


def curve(steps: list[dict[str, Any]]) -> list[list[float]]:
    """[tokens, training loss in nats]: means over at most CURVE_POINTS stretches of equal length."""
    points = []
    count = min(CURVE_POINTS, len(steps))
    for number in range(count):
        some = steps[len(steps) * number // count : len(steps) * (number + 1) // count]
        points.append([some[-1]["tokens"], math.fsum(line["loss"] for line in some) / len(some)])
    return points


def costs(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds, tokens a second, and energy: what is not a function of the job."""
    seconds, tokens = math.fsum(line["seconds"] for line in steps), steps[-1]["tokens"]
    return {"seconds": seconds, **steps[-1]["energy"], "tokens_per_second": tokens / seconds}
