r"""A paper's source bundle as arXiv holds it, and the one LaTeX source that it comes to.

A bundle is a gzip of a single .tex file or of a tar of files. Nothing of it touches the disk, and no name of it leads anywhere:
names are keys of a table, and files that are links, or whose path leads out of the bundle, are not in it.

The main file is one that comes to a `\begin{document}` and is no input of another: if there are several, one that `00README.json`
or `00README.XXX` names as top level, one that comes to a `\documentclass`, one called main, ms or paper, the longest with its
inputs, the first by name, in this order. What a 00README ignores, and what begins with `%auto-ignore`, is none.

`\input`, `\include`, `\subfile` and `\input name` are replaced by the file, by its name with or without .tex, seen from the main
file's folder and from the top. A file that is missing, that is being read already, that stands over `DEPTH` levels deep or goes
beyond the limit on the text, is left out and counted.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson

from pipelines.reading import CorruptInput, Readable, decompressed
from pipelines.records import Limits, Reject
from pipelines.schema import RejectReason
from pipelines.sources.archives import Member, is_archive, walk_tar
from pipelines.sources.latex import (
    BEGIN_DOCUMENT,
    CLASS,
    INPUT,
    Searcher,
    end_of_input,
    first,
    inside_document,
    start,
    strip_comments,
)

DEPTH = 32
UNPACKED_RATIO = 16  # bytes of a whole bundle, with its figures, to the limit on a record
_BLOCK = 1 << 20
_HINTS = ("00README.json", "00README.XXX")
_MAIN_NAMES = ("main", "ms", "paper")
_FIGURES = (".eps", ".ps", ".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".epsi", ".mp4", ".gz", ".zip", ".ttf", ".otf", ".bib")
_NO_PAPERS = (".sty", ".cls", ".clo", ".bst", ".dtx", ".ins", ".bbl", ".json", ".xxx")  # though some speak of \\begin{document}
_COMPARED = 16  # possible main files whose inputs are counted
_IGNORED = "%auto-ignore"


class TooLarge(Exception):
    """The bundle unpacks to more than it may."""


# -- unpacking --------------------------------------------------------------------------------------------------------------


def unpack(content: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of a bundle by path, without figures; a single file is called "". Holds at most `limits.record_bytes` of them.

    CorruptInput for damage, TooLarge for more than that, or over `UNPACKED_RATIO` times that with the figures.
    """
    raw = io.BytesIO(content)
    tar = is_archive(raw)
    stream = _Bounded(decompressed(raw), (UNPACKED_RATIO if tar else 1) * limits.record_bytes)
    if not tar:
        return {"": b"".join(iter(lambda: stream.read(_BLOCK), b""))}
    files: dict[str, bytes] = {}
    held = 0
    for found in walk_tar(stream, "", limits, lambda name: not name.lower().endswith(_FIGURES)):
        if isinstance(found, Member):
            held += len(found.content) + len(found.name)
            files[found.name] = found.content
        elif isinstance(found, Reject) and found.reason == RejectReason.CORRUPT_CONTAINER:
            raise CorruptInput(stream.taken, found.detail)
        if held > limits.record_bytes or (isinstance(found, Reject) and found.reason == RejectReason.TOO_LARGE):
            raise TooLarge(f"over {limits.record_bytes} bytes without the figures")
    return files


class _Bounded:
    """A stream that counts what it hands out and stops at a bound."""

    def __init__(self, source: Readable, bound: int) -> None:
        self._source, self._bound = source, bound
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.taken += len(data)
        if self.taken > self._bound:
            raise TooLarge(f"unpacks to over {self._bound} bytes")
        return data


def _safe(name: str) -> str | None:
    """A path inside the bundle in its shortest form, or None for one that leads out."""
    path = posixpath.normpath(name.replace("\\", "/"))
    return None if path.startswith(("/", "../")) or path in (".", "..") else path


# -- the main file ----------------------------------------------------------------------------------------------------------


