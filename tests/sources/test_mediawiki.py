"""MediaWiki dumps against ElementTree over the same bytes: pages, namespaces, redirects, and where a dump breaks off."""

from __future__ import annotations

import bz2
import gzip
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import sample
from pipelines.records import Record
from tests.sources.reading import read, records, recount, rejects, texts

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en"><siteinfo><sitename>W</sitename>'
    "<base>https://en.example.org/wiki/Main_Page</base><namespaces>"
    '<namespace key="0" case="first-letter" /><namespace key="1" case="first-letter">Talk</namespace>'
    '<namespace key="6" case="first-letter">File</namespace><namespace key="14" case="first-letter">Category</namespace>'
    "</namespaces></siteinfo>"
)


def page(number, text, title=None, namespace=0, redirect=""):
    return (
        f"<page><title>{title or f'Page {number}'}</title><ns>{namespace}</ns><id>{number}</id>{redirect}<revision><id>9</id>"
        f"<timestamp>2024-01-02T03:04:05Z</timestamp><text xml:space=\"preserve\">{text}</text></revision></page>"
    )


def dump(tmp_path, *pages, pack=lambda data: data):
    path = tmp_path / "x.xml"
    path.write_bytes(pack((HEAD + "".join(pages) + "</mediawiki>").encode()))
    return path


def walked(data: bytes) -> Counter:
    found = Counter()
    for element in ElementTree.fromstring(data).iter():
        if element.tag.rpartition("}")[2] != "page":
            continue
        values = {one.tag.rpartition("}")[2]: one for one in element.iter()}
        text = values["text"].text or "" if "text" in values else ""
        if values["ns"].text != "0":
            found["not_an_article"] += 1
        elif "redirect" in values or text.lstrip()[:9].lower() == "#redirect":
            found["redirect"] += 1
        else:
            found["document" if text else "missing_text"] += 1
    return found


@pytest.mark.usefixtures("demo_run")
def test_real_dumps_are_those_of_element_tree():
    """The dumps of the embedded sample, English and Bulgarian."""
    paths = sorted(pathlib.Path(sample.sample_folder()).rglob("*.bz2"))
    assert len(paths) == 2
    for path in paths:
        expected = walked(bz2.decompress(path.read_bytes()))
        found = read("mediawiki", path, limit=64 << 20)
        counts = Counter({"document": len(texts(found)), **rejects(found)})
        assert counts.total() == expected.total() == recount("mediawiki", path)
        ambiguous = sum(not isinstance(one, Record) and one.detail.startswith("disambiguation") for one in found)
        assert counts["document"] + ambiguous == expected["document"]
        assert counts["not_an_article"] - ambiguous == expected["not_an_article"]
        assert counts["redirect"] == expected["redirect"]


@pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress], ids=["plain", "bz2", "gzip"])
def test_pages_with_their_fields(tmp_path, pack):
    path = dump(
        tmp_path,
        page(1, "Plain '''words'''.", "A &amp; B"),
        page(2, "talk", namespace=1),
        page(3, "", redirect='<redirect title="x" />'),
        page(4, "#REDIRECT [[Page 1]]"),
        "<page><title>empty</title><ns>0</ns><id>5</id><revision><id>9</id></revision></page>",
        pack=pack,
    )
    found = read("mediawiki", path)
    assert found[0] == Record(
        "x.xml#0", "Plain words.", "1", "https://en.example.org/wiki/A_%26_B", "A & B", "2024-01-02T03:04:05Z", None
    )
    assert rejects(found) == {"not_an_article": 1, "redirect": 2, "missing_text": 1}
    assert recount("mediawiki", path) == records(found) == 5


@pytest.mark.parametrize("encoding", ["foo", "utf-32", "gb2312"])
def test_an_encoding_that_expat_does_not_know_is_damage(tmp_path, encoding):
    path = tmp_path / "x.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>' + HEAD + page(1, "words") + "</mediawiki>")
    assert rejects(read("mediawiki", path)) == {"corrupt_container": 1}


