r"""arXiv bundles: the tar as arXiv publishes it, made of hand-written papers and of the Stacks project and the HoTT book.

What real papers come to is held against counts by plain search in their sources; what each record becomes, against the reader's
table. Conservation and the independent count are checked for every archive.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile

import orjson
import pytest

from pipelines.records import Input, Limits, Record, Reject
from pipelines.sources import SourceOptions, arxiv, count_records, reader
from pipelines.sources.latex import decode, strip_comments
from pipelines.sources.latex_bundle import DEPTH, Bundle, whole_source

LIMITS = Limits()
STACKS_DOCUMENTS, STACKS_CHARACTERS = 39, 3252576
HOTT_CHARACTERS, HOTT_CHAPTERS = 1839411, 15
HOTT_SIMPLE = (217, [])


def tar(files, links=()):
    """A tar of {path: content}, folders and links as arXiv's tools write them."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for path, target in links:
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return sink.getvalue()


def bundle(files, links=()):
    """A submission: a gzip of one file, or of a tar of files."""
    if isinstance(files, str):
        return gzip.compress(files.encode(), mtime=0)
    return gzip.compress(
        tar({path: text.encode() if isinstance(text, str) else text for path, text in files.items()}, links), mtime=0
    )


def run(tmp_path, content, limits=LIMITS, exact=True):
    """(documents, [(locator, reason)]) of a bulk file."""
    path = tmp_path / "arXiv_src_2301_001.tar"
    path.write_bytes(content)
    source_input = Input("src/arXiv_src_2301_001.tar", str(path), len(content), "")
    found = list(reader("arxiv")(source_input, SourceOptions(), limits, None))
    documents = [item for item in found if isinstance(item, Record)]
    rejects = [item for item in found if isinstance(item, Reject)]
    if exact:
        assert len(documents) + sum(item.count for item in rejects) == count_records("arxiv", source_input, SourceOptions())
    return documents, [(item.locator.removeprefix("src/arXiv_src_2301_001.tar"), str(item.reason)) for item in rejects]


PAPER = r"\documentclass{article}\title{A title}\newcommand{\R}{\mathbb{R}}\begin{document}\section{One}%s\end{document}"


def paper(text="Text."):
    return PAPER % text


def test_a_bulk_file_becomes_documents_and_rejects(tmp_path):
    files = {
        "2301/2301.00001.gz": bundle(paper("In $\\R$. % gone\nMore.")),
        "2301/2301.00002.pdf": b"%PDF-1.4",
        "2301/2301.00003.gz": bundle({"main.tex": paper("\\input{sub/part}"), "sub/part.tex": "Part.", "fig.eps": "%!PS"}),
        "2301/2301.00004.gz": bundle("%!PS-Adobe-2.0"),
        "2301/2301.00005.gz": bundle("%auto-ignore\nThis paper has been withdrawn. \\begin{document}"),
        "2301/2301.00006.gz": bundle(paper("cut"))[:-12],
        "2301/2301.00007.gz": b"no gzip \\input amstex \\document",
        "2301/math0309136.gz": bundle(paper("Old.")),
        "2301/hep-th0001001.gz": bundle("\\documentstyle{revtex}\\begin{document}\\end{document}"),
    }
    documents, rejects = run(tmp_path, tar(files, links=[("2301/2301.00010.gz", "/etc/passwd")]))
    assert [(found.source_id, found.url, found.title, found.text, found.merged) for found in documents] == [
        ("2301.00001", "https://arxiv.org/abs/2301.00001", "A title", "\\section{One}In $\\mathbb{R}$. More.", 0),
        ("2301.00003", "https://arxiv.org/abs/2301.00003", "A title", "\\section{One}Part.", 0),
        ("math/0309136", "https://arxiv.org/abs/math/0309136", "A title", "\\section{One}Old.", 0),
    ]
    assert documents[1].locator == "src/arXiv_src_2301_001.tar!2301/2301.00003.gz#2"
    assert rejects == [
        ("!2301/2301.00002.pdf#1", "no_latex"),
        ("!2301/2301.00004.gz#3", "no_latex"),
        ("!2301/2301.00005.gz#4", "no_latex"),
        ("!2301/2301.00006.gz#5", "corrupt_container"),
        ("!2301/2301.00007.gz#6", "no_latex"),
        ("!2301/hep-th0001001.gz#8", "missing_text"),
        ("!2301/2301.00010.gz#9", "unsafe_path"),
    ]


