"""Names that the tests of this folder use; the builds themselves are in tests/runs.py and tests/conftest.py."""

from tests.runs import ONE_WORKER as ONE_WORKER
from tests.runs import TWO_THREADS as TWO_THREADS
from tests.runs import run_build as run_build
