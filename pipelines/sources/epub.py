"""EPUB to text: the chapters in the order of the book's spine (EPUB 3.3, Open Container Format and Package Document).

    META-INF/container.xml -> the package document -> its spine -> XHTML chapters -> text (`html_fragment`), parted by blank lines

The table of contents is no text, what hides in the archive outside of the spine is not read, and pictures go. Package files are
read by expat: nothing is fetched, and a file that declares an entity is refused. Chapters are read by HTML's rules, which know no
declarations at all.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.parsers import expat

from pipelines.records import Input, Limits, short
from pipelines.schema import RejectReason
from pipelines.sources.archives import Member, Wanted, read_members
from pipelines.sources.html import TooDeep, decode
from pipelines.sources.html_fragment import fragment_text

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_CHAPTERS = frozenset(["application/xhtml+xml", "text/html", "text/x-oeb1-document", "application/x-dtbook+xml"])
_DUBLIN_CORE = ("title", "creator", "language", "identifier", "date", "rights")
# XML closes any element by itself, HTML only the void ones: `<title/>` would swallow the chapter.
_CLOSED = re.compile(r"<([a-zA-Z][^\s/<>]*+)([^<>]*)/>")
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_DEPTH = 100  # of package files, which are flat


class Unreadable(Exception):
    """No book can be made of this; `reason` says why."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(short(detail))
        self.reason = reason


def _malformed(detail: str) -> Unreadable:
    return Unreadable(RejectReason.MALFORMED_RECORD, detail)


@dataclass(frozen=True, slots=True)
class Epub:
    """A book's text and what its package document says of it; `fields` by the names of Dublin Core."""

    text: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Package:
    """The package document: paths of the chapters in reading order, and the fields of Dublin Core (the first of each)."""

    chapters: tuple[str, ...]
    fields: dict[str, str]


def read_epub(source_input: Input, limits: Limits) -> Epub:
    """The book in an EPUB file. Unreadable where there is none; at most `limits.record_bytes` of chapters are held."""
    package_files = _members(source_input, limits, lambda name: name in (_CONTAINER, _ENCRYPTION) or name.endswith(".opf"))
    if _CONTAINER not in package_files:
        raise _malformed(f"an EPUB without {_CONTAINER}")
    path = package_path(package_files[_CONTAINER])
    if path not in package_files:
        package_files |= _members(source_input, limits, lambda name: name == path)
    if path not in package_files:
        raise _malformed(f"the package document {path!r} is missing")
    package = read_package(package_files[path], path)
    locked = encrypted(package_files.get(_ENCRYPTION)) & set(package.chapters)
    if locked:
        raise _malformed(f"encrypted: {min(locked)}")
    chapters = _members(source_input, limits, frozenset(package.chapters).__contains__)
    texts = []
    for chapter in package.chapters:
        if chapter not in chapters:
            raise _malformed(f"the chapter {chapter!r} is missing")
        texts.append(chapter_text(chapters[chapter]))
    return Epub("\n\n".join(text for text in texts if text), package.fields)


def _members(source_input: Input, limits: Limits, wanted: Wanted) -> dict[str, bytes]:
    """The wanted members by name; Unreadable where one of them cannot be had, or they are too large together."""
    found: dict[str, bytes] = {}
    size = 0
    for member in read_members(source_input, limits, wanted):
        if isinstance(member, Member):
            size += len(member.content)
            if size > limits.record_bytes:
                raise Unreadable(RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes of chapters")
            found[member.name] = member.content
        elif member.reason != RejectReason.UNSAFE_PATH:  # nothing asks for it
            raise Unreadable(member.reason, f"{member.locator.rpartition('!')[2]}: {member.detail}")
    return found


# -- the package ------------------------------------------------------------------------------------------------------------


def package_path(container: bytes) -> str:
    """The path of the package document that container.xml names first."""
    for name, attributes, _ in _elements(container, _CONTAINER):
        if name == "rootfile" and attributes.get("full-path"):
            return posixpath.normpath(attributes["full-path"])
    raise _malformed("container.xml names no package document")


def read_package(content: bytes, path: str) -> Package:
    """Spine and fields of a package document; chapters are named by their paths in the archive."""
    items: dict[str, tuple[str, str]] = {}  # id -> path, properties
    spine: list[str] = []
    fields: dict[str, str] = {}
    for name, attributes, text in _elements(content, path):
        if name == "item" and attributes.get("media-type", "").lower() in _CHAPTERS:
            target = unquote(attributes.get("href", "").partition("#")[0])
            items[attributes.get("id", "")] = (
                posixpath.normpath(posixpath.join(posixpath.dirname(path), target)),
                attributes.get("properties", ""),
            )
        elif name == "itemref":
            spine.append(attributes.get("idref", ""))
        elif name in _DUBLIN_CORE and text:
            fields.setdefault(name, text)
    if not spine:
        raise _malformed("a package document without a spine")
    chapters = (items[idref] for idref in dict.fromkeys(spine) if idref in items)
    return Package(tuple(chapter for chapter, properties in chapters if "nav" not in properties.split()), fields)


def encrypted(content: bytes | None) -> set[str]:
    """The paths of the members that encryption.xml says are encrypted; obfuscated fonts are common and lock nothing."""
    if content is None:
        return set()
    elements = _elements(content, _ENCRYPTION)
    return {posixpath.normpath(unquote(attributes.get("URI", ""))) for name, attributes, _ in elements if name == "CipherReference"}


def _elements(content: bytes, path: str) -> list[tuple[str, dict[str, str], str]]:
    """(local name, attributes, text in one line) of all elements of an XML file, in the order of their ends."""
    found: list[tuple[str, dict[str, str], str]] = []
    opened: list[tuple[str, dict[str, str], list[str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(opened) >= _DEPTH:
            raise _malformed(f"{path}: nested over {_DEPTH} levels")
        local = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        opened.append((name.rpartition(":")[2], local, []))

    def characters(text: str) -> None:
        if opened:
            opened[-1][2].append(text)

    def end(_: str) -> None:
        name, attributes, texts = opened.pop()
        found.append((name, attributes, " ".join("".join(texts).split())))

    def declared(*_: object) -> None:
        raise _malformed(f"{path}: declares an entity")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.EntityDeclHandler = declared
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise _malformed(f"{path}: {expat.ErrorString(error.code)}") from error
    except (LookupError, ValueError) as error:  # a character set that nobody knows
        raise _malformed(f"{path}: {error}") from error
    return found


# -- chapters ---------------------------------------------------------------------------------------------------------------


def chapter_text(content: bytes) -> str:
    """All text of a chapter."""
    try:
        markup = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        markup = decode(content, None)

    def close(found: re.Match[str]) -> str:
        return found[0] if found[1].lower() in _VOID else f"<{found[1]}{found[2]}></{found[1]}>"

    try:
        return fragment_text(_CLOSED.sub(close, markup)).strip()
    except TooDeep as error:
        raise Unreadable(RejectReason.TOO_DEEP, str(error)) from error
