"""Personal data in text: e-mail addresses and IP addresses, counted, and masked where a recipe asks for it.

As FineWeb does (Penedo et al. 2024, section 3, "PII"): an e-mail address becomes `email@example.com`, a public IPv4 address
`192.0.2.1`, which nobody owns (RFC 2606, RFC 5737). Private, local and reserved addresses name no machine of a person and stay, as
do addresses that are already the masks, so that masking twice is masking once. IPv6 is not looked for.

A document without a candidate is passed over by a linear scan in compiled code; only the others are rewritten. Four numbers with
dots can be a version, too: what is masked is counted, and the count says how much a corpus has at stake.
"""

from __future__ import annotations

import ipaddress
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EMAIL, ADDRESS = "email@example.com", "192.0.2.1"
# Bounded repeats: the local part, labels and the whole name are as long as RFC 5321 allows, so that no text takes quadratic time.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ADDRESS = re.compile(rf"(?<![0-9A-Za-z.]){_OCTET}(?:\.{_OCTET}){{3}}(?![0-9A-Za-z]|\.[0-9])")
_MAYBE_ADDRESS = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"


def count(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(e-mail addresses, public IPv4 addresses) of each text, int32 [n]; texts: large_string [n]. Masks do not count."""
    emails, addresses = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.int32)
    for number in _candidates(texts):
        found = texts[int(number)].as_py()
        emails[number] = sum(match[0] != EMAIL for match in _EMAIL.finditer(found))
        addresses[number] = sum(_public(match[0]) for match in _ADDRESS.finditer(found))
    return emails, addresses


def mask(texts: pa.Array) -> pa.Array:
    """The texts (large_string [n]) with every address replaced by its mask."""
    chosen = _candidates(texts)
    if len(chosen) == 0:
        return texts
    found = [masked(texts[int(number)].as_py()) for number in chosen]
    which = np.zeros(len(texts), bool)
    which[chosen] = True
    return pc.replace_with_mask(texts, pa.array(which), pa.array(found, texts.type))


def _candidates(texts: pa.Array) -> np.ndarray:
    """int64: the numbers of the texts that may hold an address."""
    at = pc.match_substring(texts, "@")
    dotted = pc.match_substring_regex(texts, _MAYBE_ADDRESS)
    return np.flatnonzero(np.asarray(pc.or_(at, dotted)))


def masked(text: str) -> str:
    """One text with every address replaced by its mask."""
    text = _EMAIL.sub(EMAIL, text)
    return _ADDRESS.sub(lambda match: ADDRESS if _public(match[0]) else match[0], text)


def _public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global
