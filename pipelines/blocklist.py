"""Block lists: records whose URL stands on a list of the user's never become documents, and cost no extraction.

A source names files, or folders of the layout that the block lists of the University of Toulouse (UT1) have: of a folder its files
`domains` and `urls` are read. A file is text in UTF-8, plain or compressed, one entry a line; blank lines and lines that begin
with # are passed over:

    example.org               the host, and every host below it
    example.org/some/path     of these hosts, what lies at this path or below it
    example.org:8080          only where the URL states this port

Hosts are compared as `plain_host` writes them. A host with and without `www.` is one site: `www.example.org` blocks `example.org`
too, but not `shop.example.org`; `example.org` blocks all three. Nothing lies below an address such as 192.0.2.1. A path ends at a
boundary: `/some` blocks `/some`, `/some/path` and `/some?q`, not `/something`; slashes at its end count for nothing. A path's case
counts, and how it is escaped does not: `/~me` and `/%7Eme` are one (RFC 3986, section 6.2.2). Scheme, user and fragment of a URL
decide nothing. A URL that cannot be taken apart, or has no host, is on no list.

In memory and on disk an entry is 16 bytes, a hash of what it says, in sorted order: 16 MB for a million hosts. An entry with a path
leaves a second one, which says that its host has such entries, so that most URLs are told by their host alone.
"""

from __future__ import annotations

import json
import posixpath
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pipelines import remote
from pipelines.errors import UserError
from pipelines.given_lines import decoded, given_lines
from pipelines.recipe import Recipe
from pipelines.store import Store, stage_key
from pipelines.urls import MOST_HOST, plain_host, plain_path, port_of, with_port

VERSION = 1
LINE_BYTES = 1 << 16
_CARD = "winnow"
_KEY = 16  # bytes of a hash
_MEND = "mend the list"
_FOLDER = ("domains", "urls")  # of a folder in UT1's layout
_SHOWN = 60  # characters of a line that an error shows
_MARK = " "  # behind a host that has entries with a path: no entry has a blank

_PLAIN = re.compile(rb"(?=.{1,253}\Z)[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")  # most lines: a host as it is compared
_ENTRY = re.compile(r"""(\[[0-9a-fA-F:.]+\]|[^\s/:@#?*%\[\]<>|\\^,;"'(){}=&+!$~`]+)(?::(\d{1,5}))?(/[^\s#]*)?""")
_PIECE = re.compile(r"[/?&][^/?&]*")


# -- entries ----------------------------------------------------------------------------------------------------------------


def parse_entry(line: str) -> tuple[str, str] | None:
    """(host, with its port; path, "" for none) of a line that is neither blank nor a comment; None for one that is no entry."""
    found = _ENTRY.fullmatch(line)
    if found is None:
        return None
    host = plain_host(found[1])
    if len(host) > MOST_HOST or not all(host.split(".")):
        return None
    port = int(found[2]) if found[2] else None
    return with_port(host, port), plain_path(found[3] or "").rstrip("/?&")


def read_entries(url: str) -> Iterator[bytes | tuple[str, str]]:
    """The entries of a file: a plain host as its bytes, for speed, anything else as (host, path). Its faults are UserErrors."""
    for number, line in given_lines(url, LINE_BYTES, "a list has one host or host/path a line", _MEND):
        if _PLAIN.fullmatch(line):
            yield line
        elif (found := _read_line(line, number, url)) is not None:
            yield found


def _read_line(line: bytes, number: int, url: str) -> tuple[str, str] | None:
    """The entry of a line, None for a blank one or a comment."""
    text = decoded(line, number, url, _MEND)
    if not text or text.startswith("#"):
        return None
    found = parse_entry(text)
    if found is None:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise UserError(f"{url}: line {number}: {shown!r} is neither host nor host/path; write example.org or example.org/path")
    return found


# -- the list ---------------------------------------------------------------------------------------------------------------


