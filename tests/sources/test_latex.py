r"""LaTeX to text: goldens by hand, comments and macros against brute force, bounds as counts.

The references are written another way than the code: comments line by line and character by character, macros by naive replacement
until nothing changes.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import latex_macros
from pipelines.sources.latex import decode, ends_in_word, paper, strip_comments, title_of, without_bibliography
from pipelines.sources.latex_macros import expand

# -- comments ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a % comment\nb", "a b"),
        ("a% comment\n   b", "ab"),
        ("a\n% a line\nb", "a\nb"),
        ("a\n   % an indented line\nb", "a\nb"),
        ("a % the paragraph ends\n\nb", "a \n\nb"),
        ("50\\% of it % comment\n", "50\\% of it "),
        ("a \\\\% comment behind a line break\nb", "a \\\\b"),
        ("\\alpha% no letter may join\nb", "\\alpha\nb"),
        ("\\\\alpha% a word behind a line break\nb", "\\\\alphab"),
        ("\\verb|%| and \\verb*+%+ stay % this goes\n", "\\verb|%| and \\verb*+%+ stay "),
        ("\\verb|a\n% no end in its line\n|b", "\\verb|a\n|b"),
        ("\\url{http://a.example/%20b} % c\n", "\\url{http://a.example/%20b} "),
        ("\\begin{verbatim}\n% code\n\\end{verbatim}% c\nb", "\\begin{verbatim}\n% code\n\\end{verbatim}b"),
        ("% \\begin{verbatim}\na % b\n\\end{verbatim}", "a \\end{verbatim}"),
        ("\\begin{verbatim}% never closed\nb", "\\begin{verbatim}b"),
        ("a\\begin{comment}\nb % c\n\\end{comment}d", "ad"),
        ("a\\begin{comment} never closed", "a\\begin{comment} never closed"),
        ("a% the file's last line", "a"),
        ("%", ""),
    ],
)
def test_comments_go_as_tex_reads_them(source, expected):
    assert strip_comments(source) == expected


def _by_characters(source):
    """The reference: a line at a time, without any pattern."""
    out, joined = "", False  # joined: the line before ended in a comment behind text
    lines = source.split("\n")
    for number, line in enumerate(lines):
        if joined:
            line = line.lstrip(" \t")
        at, escaped = 0, False
        while at < len(line) and not (line[at] == "%" and not escaped):
            escaped = line[at] == "\\" and not escaped
            at += 1
        last = number == len(lines) - 1
        commented = at < len(line)
        if not commented:
            out += line + ("" if last else "\n")
            joined = False
            continue
        text = line[:at]
        if last:
            out += text
            continue
        blank = lines[number][: lines[number].index("%")].strip(" \t") == ""
        if blank:
            # The whole line goes; what was joined before stays joined only to this line.
            joined = False
            continue
        following = lines[number + 1].lstrip(" \t")
        # A control word at the end: letters behind an odd number of backslashes.
        letters = len(text) - len(text.rstrip("ab"))
        stem = text[: len(text) - letters]
        word = letters > 0 and (len(stem) - len(stem.rstrip("\\"))) % 2 == 1
        keeps = (following == "" and number + 2 < len(lines)) or (word and following[:1].isalpha())
        out += text + ("\n" if keeps else "")
        joined = not keeps
    return out


@given(st.text(alphabet="ab\\% \n{", max_size=24))
def test_comments_against_brute_force(source):
    assert strip_comments(source) == _by_characters(source)


@given(st.text(alphabet="a\\\0", max_size=12))
def test_the_end_in_a_control_word(text):
    # By reading from the front: a backslash takes the letters behind it, or one other character.
    at, word = 0, False
    while at < len(text):
        token = re.compile(r"\\a+|\0a+|\\.|.", re.DOTALL).match(text, at)
        word, at = len(token[0]) > 1 and token[0][1] == "a", token.end()
    if "\0" not in text:
        assert ends_in_word(text) == word


# -- macros -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"\newcommand{\R}{\mathbb{R}}$x\in\R$", r"$x\in\mathbb{R}$"),
        (r"\newcommand*\R{\mathbb R}$\R$", r"$\mathbb R$"),
        (r"\newcommand\R\rho$\R$", r"$\rho$"),
        (r"\newcommand{\o}[2][D]{(#1:#2)}\o{a}\o[b]{c}", "(D:a)(b:c)"),
        (r"\newcommand{\o}[1][D]{<#1>}\o, \o[x]", "<D>, <x>"),
        (r"\renewcommand{\vec}[1]{\mathbf{#1}}\vec{x}+\vec y", r"\mathbf{x}+\mathbf{y}"),
        (r"\newcommand{\a}{1}\providecommand{\a}{2}\providecommand{\b}{3}\a\b", "13"),
        (r"\def\a#1#2{<#1|#2>}\a x{yz} \a{\a 1 2}3", "<x|yz> <<1|2>|3>"),
        (r"\long\def\p{P}\global\let\q\p\p\q", "PP"),
        (r"\DeclareMathOperator{\Hom}{Hom}$\Hom$", r"$\operatorname{Hom}$"),
        (r"\DeclareMathOperator*{\colim}{colim}$\colim_i$", r"$\operatorname*{colim}_i$"),
        (r"\let\t\phi\let\phi\varphi\let\varphi\t$\phi\varphi$", r"$\varphi\phi$"),
        (r"\let\t\phi\let\phi\varphi\let\varphi\t\def\a#1{<#1>}\a{\phi}", r"<\varphi>"),
        (r"\newcommand{\C}{\cat}\newcommand{\cat}[1]{\mathsf{#1}}\C{Set}", r"\mathsf{Set}"),
        (r"\newcommand\ap[1]{#1{x}}\newcommand\cat[1]{[#1]}\ap\cat", "[x]"),
        (r"\def\a{\alpha}\def\b#1{\a#1}\b x\a\a y", r"\alpha x\alpha\alpha y"),
        (r"\def\ie{i.e.\xspace}\ie and", "i.e. and"),
        (r"\makeatletter\def\x@y{Z}\def\q{\x@y q}\makeatother\q \x@y", r"\makeatletter\makeatother Z q \x@y"),
        (r"\newcommand{\sect}[1]{\section{#1}}\sect{One}", r"\section{One}"),
        (r"\renewcommand{\section}[1]{\oldsection{#1}}\section{One}", r"\section{One}"),
        (r"\def\a{1}\a\def\a{2}\a", "12"),
        (r"\def\mk#1#2{\def#1{#2}}\mk\foo{x}\foo", "x"),
        ("a\n\\newcommand{\\x}{y}\nb \\x\n", "a\nb y\n"),
        # what stays as it is
        (r"\def\d#1.{x}\d a.", r"\def\d#1.{x}\d a."),
        (r"\edef\e{x}\e", r"\edef\e{x}\e"),
        (r"\newcommand{\s}{\@ifstar{a}{b}}\s", r"\newcommand{\s}{\@ifstar{a}{b}}\s"),
        (r"\newenvironment{e}{\begin{b}}{\end{b}}", r"\newenvironment{e}{\begin{b}}{\end{b}}"),
        (r"\newcommand{\a}[1]{#2}\a x", r"\newcommand{\a}[1]{#2}\a x"),
        (r"\newcommand{\a}[1]{#1}{\a}", r"{\a}"),
        (r"\newcommand{\a}[1]{#1}\a", r"\a"),
        (r"\newcommand{\a}{x}\verb|\a|\url{\a}\a", r"\verb|\a|\url{\a}x"),
        ("\\def\\a{x}\\begin{verbatim}\\a\\end{verbatim}\\a", "\\begin{verbatim}\\a\\end{verbatim}x"),
        (r"\write18{rm -rf x}\immediate\openout\f", r"\write18{rm -rf x}\immediate\openout\f"),
        # what meets itself
        (r"\def\a{x\a}\a!", r"\a!"),
        (r"\def\a{\b}\def\b{\a}\a\b", r"\a\b"),
        (r"\def\w#1{#1#1}\w\w!", r"\w!!"),
    ],
)  # fmt: skip
def test_macros_are_expanded_in_line(source, expected):
    assert expand(source) == expected


_NAMES = "pqrst"


@st.composite
def _sources(draw):
    """Definitions that only use later names, so that naive replacement ends, and a text that uses them."""
    bodies = [
        draw(st.lists(st.sampled_from([*"ab{}", "\\alpha", *(f"\\{later}" for later in _NAMES[place + 1 :])]), max_size=5))
        for place in range(len(_NAMES))
    ]
    bodies = ["".join(part for part in body if part not in "{}") for body in bodies]
    text = "".join(draw(st.lists(st.sampled_from(["a", " ", ".", "\\beta", *(f"\\{name}" for name in _NAMES)]), max_size=8)))
    kinds = [draw(st.sampled_from(["\\def\\{}{{{}}}", "\\newcommand{{\\{}}}{{{}}}"])) for _ in _NAMES]
    return list(zip(_NAMES, bodies, kinds, strict=True)), text


@given(_sources())
def test_macros_against_naive_replacement(case):
    definitions, text = case
    source = "".join(kind.format(name, body) for name, body, kind in definitions) + text
    naive = text
    for name, body, _ in definitions:
        # A token between marks, so that a control word and a letter are not joined.
        naive = re.sub(rf"\\{name}(?![A-Za-z])", lambda _, body=body: f"\1{body}\1", naive)
    naive = re.sub(r"(\\[a-z]+)\x01+(?=[a-z])", r"\1 ", naive).replace("\1", "")
    assert expand(source) == naive


@given(st.text(alphabet="\\ab{}[]#1 \n", max_size=40))
def test_any_text_is_expanded_without_error(text):
    source = r"\def\a#1{#1b}\newcommand{\b}[1][x]{\a{#1}}" + text
    assert len(expand(source)) <= latex_macros.RATIO * (len(source) + 1) + (1 << 20)


def test_growth_is_bounded_by_counts():
    """2^40 characters are asked for; the use stays as it is, and so does the next one where the work is spent."""
    doubling = "\\def\\aa{xxxxxxxx}" + "".join(
        f"\\def\\{chr(98 + n) * 2}{{\\{chr(97 + n) * 2}\\{chr(97 + n) * 2}}}" for n in range(24)
    )
    assert expand(doubling + "\\yy!") == "\\yy!"
    assert expand(doubling + "\\cc!") == "x" * 32 + "!"
    large = "\\def\\l{" + "y" * 10_000 + "}"
    expanded = expand(large + "\\l\n" * 1000)
    work = latex_macros.RATIO * (len(large) + 3000) + (1 << 20)
    assert expanded.count("y" * 10_000) == work // 10_001 == 125
    assert expanded.count("\\l") == 875


def test_a_use_is_bounded():
    """11,111 expansions for 10,000 characters are too many, 1,111 are not; and so is an argument of over a million characters."""
    tens = r"\def\a{x}" + "".join(f"\\def\\{name}{{" + f"\\{inner}" * 10 + "}" for name, inner in zip("bcde", "abcd", strict=True))
    assert expand(tens + r"\d") == "x" * 1000
    assert expand(tens + r"\e") == r"\e"
    # Two million characters by 1,111 expansions are too many for one use, though the text has work left.
    wide, rest = tens.replace("{x}", "{" + "x" * 2000 + "}"), "." * 200_000
    assert expand(wide + r"\d" + rest + r"\b") == r"\d" + rest + "x" * 20_000
    long = "y" * latex_macros.USE_WORK
    assert expand(rf"\def\a#1{{<#1>}}\a{{{long}}}\a{{y}}") == rf"\a{{{long}}}<y>"


def test_depth_is_bounded():
    chain = "".join(f"\\def\\{'i' * (n + 1)}{{\\{'i' * (n + 2)}}}" for n in range(100)) + "\\def\\" + "i" * 101 + "{end}"
    assert expand(chain + "\\" + "i" * 60) == "end"
    assert expand(chain + "\\iii") == "\\iii"
    nested = "\\def\\n#1{(#1)}" + "\\n{" * 2000 + "x" + "}" * 2000
    assert expand(nested).count("(") < 2000


# -- the cut ----------------------------------------------------------------------------------------------------------------

PAPER = r"""\documentclass{article}
\title{On $x$ and~the\\ rest\thanks{Nobody}}
\begin{document}
\maketitle
\begin{abstract}Gone.\end{abstract}
\section*{Introduction}
Text \cite{a}.
\begin{thebibliography}{9}\bibitem{a} A. \url{http://x/%} \end{thebibliography}
\bibliographystyle{plain}\bibliography{refs}
\appendix
\section{More}
Last.
\end{document}
Behind the end.
"""


def test_a_paper_is_cut():
    found = paper(PAPER)
    assert found.title == "On $x$ and the rest"
    assert found.text == "\\section*{Introduction}\nText \\cite{a}.\n\n\n\\appendix\n\\section{More}\nLast."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"a \part{P} b", r"\part{P} b"),
        (r"a \chapter[s]{P} b", r"\chapter[s]{P} b"),
        (r"a \\section{no} \subsection{none} b", r"a \\section{no} \subsection{none} b"),
        (r"a \maketitle b \begin{abstract}c\end{abstract} d", "d"),
        (r"\verb|\section{no}| \section{yes}", r"\section{yes}"),
        (r"\section{a} \printbibliography[title={R}] b", r"\section{a}  b"),
        (r"\section{a} \begin{references} r", r"\section{a}"),
    ],
)
def test_where_a_paper_begins_and_what_goes(body, text):
    assert paper(rf"\begin{{document}}{body}\end{{document}}").text == text


def test_what_is_no_document_is_no_paper():
    assert paper(r"\section{a} b") is None


@pytest.mark.parametrize(
    ("source", "title"),
    [
        (r"\title[short]{Long}", "Long"),
        (r"\title{The {TeX} book}", "The TeX book"),
        (r"\title{\LARGE Big}", None),
        (r"\title{never closed", None),
        (r"\title{}", None),
        (r"\titlepage", None),
    ],
)
def test_simple_titles(source, title):
    assert title_of(source) == title


def test_a_list_that_never_closes_takes_the_rest():
    assert without_bibliography(r"a \begin{thebibliography}{1} b") == "a "


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"caf\xc3\xa9\r\n", "café\n"), (b"caf\xe9\rx", "café\nx"), (b"\xef\xbb\xbfa\0b", "ab")],
)
def test_characters_and_line_ends(content, text):
    assert decode(content) == text