@pytest.mark.parametrize(
    ("stem", "own"),
    [
        ("2301.00001", "2301.00001"),
        ("0704.0001", "0704.0001"),
        ("2301.00001v2", "2301.00001"),
        ("math0309136", "math/0309136"),
        ("hep-th0001001", "hep-th/0001001"),
        ("2313.00001", None),
        ("paper", None),
        ("math.GT0309136", None),
    ],
)
def test_an_id_is_stated_only_where_it_is_sure(stem, own):
    assert arxiv.arxiv_id(stem) == own


# -- bad input --------------------------------------------------------------------------------------------------------------


def test_a_bomb_is_rejected_while_it_streams(tmp_path):
    """50 MB of blanks in 50 kB, as a single file and as a figure of a tar: both are over what a limit of 1 MB lets unpack."""
    bomb = gzip.compress(b" " * 50_000_000, mtime=0)
    figures = gzip.compress(tar({"main.tex": paper().encode(), "fig.eps": bytes(50_000_000)}), mtime=0)
    documents, rejects = run(tmp_path, tar({"2301/2301.00001.gz": bomb, "2301/2301.00002.gz": figures}), Limits(1_000_000))
    assert documents == []
    assert rejects == [("!2301/2301.00001.gz#0", "too_large"), ("!2301/2301.00002.gz#1", "too_large")]


def test_files_that_are_too_large_together_are_rejected(tmp_path):
    files = {"main.tex": paper("x" * 600), "more.tex": "y" * 600}
    assert run(tmp_path, tar({"2301/2301.00001.gz": bundle(files)}), Limits(1000))[1] == [("!2301/2301.00001.gz#0", "too_large")]
    assert len(run(tmp_path, tar({"2301/2301.00001.gz": bundle(files)}), Limits(2000))[0]) == 1


def test_names_that_lead_out_and_links_of_a_bundle_are_left_out(tmp_path):
    files = {
        "../../etc/main.tex": paper("evil"),
        "/etc/main.tex": paper("evil"),
        "ms.tex": paper("\\input{../x}\\input{/etc/passwd}\\input{l}ok"),
    }
    documents, rejects = run(tmp_path, tar({"2301/2301.00001.gz": bundle(files, links=[("l.tex", "/etc/passwd")])}))
    assert [found.text for found in documents] == ["\\section{One}ok"]
    assert rejects == []


def test_latex_that_loops_on_itself_ends(tmp_path):
    files = {
        "main.tex": paper("\\def\\a{\\b}\\def\\b{\\a}\\a \\input{one}"),
        "one.tex": "1\\input{two}",
        "two.tex": "2\\input{one}\\input{main}",
    }
    documents, _ = run(tmp_path, tar({"2301/2301.00001.gz": bundle(files)}))
    # main.tex is an input of two.tex: nothing is a root, and the first document is the main file.
    assert [found.text for found in documents] == ["\\section{One}\\a 12"]


def test_an_expansion_over_the_limit_is_rejected(tmp_path):
    text = "\\def\\l{" + "y" * 5000 + "}" + "\\l " * 100
    documents, rejects = run(tmp_path, tar({"2301/2301.00001.gz": bundle(paper(text))}), Limits(100_000))
    assert documents == []
    assert rejects == [("!2301/2301.00001.gz#0", "too_large")]


