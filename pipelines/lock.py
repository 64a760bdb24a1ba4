"""One build at a time in a local run directory, and no worker that outlives its build.

The lock is the operating system's: it dies with its process, so a killed build leaves nothing to clear away. Worker processes
do outlive a killed build, for as long as their bundle takes; they would go on publishing while a new build, of an edited
recipe perhaps, is already at work. So each of them waits for the same lock, and ends when it gets it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import threading
from collections.abc import Iterator

from pipelines.errors import UserError


@contextlib.contextmanager
def hold(path: str, root: str) -> Iterator[str]:
    """Holds the lock file `path` for this process; yields the holder's name. A lock that is held is a UserError."""
    import fcntl

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{root}: another build is running here; wait for it to end") from None
        holder = _name(os.getpid())
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield holder


def _name(process: int) -> str:
    return f"process {process} of {platform.node()}\n"


@functools.cache
def follow(path: str, holder: str) -> None:
    """Ends this process as soon as `holder` has let go of the lock, unless it is the holder or on another machine."""
    if holder == _name(os.getpid()) or holder.partition(" of ")[2] != _name(0).partition(" of ")[2]:
        return
    import fcntl

    file = open(path)  # noqa: SIM115  (open until the process ends)
    if file.read() != holder:
        os._exit(1)

    def wait() -> None:
        fcntl.flock(file, fcntl.LOCK_SH)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
