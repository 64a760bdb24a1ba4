"""Inputs to tasks, fixed before anything runs.

A task is what one worker extracts: one large input (written as successive parts cut at a fixed number of text bytes), one
span of a splittable input, or a pack of small inputs. Its name derives from the relative path of its first input, so new
inputs add tasks and old names stay. Packs are cut by content: whether an input opens a new pack is decided by a hash of its
own path and its size, so that a new file changes the pack that it falls into and no other.

Identity of an input is its content (sha256; for object stores what the store reports), never its time, place or listing order.
The time of a local one is noted only to see, when it has been read, whether it is still what was hashed.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipelines import path_lists, remote
from pipelines.errors import UserError
from pipelines.recipe import Recipe, Source
from pipelines.records import Input, Span
from pipelines.sources import scan, stamp

_PACK_OVERHEAD = 4096  # what opening one more input costs, in bytes; keeps packs of empty files finite
_PACK_CAP = 4  # a pack is closed at this many times the target, boundary or not
_WILDCARD, _WEB_WILDCARD = re.compile(r"[*?\[]"), re.compile(r"[*\[]")
_ASKED = 8  # inputs that are hashed, or whose store is asked, at a time


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker extracts. `name` is unique within the source; parts are `<name>-00000`, `<name>-00001`, ..."""

    source: str
    name: str
    inputs: tuple[Input, ...]
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every task of a run, sorted by source and name."""

    recipe: str
    seed: int
    tasks: tuple[Task, ...]

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it: without the stamps of inputs, which are of this machine and hour."""
        plain = asdict(self)
        for task in plain["tasks"]:
            for one in task["inputs"]:
                del one["stamp"]
        return plain

    def of_source(self, source: str) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks if task.source == source)


def make_plan(recipe: Recipe, base: str, scanned: Callable[..., Any] = scan) -> Plan:
    """The plan of `recipe`; relative paths start from the folder `base`. Missing inputs are UserErrors."""
    tasks: list[Task] = []
    for name, source in sorted(recipe.sources.items()):
        tasks += _tasks(name, source, recipe.limits.part_bytes, base, scanned)
    return Plan(recipe.name, recipe.seed, tuple(tasks))


def _tasks(name: str, source: Source, target: int, base: str, scanned: Callable[..., Any]) -> list[Task]:
    pack: list[Input] = []
    pack_size = 0
    tasks: list[Task] = []

    def close() -> None:
        nonlocal pack, pack_size
        if pack:
            tasks.append(Task(name, _task_name(pack[0].path), tuple(pack)))
        pack, pack_size = [], 0

    located = sorted(_locate(name, source, base).items())
    scans = _scans([url for _, url in located], source.format, target, scanned)
    for (path, url), (noted, (size, sha256, spans)) in zip(located, scans, strict=True):
        found = Input(path, url, size, sha256, noted)
        if len(spans) > 1:
            close()
            tasks += [
                Task(name, f"{_task_name(path)}-s{number:05d}", (found,), span) for number, span in enumerate(spans)
            ]
            continue
        if _opens_pack(path, size, target) or pack_size >= _PACK_CAP * target:
            close()
        pack.append(found)
        pack_size += size + _PACK_OVERHEAD
    close()
    return sorted(tasks, key=lambda task: task.name)


def _scans(urls: Sequence[str], kind: str, target: int, scanned: Callable[..., Any]) -> list[tuple[str | None, Any]]:
    """(stamp, what `scanned` says) of every input, in order. A crawl of 90,000 files on a web server is a request for each."""

    def scan_one(url: str) -> tuple[str | None, Any]:
        noted = stamp(url)  # first: what is written while it is scanned shows too
        return noted, scanned(url, kind, target)

    if kind == "datasets":
        return [scan_one(url) for url in urls]
    with ThreadPoolExecutor(_ASKED) as pool:
        return list(pool.map(scan_one, urls))


def _opens_pack(path: str, size: int, target: int) -> bool:
    """True with probability size / target, by a hash of the path."""
    draw = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big") / 2**64
    return draw < (size + _PACK_OVERHEAD) / target


