"""Project Gutenberg's marks as its files bear them since 1991: headers and ends typed after published files, a text between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.gutenberg import COPYRIGHTED, PUBLIC_DOMAIN, strip

TEXT = "CHAPTER I.\n\nDown the Rabbit-Hole\n\nAlice was beginning to get very tired."

NEW = """The Project Gutenberg eBook of Alice's Adventures in Wonderland

This eBook is for the use of anyone anywhere in the United States and
most other parts of the world at no cost and with almost no restrictions
whatsoever.

Title: Alice's Adventures in Wonderland

Author: Lewis Carroll

Release date: June 27, 2008 [eBook #11]
                Most recently updated: March 30, 2021

Language: English

Credits: Arthur DiBianca and David Widger


*** START OF THE PROJECT GUTENBERG EBOOK ALICE'S ADVENTURES IN WONDERLAND ***
"""
NEW_END = """
*** END OF THE PROJECT GUTENBERG EBOOK ALICE'S ADVENTURES IN WONDERLAND ***

Updated editions will replace the previous one--the old editions will be renamed.
"""
MIDDLE = """Project Gutenberg's Alice's Adventures in Wonderland, by Lewis Carroll

Title: Alice's Adventures
       in Wonderland

Release Date: August 12, 2006 [EBook #19033]

Character set encoding: ASCII

*** START OF THIS PROJECT GUTENBERG EBOOK ALICE'S ADVENTURES IN
WONDERLAND ***




Produced by Jason Isbell, Irma Spehar, and the Online
Distributed Proofreading Team at http://www.pgdp.net


"""
MIDDLE_END = """


End of Project Gutenberg's Alice's Adventures in Wonderland, by Lewis Carroll

*** END OF THIS PROJECT GUTENBERG EBOOK ALICE'S ADVENTURES IN WONDERLAND ***

***** This file should be named 19033.txt or 19033.zip *****
"""
OLD = """**The Project Gutenberg Etext of Alice in Wonderland, by Lewis Carroll**

Please take a look at the important information in this header.

***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this "Small Print!" statement here?
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*

"""
OLD_END = "\n\nEnd of the Project Gutenberg Etext of Alice in Wonderland\n\nThe licence.\n"
TITLE = "Alice's Adventures in Wonderland"


@pytest.mark.parametrize(
    ("source", "title", "date", "number"),
    [
        (NEW + TEXT + NEW_END, TITLE, "June 27, 2008", "11"),
        (MIDDLE + TEXT + MIDDLE_END, TITLE, "August 12, 2006", "19033"),
        (OLD + TEXT + OLD_END, "Alice in Wonderland", None, None),
        (NEW + TEXT, TITLE, "June 27, 2008", "11"),
        (NEW.replace("***", "* * *").replace("* * * START", "*** START") + TEXT + NEW_END.lower(), TITLE, "June 27, 2008", "11"),
    ],
    ids=["since 2021", "2004 to 2021", "before 2004", "cut off", "in small letters"],
)
def test_header_licence_and_credits_go(source, title, date, number):
    book = strip(source)
    assert book.text == TEXT
    assert (book.title, book.date, book.number, book.license) == (title, date, number, PUBLIC_DOMAIN)


@pytest.mark.parametrize(
    "credit",
    [
        "Produced by A. Person\n\n",
        "E-text prepared by A. Person\nand the Online Team\n\n",
        "This eBook was produced by A. Person.\n\n",
        "[Transcriber's note: spelling\nis kept.]\n\n",
        "Credits: A. Person\n\nProduced by another\n\n",
    ],
)
def test_credits_before_the_first_words(credit):
    assert strip(NEW + credit + TEXT + NEW_END).text == TEXT


def test_credits_elsewhere_are_text():
    text = TEXT + "\n\nProduced by machines, it said."
    assert strip(NEW + text + NEW_END).text == text


def test_a_copyrighted_book_says_so():
    head = NEW.replace("***\n", "***\n", 1).replace(
        "\n\nTitle", "\n\n*** This is a COPYRIGHTED Project Gutenberg eBook. ***\n\nTitle"
    )
    assert strip(head + TEXT + NEW_END).license == COPYRIGHTED


@pytest.mark.parametrize(
    "source",
    [
        TEXT,
        "",
        TEXT + "\n\nThe End of the Project Gutenberg story",
        TEXT + "\n\n*** START OF THE PROJECT ***\nmore",
        "x\n" * 50_000 + NEW + TEXT,
        "I read Project Gutenberg at school.\n" + TEXT,
    ],
    ids=["none", "empty", "a sentence", "another project", "far behind the start", "a mention"],
)
def test_nothing_is_cut_from_other_texts(source):
    book = strip(source)
    assert book.text == source
    assert (book.title, book.license) == (None, None)


@given(st.text(alphabet="ab* \n", max_size=200))
def test_what_stands_between_the_marks_is_kept(text):
    assert strip(NEW + "x\n" + text + "\nx" + NEW_END).text == "x\n" + text + "\nx"
