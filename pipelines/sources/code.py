"""Code: a record is a file of a tree, a member of an archive, or a row, told by the input's first bytes and its name.

| what stands there                                                 | what becomes of it                                    |
|-------------------------------------------------------------------|-------------------------------------------------------|
| code whose licence is Apache, BSD or MIT                          | a document, without its licence header                |
| a licence that is told and is another                             | reject `license_not_permitted`, with its name         |
| no licence, or a statement that cannot be told                    | `license_unknown`                                     |
| no language by its name; generated or minified; binary            | `not_code`                                            |
| bytes that are no UTF-8                                           | `invalid_utf8`                                        |
| over the limit                                                    | `too_large`, never held                               |
| in an archive: links, devices, paths that lead out                | `unsafe_path`                                         |
| a row without content, with another type, or that is no JSON      | `missing_text`, `text_not_string`, `malformed_json`   |
| damage in a container                                             | one `corrupt_container` for the rest                  |

Tar and zip (a repository as GitHub gives it, a wheel, an sdist), JSON lines and Parquet (`code_rows`), and single files. Name is
judged first, then licence, then content. What a file says at its own head (an SPDX tag, a notice) counts before what is said
for its folder (`code_statements`) or its row. An archive is read twice, since the licence may stand behind the files: once for
the licences, once for the code.

source_id is `<repository>:<path>` (the archive's own path in archives and trees), title the language, license the SPDX expression.
Consecutive rejects with one reason and detail are one row with their count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pipelines.reading import CorruptInput, decompressed, open_input
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions, jsonl, parquet
from pipelines.sources.archives import Member, Passed, is_archive, read_members, walk
from pipelines.sources.boilerplate import generated, without_header
from pipelines.sources.code_languages import language_of
from pipelines.sources.code_rows import Row, json_rows, parquet_rows
from pipelines.sources.code_statements import Statements, is_statement, joined, of_tree
from pipelines.sources.licenses import is_permitted, license_of_expression, license_of_header
from pipelines.sources.member_count import count_members

_BLOCK = 1 << 20
_PACKED = (".gz", ".bz2", ".zst", ".lz4")
Licence = Callable[[], tuple[bool, str | None]]  # whether one is stated, and which; None: it cannot be told


def read(source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None) -> Iterator[Record | Reject]:
    """The records of one input; runs of equal rejects are joined."""
    run: Reject | None = None
    for found in _read(source_input, limits):
        if isinstance(found, Reject):
            if run and (run.reason, run.detail) == (found.reason, found.detail) and not found.unknown_rest:
                run = Reject(run.locator, run.reason, run.detail, run.count + found.count)
                continue
            if run:
                yield run
            run = found
            continue
        if run:
            yield run
            run = None
        yield found
    if run:
        yield run


def _read(source_input: Input, limits: Limits) -> Iterator[Record | Reject]:
    kind = _kind(source_input)
    if kind == "archive":
        yield from _archive(source_input, limits)
    elif kind == "file":
        yield _file(source_input, limits)
    else:
        with open_input(source_input.url) as raw:
            rows = json_rows if kind == "jsonl" else parquet_rows
            for row in rows(raw, source_input.path, limits):
                yield _row(row) if isinstance(row, Row) else row


def _kind(source_input: Input) -> str:
    """archive, parquet, jsonl or file."""
    with open_input(source_input.url) as raw:
        if raw.read(4) == b"PAR1":
            return "parquet"
        name = _unpacked_name(source_input.path)
        if name.endswith((".jsonl", ".ndjson")) or (name.endswith(".json") and _begins_with_row(raw)):
            return "jsonl"
        named = name.endswith((".tar", ".tgz", ".tbz2", ".txz", ".tar.xz", ".zip", ".whl"))
        return "archive" if named or is_archive(raw) else "file"


def _begins_with_row(raw: Any) -> bool:
    """Whether a .json is JSON lines as BigQuery exports them, not a file of some project."""
    try:
        head = decompressed(raw).read(_BLOCK)
    except CorruptInput:
        return True
    return head.startswith(b'{"') and b'"content":' in head.split(b"\n", 1)[0].replace(b" ", b"")


def _unpacked_name(path: str) -> str:
    name = path.lower()
    return next((name[: -len(end)] for end in _PACKED if name.endswith(end)), name)


# -- the three forms --------------------------------------------------------------------------------------------------------


def _archive(source_input: Input, limits: Limits) -> Iterator[Record | Reject]:
    statements = Statements()
    for found in read_members(source_input, limits, is_statement):
        if isinstance(found, Member):
            statements.add(found.name, found.content)
    for item in walk(source_input, limits, lambda name: not _no_code(name)):
        if isinstance(item, Reject):
            yield item
            continue
        locator = f"{source_input.path}!{item.name}#{item.number}"
        if isinstance(item, Passed):
            yield Reject(locator, RejectReason.NOT_CODE, _no_code(item.name))
        else:
            name = item.name
            yield _judged(locator, name, name, item.content, partial(statements.of, name))


def _file(source_input: Input, limits: Limits) -> Record | Reject:
    path, locator = source_input.path, f"{source_input.path}#0"
    name = path[: len(_unpacked_name(path))]
    if detail := _no_code(name):
        return Reject(locator, RejectReason.NOT_CODE, detail)
    blocks, size = [], 0
    try:
        with open_input(source_input.url) as raw:
            stream = decompressed(raw)
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > limits.record_bytes:
                    return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
                blocks.append(block)
    except CorruptInput as error:
        return Reject(locator, RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)
    return _judged(locator, name, path, b"".join(blocks), lambda: of_tree(source_input.url, path))


def _row(row: Row) -> Record | Reject:
    if row.binary or row.content is None:
        return Reject(row.locator, RejectReason.NOT_CODE, "binary")
    if detail := _no_code(row.path):
        return Reject(row.locator, RejectReason.NOT_CODE, detail)
    source_id = f"{row.repository}:{row.path}" if row.repository else row.id or row.path
    told = joined([license_of_expression(name) for name in row.licenses])
    shown = ", ".join(row.licenses)
    return _judged_text(row.locator, row.path, source_id, row.content, lambda: (bool(row.licenses), told), shown)


# -- judgement --------------------------------------------------------------------------------------------------------------


def _no_code(name: str) -> str:
    """Why a file is no code, by its name; empty where it is."""
    if mark := generated(name):
        return mark
    if language_of(name):
        return ""
    base = name.rpartition("/")[2]
    stem, dot, extension = base.rpartition(".")
    return f"no language for .{short(extension.lower())}" if dot and stem else "no language by the name"


def _judged(locator: str, name: str, source_id: str, content: bytes, licence: Licence) -> Record | Reject:
    if b"\0" in content:
        return Reject(locator, RejectReason.NOT_CODE, "binary")
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return Reject(locator, RejectReason.INVALID_UTF8, f"byte {error.start}")
    return _judged_text(locator, name, source_id, text, licence)


def _judged_text(locator: str, name: str, source_id: str, text: str, licence: Licence, shown: str = "") -> Record | Reject:
    if "\0" in text:
        return Reject(locator, RejectReason.NOT_CODE, "binary")
    if mark := generated(name, text):
        return Reject(locator, RejectReason.NOT_CODE, mark)
    language = language_of(name)
    assert language is not None
    body, header = without_header(text, language)
    expression = license_of_header(header) if header else None
    if expression is None:
        stated, expression = licence()
        if expression is None:
            detail = f"stated, but not told: {short(shown)}".rstrip(": ") if stated else "none stated"
            return Reject(locator, RejectReason.LICENSE_UNKNOWN, detail)
    if not is_permitted(expression):
        return Reject(locator, RejectReason.LICENSE_NOT_PERMITTED, short(expression))
    return Record(locator, body, source_id, title=language, license=expression)


# -- counting ---------------------------------------------------------------------------------------------------------------


def count(source_input: Input, options: SourceOptions) -> int:
    """Rows as `jsonl` and `parquet` count them, members as `member_count` does; a file is a record. Exact without damage."""
    kind = _kind(source_input)
    if kind in ("jsonl", "parquet"):
        return (jsonl if kind == "jsonl" else parquet).count(source_input, options)
    if kind == "file":
        return 1
    with open_input(source_input.url) as raw:
        return count_members(raw)
