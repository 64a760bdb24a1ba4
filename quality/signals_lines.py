"""The lines of a text, out of its bitmaps: counters, C4's judgement of each, repeated lines and paragraphs.

Lines and paragraphs are equal if their 64-bit hashes are. A paragraph's hash is that of the names of its lines, so that
its bytes are read once.
"""

from __future__ import annotations

import numpy as np

from quality.signals_masks import FEED, JAVASCRIPT, LEAD, NONSPACE, REFUSED, SENTENCE
from quality.signals_ngrams import Names, assign
from quality.signals_reference import C4_WORDS, COUNTERS, SHORT_LINE
from quality.text import ALL, U0, U1, U63, hash_bytes, kernel, leading_zeros, mix, popcount, trailing_zeros

_LINES, _LINE_CHARACTERS, _BULLET_LINES = map(COUNTERS.index, ("lines", "line_characters", "bullet_lines"))
_ELLIPSIS_LINES, _NONBLANK_LINES = map(COUNTERS.index, ("ellipsis_lines", "nonblank_lines"))
_TERMINAL_LINES, _SHORT_LINES, _LONGEST_LINE = map(COUNTERS.index, ("terminal_lines", "short_lines", "longest_line"))
_C4_LINES, _C4_SENTENCES, _JAVASCRIPT_LINES = map(COUNTERS.index, ("c4_lines", "c4_sentences", "javascript_lines"))
_BODY_LINES, _DUPLICATE_LINES = map(COUNTERS.index, ("body_lines", "duplicate_lines"))
_PARAGRAPHS, _DUPLICATE_PARAGRAPHS = map(COUNTERS.index, ("paragraphs", "duplicate_paragraphs"))
_CHARACTERS_AFTER = 1  # the characters of duplicates follow their number
assert COUNTERS[_DUPLICATE_LINES + _CHARACTERS_AFTER] == "duplicate_line_characters"
assert COUNTERS[_DUPLICATE_PARAGRAPHS + _CHARACTERS_AFTER] == "duplicate_paragraph_characters"

START, STOP, RANK, STOP_RANK = 0, 1, 2, 3  # columns of `body`: bytes from the text's start, and characters before them
BODY = 4

_OPEN, _TERMINAL, _DOTS, _ELLIPSIS = 0, 1, 2, 3  # how a line ends; three dots are a terminal mark and an ellipsis
_DASH, _DOT, _EXCLAMATION, _QUESTION, _QUOTE = map(ord, '-.!?"')
_SEED = np.uint64(0xA24BAED4963EE407)


@kernel
def count_lines(
    data: np.ndarray, start: int, masks: np.ndarray, blocks: int, body: np.ndarray, memory: Names, row: np.ndarray
) -> None:
    """Counts the lines of the text that begins at `start` into row (int64 [COUNTERS], zero).

    body: int32 [>= non-empty lines, BODY], scratch.
    """
    lines, line_characters, longest = 0, 0, 0
    nonblank, bullets, ellipses, terminals, short, c4_lines, c4_sentences, javascript_lines = 0, 0, 0, 0, 0, 0, 0, 0
    rank, before = 0, U0  # characters before the block; 1 within a word at its beginning
    # The open line: its start, its first word, what is behind its last one, and what it has so far.
    line_start, line_rank, first, first_rank, last, last_rank = start, 0, -1, 0, 0, 0
    words, sentences, javascript, refused = 0, 0, U0, U0
    # Lines in `body`, and those up to the last one with a word. (Numba compiles twice what is called with a plain 0.)
    held, kept = 0, int(np.int64(0))
    body_stop, body_rank = 0, 0
    for number in range(blocks):
        nonspace, lead, feeds = masks[number, NONSPACE], masks[number, LEAD], masks[number, FEED]
        starts = nonspace & ~((nonspace << U1) | before)
        before = nonspace >> U63
        at = start + 64 * number
        part = ALL  # what is left of the block
        while True:
            bit = np.uint64(trailing_zeros(feeds))
            upto = (U1 << bit) - U1 if feeds != U0 else ALL
            mine = part & upto
            inside = nonspace & mine
            if inside != U0:
                if first < 0:
                    first = at + trailing_zeros(inside)
                    first_rank = rank + popcount(lead & ((U1 << np.uint64(trailing_zeros(inside))) - U1))
                last = at + 64 - leading_zeros(inside)
                last_rank = rank + popcount(lead & (ALL >> np.uint64(leading_zeros(inside))))
            words += popcount(starts & mine)
            sentences += popcount(masks[number, SENTENCE] & mine)
            javascript |= masks[number, JAVASCRIPT] & mine
            refused |= masks[number, REFUSED] & mine
            if feeds == U0:
                break
            feeds &= feeds - U1
            part = ~(upto | (U1 << bit))
            stop, stop_rank = at + int(np.int64(bit)), rank + popcount(lead & upto)
            lines += 1
            line_characters += stop_rank - line_rank
            longest = max(longest, stop_rank - line_rank)
            if stop > line_start and (first >= 0 or kept > 0):
                from_word = kept == 0
                body[held, START] = (first if from_word else line_start) - start
                body[held, RANK] = first_rank if from_word else line_rank
                body[held, STOP], body[held, STOP_RANK] = stop - start, stop_rank
                held += 1
            if first >= 0:
                kept, body_stop, body_rank = held, last - start, last_rank
                ending = _ending(data, first, last)
                nonblank += 1
                bullets += _is_bullet(data, first)
                ellipses += ending >= _DOTS
                terminals += ending in (_TERMINAL, _DOTS)
                short += last_rank - first_rank < SHORT_LINE
                javascript_lines += javascript != U0
                if ending == _TERMINAL and words >= C4_WORDS and javascript | refused == U0:
                    c4_lines += 1
                    c4_sentences += sentences + 1
                    if last < stop:  # blanks follow: the end of the last word was counted with the others
                        c4_sentences -= np.int64((masks[body_stop >> 6, SENTENCE] >> np.uint64(body_stop & 63)) & U1)
            line_start, line_rank = stop + 1, stop_rank + 1
            first, words, sentences, javascript, refused = -1, 0, 0, U0, U0
        rank += popcount(lead)
    row[_LINES], row[_LINE_CHARACTERS], row[_LONGEST_LINE] = lines, line_characters, longest
    row[_NONBLANK_LINES], row[_BULLET_LINES], row[_ELLIPSIS_LINES] = nonblank, bullets, ellipses
    row[_TERMINAL_LINES], row[_SHORT_LINES], row[_JAVASCRIPT_LINES] = terminals, short, javascript_lines
    row[_C4_LINES], row[_C4_SENTENCES] = c4_lines, c4_sentences
    if kept > 0:
        body[kept - 1, STOP], body[kept - 1, STOP_RANK] = body_stop, body_rank
    _count_repeats(data, start, body, kept, memory, row)


