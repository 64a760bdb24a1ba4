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
    ],
    ids=[
        "blanks of a heading", "blanks in a heading", "address", "addresses", "addresses and an end", "links in a template",
        "links in links", "nothing closed", "references", "tags", "comments", "numbers",
    ],
)  # fmt: skip
def test_markup_that_is_made_to_be_slow(markup, text):
    assert plain_text(markup) == text.strip()


def test_links_in_links_show_their_labels_and_too_many_levels_their_content():
    assert plain_text("[[a|b [[c|d]] e]]") == "b d e"
    assert plain_text("[[File:a|b [[c|d]] e]]f") == "f"
    assert plain_text("[[a|" * 22 + "b" + "]]" * 22) == "a|a|b"
