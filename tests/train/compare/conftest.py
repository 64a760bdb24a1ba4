"""What tests of the comparison share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.train.compare import comparisons


@pytest.fixture(scope="session")
def comparable(inputs, tmp_path_factory) -> Path:
    """A finished run of the small corpus whose variants differ in one step each; not to be written to."""
    return comparisons.build(inputs, tmp_path_factory.mktemp("comparable") / "run")


@pytest.fixture
def run(comparable, tmp_path) -> Path:
    """A copy of it, to compare in."""
    return Path(shutil.copytree(comparable, tmp_path / "run"))


@pytest.fixture
def sets(tmp_path):
    """Evaluation sets, as a recipe names them."""
    return comparisons.write_sets(tmp_path / "sets")