class Bundle:
    """The files of a bundle as text, and what can be asked of them."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._clean: dict[str, str] = {}

    def clean(self, path: str) -> str:
        r"""A file without comments and without what stands behind `\endinput`."""
        if path not in self._clean:
            self._clean[path] = end_of_input(strip_comments(self._files[path]))
        return self._clean[path]

    def find(self, name: str, folder: str) -> str | None:
        """The file that an input of that name means, seen from a folder and from the top."""
        name = name.strip().strip('"')
        for seen_from in dict.fromkeys((folder, "")):
            for ending in (".tex", ""):
                path = _safe(posixpath.join(seen_from, name + ending)) if name else None
                if path in self._files:
                    return path
        return None

    def main(self) -> str | None:
        """The path of the paper's main file, or None where no file comes to a document."""
        wanted, ignored = _hints(self._files)
        sources = {
            path: None  # in the bundle's order
            for path, text in self._files.items()
            if path not in ignored and not text.lstrip().startswith(_IGNORED) and not path.lower().endswith(_NO_PAPERS)
        }
        children: dict[str, set[str]] = {}
        for path in sources:
            named = (self.find(name, posixpath.dirname(path)) for name in inputs(self.clean(path)))
            children[path] = {child for child in named if child in sources and child is not None} - {path}
        parents: dict[str, set[str]] = {}
        for path, inside in children.items():
            for child in inside:
                parents.setdefault(child, set()).add(path)

        def above(pattern: re.Pattern[str]) -> set[str]:
            """The files in which something stands, and those that come to it by their inputs."""
            return _reached([path for path in sources if first(self.clean(path), pattern)], parents)

        documents, classes = above(BEGIN_DOCUMENT), above(CLASS)

        def rank(path: str) -> tuple[bool, bool, bool]:
            stem = posixpath.splitext(posixpath.basename(path))[0].lower()
            return path not in wanted, path not in classes, stem not in _MAIN_NAMES

        def size(path: str) -> int:
            return sum([len(self.clean(inside)) for inside in _reached([path], children)])

        roots = sorted((path for path in documents if path not in parents), key=lambda path: (rank(path), path))
        roots = roots or sorted(documents)  # files that input each other in a circle have no root
        best = [path for path in roots[:_COMPARED] if rank(path) == rank(roots[0])]
        return min(best, key=lambda path: (-size(path), path), default=None)


def _reached(some: list[str], ways: Mapping[str, set[str]]) -> set[str]:
    """What can be reached by `ways`, with those themselves."""
    seen, ahead = set(some), list(some)
    while ahead:
        more = ways.get(ahead.pop(), set()) - seen
        seen |= more
        ahead.extend(more)
    return seen


def _hints(files: Mapping[str, str]) -> tuple[frozenset[str], frozenset[str]]:
    """(top-level files, ignored files) as the bundle's 00README says; what cannot be read says nothing."""
    usages: dict[str, set[str]] = {"toplevel": set(), "ignore": set()}
    try:
        sources = orjson.loads(files.get(_HINTS[0], "{}"))["sources"]
        for source in sources:
            usages.setdefault(str(source.get("usage")), set()).add(str(source["filename"]))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        pass
    for line in files.get(_HINTS[1], "").splitlines():
        words = line.split()
        if len(words) == 2:
            usages.setdefault(words[1].removesuffix("file"), set()).add(words[0])
    return frozenset(usages["toplevel"]), frozenset(usages["ignore"])


# -- one source -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """The whole LaTeX of a paper, without comments; `left_out` counts inputs that could not be resolved."""

    text: str
    left_out: int


def whole_source(bundle: Bundle, main: str, limit: int) -> Source:
    """The main file with its inputs in their places: at most `limit` characters, inputs beyond them are left out.

    Of an input that is a document of its own, in a main file that has its own, stands what is inside.
    """
    pieces: list[str] = []
    folder, document = posixpath.dirname(main), first(bundle.clean(main), BEGIN_DOCUMENT) is not None
    size, left_out = len(bundle.clean(main)), 0

    def put(text: str, reading: tuple[str, ...]) -> None:
        nonlocal size, left_out
        searcher, done = Searcher(text, INPUT), 0
        while match := searcher.next(done):
            pieces.append(text[done : start(match)])
            done = match.end()
            path = bundle.find(match["braced"] or match["bare"] or "", folder)
            content = "" if path is None else bundle.clean(path)
            if path is None or path in reading or len(reading) >= DEPTH or size + len(content) > limit:
                left_out += 1
                continue
            size += len(content)
            put(inside_document(content) if document else content, (*reading, path))
        pieces.append(text[done:])

    put(bundle.clean(main), (main,))
    return Source("".join(pieces), left_out)


def inputs(text: str) -> Iterator[str]:
    """The names of a file's inputs."""
    searcher, at = Searcher(text, INPUT), 0
    while match := searcher.next(at):
        at = match.end()
        yield match["braced"] or match["bare"] or ""
