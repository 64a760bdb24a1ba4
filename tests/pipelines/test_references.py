"""What articles cite: by hand, against a walk over the characters of real dumps, and hashes against a set of strings."""

from __future__ import annotations

import bz2
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import sample
from pipelines.errors import CheckError
from pipelines.plan import Task
from pipelines.records import Input, Limits
from pipelines.references import are_cited, cite_task, cited, key_of, task_path
from pipelines.sources import stamp
from pipelines.sources.mediawiki import markups
from pipelines.store import Store
from pipelines.urls import normalised
from tests.sources.test_mediawiki import dump, page


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("[https://example.org/a. title]", ["https://example.org/a."]),
        ("[//example.org/a title] and //example.org/b", ["//example.org/a"]),
        ("{{cite web | url = https://example.org/a?b=1&amp;c=2 | title=x}}", ["https://example.org/a?b=1&c=2"]),
        ("{{cite web|url=http://example.org/a}}", ["http://example.org/a"]),
        ("<ref>http://example.org/a(b).</ref>", ["http://example.org/a(b)"]),
        ("(see http://example.org/a), ''http://example.org/b''", ["http://example.org/a", "http://example.org/b"]),
        ("http://example.org/c&nbsp;d", ["http://example.org/c"]),
        ("<!-- http://example.org/no --> HTTP://EXAMPLE.org/x", ["HTTP://EXAMPLE.org/x"]),
        ("|archive-url=https://web.archive.org/web/2010id_/http://example.org/a?b |", ["http://example.org/a?b"]),
        ("https://web.archive.org/web/", ["https://web.archive.org/web/"]),
        ("[[http://example.org/a]] xhttp://example.org/b\u3000c", ["http://example.org/a", "http://example.org/b"]),
        ("ftp://example.org/a mailto:a@example.org {{doi|10.1/x}} http:example.org", []),
    ],
)
def test_by_hand(markup, expected):
    assert list(cited(markup)) == expected


def walked(markup: str) -> list[str]:
    """The same rules by a walk: from every scheme to the first character that ends a URL."""
    text, found, at = re.sub(r"<!--.*?(-->|\Z)", "", markup, flags=re.DOTALL), [], 0
    lowered = re.sub("[A-Z]", lambda one: one[0].lower(), text)
    while at < len(text):
        bracket = at > 0 and text[at - 1] == "["
        head = next((h for h in ("https://", "http://", "//" if bracket else "https://") if lowered.startswith(h, at)), "")
        if not head:
            at += 1
            continue
        stop = at + len(head)
        while stop < len(text) and not (text[stop].isspace() or text[stop] in '[]<>"{}|\ufffd\x7f' or text[stop] < " "):
            stop += 1
        url = text[at:stop]
        if url != head:
            ends = [place for end in ("''", "&lt;", "&gt;", "&nbsp;", "&quot;") if (place := url.find(end)) >= 0]
            shown = url[: min(ends, default=len(url))].replace("&amp;", "&")
            while not bracket and shown and (shown[-1] in ",;.:!?" or (shown[-1] == ")" and "(" not in shown)):
                shown = shown[:-1]
            head, slash, inner = shown.partition("//web.archive.org/web/")
            inner = inner.partition("/")[2] if slash and head in ("", "http:", "https:") else ""
            found.append(inner if re.match(r"https?://.", inner) else shown)
        at = stop
    return found


_parts = st.sampled_from(
    [*".)([]x|\n", "http://", "https://", "//", "web.archive.org/web/1/", "a.org/", "''", "&amp;", "&nbsp;", "<!--", "-->", "{{"]
)


@given(st.lists(_parts, max_size=20).map("".join))
def test_any_markup_is_what_the_walk_finds(markup):
    assert list(cited(markup)) == walked(markup)


@pytest.mark.usefixtures("demo_run")
def test_real_dumps_are_what_element_tree_and_the_walk_find(tmp_path):
    """The dumps of the embedded sample: every page that is a document, its links counted and their set compared."""
    expected_links = {"bg": 0, "en": 0}
    paths = sorted(pathlib.Path(sample.sample_folder()).rglob("*.bz2"))
    assert len(paths) == 2
    for path in paths:
        source_input = Input(path.name, str(path), 0, "0", stamp(str(path)))
        articles = list(markups(source_input, Limits()))
        texts = {}
        for element in ElementTree.fromstring(bz2.decompress(path.read_bytes())).iter():
            if element.tag.endswith("}page"):
                values = {one.tag.rpartition("}")[2]: one.text or "" for one in element.iter()}
                texts[values["title"]] = (values["ns"], values["text"])
        assert set(articles) <= {text for namespace, text in texts.values() if namespace == "0"}
        links = [url for markup in articles for url in walked(markup)]
        store, task = Store(str(tmp_path / path.stem)), Task("w", "part", (source_input,))
        cite_task(store, task, Limits())
        facts = store.sidecar(task_path(task))
        names = {normalised(url) for url in links} - {None}
        assert (facts["pages"], facts["links"], facts["urls"]) == (len(articles), len(links), len(names))
        keys = np.frombuffer(store.read(task_path(task)), ">u8")
        assert keys.tolist() == sorted({key_of(url) for url in links} - {None})
        expected_links["en" if len(articles) > 50 else "bg"] = len(links)
    assert expected_links["en"] > 500


@given(st.sets(st.integers(0, 30)), st.lists(st.none() | st.integers(0, 40) | st.just("no url"), max_size=20))
def test_the_join_is_membership_in_a_set_of_normal_forms(known, asked):
    keys = np.array(sorted(key_of(f"https://www.example.org/{n}/") for n in known), np.uint64)
    urls = [f"http://example.org/{one}#x" if isinstance(one, int) else one for one in asked]
    names = {f"example.org/{n}" for n in known}
    assert are_cited(keys, urls).tolist() == [url is not None and normalised(url) in names for url in urls]


def test_pages_that_are_no_documents_cite_nothing_and_a_cut_dump_what_it_has(tmp_path):
    path = dump(
        tmp_path,
        page(1, "http://a.example/1 http://a.example/1"),
        page(2, "http://a.example/2", namespace=1),
        page(3, "#REDIRECT [[x]] http://a.example/3"),
        page(4, "{{disambig}} http://a.example/4"),
        page(5, "http://a.example/5 " + "x" * 3000),
        page(6, "http://a.example/6"),
    )
    path.write_bytes(path.read_bytes().removesuffix(b"</mediawiki>"))
    store, task = Store(str(tmp_path / "run")), Task("w", "part", (Input("x.xml", str(path), 0, "0", stamp(str(path))),))
    cite_task(store, task, Limits(2048))
    facts = store.sidecar(task_path(task))
    assert (facts["pages"], facts["links"], facts["urls"]) == (2, 3, 2)


def test_a_file_of_other_bytes_is_told(tmp_path):
    from pipelines import models, references

    store = Store(str(tmp_path))
    store.publish(models.REFERENCES, b"123456789")
    with pytest.raises(CheckError, match=r"models/references\.bin: 9 bytes are no hashes of 8"):
        references.load(store)
