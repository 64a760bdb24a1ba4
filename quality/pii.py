"""Personal data in text: e-mail addresses and IP addresses, counted, and masked where a recipe asks for it.

As FineWeb does (Penedo et al. 2024, section 3, "PII"): an e-mail address becomes `email@example.com`, a public IPv4 address
`192.0.2.1`, which nobody owns (RFC 2606, RFC 5737). Private, local and reserved addresses name no machine of a person and stay, as
do addresses that are already the masks, so that masking twice is masking once. IPv6 is not looked for.

A compiled scan finds the runs of characters in which alone an address can stand; the patterns look at those and at nothing else.
Four numbers with dots can be a version, too: what is masked is counted, and the count says how much a corpus has at stake.
Names of hosts are looked for as they travel: in ASCII, `xn--` labels among them. What is written in other letters is not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quality.text import U0, U1, buffers, equal_within, kernel, trailing_zeros

EMAIL, ADDRESS = "email@example.com", "192.0.2.1"
# Bounded repeats: the local part, labels and the whole name are as long as RFC 5321 allows, so that no text takes quadratic time.
# Dots before an address and dashes behind it are the sentence's; but no address begins or ends within a name.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9_%+-])(?<![A-Za-z0-9_%+-]\.)[A-Za-z0-9_%+-](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"(?:[Xx][Nn]--[A-Za-z0-9-]{0,58}[A-Za-z0-9]|[A-Za-z]{2,24})(?![A-Za-z0-9]|-[A-Za-z0-9])"
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ADDRESS = re.compile(rf"(?<![0-9A-Za-z.]){_OCTET}(?:\.{_OCTET}){{3}}(?![0-9A-Za-z]|\.[0-9])")


def count(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(e-mail addresses, public IPv4 addresses) of each text, int32 [n]; texts: large_string [n]. Masks do not count."""
    emails, addresses = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.int32)
    for number, run in _runs(texts, _AT):
        emails[number] += sum(match[0] != EMAIL for match in _EMAIL.finditer(run))
    for number, run in _runs(texts, _DOT):
        addresses[number] += sum(_public(match[0]) for match in _ADDRESS.finditer(run))
    return emails, addresses


def mask(texts: pa.Array) -> pa.Array:
    """The texts (large_string [n]) with every address replaced by its mask."""
    chosen = sorted({number for sign in (_AT, _DOT) for number, _ in _runs(texts, sign)})
    if not chosen:
        return texts
    found = [masked(texts[number].as_py()) for number in chosen]
    which = np.zeros(len(texts), bool)
    which[chosen] = True
    return pc.replace_with_mask(texts, pa.array(which), pa.array(found, texts.type))


def masked(text: str) -> str:
    """One text with every address replaced by its mask."""
    text = _EMAIL.sub(EMAIL, text)
    return _ADDRESS.sub(lambda match: ADDRESS if _public(match[0]) else match[0], text)


def _public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


# -- where an address can stand ---------------------------------------------------------------------------------------------

_AT, _DOT = ord("@"), ord(".")
_ALNUM, _LOCAL, _IN_EMAIL, _IN_ADDRESS = 1, 2, 4, 8


def _character_classes() -> np.ndarray:
    """uint8 [256], bits: a letter or digit; what a local part may end in; what an e-mail, an IPv4 address is a run of."""
    classes = np.zeros(256, np.uint8)
    for byte in range(128):
        character = chr(byte)
        classes[byte] = (
            character.isalnum() * (_ALNUM | _LOCAL | _IN_EMAIL | _IN_ADDRESS)
            | (character in "_%+-") * (_LOCAL | _IN_EMAIL)
            | (character == ".") * (_IN_EMAIL | _IN_ADDRESS)
            | (character == "@") * _IN_EMAIL
        )
    return classes


_CLASSES = _character_classes()


def _runs(texts: pa.Array, sign: int) -> Iterator[tuple[int, str]]:
    """(number of a text, a longest run of the characters of an address) for the runs in which one may stand.

    An address lies in one run, and what the patterns ask of the characters beside it a run's ends fulfil: a run by itself has the
    addresses that it has in its text.
    """
    data, offsets = buffers(texts)
    runs = np.empty((1024, 3), np.int64)
    found = _find(data, offsets, sign, _CLASSES, np.empty(64, np.uint8), runs)
    if found > len(runs):
        runs = np.empty((found, 3), np.int64)
        _find(data, offsets, sign, _CLASSES, np.empty(64, np.uint8), runs)
    whole = data.data
    for number, start, stop in runs[:found].tolist():
        yield number, str(whole[start:stop], "ascii")


@kernel
def _find(
    data: np.ndarray, offsets: np.ndarray, sign: int, classes: np.ndarray, pad: np.ndarray, runs: np.ndarray
) -> int:
    """Fills runs, int64 [k, 3] of (text, start, stop), as far as there is room; returns how many there are."""
    kind = _IN_EMAIL if sign == _AT else _IN_ADDRESS
    found = 0
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        at = start
        while at < stop:
            signs = equal_within(data, at, stop, sign, pad)
            after = min(at + 64, stop)
            while signs != U0:
                here = at + trailing_zeros(signs)
                signs &= signs - U1
                if sign == _AT and not _maybe_email(data, start, here, stop, classes):
                    continue
                if sign == _DOT and not _maybe_address(data, start, here, stop):
                    continue
                left, right = here, here + 1
                while left > start and classes[data[left - 1]] & kind:
                    left -= 1
                while right < stop and classes[data[right]] & kind:
                    right += 1
                if found < runs.shape[0]:
                    runs[found, 0], runs[found, 1], runs[found, 2] = text, left, right
                found += 1
                after = right  # a run once
                break
            at = after
    return found


@kernel
def _maybe_email(data: np.ndarray, start: int, at: int, stop: int, classes: np.ndarray) -> bool:
    """Whether the @ at `at` stands between what ends a local part and what begins a label."""
    return start < at < stop - 1 and classes[data[at - 1]] & _LOCAL != 0 and classes[data[at + 1]] & _ALNUM != 0


@kernel
def _maybe_address(data: np.ndarray, start: int, at: int, stop: int) -> bool:
    """Whether the dot at `at` is the first of three between numbers of up to three digits."""
    if at == start or not _is_digit(data[at - 1]):
        return False
    for _ in range(2):
        first = at + 1
        at = first
        while at < stop and at - first < 4 and _is_digit(data[at]):
            at += 1
        if not 1 <= at - first <= 3 or at == stop or data[at] != _DOT:
            return False
    return at + 1 < stop and _is_digit(data[at + 1])


@kernel
def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57
