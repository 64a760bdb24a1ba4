"""Which corpora there are: the runs below one folder, each by the name of its folder, and what their manifests say.

A folder is a corpus where its name is an id, it is no link that leads elsewhere, and a build has begun in it. `state`:

    complete      it has a manifest, and with it everything that the manifest names
    building      it has none, and a build holds its lock
    incomplete    it has none, and no build is at work: the same `winnow build` goes on
    damaged       its manifest cannot be read
    outdated      another version of winnow wrote it, which this one does not understand

Nothing is written here, no lock is taken, and no file is read that lies outside the folder of the runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from pipelines.finished import SCHEMA_VERSION
from quality.service.problems import Problem

_Unusable = Literal["damaged", "outdated"]
State = Literal["complete", "building", "incomplete", _Unusable]
ID = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_ID = re.compile(ID[:-1])
COMPARISONS = "comparisons"  # below a run: a folder for each
_COMPARISON = re.compile(r"[0-9a-f]{12}")
_MANIFESTS = 1024  # that are kept parsed: more than the corpora of a folder, or a walk over all would find none of them


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the service needs of a manifest: `etag` is the hash of the file."""

    etag: str
    recipe: Mapping[str, Any]
    accounts: Mapping[str, Any]
    version: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """One run. `manifest` is None unless the state is complete; `etag` is then the hash of its manifest, else empty."""

    id: str
    path: Path
    state: State
    manifest: Manifest | None

    @property
    def etag(self) -> str:
        return self.manifest.etag if self.manifest is not None else ""

    def complete(self) -> Manifest:
        """The manifest. Raises Problem 409 where the run has none."""
        if self.manifest is None:
            hint = {
                "building": "its build is at work; ask again when it has ended",
                "outdated": "another version of winnow wrote it; run the same winnow build again",
            }
            raise Problem(409, f"corpus {self.id!r} is {self.state}: {hint.get(self.state, 'run the same winnow build again')}")
        return self.manifest

    def summary(self) -> dict[str, Any]:
        """Names, dates and sums, as GET /v1/corpora lists them; what only a manifest knows is None without one."""
        found: dict[str, Any] = {"id": self.id, "state": self.state, "partial": self.manifest is None}
        found |= {"recipe": None, "winnow": None, "built": _built(self.path), "sources": None, "records": None, "documents": None}
        found |= {"variants": None, "alarms": [], "comparisons": self.comparisons(), "links": self._links()}
        return found if self.manifest is None else found | _sums(self.manifest)

    def detail(self) -> dict[str, Any]:
        """The summary, and the accounts of every source in every variant."""
        accounts = self.manifest.accounts if self.manifest is not None else {"sources": {}, "variants": {}}
        return {**self.summary(), "accounts": {"sources": accounts["sources"], "variants": accounts["variants"]}}

    def comparisons(self) -> list[str]:
        """Ids of the run's comparisons, finished or not, sorted."""
        folder = self.path / COMPARISONS
        try:
            if folder.is_symlink() or not folder.is_dir():
                return []
            return sorted(entry.name for entry in os.scandir(folder) if _COMPARISON.fullmatch(entry.name) and _is_folder(entry))
        except OSError:  # they cannot be read: the corpus can
            return []

    def comparison(self, name: str) -> Path:
        """The folder of one of them."""
        return self.path / COMPARISONS / name

    def file(self, name: str) -> bytes:
        """The content of a file of the run. Raises Problem 404 for one that is not there or leads out of the run."""
        path = self.path / name
        try:
            if not path.resolve(strict=True).is_relative_to(self.path):
                raise FileNotFoundError(name)
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise Problem(404, f"corpus {self.id!r} has no {name}") from None

    def _links(self) -> dict[str, str]:
        own = f"/v1/corpora/{self.id}"
        if self.manifest is None:
            return {"self": own}
        return {"self": own, **{name: f"{own}/{name}" for name in ("report", "card", "stats", "documents", "comparisons")}}


