"""For worker processes that shall die: kill -9 of this process when it is about to give a file its final name.

First on PYTHONPATH of a build whose $WINNOW_TEST_DIES names a part of that name. The socket guard, whose place this takes, is
loaded as well.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[2] / "offline" / "sitecustomize.py"))
_FATAL = os.environ.get("WINNOW_TEST_DIES", "")


def _audit(event: str, arguments: tuple) -> None:
    if event == "os.rename" and _FATAL and _FATAL in str(arguments[1]):
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_audit)
