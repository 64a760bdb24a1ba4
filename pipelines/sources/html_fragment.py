"""The whole text of a piece of HTML, such as a post or a chapter of a book, where `html` looks for a page's main content.

Block structure becomes line breaks, list items keep their bullets or numbers, `<pre>` keeps its lines and blanks to the letter,
and inline `<code>` is text like any other, with its blanks joined as a browser shows it. Scripts, styles, comments, link targets,
alternative texts, form fields and noscript are left out; what is hidden by style is text.
"""

from __future__ import annotations

import re

from pipelines.sources.html import parsed

# resiliparse passes over figures; a caption, or a listing in a figure, is text.
_FIGURES = re.compile(r"<(/?)(?:figure|figcaption)(?![^\s/>])", re.IGNORECASE)


def fragment_text(html: str) -> str:
    """All text of an HTML fragment, read by HTML's rules; at most 9 times its length and a million characters.

    TooDeep for what cannot be read in linear time, or would be indented beyond that.
    """
    from resiliparse.extract.html2text import extract_plain_text

    text = extract_plain_text(
        parsed(_FIGURES.sub(r"<\1div", html)),
        main_content=False,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
    )
    return str(text)
