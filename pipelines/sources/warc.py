"""WARC, ARC and WET: a record is every record of the archive, whatever its type.

| what stands there                                              | what becomes of it                                 |
|----------------------------------------------------------------|----------------------------------------------------|
| `response` or `resource` of HTML, XHTML or plain text          | a document: the main content (`html`)              |
| WET `conversion` of plain text                                 | a document: its text as it stands                  |
| warcinfo, request, metadata, revisit, ...                      | reject `not_a_response`                            |
| a response with another status than 200                        | `http_status`                                      |
| another media type                                             | `not_text`                                         |
| a page whose URL the source's block list names                 | `blocked_url`, before anything else is looked at   |
| shorter or longer than its header promises, a gzip or deflate body without its end | `truncated_record`; reading goes on |
| no record, no readable HTTP header, an encoding that lies      | `malformed_record`; reading goes on                |
| over the limit, before or after decoding                       | `too_large`, never held                            |
| HTML nested too deep for linear time                           | `too_deep`                                         |
| damage in the container                                        | one `corrupt_container` for the rest               |

Consecutive rejects with one reason are one row with their count; blocked pages only where one entry blocks them. url is the target
URI, date the record's, source_id the record's id, title the page's. A page that the crawl itself cut (`WARC-Truncated`) is what is
there of it, and so is a brotli body that was cut, which nothing tells.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from pipelines.reading import CorruptInput, Readable, decompressed, open_input
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions
from pipelines.sources.framing import Frame, frames
from pipelines.sources.html import TooDeep, decode, main_text

_BLOCK = 1 << 20
_HTML = frozenset(["text/html", "application/xhtml+xml"])
_TEXT = _HTML | {"text/plain"}
_FAULTS = {
    "too_large": RejectReason.TOO_LARGE,
    "truncated": RejectReason.TRUNCATED_RECORD,
    "malformed": RejectReason.MALFORMED_RECORD,
}
# What no text begins with: a control character soon, as in compressed bytes, or the length of a chunk.
_ENCODED = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f]{0,512}[\x00-\x08\x0e-\x1a\x1c-\x1f]|[0-9a-fA-F]{1,8}[ \t]*\r?\n")
_BITS = {"gzip": 31, "deflate": 15}  # of zlib's window and frame
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
_ARC_LINE = re.compile(rb"\S+:\S* \S+ \d{14} \S+(?: \S+)*? (\d{1,18})\r?\n")
_ARC_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)")


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one archive; runs of equal rejects are joined."""
    run: Reject | None = None
    for found in _read(source_input, options, limits):
        if isinstance(found, Reject) and run is not None and _alike(run, found):
            run = Reject(run.locator, run.reason, run.detail, run.count + found.count)
            continue
        if run is not None:
            yield run
            run = None
        if isinstance(found, Reject):
            run = found
        else:
            yield found
    if run is not None:
        yield run


def _alike(run: Reject, found: Reject) -> bool:
    if run.reason == RejectReason.BLOCKED_URL and run.detail != found.detail:
        return False
    return run.reason == found.reason and not found.unknown_rest


def _read(source_input: Input, options: SourceOptions, limits: Limits) -> Iterator[Record | Reject]:
    number = 0
    with open_input(source_input.url) as raw:
        try:
            for frame in frames(decompressed(raw), limits.record_bytes):
                yield _judged(f"{source_input.path}#{number}", frame, options, limits)
                number += 1
        except CorruptInput as error:
            locator = f"{source_input.path}#{number}"
            yield Reject(locator, RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)


def _judged(locator: str, frame: Frame, options: SourceOptions, limits: Limits) -> Record | Reject:
    if frame.fault:
        return Reject(locator, _FAULTS[frame.fault], frame.detail)
    kind = frame.fields.get("warc-type", "").lower()
    if kind not in ("response", "resource", "conversion"):
        return Reject(locator, RejectReason.NOT_A_RESPONSE, short(kind))
    url = _url(frame)
    if options.blocked is not None and url and (entry := options.blocked(url)) is not None:
        return Reject(locator, RejectReason.BLOCKED_URL, short(entry))
    stated = frame.fields.get("content-type", "")
    media, charset, content = _media(stated), _charset(stated), frame.block
    if media == "application/http":
        try:
            status, media, charset, payload = _http(frame, limits.record_bytes)
        except _CutOff as error:
            return Reject(locator, RejectReason.TRUNCATED_RECORD, str(error))
        if payload is None:
            return Reject(locator, RejectReason.MALFORMED_RECORD, "no readable HTTP response")
        if status != 200:
            return Reject(locator, RejectReason.HTTP_STATUS, str(status))
        content = payload
    if media not in _TEXT:
        return Reject(locator, RejectReason.NOT_TEXT, short(media) or "no media type")
    if len(content) > limits.record_bytes:
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes when decoded")
    if kind == "conversion":
        charset = "utf-8"
    text, title = decode(content, charset), None
    if media in _HTML:
        try:
            text, title = main_text(text)
        except TooDeep as error:
            return Reject(locator, RejectReason.TOO_DEEP, str(error))
    return _record(locator, frame, text, title)


