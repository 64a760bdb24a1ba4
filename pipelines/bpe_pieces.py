r"""Where the pieces of a text begin: GPT-2's pattern as shifts and ands over class masks of 64 bytes.

The pattern (Radford et al. 2019) cuts a text into pieces, and no token crosses a cut:

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

With split digits (LLaMA, Touvron et al. 2023) ` ?\p{N}+` is `\p{N}`: every digit is a piece and takes no space along.
Read as a rule for one character after the other, a piece begins

    letter, other    where the character before is of another class and is no U+0020 (which would belong to the piece)
    number           likewise; with split digits always
    white space      where the character before is none; and at the last one of a run, unless the text ends there
    contraction      after 's 't 'm 'd 're 've 'll, where the apostrophe began a piece; its letters begin none

All bytes of a character carry its class, so that comparing a mask with itself, shifted, finds the borders of runs. The
128 ASCII characters come from vector comparisons; others are looked up one by one and patched into the masks.
"""

from __future__ import annotations

import numpy as np

from pipelines.unicode_classes import LETTER, NUMBER, WHITE
from quality.text import (
    ALL,
    U0,
    U1,
    U63,
    block,
    decode,
    kernel,
    mask_continuation,
    mask_digits,
    mask_equal,
    mask_high,
    mask_letters,
    mask_regex_space,
    trailing_zeros,
)

_SPACE, _APOSTROPHE = 32, 39
_L, _D, _E, _M, _R, _S, _T, _V = 108, 100, 101, 109, 114, 115, 116, 118


@kernel
def mark_pieces(
    data: np.ndarray,
    start: int,
    stop: int,
    classes: np.ndarray,
    split_digits: bool,
    pad: np.ndarray,
    begins: np.ndarray,
) -> int:
    """Writes one bit a byte of the text data[start:stop] (valid UTF-8): set where a piece begins, and at the end.

    begins: uint64 [>= (stop - start) // 64 + 1], bit i of word w for byte 64 w + i. classes: uint8 [0x110000].
    pad: uint8 [64], scratch. Returns the number of words written.
    """
    base, pad_base = data.ctypes.data, pad.ctypes.data
    words = (stop - start) // 64 + 1
    # Bit 0: the class of the byte before the block; what a contraction of that block sets and clears in this one.
    letter_before, number_before, other_before, white_before, space_before = U0, U0, U0, U0, U0
    set_ahead, clear_ahead = U0, U0
    hanging, hanging_class = 0, 0  # bytes of a character that began in the block before
    for word in range(words):
        at = start + 64 * word
        left = stop - at
        if left == 0:
            begins[word] = U1
            break
        source, offset = base, at
        if at + 64 > data.shape[0]:
            block(data, at, pad)
            source, offset = pad_base, 0
        inside = ALL if left >= 64 else (U1 << np.uint64(left)) - U1
        letters = mask_letters(source, offset) & inside
        numbers = mask_digits(source, offset) & inside
        white = mask_regex_space(source, offset) & inside
        spaces = mask_equal(source, offset, _SPACE) & inside
        apostrophes = mask_equal(source, offset, _APOSTROPHE) & inside
        high = mask_high(source, offset) & inside
        number_begins = numbers
        ascii_white, last_white = white, U0
        if high != U0:
            more_letters, more_numbers, more_white, last_white, hanging, hanging_class = _patch(
                data, at, stop, high, hanging, hanging_class, classes
            )
            letters |= more_letters
            numbers |= more_numbers
            white |= more_white
            number_begins = numbers & ~mask_continuation(source, offset)
        others = inside & ~(letters | numbers | white)

        not_white_after = (~white & inside) >> U1
        if (ascii_white >> U63) != U0 and left > 64 and _class_at(data, at + 64, classes) != WHITE:
            not_white_after |= U1 << U63
        after_space = (spaces << U1) | space_before
        found = letters & ~((letters << U1) | letter_before) & ~after_space
        found |= others & ~((others << U1) | other_before) & ~after_space
        found |= white & ~((white << U1) | white_before)
        found |= (ascii_white & not_white_after) | last_white
        found |= number_begins if split_digits else numbers & ~((numbers << U1) | number_before) & ~after_space
        letter_before, number_before, other_before = letters >> U63, numbers >> U63, others >> U63
        white_before, space_before = white >> U63, spaces >> U63

        found = (found | set_ahead) & ~clear_ahead
        set_ahead, clear_ahead = U0, U0
        apostrophes &= found
        while apostrophes != U0:
            bit = trailing_zeros(apostrophes)
            apostrophes &= apostrophes - U1
            width = _contraction(data, at + bit, stop)
            if width > 0:
                if bit + 1 < 64:
                    found &= ~(U1 << np.uint64(bit + 1))
                else:
                    clear_ahead |= U1
                if bit + width < 64:
                    found |= U1 << np.uint64(bit + width)
                else:
                    set_ahead |= U1 << np.uint64(bit + width - 64)
        if left < 64:
            found |= U1 << np.uint64(left)
        begins[word] = found
    return words


@kernel
def _patch(
    data: np.ndarray, at: int, stop: int, high: np.uint64, hanging: int, hanging_class: int, classes: np.ndarray
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64, int, int]:
    """Classes of the non-ASCII characters (`high`) of the block at `at`: masks of letters, numbers and white space, of
    first bytes of white space that is the last of its run and not of the text, and what hangs over into the next block.
    """
    letters, numbers, white, last_white = U0, U0, U0, U0
    bit, width, value = 0, hanging, hanging_class
    while True:
        reach = bit + width if bit + width < 64 else 64
        if width > 0:
            bits = (ALL >> np.uint64(64 - (reach - bit))) << np.uint64(bit)
            high &= ~bits
            if value == LETTER:
                letters |= bits
            elif value == NUMBER:
                numbers |= bits
            elif value == WHITE:
                white |= bits
        if high == U0:
            return letters, numbers, white, last_white, bit + width - reach, value
        bit = trailing_zeros(high)
        code, width = decode(data, at + bit)
        value = int(np.int64(classes[code]))
        if value == WHITE:
            after = at + bit + width
            if after < stop and _class_at(data, after, classes) != WHITE:
                last_white |= U1 << np.uint64(bit)


@kernel
def _class_at(data: np.ndarray, at: int, classes: np.ndarray) -> int:
    """Class of the character that begins at `at`."""
    code, _ = decode(data, at)
    return int(np.int64(classes[code]))


@kernel
def _contraction(data: np.ndarray, at: int, stop: int) -> int:
    """Bytes of the contraction that begins with the apostrophe at `at`, or 0."""
    if at + 1 >= stop:
        return 0
    first = np.int64(data[at + 1])
    if first in (_S, _T, _M, _D):
        return 2
    if at + 2 < stop:
        second = np.int64(data[at + 2])
        if (first == _L and second == _L) or (first in (_V, _R) and second == _E):
            return 3
    return 0
