"""E-mail and IP addresses against tables by hand, and against the standard library's own reading of addresses."""

from __future__ import annotations

import ipaddress

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality import pii


def _texts(*texts):
    return pa.array(texts, pa.large_string())


@pytest.mark.parametrize(
    ("text", "masked", "emails", "addresses"),
    [
        ("Write to jane.doe+x@mail.example.org.", "Write to email@example.com.", 1, 0),
        ("<a@b.de>, (c_d@e-f.co.uk); mailto:q@r.io", "<email@example.com>, (email@example.com); mailto:email@example.com", 3, 0),
        ("no @ here, a@b, @name, x@y.z, a@.com, .@b.com", "no @ here, a@b, @name, x@y.z, a@.com, .@b.com", 0, 0),
        ("user@host.name-and-more and Ünïcode@example.org", "user@host.name-and-more and Ünïemail@example.com", 1, 0),
        ("to j@b.com--I answer, or j@b.com- no", "to email@example.com--I answer, or email@example.com- no", 2, 0),
        ("well ...john@b.com, .j@b.com", "well ...email@example.com, .email@example.com", 2, 0),
        ("x@y.xn--p1ai, x@xn--bcher-kva.de, x@y.xn--", "email@example.com, email@example.com, email@example.com--", 3, 0),
        (f"{'a' * 65}@b.com, {'a' * 65}.b@c.de: no name is so long; j@bücher.de is not in ASCII", None, 0, 0),
        ("8.8.8.8@b.com, 8.8.8.8..j@b.com j@b.com..8.8", "email@example.com, email@example.com email@example.com..8.8", 3, 2),
        ("server 8.8.8.8:53 and 1.1.1.1.", "server 192.0.2.1:53 and 192.0.2.1.", 0, 2),
        ("10.0.0.1, 127.0.0.1, 192.168.7.7, 169.254.1.1, 0.0.0.0, 255.255.255.255", None, 0, 0),
        ("version 1.2.3.4.5, 256.1.1.1, 1.2.3, 01.2.3.4, v8.8.8.8", None, 0, 0),
        ("", "", 0, 0),
        ("email@example.com at 192.0.2.1", "email@example.com at 192.0.2.1", 0, 0),
    ],
)
def test_what_is_found_and_what_becomes_of_it(text, masked, emails, addresses):
    found = pii.count(_texts(text))
    if masked is not None:
        assert pii.mask(_texts(text)).to_pylist() == [masked]
    if emails is not None:
        assert (found[0].tolist(), found[1].tolist()) == ([emails], [addresses])


@given(st.lists(st.text("ab.@1 -_8\n", max_size=60), max_size=5))
def test_masking_twice_is_masking_once_and_leaves_nothing_to_count(texts):
    once = pii.mask(_texts(*texts))
    assert pii.mask(once).equals(once)
    assert [found.tolist() for found in pii.count(once)] == [[0] * len(texts)] * 2


_PIECES = [*"a@.1-_ é\n", "--", "..", ".xn--", "a.b@", "@c.de", "1.2.", "3.4", "8.8.8.8", "256", "x" * 64, " " * 61, pii.EMAIL]


@given(st.lists(st.lists(st.sampled_from(_PIECES), max_size=40).map("".join), max_size=5), st.integers(0, 3))
def test_every_text_has_what_the_patterns_find_in_it(texts, skipped):
    """Against the patterns over whole texts, of which the compiled scan shows them only runs; slices too."""
    emails, addresses = pii.count(_texts(*texts)[skipped:])
    whole = [(pii._EMAIL.findall(text), pii._ADDRESS.findall(text)) for text in texts[skipped:]]
    assert emails.tolist() == [sum(one != pii.EMAIL for one in found) for found, _ in whole]
    assert addresses.tolist() == [sum(ipaddress.ip_address(one).is_global for one in found) for _, found in whole]
    assert pii.mask(_texts(*texts)[skipped:]).to_pylist() == [pii.masked(text) for text in texts[skipped:]]


def test_more_runs_than_there_is_room_for_at_first():
    assert [found.tolist() for found in pii.count(_texts("", "a@b.de 8.8.8.8 " * 5000))] == [[0, 5000]] * 2


@given(st.integers(0, 2**32 - 1))
def test_public_addresses_are_those_of_the_standard_library(number):
    address = ipaddress.IPv4Address(number)
    assert pii.count(_texts(f"from {address} to"))[1].tolist() == [int(address.is_global)]


@given(st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,9}){0,2}@([a-z0-9]{1,12}\.){1,3}[a-z]{2,6}", fullmatch=True))
def test_an_ordinary_address_is_one_address(address):
    if address != pii.EMAIL:
        assert pii.count(_texts(f"({address})"))[0].tolist() == [1]
        assert pii.mask(_texts(f"({address})")).to_pylist() == [f"({pii.EMAIL})"]


@pytest.mark.parametrize("unit", ["a", "a.", "a@", "a@a.", "1.", "1.1.1.1", "a@a", "%", "-", "..a", "a..@a"])
def test_no_text_takes_quadratic_time(unit):
    """Twice the text costs about twice the time; a quadratic scan of 4 MB would outlast the limit of a test."""
    text = _texts(unit * (4_000_000 // len(unit)))
    emails, addresses = pii.count(text)
    assert pii.count(pii.mask(text))[0].sum() == 0
    assert emails.sum() + addresses.sum() == 0
