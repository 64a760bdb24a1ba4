r"""Definitions of user macros in LaTeX, read from where they stand; what each kind becomes says `latex_macros`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.sources.latex import closing

_NAMED = r"([A-Za-z@]+|[^A-Za-z@])"
# The backslash may be hidden already (`latex_macros`) where a macro has put the definition here.
_NAME = re.compile(rf"\s*(?:\{{\s*[\\\0]{_NAMED}\s*\}}|[\\\0]{_NAMED})", re.DOTALL)
_STAR = re.compile(r"\s*\*")
_COUNT = re.compile(r"\s*\[\s*([0-9])\s*\]")
_PATTERN = re.compile(r"((?:#[1-9])*)\s*(?=\{)")
_MEANING = re.compile(r"\s*=?\s?[\\\0]([A-Za-z@]+|[^A-Za-z@])", re.DOTALL)
_TOKEN = re.compile(rf"\s*([\\\0]{_NAMED}|[^\s{{}}\\\0#])", re.DOTALL)
_OPEN = re.compile(r"\s*(?=\{)")
_BRACKET = re.compile(r"\s*(?=\[)")
_IN_BRACKETS = re.compile(r"[{}\]]|[\\\0].", re.DOTALL)
_PARAMETER = re.compile(r"#([1-9#])")
# What decides, or makes names, when it is run: a body with it cannot be put in the place of its use.
_DECIDES = re.compile(r"[\\\0](?:@?if[A-Za-z@]*|csname|expandafter|futurelet)(?![A-Za-z@])")
_SPACE_IF_NEEDED = re.compile(r"[\\\0]xspace(?![A-Za-z@])\s*\Z")

LATEX = frozenset("newcommand renewcommand providecommand DeclareRobustCommand".split())
PLAIN = frozenset(["def", "gdef"])
COMMANDS = LATEX | PLAIN | {"let", "DeclareMathOperator", "edef", "xdef"}
REACH = 1 << 14  # characters within which a group or a bracket has to close


@dataclass(frozen=True, slots=True)
class Macro:
    """A user's macro. `body`: literal text, and the 0-based numbers of the arguments that stand between."""

    body: tuple[str | int, ...]
    arguments: int = 0
    default: str | None = None  # of the first argument, which is optional then
    at_letter: bool = False  # the body was read with @ as a letter
    frozen: bool = False  # the body is not expanded any further


@dataclass(frozen=True, slots=True)
class Definition:
    """What a definition says; without a macro it is none of those that are understood, and stays in the text."""

    name: str
    macro: Macro | None
    stop: int  # behind it
    unclosed: bool = False  # a group or bracket of it does not close within REACH


class _Unclosed(Exception):
    """A group or a bracket does not close within REACH."""


def definition(kind: str, text: str, at: int, at_letter: bool, known: Mapping[str, Macro]) -> Definition | None:
    """The definition by the command `kind` whose rest begins at `at`; None where not even its name can be read."""
    star = _STAR.match(text, at) if kind in LATEX or kind == "DeclareMathOperator" else None
    at = star.end() if star else at
    named = _NAME.match(text, at)
    if named is None:
        return None
    name = named[1] or named[2]
    if kind in ("def", "gdef", "let", "edef", "xdef") and named[1]:
        return None  # TeX's own commands take no braces here
    try:
        parsed = _parsed(kind, star is not None, text, named.end(), at_letter, known)
    except _Unclosed:
        return Definition(name, None, at, unclosed=True)
    if parsed is None:
        return Definition(name, None, at)
    macro, stop = parsed
    return Definition(name, known[name] if kind == "providecommand" and name in known else macro, stop)


def _parsed(kind: str, star: bool, text: str, at: int, at_letter: bool, known: Mapping[str, Macro]) -> tuple[Macro, int] | None:
    """(the macro, the place behind its definition), of which the rest behind the name begins at `at`."""
    if kind == "let":
        return _let(text, at, known)
    if kind in LATEX:
        return _latex(text, at, at_letter)
    if kind in PLAIN:
        return _plain(text, at, at_letter)
    body = _body(text, at) if kind == "DeclareMathOperator" else None
    operator = "\\operatorname*{" if star else "\\operatorname{"
    return body and (Macro((f"{operator}{body[0]}}}",), at_letter=at_letter), body[1])


def _latex(text: str, at: int, at_letter: bool) -> tuple[Macro, int] | None:
    """`[count][default]{body}`."""
    count, default = _COUNT.match(text, at), None
    if count is not None:
        at = count.end()
        if bracket := _BRACKET.match(text, at):
            default = bracketed(text, bracket.end(), REACH)
            if default is None:
                raise _Unclosed
            at = bracket.end() + len(default) + 2
    body = _body(text, at)
    number = int(count[1]) if count else 0
    if body is None or (default is not None and number == 0):
        return None
    parts = _parts(body[0], number)
    return None if parts is None else (Macro(parts, number, default, at_letter), body[1])


def _plain(text: str, at: int, at_letter: bool) -> tuple[Macro, int] | None:
    """`#1#2{body}`: a pattern of arguments with nothing between, in order. A blank in a pattern delimits, so it is no such."""
    pattern = _PATTERN.match(text, at)
    if pattern is None or pattern[1] != "".join(f"#{number}" for number in range(1, len(pattern[1]) // 2 + 1)):
        return None
    body = _body(text, pattern.end())
    parts = body and _parts(body[0], len(pattern[1]) // 2)
    return None if body is None or parts is None else (Macro(parts, len(pattern[1]) // 2, None, at_letter), body[1])


def _let(text: str, at: int, known: Mapping[str, Macro]) -> tuple[Macro, int] | None:
    meaning = _MEANING.match(text, at)
    if meaning is None:
        return None
    return known.get(meaning[1]) or Macro((f"\\{meaning[1]}",), frozen=True), meaning.end()


def _body(text: str, at: int) -> tuple[str, int] | None:
    """(a group without its braces, or a single token; the place behind it)."""
    if opened := _OPEN.match(text, at):
        close = closing(text, opened.end(), REACH)
        if close < 0:
            raise _Unclosed
        return text[opened.end() + 1 : close], close + 1
    token = _TOKEN.match(text, at)
    return None if token is None else (token[1], token.end())


def _parts(body: str, arguments: int) -> tuple[str | int, ...] | None:
    """The body split at its parameters; None where it names more than there are, or decides something."""
    if _DECIDES.search(body):
        return None
    parts: list[str | int] = []
    done = 0
    body = _SPACE_IF_NEEDED.sub("", body)
    for match in _PARAMETER.finditer(body):
        parts.append(body[done : match.start()])
        done = match.end()
        if match[1] == "#":
            parts.append("#")
        elif int(match[1]) > arguments:
            return None
        else:
            parts.append(int(match[1]) - 1)
    parts.append(body[done:])
    return tuple(part for part in parts if part != "")


def bracketed(text: str, at: int, reach: int) -> str | None:
    """What stands in the brackets that open at `at` and close within `reach`; brackets inside braces count for nothing."""
    depth = 0
    for match in _IN_BRACKETS.finditer(text, at + 1, at + reach):
        if match[0] == "]" and depth == 0:
            return text[at + 1 : match.start()]
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return None
    return None
