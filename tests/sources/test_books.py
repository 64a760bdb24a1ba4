"""Books: every row of the reader's table by hand, and real books in eight languages repacked as text, EPUB and zip.

The real texts are the reference themselves: a book that was wrapped in Gutenberg's header, or cut into the chapters of an EPUB, has
to come out as it went in.
"""

from __future__ import annotations

import bz2
import gzip
import html
import io
import json
import tarfile
import zipfile

import pytest

from pipelines.records import Input, Limits, Record, Reject
from pipelines.sources import SourceOptions, count_records, reader
from tests.sources.test_epub import book as epub_files
from tests.sources.test_epub import epub
from tests.sources.test_gutenberg import MIDDLE, MIDDLE_END, NEW, NEW_END, TEXT

LIMITS = Limits()


def run(tmp_path, name, content, limits=LIMITS):
    """(documents, [(locator, reason)]) of a file; conservation and the independent count are checked for every one."""
    path = tmp_path / name
    path.write_bytes(content)
    source_input = Input(f"books/{name}", str(path), len(content), "")
    found = list(reader("books")(source_input, SourceOptions(), limits, None))
    documents = [item for item in found if isinstance(item, Record)]
    rejects = [(item.locator.removeprefix(f"books/{name}"), str(item.reason)) for item in found if isinstance(item, Reject)]
    assert len(found) == count_records("books", source_input, SourceOptions())
    return documents, rejects


def zipped(files):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def tarred(files):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


# -- text -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bz2"])
def test_a_text_is_a_book(pack, tmp_path):
    (found,), rejects = run(tmp_path, "alice.txt", pack((MIDDLE + TEXT + MIDDLE_END).replace("\n", "\r\n").encode()))
    assert rejects == []
    assert (found.locator, found.text) == ("books/alice.txt#0", TEXT)
    assert (found.source_id, found.url) == ("19033", "https://www.gutenberg.org/ebooks/19033")
    assert (found.title, found.date, found.license) == (
        "Alice's Adventures in Wonderland",
        "August 12, 2006",
        "Public domain in the USA",
    )


def test_a_text_without_header_says_nothing_of_itself(tmp_path):
    (found,), _ = run(tmp_path, "a.txt", b"\xef\xbb\xbf" + TEXT.encode())
    assert found == Record("books/a.txt#0", TEXT)


@pytest.mark.parametrize(
    ("content", "text", "reason"),
    [
        ("Character set encoding: ISO-8859-1\n\ncaf\u00e9".encode("latin-1"), "café", None),
        ("Character set encoding: ISO-8859-5\n\nкафе".encode("iso-8859-5"), "кафе", None),
        ("Character set encoding: ASCII\n\ncaf\u00e9".encode(), "café", None),
        ("Character set encoding: rot13\n\ncaf\u00e9".encode("latin-1"), None, "invalid_utf8"),
        ("caf\u00e9".encode("latin-1"), None, "invalid_utf8"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], None, "corrupt_container"),
        (b"x" * 1001, None, "too_large"),
        (b"", "", None),
    ],
)
def test_character_sets_and_faults_of_a_text(content, text, reason, tmp_path):
    documents, rejects = run(tmp_path, "a.txt", content, Limits(1000))
    assert [found.text.rpartition("\n")[2] for found in documents] == ([] if text is None else [text])
    assert [found for _, found in rejects] == ([] if reason is None else [reason])


# -- EPUB and archives ------------------------------------------------------------------------------------------------------

BOOK = epub(epub_files({"a.xhtml": "<p>a</p>"}))


@pytest.mark.parametrize("name", ["a.epub", "a.bin"])
def test_an_epub_is_a_book(name, tmp_path):
    (found,), rejects = run(tmp_path, name, BOOK)
    assert rejects == []
    assert found == Record(f"books/{name}#0", "a", "urn:isbn:1", title="A Book", date="2001", license="CC BY 4.0")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive", "malformed_record"),
        (b"", "malformed_record"),
        (BOOK[:200], "corrupt_container"),
        (zipped({}), "malformed_record"),
    ],
)
def test_an_epub_that_is_none(content, reason, tmp_path):
    assert run(tmp_path, "a.epub", content) == ([], [("#0", reason)])


