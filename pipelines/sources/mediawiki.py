"""MediaWiki XML dumps: a record is a page; bz2 (also of many streams), gzip, zstd or plain, read as a stream.

| what stands there                                     | what becomes of it                                  |
|-------------------------------------------------------|-----------------------------------------------------|
| an article (namespace 0)                              | a document: its text without markup (`wikitext`)    |
| a page of another namespace                           | reject `not_an_article`                             |
| a page that lists what its title may mean             | reject `not_an_article`, "disambiguation: ..."      |
| a page that points to another                         | reject `redirect`                                   |
| a page without a text, or whose text was deleted      | reject `missing_text`                               |
| a page over the limit                                 | reject `too_large`, never held                      |
| XML that breaks off or is not well-formed, an entity declaration, damage in the container | one `corrupt_container` |
| XML whose root is not `<mediawiki>`                   | one `corrupt_container`                             |
| what no dump has (below)                              | one `corrupt_container`                             |

That is a tag or a comment of over 1 MiB, elements over 100 levels deep, more than 1,000 different names of elements and attributes,
or names of namespaces of over 1 MiB: the parser would hold them, however long they are.

Of a page with several revisions the first one that stands there counts (dumps of current pages have one). The title and
timestamp are the page's, source_id its id, url the site's base and the title. What the edition calls files, categories,
redirects and disambiguations is told by the dump's language (`wiki_languages`) and its siteinfo.

Any version of the export format is read as far as its elements are known. Before version 0.6 a page does not state its namespace:
there the name in front of its title says it, where siteinfo or MediaWiki itself has a namespace of that name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from xml.parsers import expat

from pipelines.reading import CorruptInput, decompressed, open_input
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions
from pipelines.sources.wiki_languages import NAMESPACES, edition, is_disambiguation, is_redirect
from pipelines.sources.wikitext import plain_text, without_comments

_BLOCK = 1 << 16
_KEPT = frozenset(["title", "ns", "id", "text", "timestamp"])
_OF_THE_SITE = frozenset(["base", "namespace"])
# What expat would hold, or read again and again, however long it is. An export has a fraction of any of them.
_MAX_TAG = 1 << 20
_MAX_DEPTH = 100
_MAX_NAMES = 1000
_MAX_SITE = 1 << 20
_FILES_AND_CATEGORIES = frozenset(["6", "14"])


@dataclass(slots=True)
class _Page:
    """One page as it is read."""

    values: dict[str, str] = field(default_factory=dict)
    redirect: bool = False
    size: int = 0


class _Parser:
    """Expat with handlers that gather pages, bounded by `limit` bytes of character data a page.

    ExpatError says that a bound was passed that no export passes.
    """

    def __init__(self, limit: int) -> None:
        self.pages: deque[_Page] = deque()
        self.base = self.language = ""
        self.file_names: set[str] = set()
        self.namespaces: set[str] = set()  # all but that of articles
        self._limit = limit
        self._page: _Page | None = None
        self._element = self._key = ""
        self._depth = 0
        self._fed = 0
        self._site = 0  # bytes of what is kept of the site
        self._text: list[str] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        # An export declares no entity; one that is declared can only be an attempt to make its text explode.
        self._parser.EntityDeclHandler = self._entity

    def feed(self, data: bytes, last: bool = False) -> None:
        self._parser.Parse(data, last)
        self._fed += len(data)
        if self._fed - self._parser.CurrentByteIndex > _MAX_TAG:  # it stands before what has not ended yet
            raise expat.ExpatError(f"a tag or comment of over {_MAX_TAG} bytes")
        if len(self._parser.intern) > _MAX_NAMES:
            raise expat.ExpatError(f"over {_MAX_NAMES} names of elements and attributes")

    def _entity(self, *declared: Any) -> None:
        raise expat.ExpatError("an entity declaration")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._depth and name != "mediawiki":
            raise expat.ExpatError(f"the root is <{name[:40]}>, not <mediawiki>")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise expat.ExpatError(f"elements nested over {_MAX_DEPTH} levels")
        self._element, self._text = name, []
        if name == "text" and "deleted" in attributes:
            self._element = ""  # an administrator took the text away: the page has none
        if name == "page":
            self._page = _Page()
        elif name == "mediawiki":
            self.language = attributes.get("xml:lang", "")
        elif name == "redirect" and self._page is not None:
            self._page.redirect = True
        elif name == "namespace":
            self._key = attributes.get("key", "")

    def _characters(self, text: str) -> None:
        if self._page is not None:
            self._page.size += len(text.encode())
            if self._page.size > self._limit:
                self._text = []
            elif self._element in _KEPT:
                self._text.append(text)
        elif self._element in _OF_THE_SITE:
            self._site += len(text.encode())
            if self._site > _MAX_SITE:
                raise expat.ExpatError(f"names of namespaces of over {_MAX_SITE} bytes")
            self._text.append(text)

    def _end(self, name: str) -> None:
        self._depth -= 1
        text = "".join(self._text)
        if name == "page" and self._page is not None:
            self.pages.append(self._page)
            self._page = None
        elif self._page is not None:
            if name in _KEPT and name == self._element:
                self._page.values.setdefault(name, text)  # the page's own id comes before those of revision and contributor
        elif name == "base":
            self.base = text
        elif name == "namespace" and self._key not in ("", "0"):
            self.namespaces.add(text.lower())
            if self._key in _FILES_AND_CATEGORIES:
                self.file_names.add(text.lower())
        self._element, self._text = "", []


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one dump."""
    parser = _Parser(limits.record_bytes)
    for number, page in enumerate(_pages(source_input, parser)):
        locator = f"{source_input.path}#{number}"
        if isinstance(page, _Page):
            yield _judged(locator, page, parser, limits)
        else:
            yield Reject(locator, RejectReason.CORRUPT_CONTAINER, str(page), unknown_rest=True)


