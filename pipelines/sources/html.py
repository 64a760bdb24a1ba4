"""HTML to text: the character set by the web's rules, the main content by resiliparse.

Character set, in the order of the web standard: byte order mark, HTTP header, meta tag, then detection; labels mean what browsers
take them for (latin-1 is windows-1252). Text: `extract_plain_text` of resiliparse (the extractor of DCLM) with its main-content
rules, list bullets, no links, forms, alternative texts or noscript; block structure stays as line breaks.

Its extraction takes quadratic time in nesting depth, so a document whose tree is deeper than `MAX_DEPTH` is refused: a bound that
is a count, where a clock would make the output depend on the machine. Every level of a list indents each of its lines, so that a
few kB of nested lists could stand for gigabytes of blanks: what would be indented by more than `_INDENTS` times its own length is
refused likewise. Both are measured in the parser's tree, so that they are what they are however broken the markup is; the tree is
not asked where the tags show it to be flat, every end being that of the element that was opened last.

The parser itself is linear but for two things that only pages made for it have in numbers. It opens `<b>`, `<font>` and their like
again in every block until they are closed, so that 50 kB could become gigabytes of elements, and some tags look through all that is
open. What these would cost is estimated before by counting tags, if there are over `MAX_DEPTH`, and refused beyond a bound that is
far above any real page's.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

MAX_DEPTH = 3000  # about a quarter of a second; ten thousand levels take ten times as long
# A comment, an element whose content is text, or (end?, name, attributes) of a tag.
_TAG = re.compile(
    r"<!--(?s:.)*?(?:-->|\Z)"
    r"|<(?:script|style|textarea|title|xmp|iframe)\b(?s:.)*?(?:</(?:script|style|textarea|title|xmp|iframe)|\Z)"
    r"|<(/?)([a-z][^\s/>]*+)([^>]*+)",
    re.IGNORECASE,
)
# Elements that never nest by repeating: void ones, and those whose end is implied by the next of their kind.
_FLAT = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dd dt option tr td th thead tbody tfoot"
    " colgroup".split()
)
_FORMATTING = frozenset("a b big code em font i nobr s small strike strong tt u".split())
_MAX_OPEN = 1 << 30  # open elements, summed over all tags: what they may look through; real pages stay below ten million
_MAX_AGAIN = 1 << 20  # the same for elements that are opened again; real pages stay below a hundred thousand
_LISTS = re.compile(r"<[uo]l(?![^\s/>])", re.IGNORECASE)
_INDENTS = 8  # real posts stay below 1
_FREE = 1 << 20  # characters


class TooDeep(Exception):
    """The document cannot be read in linear time and space."""


def decode(content: bytes, header_charset: str | None) -> str:
    """The characters of an HTML or text resource; never fails: what no character set explains becomes U+FFFD."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le")):
        if content.startswith(mark):
            return content[len(mark) :].decode(name, "replace")
    encoding = None
    if header_charset:
        encoding = map_encoding_to_html5(header_charset, fallback_utf8=False)
    if not encoding:
        encoding = detect_encoding(content, from_html_meta=True)
    text = bytes_to_str(content, encoding or "utf-8", errors="replace", fallback_encodings=("utf-8", "windows-1252"))
    return str(text).encode("utf-8", "replace").decode("utf-8")


def main_text(html: str) -> tuple[str, str | None]:
    """(text of the main content, title or None). TooDeep for what cannot be read in linear time."""
    from resiliparse.extract.html2text import extract_plain_text

    tree = parsed(html)
    text = extract_plain_text(
        tree, main_content=True, list_bullets=True, alt_texts=False, links=False, form_fields=False, noscript=False
    )
    title = " ".join((tree.title or "").split())
    return str(text), title or None


def parsed(html: str) -> Any:
    """The tree of a document. TooDeep for what cannot be read in linear time, or would be indented to many times its length."""
    from resiliparse.parse.html import HTMLTree

    tags = html.count("<")
    deep = tags - html.count("</") > MAX_DEPTH and _surely_open(html) > MAX_DEPTH
    tree = HTMLTree.parse(html)
    most = _INDENTS * len(html) + _FREE
    indented = 2 * tags * tags > most and 2 * len(_LISTS.findall(html)) * tags > most
    if deep or indented:
        levels, lists = _levels(tree)
        if levels > MAX_DEPTH:
            del tree  # or the traceback holds it, and no thread but this one may let it go
            raise TooDeep(f"nested over {MAX_DEPTH} levels")
        if 2 * lists * tags > most:
            del tree
            raise TooDeep(f"lists indent it to over {_INDENTS} times its length")
    return tree


def _levels(tree: Any) -> tuple[int, int]:
    """How deep elements nest below the body, and how deep lists, which indent by two characters a level."""
    from resiliparse.parse.html import traverse_dom

    deepest = listed = 0
    lists: list[int] = []  # the levels of those that are open

    def enter(place: Any) -> None:
        nonlocal deepest, listed
        level = place.depth
        deepest = max(deepest, level)
        while lists and lists[-1] >= level:
            lists.pop()
        if place.node.tag in ("ul", "ol"):
            lists.append(level)
            listed = max(listed, len(lists))

    traverse_dom(tree.document, enter)
    return deepest - 3, listed  # document, html and body


def _surely_open(html: str) -> int:
    """How many elements are open at once, at most, if only what is opened last can be closed.

    TooDeep where the parser would look through, or open again, more than any real page makes it.
    """
    stack: list[str] = []
    counts: Counter[str] = Counter()  # elements that may be open, by name, or by all of their tag
    formatting: dict[str, list[str]] = {name: [] for name in _FORMATTING}  # the tags that may be open
    deepest = opened = again = looked = reopened = 0
    for close, name, attributes in _TAG.findall(html):
        name = name.lower()
        looked += opened + again
        reopened += again
        if name in _FLAT or not name:
            continue
        if not close:
            stack.append(name)
            deepest = max(deepest, len(stack))
        elif stack and stack[-1] == name:
            stack.pop()
        if name in formatting:
            tags = formatting[name]
            if tags and (close or name == "a"):  # a link ends the one before it
                tag = tags.pop()
                again -= counts[tag] <= 3
                counts[tag] -= 1
            if not close:
                tag = name + attributes
                tags.append(tag)
                counts[tag] += 1
                again += counts[tag] <= 3  # of equal ones three are opened again
        elif not close:
            counts[name] += 1
            opened += 1
        elif counts[name]:
            counts[name] -= 1
            opened -= 1
    if looked > _MAX_OPEN or reopened > _MAX_AGAIN:
        raise TooDeep("elements that are not closed would be opened again and again")
    return deepest