@kernel
def _is_bullet(data: np.ndarray, at: int) -> bool:
    """Whether the character at `at` is - or U+2022."""
    if data[at] == 0xE2:
        return data[at + 1] == 0x80 and data[at + 2] == 0xA2
    return data[at] == _DASH


@kernel
def _ending(data: np.ndarray, first: int, last: int) -> int:
    """How the stripped line data[first:last] ends."""
    byte = data[last - 1]
    if byte == _DOT:
        three = last - first >= 3 and data[last - 2] == _DOT and data[last - 3] == _DOT
        return _DOTS if three else _TERMINAL
    if byte in (_QUESTION, _EXCLAMATION, _QUOTE):
        return _TERMINAL
    if byte >= 0x80 and data[last - 2] == 0x80 and data[last - 3] == 0xE2:  # in valid UTF-8 there are three bytes if so
        if byte == 0x9D:
            return _TERMINAL
        if byte == 0xA6:
            return _ELLIPSIS
    return _OPEN


@kernel
def _count_repeats(data: np.ndarray, start: int, body: np.ndarray, lines: int, memory: Names, row: np.ndarray) -> None:
    """Counts the lines and paragraphs of body[:lines], and those that stood before."""
    keys, names, sizes, counts, firsts, slots, state = memory
    row[_BODY_LINES] = lines
    row[_PARAGRAPHS] = min(lines, 1)
    if lines < 2:
        return
    for line in range(lines):
        keys[line] = hash_bytes(data, start + body[line, START], start + body[line, STOP], _SEED)
    assign(keys, lines, slots, state, names, counts, firsts)
    paragraphs, begin, key = int(np.int64(0)), 0, _SEED
    for line in range(lines):
        if firsts[names[line]] != line:
            row[_DUPLICATE_LINES] += 1
            row[_DUPLICATE_LINES + _CHARACTERS_AFTER] += body[line, STOP_RANK] - body[line, RANK]
        key = mix(key, np.uint64(names[line]))
        if line + 1 == lines or body[line + 1, START] > body[line, STOP] + 1:
            keys[paragraphs], sizes[paragraphs] = key, body[line, STOP_RANK] - body[begin, RANK]
            paragraphs += 1
            begin, key = line + 1, _SEED
    row[_PARAGRAPHS] = paragraphs
    assign(keys, paragraphs, slots, state, names, counts, firsts)
    for paragraph in range(paragraphs):
        if firsts[names[paragraph]] != paragraph:
            row[_DUPLICATE_PARAGRAPHS] += 1
            row[_DUPLICATE_PARAGRAPHS + _CHARACTERS_AFTER] += sizes[paragraph]
