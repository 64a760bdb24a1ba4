"""Project Gutenberg's own words around a book, taken off: header, licence, small print, transcriber's credits.

Its files changed over fifty years. These marks are known, each on a line of its own, whatever its case, spaces and dashes:

| where            | mark                                                                                       | since     |
|------------------|--------------------------------------------------------------------------------------------|-----------|
| before the book  | `*** START OF THE (or THIS) PROJECT GUTENBERG EBOOK (or ETEXT) <title> ***`                | about 2004 |
| before the book  | `*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*...*END*`, `*END THE SMALL PRINT! ...`     | 1992-2003 |
| behind the book  | `*** END OF THE (or THIS) PROJECT GUTENBERG EBOOK (or ETEXT) <title> ***`                  | about 2004 |
| behind the book  | `End of (the) Project Gutenberg('s) (EBook, Etext) (of) <title>`                            | 1991-     |

A text is taken for Gutenberg's only where one of the marks before the book stands within its first 64 kB, or the mark behind it
and a line with the name within that stretch; nothing is cut from any other. The last mark before the book counts and the first one
behind it. Credits (`Produced by ...`, `E-text prepared by ...`) go where they are the first paragraph of the book. The title
comes from the header (`Title: ...`, or its first line), and so do the release date and the book's number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PUBLIC_DOMAIN = "Public domain in the USA"
COPYRIGHTED = "Copyrighted, distributed by Project Gutenberg with permission"
_REACH = 64 << 10  # characters within which the header ends
_B = r"[ \t]{1,40}"  # blanks; bounded, so that a line of nothing else is passed over in linear time
_PROJECT = rf"of{_B}(?:(?:the|this){_B})?project{_B}gutenberg"
_LINE = r"^[ \t]{0,40}"
_START = re.compile(  # a long title goes on in the next line
    rf"{_LINE}\*\*\*[ \t]{{0,40}}start{_B}{_PROJECT}[^\n]{{0,400}}(?:\n(?![ \t]*\n)[^\n*]{{0,400}}\*\*\*)?", re.I | re.M
)
_SMALL_PRINT = re.compile(rf"{_LINE}\*end[ *]{{1,9}}the small print[^\n]{{0,400}}", re.I | re.M)
_END = re.compile(rf"{_LINE}\*\*\*[ \t]{{0,40}}end{_B}{_PROJECT}[^\n]{{0,400}}", re.I | re.M)
_OLD_END = re.compile(rf"{_LINE}\*{{0,9}}[ \t]{{0,9}}(?:this is the )?end{_B}{_PROJECT}(?:'s|’s)?\b[^\n]{{0,400}}", re.I | re.M)
_NAMED = re.compile(rf"project{_B}gutenberg", re.I)
_CREDITS = re.compile(
    r"\s*(?:\[?(?:(?:(?:this )?e-?(?:text|book) (?:was )?)?(?:produced|prepared)|transcribed)"
    r" (?:by|from)\b|credits:)[^\n]*(?:\n[^\n]+)*",
    re.I,
)
_NOTE = re.compile(r"\s*\[(?:transcriber's|transcriber’s|e-?text)[^\]]{0,2000}\]", re.I)
_FIELD = re.compile(r"^(title|release date|posting date):[ \t]*(\S[^\n]*(?:\n[ \t]{2,}\S[^\n]*)*)", re.I | re.M)
_HEADLINE = re.compile(
    r"(?:the )?project gutenberg(?:'s|’s)? (?:(?:e-?book|e-?text) (?:of )?)?"
    r"(?P<title>[^\n]+?)(?:,? by [^\n]+)?[ \t]*$",
    re.I | re.M,
)
_NUMBER = re.compile(r"\[?(?:e-?book|e-?text) ?(?:#|no\. ?)(\d{1,6})\]?", re.I)
_COPYRIGHTED = re.compile(r"\bCOPYRIGHTED project gutenberg", re.I)
_RELEASED = re.compile(r"[^\[\n]+")


@dataclass(frozen=True, slots=True)
class Book:
    """A book without Gutenberg's words; its fields are None where no header states them."""

    text: str
    title: str | None = None
    date: str | None = None
    number: str | None = None  # at Project Gutenberg
    license: str | None = None


def strip(text: str) -> Book:
    """The book in a text; a text without Gutenberg's marks is the book as it stands. `text` has newlines for line ends."""
    begin = 0
    for mark in (_START, _SMALL_PRINT):
        for found in mark.finditer(text, 0, _REACH):
            begin = max(begin, found.end())
    end = _END.search(text, begin) or _OLD_END.search(text, begin)
    if not begin and not (end and _NAMED.search(text, 0, min(_REACH, end.start()))):
        return Book(text)
    if end:
        end = _OLD_END.search(text, begin, end.start()) or end
    header, body = text[:begin], text[begin : end.start() if end else len(text)]
    licence = COPYRIGHTED if _COPYRIGHTED.search(header) else PUBLIC_DOMAIN
    return Book(_without_credits(body).strip(), **_fields(header), license=licence)


def _without_credits(body: str) -> str:
    """The book without the transcribers' credits and notes before its first words."""
    at = 0
    while found := _CREDITS.match(body, at) or _NOTE.match(body, at):
        at = found.end()
    return body[at:]


def _fields(header: str) -> dict[str, str | None]:
    """Title, release date and number as the header states them."""
    stated: dict[str, str] = {}
    for found in _FIELD.finditer(header):
        stated.setdefault(found[1].lower(), " ".join(found[2].split()))
    headline = _HEADLINE.search(header.strip().split("\n\n")[0][:1000])
    date = stated.get("release date") or stated.get("posting date")
    released, number = _RELEASED.match(date) if date else None, _NUMBER.search(header)
    return {
        "title": stated.get("title") or (headline["title"].strip(" ,.*") if headline else None),
        "date": released[0].strip(" ,") if released else None,
        "number": number[1] if number else None,
    }
