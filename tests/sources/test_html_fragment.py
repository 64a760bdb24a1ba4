"""fragment_text against texts written by hand, the standard library's HTML parser, and real posts."""

from __future__ import annotations

import gzip
import html.parser
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.html import MAX_DEPTH, TooDeep, main_text
from pipelines.sources.html_fragment import fragment_text

CODE = "    if x < 1:\n\treturn  'a  b'\n\n\n\n    # <b>no tag</b> & no entity"


@pytest.mark.parametrize(
    ("fragment", "text"),
    [
        ("", ""),
        ("no tag &amp; an entity", "no tag & an entity"),
        ("<p>one <b>two</b>  three</p>\n\n<p>four<br>five</p>", "one two three\n\nfour\nfive"),
        ("<h2>Head</h2><p>text</p><hr><blockquote><p>said</p></blockquote>", "Head\n\ntext\n\nsaid"),
        ("<ul><li>a<ul><li>b</li></ul></li></ul><ol><li>c</li><li>d</li></ol>", "  • a\n    • b\n  1. c\n  2. d"),
        ("<p>x</p><pre><code>  a\n\n\n\tb   c\n</code></pre><p>y</p>", "x\n\n  a\n\n\n\tb   c\n\ny"),
        ("<pre>    the first line is indented\n  so</pre>", "    the first line is indented\n  so"),
        ("<p>call <code>f( a,  b )</code></p>", "call f( a, b )"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a\t\tb\nc"),
        ("<p>H<sub>2</sub>O <a href='http://a.example/'>link</a><img src=x alt='no'></p>", "H2O link"),
        ("<p>t<script>s</script><style>s</style><!-- c --><noscript>n</noscript><input value=v></p>", "t"),
        ("<nav>n</nav><div style='display:none'>h</div><footer>f</footer>", "n\nh\nf"),
        ("<figure><img src=x><figcaption>Fig. 1</figcaption></figure><figures>x</figures>", "Fig. 1\nx"),
        ("<p>never closed <b>nor this", "never closed nor this"),
    ],
)
def test_what_stands_there_and_what_becomes_of_it(fragment, text):
    assert fragment_text(fragment) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0\x0c"), min_size=1))
def test_preformatted_text_comes_back_to_the_letter(text):
    """But for white space at the end of the whole; HTML itself drops a first newline. An independent escape: html.escape."""
    found = fragment_text(f"<pre>\n{html.escape(text)}</pre>")
    assert found.rstrip() == text.rstrip() or not text.strip()
    assert text.startswith(found)


def test_code_of_a_post_keeps_every_blank():
    found = fragment_text(f"<p>Try</p><pre><code>{html.escape(CODE)}</code></pre>")
    assert found == f"Try\n\n{CODE}"


class _Characters(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data):
        self.parts.append(data)


def test_no_character_of_a_real_post_is_lost(real_data):
    """Against the standard library's parser: the same letters and digits in the same order, but for the numbers of lists."""
    seen = 0
    with gzip.open(real_data / "stackexchange" / "yu51a5-Posts.xml.gz") as stream:
        for _, row in ElementTree.iterparse(stream):
            body = row.get("Body", "")
            if row.tag != "row" or "<ol" in body:
                continue
            reference = _Characters()
            reference.feed(body)
            reference.close()
            assert re.findall(r"\w", fragment_text(body)) == re.findall(r"\w", "".join(reference.parts)), row.get("Id")
            seen += 1
    assert seen == 434


def test_nesting_has_the_bound_of_whole_pages():
    assert fragment_text("<div>" * (MAX_DEPTH - 1) + "x") == "x"
    with pytest.raises(TooDeep, match="nested over 3000 levels"):
        fragment_text("<div>" * (MAX_DEPTH + 1) + "x")


@pytest.mark.parametrize("text", [fragment_text, main_text])
@pytest.mark.parametrize(
    "unit",
    [
        "<div></b>", "<div></span>", '<div a="</div>">', "<div><!-- </div> -->", "<div><script>'</div>'</script>",
        "<form><div></form>",
        "<div><object></div></object>", "<div><table><td></div></td></table>", "<SECTION></p>",
    ],
)  # fmt: skip
def test_ends_that_close_nothing_hide_no_depth(text, unit):
    """A browser leaves each of these elements open; the extraction of half a million of them would take hours."""
    with pytest.raises(TooDeep, match="nested over 3000 levels"):
        text("<p>hello " + unit * 4000 + "x")


@pytest.mark.parametrize("text", [fragment_text, lambda page: main_text(page)[0]], ids=["fragment", "page"])
def test_broken_pages_that_are_not_deep_are_read(text):
    """Ends that close something else, or nothing, some thousand times: the tree is flat all the same."""
    broken = "<p>many <b>words <i>of</b> a</i> text</p></div></b><img><br><li>item <a name=x>link" * 4000
    assert text(f"<body>{broken}</body>").count("words of a text") == 4000


@pytest.mark.parametrize(
    "page",
    [
        "<p>" + "".join(f"<b x={n}>" for n in range(1600)) + "</p>" + "<p>x</p>" * 1600,
        "<p>" + "".join(f"<font x={n}></i>" for n in range(9000)) + "x",
        "<rt>" * 50_000,
    ],
    ids=["reopened", "formatting", "ruby"],
)
def test_elements_that_are_opened_again_and_again_have_a_bound(page):
    """The first would become two and a half million elements out of 30 kB."""
    with pytest.raises(TooDeep, match="again and again"):
        fragment_text(page)


def test_lists_cannot_indent_a_text_beyond_measure():
    """Two blanks a level and line: 31 kB would become 14 million characters."""
    with pytest.raises(TooDeep, match="lists indent it"):
        fragment_text("<ul>" * 1400 + "<li>x" * 5000)
    with pytest.raises(TooDeep, match="lists indent it"):
        fragment_text("<OL\n>" * 1400 + "<li>x" * 5000)
    with pytest.raises(TooDeep, match="lists indent it"):
        fragment_text("<ul></ol>" * 1400 + "<li>x" * 5000)
    deep = "<ul><li>" * 12 + "x" + "</ul>" * 12
    assert fragment_text(deep * 3000).count("x") == 3000
    assert fragment_text("<p>x</p>" * 100_000).count("x") == 100_000


@given(st.lists(st.sampled_from("<ul> </ul> <ol> </ol> <li> </li> <p> x <br> <menu> <dir> <div> <figure> <dl>".split())))
def test_the_bound_on_the_length_holds(parts):
    """Every shape of nested lists, repeated until their indents weigh."""
    source = "".join(parts) * 40 + "".join(parts).replace("</ul>", "").replace("</ol>", "") * 200
    try:
        found = fragment_text(source)
    except TooDeep:
        return
    assert len(found) <= 9 * len(source) + (1 << 20)


@pytest.mark.parametrize("html", ["<div>" * (MAX_DEPTH + 1) + "x", "<ul>" * 1500 + "<li>x" * 5000])
def test_what_is_refused_leaves_no_tree_behind(html):
    """A tree may be let go by its own thread alone, an exception that is kept by any: no frame of it holds one."""
    with pytest.raises(TooDeep) as error:
        fragment_text(html)
    frames = [place.frame.f_locals for place in error.traceback]
    assert not [name for local in frames for name, value in local.items() if type(value).__name__.startswith("HTMLTree")]
