r"""The form in which a text is kept: one Unicode form, one line end, no control characters, no trailing blanks.

Two forms. `prose` is for text that people read:
  1. removed: NUL and the other control characters (C0 and C1 without tab, line feed, carriage return and U+0085; DEL),
     and U+FEFF wherever it stands (a byte order mark; files joined end to end leave it in the middle);
  2. line ends become \n: CRLF, lone CR, U+0085, U+2028, U+2029; CRs before an LF are one line end with it, since
     \r\r\n is what a CRLF text turns into when it is written in text mode once more;
  3. trailing blanks of every line go (space, tab, Unicode's Zs), and so do blank lines at the beginning and the end;
     runs of blank lines in between stay, as in CCNet and LLaMA: they part stanzas and sections;
  4. Unicode NFC, last, because what stood between two characters may just have gone.
`verbatim` is for code and LaTeX, where every blank counts: NUL is removed, CRs before an LF go, and that is all.

Both are idempotent. What is not repaired: wrong encodings, HTML entities, other invisible characters (a zero-width
joiner carries meaning in Persian, in Indic scripts and in emoji). docs/normalisation.md is the specification.

A kernel cleans the UTF-8 of a batch: blocks of 64 bytes with nothing to do are copied as they are. `unicodedata` is
asked about texts with non-ASCII characters only, and composes only those that are not in NFC. It sorts marks by insertion,
so runs of more than Unicode's Stream-Safe bound are sorted before, which changes nothing that comes out: no text holds up a run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa

from quality.text import (
    U0,
    U1,
    block,
    buffers,
    kernel,
    load64,
    mask_control,
    mask_equal,
    mask_high,
    store64,
    string_array,
    trailing_zeros,
)

VERSION = 1  # of docs/normalisation.md as a whole: normalised text, paragraph hash, MinHash signature

Form = Literal["prose", "verbatim"]

_TAB, _LF, _CR, _SPACE = 9, 10, 13, 32
_HIGH_BITS = np.uint64(0x8080808080808080)
_MOST_MARKS = 30  # in a row: the Stream-Safe Text Format of UAX 15; no real text has more
_PAD = 64  # bytes that a copy may write past its end


def normalise(texts: Sequence[str], form: Form) -> pa.Array:
    """The texts in their normalised form: large_string, no nulls, one for one.

    ValueError names the index of a text with a lone surrogate, which has no UTF-8: readers reject such records.
    """
    data, offsets = buffers(_encoded(texts))
    out = np.empty(int(offsets[-1] - offsets[0]) + _PAD, np.uint8)
    out_offsets = np.empty(len(texts) + 1, np.int64)
    _clean(data, offsets, form == "verbatim", np.empty(64, np.uint8), out, out_offsets)
    cleaned = string_array(out, out_offsets)
    return cleaned if form == "verbatim" else _composed(cleaned, texts)


def normalise_reference(text: str, form: Form) -> str:
    """`normalise` of one text in plain Python."""
    if form == "verbatim":
        return re.sub("\r+\n", "\n", text.replace("\0", ""))
    text = re.sub("\r+\n", "\n", text.translate(_REMOVED))
    lines = [line.rstrip(_BLANKS) for line in re.split("[\n\r\x85\u2028\u2029]", text)]
    return unicodedata.normalize("NFC", "\n".join(lines).strip("\n"))


_REMOVED = {code: None for code in (*range(0x20), *range(0x7F, 0xA0), 0xFEFF) if chr(code) not in "\t\n\r\x85"}
_BLANKS = "\t \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def _encoded(texts: Sequence[str]) -> pa.Array:
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError as error:
        for index, text in enumerate(texts):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"text {index} holds a lone surrogate: reject it before normalising") from error
        raise


def _composed(cleaned: pa.Array, texts: Sequence[str]) -> pa.Array:
    """`cleaned` with every text in NFC; `texts`, which it was made from, know at once whether they are ASCII."""
    data, offsets = buffers(cleaned)
    whole = data.data
    pieces: list[bytes | memoryview] = []
    lengths = np.diff(offsets)
    copied = 0
    for index, text in enumerate(texts):
        if text.isascii():
            continue
        start, stop = int(offsets[index]), int(offsets[index + 1])
        kept = str(whole[start:stop], "utf-8")
        if _has_many_marks(data, start, stop, _marks()):
            text = unicodedata.normalize("NFC", _sorted_marks(kept))
            if text == kept:
                continue
        elif unicodedata.is_normalized("NFC", kept):
            continue
        else:
            text = unicodedata.normalize("NFC", kept)
        composed = text.encode()
        pieces += [whole[copied:start], composed]
        lengths[index] = len(composed)
        copied = stop
    if not pieces:
        return cleaned
    pieces.append(whole[copied : int(offsets[-1])])
    moved = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=moved[1:])
    return string_array(np.frombuffer(b"".join(pieces), np.uint8), moved)


@cache
def _marks() -> np.ndarray:
    """Whether a character is a combining mark, or three of Tibetan that stand for two of them each, by its code point."""
    marks = np.fromiter((unicodedata.combining(chr(code)) > 0 for code in range(0x20000)), np.bool_)
    marks[[0x0F73, 0x0F75, 0x0F81]] = True
    return marks


def _sorted_marks(text: str) -> str:
    """The text with its long runs of combining marks in the canonical order, in which they are what they were."""
    run = re.compile(f"[{''.join(map(chr, np.flatnonzero(_marks())))}]{{{_MOST_MARKS + 1},}}")

    def in_order(found: re.Match[str]) -> str:
        return "".join(sorted("".join(unicodedata.normalize("NFD", mark) for mark in found[0]), key=unicodedata.combining))

    return run.sub(in_order, text)


# -- kernel ------------------------------------------------------------------------------------------------------------


@kernel
def _has_many_marks(data: np.ndarray, start: int, stop: int, marks: np.ndarray) -> bool:
    """Whether more than `_MOST_MARKS` combining marks follow each other."""
    at, run = start, 0
    while at < stop:
        first = data[at]
        if first < 0x80:
            run = 0
            at += 1
            while at + 8 <= stop and load64(data.ctypes.data, at) & _HIGH_BITS == U0:
                at += 8
            continue
        if first < 0xE0:
            code, width = (first & 0x1F) << 6 | (data[at + 1] & 0x3F), 2
        elif first < 0xF0:
            code, width = (first & 0x0F) << 12 | (data[at + 1] & 0x3F) << 6 | (data[at + 2] & 0x3F), 3
        else:
            code = (first & 0x07) << 18 | (data[at + 1] & 0x3F) << 12 | (data[at + 2] & 0x3F) << 6 | (data[at + 3] & 0x3F)
            width = 4
        run = run + 1 if code < marks.shape[0] and marks[code] else 0
        if run > _MOST_MARKS:
            return True
        at += width
    return False


@kernel
def _clean(
    data: np.ndarray, offsets: np.ndarray, verbatim: bool, pad: np.ndarray, out: np.ndarray, out_offsets: np.ndarray
) -> None:
    """Steps 1 to 3 for every text; `out` has room for the input and `_PAD` bytes more."""
    written = 0
    out_offsets[0] = 0
    for document in range(offsets.shape[0] - 1):
        written = _clean_text(data, offsets[document], offsets[document + 1], verbatim, pad, out, written)
        out_offsets[document + 1] = written


@kernel
def _clean_text(
    data: np.ndarray, start: int, stop: int, verbatim: bool, pad: np.ndarray, out: np.ndarray, begin: int
) -> int:
    """Cleans data[start:stop] into `out` from `begin`; returns where it ends there."""
    written = begin
    returns = 0  # carriage returns read and not yet written: a line feed swallows them
    inside_text = verbatim  # prose: some line that is not blank has ended, so line feeds may be copied
    at = start
    while at < stop:
        if at + 64 <= data.shape[0]:
            base, place = data.ctypes.data, at
        else:
            block(data, at, pad)
            base, place = pad.ctypes.data, 0
        end = min(at + 64, stop)
        events = _events(base, place, verbatim, at == start or _needs_look(data[at - 1]), inside_text)
        if end - at < 64:
            events &= (U1 << np.uint64(end - at)) - U1
        if events == U0 and returns == 0:
            written = _copy(data, at, end, out, written)
            at = end
            continue
        done = at  # bytes before it are written or removed
        while events != U0:
            here = at + trailing_zeros(events)
            events &= events - U1
            kind, width = _kind(data, here, verbatim)
            if kind == _KEPT:
                continue
            if here > done:
                written = _write_returns(returns, verbatim, out, begin, written)
                returns = 0
                written = _copy(data, done, here, out, written)
            done = here + width
            if kind == _RETURN:
                returns += 1
            elif kind == _LINE_END:
                if data[here] != _LF:
                    written = _write_returns(returns, verbatim, out, begin, written)
                returns = 0
                written = _end_line(out, begin, written, verbatim)
                inside_text = inside_text or written > begin
        if done < end:
            written = _write_returns(returns, verbatim, out, begin, written)
            returns = 0
            written = _copy(data, done, end, out, written)
            done = end
        at = done
    if verbatim:
        return _write_returns(returns, verbatim, out, begin, written)
    written = _strip_blanks(out, begin, written)
    while written > begin and out[written - 1] == _LF:
        written = _strip_blanks(out, begin, written - 1)
    return written


@kernel
def _events(base: int, at: int, verbatim: bool, look: bool, inside_text: bool) -> np.uint64:
    """The bytes of a 64-byte block that are not simply copied; `look`: a line feed at its beginning is one of them."""
    feeds = mask_equal(base, at, _LF)
    if verbatim:
        odd = mask_equal(base, at, 0) | mask_equal(base, at, _CR)
        return odd | (feeds & ((odd << U1) | np.uint64(look)))
    blanks = mask_equal(base, at, _SPACE) | mask_equal(base, at, _TAB)
    odd = mask_control(base, at) & ~(feeds | blanks)
    high = mask_high(base, at)
    events = odd
    if inside_text:
        events |= feeds & (((odd | blanks | high) << U1) | np.uint64(look))
    else:
        events |= feeds  # they may be blank lines before the text
    if high != U0:
        events |= mask_equal(base, at, 0xC2) | mask_equal(base, at, 0xE2) | mask_equal(base, at, 0xEF)
    return events


@kernel
def _needs_look(before: int) -> bool:
    """Whether a line feed after this byte is more than a byte to copy."""
    return before != _LF and (before <= _SPACE or before >= 0x7F)


_KEPT, _GONE, _RETURN, _LINE_END = 0, 1, 2, 3


@kernel
def _kind(data: np.ndarray, at: int, verbatim: bool) -> tuple[int, int]:
    """(what becomes of the character at an event, its width in bytes)."""
    byte = data[at]
    if byte == _LF:
        return _LINE_END, 1
    if byte == _CR:
        return _RETURN, 1
    if byte < 0x80:
        return _GONE, 1
    second = data[at + 1]
    if byte == 0xC2:
        if second == 0x85:
            return _LINE_END, 2
        return (_GONE if second < 0xA0 else _KEPT), 2
    third = data[at + 2]
    if byte == 0xE2:
        return (_LINE_END if second == 0x80 and (third == 0xA8 or third == 0xA9) else _KEPT), 3
    return (_GONE if second == 0xBB and third == 0xBF else _KEPT), 3


@kernel
def _write_returns(returns: int, verbatim: bool, out: np.ndarray, begin: int, written: int) -> int:
    """Carriage returns that no line feed followed: themselves in verbatim, line ends in prose."""
    for _ in range(returns):
        if verbatim:
            out[written] = _CR
            written += 1
        else:
            written = _end_line(out, begin, written, verbatim)
    return written


@kernel
def _end_line(out: np.ndarray, begin: int, written: int, verbatim: bool) -> int:
    """Ends the line; in prose without its trailing blanks, and not at all while the text has only blank lines."""
    if not verbatim:
        written = _strip_blanks(out, begin, written)
        if written == begin:
            return written
    out[written] = _LF
    return written + 1


@kernel
def _strip_blanks(out: np.ndarray, begin: int, written: int) -> int:
    """Where the text ends without the blanks at its end: tab, space and the Zs of Unicode."""
    while written > begin:
        last = out[written - 1]
        if last == _SPACE or last == _TAB:
            written -= 1
        elif last < 0x80 or written - begin < 2:
            break
        elif out[written - 2] == 0xC2 and last == 0xA0:
            written -= 2
        elif written - begin >= 3 and _is_wide_blank(out[written - 3], out[written - 2], last):
            written -= 3
        else:
            break
    return written


@kernel
def _is_wide_blank(first: int, second: int, third: int) -> bool:
    """U+1680, U+2000 to U+200A, U+202F, U+205F, U+3000."""
    if first == 0xE2 and second == 0x80:
        return third <= 0x8A or third == 0xAF
    return (
        (first == 0xE1 and second == 0x9A and third == 0x80)
        or (first == 0xE2 and second == 0x81 and third == 0x9F)
        or (first == 0xE3 and second == 0x80 and third == 0x80)
    )


@kernel
def _copy(data: np.ndarray, start: int, stop: int, out: np.ndarray, written: int) -> int:
    """Copies data[start:stop] to out[written:], eight bytes at a time, up to seven beyond the end; returns the end."""
    source, target = data.ctypes.data, out.ctypes.data
    at = start
    while at < stop and at + 8 <= data.shape[0]:
        store64(target, written + (at - start), load64(source, at))
        at += 8
    while at < stop:
        out[written + (at - start)] = data[at]
        at += 1
    return written + (stop - start)