class _CutOff(Exception):
    """An encoded body ends before its end."""


def _http(frame: Frame, limit: int) -> tuple[int | None, str, str | None, bytes | None]:
    """(status, media type, charset, decoded payload or None) of an HTTP response, bounded to limit + 1 bytes.

    _CutOff where FastWARC, which says nothing then, hands out the beginning of an encoded body.
    """
    # Archives often hold the decoded payload under the header of the encoded one: then it is taken as it stands.
    for auto_decode in ("all", "transfer", "none"):
        try:
            record: Any = _http_record(frame.block)
            record.parse_http(auto_decode=auto_decode, quirks_mode=True)
            headers = record.http_headers
            if headers is None or headers.status_code is None:
                break
            payload = record.reader.read(limit + 1)
        except OSError:
            continue
        media = _media(record.http_content_type or "")
        encoding = (headers.get("Content-Encoding") or "").strip().lower()
        if encoding in _BITS:
            if auto_decode == "all" and headers.status_code == 200 and media in _TEXT and len(payload) <= limit:
                _check_end(frame.block, encoding, limit)
            elif encoding == "deflate" and auto_decode == "transfer":  # many servers leave out zlib's frame
                found, ended = _inflated(payload, -15, limit)
                payload = found if ended else payload
        if auto_decode != "all" and media in _TEXT and _ENCODED.match(payload):
            break
        return headers.status_code, media, _charset(headers.get("Content-Type") or ""), payload
    return None, "", None, None


def _check_end(block: bytes, encoding: str, limit: int) -> None:
    """_CutOff for a body that FastWARC has decoded, and that does not end as it should."""
    record: Any = _http_record(block)
    record.parse_http(auto_decode="transfer", quirks_mode=True)
    body = record.reader.read(len(block))
    if body and not _inflated(body, _BITS[encoding], limit)[1]:
        raise _CutOff(f"the {encoding} body is cut off")


def _inflated(data: bytes, bits: int, limit: int) -> tuple[bytes, bool]:
    """(at most limit + 1 bytes of what deflate made `data` of, whether they are all there or more than the limit)."""
    from isal import isal_zlib

    broken: Any = isal_zlib.error
    decoder = isal_zlib.decompressobj(bits)
    try:
        found = decoder.decompress(data, limit + 1)
    except broken:
        return b"", False
    return found, decoder.eof or len(found) > limit


def _http_record(block: bytes) -> Any:
    from fastwarc.warc import WarcRecord

    header = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
    return WarcRecord.from_bytes(header + b"Content-Length: %d\r\n\r\n" % len(block) + block)


def _media(content_type: str) -> str:
    return content_type.split(";")[0].strip().lower()


def _charset(content_type: str) -> str | None:
    found = _CHARSET.search(content_type)
    return found[1] if found else None


def _record(locator: str, frame: Frame, text: str, title: str | None) -> Record:
    fields = frame.fields
    date = fields.get("warc-date")
    if date and (arc := _ARC_DATE.fullmatch(date)):
        date = "{}-{}-{}T{}:{}:{}Z".format(*arc.groups())
    return Record(locator, text, fields.get("warc-record-id"), _url(frame), title, date)


def _url(frame: Frame) -> str | None:
    url = frame.fields.get("warc-target-uri")  # some writers put it in angle brackets
    return url and url.strip("<>")


def count(source_input: Input, options: SourceOptions) -> int:
    """Records as FastWARC counts them; ARC by its header lines. Exact for archives without damage."""
    from fastwarc.warc import ArchiveIterator, any_type

    found = 0
    with open_input(source_input.url) as raw:
        try:
            if decompressed(raw).read(_BLOCK).lstrip().startswith(b"filedesc:"):
                return _count_arc(io.BufferedReader(_Raw(decompressed(raw)), _BLOCK))
            raw.seek(0)
            for _ in ArchiveIterator(raw, record_types=any_type, parse_http=False):
                found += 1
        except (CorruptInput, OSError):
            found += 1
    return found


def _count_arc(stream: io.BufferedReader) -> int:
    found = 0
    while line := stream.readline(1 << 16):
        if match := _ARC_LINE.fullmatch(line):
            found += 1
            left = int(match[1])
            while left and (skipped := len(stream.read(min(left, _BLOCK)))):
                left -= skipped
    return found


class _Raw(io.RawIOBase):
    """A `Readable` as Python's own streams want it."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._held = stream, b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        self._held = self._held or self._stream.read(len(target))
        data, self._held = self._held[: len(target)], self._held[len(target) :]
        target[: len(data)] = data
        return len(data)
