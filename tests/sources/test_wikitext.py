"""plain_text against the regular expressions that say what headings and links are, html.unescape, and markup made to be slow.

Markup that is made to be slow has a size at which any way of reading it that is not linear takes many minutes: the tests' own limit
on time would end them.
"""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.sources.wikitext import plain_text

# What the two are, as expressions that are right and take quadratic and cubic time.
EXTERNAL = re.compile(r"\[(?:(?:https?|ftp|mailto):|//)[^\s\]]+[^\S\n]*([^\]\n]*)\]")
HEADING = re.compile(r"^(={1,6})[^\S\n]*([^\n]*?)[^\S\n]*\1[^\S\n]*$", re.MULTILINE)


def stripped(text):
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.strip() for line in text.split("\n"))).strip()


@given(st.text("= \t\xa0\r\nab", max_size=30))
@example("=======\n======= a =\n==\n=\n= = =\n=====a==")
def test_headings_are_those_of_the_expression(text):
    assert plain_text(text) == stripped(HEADING.sub(r"\2", text).replace("\xa0", " "))


pieces = st.lists(st.sampled_from(["[http://a", "//a", "[//", "]", "[mailto:", "[http:", "b", "\n", "[", "\t", " "])).map("".join)


@given(pieces.filter(lambda text: "[[" not in text and "]]" not in text))
@example("[http://a [http://b c] [http://a\n[http://b] [//a")
def test_links_to_elsewhere_are_those_of_the_expression(text):
    assert plain_text(text) == stripped(EXTERNAL.sub(r"\1", text))


@given(st.integers(0, 9), st.integers(0, 1 << 70), st.sampled_from(["", ";", "x", "&#"]))
@example(0, 0, ";")
@example(5000, 65, ";")
@example(0, 99_999_999, ";")
def test_numbers_of_characters_are_those_of_the_standard_library(zeros, number, end):
    expected = html.unescape(f"&#{number}{end}")
    assert plain_text(f"a&#{'0' * zeros}{number}{end}b") == stripped(f"a{expected}b".replace("\xa0", " "))


@pytest.mark.parametrize("digits", ["9" * 5000, "0" * 5000 + "1" * 9, "1" + "0" * 1_000_000])
def test_a_number_that_python_does_not_read_is_no_character(digits):
    """int() refuses more than 4,300 digits; HTML's rule for a number beyond Unicode is U+FFFD."""
    assert plain_text(f"good &#{digits}; x") == "good \ufffd x"


MANY = 200_000


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("=" + " " * MANY + "x", "=" + " " * MANY + "x"),
        ("= x" + " " * MANY + "=", "x"),
        ("[http://" + "a" * MANY, "[http://" + "a" * MANY),
        ("[http://" * MANY, "[http://" * MANY),
        ("[http://a " * MANY + "]", "[http://a " * (MANY - 1)),
        ("{{" + "[[a" * MANY + "}}b", "b"),
        ("[[" * MANY + "a" * MANY + "]]" * MANY, "a" * MANY),
        ("{{" * MANY + "a" + "[[" * MANY, "a"),
        ("<ref>" * MANY + "a", "a"),
        ("<a" * MANY, "<a" * MANY),
        ("<!--" * MANY, ""),
        ("&#" * MANY, "&#" * MANY),
        ("<nowiki>" * MANY, ""),
        ("<code>" * MANY + "{{a" * MANY + "</code>" * MANY, "{{a" * MANY),
    ],
    ids=[
        "blanks of a heading", "blanks in a heading", "address", "addresses", "addresses and an end", "links in a template",
        "links in links", "nothing closed", "references", "tags", "comments", "numbers", "shelters", "code",
    ],
)  # fmt: skip
def test_markup_that_is_made_to_be_slow(markup, text):
    assert plain_text(markup) == text.strip()


def test_links_in_links_show_their_labels():
    assert plain_text("[[a|b [[c|d]] e]]") == "b d e"
    assert plain_text("[[File:a|b [[c|d]] e]]f") == "f"


def test_a_link_around_more_than_twenty_levels_of_links_is_dropped_and_its_content_kept():
    assert plain_text("[[a|" * 20 + "b" + "]]" * 20 + "c") == "bc"
    assert plain_text("[[a|" * 22 + "b" + "]]" * 22 + "c") == "a|a|bc"


# -- what is no markup: MediaWiki's help pages on formatting, math and syntax highlighting ------------------------------------


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<math>f''(x)+x^{{2}}+a<b, c>d</math>", "f''(x)+x^{{2}}+a<b, c>d"),
        (r"so <math display=block>\frac{{a}}{b}</math>, <MATH>[[a]] & b</Math>.", r"so \frac{{a}}{b}, [[a]] & b."),
        ("a <chem>H2O</chem> <ce>{{x}}</ce>", "a H2O {{x}}"),
        ("<math>never closed ''x''", "never closed x"),
        ("x <nowiki>''a'' [[b|c]] {{d}} <!-- e --> &amp;lt; <f></nowiki> ''y''", "x ''a'' [[b|c]] {{d}} <!-- e --> &lt; <f> y"),
        ("'<nowiki/>''a''", "'a"),
        ("<!-- <nowiki> --> ''a'' <!-- </nowiki> -->", "a"),
        ("<nowiki>{{</nowiki>a<nowiki>}}</nowiki> {{b<nowiki>}}</nowiki>c}}", "{{a}}"),
        ("&<nowiki>lt;</nowiki> &#<nowiki>3</nowiki>9;", "&lt; &#39;"),
        ("a\n<pre>\n  b ''c'' <nowiki>''d''</nowiki>&lt;\n\n\n\te</pre>f", "a\n\n  b ''c'' ''d''<\n\n\n\te\nf"),
        (
            '<syntaxhighlight lang="cpp">\n#include <stdio.h>\n* x;\n    v = {{1,2},{3}}; // &lt;\n</syntaxhighlight>',
            "#include <stdio.h>\n* x;\n    v = {{1,2},{3}}; // &lt;",
        ),
        ("the <source lang=py inline>a['']  = {{}}</source> is", "the a['']  = {{}} is"),
        ("{{quote|<math>a}}</math>}}b", "b"),
        ("<ref><nowiki></ref></nowiki></ref>a", "a"),
    ],
)
def test_what_is_no_markup_stays_to_the_letter(markup, text):
    assert plain_text(markup) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<code>#include <stdio.h></code>", "#include <stdio.h>"),
        ("<code>vector<int> v = {{1,2},{3}};</code>", "vector<int> v = {{1,2},{3}};"),
        ("<code>[[Backspace|\\b]]</code> and <code>^<nowiki>[</nowiki></code>", "\\b and ^["),  # of the article on ASCII
        ("<code>''x'' <b>y</b> {{=}} __FILE__ {{{1}}}</code>", "x y  __FILE__ {{{1}}}"),
        ("__NOTOC__<code>a<br>b &lt; c</code>", "a\nb < c"),
        ("<code>a <tag> <code>b</code> c</code>", "a <tag> b c"),
    ],
)
def test_in_code_links_are_links_and_what_looks_like_tags_stays(markup, text):
    assert plain_text(markup) == text


@given(st.text("ab \n=*[]{}|'<>/&;#_", max_size=40))
def test_no_mark_is_left(text):
    found = plain_text(f"<nowiki>{text}</nowiki><pre>\n{text}</pre><code>{text}</code>{text}")
    assert "\0" not in found
    assert "\1" not in found
