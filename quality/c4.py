"""C4's cleaning, line by line: what Raffel et al. 2020 (section 2.2) and the code that made C4 (`c4_utils`) do to a page.

| of a line, in this order                                               | what becomes of it                          |
|------------------------------------------------------------------------|---------------------------------------------|
| a word of over 1,000 characters                                        | the line goes: `long_word`                  |
| citation markers: [1], [], [edit], [citation needed]                   | the markers go, the line stays              |
| no end mark (. ? ! "), or an ellipsis                                  | the line goes: `no_end_mark`                |
| fewer than 5 words                                                     | the line goes: `few_words`                  |
| "lorem ipsum"                                                          | the page goes: `c4_lorem_ipsum`             |
| "javascript"                                                           | the line goes: `javascript`                 |
| a curly bracket                                                        | the page goes: `c4_curly_bracket`           |
| terms of use, privacy or cookie policy, use(s) (of) cookies            | the line goes: `policy`                     |
| a word of the user's list, with no letter a-z beside it                | the page goes: `c4_bad_words`               |
| of the page: fewer than 3 sentences in the lines that stay             | the page goes: `c4_sentences`               |

A page that goes is not emptied: `clean` hands back what its lines leave, with those that condemn it, so that the rules of
`rules.C4` come to the same verdict on the cleaned text and nothing vanishes without one. What the end mark, the word and the
sentence are is what `signals_reference` says, with its departures: the right double quotation mark ends a line too, and sentences
are counted by their marks, where C4 asks NLTK's Punkt. As in C4's code, a blank that a marker leaves behind the end mark costs the
line, and what a line that goes says is never held against its page; a word of the list counts at a line's start too, as the
paper has it, where the code wants a character before it.

Not here: language (`language`; C4 takes pages that langdetect gives English at 0.99), pages of over 190,000 characters, which
the code drops and the paper does not mention, and the repeated three-sentence spans of the paper, which are lines in the code. The
nearest thing is a source's `paragraphs: true`, which compares lines by a looser form and keeps the copy of another document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from quality.signals_reference import C4_LONGEST_WORD, C4_WORDS, POLICY, TERMINAL, sentences

MIN_SENTENCES = 3
_LETTERS = re.compile("[a-z]+")
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
# Why a page goes, in the order in which the family of rules asks.
PAGE_REASONS = ("c4_lorem_ipsum", "c4_curly_bracket", "c4_bad_words", "c4_sentences")


class Line(NamedTuple):
    """A line without its citation markers, and why it goes or condemns its page: None for neither."""

    text: str
    removed: str | None = None
    condemns: str | None = None


class BadWords:
    """A list of words and phrases, and whether lower-case text holds one with no letter a-z beside it.

    Most are single words of a-z: they are looked up among the text's own. The others are searched for only where the first word of
    one stands, or one that has none of a-z.
    """

    def __init__(self, words: Iterable[str]) -> None:
        """One word or phrase an item, white space around it and empty ones ignored. ValueError for a list without a word."""
        listed = sorted({word.strip().lower() for word in words} - {""})
        if not listed:
            raise ValueError("a list of bad words without a word")
        self._alone = frozenset(word for word in listed if _LETTERS.fullmatch(word))
        others = [word for word in listed if word not in self._alone]
        self._first = frozenset(found[0] for word in others if (found := _LETTERS.search(word)))
        self._signs = [word for word in others if not _LETTERS.search(word)]
        self._others = re.compile(f"(?<![a-z])(?:{'|'.join(map(re.escape, others)) or '(?!)'})(?![a-z])")

    def found_in(self, lower: str) -> bool:
        """Whether one of them stands in the text."""
        own = set(_LETTERS.findall(lower))
        if not self._alone.isdisjoint(own):
            return True
        hinted = not self._first.isdisjoint(own) or any(sign in lower for sign in self._signs)
        return hinted and self._others.search(lower) is not None

    def lines(self, text: str) -> int:
        """How many lines of a text hold one of them, whatever else C4 does with the line."""
        lower = text.lower()
        return sum(map(self.found_in, lower.split("\n"))) if self.found_in(lower) else 0


def judge_line(line: str, listed: BadWords | None = None) -> Line:
    """What C4 does with one line."""
    line = line.strip()
    if len(line) > C4_LONGEST_WORD and max(map(len, line.split())) > C4_LONGEST_WORD:
        return Line(line, removed="long_word")
    line = CITATION.sub("", line)
    if not line.endswith(TERMINAL) or line.endswith("..."):
        return Line(line, removed="no_end_mark")
    if len(line.split()) < C4_WORDS:
        return Line(line, removed="few_words")
    lower = line.lower()
    if "lorem ipsum" in lower:
        return Line(line, condemns="c4_lorem_ipsum")
    if "javascript" in lower:
        return Line(line, removed="javascript")
    if "{" in line:
        return Line(line, condemns="c4_curly_bracket")
    if any(notice in lower for notice in POLICY):
        return Line(line, removed="policy")
    if listed is not None and listed.found_in(lower):
        return Line(line, condemns="c4_bad_words")
    return Line(line)


def clean(text: str, listed: BadWords | None = None) -> tuple[str, str | None]:
    """(the lines that stay or condemn the page, the first of PAGE_REASONS for which C4 drops it, or None)."""
    lines = [judge_line(line, listed) for line in text.splitlines()]
    stay = [line for line in lines if line.removed is None]
    reasons = {line.condemns for line in stay}
    if sum(sentences(line.text) for line in stay) < MIN_SENTENCES:
        reasons.add("c4_sentences")
    return "\n".join(line.text for line in stay).strip(), next((name for name in PAGE_REASONS if name in reasons), None)
