"""Wiki markup to text: "we remove hyperlinks, comments and other formatting boilerplate" (Touvron et al. 2023, section 2.1).

Left out whole: templates, tables, comments, references, galleries, files, categories, links to other languages. Kept as text:
labels of links, headings, list items, what stands between formatting tags. Headings and items stand on lines of their own, without
their marks.

Kept to the letter, for nothing there is markup: `<math>`, `<chem>`, `<ce>`, `<nowiki>`, `<pre>`, `<syntaxhighlight>` (`<source>`);
the last three with the blanks of their lines if they have several. In `<code>` MediaWiki reads links, quotes and templates, and so
do we; but what has only their looks stays: tags that HTML does not have, such as `<stdio.h>`, braces that hold braces, `__FILE__`.

One pass with a stack of open brackets, so nesting costs linear time whatever it looks like; a bracket that nobody closes is
dropped and its content kept, as a reader of the page would see it, and so is a link around more than 20 levels of links.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection

FILE_NAMES = frozenset(["file", "image", "media", "category"])
_BRACKETS = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})|\[\[|\]\]")  # the end of {{a|}} is }}, not |}
_MAX_HEIGHT = 20  # a level copies what stands inside of it; MediaWiki has links inside of a picture's caption, and no deeper
_CLOSES = {"}}": "{{", "|}": "{|", "]]": "[["}
# Elements that are left out with what they hold.
_LEFT_OUT = ("ref", "gallery", "timeline", "score", "imagemap", "graph", "mapframe", "style", "script", "references")
_ELEMENT = re.compile(rf"<({'|'.join(_LEFT_OUT)})\b([^<>]*)>", re.IGNORECASE)
# Elements whose content is no markup, or not all of it.
_SHELTERS = ("nowiki", "pre", "math", "chem", "ce", "syntaxhighlight", "source", "code")
_SHELTER = re.compile(rf"<!--|<({'|'.join(_SHELTERS)})(?=[\s/>])([^<>]*)>", re.IGNORECASE)
_SHELTER_END = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _SHELTERS}
_NOWIKI = re.compile(r"</?nowiki\s*/?>", re.IGNORECASE)
_HTML = (
    "abbr b bdi bdo big blockquote br center cite code data del dfn div em font h[1-6] hr i ins kbd li mark ol p q rp rt ruby"
    " s samp small span strike strong sub sup table td th time tr tt u ul var wbr section poem (?:no|only)include includeonly"
).replace(" ", "|")
# (A template that could be one), or what only looks like markup.
_IN_CODE = re.compile(
    r"(\{\{[^{}]*\}\})|\{\{+|\}\}+|\{\||\|\}|__"
    rf"|<(?!/?(?:{_HTML}|{'|'.join(_LEFT_OUT)})(?=[\s/>]))(?=/?[a-z])",
    re.IGNORECASE,
)
# Marks for what is sheltered: within a line, and on lines of its own.
_INLINE, _BLOCK = re.compile("\0([0-9]+)\0"), re.compile("\1([0-9]+)\1")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# One that is not closed on its line is matched, too, up to the line's end: so no later one of that line is looked at for nothing.
_EXTERNAL = re.compile(r"\[(?:(?:https?|ftp|mailto):|//)[^\s\]]++[^\S\n]*+([^\]\n]*+)(\]?)")
_HEADING = re.compile(r"^=[^\n]*", re.MULTILINE)
_ITEM = re.compile(r"^[*#:;]+[^\S\n]*", re.MULTILINE)
_RULE = re.compile(r"^-{4,}", re.MULTILINE)
_MAGIC = re.compile(r"__[A-Z]{3,}__")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*")
_BLANKS = re.compile(r"\n{3,}")
# Python refuses to read 4,301 digits. A number of more than eight is beyond Unicode, whatever its further digits are.
_NUMBER = re.compile(r"&#0*([0-9]{8})[0-9]*")


def plain_text(markup: str, file_names: Collection[str] = FILE_NAMES) -> str:
    """The text of an article. file_names: lower-case names of the namespaces whose links show no text.

    `markup` holds no U+0000 or U+0001, as no XML does.
    """
    kept: list[str] = []
    text = _without_elements(_sheltered(markup, kept))
    text = _without_brackets(text, frozenset(file_names) | FILE_NAMES)
    text = _EXTERNAL.sub(lambda found: found[1] if found[2] else found[0], text)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _MAGIC.sub("", text).replace("'''", "").replace("''", "")
    text = _RULE.sub("", _ITEM.sub("", _HEADING.sub(_heading, text)))
    text = _unescaped(text)
    if kept:
        text = _INLINE.sub(lambda mark: kept[int(mark[1])], text)
    text = text.replace("\xa0", " ")
    lines = [line.strip() for line in text.split("\n")]
    text = _BLANKS.sub("\n\n", "\n".join(lines)).strip()
    return _BLOCK.sub(lambda mark: kept[int(mark[1])].replace("\xa0", " "), text) if kept else text


def _heading(line: re.Match[str]) -> str:
    """The words of a heading, whose level is what stands at both ends of its line; another line as it is."""
    text = line[0].rstrip()
    level = min(6, len(text) // 2, len(text) - len(text.lstrip("=")), len(text) - len(text.rstrip("=")))
    return text[level:-level].strip() if level else line[0]


def _unescaped(text: str) -> str:
    """The text with the characters that its references stand for."""
    try:
        return html.unescape(text)
    except ValueError:
        return html.unescape(_NUMBER.sub(r"&#\1", text))


def without_comments(text: str) -> str:
    """The markup without <!-- comments -->; one that nobody closes takes the rest with it."""
    parts, at = [], 0
    while (start := text.find("<!--", at)) >= 0:
        parts.append(text[at:start])
        stop = text.find("-->", start + 4)
        if stop < 0:
            return "".join(parts)
        at = stop + 3
    return "".join([*parts, text[at:]])


def _sheltered(text: str, kept: list[str]) -> str:
    """The markup without comments, and with marks instead of what is no markup, which is put into `kept`."""
    parts, at = [], 0
    unclosed: set[str] = set()
    for match in _SHELTER.finditer(text):
        name = (match[1] or "").lower()
        if match.start() < at or name in unclosed:
            continue
        if not name:  # a comment; one that nobody closes takes the rest with it
            parts.append(text[at : match.start()])
            stop = text.find("-->", match.end())
            if stop < 0:
                return "".join(parts)
            at = stop + 3
            continue
        stop = end = match.end()
        if not match[2].endswith("/"):
            found = _SHELTER_END[name].search(text, stop)
            if found is None:
                unclosed.add(name)  # looked for once: many that nobody closes cost no more than one
                continue
            end = found.end()
            content = text[stop : found.start()]
        else:
            content = ""
        parts += [text[at : match.start()], _shelter(name, match[2], content, kept)]
        at = end
    return "".join([*parts, text[at:]])


def _shelter(name: str, attributes: str, content: str, kept: list[str]) -> str:
    """What stands for an element until all markup is read."""
    if name == "code":
        text = _sheltered(content, kept)  # no deeper: this holds no end of a <code>
        text = _IN_CODE.sub(lambda found: found[0] if found[1] else _mark(found[0], kept), text)
        return _mark("", kept) + text  # so that `#` at its beginning is not at that of a line
    if name == "pre":
        content = _NOWIKI.sub("", content)
    if name in ("nowiki", "pre"):
        content = _unescaped(content)
    if name in ("pre", "syntaxhighlight", "source") and "\n" in content and "inline" not in attributes:
        kept.append(content.strip("\n").rstrip())
        return f"\n\1{len(kept) - 1}\1\n"
    return _mark(content, kept)


def _mark(content: str, kept: list[str]) -> str:
    kept.append(content)
    return f"\0{len(kept) - 1}\0"


def _without_elements(text: str) -> str:
    parts, at = [], 0
    lowered = text.lower() if "<" in text else ""
    if len(lowered) != len(text):  # a few capitals lower to two characters: their places would shift
        lowered = text
    unclosed: set[str] = set()
    for match in _ELEMENT.finditer(text):
        if match.start() < at:
            continue
        name = match[1].lower()
        parts.append(text[at : match.start()])
        at = match.end()
        if match[2].endswith("/") or name in unclosed:
            continue
        stop = lowered.find(f"</{name}", at)
        if stop < 0:
            unclosed.add(name)  # looked for once: many that nobody closes cost no more than one
            continue
        end = text.find(">", stop)
        at = len(text) if end < 0 else end + 1
    return "".join([*parts, text[at:]])


def _without_brackets(text: str, file_names: Collection[str]) -> str:
    parts: list[str] = []
    opened: list[str] = []  # brackets that have not been closed yet,
    begins: list[int] = []  # where in `parts` what stands inside of each begins,
    heights = bytearray(1)  # and how many levels of links there are inside of it; the first one is that of the whole
    waiting = {"{{": 0, "{|": 0, "[[": 0}
    at = 0
    for match in _BRACKETS.finditer(text):
        if match.start() > at:
            parts.append(text[at : match.start()])
        at, bracket = match.end(), match[0]
        opener = _CLOSES.get(bracket)
        if opener is None:
            if bracket == "{|" and not _starts_line(text, match.start()):
                parts.append(bracket)
                continue
            opened.append(bracket)
            begins.append(len(parts))
            heights.append(0)
            waiting[bracket] += 1
        elif not waiting[opener] or (opener == "[[" and (opened[-1] != "[[" or heights[-1] == _MAX_HEIGHT)):
            if bracket == "|}":
                parts.append(bracket)
        else:
            depth = len(opened) - 1
            while opened[depth] != opener:  # what stands open inside of it goes with it
                waiting[opened[depth]] -= 1
                depth -= 1
            waiting[opener] -= 1
            begin, height = begins[depth], heights[-1]
            content = parts[begin:]
            del opened[depth:], begins[depth:], heights[depth + 1 :], parts[begin:]
            if opener == "[[":
                parts.append(_label("".join(content), file_names))
                heights[-1] = max(heights[-1], height + 1)
    return "".join([*parts, text[at:]])


def _starts_line(text: str, at: int) -> bool:
    line = text.rfind("\n", max(0, at - 64), at) + 1
    return not text[max(line, at - 64) : at].strip(" \t:*#") if line or at <= 64 else False


def _label(content: str, file_names: Collection[str]) -> str:
    """What a link shows: "" for files, categories and other languages, the label, or the target."""
    target, bar, label = content.partition("|")
    space, colon, rest = target.partition(":")
    if colon:
        name = space.strip().lower()
        if not name:  # [[:Category:x]] shows its name
            return label if bar else rest
        if name in file_names or _LANGUAGE.fullmatch(space.strip()):
            return ""
    return label if bar else target
