"""Parquet: a record is a row; row groups are read in small batches, only the columns that are asked for.

| what stands there                                    | what becomes of it                                    |
|------------------------------------------------------|-------------------------------------------------------|
| a string under the text's name                       | a document                                            |
| null                                                 | reject `missing_text`                                 |
| no such column in the file                           | `missing_text` for each row, as one reject            |
| a column of another type                             | `text_not_string` for each row, as one reject         |
| bytes in a string column that are no UTF-8           | reject `invalid_utf8`                                 |
| a text over the limit                                | reject `too_large`                                    |
| a damaged row group                                  | one `corrupt_container` for its unread rows           |
| no readable footer                                   | one `corrupt_container` with an unknown rest          |

Large files are cut into spans of row groups. An unreadable row group ends no file: its rows are known from the footer.

What is held is a page and a batch: at most 512 rows, fewer where the footer says that they are over 16 MiB. Texts stay in their
dictionaries until they are looked at one by one, so that a few hundred bytes do not become 512 times a long text; the delta
encodings, which know no dictionary, are read by 16 rows. A page is decompressed whole, whatever its size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.reading import open_input
from pipelines.records import Input, Limits, Record, Reject, Span
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions

_BATCH_ROWS = 512
_DELTA_ROWS = 16
_OTHERS = ("id", "url", "title", "date", "license")
_BATCH_BYTES = 16 << 20
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one input, or of the row groups of one span."""
    with open_input(source_input.url) as raw:
        try:
            file, batches = opened(raw, [getattr(options, name) for name in ("text", *_OTHERS)])
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            kinds = {field.name: field.type for field in file.schema_arrow}
        except DAMAGE as error:
            yield _corrupt(f"{source_input.path}#0", error, 1, unknown_rest=True)
            return
        groups = range(span.start, span.stop) if span else range(len(rows))
        number = sum(rows[: groups.start])
        for group in groups:
            yield from _row_group(file, group, rows[group], batches[group], number, kinds, source_input.path, options, limits)
            number += rows[group]


def opened(raw: BinaryIO, names: Collection[str], most_rows: int = _BATCH_ROWS) -> tuple[pq.ParquetFile, list[int]]:
    """(the file, with the texts among the columns `names` in dictionaries; how many rows of each row group to read at once)."""
    metadata = pq.read_metadata(raw)
    texts = {field.name for field in metadata.schema.to_arrow_schema() if field.name in names and _is_text(field.type)}
    columns = [index for index in range(metadata.num_columns) if metadata.schema.column(index).path in texts]
    delta = set()
    rows = []
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        chunks = [found.column(index) for index in columns]
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        delta |= {chunk.path_in_schema for chunk in chunks if any("DELTA" in encoding for encoding in chunk.encodings)}
        rows.append(max(min(most_rows, _BATCH_BYTES * found.num_rows // max(size, 1)), 1))
    file = pq.ParquetFile(
        raw, metadata=metadata, page_checksum_verification=True, pre_buffer=False, read_dictionary=sorted(texts - delta)
    )
    return file, [min(count, _DELTA_ROWS) for count in rows] if delta else rows


def _row_group(
    file: pq.ParquetFile,
    group: int,
    rows: int,
    batch_rows: int,
    first: int,
    kinds: dict[str, Any],
    path: str,
    options: SourceOptions,
    limits: Limits,
) -> Iterator[Record | Reject]:
    if rows == 0:
        return
    kind = kinds.get(options.text)
    if kind is None:
        yield Reject(f"{path}#{first}", RejectReason.MISSING_TEXT, f"no column {options.text!r}", rows)
        return
    if not _is_text(kind):
        yield Reject(f"{path}#{first}", RejectReason.TEXT_NOT_STRING, f"{options.text!r} is {kind}", rows)
        return
    wanted = {
        name: column
        for name in _OTHERS
        if (column := getattr(options, name)) in kinds and (_is_text(kinds[column]) or pa.types.is_integer(kinds[column]))
    }
    done = 0
    try:
        columns = sorted({options.text, *wanted.values()})
        for batch in file.iter_batches(batch_rows, [group], columns, use_threads=False):
            texts = batch.column(options.text)
            others = {name: batch.column(column) for name, column in wanted.items()}
            for row in range(batch.num_rows):
                yield _record(f"{path}#{first + done}", texts[row], {n: c[row] for n, c in others.items()}, limits)
                done += 1
    except DAMAGE as error:
        yield _corrupt(f"{path}#{first + done}", error, rows - done, unknown_rest=False)


def _record(locator: str, text: Any, others: dict[str, Any], limits: Limits) -> Record | Reject:
    if not text.is_valid:
        return Reject(locator, RejectReason.MISSING_TEXT, "null")
    try:
        value = text.as_py()
    except UnicodeDecodeError as error:
        return Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            return Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")
    if over(value, limits):
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
    fields = {name: _string(found) for name, found in others.items()}
    source_id, url, title, date, license_ = (fields.get(name) for name in ("id", "url", "title", "date", "license"))
    return Record(locator, value, source_id, url, title, date, license_)


def over(value: Any, limits: Limits) -> bool:
    """Whether a text has more bytes than a record may have."""
    if not isinstance(value, str | bytes):
        return False
    most = limits.record_bytes
    return len(value) > most or (isinstance(value, str) and len(value) * 4 > most and len(value.encode()) > most)


def _string(value: Any) -> str | None:
    try:
        found = value.as_py()
    except UnicodeDecodeError:
        return None
    return None if found is None or isinstance(found, bytes) else str(found)


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in (*tests, pa.types.is_string_view, pa.types.is_binary_view))


def _corrupt(locator: str, error: Exception, count: int, unknown_rest: bool) -> Reject:
    return Reject(locator, RejectReason.CORRUPT_CONTAINER, " ".join(str(error).split())[:200], count, unknown_rest)


def spans(url: str, target_bytes: int) -> Iterator[Span]:
    """Spans of whole row groups of about `target_bytes` of compressed data; none for a file without a readable footer."""
    with open_input(url) as raw:
        try:
            metadata = pq.ParquetFile(raw, pre_buffer=False).metadata
        except DAMAGE:
            return
        start = size = rows = first = 0
        for group in range(metadata.num_row_groups):
            found = metadata.row_group(group)
            size += sum(found.column(i).total_compressed_size for i in range(found.num_columns))
            rows += found.num_rows
            if size >= target_bytes:
                yield Span(start, group + 1, first)
                start, size, first = group + 1, 0, rows
        if start < metadata.num_row_groups:
            yield Span(start, metadata.num_row_groups, first)


def count(source_input: Input, options: SourceOptions) -> int:
    """The rows that the footer names; a file without a readable one counts as one record."""
    with open_input(source_input.url) as raw:
        try:
            return int(pq.read_metadata(raw).num_rows)
        except DAMAGE:
            return 1
