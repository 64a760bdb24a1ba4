"""MediaWiki dumps against ElementTree over the same bytes: pages, namespaces, redirects, and where a dump breaks off."""

from __future__ import annotations

import bz2
import gzip
import pathlib
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