def markups(source_input: Input, limits: Limits) -> Iterator[str]:
    """The markup of every page that becomes a document, in order, as far as the dump can be read."""
    parser = _Parser(limits.record_bytes)
    for page in _pages(source_input, parser):
        if isinstance(page, _Page) and _refusal(page, parser, limits) is None:
            yield page.values["text"]


def _pages(source_input: Input, parser: _Parser) -> Iterator[_Page | Exception]:
    """The pages of a dump in order, and last what ended it before its end."""
    with open_input(source_input.url) as raw:
        damage: Exception | None = None
        stream = decompressed(raw)
        while damage is None:
            try:
                block = stream.read(_BLOCK)
                for start in range(0, max(len(block), 1), _BLOCK):
                    parser.feed(block[start : start + _BLOCK], last=not block)
            except (CorruptInput, expat.ExpatError, LookupError, ValueError) as error:  # the last two: of an encoding
                damage = error
            while parser.pages:
                yield parser.pages.popleft()
            if damage is None and not block:
                return
    yield damage


def _refusal(page: _Page, parser: _Parser, limits: Limits) -> tuple[RejectReason, str] | None:
    """Why a page is no document; None for an article."""
    title, markup = page.values.get("title", ""), page.values.get("text")
    if page.size > limits.record_bytes:
        return RejectReason.TOO_LARGE, f"{page.size} bytes"
    if _outside(page.values.get("ns"), title, parser):
        return RejectReason.NOT_AN_ARTICLE, short(title)
    if page.redirect or (markup is not None and is_redirect(markup, parser.language)):
        return RejectReason.REDIRECT, short(title)
    if markup is None:
        return RejectReason.MISSING_TEXT, short(title)
    if is_disambiguation(title, without_comments(markup), parser.language):
        return RejectReason.NOT_AN_ARTICLE, short(f"disambiguation: {title}")
    return None


def _outside(stated: str | None, title: str, parser: _Parser) -> bool:
    """Whether a page is of another namespace than the articles'."""
    if stated is not None:
        return stated != "0"
    name, colon, _ = title.partition(":")
    name = " ".join(name.replace("_", " ").lower().split())
    return bool(colon) and (name in NAMESPACES or name in parser.namespaces)


def _judged(locator: str, page: _Page, parser: _Parser, limits: Limits) -> Record | Reject:
    if (refused := _refusal(page, parser, limits)) is not None:
        return Reject(locator, *refused)
    values, names = page.values, edition(parser.language)
    text, title = plain_text(values["text"], names.files | names.categories | parser.file_names), values.get("title", "")
    return Record(locator, text, values.get("id"), _url(parser.base, title), title or None, values.get("timestamp"))


def _url(base: str, title: str) -> str | None:
    if not base or not title:
        return None
    return base.rsplit("/", 1)[0] + "/" + quote(title.replace(" ", "_"), safe="/:(),!*'@")


def count(source_input: Input, options: SourceOptions) -> int:
    """`</page>` in the bytes, by plain search; a dump that does not end as one counts its broken rest as one record.

    Without the begin of one it is one record, whatever it holds.
    """
    found, tail, begun = 0, b"", False
    page, end, root = b"</page>", b"</mediawiki>", b"<mediawiki"
    with open_input(source_input.url) as raw:
        stream = decompressed(raw)
        try:
            while block := stream.read(_BLOCK):
                if block.startswith((b"\xff\xfe", b"\xfe\xff")) and not tail:
                    encoding = "utf-16-le" if block[0] == 0xFF else "utf-16-be"
                    page, end, root = (tag.decode().encode(encoding) for tag in (page, end, root))
                window = tail + block
                begun = begun or root in window
                found += window.count(page) - tail.count(page)
                tail = window[-64:]
        except CorruptInput:
            return found + 1 if begun else 1
    return found + (end not in tail) if begun else 1