def test_a_tar_that_is_cut_off_gives_what_stands_before(tmp_path):
    content = tar({"2301/2301.00001.gz": bundle(paper()), "2301/2301.00002.gz": bundle(paper("x" * 5000))})
    documents, rejects = run(tmp_path, content[: 3 * 512])
    assert len(documents) == 1
    assert [reason for _, reason in rejects] == ["corrupt_container"]
    assert run(tmp_path, b"no tar at all" * 100)[1] == [("#0", "corrupt_container")]


# -- bundles ----------------------------------------------------------------------------------------------------------------

DOCUMENT = "\\begin{document}x\\end{document}"


@pytest.mark.parametrize(
    ("files", "main"),
    [
        ({"a.tex": "\\input{b}", "b.tex": DOCUMENT}, "a.tex"),
        ({"pre.tex": "\\documentclass{a}", "a.tex": "\\input{pre}" + DOCUMENT}, "a.tex"),
        ({"a.tex": paper(), "ms.tex": paper()}, "ms.tex"),
        ({"a.tex": paper(), "b.tex": paper("longer")}, "b.tex"),
        ({"b.tex": paper(), "a.tex": paper()}, "a.tex"),
        ({"a.tex": paper(), "b.tex": DOCUMENT + "longer" * 50}, "a.tex"),
        ({"a.tex": paper(), "b.tex": paper("longer"), "00README.XXX": "a.tex toplevelfile\n"}, "a.tex"),
        ({"a.tex": paper(), "b.tex": paper("longer"), "00README.XXX": "b.tex ignore\n"}, "a.tex"),
        ({"a.tex": "%auto-ignore\n" + paper("longer"), "b.tex": paper()}, "b.tex"),
        ({"a.sty": paper(), "b.txt": "words"}, None),
        ({"a.tex": "% \\begin{document}"}, None),
        ({}, None),
    ],
)
def test_the_main_file(files, main):
    assert Bundle(files).main() == main


@pytest.mark.parametrize(
    "hint", [{"sources": [{"filename": "a.tex", "usage": "toplevel"}]}, {"sources": [{"filename": "b.tex", "usage": "ignore"}]}]
)
def test_the_main_file_by_a_json_readme(hint):
    assert Bundle({"a.tex": paper(), "b.tex": paper("longer"), "00README.json": orjson.dumps(hint).decode()}).main() == "a.tex"


@pytest.mark.parametrize("broken", ["{", "[]", '{"sources": 1}', '{"sources": [1]}', "null"])
def test_a_broken_json_readme_says_nothing(broken):
    assert Bundle({"a.tex": paper(), "00README.json": broken}).main() == "a.tex"


@pytest.mark.parametrize(
    ("main", "text", "left_out"),
    [
        ("a\\input{b}c", "aBc", 0),
        ("a\\input{b.tex}c", "aBc", 0),
        ("a\\input b c", "aBc", 0),
        ("a\\include{sub/d}c", "aDc", 0),
        ("a\\input{data.txt}c", "aTc", 0),
        ("a\\input{missing}c", "ac", 1),
        ("a\\input{main}c", "ac", 1),
        ("% \\input{b}\n\\verb|\\input{b}|", "\\verb|\\input{b}|", 0),
        ("a\\input{end}c", "aEc", 0),
        ("\\begin{document}\\subfile{own}\\end{document}", "\\begin{document}inside\\end{document}", 0),
        ("\\inputencoding{latin1}", "\\inputencoding{latin1}", 0),
    ],
)
def test_inputs_are_resolved_inside_the_bundle(main, text, left_out):
    files = {
        "main.tex": main, "b.tex": "B% gone\n", "sub/d.tex": "D", "data.txt": "T", "end.tex": "E\\endinput F",
        "own.tex": "\\documentclass{x}\\begin{document}inside\\end{document}",
    }  # fmt: skip
    source = whole_source(Bundle(files), "main.tex", 1000)
    assert (source.text, source.left_out) == (text, left_out)


