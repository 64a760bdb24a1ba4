"""StackExchange dumps: a record is a row of Posts.xml; a question and its answers become one document.

"We remove the HTML tags from text and sort the answers by score (from highest to lowest)" (Touvron et al. 2023, section 2.1).
Title, question and answers stand one after another, parted by blank lines; code keeps its lines and blanks. Answers of one
score stand in the order of their ids.

| what stands there                                           | what becomes of it                                            |
|-------------------------------------------------------------|---------------------------------------------------------------|
| a question (PostTypeId 1)                                   | a document                                                    |
| an answer (PostTypeId 2)                                    | merged into the document of its question                      |
| an answer whose question is not in the file                 | reject `orphan_answer`                                        |
| another post (wiki, nomination, ...)                        | `not_a_post`                                                  |
| a row that is no XML; no numeric id, or none of the question | `malformed_record`                                           |
| a second question with the id of an earlier one             | `malformed_record`                                            |
| an answer without text                                      | `missing_text`                                                |
| a row over the limit; an answer that would bring its document over it | `too_large`                                         |
| HTML nested too deep                                        | `too_deep`; the answers of such a question are orphans        |
| a file that does not end as a dump, is no Posts.xml, declares an entity; damage in the container | one `corrupt_container` |

source_id is the question's id, title its title, date its creation date, license the dump's ContentLicense. The locator is the
question's row, `<path>!<member>#<row>` in a 7z archive. Input: Posts.xml, plain or in any container that `reading` knows, or the
site's `.7z` (`sevenzip`). Answers may stand gigabytes behind their question, so rows go through a temporary SQLite file of about
the dump's size: memory does not grow with it.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.reading import CorruptInput
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions
from pipelines.sources.html import TooDeep
from pipelines.sources.html_fragment import fragment_text
from pipelines.sources.sevenzip import Opened, opened_member
from pipelines.sources.xml_rows import BadRow, rows

_MEMBER = "Posts.xml"
_QUESTION, _ANSWER = "1", "2"
_WHOLE = re.compile(r"-?[0-9]{1,18}")  # what SQLite can hold
_SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
CREATE TABLE questions (row INTEGER PRIMARY KEY, id INTEGER UNIQUE, title TEXT, body TEXT, date TEXT, license TEXT);
CREATE TABLE answers (row INTEGER PRIMARY KEY, question INTEGER, score INTEGER, id INTEGER, body TEXT);
"""
_BY_QUESTION = "CREATE INDEX by_question ON answers (question, score DESC, id, row)"
# Both come in the order of the tables and the index: nothing is sorted. A question without answers comes with nulls.
_ORPHANS = """
SELECT row, question FROM answers WHERE NOT EXISTS (SELECT 1 FROM questions WHERE id = question) ORDER BY row
"""
_THREADS = """
SELECT q.row, q.id, q.title, q.body, q.date, q.license, a.row, a.body
FROM questions q LEFT JOIN answers a ON a.question = q.id ORDER BY q.row, a.score DESC, a.id, a.row
"""


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one site's posts: first the rows that are rejected, then the documents, both in the order of their rows."""
    with (
        tempfile.TemporaryDirectory(prefix="winnow-posts-") as folder,
        closing(sqlite3.connect(Path(folder) / "posts.sqlite", isolation_level=None)) as spool,
        opened_member(source_input.url, _MEMBER) as opened,
    ):
        place = f"{source_input.path}!{opened.member}" if opened.member else source_input.path
        try:
            spool.executescript(_SCHEMA)
            spool.execute("BEGIN")
            yield from _gather(opened, place, limits, spool)
            spool.execute(_BY_QUESTION)
            for row, question in spool.execute(_ORPHANS):
                yield Reject(f"{place}#{row}", RejectReason.ORPHAN_ANSWER, f"question {question} is not in the file")
            for _, thread in itertools.groupby(spool.execute(_THREADS), key=lambda columns: columns[0]):
                yield from _document(place, thread, limits)
        except sqlite3.OperationalError as error:
            raise UserError(f"{folder}: {short(error)}; posts are gathered there: free some room or set TMPDIR") from error


