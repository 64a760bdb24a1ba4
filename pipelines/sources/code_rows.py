"""Rows of code: JSON lines and Parquet in the schemas of BigQuery's `github_repos` and of The Stack.

| what                | BigQuery                     | The Stack v1                               | v2 style            |
|---------------------|------------------------------|--------------------------------------------|---------------------|
| the file            | `content`, `binary`          | `content`                                  | `content`           |
| its repository      | `sample_repo_name`           | `max_stars_repo_name`                      | `repo_name`         |
| its path            | `sample_path`                | `max_stars_repo_path`                      | `path`              |
| its licences        | `license` (from `licenses`)  | `max_stars_repo_licenses`, a list          | `detected_licenses` |
| its id              | `id`                         | `hexsha`                                   | `blob_id`           |

A list of licences holds as a whole (`AND`): both lists are what a detector found in the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from pipelines.reading import CorruptInput, OversizedLine, decompressed, lines
from pipelines.records import Limits, Reject, short
from pipelines.schema import RejectReason
from pipelines.sources import parquet

_REPOSITORY = ("sample_repo_name", "max_stars_repo_name", "repo_name", "repository_name")
_PATH = ("sample_path", "max_stars_repo_path", "path")
_LICENSES = ("license", "max_stars_repo_licenses", "detected_licenses", "licenses")
_ID = ("id", "hexsha", "blob_id")
_COLUMNS = ("content", "binary", *_REPOSITORY, *_PATH, *_LICENSES, *_ID)
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One file as a row has it; what a row does not state is empty."""

    locator: str
    content: str | None
    binary: bool
    repository: str
    path: str
    licenses: tuple[str, ...]
    id: str


def json_rows(raw: BinaryIO, path: str, limits: Limits) -> Iterator[Row | Reject]:
    """The rows of JSON lines, packed or not; a line that is blank is none."""
    number = 0
    try:
        for line in lines(decompressed(raw), limits.record_bytes):
            if line.blank if isinstance(line, OversizedLine) else not line.strip():
                continue
            yield _json_row(f"{path}#{number}", line)
            number += 1
    except CorruptInput as error:
        yield Reject(f"{path}#{number}", RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)


def _json_row(locator: str, line: bytes | OversizedLine) -> Row | Reject:
    if isinstance(line, OversizedLine):
        return Reject(locator, RejectReason.TOO_LARGE, f"a line of {line.size} bytes")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Reject(locator, RejectReason.MALFORMED_JSON, short(error))
    if not isinstance(found, dict):
        return Reject(locator, RejectReason.MALFORMED_JSON, f"a {type(found).__name__}, not an object")
    return _row(locator, found)


def parquet_rows(raw: BinaryIO, path: str, limits: Limits) -> Iterator[Row | Reject]:
    """The rows of a Parquet file; a damaged row group is one reject for those of its rows that were not read."""
    try:
        file, batches = parquet.opened(raw, _COLUMNS, _BATCH_ROWS)
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except parquet.DAMAGE as error:
        yield Reject(f"{path}#0", RejectReason.CORRUPT_CONTAINER, short(error), unknown_rest=True)
        return
    columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    first = 0
    for group, count in enumerate(rows):
        done = 0
        try:
            for batch in file.iter_batches(batches[group], [group], columns, use_threads=False):
                for row in range(batch.num_rows):
                    yield _parquet_row(f"{path}#{first + done}", batch, row, limits)
                    done += 1
        except parquet.DAMAGE as error:
            yield Reject(f"{path}#{first + done}", RejectReason.CORRUPT_CONTAINER, short(error), count - done)
        first += count


def _parquet_row(locator: str, batch: Any, row: int, limits: Limits) -> Row | Reject:
    try:
        found = {name: batch.column(name)[row].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")
    if parquet.over(found.get("content"), limits):
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
    return _row(locator, found)


def _row(locator: str, found: dict[str, Any]) -> Row | Reject:
    content, binary = found.get("content"), found.get("binary") is True
    if content is None and not binary:
        return Reject(locator, RejectReason.MISSING_TEXT, "no 'content'")
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8")
        except UnicodeDecodeError as error:
            return Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")
    if content is not None and not isinstance(content, str):
        return Reject(locator, RejectReason.TEXT_NOT_STRING, f"'content' is a {type(content).__name__}")
    licenses = next((value for name in _LICENSES if (value := found.get(name))), ())
    listed = [licenses] if isinstance(licenses, str) else licenses if isinstance(licenses, list) else []
    return Row(
        locator,
        content,
        binary,
        _first(found, _REPOSITORY),
        _first(found, _PATH),
        tuple(name for name in listed if isinstance(name, str)),
        _first(found, _ID),
    )


def _first(found: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((value for name in names if isinstance(value := found.get(name), str) and value), "")
