"""Taking back: the documents that a recipe's `remove` list names, in every variant and whatever else would become of them.

The list is a text file in UTF-8 with one entry a line; blank lines and lines that begin with # are passed over:

    0123456789abcdef0123456789abcdef            a doc_id
    https://example.org/page?id=1               a URL, letter for letter as the document has it
    host:example.org                            all documents whose URL has this host or one below it
    content:0123456789abcdef0123456789abcdef    a content hash: every document of this normalised text

What is found is written per part, and only for parts that hold such documents: `removals/<source>/<part>.json`, kind of entry ->
rows. Its hash enters the keys of what is made from the part, so an entry that matches nothing redoes nothing. A document that
several entries name is counted under the first kind of KINDS. Rows that `winnow purge` has emptied stay removed, whatever the list
says: their kind stands in the sidecar of their documents part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.parts import Part
from pipelines.reading import read_given
from pipelines.store import Store, canonical_json, read_columns, stage_key
from pipelines.urls import plain_host

VERSION = 1
KINDS = ("doc_id", "url", "host", "content")
JOURNAL = "purge.json"  # in a run directory: a purge has begun and not ended
PURGED = "purged"  # in the sidecar of a documents part: kind of entry -> rows of which nothing is left

_HASH = re.compile(r"[0-9a-fA-F]{32}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_HOST = re.compile(r"[^\s/:@#?\[\]]+|\[?[0-9a-fA-F:.]+\]?")  # a name, or an address
_SHOWN = 60  # characters of a line that an error shows

Found = dict[str, list[int]]  # kind of entry -> rows, ascending; kinds without a row are left out


# -- the list ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Removal:
    """The entries of a list, by kind."""

    doc_ids: frozenset[bytes] = frozenset()
    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()  # as `plain_host` writes them
    contents: frozenset[bytes] = frozenset()

    def counts(self) -> dict[str, int]:
        """Entries by kind; one that stands twice counts once."""
        found = (self.doc_ids, self.urls, self.hosts, self.contents)
        return {kind: len(entries) for kind, entries in zip(KINDS, found, strict=True)}


def load(name: str, base: str) -> Removal:
    """The entries of the list `name`; a relative name lies below `base`. A missing file is a UserError."""
    located = name if "://" in name or name.startswith("/") else f"{base}/{name}"
    return parse(read_given(located, "mend the recipe's remove"), located)


def parse(content: bytes, name: str) -> Removal:
    """The entries of a list. A line that is none of the four forms is a UserError that names it."""
    found: dict[str, set[Any]] = {kind: set() for kind in KINDS}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: line {number}: not UTF-8 ({error.reason})") from error
        if line and not line.startswith("#"):
            kind, entry = _entry(line, f"{name}: line {number}")
            found[kind].add(entry)
    return Removal(*(frozenset(found[kind]) for kind in KINDS))


def _entry(line: str, where: str) -> tuple[str, bytes | str]:
    if _HASH.fullmatch(line):
        return "doc_id", bytes.fromhex(line)
    head, colon, rest = line.partition(":")
    rest = rest.strip()
    if colon and head == "content" and _HASH.fullmatch(rest):
        return "content", bytes.fromhex(rest)
    if colon and head == "host" and _HOST.fullmatch(rest) and plain_host(rest):
        return "host", plain_host(rest)
    if _URL.fullmatch(line):
        return "url", line
    shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
    raise UserError(f"{where}: {shown!r} is no doc_id, URL, host:NAME or content:HASH (hashes have 32 hex digits)")


# -- documents that it names ------------------------------------------------------------------------------------------------


def match(removal: Removal, documents: pa.Table) -> Found:
    """The rows that the list names. documents: doc_id, url and content_hash of DOCUMENTS."""
    kind = np.full(len(documents), -1, np.int8)
    by_column = (
        ("doc_id", _among(documents.column("doc_id"), removal.doc_ids)),
        ("url", _among(documents.column("url"), removal.urls)),
        ("host", _of_hosts(documents.column("url"), removal.hosts)),
        ("content", _among(documents.column("content_hash"), removal.contents)),
    )
    for name, named in by_column:
        kind[named & (kind < 0)] = KINDS.index(name)
    return {name: np.flatnonzero(kind == number).tolist() for number, name in enumerate(KINDS) if (kind == number).any()}


def _among(column: pa.ChunkedArray, entries: frozenset[Any]) -> np.ndarray:
    if not entries:
        return np.zeros(len(column), bool)
    return np.asarray(pc.is_in(column, value_set=pa.array(sorted(entries), column.type)).combine_chunks())


def _of_hosts(urls: pa.ChunkedArray, hosts: frozenset[str]) -> np.ndarray:
    if not hosts:
        return np.zeros(len(urls), bool)
    known: dict[str, bool] = {"": False}  # a URL up to its path says all; a crawl has many pages of one host
    named = np.zeros(len(urls), bool)
    for place, url in enumerate(urls.to_pylist()):
        origin = "/".join((url or "").split("/", 3)[:3])
        if origin not in known:
            known[origin] = is_below(origin, hosts)
        named[place] = known[origin]
    return named


def is_below(url: str, hosts: frozenset[str]) -> bool:
    """Whether the host of `url` is one of `hosts`, or a subdomain of one."""
    try:
        host = plain_host(urlsplit(url).hostname or "")
    except ValueError:
        return False
    while host:
        if host in hosts:
            return True
        host = host.partition(".")[2]
    return False


# -- in a run ---------------------------------------------------------------------------------------------------------------


def path(part: Part) -> str:
    return f"removals/{part.source}/{part.name}.json"


def find(store: Store, parts: Sequence[Part], removal: Removal | None) -> int:
    """Publishes the removed rows of every part that has some, takes away those of the others; returns how many rows there are."""

    def publish(part: Part) -> int:
        found = _with_purged(_matched(store, part, removal), purged(store, part))
        key = stage_key("removal", VERSION, found, [part.rows])
        if not found:
            if store.sidecar(path(part)) is not None:
                store.begin(path(part))
                store.remove(path(part))
        elif not store.is_finished(path(part), key):
            store.begin(path(part))
            store.finish(store.publish(path(part), canonical_json(found)), key)
        return sum(map(len, found.values()))

    return sum(store.each(parts, publish))


def _matched(store: Store, part: Part, removal: Removal | None) -> Found:
    if removal is None or not any(removal.counts().values()):
        return {}
    return match(removal, read_columns(store, part.path("documents"), ["doc_id", "url", "content_hash"]))


def _with_purged(found: Found, emptied: Found) -> Found:
    """Purged rows keep the kind that they were purged for."""
    gone = {row for rows in emptied.values() for row in rows}
    joined = {kind: [row for row in found.get(kind, ()) if row not in gone] + emptied.get(kind, []) for kind in KINDS}
    return {kind: sorted(rows) for kind, rows in joined.items() if rows}


def purged(store: Store, part: Part) -> Found:
    """The rows of a documents part of which nothing is left."""
    sidecar = store.sidecar(part.path("documents"))
    return dict(sidecar.get(PURGED, {})) if sidecar is not None else {}


def found_in(store: Store, part: Part) -> Found:
    """The removed rows of a part, as the build found them."""
    return dict(store.read_json(path(part))) if store.sidecar(path(part)) is not None else {}


def removed(store: Store, part: Part) -> np.ndarray:
    """bool [rows]: taken back."""
    mask = np.zeros(part.rows, bool)
    for rows in found_in(store, part).values():
        mask[rows] = True
    return mask


def content(store: Store, parts: Sequence[Part]) -> list[list[str]]:
    """[source, part, sha256] of the parts with removed rows: what the keys of later stages take of them."""
    sidecars = zip(parts, store.each(parts, lambda part: store.sidecar(path(part))), strict=True)
    return [[part.source, part.name, sidecar["sha256"]] for part, sidecar in sidecars if sidecar is not None]


def counts(store: Store, parts: Sequence[Part]) -> dict[str, dict[str, int]]:
    """Source -> kind of entry -> documents that are taken back by it; sources with none are left out."""
    total: dict[str, dict[str, int]] = {}
    for part, found in zip(parts, store.each(parts, partial(found_in, store)), strict=True):
        for kind, rows in found.items():
            mine = total.setdefault(part.source, {})
            mine[kind] = mine.get(kind, 0) + len(rows)
    return {source: dict(sorted(mine.items())) for source, mine in sorted(total.items())}


def kind_of(found: Mapping[str, Sequence[int]], row: int) -> str | None:
    """The kind of entry that names a row; None where it is not removed."""
    return next((kind for kind, rows in found.items() if row in rows), None)
