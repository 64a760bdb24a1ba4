"""Block lists against a matcher of a few lines that compares every URL with every line of the list, as strings."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import blocklist
from pipelines.blocklist import Blocklist, parse_entry, read_entries
from pipelines.errors import UserError
from pipelines.recipe_file import parse
from pipelines.urls import plain_host, plain_path


def _listed(folder, *lines):
    path = folder / "list"
    path.write_text("\n".join(lines))
    return Blocklist.of(read_entries(str(path)))


# -- the reference ----------------------------------------------------------------------------------------------------------


def _blocks(line: str, url: str) -> bool:
    """Whether one line of a list blocks a URL; both of plain ASCII, as the strategies below make them."""
    named, slash, path = line.partition("/")
    path = (slash + path).rstrip("/?&")
    name, _, port = named.lower().partition(":")
    host, stated, target = re.fullmatch(r"https?://([^/:?#]+)(?::(\d+))?([^#]*)(?:#.*)?", url).groups()
    host, target = host.lower(), target if target.startswith("/") else "/" + target
    address = host.split(".")[-1].isdigit()
    same = host == name or (not address and (host.endswith("." + name) or name == "www." + host))
    if not same or (port and port != stated):
        return False
    return not path or target == path or target.startswith(tuple(path + end for end in "/?&"))


_label = st.sampled_from(["a", "b", "com", "www", "A", "7"])
_host = st.lists(_label, min_size=1, max_size=4).map(".".join)
_port = st.sampled_from(["", "", ":80", ":8080"])
_path = st.lists(st.sampled_from(["/", "/a", "/b", "/ab", "?a", "&b=1", "/A"]), max_size=4).map("".join)
_line = st.builds(lambda host, port, path: host + port + (path if path.startswith("/") else ""), _host, _port, _path)
_url = st.builds(
    lambda scheme, host, port, path, fragment: f"{scheme}://{host}{port}{path}{fragment}",
    st.sampled_from(["http", "https"]),
    _host,
    _port,
    _path.filter(lambda path: not path.startswith("&")),
    st.sampled_from(["", "#/a"]),
)


@settings(max_examples=400)
@given(st.lists(_line, min_size=1, max_size=6), st.lists(_url, min_size=1, max_size=12))
def test_a_url_is_blocked_where_one_of_the_lines_blocks_it(tmp_path_factory, listed, urls):
    found = _listed(tmp_path_factory.mktemp("list"), *listed)
    for url in urls:
        expected = any(_blocks(line, url) for line in listed)
        entry = found(url)
        assert (entry is not None) == expected, (url, listed)
        if entry is not None:  # what is named is an entry that was given, as it is compared
            assert entry in {"".join(parse_entry(line)) for line in listed}
            assert _blocks(entry, url)


@given(st.lists(_line, min_size=1, max_size=30))
def test_entries_are_counted_once_and_order_and_repetition_decide_nothing(tmp_path_factory, listed):
    folder = tmp_path_factory.mktemp("list")
    one, other = _listed(folder, *listed), _listed(folder, "# of lists", *reversed(listed), "", *listed)
    entries = {parse_entry(line) for line in listed}
    assert (one.hosts, one.paths) == (sum(not path for _, path in entries), sum(bool(path) for _, path in entries))
    assert blocklist.save(one) == blocklist.save(other)
    again = blocklist.parse(blocklist.save(one), "x")
    assert (again.hosts, again.paths, again.keys.tolist()) == (one.hosts, one.paths, one.keys.tolist())


# -- what strategies do not reach -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "url", "entry"),
    [
        ("Example.ORG.", "HTTPS://user:secret@Shop.EXAMPLE.org./x", "example.org"),
        ("bücher.example", "https://www.xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "https://BÜCHER.example/", "xn--bcher-kva.example"),
        ("example.org", "https://badexample.org/", None),
        ("example.org", "https://example.org.evil.example/", None),
        ("example.org", "https://other.example/?u=https://example.org/", None),
        ("192.0.2.1", "http://192.0.2.1:8080/x", "192.0.2.1"),
        ("2.1", "http://192.0.2.1/", None),
        ("[2001:DB8::1]", "http://[2001:db8::1]:80/x", "[2001:db8::1]"),
        ("[2001:db8::1]:80", "http://[2001:db8::1:80]/", None),
        ("xxx", "https://a.b.xxx/", "xxx"),
        ("a_b-c.example", "http://a_b-c.example", "a_b-c.example"),
        ("www.example.org", "http://example.org/", "www.example.org"),
        ("www.example.org", "http://shop.example.org/", None),
        ("example.org/%7eme", "http://example.org/~me/page", "example.org/~me"),
        ("example.org/~me", "http://example.org/%7Eme?x", "example.org/~me"),
        ("example.org/straße", "http://example.org/stra%c3%9fe/1", "example.org/stra%C3%9Fe"),
        ("example.org/a%2fb", "http://example.org/a/b", None),
        ("example.org/Me", "http://example.org/me", None),
        ("example.org/w?v=1", "http://example.org/w?v=1&t=2#x", "example.org/w?v=1"),
        ("example.org/w?v=1", "http://example.org/w?v=12", None),
        ("example.org", "http://example.org:port/", "example.org"),
        ("example.org", "https://[broken/", None),
        ("example.org", "no url", None),
        ("example.org", "", None),
        ("example.org", "//example.org/x", "example.org"),
        ("example.org", "http://" + "a." * 200_000 + "example.org/", None),  # no name of the DNS
        ("example.org/x", "http://example.org/" + "/" * 200_000 + "/x", None),
    ],
)
def test_single_urls(tmp_path, line, url, entry):
    assert _listed(tmp_path, line)(url) == entry


def test_a_list_is_an_entry_a_line(tmp_path):
    content = b"\xef\xbb\xbf# list\r\n\r\n example.org \r\nb\xc3\xbccher.example/x\nplain.example\n\t# other.example\nlast.example"
    (tmp_path / "list.gz").write_bytes(gzip.compress(content))
    found = list(read_entries(str(tmp_path / "list.gz")))
    assert found == [("example.org", ""), ("xn--bcher-kva.example", "/x"), b"plain.example", b"last.example"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"https://example.org/", "'https://example.org/' is neither host nor host/path; write example.org or example.org/path"),
        (b"0.0.0.0 example.org", "is neither host nor host/path"),
        (b"*.example.org", "is neither host nor host/path"),
        (b".example.org", "is neither host nor host/path"),
        (b"a..example", "is neither host nor host/path"),
        (b"/path", "is neither host nor host/path"),
        (b"example.org/a b", "is neither host nor host/path"),
        (b"example.org/a#b", "is neither host nor host/path"),
        (b"example.org:http", "is neither host nor host/path"),
        (b"||example.org^", "is neither host nor host/path"),
        (b"a" * 254, "'" + "a" * 60 + "...' is neither host nor host/path"),
        (b"caf\xe9.example", "not UTF-8 (invalid continuation byte); mend the list"),
        (b"a" * 70_000, "over 65536 bytes; a list has one host or host/path a line"),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path, line, said):
    (tmp_path / "list").write_bytes(b"# first\n\n" + line + b"\nexample.org\n")
    with pytest.raises(UserError) as error:
        list(read_entries(str(tmp_path / "list")))
    assert str(error.value).startswith(f"{tmp_path}/list: line 3: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_cut_off_is_one_line(tmp_path):
    (tmp_path / "list").write_bytes(gzip.compress(b"example.org\n", mtime=0)[:-6])
    with pytest.raises(UserError, match=r"list: cannot be read to its end \(.*\); mend the list$"):
        list(read_entries(str(tmp_path / "list")))


def test_hundred_thousand_entries_are_sixteen_bytes_each(tmp_path):
    (tmp_path / "list").write_text("".join(f"h{n}.example\n" for n in range(100_000)))
    found = Blocklist.of(read_entries(str(tmp_path / "list")))
    assert found.keys.nbytes == 16 * 100_000 == 16 * found.hosts
    assert np.all(found.keys[:-1, 0] <= found.keys[1:, 0])
    assert sum(found(f"http://www.h{n}.example/x") == f"h{n}.example" for n in range(0, 100_000, 97)) == len(range(0, 100_000, 97))
    assert not any(found(f"http://h{n}.example/") for n in range(100_000, 101_000))


def test_a_damaged_index_is_one_line():
    with pytest.raises(UserError, match=r"^x: not a block list: .*; build the run again$"):
        blocklist.parse(b"\0" * 20, "x")


# -- of a recipe ------------------------------------------------------------------------------------------------------------


def _recipe(*given):
    listed = ", ".join(given)
    return parse(
        f"name: b\nsources: {{web: {{format: jsonl, paths: [x], blocklist: [{listed}]}}, o: {{format: jsonl, paths: [x]}}}}\n"
        "variants: {all: {}}", "b",
    )


def test_folders_are_read_as_toulouse_lays_them_out_and_relative_ones_lie_beside_the_recipe(tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "domains").write_text("a.example\nb.example\n")
    (tmp_path / "adult" / "urls").write_text("c.example/x\n")
    (tmp_path / "adult" / "usage").write_text("black\nno entry at all\n")
    (tmp_path / "mine.txt").write_text("b.example\nd.example\n")
    found = blocklist.load(_recipe("adult", "mine.txt"), str(tmp_path))
    assert {name: (one.hosts, one.paths) for name, one in found.items()} == {"web": (3, 1)}
    assert found["web"]("http://c.example/x/y") == "c.example/x"
    (one,) = blocklist.load(parse(
        f"name: b\nsources: {{web: {{format: jsonl, paths: [x], blocklist: {tmp_path}/mine.txt}}}}\nvariants: {{all: {{}}}}", "b"
    ), "/nowhere").values()
    assert (one.hosts, one.paths) == (2, 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", r"^sources.web.blocklist: .*/none: no such list; mend the path$"),
        ("folder", r"^sources.web.blocklist: .*/folder: a folder with neither a file domains nor a file urls; name the lists"),
        ("empty", r"^sources.web.blocklist: no entry in empty; give a list, or leave the key out$"),
        ("bad", r"^sources.web.blocklist: .*/bad: line 1: 'a b' is neither host nor host/path"),
    ],
)
def test_faults_of_a_list_name_source_and_file(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "bad").write_text("a b\n")
    with pytest.raises(UserError, match=said):
        blocklist.load(_recipe(name), str(tmp_path))


@given(st.text(max_size=30))
def test_any_text_has_one_plain_form(text):
    assert plain_path(plain_path(text)) == plain_path(text)
    assert plain_host(plain_host(text)) == plain_host(text) or not text.isascii() or ".." in text or text.strip("[]") != text


@given(st.text(max_size=40))
def test_any_url_has_an_answer(text):
    found = Blocklist.of([b"example.org", ("a", "/x")])
    assert found(text) in (None, "example.org", "a/x")
    assert found("http://example.org/" + text) == "example.org" or "[" in text or "]" in text
