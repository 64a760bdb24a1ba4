"""Programming languages by file name, and how each writes comments.

Data, prose and markup (JSON, CSV, Markdown, HTML, XML, YAML) are no code here: their text comes from other sources.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comments:
    """The marks that begin a comment up to the line's end, and the pairs that enclose one."""

    line: tuple[str, ...] = ()
    block: tuple[tuple[str, str], ...] = ()


_C = Comments(("//",), (("/*", "*/"),))
_HASH = Comments(("#",))
_LISP = Comments((";",), (("#|", "|#"),))
_ML = Comments((), (("(*", "*)"),))
_PERCENT = Comments(("%",))
_DASH = Comments(("--",), (("{-", "-}"),))

# comments, then lines of `language: extensions`
_TABLE: tuple[tuple[Comments, str], ...] = (
    (_C, """C: c h
        C++: cc cpp cxx c++ hh hpp hxx ipp inl
        C#: cs
        CUDA: cu cuh
        Dart: dart
        Go: go
        Groovy: groovy gradle
        Java: java
        JavaScript: js mjs cjs jsx
        Kotlin: kt kts
        Objective-C: m mm
        Protocol Buffers: proto
        Rust: rs
        Scala: scala sc
        Solidity: sol
        Swift: swift
        Thrift: thrift
        TypeScript: ts tsx mts cts
        Verilog: v sv svh vh
        Zig: zig
        CSS: css
        Less: less
        SCSS: scss"""),
    (Comments(("#", "//"), (("/*", "*/"),)), "PHP: php phtml\nHCL: tf hcl"),
    (_HASH, """Python: py pyi pyx pxd
        Ruby: rb rake gemspec
        Perl: pl pm t
        R: r
        Shell: sh bash zsh ksh fish
        Makefile: mk
        Dockerfile: dockerfile
        CMake: cmake
        Elixir: ex exs
        Nim: nim
        Crystal: cr
        Tcl: tcl
        Awk: awk
        GraphQL: graphql gql"""),
    (Comments(("#",), (("#=", "=#"),)), "Julia: jl"),
    (Comments(("#",), (("<#", "#>"),)), "PowerShell: ps1 psm1 psd1"),
    (Comments(("--",), (("/*", "*/"),)), "SQL: sql"),
    (Comments(("--",), (("--[[", "]]"),)), "Lua: lua"),
    (Comments(("--",)), "VHDL: vhd vhdl\nAda: adb ads"),
    (_DASH, "Haskell: hs lhs\nElm: elm\nPureScript: purs\nIdris: idr"),
    (_ML, "OCaml: ml mli\nCoq: coq\nStandard ML: sml"),
    (Comments(("//",), (("(*", "*)"),)), "F#: fs fsx fsi"),
    (Comments(("//",), (("{", "}"), ("(*", "*)"))), "Pascal: pas pp dpr"),
    (_LISP, "Common Lisp: lisp lsp cl\nScheme: scm ss\nRacket: rkt\nClojure: clj cljs cljc\nEmacs Lisp: el"),
    (Comments((";", "#", "//"), (("/*", "*/"),)), "Assembly: asm s"),
    (_PERCENT, "Erlang: erl hrl\nTeX: tex sty cls"),
    (Comments(("%",), (("/*", "*/"),)), "Prolog: prolog pro"),
    (Comments(("!", "C ", "c ")), "Fortran: f f77 f90 f95 f03 f08 for"),
    (Comments(("'",)), "Visual Basic: vb bas vbs"),
    (Comments(("REM ", "rem ", "::")), "Batchfile: bat cmd"),
    (Comments(('"',)), "Vim script: vim"),
    (Comments((), (("<!--", "-->"),)), "Vue: vue\nSvelte: svelte"),
)  # fmt: skip
_NAMES = {"makefile": "Makefile", "gnumakefile": "Makefile", "dockerfile": "Dockerfile", "cmakelists.txt": "CMake",
          "rakefile": "Ruby", "gemfile": "Ruby", "jenkinsfile": "Groovy"}  # fmt: skip

EXTENSIONS: dict[str, str] = {}
COMMENTS: dict[str, Comments] = {}
for _comments, _lines in _TABLE:
    for _line in _lines.splitlines():
        _language, _, _extensions = _line.strip().partition(": ")
        COMMENTS[_language] = _comments
        EXTENSIONS.update(dict.fromkeys(_extensions.split(), _language))


def language_of(name: str) -> str | None:
    """The language that a file's name tells, or None."""
    base = name.rpartition("/")[2].lower()
    if known := _NAMES.get(base):
        return known
    stem, dot, extension = base.rpartition(".")
    return EXTENSIONS.get(extension) if dot and stem else None
