"""One pass over the bytes of a text: bitmaps for what comes after, and the counters that bitmaps alone give.

A bitmap has one bit a byte; the six masks of a block of 64 bytes stand side by side. The bit after the last byte of the
text is a line feed, so that every word and every line ends within the bitmaps. ASCII comes from vector comparisons;
other characters are looked up one by one and patched in, with what reaches beyond the block carried into the next.

`str.lower()` maps one non-ASCII character to ASCII alone, KELVIN SIGN to k, and U+0130 to an i and a dot above, which
no phrase that is looked for has; so phrases are matched with ASCII folding and that one exception.
"""

from __future__ import annotations

import numpy as np

from quality.signals_reference import COUNTERS, POLICY
from quality.text import (
    ALL,
    ALPHA,
    NUMERIC,
    SPACE,
    U0,
    U1,
    block,
    decode,
    kernel,
    mask_continuation,
    mask_digits,
    mask_equal,
    mask_equal_folded,
    mask_high,
    mask_letters,
    mask_split_space,
    popcount,
    trailing_zeros,
)

# The masks of a block.
NONSPACE = 0  # bytes of words
LEAD = 1  # first bytes of characters
FEED = 2  # line feeds, and the end of the text
SENTENCE = 3  # the byte after a word that ends a sentence
JAVASCRIPT = 4  # where the word begins
REFUSED = 5  # within what makes C4 refuse the line: a policy notice; `signals_words` adds the words that are too long
BITMAPS = 6

_CHARACTERS, _WORDS, _WORD_CHARACTERS = map(COUNTERS.index, ("characters", "words", "word_characters"))
_ALPHABETIC_WORDS, _HASHES, _ELLIPSES = map(COUNTERS.index, ("alphabetic_words", "hashes", "ellipses"))
_ALPHANUMERICS, _DIGITS = map(COUNTERS.index, ("alphanumerics", "digits"))
_LOREM_IPSUM, _CURLY_BRACKETS = map(COUNTERS.index, ("lorem_ipsum", "curly_brackets"))

_SPACE, _QUOTE, _EXCLAMATION, _HASH, _DOT, _QUESTION, _CURLY = map(ord, ' "!#.?{')
_A, _C, _F, _J, _K, _L, _O, _P, _R, _U, _Y = map(ord, "acfjklopruy")
_ELLIPSIS, _RIGHT_QUOTE = 0x2026, 0x201D
_KELVIN = np.frombuffer("\u212a".encode(), np.uint8)
# The last one and two bits: of what stands there, what follows is in the next block, so it may match.
_LAST, _LAST_TWO = np.uint64(1 << 63), np.uint64(3 << 62)
_U2, _U4, _U60, _U62, _U63 = (np.uint64(n) for n in (2, 4, 60, 62, 63))

# What is looked for, and where in it: at three letters that are rare and stand before any k, whose width varies.
_PHRASES = dict(zip(("javascript", "lorem ipsum", *POLICY), ("jav", "lor", "f u", "y p", *["cookie"] * 4), strict=True))
_LETTERS = np.array([list(phrase.encode().ljust(16, b"\0")) for phrase in _PHRASES], np.uint8)
_NOTICED = np.array([phrase.index(letters) for phrase, letters in _PHRASES.items()])
_JAVASCRIPT, _LOREM = 0, 1


