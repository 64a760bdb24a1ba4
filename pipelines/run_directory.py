"""Which folders are run directories, and what in one is a build's: nothing else is ever written over, swept or pruned.

A run directory is a folder that winnow made, an empty one, or none yet. Its mark is plan.json, the first file that a build
publishes; a build that was ended before that has left its lock, and this file unfinished. Any other folder is refused before the
first write.

In a run directory `FOLDERS` are the build's own, and the files that lie beside them by name. Comparisons are of another command,
with locks of their own, and what else somebody has put there is theirs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

from pipelines import remote
from pipelines.errors import UserError
from pipelines.store import TEMPORARY, Store

PLAN = "plan.json"
LOCK = ".lock"
FOLDERS = frozenset(
    "against blocklists clusters decisions documents index models references rejects removals samples signals statistics tokens"
    .split()
)  # fmt: skip

_UNFINISHED = re.compile(rf"(.+){re.escape(TEMPORARY)}[0-9a-f]{{32}}")  # as `Store.publishing` names it
_SHOWN = 3  # names of files that an error shows


def owns(path: str) -> bool:
    """Whether a path of a run directory lies in a folder of its builds'."""
    return path.partition("/")[0] in FOLDERS


def check(store: Store) -> None:
    """UserError for a folder that holds files and is no run directory."""
    if store.exists(PLAN) and _is_plan(store):
        return
    foreign = [name for name in _names(store) if name != LOCK and _unfinished(name) != PLAN]
    if foreign:
        shown = ", ".join(foreign[:_SHOWN]) + (", ..." if len(foreign) > _SHOWN else "")
        raise UserError(f"{store.root}: holds files and is no run directory ({shown}); give --run a new folder, or an empty one")


def check_inputs(store: Store, urls: Iterable[str]) -> None:
    """UserError for an input that lies in the run directory: what is built must not be what it is built from."""
    filesystem, located = remote.filesystem_of(store.root)
    root = str(filesystem.unstrip_protocol(located)).rstrip("/") + "/"
    for url in urls:
        if url.startswith(root):
            raise UserError(f"{url}: an input in the run directory; move it, or give another --run")


def sweep(store: Store) -> None:
    """Removes what killed builds left unfinished; only while the lock is held."""
    for path in store.files(""):
        folder, _, name = path.rpartition("/")
        if _unfinished(name) and (not folder or owns(path)):
            store.remove(path)


def _unfinished(name: str) -> str | None:
    """The final name of a file that was not finished; None of any other."""
    found = _UNFINISHED.fullmatch(name)
    return found[1] if found else None


def _names(store: Store) -> list[str]:
    """What lies in a folder, without what lies in its folders; [] where there is none."""
    filesystem, located = remote.filesystem_of(store.root)
    try:
        if store.is_local():
            return sorted(os.listdir(located))
        found = remote.attempted(
            store.root, lambda: filesystem.ls(located, detail=False), doing="listed", passed=(FileNotFoundError,)
        )
    except FileNotFoundError:
        return []
    base = located.rstrip("/") + "/"  # a store may list the folder itself
    return sorted(name[len(base) :].rstrip("/") for name in found if name.startswith(base) and name.rstrip("/") + "/" != base)


def _is_plan(store: Store) -> bool:
    try:
        found = store.read_json(PLAN)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(found, dict) and {"recipe", "seed", "tasks"} <= found.keys()
