"""What every test shares: no network, deterministic properties, whole builds, and where the larger real data lies."""

import importlib
import os
import pathlib
import sys
import tempfile

import pytest
from hypothesis import settings

settings.register_profile("winnow", deadline=None, derandomize=True)
settings.load_profile("winnow")

_DATA = pathlib.Path(os.environ.get("WINNOW_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))

# -- no network: this process and every Python process that a test starts --------------------------------------------------

_GUARD = str(pathlib.Path(__file__).parent / "offline")
if "sitecustomize" not in sys.modules or sys.modules["sitecustomize"].__file__ != f"{_GUARD}/sitecustomize.py":
    importlib.import_module("tests.offline.sitecustomize")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_GUARD, os.environ.get("PYTHONPATH")]))
_NETWORK_LOG = pathlib.Path(tempfile.mkstemp(prefix="winnow-network-")[1])
os.environ["WINNOW_TEST_NETWORK_LOG"] = str(_NETWORK_LOG)
os.environ["PYTHONSAFEPATH"] = ""  # which the command sets where it is not there: processes of tests import modules of the tests


def pytest_unconfigure():
    _NETWORK_LOG.unlink(missing_ok=True)


def _take_log() -> list[str]:
    """The refused uses of the network since the last call."""
    if not _NETWORK_LOG.stat().st_size:
        return []
    lines = _NETWORK_LOG.read_text().splitlines()
    os.truncate(_NETWORK_LOG, 0)
    return lines


@pytest.fixture
def network_uses():
    """For tests of the guard: takes what it refused, so that the test itself does not fail for it."""
    return _take_log


@pytest.fixture(autouse=True)
def _offline(request, monkeypatch):
    """Fails a test that used the network, even where the code under test swallowed the refusal."""
    if request.node.get_closest_marker("network"):
        monkeypatch.setenv("WINNOW_TEST_NETWORK", "1")
    yield
    refused = _take_log()
    if refused:
        pytest.fail("the network was used: " + "; ".join(refused))


# -- data and builds --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_data():
    """The folder of larger real texts; tests that need it skip where it is not there."""
    if not _DATA.is_dir():
        pytest.skip(f"no real data at {_DATA}: set WINNOW_TEST_DATA")
    return _DATA


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> pathlib.Path:
    """The inputs of the small corpus."""
    from tests import corpus

    folder = tmp_path_factory.mktemp("inputs")
    corpus.write(folder)
    return folder


@pytest.fixture(scope="session")
def built(inputs, tmp_path_factory) -> pathlib.Path:
    """A finished run of the small corpus; tests that change it copy it first."""
    from tests.runs import run_build

    run = tmp_path_factory.mktemp("built") / "run"
    run_build(inputs, run)
    return run


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory) -> pathlib.Path:
    """A finished run of the embedded sample, made once for all test processes; tests that change it copy it first."""
    import fcntl

    from pipelines import packages, sample
    from pipelines.build import build
    from pipelines.errors import UserError
    from pipelines.recipe_file import load
    from tests.runs import TWO_THREADS

    if sample.missing(packages.cache_folder()):
        pytest.skip("the embedded sample is not in the cache: run winnow demo once")
    try:
        packages.language_model()
    except UserError as error:
        pytest.skip(str(error))
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    run = shared / "demo"
    with open(shared / "demo.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run / "manifest.json").exists():
            recipe, base = load("sample")
            build(recipe, base, str(run), TWO_THREADS, lambda line: None)
    return run