def test_a_text_that_was_deleted_is_missing_and_an_empty_one_is_not(tmp_path):
    gone = '<page><title>gone</title><ns>0</ns><id>1</id><revision><id>9</id><text bytes="7" deleted="deleted" /></revision></page>'
    found = read("mediawiki", dump(tmp_path, gone, page(2, "")))
    assert (texts(found), rejects(found)) == ([""], {"missing_text": 1})


# -- versions of the export format --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("demo_run")
@pytest.mark.parametrize("version", ["0.3", "0.5", "0.6", "0.10", "0.11", "7.3"])
def test_real_dumps_in_another_version_are_the_same_documents(version, tmp_path):
    """The dumps of the embedded sample, written as another version would: before 0.6 no page states its namespace, before 0.4 none
    says that it is a redirect either; a version to come may hold elements that nobody knows."""
    for path in sorted(pathlib.Path(sample.sample_folder()).rglob("*.bz2")):
        data = bz2.decompress(path.read_bytes())
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        text = re.sub(r'encoding="[^"]*"', 'encoding="utf-8"', text, count=1)
        other = re.sub(r'export-0\.\d+/|version="0\.\d+"', lambda found: re.sub(r"0\.\d+", version, found[0]), text)
        assert f'version="{version}"' in other
        if version in ("0.3", "0.5"):
            other = re.sub(r"<ns>-?\d+</ns>|<redirect [^>]*/>" if version == "0.3" else r"<ns>-?\d+</ns>", "", other)
        if version == "7.3":
            other = other.replace("<revision>", "<new a='1'><ns>9</ns><deep>x</deep></new><revision><slot/>")
            other = other.replace("</revision>", "<content><role>more</role><text>no</text></content></revision>")
        (tmp_path / "x.xml").write_text(other, encoding="utf-8")
        expected = read("mediawiki", path, limit=64 << 20)
        found = read("mediawiki", tmp_path / "x.xml", limit=64 << 20)
        assert texts(found) == texts(expected)
        assert [str(one.reason) for one in found if not isinstance(one, Record)] == [
            str(one.reason) for one in expected if not isinstance(one, Record)
        ]
        assert recount("mediawiki", tmp_path / "x.xml") == records(found)


@pytest.mark.parametrize(
    ("title", "article"),
    [
        ("Talk:A", False),
        ("talk : a", False),
        ("User_talk:A", False),
        ("Diskussion:A", False),
        ("Category:A", False),
        ("Blade Runner: 2049", True),
        ("A", True),
        (":A", True),
        ("Talk", True),
    ],
)
def test_without_a_stated_namespace_the_title_says_it(tmp_path, title, article):
    """`Diskussion` is a name of this wiki's own; a title may hold a colon."""
    head = HEAD.replace('key="1" case="first-letter">Talk', 'key="1" case="first-letter">Diskussion')
    stated = page(1, "words", title)
    for namespace, one in ((None, stated.replace("<ns>0</ns>", "")), (0, stated)):
        (tmp_path / "x.xml").write_text(head + one + "</mediawiki>")
        found = read("mediawiki", tmp_path / "x.xml")
        assert texts(found) == (["words"] if article or namespace == 0 else [])
        assert rejects(found) == ({} if article or namespace == 0 else {"not_an_article": 1})


@pytest.mark.parametrize("data", ["<feed><doc><title>A</title></doc></feed>", "<feed><page></page></feed>", "<a/>", "no XML", ""])
def test_another_file_than_an_export_is_said_to_be_none(tmp_path, data):
    """Wikimedia publishes other XML beside its dumps, such as abstracts: no silent run without a document."""
    (tmp_path / "x.xml").write_text(data)
    found = read("mediawiki", tmp_path / "x.xml")
    assert rejects(found) == {"corrupt_container": 1}
    assert found[-1].unknown_rest
    assert recount("mediawiki", tmp_path / "x.xml") == 1


