"""JSON lines: a record is a line that is not blank.

| what stands there                                             | what becomes of it                     |
|---------------------------------------------------------------|----------------------------------------|
| an object with a string under the text's name                 | a document                             |
| no object; NaN, a lone surrogate, over 1,023 levels deep      | reject `malformed_json`                |
| bytes that are no UTF-8                                       | reject `invalid_utf8`                  |
| no text, or null / text that is not a string                  | `missing_text` / `text_not_string`     |
| a line over the limit                                         | `too_large`, never held                |
| damage in the container                                       | one `corrupt_container` for the rest   |

A byte order mark before the first line is skipped. A key that stands twice: the last one counts. The id may be a whole number;
other fields that are not strings are left out. Plain files are cut into spans at line starts; a line belongs to the span in
which it begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from pipelines.reading import CorruptInput, OversizedLine, Readable, container, decompressed, lines, open_input
from pipelines.records import Input, Limits, Record, Reject, Span
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one input, or of one span of a plain one."""
    number = span.first_record if span else 0
    with open_input(source_input.url) as raw:
        stream: Readable
        if span:
            raw.seek(span.start)
            stream = _Bounded(raw, span.stop - span.start)
        else:
            stream = decompressed(raw)
        try:
            for place, line in enumerate(lines(stream, limits.record_bytes)):
                if isinstance(line, bytes) and place == 0 and number == 0:
                    line = line.removeprefix(_BOM)
                if line.blank if isinstance(line, OversizedLine) else not line.strip():
                    continue
                yield _record(f"{source_input.path}#{number}", line, options)
                number += 1
        except CorruptInput as error:
            yield Reject(
                f"{source_input.path}#{number}", RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True
            )


def _record(locator: str, line: bytes | OversizedLine, options: SourceOptions) -> Record | Reject:
    if isinstance(line, OversizedLine):
        return Reject(locator, RejectReason.TOO_LARGE, f"a line of {line.size} bytes")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _malformed(locator, line, error)
    if not isinstance(found, dict):
        return Reject(locator, RejectReason.MALFORMED_JSON, f"a {type(found).__name__}, not an object")
    return record_of(locator, found, options)


def record_of(locator: str, found: dict[str, Any], options: SourceOptions) -> Record | Reject:
    """The record in a row of named values."""
    text = field(found, options.text)
    if text is None:
        return Reject(locator, RejectReason.MISSING_TEXT, f"no {options.text!r}")
    if not isinstance(text, str):
        return Reject(locator, RejectReason.TEXT_NOT_STRING, f"{options.text!r} is a {type(text).__name__}")
    source_id = field(found, options.id)
    return Record(
        locator,
        text,
        str(source_id) if isinstance(source_id, str | int) and not isinstance(source_id, bool) else None,
        url=_string(field(found, options.url)),
        title=_string(field(found, options.title)),
        date=_string(field(found, options.date)),
        license=_string(field(found, options.license)),
    )


def _malformed(locator: str, line: bytes, error: Exception) -> Reject:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as damage:
        return Reject(locator, RejectReason.INVALID_UTF8, f"byte {damage.start} of the line")
    return Reject(locator, RejectReason.MALFORMED_JSON, str(error))


def field(found: dict[str, Any], name: str) -> Any:
    """The value under a name; a name that is not there as it stands is followed along its dots."""
    if name in found or "." not in name:
        return found.get(name)
    value: Any = found
    for step in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


class _Bounded:
    """At most `size` bytes of a stream."""

    def __init__(self, raw: Readable, size: int) -> None:
        self._raw, self._left = raw, size

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(min(self._left, size if size >= 0 else self._left))
        self._left -= len(data)
        return data


def spans(url: str, target_bytes: int) -> Iterator[Span]:
    """Spans of about `target_bytes` at line starts, with the number of the first record of each; none for containers."""
    with open_input(url) as raw:
        if container(raw) is not None:
            return
        start = at = line_start = 0
        number = first = 0
        blank = True
        while block := raw.read(_BLOCK):
            begin = 0
            while (stop := block.find(b"\n", begin)) >= 0:
                blank = blank and not block[begin:stop].removeprefix(_BOM if line_start == 0 else b"").strip()
                number += not blank
                line_start, begin, blank = at + stop + 1, stop + 1, True
                if line_start - start >= target_bytes:
                    yield Span(start, line_start, first)
                    start, first = line_start, number
            blank = blank and not block[begin:].strip()
            at += len(block)
        if at > start:
            yield Span(start, at, first)


def count(source_input: Input, options: SourceOptions) -> int:
    """Lines that are not blank, by Python's own readers; a damaged rest counts as one.

    What a damaged container delivers before its damage is for `reading` to say, so such a one is counted as it delivers it.
    """
    import zlib

    import zstandard

    with open_input(source_input.url) as raw:
        try:
            whole, cut = _filled_lines(_own_reader(raw))
        except (OSError, EOFError, RuntimeError, zlib.error, zstandard.ZstdError):
            whole, cut = _filled_lines(decompressed(raw))
        return whole + cut


def _own_reader(raw: Any) -> Any:
    import bz2
    import gzip
    import io

    head = raw.read(4)
    raw.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if head[:3] == b"BZh":
        return bz2.BZ2File(raw)
    if head == b"\x04\x22\x4d\x18":
        import lz4.frame

        return lz4.frame.open(raw)
    if head == b"\x28\xb5\x2f\xfd":
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def _filled_lines(stream: Readable) -> tuple[int, bool]:
    """(lines that hold more than blanks, whether there is something behind them that is damaged). Holds no line."""
    found, filled = 0, False
    head = b""
    try:
        while len(head) < len(_BOM) and (block := stream.read(_BLOCK)):
            head += block
        block = head.removeprefix(_BOM)
        while head:
            *ended, rest = block.split(b"\n")
            for line in ended:
                found += filled or bool(line.strip())
                filled = False
            filled = filled or bool(rest.strip())
            block = head = stream.read(_BLOCK)
    except CorruptInput:
        return found, True
    return found + filled, False