def test_an_epub_whose_text_is_over_the_limit(tmp_path):
    """Nested lists are indented: 40 levels make several times as much text as markup."""
    lists = "<ul><li>" * 40 + "".join("<p>x</p>" for _ in range(1000)) + "</li></ul>" * 40
    content = epub(epub_files({"a.xhtml": lists}))
    assert run(tmp_path, "a.epub", content, Limits(20_000)) == ([], [("#0", "too_large")])
    assert len(run(tmp_path, "a.epub", content, Limits(200_000))[0]) == 1


def test_an_archive_holds_texts_and_epubs(tmp_path):
    files = {
        "one.txt": (NEW + TEXT + NEW_END).encode(),
        "folder/two.EPUB": BOOK,
        "cover.jpg": b"\xff\xd8",
        "../out.txt": b"evil",
        "bad.epub": b"no archive",
        "latin.txt": b"caf\xe9",
        "large.txt": b"x" * 100_001,
    }
    expected = [
        ("!cover.jpg#2", "not_text"),
        ("!../out.txt#3", "unsafe_path"),
        ("!bad.epub#4", "malformed_record"),
        ("!latin.txt#5", "invalid_utf8"),
        ("!large.txt#6", "too_large"),
    ]
    for pack in (zipped, tarred, lambda files: gzip.compress(tarred(files))):
        documents, rejects = run(tmp_path, "books.archive", pack(files), Limits(100_000))
        assert [(found.locator, found.text) for found in documents] == [
            ("books/books.archive!one.txt#0", TEXT),
            ("books/books.archive!folder/two.EPUB#1", "a"),
        ]
        assert rejects == expected


def test_folders_and_headers_of_long_names_are_no_books(tmp_path):
    sink = io.BytesIO()
    name = "a" * 90 + "/" + "b" * 90 + ".txt"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            info = tarfile.TarInfo(name + "é" * 20 + ".txt")
            info.size = len(TEXT)
            archive.addfile(info, io.BytesIO(TEXT.encode()))
        (found,), rejects = run(tmp_path, "a.tar", sink.getvalue())
        assert rejects == []
        assert found.locator == f"books/a.tar!{info.name}#1"
        sink.seek(0)
        sink.truncate()


def test_a_zip_that_is_damaged(tmp_path):
    content = zipped({"one.txt": b"one " * 1000, "two.txt": b"two"})
    assert run(tmp_path, "a.zip", content[:-40])[1] == [("#0", "corrupt_container")]


# -- real books -------------------------------------------------------------------------------------------------------------

LANGUAGES = ["de", "es", "fr", "pl", "pt", "ro", "sl"]


@pytest.fixture(scope="module")
def real_books(real_data):
    """{file: the first texts} of eight collections, normalised as an EPUB shows them: no blanks at the ends of lines."""
    found = {}
    for name in ["classic-books", *(f"eltec-{language}" for language in LANGUAGES)]:
        with gzip.open(real_data / "books" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            found[name] = [json.loads(line)["text"].strip() for _, line in zip(range(4), lines, strict=False)]
    return found


def test_real_books_as_gutenberg_texts(real_books, tmp_path):
    """32 books behind two kinds of header, zipped by language: each comes out as it went in."""
    for name, texts in real_books.items():
        files = {f"{n}.txt": ((NEW + t + NEW_END) if n % 2 else (MIDDLE + t + MIDDLE_END)).encode() for n, t in enumerate(texts)}
        documents, rejects = run(tmp_path, f"{name}.zip", zipped(files))
        assert rejects == []
        assert [found.text for found in documents] == texts
        assert [found.source_id for found in documents] == ["19033", "11"] * 2


def test_real_books_as_epubs(real_books, tmp_path):
    """Paragraphs become <p>, about 50 make a chapter: the words of the book come out, in order, and its paragraphs with them."""
    for name, texts in real_books.items():
        paragraphs = [" ".join(part.split()) for part in texts[0].split("\n\n") if part.strip()]
        chapters = {
            f"{start:06d}.xhtml": "".join(f"<p>{html.escape(part)}</p>" for part in paragraphs[start : start + 50])
            for start in range(0, len(paragraphs), 50)
        }
        (found,), rejects = run(tmp_path, f"{name}.epub", epub(epub_files(chapters)))
        assert rejects == []
        assert found.text.split("\n\n") == paragraphs
