"""The formats that winnow reads, one module each, and the one table that names them.

A reader is `read(source_input, options, limits, span) -> Iterator[Record | Reject]`; `count` recounts an input's records with
code of its own, for `verify --deep`. Modules are loaded when they are used.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines import remote
from pipelines.errors import UserError
from pipelines.records import Input, Limits, Record, Reject, Span

_BLOCK = 1 << 20
_HUB = "hf://"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The record's own names of what winnow asks for; dots lead into nested objects. And what a reader need not take apart."""

    text: str = "text"
    id: str = "id"
    url: str = "url"
    title: str = "title"
    date: str = "date"
    license: str = "license"
    blocked: Callable[[str], str | None] | None = field(default=None, repr=False, compare=False)  # URL -> the entry that blocks it

    @staticmethod
    def named(fields: Mapping[Any, str]) -> SourceOptions:
        """The options of a recipe's `fields`."""
        return SourceOptions(**dict[str, Any](fields))


Reader = Callable[[Input, SourceOptions, Limits, Span | None], Iterator[Record | Reject]]

# format -> (module, whether large inputs are cut into spans)
FORMATS: dict[str, tuple[str, bool]] = {
    "jsonl": ("jsonl", True),
    "parquet": ("parquet", True),
    "text": ("plain", False),
    "warc": ("warc", False),
    "mediawiki": ("mediawiki", False),
    "datasets": ("hf_datasets", False),
    "code": ("code", False),
    "books": ("books", False),
    "arxiv": ("arxiv", False),
    "stackexchange": ("stackexchange", False),
}


def reader(name: str) -> Reader:
    """The reader of a format."""
    return import_module(f"pipelines.sources.{FORMATS[name][0]}").read


def count_records(name: str, source_input: Input, options: SourceOptions) -> int:
    """How many records an input holds, counted by other code than the reader's."""
    return int(import_module(f"pipelines.sources.{FORMATS[name][0]}").count(source_input, options))


def scan(url: str, name: str, target_bytes: int) -> tuple[int, str, tuple[Span, ...]]:
    """(size, sha256, spans) of an input; spans are empty where it is read as a whole."""
    module, splittable = FORMATS[name]
    if name == "datasets":
        return import_module(f"pipelines.sources.{module}").scan(url)
    size, digest, known = _identity(url)
    # Whether an input without a reported identity is still the same is told by reading all of it, which every span would do.
    if not splittable or size <= target_bytes or not known:
        return size, digest, ()
    return size, digest, tuple(import_module(f"pipelines.sources.{module}").spans(url, target_bytes))


def stamp(url: str) -> str | None:
    """What tells that a local input, a file or a folder of files, was touched; None for one that lies elsewhere.

    Size, time of writing and inode of every file: only ever compared with what they were, and no part of what is written.
    """
    if url.startswith(_HUB) or not remote.is_local(url):
        return None
    root = Path(remote.filesystem_of(url)[1])
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    facts = [(str(path), found.st_size, found.st_mtime_ns, found.st_ino) for path in files for found in [path.stat()]]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def check_unchanged(source_input: Input, name: str) -> None:
    """A UserError where an input is no longer what was planned: called when it has been read.

    A local one is read again only where its stamp is another one: a file may be touched, or copied over itself.
    """
    url, noted = source_input.url, source_input.stamp
    try:
        if url.startswith(_HUB) or (noted is not None and stamp(url) == noted):
            return
        found = scan(url, name, sys.maxsize)[:2]  # of that size none is cut into spans
    except FileNotFoundError:
        found = None
    if found != (source_input.size, source_input.sha256):
        raise UserError(f"{url}: changed while the run was built; build it again")


def _identity(url: str) -> tuple[int, str, bool]:
    """Size and sha256 of a local input's content, or what identifies a remote one; False where that had to be read."""
    if not remote.is_local(url):
        return remote.identity(url)
    digest, size = hashlib.sha256(), 0
    with open(remote.filesystem_of(url)[1], "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest(), True
