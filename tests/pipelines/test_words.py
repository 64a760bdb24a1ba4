"""pipelines.dedup.words: what a word is, against examples and Unicode's character names (kernels: test_minhash)."""

import unicodedata

import pytest

from pipelines.dedup.characters import CLASS_SHIFT, CODE_MASK, GAP, PART_OF_WORD, WORD_OF_ITS_OWN, word_table
from pipelines.dedup.words import words_reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World-wide 3.14 snake_case", ["hello", "world", "wide", "3", "14", "snake", "case"]),
        ("ÉCOLE école e\u0301", ["école", "école", "e\u0301"]),
        ("東京タワー2号 and ﾊﾝ", ["東", "京", "タ", "ワ", "ー", "2", "号", "and", "ﾊ", "ﾝ"]),
        ("กิน ພາສາ ខ្មែរ", list("กินພາສາខ្មែរ")),
        ("한국어 문장", ["한국어", "문장"]),
        ("ΣΊΣΥΦΟΣ İ", ["σίσυφοσ", "İ"]),
        ("—…!? \0 😀", []),
    ],
)
def test_words_written_by_hand(text, words):
    assert words_reference(text) == words


def test_table_knows_scripts_by_their_unicode_names():
    """WORD_OF_ITS_OWN against the names of all characters; the table's lower case against str.lower."""
    names = ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO")
    names += ("THAI", "LAO", "KHMER", "MYANMAR")
    table = word_table()
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        kind, name = table[code] >> CLASS_SHIFT, unicodedata.name(character, "")
        if unicodedata.category(character)[0] not in "LMN":
            assert kind == GAP, name
        elif name.startswith(names):
            assert kind == WORD_OF_ITS_OWN, name
        elif kind == PART_OF_WORD:
            lower = character.lower()
            assert chr(table[code] & CODE_MASK) == (lower if len(lower) == 1 else character), name
        else:
            assert name.startswith(
                ("IDEOGRAPHIC", "HANGZHOU", "VERTICAL", "MASU", "COMBINING KATAKANA", "HENTAIGANA")
            ), name
