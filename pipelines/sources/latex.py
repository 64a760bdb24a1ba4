r"""LaTeX source to the text of a paper, by searching and cutting alone: nothing is ever executed.

"We follow Lewkowycz et al. (2022) and removed everything before the first section, as well as the bibliography. We also removed
the comments from the .tex files, and inline-expanded definitions and macros written by users to increase consistency across papers"
(Touvron et al. 2023, section 2.1). The steps, each a pure function on a string, each linear in its length:

    strip_comments   a file without its comments: `%` to the start of the next line, as in TeX, and the `comment` environment
    end_of_input     what stands behind `\endinput`
    (latex_bundle)   `\input` and its kin resolved inside the bundle
    (latex_macros)   user macros expanded in line
    paper            the cut: what stands from the first `\part`, `\chapter` or `\section` to `\end{document}`, no bibliography

What stands verbatim is kept to the letter and never searched: `\verb`, the environments in `VERBATIM`, and the addresses of `\url`
and `\href`, in which `%` is no comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

VERBATIM = "verbatim verbatim* Verbatim BVerbatim LVerbatim lstlisting minted alltt filecontents filecontents*".split()
ADDRESSES = "url nolinkurl path href".split()
VERB_REACH = 1000  # characters within which \verb and \url have to end
_ENVIRONMENT, _ADDRESS = "|".join(map(re.escape, VERBATIM)), "|".join(ADDRESSES)
_OPAQUE = rf"(?P<verb>verb\*?)(?![A-Za-z@*])|begin\s?\{{(?P<verbatim>{_ENVIRONMENT})\}}|(?P<url>{_ADDRESS})\s?\{{"


def _pattern(wanted: str) -> re.Pattern[str]:
    """The command `wanted`, without its backslash, or the start of something verbatim.

    Patterns begin with a backslash, for which the engine searches fast; the line breaks `\\\\` before a command are passed over.
    """
    return re.compile(rf"\\(?<!\\\\)(?:\\\\)*(?:{_OPAQUE}|(?P<wanted>{wanted}))")


# A `%` behind a whole number of line breaks, or behind no backslash at all.
_COMMENT = re.compile(_pattern(r"begin\s?\{comment\}|\\%").pattern + r"|(?P<percent>%)(?<!\\%)")
_END_OF_INPUT = _pattern(r"endinput(?![A-Za-z@])")
BEGIN_DOCUMENT = _pattern(r"begin\s?\{document\}")
_END_DOCUMENT = _pattern(r"end\s?\{document\}")
_SECTION = _pattern(r"(?:part|chapter|section)\*?\s?[\[{]")
_FRONT = _pattern(r"(?:maketitle(?![A-Za-z@])|end\s?\{(?:abstract|frontmatter|titlepage)\})")
_TITLE = _pattern(r"title(?![A-Za-z@])\s?")
_BIBLIOGRAPHY = _pattern(
    r"(?:begin\s?\{(?P<list>thebibliography|references|REFERENCES)\}"
    r"|(?:bibliography|bibliographystyle)\s?\{[^{}]{0,2000}\}|printbibliography(?![A-Za-z@])(?:\s?\[[^\[\]]{0,2000}\])?)"
)
CLASS = _pattern(r"document(?:class|style)(?![A-Za-z@])")
INPUT = _pattern(
    r"(?:(?:input|include|subfile)\s?\{(?P<braced>[^{}\n]{0,400})\}|input(?![A-Za-z@])[ \t]+(?P<bare>[^\s{}\\]{1,400})[ \t]?)"
)
_BLANKS = re.compile(r"[ \t]*")


class Searcher:
    """Finds in one text what is wanted, from any place on; what stands verbatim is passed over."""

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        self._text, self._pattern = text, pattern
        self._absent: set[str] = set()  # ends of environments that do not come any more: each is searched for in vain once

    def next(self, at: int) -> re.Match[str] | None:
        """The first match from `at` on that is what the pattern wants."""
        while match := self._pattern.search(self._text, at):
            if match.lastgroup in ("wanted", "percent"):
                return match
            at = self._behind(match)
        return None

    def _behind(self, match: re.Match[str]) -> int:
        """Where something verbatim ends; what has no end is text like any other."""
        text, at = self._text, match.end()
        if match["verbatim"]:
            end = f"\\end{{{match['verbatim']}}}"
            close = -1 if end in self._absent else text.find(end, at)
            if close < 0:
                self._absent.add(end)
                return at
            return close + len(end)
        mark = "}" if match["url"] else text[at : at + 1]
        close = text.find(mark, at + (not match["url"]), at + VERB_REACH) if mark.strip() else -1
        return at if close < 0 or text.find("\n", at, close) >= 0 else close + 1


def start(match: re.Match[str]) -> int:
    """Where a match that is wanted begins: at its backslash, or at the `%`."""
    return match.end() - 1 if _is_percent(match) else match.start("wanted") - 1


def _is_percent(match: re.Match[str]) -> bool:
    return match.lastgroup == "percent" or match["wanted"] == r"\%"


def first(text: str, pattern: re.Pattern[str], at: int = 0) -> re.Match[str] | None:
    """The first match from `at` on of what a pattern wants."""
    return Searcher(text, pattern).next(at)


def decode(content: bytes) -> str:
    """The characters of a .tex file: UTF-8, else Latin-1, which explains any bytes; all line ends are newlines, NULs go."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def ends_in_word(text: str) -> bool:
    r"""Whether the text ends in a control word such as `\alpha`, to which a letter would be joined."""
    text = text[-200:]  # no name is longer
    stem = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@")
    if len(stem) == len(text) or not stem.endswith(("\\", "\0")):
        return False
    return stem.endswith("\0") or (len(stem) - len(stem.rstrip("\\"))) % 2 == 1