def test_inputs_are_bounded_in_depth_and_size():
    deep = {f"{n}.tex": f"({n}\\input{{{n + 1}}}" for n in range(100)}
    source = whole_source(Bundle(deep), "0.tex", 10_000)
    assert (source.text.count("("), source.left_out) == (DEPTH, 1)
    doubling = {f"{n}.tex": f"\\input{{{n + 1}}}\\input{{{n + 1}}}" for n in range(30)} | {"30.tex": "x"}
    source = whole_source(Bundle(doubling), "0.tex", 10_000)
    assert len(source.text) <= 10_000
    assert source.left_out > 0


# -- real papers ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_sources(real_data):
    """{path: bytes} of the Stacks project and the HoTT book."""
    with tarfile.open(real_data / "latex" / "latex-stacks-hott.tar.xz") as archive:
        return {
            info.name: archive.extractfile(info).read()
            for info in archive
            if info.isreg() and info.name.endswith(".tex") and (info.size < 130_000 or "hott" in info.name)
        }


_CHAPTER = re.compile(r"^\\chapter\*?\{", re.MULTILINE)
_SECTION = re.compile(r"^\\section\*?\{", re.MULTILINE)


def test_the_stacks_project_as_bundles(real_sources, tmp_path):
    """Every chapter under 130 kB with its preamble is a submission; sections are counted by search in the sources."""
    stacks = {path.removeprefix("stacks-latex/"): text for path, text in real_sources.items() if path.startswith("stacks")}
    shared = {path: stacks[path] for path in ("preamble.tex", "chapters.tex")}
    chapters = {path: text for path, text in stacks.items() if b"\\begin{document}" in text and path not in shared}
    files = {f"2301/2301.{n:05d}.gz": bundle({path: text, **shared}) for n, (path, text) in enumerate(sorted(chapters.items()))}
    documents, rejects = run(tmp_path, tar(files))
    assert (len(documents), rejects) == (len(chapters), []) == (STACKS_DOCUMENTS, [])
    speaking = []
    for (path, source), found in zip(sorted(chapters.items()), documents, strict=True):
        clean = strip_comments(decode(source))
        title = re.search(r"\\title\{(.*)\}", clean)[1]
        assert found.title == (None if "\\" in title else title), path
        assert len(_SECTION.findall(found.text)) == len(_SECTION.findall(clean)), path
        if re.search(r"(?<!\\)%|\\(?:input|bibliography|begin\{document\}|end\{document\})\b", found.text):
            speaking.append(path)
    assert speaking == ["coding.tex"]  # which shows these commands in a verbatim listing
    assert sum(len(found.text) for found in documents) == STACKS_CHARACTERS


def test_the_hott_book_as_one_bundle(real_sources, tmp_path):
    """What plain search finds of simple macros in the sources is gone from the text."""
    hott = {path.removeprefix("hott-latex/"): text for path, text in real_sources.items() if path.startswith("hott")}
    hott = {path: text for path, text in hott.items() if not path.startswith(("hott-", "cover", "exercise", "errata"))}
    documents, rejects = run(tmp_path, tar({"1308/1308.0729.gz": bundle(hott)}))
    assert rejects == []
    (book,) = documents
    assert (book.source_id, book.title) == ("1308.0729", "Homotopy Type Theory: Univalent Foundations of Mathematics")
    assert book.text.startswith("\\chapter*{Preface}")
    assert len(book.text) == HOTT_CHARACTERS
    chapters = [len(_CHAPTER.findall(strip_comments(decode(text)))) for path, text in hott.items()]
    assert len(_CHAPTER.findall(book.text)) == sum(chapters) == HOTT_CHAPTERS
    simple = set(re.findall(r"\\newcommand\{\\([A-Za-z]+)\}\{", decode(hott["macros.tex"])))
    left = {name for name in simple if re.search(rf"\\{name}(?![A-Za-z@])", book.text)}
    assert (len(simple), sorted(left)) == HOTT_SIMPLE