@kernel
def mark(
    data: np.ndarray, start: int, stop: int, classes: np.ndarray, pad: np.ndarray, masks: np.ndarray, row: np.ndarray
) -> int:
    """Writes the bitmaps of the text data[start:stop] (valid UTF-8), and the counters of this module into `row`.

    classes: of `python_classes`. pad: uint8 [64], scratch. masks: uint64 [>= (stop - start) // 64 + 1, BITMAPS].
    row: int64 [COUNTERS]. Returns the number of blocks.
    """
    base, pad_base = data.ctypes.data, pad.ctypes.data
    blocks = (stop - start) // 64 + 1
    characters, words, word_characters, alphabetic_words = 0, 0, 0, 0
    hashes, ellipses, alphanumerics, digit_count, lorem_ipsum, curly_brackets = 0, 0, 0, 0, 0, 0
    # What is carried from a block into the next: the whole of some masks, one bit of others, bytes of a cut character.
    marks_before, quotes_before, right_quotes_before = U0, U0, U0
    nonspace_before, letter_in_word, dot_before = U0, U0, U0
    letters_ahead, white_ahead, right_quotes_ahead = U0, U0, U0
    for number in range(blocks):
        at = start + 64 * number
        left = stop - at
        source, offset = base, at
        if at + 64 > data.shape[0]:
            block(data, at, pad)
            source, offset = pad_base, 0
        inside = ALL if left >= 64 else (U1 << np.uint64(left)) - U1
        letters = mask_letters(source, offset) & inside
        digits = mask_digits(source, offset) & inside
        white = mask_split_space(source, offset) & inside
        dots = mask_equal(source, offset, _DOT) & inside
        alphanumerics += popcount(letters | digits)
        lead, right_quotes = inside, U0
        high = mask_high(source, offset) & inside
        if high != U0:
            lead = inside & ~mask_continuation(source, offset)
            letters, white, right_quotes = letters | letters_ahead, white | white_ahead, right_quotes_ahead
            more, letters_ahead, white_ahead, right_quotes_ahead = _patch(data, at, high & lead, classes)
            letters, white, right_quotes = letters | more[0], white | more[1], right_quotes | more[2]
            alphanumerics += more[3]
            ellipses += more[4]
        nonspace = inside & ~white

        shifted = (nonspace << U1) | nonspace_before
        ends = ~nonspace & shifted
        nonspace_before = nonspace >> _U63
        characters += popcount(lead)
        words += popcount(ends)
        word_characters += popcount(lead & nonspace)
        # Adding letters to a run of ones carries out of the run exactly when there is a letter in it.
        plain = nonspace + letters
        carried = plain + letter_in_word
        alphabetic_words += popcount(carried & ~nonspace)
        letter_in_word = np.uint64(plain < letters) | np.uint64(carried < plain)

        hashes += popcount(mask_equal(source, offset, _HASH) & inside)
        curly_brackets += popcount(mask_equal(source, offset, _CURLY) & inside)
        digit_count += popcount(digits)
        runs = dots & ~((dots << U1) | dot_before) & ((dots >> U1) | _LAST)
        dot_before = dots >> _U63
        while runs != U0:
            ellipses += _run_of_dots(data, at + trailing_zeros(runs), stop) // 3
            runs &= runs - U1

        # A word ends a sentence if a mark stands before its end, or a mark and then a quote.
        marks = dots | ((mask_equal(source, offset, _QUESTION) | mask_equal(source, offset, _EXCLAMATION)) & inside)
        quotes = mask_equal(source, offset, _QUOTE) & inside
        before = (marks << U1) | (marks_before >> _U63)
        before |= ((quotes << U1) | (quotes_before >> _U63)) & ((marks << _U2) | (marks_before >> _U62))
        before |= ((right_quotes << U1) | (right_quotes_before >> _U63)) & ((marks << _U4) | (marks_before >> _U60))
        marks_before, quotes_before, right_quotes_before = marks, quotes, right_quotes

        feeds = mask_equal(source, offset, 10) & inside
        if left < 64:
            feeds |= U1 << np.uint64(left)
        javascript, refused = U0, U0
        found = _noticed(source, offset) & inside
        while found != U0:
            bit = np.uint64(trailing_zeros(found))
            found &= found - U1
            phrase = _phrase_at(data, at + np.int64(bit), start, stop)
            if phrase == _JAVASCRIPT:
                javascript |= U1 << bit
            elif phrase == _LOREM:
                lorem_ipsum = 1
            elif phrase > _LOREM:
                refused |= U1 << bit

        found_here = masks[number]
        found_here[NONSPACE] = nonspace
        found_here[LEAD] = lead
        found_here[FEED] = feeds
        found_here[SENTENCE] = ends & before
        found_here[JAVASCRIPT] = javascript
        found_here[REFUSED] = refused
    row[_CHARACTERS], row[_WORDS], row[_WORD_CHARACTERS] = characters, words, word_characters
    row[_ALPHABETIC_WORDS], row[_HASHES], row[_ELLIPSES] = alphabetic_words, hashes, ellipses
    row[_ALPHANUMERICS], row[_DIGITS] = alphanumerics, digit_count
    row[_LOREM_IPSUM], row[_CURLY_BRACKETS] = lorem_ipsum, curly_brackets
    return blocks