def _task_name(path: str) -> str:
    """Readable and unique: the path's end, cleaned, and a hash of all of it."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", path).strip("-").lower()[-40:].strip("-") or "input"
    return f"part-{slug}-{hashlib.blake2b(path.encode(), digest_size=5).hexdigest()}"


# -- locating ---------------------------------------------------------------------------------------------------------------


def _locate(name: str, source: Source, base: str) -> dict[str, str]:
    """Relative path -> URL of every input of a source."""
    found: dict[str, str] = {}
    for pattern in source.paths:
        for path, url in _expand(name, source, pattern, base):
            if path in found and found[path] != url:
                raise UserError(
                    f"sources.{name}: {found[path]} and {url} have the same relative path {path!r}; give the source a root"
                )
            found[path] = url
    return found


def _expand(name: str, source: Source, pattern: str, base: str) -> Iterator[tuple[str, str]]:
    if pattern.startswith("hf://"):
        yield pattern.removeprefix("hf://"), pattern
        return
    if pattern.startswith(path_lists.MARK):
        yield from _listed(name, source, pattern, base)
        return
    located = _located(pattern, base)
    filesystem, path = remote.filesystem_of(located)
    root = _root(source, filesystem, path, base)
    matches = _matches(source, filesystem, path, located)
    if not matches:
        if remote.is_local(located) and filesystem.isdir(path):
            raise UserError(f"sources.{name}: {pattern} is a folder; name its files, such as {pattern.rstrip('/')}/*")
        where = f" ({path})" if located != pattern else ""  # a relative one lies beside the recipe
        raise UserError(f"sources.{name}: no input at {pattern}{where}; mend sources.{name}.paths")
    for match in matches:
        yield _below(name, match, root), filesystem.unstrip_protocol(match)


def _located(path: str, base: str) -> str:
    return path if path_lists.is_absolute(path) else posixpath.join(base, path)


def _matches(source: Source, filesystem: Any, path: str, located: str) -> list[str]:
    """The files, and for datasets folders, that a path names or its wildcards match."""
    folders = source.format == "datasets"
    if remote.is_local(located):
        found = filesystem.glob(path) if _WILDCARD.search(path) else ([path] if filesystem.exists(path) else [])
        return [match for match in found if folders or not filesystem.isdir(match)]
    # A remote one is never asked whether it is a folder: of a web server that reads the whole of it.
    if _wildcard(located).search(path):
        listed = remote.listing(located)
        return [match for match, facts in listed.items() if folders or facts["type"] != "directory"]
    return [path] if folders or remote.facts(located)["type"] != "directory" else []


def _listed(name: str, source: Source, pattern: str, base: str) -> Iterator[tuple[str, str]]:
    """The inputs that a path list names. Whether a remote one is there is seen when it is asked for its size."""
    url = _located(pattern.removeprefix(path_lists.MARK), base)
    given = None if source.root is None else _located(source.root, base)
    try:
        for number, entry in path_lists.entries(url, given):
            filesystem, path = remote.filesystem_of(entry)
            if isinstance(filesystem, LocalFileSystem) and not filesystem.isfile(path):
                raise UserError(f"{url}: line {number}: no input at {entry}; mend the list, or the root that it starts from")
            root = str(filesystem._strip_protocol(given or url.rpartition("/")[0])).rstrip("/") + "/"
            yield _below(name, path, root), filesystem.unstrip_protocol(path)
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith("sources.") else f"sources.{name}.paths: {said}") from error


def _below(name: str, path: str, root: str) -> str:
    """A path relative to the root."""
    if not path.startswith(root):
        raise UserError(f"sources.{name}: {path} does not lie below root {root}; mend sources.{name}.root")
    return path[len(root) :].lstrip("/")


def _wildcard(located: str) -> re.Pattern[str]:
    """What makes a path a pattern: in a web address a ? begins the query."""
    return _WEB_WILDCARD if located.startswith(("http://", "https://")) else _WILDCARD


def _root(source: Source, filesystem: Any, path: str, base: str) -> str:
    """The folder that relative paths start from, with a slash at its end."""
    if source.root is not None:
        return str(filesystem._strip_protocol(_located(source.root, base))).rstrip("/") + "/"
    wildcard = _wildcard(path).search(path)
    prefix = path[: wildcard.start()] if wildcard else path
    return prefix[: prefix.rfind("/") + 1]
