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
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from quality.text import ALL, U0, U1, U63, block, buffers, kernel, mask_digits, mask_equal, string_array, trailing_zeros

EMAIL, ADDRESS = "email@example.com", "192.0.2.1"
_EMAIL_MASK, _ADDRESS_MASK = EMAIL.encode(), ADDRESS.encode()
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
    data, offsets = buffers(texts)
    emails, addresses = (np.bincount(_texts_of(places, offsets), minlength=len(texts)) for places in _found(data, offsets))
    return emails.astype(np.int32), addresses.astype(np.int32)


def mask(texts: pa.Array) -> pa.Array:
    """The texts (large_string [n]) with every address replaced by its mask."""
    data, offsets = buffers(texts)
    emails, addresses = _found(data, offsets)
    if not len(emails) and not len(addresses):
        return texts
    places = np.concatenate([emails, addresses])
    order = np.argsort(places[:, 0], kind="stable")
    pieces = []
    first = int(offsets[0])
    whole, at, longer = data[first : int(offsets[-1])].tobytes(), 0, np.zeros(len(places), np.int64)
    for number, (start, stop) in zip(order.tolist(), (places[order] - first).tolist(), strict=True):
        if start >= at:  # else an IP address within an e-mail address
            sign = _EMAIL_MASK if number < len(emails) else _ADDRESS_MASK
            pieces += [whole[at:start], sign]
            longer[number] = len(sign) - (stop - start)
            at = stop
    pieces.append(whole[at:])
    grown = np.bincount(_texts_of(places, offsets) + 1, weights=longer, minlength=len(offsets)).astype(np.int64)
    return string_array(np.frombuffer(b"".join(pieces), np.uint8), offsets - first + np.cumsum(grown))


def masked(text: str) -> str:
    """One text with every address replaced by its mask: `mask` in plain Python."""
    text = _EMAIL.sub(EMAIL, text)
    return _ADDRESS.sub(lambda match: ADDRESS if _public(match[0]) else match[0], text)


def _public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


def _found(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(e-mail addresses, public IPv4 addresses) of texts: int64 [found, 2], where each begins and ends in `data`, in order."""
    emails, addresses = _runs(data, offsets)
    return (
        _matches(_EMAIL, data, emails, lambda found: found != EMAIL),
        _matches(_ADDRESS, data, addresses, _public),
    )


def _matches(pattern: re.Pattern[str], data: np.ndarray, runs: np.ndarray, counts: Callable[[str], bool]) -> np.ndarray:
    """int64 [found, 2]: where in `data` the matches that count begin and end, of a pattern in runs (int64 [k, 2]).

    An address lies in one run, and what the patterns ask of the characters beside it a line feed fulfils as a run's neighbours do:
    the runs, a line each, have the addresses that they have in their texts.
    """
    whole = data.data
    lines = b"\n".join([whole[start:stop] for start, stop in runs.tolist()]).decode("ascii")
    places = [match.span() for match in pattern.finditer(lines) if counts(match[0])]
    found = np.array(places, np.int64).reshape(-1, 2)
    begins = np.cumsum([0, *(np.diff(runs)[:, 0] + 1)])
    run = np.searchsorted(begins, found[:, 0], "right") - 1
    return found + (runs[run, 0] - begins[run])[:, None]


def _texts_of(places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 [found]: the numbers of the texts in which places (int64 [found, 2]) begin."""
    return np.searchsorted(offsets, places[:, 0], "right") - 1


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


def _runs(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [k, 2] each: the longest runs of the characters of an e-mail, an IPv4 address in which one may stand."""
    emails, addresses = np.empty((1024, 2), np.int64), np.empty((1024, 2), np.int64)
    many = _find(data, offsets, _CLASSES, np.empty(64, np.uint8), emails, addresses)
    if max(many) > len(emails):
        emails, addresses = (np.empty((number, 2), np.int64) for number in many)
        _find(data, offsets, _CLASSES, np.empty(64, np.uint8), emails, addresses)
    return emails[: many[0]], addresses[: many[1]]


@kernel
def _find(
    data: np.ndarray, offsets: np.ndarray, classes: np.ndarray, pad: np.ndarray, emails: np.ndarray, addresses: np.ndarray
) -> tuple[int, int]:
    """Writes runs to emails and addresses, int64 [k, 2], as far as there is room; returns how many there are of each."""
    source, padding = data.ctypes.data, pad.ctypes.data
    n_emails, n_addresses = 0, 0
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        after_email, after_address = start, start  # a run once
        for at in range(start, stop, 64):
            if at + 64 <= data.shape[0]:
                base, place = source, at
            else:
                block(data, at, pad)
                base, place = padding, 0
            inside = ALL >> np.uint64(64 - min(stop - at, 64))
            digits = mask_digits(base, place)
            # Dots between digits, or at an end of the block.
            dots = mask_equal(base, place, _DOT) & inside & ((digits << U1) | U1) & ((digits >> U1) | (U1 << U63))
            signs = mask_equal(base, place, _AT) & inside
            while signs != U0:
                here = at + trailing_zeros(signs)
                signs &= signs - U1
                if here >= after_email and _maybe_email(data, start, here, stop, classes):
                    after_email = _widen(data, start, here, stop, classes, _IN_EMAIL, emails, n_emails)
                    n_emails += 1
            while dots != U0:
                here = at + trailing_zeros(dots)
                dots &= dots - U1
                if here >= after_address and _maybe_address(data, start, here, stop):
                    after_address = _widen(data, start, here, stop, classes, _IN_ADDRESS, addresses, n_addresses)
                    n_addresses += 1
    return n_emails, n_addresses


@kernel
def _widen(
    data: np.ndarray, start: int, here: int, stop: int, classes: np.ndarray, kind: int, runs: np.ndarray, number: int
) -> int:
    """Writes the run of a kind around `here` to runs[number], if there is room; returns where it ends."""
    left, right = here, here + 1
    while left > start and classes[data[left - 1]] & kind:
        left -= 1
    while right < stop and classes[data[right]] & kind:
        right += 1
    if number < runs.shape[0]:
        runs[number, 0], runs[number, 1] = left, right
    return right


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