def strip_comments(text: str) -> str:
    r"""The text without comments.

    A line that is a comment goes; a comment behind text goes with the line's end and the next line's indent, as in TeX, but the
    end of a paragraph stays, and so does a line end that keeps a control word from the next letter. A `comment` environment goes
    to its end; one that is never closed stays.
    """
    kept: list[str] = []
    searcher = Searcher(text, _COMMENT)
    at = done = 0  # where to look on, and what is dealt with
    closed = True
    while match := searcher.next(at):
        place = start(match)
        if not _is_percent(match):
            close = text.find(r"\end{comment}", match.end()) if closed else -1
            closed = close >= 0
            at = match.end()
            if closed:
                kept.append(text[done:place])
                at = done = close + len(r"\end{comment}")
            continue
        begin, stop = _comment(text, place)
        kept.append(text[done:begin])
        at = done = stop
    kept.append(text[done:])
    return "".join(kept)


def _comment(text: str, place: int) -> tuple[int, int]:
    """What goes with the comment whose `%` stands at `place`: from where to where."""
    stop = text.find("\n", place)
    if stop < 0:
        return place, len(text)
    line = text.rfind("\n", 0, place) + 1
    if not text[line:place].strip(" \t"):
        return line, stop + 1
    following = _BLANKS.match(text, stop + 1).end()  # type: ignore[union-attr]  # it matches anything
    ahead = text[following : following + 1]
    if ahead == "\n" or (ahead.isalpha() and ends_in_word(text[line:place])):
        return place, stop
    return place, following


def end_of_input(text: str) -> str:
    r"""The text up to `\endinput`."""
    match = first(text, _END_OF_INPUT)
    return text[: start(match)] if match else text


def inside_document(text: str) -> str:
    r"""What stands between `\begin{document}` and `\end{document}`; the whole text where it has no such beginning."""
    begin = first(text, BEGIN_DOCUMENT)
    if begin is None:
        return text
    end = first(text, _END_DOCUMENT, begin.end())
    return text[begin.end() : start(end) if end else len(text)]


@dataclass(frozen=True, slots=True)
class Paper:
    """What a paper says: its text, and its title where that is simple."""

    text: str
    title: str | None


def paper(source: str) -> Paper | None:
    r"""The paper in a whole LaTeX source without comments; None where there is no `\begin{document}`.

    A paper without sections begins behind `\maketitle` and the abstract: that is what the first section would have cut off.
    """
    if first(source, BEGIN_DOCUMENT) is None:
        return None
    body = inside_document(source)
    section = first(body, _SECTION)
    body = body[start(section) if section else _front_end(body) :]
    return Paper(without_bibliography(body).strip(), title_of(source))


def _front_end(body: str) -> int:
    searcher, at = Searcher(body, _FRONT), 0
    while match := searcher.next(at):
        at = match.end()
    return at


def without_bibliography(body: str) -> str:
    r"""The text without `thebibliography` and revtex' `references`, and without the commands that would print a bibliography.

    What follows it, such as an appendix, stays; a list that is never closed takes the rest with it.
    """
    kept: list[str] = []
    searcher, done = Searcher(body, _BIBLIOGRAPHY), 0
    while match := searcher.next(done):
        kept.append(body[done : start(match)])
        done = match.end()
        if match["list"]:
            end = f"\\end{{{match['list']}}}"
            close = body.find(end, done)
            done = len(body) if close < 0 else close + len(end)
    kept.append(body[done:])
    return "".join(kept)


_ASIDE = re.compile(r"\\(?:thanks|footnote|footnotemark)\s?(?:\[[^\[\]]*\])?\{[^{}]*\}")
_BREAK = re.compile(r"\\\\\*?(?:\[[^\[\]]*\])?|~|\s")
_MATH = re.compile(r"\$[^$]*\$")
_TITLE_BYTES = 2000


def title_of(source: str) -> str | None:
    r"""The paper's title in one line: of the first `\title`, without line breaks, notes and grouping braces.

    None where commands are left in it outside of formulas, or no closing brace within 2,000 characters.
    """
    match = first(source, _TITLE)
    if match is None:
        return None
    window = source[match.end() : match.end() + _TITLE_BYTES]
    if window.startswith("["):
        window = window[window.find("]") + 1 :].lstrip()
    close = closing(window, 0)
    if not window.startswith("{") or close < 0:
        return None
    title = " ".join(_BREAK.sub(" ", _ASIDE.sub("", window[1:close])).split())
    plain = _MATH.sub("", title)
    if not title or "\\" in plain:
        return None
    return title if "$" in title else title.replace("{", "").replace("}", "")


_BRACE = re.compile(r"[{}]|[\\\0].", re.DOTALL)


def closing(text: str, at: int, reach: int = 1 << 20) -> int:
    """The place of the brace that closes the one at `at`, or -1 where none does within `reach` characters."""
    depth = 0
    for match in _BRACE.finditer(text, at, at + reach):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return -1
