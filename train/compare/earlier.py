"""Runs that another comparison of the same run directory has done already: more seeds, controls or rates train only what is new.

A run is the same where all that decides a byte of its scores is: training settings, ids of its pools, evaluation documents, tasks
and biases with their files, tokenizer. `content` in job.json is the hash of these; where things lie is not among them. A run that
is to keep its weights is taken from one that kept them.

    comparisons/<other>/runs/<any>/  ->  comparisons/<id>/runs/<job>/    hard links, but for job.json; published by rename
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from train.child import TRAINING
from train.compare import jobs, runner
from train.compare.plan import pilot_so_far
from train.compare.prepare import Comparison
from train.files import publish_json
from train.fleet import JOB, SCORES
from train.run import CHECKPOINTS


def take_over(made: Comparison) -> list[str]:
    """Takes what is there, of the pilot first, whose outcome the others hang on; the names of the runs that were taken.

    Raises UserError where the comparison is at work.
    """
    there = _finished_elsewhere(made)
    if not there:
        return []
    taken: list[str] = []
    with runner.alone(made):
        while True:
            pilot, rate = pilot_so_far(made)
            wanted = pilot if rate is None else jobs.jobs(made.contrasts, rate, made.tokens)
            new = [job.name for job in wanted if _take(made, job, there)]
            taken += new
            if rate is not None or not new:
                return taken


def _finished_elsewhere(made: Comparison) -> dict[str, list[Path]]:
    """Folders of runs by content."""
    found: dict[str, list[Path]] = {}
    for path in sorted(made.folder.parent.glob(f"*/runs/*/{SCORES}")):
        if path.parents[2] != made.folder:
            content = json.loads((path.parent / JOB).read_bytes()).get(runner.CONTENT)
            found.setdefault(content, []).append(path.parent)
    return found


def _take(made: Comparison, job: jobs.Job, there: dict[str, list[Path]]) -> bool:
    folder, told = runner.folder_of(made, job), runner.describe(made, job)
    able = [one for one in there.get(told[runner.CONTENT], []) if _is_good(one, told["keep"])]
    if folder.exists() or not able:
        return False
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    left = [".lock"] if told["keep"] else [".lock", CHECKPOINTS]
    shutil.copytree(able[0], temporary, copy_function=os.link, ignore=shutil.ignore_patterns(*left))
    publish_json(temporary / JOB, told)  # its inode is another one then: the other comparison's stays as it is
    temporary.rename(folder)
    return True


def _is_good(folder: Path, keep: bool) -> bool:
    """Whether a run did not fail, as a control may, and has its weights where they are to be kept."""
    failed = "failed" in json.loads((folder / SCORES).read_bytes())
    return not failed and (not keep or (folder / TRAINING / CHECKPOINTS).exists())
