"""EPUB: books written with zipfile by the rules of EPUB 3.3, whole and broken, each fault with its reason."""

from __future__ import annotations

import io
import zipfile

import pytest

from pipelines.records import Input, Limits
from pipelines.schema import RejectReason
from pipelines.sources.epub import Package, Unreadable, chapter_text, encrypted, package_path, read_epub, read_package

CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""


def package(chapters, spine=None, extra=""):
    items = "".join(f'<item id="c{n}" href="{href}" media-type="application/xhtml+xml"/>' for n, href in enumerate(chapters))
    order = range(len(chapters)) if spine is None else spine
    refs = "".join(f'<itemref idref="c{n}"/>' for n in order)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">urn:isbn:1</dc:identifier><dc:title>A  Book</dc:title>
<dc:title>Another title</dc:title><dc:creator>A. Person</dc:creator><dc:language>en</dc:language><dc:rights>CC BY 4.0</dc:rights>
<dc:date>2001</dc:date></metadata><manifest>{items}{extra}<item id="p" href="p.png" media-type="image/png"/></manifest>
<spine>{refs}</spine></package>"""


def chapter(text):
    return f"""<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml"><head><title/><style>p {{ color: red }}</style></head><body>{text}</body></html>"""


def epub(files, mimetype=True):
    """The bytes of an EPUB of {path: text or bytes}."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype:
            archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def book(chapters, **more):
    """The files of a book of {path below OEBPS: body}."""
    files = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package(list(chapters), **more)}
    return files | {f"OEBPS/{path}": chapter(body) for path, body in chapters.items()} | {"OEBPS/p.png": b"\x89PNG"}


def read(tmp_path, content, limits=Limits()):  # noqa: B008  # frozen
    path = tmp_path / "a.epub"
    path.write_bytes(content if isinstance(content, bytes) else epub(content))
    return read_epub(Input("a.epub", str(path), 0, ""), limits)


def test_chapters_come_in_the_order_of_the_spine(tmp_path):
    chapters = {
        "two.xhtml": "<h1>II</h1><p>Second&#8212;<i>last</i>.</p>",
        "text/one.xhtml": "<h1>I</h1><p>First.</p>",
        "hidden.xhtml": "<p>no</p>",
    }
    found = read(tmp_path, book(chapters, spine=[1, 0]))
    assert found.text == "I\n\nFirst.\n\nII\n\nSecond—last."
    assert found.fields == {
        "identifier": "urn:isbn:1", "title": "A Book", "creator": "A. Person", "language": "en",
        "rights": "CC BY 4.0", "date": "2001",
    }  # fmt: skip


def test_the_table_of_contents_and_pictures_of_the_spine_are_no_chapters():
    nav = '<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    content = package(["a%20b.xhtml", "../c.xhtml"], extra=nav).replace(
        "<spine>", '<spine><itemref idref="n"/><itemref idref="p"/>'
    )
    found = read_package(content.encode(), "OEBPS/book.opf")
    assert found.chapters == ("OEBPS/a b.xhtml", "c.xhtml")
    assert isinstance(found, Package)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>a<br/>b</p><hr/><p>c</p>", "a\nb\n\nc"),
        ("<p>a</p><script/><p>b</p><div/><p>c</p>", "a\n\nb\n\nc"),
        ("<p>a<a id='x'/>b</p>", "ab"),
        ("<pre>one\n  two</pre>", "one\n  two"),
        ("<p>a &amp; b &lt; c</p>", "a & b < c"),
        ("<p>caf\u00e9</p>", "café"),
    ],
)
def test_xhtml_is_read_with_its_closed_elements(body, text):
    assert chapter_text(chapter(body).encode()) == text


def test_other_character_sets():
    assert chapter_text(chapter("<p>caf\u00e9</p>").replace("utf-8", "utf-16").encode("utf-16")) == "café"
    assert chapter_text(b'<html><head><meta charset="iso-8859-1"></head><body><p>caf\xe9</p></body></html>') == "café"


def _without(path):
    return {name: content for name, content in book({"a.xhtml": "<p>a</p>"}).items() if name != path}


MALFORMED = RejectReason.MALFORMED_RECORD
_CHAPTER = {"a.xhtml": "<p>a</p>"}
_LOCKED = '<encryption><EncryptedData><CipherData><CipherReference URI="{}"/></CipherData></EncryptedData></encryption>'
_BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
_EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("files", "reason", "detail"),
    [
        (b"no archive", RejectReason.CORRUPT_CONTAINER, "cut off"),
        (epub(book(_CHAPTER))[:-30], RejectReason.CORRUPT_CONTAINER, "no directory"),
        (_without("META-INF/container.xml"), MALFORMED, "without META-INF/container.xml"),
        (_without("OEBPS/book.opf"), MALFORMED, "'OEBPS/book.opf' is missing"),
        (_without("OEBPS/a.xhtml"), MALFORMED, "'OEBPS/a.xhtml' is missing"),
        (book(_CHAPTER, spine=[]), MALFORMED, "without a spine"),
        (book(_CHAPTER) | {"META-INF/container.xml": "<a/>"}, MALFORMED, "names no package"),
        (book(_CHAPTER) | {"META-INF/container.xml": "<a"}, MALFORMED, "unclosed token"),
        (book(_CHAPTER) | {"OEBPS/book.opf": "<a>" * 200}, MALFORMED, "nested over 100"),
        (book(_CHAPTER) | {"OEBPS/book.opf": _BOMB + package(["a.xhtml"])[38:]}, MALFORMED, "declares an entity"),
        (book(_CHAPTER) | {"META-INF/container.xml": _EXTERNAL + "<a>&a;</a>"}, MALFORMED, "declares an entity"),
        (book(_CHAPTER) | {"META-INF/encryption.xml": _LOCKED.format("OEBPS/a.xhtml")}, MALFORMED, "encrypted: OEBPS/a"),
        (book({"a.xhtml": "<div>" * 4000}), RejectReason.TOO_DEEP, "nested over"),
    ],
)  # fmt: skip
def test_what_is_no_book_says_why(files, reason, detail, tmp_path):
    with pytest.raises(Unreadable, match=detail) as error:
        read(tmp_path, files)
    assert error.value.reason == reason


def test_obfuscated_fonts_lock_nothing(tmp_path):
    files = book(_CHAPTER) | {"META-INF/encryption.xml": _LOCKED.format("OEBPS/font.otf")}
    assert read(tmp_path, files).text == "a"
    assert encrypted(None) == set()


def test_entities_of_a_chapter_are_not_followed(tmp_path):
    files = book(_CHAPTER) | {"OEBPS/a.xhtml": _EXTERNAL + "<html><body><p>x &a; y</p></body></html>"}
    assert "root" not in read(tmp_path, files).text


@pytest.mark.parametrize("count", [1, 30])
def test_chapters_over_the_limit_are_too_large(count, tmp_path):
    """One chapter that unpacks to 30 MB, or thirty that do so together."""
    chapters = {f"{n}.xhtml": "x " * (15_000_000 // count) for n in range(count)}
    with pytest.raises(Unreadable) as error:
        read(tmp_path, book(chapters), Limits(20_000_000))
    assert error.value.reason == RejectReason.TOO_LARGE


def test_names_that_lead_out_are_not_read(tmp_path):
    files = book(_CHAPTER) | {"../../evil.xhtml": "<p>evil</p>"}
    assert read(tmp_path, files).text == "a"
    assert package_path(CONTAINER.encode()) == "OEBPS/book.opf"
