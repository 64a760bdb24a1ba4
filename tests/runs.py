"""Builds that tests share: engines, a build of the small corpus in this process, the command in a fresh one, and hashes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.engine import Engine
from pipelines.recipe_file import parse
from pipelines.store import SIDECAR, TEMPORARY
from tests import corpus

REPOSITORY = Path(__file__).parents[1]
ONE_WORKER_OPTIONS = ("--runner=FnApiRunner",)
TWO_THREADS_OPTIONS = ("--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2")
TWO_PROCESSES_OPTIONS = ("--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
ONE_WORKER = Engine("test", ONE_WORKER_OPTIONS)
TWO_THREADS = Engine("test", TWO_THREADS_OPTIONS)

# When and how a run was made, and the lock: outside all hashes (DESIGN: run directory).
APART = frozenset({"runs.jsonl", ".lock"})


def run_build(inputs: Path, run: Path, overrides=(), engine=ONE_WORKER):
    """Builds the small corpus in this process; returns (accounts, lines that were said)."""
    from pipelines.build import build

    said: list[str] = []
    accounts = build(parse(corpus.recipe(inputs), "tiny", overrides), ".", str(run), engine, said.append)
    return accounts, said


def command(arguments: Sequence[str], environment: Mapping[str, str] | None = None, **more: Any):
    """`winnow` with `arguments` in a fresh interpreter; `environment` is added to the present one."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        env={**os.environ, **(environment or {})},
        cwd=more.pop("cwd", REPOSITORY),
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def hashes(run: Path) -> dict[str, str]:
    """sha256 of every file of a run, read from the disk, whatever the manifest says."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name not in APART:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differing(left: Mapping[str, str], right: Mapping[str, str]) -> set[str]:
    """Names that only one run has, or that hold other bytes."""
    return {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}


def lies(run: Path) -> list[str]:
    """Every sidecar that does not tell the truth about its file: the file is missing, or other bytes than stated."""
    wrong = []
    for sidecar in sorted(run.rglob("*" + SIDECAR)):
        stated, file = json.loads(sidecar.read_bytes()), Path(str(sidecar).removesuffix(SIDECAR))
        if not file.exists():
            wrong.append(f"{file} has a sidecar but is missing")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != stated["sha256"] or file.stat().st_size != stated["bytes"]:
            wrong.append(f"{file} is not what its sidecar says")
    return wrong


def temporaries(run: Path) -> list[str]:
    """Names of unfinished files."""
    return sorted(path.relative_to(run).as_posix() for path in run.rglob(f"*{TEMPORARY}*"))
