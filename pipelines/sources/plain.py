"""Plain text: a record is a file, read strictly as UTF-8.

| what stands there                 | what becomes of it                                        |
|-----------------------------------|-----------------------------------------------------------|
| UTF-8, with or without byte order mark; also nothing at all | a document                      |
| bytes that are no UTF-8           | reject `invalid_utf8`                                     |
| more bytes than the limit         | reject `too_large`, never held                            |
| damage in the container           | one `corrupt_container`; half a text is no document       |
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.reading import CorruptInput, decompressed, open_input
from pipelines.records import Input, Limits, Record, Reject, Span
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions

_BLOCK = 1 << 20


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The one record of an input."""
    locator = f"{source_input.path}#0"
    blocks: list[bytes] = []
    size = 0
    try:
        with open_input(source_input.url) as raw:
            stream = decompressed(raw)
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > limits.record_bytes:
                    yield Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
                    return
                blocks.append(block)
        yield Record(locator, b"".join(blocks).decode("utf-8").removeprefix("\ufeff"))
    except CorruptInput as error:
        yield Reject(locator, RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)
    except UnicodeDecodeError as error:
        yield Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")


def count(source_input: Input, options: SourceOptions) -> int:
    """A file is a record."""
    return 1
