"""Whole builds of the small corpus, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.build import build
from pipelines.engine import Engine
from pipelines.recipe import parse
from tests import corpus

ONE_WORKER = Engine("test", ("--runner=FnApiRunner",))
TWO_THREADS = Engine(
    "test", ("--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2")
)


def run_build(inputs: Path, run: Path, overrides=(), engine=ONE_WORKER):
    """Builds the small corpus; returns (accounts, lines that were said)."""
    said: list[str] = []
    accounts = build(parse(corpus.recipe(inputs), "tiny", overrides), ".", str(run), engine, said.append)
    return accounts, said


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    corpus.write(folder)
    return folder


@pytest.fixture(scope="session")
def built(inputs, tmp_path_factory) -> Path:
    """A finished run; tests that change it copy it first."""
    run = tmp_path_factory.mktemp("built") / "run"
    run_build(inputs, run)
    return run
