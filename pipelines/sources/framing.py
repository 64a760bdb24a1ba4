"""WARC and ARC records out of a stream of bytes, one after another, bounded and fully accounted for.

FastWARC reads WARC fast, but hands out a record that was cut short as if it were whole, lets a Content-Length that is too large
swallow the records behind it, and knows no ARC. So the frame of a record (where it starts and ends) is read here, and what is
in it (HTTP header, chunks, encodings) is left to FastWARC.

A record whose promised length does not lead to a record's end is `truncated`; reading goes on at the next line that begins a
record, inside the swallowed bytes if it stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.reading import Readable

_BLOCK = 1 << 20
_MAX_HEADER = 1 << 16
_NEXT = re.compile(rb"(?:^|\r?\n)(?=WARC/1\.[01]\r?\n)")
_ARC_LINE = re.compile(rb"^(\S+) (\S+) (\d{8,14}) (\S+)(?: \S+)*? (\d+)\r?$")


@dataclass(frozen=True, slots=True)
class Frame:
    """One record: its header fields, and its block unless `fault` says why there is none."""

    fields: dict[str, str]  # names in lower case; for ARC those of WARC
    block: bytes
    fault: str = ""  # "", "too_large", "truncated" or "malformed"
    detail: str = ""


class _Buffer:
    """Bytes of a stream that can be looked at before they are taken."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.held = bytearray()
        self._ended = False

    def fill(self, size: int) -> bool:
        """Holds at least `size` bytes, if the stream has them."""
        while len(self.held) < size and not self._ended:
            block = self._stream.read(_BLOCK)
            self._ended = not block
            self.held += block
        return len(self.held) >= size

    def take(self, size: int) -> bytes:
        self.fill(size)
        data = bytes(self.held[:size])
        del self.held[:size]
        return data

    def skip(self, size: int) -> int:
        """Passes over up to `size` bytes without keeping them; returns how many there were."""
        left = size
        while left:
            if not self.held and not self.fill(1):
                break
            passed = min(left, len(self.held))
            del self.held[:passed]
            left -= passed
        return size - left

    def line(self) -> bytes | None:
        """The next line with its newline; None at the end, and where it is longer than any header may be."""
        size = 0
        while (stop := self.held.find(b"\n", max(size - 1, 0))) < 0:
            size = len(self.held)
            if size > _MAX_HEADER:
                return None
            if not self.fill(size + 1):
                return self.take(size) if size else None
        return self.take(stop + 1)


def frames(stream: Readable, limit: int) -> Iterator[Frame]:
    """Every record of a WARC or ARC stream. Holds at most one record of `limit` bytes and a block."""
    buffer = _Buffer(stream)
    while True:
        while buffer.fill(1) and buffer.held[:1] in (b"\r", b"\n"):
            buffer.skip(1)
        if not buffer.fill(1):
            return
        line = buffer.line()
        if line is not None and line.startswith(b"WARC/"):
            yield _warc(buffer, limit)
        elif line is not None and (match := _ARC_LINE.match(line.rstrip(b"\n"))):
            yield _arc(buffer, match, limit)
        else:
            _resynchronise(buffer)
            yield Frame({}, b"", "malformed", "no record begins here")


def _warc(buffer: _Buffer, limit: int) -> Frame:
    fields: dict[str, str] = {}
    size = 0
    name = ""
    while True:
        line = buffer.line()
        size += len(line or b"")
        if line is None or size > _MAX_HEADER:
            _resynchronise(buffer)
            return Frame(fields, b"", "malformed", "the header does not end")
        if not line.strip():
            break
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text[0] in " \t" and name:
            fields[name] += " " + text.strip()
            continue
        name, colon, value = text.partition(":")
        name = name.strip().lower()
        if colon:
            fields[name] = value.strip()
    length = fields.get("content-length", "")
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        _resynchronise(buffer)
        return Frame(fields, b"", "malformed", f"Content-Length is {length[:30]!r}")
    return _block(buffer, fields, int(length), limit)


def _block(buffer: _Buffer, fields: dict[str, str], length: int, limit: int) -> Frame:
    if length > limit:
        passed = buffer.skip(length)
        if passed < length:
            return Frame(fields, b"", "truncated", f"{passed} of {length} bytes")
        return Frame(fields, b"", "too_large", f"{length} bytes")
    block = buffer.take(length)
    if len(block) < length:
        return _short(buffer, fields, block, length)
    buffer.fill(4)
    if buffer.held and not buffer.held.startswith((b"\r\n", b"\n")):
        return _short(buffer, fields, block, length)
    return Frame(fields, block)


def _short(buffer: _Buffer, fields: dict[str, str], block: bytes, length: int) -> Frame:
    """The promised length does not end at a record's end: go on at the next record, which may lie inside the block."""
    found = _NEXT.search(block)
    if found:
        buffer.held[:0] = block[found.end() :]
        return Frame(fields, b"", "truncated", f"{found.start()} of {length} bytes")
    _resynchronise(buffer)
    return Frame(fields, b"", "truncated", f"not the {length} bytes that it promises")


def _resynchronise(buffer: _Buffer) -> None:
    """Passes over everything up to the next line that begins a WARC record, or to the end."""
    while True:
        found = _NEXT.search(buffer.held)
        if found:
            del buffer.held[: found.end()]
            return
        keep = min(len(buffer.held), 16)
        del buffer.held[: len(buffer.held) - keep]
        if not buffer.fill(keep + 1):
            del buffer.held[:]
            return


def _arc(buffer: _Buffer, match: re.Match[bytes], limit: int) -> Frame:
    url, _, date, kind, length = (part.decode("utf-8", "replace") for part in match.groups())
    described, http = url.startswith("filedesc:"), url.startswith(("http:", "https:"))
    fields = {
        "warc-type": "warcinfo" if described else "response" if http else "resource",
        "warc-target-uri": url,
        "warc-date": date,
        "content-type": "application/http; msgtype=response" if http else kind,
        "content-length": length,
    }
    return _block(buffer, fields, int(length), limit)
