"""The list of what is taken back: its four forms, its errors, and the rows it names, held against a plain search."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import removal
from pipelines.errors import UserError
from pipelines.removal import Removal, is_below, load, match, parse
from pipelines.urls import plain_host

A, B = "0123456789abcdef" * 2, "ff" * 16


def test_the_four_forms_comments_and_blank_lines():
    found = parse(
        b"\xef\xbb\xbf# taken back\r\n\n"
        + f"{A}\n  {B.upper()}  \r\nhttps://a.example/#x\n".encode()
        + b"\t# host:passed.over\nhost:Example.ORG.\nhost: b\xc3\xbccher.example\nhost:[2001:DB8::1]\nhost:10.0.0.1\n"
        + f"content:{A}\ncontent:{A}\n".encode(),
        "list",
    )
    assert found == Removal(
        frozenset([bytes.fromhex(A), bytes.fromhex(B)]),
        frozenset(["https://a.example/#x"]),
        frozenset(["example.org", "xn--bcher-kva.example", "2001:db8::1", "10.0.0.1"]),
        frozenset([bytes.fromhex(A)]),
    )
    assert found.counts() == {"doc_id": 2, "url": 1, "host": 4, "content": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"abc", "'abc' is no doc_id, URL, host:NAME or content:HASH (hashes have 32 hex digits)"),
        (A[:-1].encode(), f"{A[:-1]!r} is no doc_id"),
        (b"content:" + A[:-2].encode(), "is no doc_id, URL"),
        (b"host:", "'host:' is no doc_id, URL"),
        (b"host:.", "'host:.' is no doc_id, URL"),
        (b"host:a.example/path", "is no doc_id, URL"),
        (b"host:a.example:80", "is no doc_id, URL"),
        (b"a.example", "'a.example' is no doc_id, URL"),
        (b"https://a.example/with blank", "is no doc_id, URL"),
        (b"x" * 100, "'" + "x" * 60 + "...' is no doc_id, URL"),
        (b"\xff", "not UTF-8 (invalid start byte)"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line, said):
    with pytest.raises(UserError) as error:
        parse(b"# first\n\n" + line + b"\n" + A.encode(), "lists/remove.txt")
    assert str(error.value).startswith("lists/remove.txt: line 3: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_list_is_one_line_and_a_relative_one_lies_beside_the_recipe(tmp_path):
    with pytest.raises(UserError, match=r"remove.txt: cannot be read \(No such file or directory\); mend the recipe's remove"):
        load("remove.txt", str(tmp_path))
    (tmp_path / "remove.txt").write_text("host:a.example")
    found = load("remove.txt", str(tmp_path))
    assert found == load(str(tmp_path / "remove.txt"), "/nowhere") == Removal(hosts=frozenset(["a.example"]))


@pytest.mark.parametrize(
    ("url", "host", "below"),
    [
        ("https://example.org/x", "example.org", True),
        ("HTTP://user@Www.EXAMPLE.org.:8080/x", "example.org", True),
        ("https://a.b.example.org", "example.org", True),
        ("https://badexample.org/", "example.org", False),
        ("https://example.org.evil.com/", "example.org", False),
        ("https://org/", "example.org", False),
        ("https://example.org?x=/a/b", "example.org", True),
        ("//example.org#x", "example.org", True),
        ("https://x.com/?u=https://example.org/", "example.org", False),
        ("https://bücher.example/", "xn--bcher-kva.example", True),
        ("https://[2001:db8::1]:80/", "2001:db8::1", True),
        ("https://[broken/", "broken", False),
        ("no url", "no url", False),
    ],
)
def test_hosts_and_what_lies_below_them(url, host, below):
    hosts = frozenset([plain_host(host)])
    assert is_below(url, hosts) is below
    one = {"doc_id": pa.array([b"0" * 16], pa.binary(16)), "url": [url], "content_hash": pa.array([b"0" * 16], pa.binary(16))}
    assert match(Removal(hosts=hosts), pa.table(one)) == ({"host": [0]} if below else {})


@given(st.text("/:?#@[]ab.\t \\", max_size=20), st.sampled_from(["a", "b.a", "ab"]))
def test_a_url_up_to_its_path_says_what_the_whole_says(url, host):
    for whole in (url, "http://" + url, "//" + url):
        column = pa.chunked_array([pa.array([whole], pa.string())])
        assert removal._of_hosts(column, frozenset([host])).tolist() == [is_below(whole, frozenset([host]))]


_ids = st.sampled_from([bytes([n]) * 16 for n in range(6)])
_hosts = st.sampled_from(["a.example", "b.a.example", "example", "c.test"])
_urls = st.one_of(st.none(), st.builds(lambda host, n: f"https://{host}/{n}", _hosts, st.integers(0, 2)))
_rows = st.lists(st.tuples(_ids, _urls, _ids), max_size=12)


@given(_rows, st.frozensets(_ids), st.frozensets(_urls.filter(bool)), st.frozensets(_hosts), st.frozensets(_ids))
def test_rows_are_those_of_a_plain_search_and_each_has_its_first_kind(rows, doc_ids, urls, hosts, contents):
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = (pa.binary(16), pa.string(), pa.binary(16))
    table = pa.table(
        {name: pa.array(c, kind) for name, c, kind in zip(("doc_id", "url", "content_hash"), columns, kinds, strict=True)}
    )
    expected = {}
    for place, (doc_id, url, content) in enumerate(rows):
        host = (url or "//").split("/")[2]
        named = [
            doc_id in doc_ids,
            url in urls,
            any(host == one or host.endswith("." + one) for one in hosts),
            content in contents,
        ]
        if any(named):
            expected.setdefault(removal.KINDS[named.index(True)], []).append(place)
    assert match(Removal(doc_ids, urls, hosts, contents), table) == expected
