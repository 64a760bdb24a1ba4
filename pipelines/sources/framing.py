"""WARC and ARC records out of a stream of bytes, one after another, bounded and fully accounted for.

FastWARC reads WARC fast, but hands out a record that was cut short as if it were whole, lets a Content-Length that is too large
swallow the records behind it, and knows no ARC. So the frame of a record (where it starts and ends) is read here, and what is
in it (HTTP header, chunks, encodings) is left to FastWARC.

A length is believed if it leads to the beginning of a record or to the end of the input, line breaks aside. A record whose
length does not is `truncated`, and reading goes on at the next line that begins a record, which may stand inside of what the
length spans. A block over the limit is passed over without being kept; since nothing can be read again, it also ends where a
record begins inside of it.

Bytes are looked at where they lie and taken when it is known what they are, so time is linear in the input, whatever lengths it
claims.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.reading import CorruptInput, Readable

_BLOCK = 1 << 20
_MAX_HEADER = 1 << 16
_MAX_BREAKS = 1 << 12  # line breaks between two records
_BREAKS = re.compile(rb"[\r\n]*")

# A header ends with an empty line. One that the header of another record cuts short has no end.
_HEADER_END = re.compile(rb"\n(?:\r?\n|(?=WARC/\d\.\d{1,4}\r?\n))")
_WARC_HEAD = re.compile(rb"WARC/\d\.\d{1,4}\r?\n[A-Za-z][A-Za-z-]{0,63}:")
_ARC_HEAD = re.compile(rb"(\S{1,8000}) (\S{1,64}) (\d{8,14}) (\S{1,1000})(?: \S{1,1000}){0,8}? (\d{1,18})\r?\n")
_NEXT_WARC = re.compile(rb"\n" + _WARC_HEAD.pattern)
_NEXT_ARC = re.compile(rb"\n(?=(?:https?|ftp|dns|whois|filedesc):)" + _ARC_HEAD.pattern)


@dataclass(frozen=True, slots=True)
class Frame:
    """One record: its header fields, and its block unless `fault` says why there is none."""

    fields: dict[str, str]  # names in lower case; for ARC those of WARC
    block: bytes
    fault: str = ""  # "", "too_large", "truncated" or "malformed"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How records of one of the two formats begin."""

    head: re.Pattern[bytes]
    next: re.Pattern[bytes]  # a head at the beginning of a later line
    mark: re.Pattern[bytes]  # what a record, be it malformed, begins with where one is due
    longest: int  # bytes that a head may have


_WARC = _Kind(_WARC_HEAD, _NEXT_WARC, re.compile(rb"WARC/"), 128)
_ARC = _Kind(_ARC_HEAD, _NEXT_ARC, re.compile(rb"(?:https?|ftp|dns|whois|filedesc):"), 20_000)


