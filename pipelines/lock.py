"""One build at a time in a run directory, and no worker that outlives its build.

The lock is the operating system's: it dies with its process, so a killed build leaves nothing to clear away. Worker processes
do outlive a killed build, for as long as their bundle takes; they would go on publishing while a new build, of an edited
recipe perhaps, is already at work. So each of them waits for the same lock, and ends when it gets it.

An object store knows no such lock. There it is an object that is created only where there is none, which the store decides (S3 by
If-None-Match, Google by ifGenerationMatch). It outlives a killed build, and its workers do not end with it: a person removes it
when build and workers are gone. A store that does not know the condition holds nothing off.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator

from pipelines import remote
from pipelines.errors import UserError

_POLL = 0.05  # seconds


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


def wait(path: str, seconds: float) -> None:
    """Returns when nobody holds the lock file `path`, or after so long."""
    import fcntl

    deadline = time.monotonic() + seconds
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        while time.monotonic() < deadline:
            try:
                return fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of with the file
            except BlockingIOError:
                time.sleep(_POLL)


@contextlib.contextmanager
def hold_object(url: str) -> Iterator[None]:
    """Holds the lock object at `url`, of a store that is not on this machine. One that is held is a UserError that says by whom."""
    filesystem, path = remote.filesystem_of(url)
    mine = f"{_name(os.getpid())}{uuid.uuid4().hex}\n".encode()  # told from those of all other builds

    def create() -> None:
        try:
            filesystem.pipe_file(path, mine, mode="create")
        except FileExistsError:
            # An answer that was lost on the way is asked for again, and then the object is one's own.
            if remote.content(filesystem, path) != mine:
                raise

    def release() -> None:
        with contextlib.suppress(FileNotFoundError):
            if remote.content(filesystem, path) == mine:
                filesystem.rm_file(path)

    try:
        remote.attempted(url, create, doing="written", passed=(FileExistsError,), way="make the bucket, or mend --run")
    except FileExistsError:
        holder = remote.attempted(url, lambda: remote.content(filesystem, path)).decode("utf-8", "replace").partition("\n")[0]
        way = "if it and its workers are gone, remove this object"
        raise UserError(f"{url}: another build is running here ({holder}); {way}") from None
    try:
        yield
    finally:
        remote.attempted(url, release, doing="removed")


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
