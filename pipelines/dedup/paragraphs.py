r"""Paragraph deduplication as in CCNet (Wenzek et al. 2020; LLaMA's Common Crawl): a paragraph is a line, cut at "\n".

Two paragraphs are the same when their 64-bit hashes of a loose form are: lower case, digits to 0, punctuation and
accents removed, as the paper says. Here the form is made character by character (`characters.fold_character`), so
that a table and a kernel can do it; a run of white space counts as one space, none at the ends. A line of which
nothing is left has hash 0 and is never dropped. docs/normalisation.md is the specification.

Departures: CCNet's published code keeps accents and ASCII punctuation and removes a list of 34 marks and control
characters; it hashes with SHA-1 and takes blank lines for copies of each other. It drops every copy in its two-pass
form; which copies go is not this module's business, `without` takes out what it is told.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from pipelines.dedup.characters import DROPPED, encode, fold_character, fold_table
from quality.text import (
    U0,
    U1,
    buffers,
    decode,
    equal_within,
    hash_bytes,
    hash_bytes_reference,
    kernel,
    popcount,
    string_array,
    trailing_zeros,
)

NEVER_DROPPED = 0  # the hash of a line that has neither letter, number nor symbol

_SEED = np.uint64(0x77696E6E6F772070)
_LF, _SPACE = 10, 32


def paragraph_table(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(hashes list<uint64>, lengths list<int32>) of a string array: an entry a line; a text has at least one.

    Lengths are the line's UTF-8 bytes as it stands in the text, without its newline.
    """
    data, offsets = buffers(texts)
    pad = np.empty(64, np.uint8)
    starts = np.empty(len(texts) + 1, np.int64)
    longest = _count_lines(data, offsets, pad, starts)
    if starts[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{int(starts[-1])} lines are too many for one array: give fewer texts at a time")
    hashes = np.empty(int(starts[-1]), np.uint64)
    lengths = np.empty(int(starts[-1]), np.int32)
    _hash_lines(data, offsets, fold_table(), np.empty(2 * longest + 8, np.uint8), hashes, lengths)
    lists = pa.array(starts.astype(np.int32))
    return pa.ListArray.from_arrays(lists, pa.array(hashes)), pa.ListArray.from_arrays(lists, pa.array(lengths))


def paragraph_hash_reference(line: str) -> int:
    """The hash of one line in plain Python."""
    folded = "".join(fold_character(character) for character in line)
    key = " ".join(word for word in folded.split(" ") if word).encode()
    return hash_bytes_reference(key, int(_SEED)) if key else NEVER_DROPPED


def without(texts: pa.Array, dropped: pa.Array) -> pa.Array:
    """The texts (large_string) without the lines that `dropped` (list<int32>) numbers, and without their newlines.

    A text that loses lines loses the blank ones, too, that then stand at its beginning or end: what is left is normalised text.
    Numbers count from 0 and ascend; a null list drops nothing. ValueError names the text whose list does not fit it.
    """
    data, offsets = buffers(texts)
    first = dropped.offsets.to_numpy().astype(np.int64)
    counts = np.diff(first) * dropped.is_valid().to_numpy(zero_copy_only=False)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    out_offsets = np.zeros(len(texts) + 1, np.int64)
    numbers = dropped.values.to_numpy()
    wrong = _leave_out(data, offsets, numbers, first, counts, np.empty(64, np.uint8), out, out_offsets)
    if wrong >= 0:
        raise ValueError(f"text {wrong}: paragraphs to drop {dropped[wrong].as_py()} do not ascend within its lines")
    return string_array(out, out_offsets)


def without_reference(text: str, dropped: Collection[int]) -> str:
    """`without` of one text in plain Python."""
    left = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in dropped)
    return left.strip("\n") if dropped else text


# -- kernels -----------------------------------------------------------------------------------------------------------


@kernel
def _count_lines(data: np.ndarray, offsets: np.ndarray, pad: np.ndarray, starts: np.ndarray) -> int:
    """starts[d] is the number of lines before text d; answers with the bytes of the longest line."""
    longest = 0
    starts[0] = 0
    for document in range(offsets.shape[0] - 1):
        stop = offsets[document + 1]
        line = offsets[document]
        lines = 1
        for at in range(offsets[document], stop, 64):
            feeds = equal_within(data, at, stop, _LF, pad)
            if feeds != U0:
                lines += popcount(feeds)
                longest = max(longest, at + trailing_zeros(feeds) - line)
                while feeds & (feeds - U1) != U0:
                    feeds &= feeds - U1  # what lies between two newlines of a block is shorter than 64 bytes
                line = at + trailing_zeros(feeds) + 1
        longest = max(longest, stop - line)
        starts[document + 1] = starts[document] + lines
    return max(longest, 64)


@kernel
def _hash_lines(
    data: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    folded: np.ndarray,
    hashes: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Fills hashes and lengths; `folded` has room for twice the longest line."""
    line = 0
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        while True:
            start = at
            size = 0
            last = _SPACE  # leading white space is not written
            while at < stop and data[at] != _LF:
                if data[at] < 0x80:
                    code = table[data[at]]
                    folded[size] = code  # written in any case: counting it or not is cheaper than a branch
                    size += (code != DROPPED) & ((code != _SPACE) | (last != _SPACE))
                    last = last if code == DROPPED else code
                    at += 1
                else:
                    character, width = decode(data, at)
                    at += width
                    code = table[character]
                    if code != DROPPED and not (code == _SPACE and last == _SPACE):
                        size += encode(code, folded, size)
                        last = code
            if size > 0 and last == _SPACE:
                size -= 1
            hashes[line] = hash_bytes(folded, 0, size, _SEED) if size > 0 else np.uint64(NEVER_DROPPED)
            lengths[line] = at - start
            line += 1
            if at >= stop:
                break
            at += 1


@kernel
def _leave_out(
    data: np.ndarray,
    offsets: np.ndarray,
    dropped: np.ndarray,
    first: np.ndarray,
    counts: np.ndarray,
    pad: np.ndarray,
    out: np.ndarray,
    out_offsets: np.ndarray,
) -> int:
    """Copies text d without dropped[first[d] : first[d] + counts[d]]; answers with a text whose list is bad, or -1."""
    written = 0
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        mark, marks_end = first[document], first[document] + counts[document]
        if mark == marks_end:
            out[written : written + stop - at] = data[at:stop]
            written += stop - at
            out_offsets[document + 1] = written
            continue
        line, kept = 0, False
        while True:
            end = _line_end(data, at, stop, pad)
            if mark < marks_end and dropped[mark] == line:
                mark += 1
            elif kept or end > at:
                if kept:
                    out[written] = _LF
                    written += 1
                out[written : written + end - at] = data[at:end]
                written += end - at
                kept = True
            line += 1
            if end >= stop:
                break
            at = end + 1
        if mark < marks_end:
            return document
        while written > out_offsets[document] and out[written - 1] == _LF:
            written -= 1
        out_offsets[document + 1] = written
    return -1


@kernel
def _line_end(data: np.ndarray, at: int, stop: int, pad: np.ndarray) -> int:
    """Where the line at `at` ends: its newline, or `stop`."""
    while at < stop:
        feeds = equal_within(data, at, stop, _LF, pad)
        if feeds != U0:
            return at + trailing_zeros(feeds)
        at += 64
    return stop
