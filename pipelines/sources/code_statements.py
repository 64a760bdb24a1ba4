"""Where licences are stated: the folders of an archive or a tree, and the nearest statement for a file.

A statement is a file named LICENSE, LICENCE, COPYING or UNLICENSE, with or without more to its name, or a Python package's PKG-INFO
or METADATA. A `*.dist-info` folder speaks for the folder in which it lies, as in a wheel; where several lie there, as in
site-packages, each speaks for the files that its RECORD lists. In one folder package metadata counts before licence texts, since
it says which of them hold; texts hold together. One text that cannot be told makes its folder unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from pipelines.sources.licenses import license_of_metadata, license_of_text

STATEMENT_BYTES = 256 << 10
_MOST = 100_000
_TEXT = re.compile(r"(?:un)?licen[cs]es?(?:[.-][\w.-]{1,40})?|copying(?:[.-][\w.-]{1,40})?", re.IGNORECASE)
_NO_TEXT = re.compile(r"\.(?:py|pyc|js|ts|go|rs|java|c|h|cc|cpp|html|json|png|svg)$", re.IGNORECASE)
_INSIDE = re.compile(r"(?:^|/)[^/]+\.dist-info(?:/licenses)?$")


def is_statement(path: str) -> bool:
    """Whether a file states a licence, by its name."""
    base = path.rpartition("/")[2]
    return base in ("PKG-INFO", "METADATA") or bool(_TEXT.fullmatch(base) and not _NO_TEXT.search(base))


@dataclass
class Statements:
    """folder -> licence. None stands for a statement that cannot be told."""

    texts: dict[str, set[str | None]] = field(default_factory=dict)
    metadata: dict[str, set[str | None]] = field(default_factory=dict)
    _seen: int = 0

    def add(self, path: str, content: bytes) -> None:
        """Takes a statement into account; a licence that is too long, or one of too many, cannot be told."""
        folder, _, base = path.rpartition("/")
        inside = _INSIDE.search(folder)
        folder = folder[: inside.start()] if inside else folder
        self._seen += 1
        if self._seen > _MOST:
            return
        text = content.decode("utf-8", "replace")
        if base in ("PKG-INFO", "METADATA"):
            if told := license_of_metadata(text):
                self.metadata.setdefault(folder, set()).add(told)
        else:
            self.texts.setdefault(folder, set()).add(license_of_text(text) if len(content) <= STATEMENT_BYTES else None)

    def of(self, path: str) -> tuple[bool, str | None]:
        """(whether anything is stated for a file, the licence or None where it cannot be told), from the nearest folder up."""
        if self._seen > _MOST:
            return True, None
        folder = path.rpartition("/")[0]
        while True:
            told = self.metadata.get(folder) or self.texts.get(folder)
            if told:
                return True, joined(told)
            if not folder:
                return False, None
            folder = folder.rpartition("/")[0]


def joined(told: Iterable[str | None]) -> str | None:
    """Licences that all hold, as one expression; None where one of them is not known."""
    known = sorted({one for one in told if one})
    if None in told or not known:
        return None
    return known[0] if len(known) == 1 else " AND ".join(f"({one})" if " OR " in one else one for one in known)


# -- a tree -----------------------------------------------------------------------------------------------------------------


def of_tree(url: str, path: str) -> tuple[bool, str | None]:
    """As `Statements.of`, for a file at `url` whose place below the source's root is `path`."""
    root = url[: -len(path)].rstrip("/") if url.endswith(path) else url.rpartition("/")[0]
    folder = path.rpartition("/")[0] if url.endswith(path) else ""
    while True:
        place = f"{root}/{folder}" if folder else root
        stated, told, packages = _of_folder(place)
        for package in packages:
            listed, package_told = _of_package(f"{place}/{package}")
            if url[len(place) + 1 :] in listed:
                return True, package_told
        if stated:
            return True, told
        if not folder:
            return False, None
        folder = folder.rpartition("/")[0]


@lru_cache(maxsize=4096)
def _of_folder(folder: str) -> tuple[bool, str | None, tuple[str, ...]]:
    """(whether a folder states a licence, which, the installed packages that lie in it)."""
    statements, packages = Statements(), []
    for name in sorted(_names(folder)):
        if name.endswith(".dist-info"):
            packages.append(name)
        elif is_statement(name):
            statements.add(name, _bytes(f"{folder}/{name}"))
    return (*statements.of("x"), tuple(packages))


@lru_cache(maxsize=1024)
def _of_package(folder: str) -> tuple[frozenset[str], str | None]:
    """(the files that an installed package's RECORD lists, its licence)."""
    statements = Statements()
    for place in (folder, f"{folder}/licenses"):
        for name in sorted(_names(place)):
            if is_statement(name):
                statements.add(name, _bytes(f"{place}/{name}"))
    record = _bytes(f"{folder}/RECORD", 16 << 20) if "RECORD" in _names(folder) else b""
    listed = frozenset(line.rsplit(",", 2)[0].strip('"') for line in record.decode("utf-8", "replace").splitlines())
    return listed, statements.of("x")[1]


def _names(folder: str) -> Iterator[str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(folder)
    if filesystem.isdir(path):
        for name in filesystem.ls(path, detail=False):
            yield name.rstrip("/").rpartition("/")[2]


def _bytes(url: str, most: int = STATEMENT_BYTES) -> bytes:
    """A file's first bytes, one more than `most` where it is longer; none of what is no file."""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    if not filesystem.isfile(path):
        return b""
    with filesystem.open(path, "rb") as stream:
        return bytes(stream.read(most + 1))
