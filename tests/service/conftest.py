"""A folder of runs with one small corpus, and the application over it, asked without a socket."""

import contextlib
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from quality.service.app import create_app
from quality.service.settings import Limits, Settings

BASE = "http://127.0.0.1:8080"
TOKEN = "0123456789abcdef0123456789abcdef"
# Enough for a request that is not held up on purpose, on a machine with other work.
PATIENT = Limits(wait_seconds=60)


@pytest.fixture(scope="session")
def runs(built, tmp_path_factory) -> Path:
    """A folder of runs with the small corpus as `tiny`; tests that change it make one of their own by `copied`."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(built, folder / "tiny")
    return folder


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    """A folder of runs of the test's own."""
    shutil.copytree(runs / "tiny", tmp_path / "runs" / "tiny")
    return tmp_path / "runs"


@pytest.fixture
def settings_of(tmp_path):
    """Settings over a folder of runs, with a state folder of the test's own."""

    def made(runs: Path, **more) -> Settings:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        return Settings(**{"runs": runs, "state": state, "limits": PATIENT, **more})

    return made


@pytest.fixture
def serving(settings_of):
    """Makes clients of applications that have started, over a folder of runs; they stop with the test."""
    with contextlib.ExitStack() as stack:

        def made(runs: Path, base: str = BASE, **more) -> TestClient:
            app = create_app(settings_of(runs, **more))
            return stack.enter_context(TestClient(app, base_url=base, follow_redirects=False))

        yield made


@pytest.fixture
def client(serving, runs) -> TestClient:
    """A client of the application over the small corpus, on loopback and without a token."""
    return serving(runs)
