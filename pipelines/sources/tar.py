"""The entries of a tar stream: POSIX ustar and pax, GNU, and the form before them, by the rules of POSIX.1-2001 (pax).

Headers are read in constant memory: an extended header over 1 MiB is damage, chains of them are followed in a loop, and the
data of an entry is passed over unless its content is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipelines.reading import CorruptInput, Readable

_UNIT = 512
_BLOCK = 1 << 20
_ZEROS = bytes(_UNIT)
_EXTENDED_BYTES = 1 << 20
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_PAX = re.compile(rb"(\d{1,20}) ")
Kind = Literal["file", "directory", "sparse", "other"]
_KINDS: dict[bytes, Kind] = {b"5": "directory", b"D": "directory", b"S": "sparse"}
_LINKS_AND_DEVICES = frozenset([b"1", b"2", b"3", b"4", b"6"])
_OTHER = _LINKS_AND_DEVICES | {b"V", b"M"}  # and GNU's volume labels and continued files


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. `content` reads its data and is valid until the next entry is asked for."""

    name: str
    kind: Kind  # "other": links, devices, volume labels
    size: int
    content: Callable[[], bytes]


def begins_as_tar(stream: Readable) -> bool:
    """Whether the first bytes of a stream are a member's header."""
    return _sum_holds(_Units(stream).take(_UNIT))


def tar_entries(stream: Readable) -> Iterator[Entry]:
    """The members up to the end mark. CorruptInput where the stream is no tar, is damaged, or ends without the mark."""
    source = _Units(stream)
    name, size, sparse = None, None, False  # as extended headers state them for the next entry
    pax_global: dict[bytes, bytes] = {}
    while True:
        start = source.offset
        header = source.take(_UNIT)
        if header == _ZEROS:
            return
        stated = _number(header[124:136])
        if not _sum_holds(header) or stated is None:
            raise CorruptInput(start, "tar: no header")
        kind = header[156:157]
        if kind in b"LKxgX" and kind:
            if stated > _EXTENDED_BYTES:
                raise CorruptInput(start, f"tar: an extended header of {stated} bytes")
            data = source.take(stated)
            source.skip(-stated % _UNIT)
            if kind == b"L":
                name = data.rstrip(b"\0")
            elif kind != b"K":
                fields = _pax(data)
                if fields is None:
                    raise CorruptInput(start, "tar: an extended header that cannot be read")
                if kind == b"g":
                    pax_global = {key: fields.get(key, pax_global.get(key, b"")) for key in (b"path", b"size")}
                else:
                    name, size = fields.get(b"path", name), fields.get(b"size", size)
                    sparse = any(key.startswith(b"GNU.sparse.") for key in fields)
            continue
        name = name or pax_global.get(b"path") or _name(header)
        size = size or pax_global.get(b"size")
        if size:
            if not size.isdigit() or len(size) > 18:
                raise CorruptInput(start, "tar: a size that is no number")
            stated = int(size)
        yield from _entry(source, header, name, stated, sparse)
        name, size, sparse = None, None, False


def _entry(source: _Units, header: bytes, raw_name: bytes, size: int, sparse: bool) -> Iterator[Entry]:
    flag = header[156:157]
    kind: Kind = "other" if flag in _OTHER else _KINDS.get(flag, "file")
    if kind == "file":
        kind = "directory" if raw_name.endswith(b"/") else "sparse" if sparse else "file"
    if flag in _LINKS_AND_DEVICES or flag == b"5":
        size = 0  # they have no data, whatever stands there
    if flag == b"S" and header[482]:
        while source.take(_UNIT)[504]:
            pass
    end = source.offset + size + -size % _UNIT
    yield Entry(_decoded(raw_name), kind, size, lambda: source.take(size))
    source.skip(end - source.offset)


class _Units:
    """Exact reads and skips on a stream that takes sizes as hints."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._held, self._at = stream, b"", 0
        self.offset = 0

    def _fill(self) -> int:
        """How many bytes are held, at least one."""
        if self._at == len(self._held):
            self._held, self._at = self._stream.read(_BLOCK), 0
            if not self._held:
                raise CorruptInput(self.offset, "tar: cut off")
        return len(self._held) - self._at

    def take(self, size: int) -> bytes:
        pieces = []
        while size:
            count = min(size, self._fill())
            pieces.append(self._held[self._at : self._at + count])
            self.skip(count)
            size -= count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, size: int) -> None:
        while size:
            count = min(size, self._fill())
            self._at += count
            self.offset += count
            size -= count


def _sum_holds(header: bytes) -> bool:
    """The header's checksum: of unsigned bytes, or of signed ones as some old writers made it."""
    stated = _number(header[148:156])
    plain = header[:148] + b" " * 8 + header[156:]
    total = sum(plain)
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in plain)


def _number(field: bytes) -> int | None:
    """An octal field, or GNU's base 256; None for what is neither, or over 2^63."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        return value if value < 1 << 63 else None
    found = _OCTAL.match(field)
    return int(found[1] or b"0", 8) if found and found.end() == len(field) else None


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(data: bytes) -> dict[bytes, bytes] | None:
    """The `length key=value` lines of an extended header; None where one is no such line."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        found = _PAX.match(data, at)
        stop = at + int(found[1]) if found else 0
        if not found or stop <= found.end() or stop > len(data) or data[stop - 1] != 10:
            return None
        key, equals, value = data[found.end() : stop - 1].partition(b"=")
        if not equals:
            return None
        fields[key] = value
        at = stop
    return fields


def _decoded(name: bytes) -> str:
    """UTF-8 where it is that, else Latin-1: a name must not hold what no table can say."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")
