r"""User macros of LaTeX expanded in line, as TeX would read them, without running anything.

| what stands there                                                                  | what becomes of it                        |
|------------------------------------------------------------------------------------|-------------------------------------------|
| `\newcommand`, `\renewcommand`, `\providecommand`, `\DeclareRobustCommand`         | goes, its uses are expanded               |
| `\def`, `\gdef` with nothing but `#1` to `#9` as pattern, also behind `\long`, ... | the same                                  |
| `\DeclareMathOperator`                                                             | the same, as `\operatorname{...}`         |
| `\let` to a command                                                                | the same, with the meaning of that moment |
| a definition of a command in `KEPT`                                                | goes; the command stays                   |
| any other definition (`\edef`, delimited patterns, `\newenvironment`, ...)         | stays, and so do the uses                 |
| a body that decides or makes names (`\if...`, `\@ifnextchar`, `\csname`, ...)      | the same                                  |
| a use that meets itself, lacks an argument, or is over a bound                     | stays as it is                            |

Definitions hold from where they stand to the end, whatever group or condition they stand in. The blank behind a macro's name stays,
so `\xspace` at the end of a body goes; a blank is put where an expansion would join a control word and a letter.

Bounds are counts and hold for any text: an outermost use may take `USE_EXPANSIONS` expansions, `USE_WORK` characters and `DEPTH`
levels, the whole text `RATIO` characters of work for each of its own. Where the work is spent, the rest is left as it is. So the
time is linear in the text, and the output at most `RATIO` times as long, and a little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pipelines.sources.latex import ADDRESSES, VERB_REACH, VERBATIM, closing, ends_in_word
from pipelines.sources.latex_definitions import COMMANDS, REACH, Macro, bracketed, definition

USE_EXPANSIONS = 10_000
USE_WORK = 1 << 20
DEPTH = 64
RATIO = 16
_FREE = 1 << 20  # characters of work for even the shortest text

KEPT = frozenset(
    "part chapter section subsection subsubsection paragraph subparagraph begin end item title bibliography".split()
)  # what `latex.paper` goes by, and what parts a text
_HIDDEN = "\0"  # stands for the backslash of what is expanded already; no text holds one
_TOKEN = re.compile(r"\\([A-Za-z]+|[^A-Za-z])", re.DOTALL)
_TOKEN_AT = re.compile(r"\\([A-Za-z@]+|[^A-Za-z@])", re.DOTALL)  # between \makeatletter and \makeatother
_PREFIXES = frozenset("long global outer protected".split())
_PREFIXED = re.compile(r"\s*\\(?:long|global|outer|protected|g?def|let)(?![A-Za-z@])")
_BLANK = re.compile(r"\s*")
_LINE_END = re.compile(r"[ \t]*\n")
_VERBATIM = re.compile(r"\s?\{(" + "|".join(map(re.escape, VERBATIM)) + r")\}")
_VERB = re.compile(r"\*?([^A-Za-z@*\s])")
_ADDRESS = re.compile(rf"\s?\{{[^{{}}\n]{{0,{VERB_REACH}}}\}}")
_SPECIAL = COMMANDS | _PREFIXES | frozenset(ADDRESSES) | frozenset(["makeatletter", "makeatother", "begin", "verb"])


class _Stuck(Exception):
    """This use cannot be expanded."""


@dataclass(slots=True)
class _Frame:
    """A text that is being read: the source itself, an argument, or the body of a macro with its arguments."""

    text: str
    at: int
    at_letter: bool
    names: tuple[str, ...]  # of the macros that it comes from


def expand(text: str) -> str:
    """The text with its user macros expanded, without their definitions."""
    expander = _Expander(work=RATIO * len(text) + _FREE)
    return expander.run(text, (), False, 0).replace(_HIDDEN, "\\")


@dataclass(slots=True)
class _Expander:
    work: int  # characters that may still be looked at for expansions
    macros: dict[str, Macro] = field(default_factory=dict)
    use_expansions: int = 0
    use_work: int = 0
    absent: set[str] = field(default_factory=set)  # ends of environments that do not come any more in the source

    def run(self, text: str, names: tuple[str, ...], at_letter: bool, depth: int) -> str:
        """A text expanded; at depth 0 what is stuck stays as it is, below it raises _Stuck."""
        base = _Frame(text, 0, at_letter, names)
        frames = [base]
        out: list[str] = []
        saved = (0, 0, "")  # to go back to: pieces put out, place behind the use, the use itself
        joined = False  # the next piece comes from another text than the last one
        while frames:
            frame = frames[-1]
            start, match = frame.at, None
            while match := (_TOKEN_AT if frame.at_letter else _TOKEN).search(frame.text, frame.at):
                frame.at = match.end()
                word = match[1]
                if word in _SPECIAL or word in self.macros:
                    break
            piece = frame.text[start : match.start() if match else len(frame.text)]
            if piece:
                if joined and piece[0].isalpha() and out and ends_in_word(out[-1]):
                    out.append(" ")
                out.append(piece)
                joined = False
            if match is None:
                frames.pop()
                joined = True
                continue
            if word not in self.macros:
                self._special(match, frame, out, frame is base and depth == 0)
                continue
            if depth == 0 and len(frames) == 1:
                saved = (len(out), frame.at, match[0])
                self.use_expansions = self.use_work = 0
            try:
                body = self._use(word, frames, depth)
            except _Stuck:
                if depth:
                    raise
                del out[saved[0] :]
                frames = [base]
                base.at = saved[1]
                out.append(saved[2])
                joined = False
                continue
            joined = True
            if self.macros[word].frozen:
                if out and not out[-1].endswith(" ") and ends_in_word(out[-1]) and body[0].isalpha():
                    out.append(" ")
                out.append(body)
            else:
                frames.append(_Frame(body, 0, self.macros[word].at_letter, (*frame.names, word)))
        result = "".join(out)
        return result.replace("\\", _HIDDEN) if depth else result

    # -- uses -------------------------------------------------------------------------------------------------------------

    def _use(self, name: str, frames: list[_Frame], depth: int) -> str:
        """The body of a macro with its arguments, which are taken from the frames."""
        macro, names = self.macros[name], frames[-1].names
        self.use_expansions += 1
        if name in names or len(names) + depth >= DEPTH or self.use_expansions > USE_EXPANSIONS:
            raise _Stuck
        arguments = []
        for number in range(macro.arguments):
            optional = number == 0 and macro.default is not None
            argument = self._optional(frames, macro.default or "") if optional else self._argument(frames)
            arguments.append(self._expanded(argument, frames[-1], depth))
        pieces: list[str] = []
        for part in macro.body:
            piece = part if isinstance(part, str) else arguments[part]
            if piece and piece[0].isalpha() and pieces and ends_in_word(pieces[-1]):
                pieces.append(" ")
            if piece:
                pieces.append(piece)
        body = "".join(pieces)
        self._spend(len(body) + 1)
        return body

    def _expanded(self, argument: str, frame: _Frame, depth: int) -> str:
        """An argument expanded for itself; one that is no whole text, such as a macro without its argument, as it is."""
        if "\\" not in argument:
            return argument
        try:
            return self.run(argument, frame.names, frame.at_letter, depth + 1)
        except _Stuck:
            return argument

    def _spend(self, characters: int) -> None:
        self.work -= characters
        self.use_work += characters
        if self.work < 0 or self.use_work > USE_WORK:
            raise _Stuck

    def _next(self, frames: list[_Frame]) -> str:
        """The next character that is no blank; texts that are read to their end are left."""
        while True:
            frame = frames[-1]
            start = frame.at
            frame.at = _BLANK.match(frame.text, frame.at).end()  # type: ignore[union-attr]  # it matches anything
            self._spend(frame.at - start)
            if frame.at < len(frame.text):
                return frame.text[frame.at]
            if len(frames) == 1:
                raise _Stuck
            frames.pop()

    def _argument(self, frames: list[_Frame]) -> str:
        """The next argument: a group without its braces, a control sequence, or a character."""
        character = self._next(frames)
        frame = frames[-1]
        if character == "{":
            return self._group(frame)
        if character == "}":
            raise _Stuck
        stop = frame.at + 1
        if character in ("\\", _HIDDEN):
            token = (_TOKEN_AT if frame.at_letter else _TOKEN).match("\\" + frame.text[frame.at + 1 : frame.at + 100])
            stop = frame.at + (token.end() if token else 1)
        argument, frame.at = frame.text[frame.at : stop], stop
        return argument

    def _group(self, frame: _Frame) -> str:
        close = closing(frame.text, frame.at, min(USE_WORK, self.work + 1))
        self._spend((close if close >= 0 else min(len(frame.text), frame.at + USE_WORK)) - frame.at)
        if close < 0:
            raise _Stuck
        group, frame.at = frame.text[frame.at + 1 : close], close + 1
        return group

    def _optional(self, frames: list[_Frame], default: str) -> str:
        """The next argument in brackets, or the default."""
        frame, back = frames[-1], frames[-1].at
        try:
            bracket = self._next(frames) == "["
        except _Stuck:
            bracket = False
        if not bracket:
            if frames[-1] is frame:
                frame.at = back
            return default
        frame = frames[-1]
        content = bracketed(frame.text, frame.at, USE_WORK)
        if content is None:
            self._spend(min(len(frame.text) - frame.at, USE_WORK))
            raise _Stuck
        self._spend(len(content))
        frame.at += len(content) + 2
        return content

    # -- what is no use ---------------------------------------------------------------------------------------------------

    def _special(self, match: re.Match[str], frame: _Frame, out: list[str], source: bool) -> None:
        """A definition, which goes if it is understood; or a command behind which something is not to be expanded."""
        word = match[1]
        if word in COMMANDS and self.work >= 0:
            found = definition(word, frame.text, frame.at, frame.at_letter, self.macros)
            if found is not None:
                self.macros.pop(found.name, None)
                self.work -= REACH * found.unclosed
                if found.macro is not None:
                    if found.name not in KEPT:
                        self.macros[found.name] = found.macro
                    frame.at = found.stop
                    line_end = _LINE_END.match(frame.text, frame.at)
                    if line_end and (not out or out[-1].endswith("\n")):
                        frame.at = line_end.end()
                    return
        elif word in _PREFIXES:
            if _PREFIXED.match(frame.text, frame.at):
                return
        elif word in ("makeatletter", "makeatother"):
            frame.at_letter = word == "makeatletter"
        out.append(match[0])
        stop = self._untouched(word, frame, source)
        if stop > frame.at:
            out.append(frame.text[frame.at : stop])
            frame.at = stop

    def _untouched(self, word: str, frame: _Frame, source: bool) -> int:
        """The end of what stands verbatim behind a command."""
        text, at = frame.text, frame.at
        if word in ADDRESSES:
            address = _ADDRESS.match(text, at)
            return address.end() if address else at
        if word == "verb" and (verb := _VERB.match(text, at)):
            close = text.find(verb[1], verb.end(), verb.end() + VERB_REACH)
            return at if close < 0 or text.find("\n", at, close) >= 0 else close + 1
        if word == "begin" and source and (environment := _VERBATIM.match(text, at)):
            end = f"\\end{{{environment[1]}}}"
            close = -1 if end in self.absent else text.find(end, at)
            if close >= 0:
                return close + len(end)
            self.absent.add(end)
        return at