class Blocklist:
    """Called with a URL: the entry that blocks it, the host's nearest name first, or None."""

    def __init__(self, keys: np.ndarray, hosts: int, paths: int) -> None:
        """keys: uint64 [n, 2], hashes as big-endian halves, sorted and distinct. hosts, paths: distinct entries of either kind."""
        self.keys, self.hosts, self.paths = keys, hosts, paths
        # Bisecting a memoryview makes no NumPy scalar a step.
        self._high, self._low = (memoryview(keys[:, half].tobytes()).cast("Q") for half in (0, 1))

    @staticmethod
    def of(entries: Iterable[bytes | tuple[str, str]]) -> Blocklist:
        """The list of what `read_entries` gives."""
        hosts, paths, marks = bytearray(), bytearray(), bytearray()
        for entry in entries:
            if isinstance(entry, bytes):
                hosts += blake2b(entry, digest_size=_KEY).digest()
                continue
            host, path = entry
            if path:
                paths += _hash(host + path).digest()
                marks += _hash(host + _MARK).digest()
            else:
                hosts += _hash(host).digest()
        found = [_distinct(one) for one in (hosts, paths, marks)]
        return Blocklist(_distinct(b"".join(keys.astype(">u8").tobytes() for keys in found)), len(found[0]), len(found[1]))

    def __call__(self, url: str) -> str | None:
        try:
            parts = urlsplit(url)
            name = parts.hostname or ""
            if not name or len(name) > MOST_HOST:
                return None
            host = plain_host(name)
        except ValueError:
            return None
        target = ""
        for known in _names(host, port_of(parts)):
            if self._has(_hash(known).digest()):
                return known
            if self._has(_hash(known + _MARK).digest()):
                target = target or plain_path((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
                if (path := self._path_of(known, target)) is not None:
                    return known + path
        return None

    def _path_of(self, host: str, target: str) -> str | None:
        """The shortest path of an entry of `host` that `target` begins with."""
        state, end = _hash(host), 0
        for piece in _PIECE.finditer(target):
            state.update(piece[0].encode())
            end = piece.end()
            if end > LINE_BYTES:  # longer than any entry
                return None
            if self._has(state.copy().digest()):
                return target[:end]
        return None

    def _has(self, key: bytes) -> bool:
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        place = bisect_left(self._high, high)
        while place < len(self._high) and self._high[place] == high:
            if self._low[place] == low:
                return True
            place += 1
        return False


def _names(host: str, port: int | None) -> Iterator[str]:
    """What entries may call a host, nearest first: itself, itself with www., what it lies below; and each with the port."""
    names = [host]
    if ":" not in host and not host.rpartition(".")[2].isdigit():
        names += [f"www.{host}"] if not host.startswith("www.") else []
        while host := host.partition(".")[2]:
            names.append(host)
    for name in names:
        yield with_port(name, None)
        if port is not None:
            yield with_port(name, port)


def _hash(text: str) -> Any:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY)


def _distinct(hashes: bytes | bytearray) -> np.ndarray:
    """uint64 [n, 2] of 16-byte hashes, sorted as their bytes are, each once."""
    halves = np.frombuffer(hashes, ">u8").reshape(-1, 2).astype(np.uint64)
    halves = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
    fresh = np.ones(len(halves), bool)
    fresh[1:] = (halves[1:] != halves[:-1]).any(axis=1)
    return halves[fresh]


# -- of a recipe, and in a run ----------------------------------------------------------------------------------------------


def load(recipe: Recipe, base: str) -> dict[str, Blocklist]:
    """The list of every source that has one; relative paths start from `base`. A missing or malformed file is a UserError."""
    return {name: _of_source(name, source.blocklist, base) for name, source in recipe.sources.items() if source.blocklist}


def _of_source(name: str, given: Sequence[str], base: str) -> Blocklist:
    try:
        found = Blocklist.of(entry for path in given for url in _files(path, base) for entry in read_entries(url))
    except UserError as error:
        raise UserError(f"sources.{name}.blocklist: {error}") from error
    if not found.hosts + found.paths:
        raise UserError(f"sources.{name}.blocklist: no entry in {', '.join(given)}; give a list, or leave the key out")
    return found


def _files(path: str, base: str) -> list[str]:
    """The file itself, or those of a folder that hold entries."""
    located = path if "://" in path or path.startswith("/") else posixpath.join(base, path)
    filesystem, inner = remote.filesystem_of(located)

    def exists(name: str) -> bool:
        return bool(remote.attempted(located, lambda: filesystem.exists(name)))

    if not exists(inner):
        raise UserError(f"{located}: no such list; mend the path")
    if not remote.attempted(located, lambda: filesystem.isdir(inner)):
        return [located]
    found = [f"{located.rstrip('/')}/{name}" for name in _FOLDER if exists(f"{inner.rstrip('/')}/{name}")]
    if not found:
        raise UserError(f"{located}: a folder with neither a file domains nor a file urls; name the lists themselves")
    return found


def path(source: str) -> str:
    """Where a run keeps a source's list, for its workers."""
    return f"blocklists/{source}.safetensors"


def publish(store: Store, lists: Mapping[str, Blocklist], sources: Iterable[str]) -> None:
    """Publishes the lists that do not stand yet, and takes away those of sources that have none any more."""
    for source in sources:
        if source not in lists:
            if store.sidecar(path(source)) is not None:
                store.begin(path(source))
                store.remove(path(source))
            continue
        data = save(lists[source])
        key = stage_key("blocklist", VERSION, [], [blake2b(data).hexdigest()])
        if not store.is_finished(path(source), key):
            store.begin(path(source))
            store.finish(store.publish(path(source), data), key)


def digest(store: Store, source: str) -> str:
    """What a source's tasks take of its list into their keys: its content, "" for none."""
    sidecar = store.sidecar(path(source))
    return "" if sidecar is None else str(sidecar["sha256"])


def of_run(store: Store, source: str) -> Callable[[str], str | None]:
    """The list of a source as the run keeps it."""
    return parse(store.read(path(source)), store.url(path(source)))


def save(listed: Blocklist) -> bytes:
    """The list as safetensors; lists that say the same give equal bytes."""
    from safetensors.numpy import save as save_tensors

    card = {"hosts": listed.hosts, "paths": listed.paths}
    return bytes(save_tensors({"keys": np.ascontiguousarray(listed.keys)}, {_CARD: json.dumps(card, sort_keys=True)}))


def parse(data: bytes, name: str) -> Blocklist:
    """The list of a file that `save` wrote; `name` stands in errors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        size = int.from_bytes(data[:8], "little")
        card = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_CARD])
        return Blocklist(load_tensors(data)["keys"], card["hosts"], card["paths"])
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{name}: not a block list: {error}; build the run again") from error
