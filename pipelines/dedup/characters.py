"""What the kernels of dedup know of Unicode: tables by code point, and a UTF-8 encoder beside quality.text's decoder.

Tables come from the running Python's `unicodedata` and are built once a process, in about 0.1 s each. A kernel takes
them as an argument.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator

import numpy as np

from quality.text import kernel

CODE_POINTS = 0x110000

# -- words (MinHash) ---------------------------------------------------------------------------------------------------
# An entry of `word_table` is the lower-case code point with one of these classes in the bits above it.

CLASS_SHIFT = 24
CODE_MASK = (1 << CLASS_SHIFT) - 1
GAP, PART_OF_WORD, WORD_OF_ITS_OWN = 0, 1, 2

# Scripts that are written without spaces between words, as ranges of code points, ends included.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x3035),  # kana repeat marks
    (0x3038, 0x303C),  # Hangzhou numerals, vertical iteration mark, masu mark
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),  # Bopomofo Extended
    (0x31F0, 0x31FF),  # Katakana Phonetic Extensions
    (0x3400, 0x4DBF),  # CJK Unified Ideographs Extension A
    (0x4E00, 0x9FFF),  # CJK Unified Ideographs
    (0xA9E0, 0xA9FF),  # Myanmar Extended-B
    (0xAA60, 0xAA7F),  # Myanmar Extended-A
    (0xF900, 0xFAFF),  # CJK Compatibility Ideographs
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x1AFF0, 0x1B16F),  # Kana Extended-B, Supplement, Extended-A, Small Kana Extension
    (0x20000, 0x3FFFF),  # the ideographic planes
)


@functools.cache
def word_table() -> np.ndarray:
    """int32 [0x110000]: `lower-case code point | class << CLASS_SHIFT`.

    Letters, marks and numbers (categories L, M, N) are PART_OF_WORD, or WORD_OF_ITS_OWN in `UNSPACED`; the rest is GAP.
    A character whose lower case is more than one character (U+0130 alone) stays as it is.
    """
    table = np.arange(CODE_POINTS, dtype=np.int32)
    for code, category in _assigned():
        if category[0] in "LMN":
            lower = chr(code).lower()
            table[code] = (PART_OF_WORD << CLASS_SHIFT) | (ord(lower) if len(lower) == 1 else code)
    for first, last in UNSPACED:
        block = table[first : last + 1]
        block[block > CODE_MASK] += (WORD_OF_ITS_OWN - PART_OF_WORD) << CLASS_SHIFT
    table.flags.writeable = False
    return table


# -- paragraphs (CCNet) ------------------------------------------------------------------------------------------------

DROPPED = 0
_SPACE, _ZERO = 0x20, 0x30


def fold_character(character: str) -> str:
    """What a paragraph's hash sees of a character: "" (dropped), a space, "0", or its lower case without accents."""
    if character.isspace():
        return " "
    lower = character.lower()
    bare = "".join(c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c) != "Mn")
    folded = unicodedata.normalize("NFC", bare)
    if len(folded) > 1:
        folded = lower  # 14 of them: a Kannada vowel sign and musical notes
    if folded == "" or unicodedata.category(folded)[0] == "P" or unicodedata.category(folded) == "Cc":
        return ""
    return "0" if unicodedata.category(folded) == "Nd" else folded


@functools.cache
def fold_table() -> np.ndarray:
    """int32 [0x110000]: the code point of `fold_character`, or DROPPED."""
    table = np.arange(CODE_POINTS, dtype=np.int32)
    for code, category in _assigned():
        if category == "Lo" and not unicodedata.decomposition(chr(code)):
            continue  # most of Unicode: no case, no accent
        folded = fold_character(chr(code))
        table[code] = ord(folded) if folded else DROPPED
    table.flags.writeable = False
    return table


def _assigned() -> Iterator[tuple[int, str]]:
    """(code point, category) of every assigned character outside surrogates and private use."""
    for plane in (range(0x20000), range(0x20000, 0x40000), range(0xE0000, 0xE1000)):
        for code in plane:
            category = unicodedata.category(chr(code))
            if category not in ("Cn", "Cs", "Co"):
                yield code, category


# -- UTF-8 -------------------------------------------------------------------------------------------------------------


@kernel
def encode(code: int, out: np.ndarray, at: int) -> int:
    """Writes a code point as UTF-8 to `out` (uint8) at `at`; returns its width in bytes."""
    if code < 0x80:
        out[at] = code
        return 1
    if code < 0x800:
        out[at] = 0xC0 | (code >> 6)
        out[at + 1] = 0x80 | (code & 63)
        return 2
    if code < 0x10000:
        out[at] = 0xE0 | (code >> 12)
        out[at + 1] = 0x80 | ((code >> 6) & 63)
        out[at + 2] = 0x80 | (code & 63)
        return 3
    out[at] = 0xF0 | (code >> 18)
    out[at + 1] = 0x80 | ((code >> 12) & 63)
    out[at + 2] = 0x80 | ((code >> 6) & 63)
    out[at + 3] = 0x80 | (code & 63)
    return 4