class _Buffer:
    """Bytes of a stream that can be looked at before they are taken. Damage in the stream waits until they are all taken."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.held = bytearray()
        self.damage: CorruptInput | None = None
        self._ended = False

    def fill(self, size: int) -> bool:
        """Holds at least `size` bytes, if the stream has them."""
        while len(self.held) < size and not self._ended:
            try:
                block = self._stream.read(_BLOCK)
            except CorruptInput as error:
                self.damage, block = error, b""
            self._ended = not block
            self.held += block
        return len(self.held) >= size

    def take(self, size: int) -> bytes:
        with memoryview(self.held) as view:
            data = bytes(view[:size])
        del self.held[:size]
        return data

    def skip_breaks(self) -> None:
        while self.fill(1):
            breaks = _BREAKS.match(self.held)
            assert breaks is not None
            size = breaks.end()
            if not size:
                return
            del self.held[:size]

    def skip_to(self, kind: _Kind, size: int = sys.maxsize, here: bool = False) -> tuple[int, bool]:
        """Passes over everything up to the next line that begins a record, but no more than `size` bytes.

        Returns how many bytes were passed over, and whether a record begins behind them. `here`: it may begin at once.
        """
        passed = 0
        if here and self.fill(1) and kind.head.match(self.held):
            return passed, True
        while True:
            more = self.fill(2 * kind.longest)
            found = kind.next.search(self.held, 0, min(size - passed + kind.longest, len(self.held)))
            if found and passed + found.start() + 1 < size:
                place = found.start() + 1
                del self.held[:place]
                return passed + place, True
            # What could be the beginning of a head has to stay until the rest of it is seen.
            sure = min(len(self.held) - (kind.longest if more else 0), size - passed)
            del self.held[:sure]
            passed += sure
            if passed == size or not more:
                return passed, False


def frames(stream: Readable, limit: int) -> Iterator[Frame]:
    """Every record of a WARC or ARC stream. Holds at most one record of `limit` bytes and a block.

    CorruptInput follows after the last record that stands whole before the damage.
    """
    buffer = _Buffer(stream)
    kind = None
    while True:
        buffer.skip_breaks()
        if not buffer.fill(1):
            if buffer.damage is not None:
                raise buffer.damage
            return
        buffer.fill(_MAX_HEADER)
        if kind is None:
            kind = _ARC if _ARC_HEAD.match(buffer.held) else _WARC
        frame = _warc(buffer, limit) if kind is _WARC else _arc(buffer, limit)
        if frame is not None:
            yield frame


def _warc(buffer: _Buffer, limit: int) -> Frame | None:
    """The WARC record that begins here; None for one that is cut short by damage in the stream."""
    if not buffer.held.startswith(b"WARC/"):
        return _lost(buffer, _WARC, "malformed", "no record begins here")
    end = _HEADER_END.search(buffer.held, 0, _MAX_HEADER)
    if end is None or end.end() == end.start() + 1:
        cut = end is None and len(buffer.held) < _MAX_HEADER
        return _lost(buffer, _WARC, "truncated" if cut else "malformed", "the header does not end")
    fields = _fields(buffer.take(end.end()))
    length = fields.get("content-length", "")
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        return _lost(buffer, _WARC, "malformed", f"Content-Length is {length[:30]!r}", here=True)
    return _block(buffer, _WARC, fields, int(length), limit)


def _fields(header: bytes) -> dict[str, str]:
    """Names in lower case to values; the first line is the version, lines without a colon are passed over."""
    fields: dict[str, str] = {}
    name = ""
    for line in header.decode("utf-8", "replace").split("\n")[1:]:
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        if name:
            fields[name] = value.strip()
    return fields


def _arc(buffer: _Buffer, limit: int) -> Frame | None:
    match = _ARC_HEAD.match(buffer.held)
    if match is None:
        return _lost(buffer, _ARC, "malformed", "no record begins here")
    url, _, date, media, length = (part.decode("utf-8", "replace") for part in match.groups())
    buffer.take(match.end())
    described, http = url.startswith("filedesc:"), url.startswith(("http:", "https:"))
    fields = {
        "warc-type": "warcinfo" if described else "response" if http else "resource",
        "warc-target-uri": url,
        "warc-date": date,
        "content-type": "application/http; msgtype=response" if http else media,
        "content-length": length,
    }
    return _block(buffer, _ARC, fields, int(length), limit)


def _block(buffer: _Buffer, kind: _Kind, fields: dict[str, str], length: int, limit: int) -> Frame | None:
    if length > limit:
        passed, found = buffer.skip_to(kind, length, here=True)
        if found:
            return Frame(fields, b"", "truncated", f"{passed} of {length} bytes")
        if passed == length and _ends(buffer, kind, 0):
            return Frame(fields, b"", "too_large", f"{length} bytes")
    elif buffer.fill(length) and _ends(buffer, kind, length):
        return Frame(fields, buffer.take(length))
    return _lost(buffer, kind, "truncated", f"not the {length} bytes that it promises", here=True)


def _ends(buffer: _Buffer, kind: _Kind, place: int) -> bool:
    """Whether nothing but line breaks stands between `place` and the next record, or the end."""
    buffer.fill(place + _MAX_BREAKS + kind.longest)
    breaks = _BREAKS.match(buffer.held, place, place + _MAX_BREAKS)
    assert breaks is not None
    return breaks.end() == len(buffer.held) or kind.mark.match(buffer.held, breaks.end()) is not None


def _lost(buffer: _Buffer, kind: _Kind, fault: str, detail: str, here: bool = False) -> Frame | None:
    """A record without a known end: goes on at the next one. `here`: its header was taken, the next may begin at once."""
    _, found = buffer.skip_to(kind, here=here)
    if not found and buffer.damage is not None:
        return None  # the damage says it
    return Frame({}, b"", fault, detail)
