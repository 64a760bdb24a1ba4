"""The whole text of a piece of HTML, such as a post or a chapter of a book, where `html` looks for a page's main content.

Block structure becomes line breaks, list items keep their bullets or numbers, `<pre>` keeps its lines and blanks to the letter,
and inline `<code>` is text like any other, with its blanks joined as a browser shows it. Scripts, styles, comments, link targets,
alternative texts, form fields and noscript are left out; what is hidden by style is text.

Every level of a list indents each of its lines, so that a few kB of nested lists could stand for gigabytes of blanks: what would
be indented by more than `_INDENTS` times its own length is refused like what nests too deep.
"""

from __future__ import annotations

import re

from pipelines.sources.html import MAX_DEPTH, TooDeep, depth

# resiliparse passes over figures; a caption, or a listing in a figure, is text.
_FIGURES = re.compile(r"<(/?)(?:figure|figcaption)(?![^\s/>])", re.IGNORECASE)
_LISTS = re.compile(r"<(/?)[uo]l(?![^\s/>])", re.IGNORECASE)
_INDENTS = 8  # real posts stay below 1
_FREE = 1 << 20  # characters


def fragment_text(html: str) -> str:
    """All text of an HTML fragment, read by HTML's rules; at most 9 times its length and a million characters.

    TooDeep for what cannot be parsed in linear time, or would be indented beyond that.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tags = html.count("<")
    if tags > MAX_DEPTH and depth(html) > MAX_DEPTH:
        raise TooDeep(f"nested over {MAX_DEPTH} levels")
    if 2 * tags * tags > _FREE and 2 * _list_depth(html) * tags > _INDENTS * len(html) + _FREE:
        raise TooDeep(f"lists indent it to over {_INDENTS} times its length")
    text = extract_plain_text(
        HTMLTree.parse(_FIGURES.sub(r"<\1div", html)),
        main_content=False,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
    )
    return str(text)


def _list_depth(html: str) -> int:
    """How deep lists nest at most, by counting their tags; a level indents by two characters."""
    now = deepest = 0
    for found in _LISTS.finditer(html):
        now = max(now - 1, 0) if found[1] else now + 1
        deepest = max(deepest, now)
    return deepest
