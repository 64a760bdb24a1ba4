"""What every test shares: no network, deterministic properties, and where the larger real data lies."""

import os
import pathlib

import pytest
from hypothesis import settings

settings.register_profile("winnow", deadline=None, derandomize=True)
settings.load_profile("winnow")

_DATA = pathlib.Path(os.environ.get("WINNOW_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data():
    """The folder of larger real texts; tests that need it skip where it is not there."""
    if not _DATA.is_dir():
        pytest.skip(f"no real data at {_DATA}: set WINNOW_TEST_DATA")
    return _DATA