def _gather(opened: Opened, place: str, limits: Limits, spool: sqlite3.Connection) -> Iterator[Reject]:
    """Fills the spool; yields what does not belong there."""
    number = 0
    try:
        for row in rows(opened.stream, "posts", "row", limits.record_bytes):
            reason, detail = (row.reason, row.detail) if isinstance(row, BadRow) else _spooled(row, number, spool)
            if reason is not None:
                yield Reject(f"{place}#{number}", reason, detail)
            number += 1
    except CorruptInput as error:
        yield Reject(f"{place}#{number}", RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)


def _spooled(row: dict[str, str], number: int, spool: sqlite3.Connection) -> tuple[RejectReason | None, str]:
    """Puts a post into the spool, or says why not."""
    kind = row.get("PostTypeId", "")
    if kind not in (_QUESTION, _ANSWER):
        return RejectReason.NOT_A_POST, f"PostTypeId {short(kind)!r}"
    for name in ("Id", "ParentId") if kind == _ANSWER else ("Id",):
        if not _WHOLE.fullmatch(row.get(name, "")):
            return RejectReason.MALFORMED_RECORD, f"{name} is {short(row.get(name))!r}"
    own, body = int(row["Id"]), row.get("Body", "")
    if kind == _ANSWER:
        score = row.get("Score", "")
        values = (number, int(row["ParentId"]), int(score) if _WHOLE.fullmatch(score) else 0, own, body)
        spool.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", values)
        return None, ""
    columns = (number, own, row.get("Title"), body, row.get("CreationDate"), row.get("ContentLicense"))
    taken = spool.execute("INSERT OR IGNORE INTO questions VALUES (?, ?, ?, ?, ?, ?)", columns).rowcount
    return (None, "") if taken else (RejectReason.MALFORMED_RECORD, f"a second question with the id {own}")


def _document(place: str, thread: Iterator[tuple[Any, ...]], limits: Limits) -> Iterator[Record | Reject]:
    """One question with its answers: rejects for the answers that the document cannot take, then the document."""
    first = next(thread)
    row, own, title, body, date, licence = first[:6]
    answers = [(at, text) for *_, at, text in [first] if at is not None]
    following = itertools.chain(answers, ((at, text) for *_, at, text in thread))
    try:
        parts = [part for part in ((title or "").strip(), fragment_text(body)) if part]
    except TooDeep as error:
        yield Reject(f"{place}#{row}", RejectReason.TOO_DEEP, str(error))
        for at, _ in following:
            yield Reject(f"{place}#{at}", RejectReason.ORPHAN_ANSWER, f"question {own} is rejected")
        return
    size = sum(len(part.encode()) + 2 for part in parts)
    merged = 0
    for at, answer in following:
        try:
            text = fragment_text(answer)
        except TooDeep as error:
            yield Reject(f"{place}#{at}", RejectReason.TOO_DEEP, str(error))
            continue
        added = len(text.encode()) + 2
        if not text:
            yield Reject(f"{place}#{at}", RejectReason.MISSING_TEXT, "an answer without text")
        elif size + added > limits.record_bytes:
            yield Reject(f"{place}#{at}", RejectReason.TOO_LARGE, f"brings its document over {limits.record_bytes} bytes")
        else:
            parts.append(text)
            size += added
            merged += 1
    yield Record(f"{place}#{row}", "\n\n".join(parts), str(own), None, title, date, licence, merged)


_ROW = re.compile(rb"<row(?=[\s/<>])")
_HEAD = re.compile(rb"[^<]*(?:<\?[^<]*|<!--[^<]*)*<posts[\s/>]")
_DECLARED = re.compile(rb"<!(?!--)[^<]")


def count(source_input: Input, options: SourceOptions) -> int:
    """`<row ` in the bytes, by search; what does not end as the dump should counts its broken rest as one record."""
    found, window, last = 0, b"", b""
    in_row = False
    with opened_member(source_input.url, _MEMBER) as opened:
        try:
            while block := opened.stream.read(1 << 20):
                if not last and not _HEAD.match(block):
                    return 1
                window = window[-4:] + block  # shorter than what is searched for: nothing is found twice
                declared = _DECLARED.search(window)
                found += len(_ROW.findall(window, 0, declared.start() + 1 if declared else len(window)))
                if declared:
                    return found + 1
                if b"<" in window:
                    in_row = _ROW.match(window, window.rindex(b"<")) is not None
                last = (last + block)[-64:].rstrip() or last
        except CorruptInput:
            last = last.removesuffix(b"</posts>")  # there is a rest in any case
    return found - (in_row and not last.endswith(b">")) + (not last.endswith(b"</posts>"))
