"""Normalised URLs against a table written by hand and a second writing of the same rules; properties of both forms."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.urls import normalised, site

SAME = [
    "http://example.org/a/b",
    "https://example.org/a/b",
    "HTTPS://www.EXAMPLE.org./a/b/",
    "//example.org/a/b",
    "http://user:word@example.org:80/a/b#part",
    "https://example.org:443/%61/b//?",
    "https://example.org/a/b?utm_source=x&UTM_Medium=y&gclid=1&fbclid=2&",
]


@pytest.mark.parametrize("url", SAME)
def test_ways_to_write_one_page(url):
    assert normalised(url) == "example.org/a/b"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org", "example.org"),
        ("https://example.org/?", "example.org"),
        ("https://example.org:8080/", "example.org:8080"),
        ("https://bücher.example/ä?ö=ü", "xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC"),
        ("https://example.org/A", "example.org/A"),
        ("https://example.org/a/?b=2&a=1", "example.org/a?b=2&a=1"),
        ("https://example.org/a%2fb", "example.org/a%2Fb"),
        ("https://example.org/index.html", "example.org/index.html"),
        ("https://www.com/", "www.com"),
        ("http://[2001:DB8::1]:80/x", "[2001:db8::1]/x"),
        ("http://192.0.2.1/x", "192.0.2.1/x"),
        ("https://example.org:99999/x", "example.org/x"),  # no port: left out
    ],
)
def test_what_stays(url, expected):
    assert normalised(url) == expected


@pytest.mark.parametrize("url", ["", "no url", "ftp://example.org/a", "mailto:a@example.org", "http:///a", "http://[1/", "urn:x:y"])
def test_what_is_no_page(url):
    assert normalised(url) is None
    assert site(url) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.example.org/a", "example.org"),
        ("https://a.b.example.org/", "example.org"),
        ("http://192.0.2.1/", "192.0.2.1"),
        ("http://[::1]/", "::1"),
        ("http://localhost/", "localhost"),
        (None, None),
    ],
)
def test_sites(url, expected):
    assert site(url) == expected


def reference(url: str) -> str:
    """The rules once more by regular expressions over the characters of `_urls`, escapes undone and done again."""
    host, port, path, query = re.fullmatch(
        r"(?:https?:)?//(?:[^/@?#]*@)?([^/:?#]*)(?::(\d+))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", url, re.IGNORECASE
    ).groups()
    host = re.sub(r"^(www\.)+(?=[^.]+\.)", "", re.sub(r"\.$", "", host.lower()))
    kept = [one for one in (query or "").split("&") if one and not re.match(r"(?i)utm_|(gclid|fbclid)(=|$)", one)]
    target = _escaped(path.rstrip("/")) + ("?" + _escaped("&".join(kept)) if kept else "")
    return host + (f":{int(port)}" if port and int(port) not in (80, 443) else "") + target


def _escaped(text: str) -> str:
    """Every escape that stands there decoded and written again, or left as the character where that needs none."""

    def again(found):
        (byte,) = unquote_to_bytes(found[0])
        return chr(byte) if re.fullmatch(r"[A-Za-z0-9._~-]", chr(byte)) else f"%{byte:02X}"

    return re.sub(r"%[0-9a-fA-F]{2}", again, text)


_names = st.sampled_from(["www", "a", "B", "example", "x-1"])
_pieces = st.lists(st.sampled_from([*"aB1-._~!$'()*+,;=:@%", "%41", "%2f", "%C3%a4", "%7E"]), max_size=6).map("".join)
_given = ["a=1", "utm_x=2", "UTM_y", "gclid=", "fbclid", "utm=3", "b=%41", "", "gclidx=1"]
_parameters = st.lists(st.sampled_from(_given), max_size=4)
_urls = st.builds(
    lambda scheme, user, names, dot, port, pieces, parameters, fragment: (
        f"{scheme}//{user}{'.'.join(names)}{dot}{port}{''.join('/' + one for one in pieces)}"
        f"{'?' + '&'.join(parameters) if parameters else ''}{fragment}"
    ),
    st.sampled_from(["http:", "https:", "HTTP:", ""]),
    st.sampled_from(["", "me@"]),
    st.lists(_names, min_size=2, max_size=4),
    st.sampled_from(["", "."]),
    st.sampled_from(["", ":80", ":443", ":8080"]),
    st.lists(_pieces, max_size=3),
    _parameters,
    st.sampled_from(["", "#", "#x"]),
)


@given(_urls)
def test_any_url_is_what_the_second_writing_says(url):
    assert normalised(url) == reference(url)


@given(_urls)
def test_a_normalised_url_is_its_own_normal_form(url):
    assert normalised("//" + normalised(url)) == normalised(url)
