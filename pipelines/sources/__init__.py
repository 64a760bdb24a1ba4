"""The formats that winnow reads, one module each, and the one table that names them.

A reader is `read(source_input, options, limits, span) -> Iterator[Record | Reject]`; `count` recounts an input's records with
code of its own, for `verify --deep`. Modules are loaded when they are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pipelines.records import Input, Limits, Record, Reject, Span

_BLOCK = 1 << 20


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
    size, digest = _identity(url)
    if not splittable or size <= target_bytes:
        return size, digest, ()
    return size, digest, tuple(import_module(f"pipelines.sources.{module}").spans(url, target_bytes))


def _identity(url: str) -> tuple[int, str]:
    """Size and sha256 of a local input's content; of a remote one, what its store reports, so that it is not read twice."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    filesystem, path = fsspec.core.url_to_fs(url)
    if not isinstance(filesystem, LocalFileSystem):
        facts = filesystem.info(path)
        known = [str(facts.get(key)) for key in ("size", "md5Hash", "crc32c", "etag", "ETag") if facts.get(key)]
        return int(facts["size"]), hashlib.sha256("\0".join(known).encode()).hexdigest()
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