@kernel
def _patch(
    data: np.ndarray, at: int, leads: np.uint64, classes: np.ndarray
) -> tuple[tuple[np.uint64, np.uint64, np.uint64, int, int], np.uint64, np.uint64, np.uint64]:
    """What the non-ASCII characters that begin at `leads` of the block at `at` are.

    (masks of letters, white space and the last bytes of right double quotes, numbers of alphanumerics and ellipses),
    and the bits of the three masks in the next block.
    """
    letters, white, right_quotes = U0, U0, U0
    letters_ahead, white_ahead, right_quotes_ahead = U0, U0, U0
    alphanumerics, ellipses = 0, 0
    while leads != U0:
        bit = trailing_zeros(leads)
        leads &= leads - U1
        code, width = decode(data, at + bit)
        kind = classes[code]
        if kind == 0:
            if code == _ELLIPSIS:
                ellipses += 1
            elif code == _RIGHT_QUOTE:
                if bit < 62:
                    right_quotes |= U1 << np.uint64(bit + 2)
                else:
                    right_quotes_ahead = U1 << np.uint64(bit - 62)
        elif kind == NUMERIC:
            alphanumerics += 1
        else:
            bits = (U1 << np.uint64(width)) - U1
            beyond = bits >> np.uint64(64 - bit) if bit > 60 else U0
            bits <<= np.uint64(bit)
            if kind == ALPHA:
                alphanumerics += 1
                letters |= bits
                letters_ahead = beyond
            elif kind == SPACE:
                white |= bits
                white_ahead = beyond
    return (letters, white, right_quotes, alphanumerics, ellipses), letters_ahead, white_ahead, right_quotes_ahead


@kernel
def _run_of_dots(data: np.ndarray, at: int, stop: int) -> int:
    size = 0
    while at + size < stop and data[at + size] == _DOT:
        size += 1
    return size


@kernel
def _noticed(base: int, at: int) -> np.uint64:
    """Where one of the phrases may be; what follows the block counts as fitting."""
    o = mask_equal_folded(base, at, _O)
    a = mask_equal_folded(base, at, _A)
    gap = (mask_equal(base, at, _SPACE) >> U1) | _LAST
    o_next = (o >> U1) | _LAST
    found = mask_equal_folded(base, at, _J) & ((a >> U1) | _LAST)
    found |= mask_equal_folded(base, at, _L) & o_next & ((mask_equal_folded(base, at, _R) >> _U2) | _LAST_TWO)
    found |= mask_equal_folded(base, at, _C) & o_next & ((o >> _U2) | _LAST_TWO)
    found |= mask_equal_folded(base, at, _F) & gap & ((mask_equal_folded(base, at, _U) >> _U2) | _LAST_TWO)
    found |= mask_equal_folded(base, at, _Y) & gap & ((mask_equal_folded(base, at, _P) >> _U2) | _LAST_TWO)
    return found


@kernel
def _phrase_at(data: np.ndarray, at: int, start: int, stop: int) -> int:
    """The number of the phrase whose three letters are at `at` of data[start:stop], or -1."""
    for number in range(_NOTICED.shape[0]):
        place = at - _NOTICED[number]
        if place >= start and _matches(data, place, stop, number):
            return number
    return -1


@kernel
def _matches(data: np.ndarray, at: int, stop: int, number: int) -> bool:
    """Whether the text data[at:stop] begins with the phrase, in lower case."""
    for i in range(_LETTERS.shape[1]):
        letter = _LETTERS[number, i]
        if letter == 0:
            return True
        if at < stop and (data[at] == letter or (letter != _SPACE and data[at] | 0x20 == letter)):
            at += 1
        elif letter == _K and at + 3 <= stop and data[at] == _KELVIN[0] and data[at + 1] == _KELVIN[1]:
            if data[at + 2] != _KELVIN[2]:
                return False
            at += 3
        else:
            return False
    return True
