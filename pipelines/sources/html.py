"""HTML to text: the character set by the web's rules, the main content by resiliparse.

Character set, in the order of the web standard: byte order mark, HTTP header, meta tag, then detection; labels mean what browsers
take them for (latin-1 is windows-1252). Text: `extract_plain_text` of resiliparse (the extractor of DCLM) with its main-content
rules, list bullets, no links, forms, alternative texts or noscript; block structure stays as line breaks.

Its parser takes quadratic time in nesting depth, so documents nested beyond `MAX_DEPTH` are refused by a linear scan: a bound
that is a count, where a clock would make the output depend on the machine. And every level of a list indents each of its lines,
so that a few kB of nested lists could stand for gigabytes of blanks: what would be indented by more than `_INDENTS` times its own
length is refused likewise.
"""

from __future__ import annotations

import re

MAX_DEPTH = 3000  # about a quarter of a second; ten thousand levels take ten times as long
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
# Elements that never nest by repeating: void ones, and those whose end is implied by the next of their kind.
_FLAT = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dd dt option tr td th thead tbody tfoot"
    " colgroup rp rt".split()
)


_LISTS = re.compile(r"<(/?)[uo]l(?![^\s/>])", re.IGNORECASE)
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
    """(text of the main content, title or None). TooDeep for what cannot be parsed in linear time."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    check_depth(html)
    tree = HTMLTree.parse(html)
    text = extract_plain_text(
        tree, main_content=True, list_bullets=True, alt_texts=False, links=False, form_fields=False, noscript=False
    )
    title = " ".join((tree.title or "").split())
    return str(text), title or None


def check_depth(html: str) -> None:
    """TooDeep for what cannot be parsed in linear time, or would be indented to many times its length."""
    tags = html.count("<")
    if tags > MAX_DEPTH and depth(html) > MAX_DEPTH:
        raise TooDeep(f"nested over {MAX_DEPTH} levels")
    if 2 * tags * tags > _FREE and 2 * _list_depth(html) * tags > _INDENTS * len(html) + _FREE:
        raise TooDeep(f"lists indent it to over {_INDENTS} times its length")


def _list_depth(html: str) -> int:
    """How deep lists nest at most, by counting their tags; a level indents by two characters."""
    now = deepest = 0
    for found in _LISTS.finditer(html):
        now = max(now - 1, 0) if found[1] else now + 1
        deepest = max(deepest, now)
    return deepest


def depth(html: str) -> int:
    """An upper estimate of how deep elements nest, by counting tags that open and close."""
    now = deepest = 0
    for close, name in _TAG.findall(html):
        if name.lower() in _FLAT:
            continue
        if close:
            now = max(now - 1, 0)
        else:
            now += 1
            deepest = max(deepest, now)
    return deepest