class Corpora:
    """The runs below a folder. Parsed manifests are kept for as long as their files are the same."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._kept: OrderedDict[tuple[str, int, int, int], Manifest | _Unusable] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self) -> list[str]:
        """Ids of all corpora, sorted."""
        with os.scandir(self._root) as entries:
            return sorted(entry.name for entry in entries if _is_id(entry.name) and _is_folder(entry) and _has_begun(entry.path))

    def page(self, after: str | None, limit: int) -> tuple[list[Corpus], str | None]:
        """The corpora whose ids follow `after`, at most `limit`; and the last of them where more follow."""
        names = [name for name in self.ids() if after is None or name > after]
        found = [corpus for name in names[:limit] if (corpus := self._find(name)) is not None]
        return found, names[limit - 1] if len(names) > limit else None

    def get(self, name: str) -> Corpus:
        """The corpus of an id. Raises Problem 404."""
        corpus = self._find(name) if _is_id(name) else None
        if corpus is None:
            raise Problem(404, "no such corpus; GET /v1/corpora lists them")
        return corpus

    def _find(self, name: str) -> Corpus | None:
        path = self._root / name
        if path.is_symlink() or not path.is_dir() or not _has_begun(str(path)):
            return None
        try:
            found = self._manifest(path / "manifest.json")
        except (FileNotFoundError, IsADirectoryError):
            return Corpus(name, path, "building" if is_locked(path / ".lock") else "incomplete", None)
        except OSError:  # such as one that the service's user may not read
            return Corpus(name, path, "damaged", None)
        return Corpus(name, path, "complete", found) if isinstance(found, Manifest) else Corpus(name, path, found, None)

    def _manifest(self, path: Path) -> Manifest | _Unusable:
        """The parsed file, or what is wrong with it. A build puts a new file in its place, never other bytes into it."""
        if path.is_symlink():
            return "damaged"
        with open(path, "rb") as stream:
            stat = os.fstat(stream.fileno())
            key = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            manifest = _parsed(stream.read())
        with self._lock:
            self._kept[key] = manifest
            while len(self._kept) > _MANIFESTS:
                self._kept.popitem(last=False)
        return manifest

    def list(self) -> Sequence[Corpus]:
        """All of them, by id."""
        return self.page(None, sys.maxsize)[0]


def told(corpus: Corpus, error: Exception) -> str:
    """An error of a command about a run, with the corpus' id where it names the folder."""
    return str(error).replace(str(corpus.path), corpus.id)


def _parsed(content: bytes) -> Manifest | _Unusable:
    try:
        found = orjson.loads(content)
        if found["schema_version"] != SCHEMA_VERSION:
            return "outdated"
        accounts, recipe, version = found["accounts"], found["recipe"], found["versions"]["winnow"]
        manifest = Manifest(hashlib.sha256(content).hexdigest(), recipe, accounts, version)
        _sums(manifest)
        recipe["variants"].keys()
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
        return "damaged"
    return manifest


def _sums(manifest: Manifest) -> dict[str, Any]:
    from pipelines.report.figures import alarms

    sources, variants = manifest.accounts["sources"], manifest.accounts["variants"]
    return {
        "recipe": manifest.recipe["name"],
        "winnow": manifest.version,
        "sources": len(sources),
        "records": sum(one["records"] for one in sources.values()),
        "documents": sum(one["documents"] for one in sources.values()),
        "variants": {variant: _kept(by_source.values()) for variant, by_source in variants.items()},
        "alarms": alarms(manifest.accounts, manifest.recipe["sources"]),
    }


def _kept(accounts: Any) -> dict[str, int]:
    """Documents and tokens that a variant keeps, over its sources."""
    found = list(accounts)
    tokens = sum(sum(one["tokens"].values()) for one in found)
    return {"kept": sum(one["kept"] for one in found), "tokens": tokens}


def _built(path: Path) -> str | None:
    """When the last build ended, as the run's own log has it."""
    log = path / "runs.jsonl"
    try:
        if log.is_symlink():
            return None
        last = log.read_bytes().splitlines()[-1]
        ended = orjson.loads(last)["ended"]
        datetime.fromisoformat(ended)
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return None
    return str(ended)


def _is_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _has_begun(path: str) -> bool:
    """Whether a build has made this folder its run: it takes the lock before all else."""
    return any(os.path.lexists(f"{path}/{name}") for name in ("manifest.json", ".lock", "plan.json"))


def is_locked(path: Path) -> bool:
    """Whether a process of this machine holds the lock file. Read from the kernel's table: to try it would be to take it."""
    try:
        stat = path.stat()
        wanted = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
        with open("/proc/locks", encoding="ascii") as table:
            return any(wanted in line.split() for line in table)
    except OSError:
        return False
