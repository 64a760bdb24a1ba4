"""Books: a record is a book, which is a text file, an EPUB, or a member of an archive that is one of the two.

| what stands there                                                            | what becomes of it                              |
|------------------------------------------------------------------------------|-------------------------------------------------|
| a text in UTF-8, or in the character set that its Gutenberg header states; gzip, bz2, zstd, lz4 | a document   |
| an EPUB, known by its first member or by its name                            | a document (`epub`)                             |
| a zip or a tar of those: members `.txt`, `.text`, `.epub`                    | a document each                                 |
| another member                                                               | reject `not_text`                               |
| other bytes than those of its character set                                  | `invalid_utf8`                                  |
| an EPUB that is no archive, without container, package, spine or a chapter; one that is encrypted | `malformed_record` |
| a book over the limit, a member that unpacks beyond it                       | `too_large`, never held                         |
| a link, a device, a path that leads out                                      | `unsafe_path`                                   |
| damage in a container                                                        | `corrupt_container`                             |

Project Gutenberg's header, licence and credits go (`gutenberg`). title and date come from its header or from the package document,
license too; source_id is the book's number at Gutenberg, with its page as url, or the identifier of the package document.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.errors import UserError
from pipelines.reading import CorruptInput, decompressed, open_input
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions, gutenberg
from pipelines.sources.archives import Member, Passed, is_archive, walk
from pipelines.sources.epub import Unreadable, read_epub
from pipelines.sources.member_count import count_members

_BLOCK = 1 << 20
_EPUB, _TEXTS = ".epub", (".txt", ".text")
_ZIP = b"PK\x03\x04"
_FIRST_MEMBER = b"mimetypeapplication/epub+zip"  # stored, and its name stands 30 bytes into the file
_CHARSET = re.compile(rb"^character set encoding:[ \t]*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE | re.MULTILINE)
_CHARSET_REACH = 8192


def read(source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None) -> Iterator[Record | Reject]:
    """The books of one input."""
    locator = f"{source_input.path}#0"
    with open_input(source_input.url) as raw:
        kind = _kind(raw, source_input.path)
        if kind == "text":
            yield _text_file(locator, raw, limits)
    if kind == "epub":
        yield _epub(locator, source_input, limits)
    elif kind == "archive":
        for found in walk(source_input, limits, lambda name: name.lower().endswith((_EPUB, *_TEXTS))):
            yield _member(source_input.path, found, limits)


def _kind(raw: BinaryIO, path: str) -> str:
    """ "epub", "archive" or "text", by the first bytes, and for an EPUB by the name too."""
    head = raw.read(30 + len(_FIRST_MEMBER))
    raw.seek(0)
    if path.lower().endswith(_EPUB) or (head.startswith(_ZIP) and head[30:] == _FIRST_MEMBER):
        return "epub"
    return "archive" if is_archive(raw) else "text"


def _text_file(locator: str, raw: BinaryIO, limits: Limits) -> Record | Reject:
    blocks: list[bytes] = []
    size = 0
    stream = decompressed(raw)
    try:
        while block := stream.read(_BLOCK):
            size += len(block)
            if size > limits.record_bytes:
                return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
            blocks.append(block)
    except CorruptInput as error:
        return Reject(locator, RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)
    return _text(locator, b"".join(blocks))


def _member(path: str, found: Member | Passed | Reject, limits: Limits) -> Record | Reject:
    if isinstance(found, Reject):
        return found
    locator = f"{path}!{found.name}#{found.number}"
    if isinstance(found, Passed):
        return Reject(locator, RejectReason.NOT_TEXT, "neither text nor EPUB by its name")
    if not found.name.lower().endswith(_EPUB):
        return _text(locator, found.content)
    with tempfile.NamedTemporaryFile(prefix="winnow-epub-") as spool:  # an EPUB is read from its end
        try:
            spool.write(found.content)
            spool.flush()
        except OSError as error:
            where = f"{tempfile.gettempdir()}: {short(error)}"
            raise UserError(f"{where}; EPUBs of archives are put there: free some room or set TMPDIR") from error
        return _epub(locator, Input(found.name, spool.name, len(found.content), ""), limits)


def _text(locator: str, content: bytes) -> Record | Reject:
    """The book in the bytes of a text file."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    stated = _CHARSET.search(content, 0, _CHARSET_REACH)
    charset = map_encoding_to_html5(stated[1].decode(), fallback_utf8=False) if stated else None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = content.decode(charset or "utf-8")
        except (UnicodeDecodeError, LookupError):
            return Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")
    return _record(locator, text, {})


def _epub(locator: str, source_input: Input, limits: Limits) -> Record | Reject:
    with open_input(source_input.url) as raw:
        if raw.read(len(_ZIP)) != _ZIP:
            return Reject(locator, RejectReason.MALFORMED_RECORD, "an EPUB that is no archive")
    try:
        book = read_epub(source_input, limits)
    except Unreadable as error:
        return Reject(locator, error.reason, short(error))
    if len(book.text.encode()) > limits.record_bytes:
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes of text")
    return _record(locator, book.text, book.fields)


def _record(locator: str, text: str, fields: dict[str, str]) -> Record:
    """The document of a book; what its package document says goes before what Gutenberg's header says."""
    book = gutenberg.strip(text.replace("\r\n", "\n").replace("\r", "\n"))
    return Record(
        locator,
        book.text,
        book.number or fields.get("identifier"),
        url=book.number and f"https://www.gutenberg.org/ebooks/{book.number}",
        title=fields.get("title") or book.title,
        date=fields.get("date") or book.date,
        license=fields.get("rights") or book.license,
    )


def count(source_input: Input, options: SourceOptions) -> int:
    """A text or an EPUB is one; members of an archive are counted by another reader."""
    with open_input(source_input.url) as raw:
        return count_members(raw) if _kind(raw, source_input.path) == "archive" else 1