BIG = 3 << 20


@pytest.mark.parametrize(
    ("middle", "detail"),
    [
        ('<page x="' + "a" * BIG + '"></page>', "a tag or comment of over 1048576 bytes"),
        ("<!--" + "a" * BIG + "-->", "a tag or comment of over 1048576 bytes"),
        ("<?a " + "a" * BIG + "?>", "a tag or comment of over 1048576 bytes"),
        ("<a>" * 101 + "</a>" * 101, "elements nested over 100 levels"),
        ("".join(f"<a{number}/>" for number in range(BIG // 100)), "over 1000 names of elements and attributes"),
        ("".join(f"<a b{number}='1'/>" for number in range(BIG // 100)), "over 1000 names of elements and attributes"),
        ("<base>" + "a" * BIG + "</base>", "names of namespaces of over 1048576 bytes"),
        (f'<namespace key="9">{"a" * 100}</namespace>' * (BIG // 100), "names of namespaces of over 1048576 bytes"),
    ],
    ids=["tag", "comment", "instruction", "depth", "elements", "attributes", "base", "namespaces"],
)
@pytest.mark.parametrize("pack", [bytes, bz2.compress], ids=["plain", "bz2"])
def test_what_expat_would_hold_without_end_is_damage(tmp_path, middle, detail, pack):
    """Some hundred bytes of bz2 can stand for gigabytes of any of them; pages before them are documents."""
    path = dump(tmp_path, page(1, "before"), middle, page(2, "behind"), pack=pack)
    found = read("mediawiki", path)
    assert texts(found) == ["before"]
    assert found[-1].detail == detail
    assert rejects(found) == {"corrupt_container": 1}
    assert found[-1].unknown_rest


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "text",
    ["a" * BIG, "\n" * BIG + "a", "<![CDATA[" + "a" * BIG + "]]>", "&amp;" * (BIG // 4), "a&#98;" * (BIG // 4)],
    ids=["letters", "lines", "CDATA", "entities", "numbers"],
)
def test_a_long_text_is_no_long_tag(tmp_path, text, encoding):
    path = tmp_path / "x.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>' + HEAD + page(1, text) + "</mediawiki>", encoding)
    expected = ElementTree.parse(path).getroot()[1][3][2].text
    assert texts(read("mediawiki", path, limit=64 << 20)) == [expected.strip()]


def test_other_elements_than_pages_may_be_many(tmp_path):
    """As in a dump of logs, whose items hold names that pages have, too."""
    items = "".join(f"<logitem><id>{n}</id><title>{'t' * 100}</title><timestamp>x</timestamp></logitem>" for n in range(BIG // 100))
    found = read("mediawiki", dump(tmp_path, items, page(1, "words")))
    assert [(one.text, one.source_id) for one in found] == [("words", "1")]


@given(st.data())
def test_a_cut_dump_gives_its_whole_pages_and_says_so(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("dump")
    whole = dump(folder, *(page(n, f"words {n} " * 6) for n in range(5))).read_bytes()
    at = data.draw(st.integers(1, len(whole) - 1))
    (folder / "x.xml").write_bytes(whole[:at])
    found = read("mediawiki", folder / "x.xml")
    assert texts(found) == [(f"words {n} " * 6).strip() for n in range(whole[:at].count(b"</page>"))]
    assert found[-1].unknown_rest


@given(st.data())
def test_a_flipped_byte_ends_no_run(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("dump")
    whole = bytearray(dump(folder, *(page(n, f"words {n} " * 6) for n in range(4)), pack=bz2.compress).read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "x.xml").write_bytes(bytes(whole))
    expected = {(f"words {n} " * 6).strip() for n in range(4)}
    assert set(texts(read("mediawiki", folder / "x.xml"))) <= expected
