"""rows() against ElementTree on what is well-formed, and by hand on what is not."""

from __future__ import annotations

import tracemalloc
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reading import CorruptInput
from pipelines.schema import RejectReason
from pipelines.sources.xml_rows import BadRow, rows

HEAD = b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n'
END = b"</posts>"
GOOD = b'  <row Id="1" Body="&lt;p&gt;x &amp; y&#xA;" />\r\n'


class Pieces:
    """A stream in pieces of `size` bytes; damaged at the end where that is asked for."""

    def __init__(self, data: bytes, size: int = 1 << 20, damaged: bool = False) -> None:
        self.data, self.size, self.at, self.damaged = data, size, 0, damaged

    def read(self, size: int = -1) -> bytes:
        piece = self.data[self.at : self.at + self.size]
        self.at += len(piece)
        if not piece and self.damaged:
            raise CorruptInput(self.at, "damaged")
        return piece


def run(data, limit=1 << 20, size=1 << 20, damaged=False):
    """(rows, what CorruptInput says or None)."""
    found = []
    try:
        found.extend(rows(Pieces(data, size, damaged), "posts", "row", limit))
    except CorruptInput as error:
        return found, error.detail
    return found, None


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))
_ROWS = st.lists(st.dictionaries(st.sampled_from(["Id", "Body", "Title", "größe"]), _TEXT))


@given(_ROWS, st.integers(1, 40), st.sampled_from(["/>", " />\r\n", "></row>", "\n/>\n  <!-- between -->"]))
def test_the_same_rows_as_elementtree_whatever_the_pieces(values, size, end):
    body = "".join(f"<row{''.join(f' {name}={quoteattr(value)}' for name, value in row.items())}{end}" for row in values)
    data = HEAD + body.encode() + END
    expected = [dict(row.attrib) for row in ElementTree.fromstring(data).iter("row")]
    assert run(data, size=size) == (expected, None)


@given(st.integers(0, len(HEAD + GOOD * 3 + END)), st.booleans())
def test_a_cut_delivers_the_whole_rows_before_it(at, damaged):
    """Reference: how many rows end before the cut."""
    data = (HEAD + GOOD * 3 + END)[:at]
    found, told = run(data, size=7, damaged=damaged)
    assert len(found) == data.count(b"/>")
    whole = data == HEAD + GOOD * 3 + END
    assert told == ("damaged" if damaged else None if whole else "XML: no end of 'posts'")


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (b'<row Id="1" Id="2" />', "XML: duplicate attribute"),
        (b'<row Id="\x00" />', "XML: not well-formed (invalid token)"),
        (b'<row Id="\xff" />', "XML: not well-formed (invalid token)"),
        (b'<row Id="&#x1;" />', "XML: reference to invalid character number"),
        (b'<row Id="&lol;" />', "XML: undefined entity"),
        (b'<row Id="1', "XML: a tag that does not end"),
        (b"<row Id=1/>", "XML: not well-formed (invalid token)"),
        (b'<row Id="1"/> text', "XML: junk after document element"),
    ],
)
def test_a_damaged_row_says_nothing_about_its_neighbours(bad, detail):
    found, told = run(HEAD + GOOD + bad + b"\n" + GOOD + END)
    good = {"Id": "1", "Body": "<p>x & y\n"}
    assert found == [good, BadRow(RejectReason.MALFORMED_RECORD, detail), good]
    assert told is None


def test_a_row_over_the_limit_is_passed_over():
    long = b'<row Body="' + b"a" * 1000 + b'"/>'
    found, told = run(HEAD + GOOD + long + GOOD + END, limit=200, size=64)
    assert [type(row) for row in found] == [dict, BadRow, dict]
    assert found[1] == BadRow(RejectReason.TOO_LARGE, "a row of over 200 bytes")
    assert told is None
    exact = b'<row Body="' + b"a" * (200 - 14) + b'"/>'
    assert len(exact) == 200
    assert run(HEAD + exact + b"<x/>" + END, limit=200)[0] == [{"Body": "a" * 186}]
    longer = exact.replace(b"a", b"aa", 1)
    assert run(HEAD + longer + END, limit=200)[0] == [BadRow(RejectReason.TOO_LARGE, "a row of over 200 bytes")]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "XML: no end of 'posts'"),
        (b"no markup at all", "XML: no end of 'posts'"),
        (b"<users><row Id='1'/></users>", "XML: the root is 'users', not 'posts'"),
        (HEAD.decode().encode("utf-16") + END, "XML: the root is '\\x00?\\x00x\\x00m\\x00l\\x00', not 'posts'"),
        (b'<!DOCTYPE posts [<!ENTITY a "aaaa">]><posts><row Id="&a;"/></posts>', "XML: a declaration, '!DOCTYPE'"),
        (b'<posts><row/><!ENTITY a "aaaa"><row/></posts>', "XML: a declaration, '!ENTITY'"),
        (b"<posts><row/><![CDATA[<row/>]]></posts>", "XML: a declaration, '![CDATA['"),
        (b"<posts><row/></posts>trailing", "XML: no end of 'posts'"),
    ],
)
def test_what_is_no_dump(data, detail):
    found, told = run(data)
    assert told == detail
    assert len(found) == (b"<posts><row/>" in data)


def test_an_entity_bomb_names_what_nobody_declared():
    bomb = b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    bomb += b"".join(b'<!ENTITY lol%d "%s">' % (n, b"&lol%d;" % (n - 1) * 10) for n in range(1, 10))
    assert run(bomb + b']><posts><row Body="&lol9;"/></posts>') == ([], "XML: a declaration, '!DOCTYPE'")


def test_an_encoding_is_that_of_the_declaration():
    data = '<?xml version="1.0" encoding="iso-8859-1"?><posts><row Title="größe"/></posts>'.encode("latin-1")
    assert run(data) == ([{"Title": "größe"}], None)
    unknown, told = run(b'<?xml version="1.0" encoding="x-nobody"?><posts><row Title="a"/></posts>')
    assert [row.reason for row in unknown] == [RejectReason.MALFORMED_RECORD]
    assert told is None


class _Endless:
    """HEAD, then `block` so many times, then END."""

    def __init__(self, block: bytes, times: int) -> None:
        self.block, self.left = block, times
        self.head: bytes | None = HEAD
        self.end: bytes | None = END

    def read(self, size: int = -1) -> bytes:
        if self.head:
            head, self.head = self.head, None
            return head
        if self.left:
            self.left -= 1
            return self.block
        end, self.end = self.end or b"", None
        return end


@pytest.mark.parametrize(
    ("block", "times", "expected"),
    [
        (GOOD * 100, 200, 20_000),
        (b'<row Body="' + b"a" * 100_000, 200, 200),  # rows that never end
        (b"a" * 100_000, 200, 0),  # no markup
        (b"<a>" * 10_000, 5, 0),  # nested without end
    ],
)
def test_memory_does_not_grow_with_the_file(block, times, expected):
    """A stream of megabytes is read within a few blocks of memory."""
    tracemalloc.start()
    seen = sum(1 for _ in rows(_Endless(block, times), "posts", "row", 50_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == expected
    assert peak < 40 * len(block) + 1_000_000
