"""The heuristic counters in plain Python: what the kernel is held to, and the plainest statement of each definition.

Words are `str.split()`, lines are split at "\\n", paragraphs at two or more newlines; lengths are in characters; white
space, letters and lower case are the running Python's. The formulas are datatrove's, with these departures:

* words are split at white space, not by spaCy: a mark belongs to the word at which it stands and is no word of its own;
* an n-gram is a tuple of words: datatrove joins them without blanks, so that "ab c" there repeats "a bc";
* line repeats are counted once, in the stripped text and without empty lines, for Gopher's rules and FineWeb's alike.

C4 follows the code that made it and the paper's last version: 3 sentences, lines of 5 words (5 and 3 as first printed).

* The right double quotation mark ends a line as the straight one does ("end quotation mark" in the paper).
* A sentence ends where a word ends in . ? or !, with or without a closing quote, and at the end of a line. C4 asks
  NLTK's Punkt, which knows abbreviations; the rule wants three sentences.
* Citation markers ([1], [edit]) stay in the line: removing text is for sources.
* Lorem ipsum and curly brackets are looked for in the whole page, as the paper says, not in lines with an end mark.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Rae et al. 2021, appendix A1.1
TERMINAL = (".", "?", "!", '"', "\u201d")  # Raffel et al. 2020, section 2.2
C4_WORDS, C4_LONGEST_WORD = 5, 1000  # fewest words of a line; characters of a word, which the paper leaves to the code
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
SHORT_LINE = 30  # characters, Penedo et al. 2024; datatrove also counts lines of just 30

COUNTERS = (
    "characters",
    "words",
    "word_characters",
    "alphabetic_words",
    "distinct_stop_words",
    "hashes",
    "ellipses",
    "lines",
    "line_characters",
    "bullet_lines",
    "ellipsis_lines",
    "nonblank_lines",
    "terminal_lines",
    "short_lines",
    "longest_line",
    "alphanumerics",
    "digits",
    "body_lines",
    "duplicate_lines",
    "duplicate_line_characters",
    "paragraphs",
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
    "top_2_gram_characters",
    "top_3_gram_characters",
    "top_4_gram_characters",
    "duplicate_5_gram_characters",
    "duplicate_6_gram_characters",
    "duplicate_7_gram_characters",
    "duplicate_8_gram_characters",
    "duplicate_9_gram_characters",
    "duplicate_10_gram_characters",
    "c4_lines",
    "c4_sentences",
    "javascript_lines",
    "lorem_ipsum",
    "curly_brackets",
)


def counters(text: str) -> dict[str, int]:
    """Every counter of one text."""
    words = text.split()
    lines = text.split("\n")
    found = _symbols(text, words) | _lines(lines) | _repeated_parts(text)
    for n in (2, 3, 4):
        found[f"top_{n}_gram_characters"] = top_ngram(words, n)
    for n in range(5, 11):
        found[f"duplicate_{n}_gram_characters"] = duplicate_ngrams(words, n)
    return {name: found[name] for name in COUNTERS}


def _symbols(text: str, words: Sequence[str]) -> dict[str, int]:
    return {
        "characters": len(text),
        "words": len(words),
        "word_characters": sum(map(len, words)),
        "alphabetic_words": sum(any(c.isalpha() for c in word) for word in words),
        "distinct_stop_words": len(set(words) & set(STOP_WORDS)),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("\u2026"),
        "alphanumerics": sum(c.isalnum() for c in text),
        "digits": sum("0" <= c <= "9" for c in text),
        "lorem_ipsum": int("lorem ipsum" in text.lower()),
        "curly_brackets": text.count("{"),
    }


def _lines(lines: Sequence[str]) -> dict[str, int]:
    stripped = [line.strip() for line in lines]
    kept = [line for line in stripped if c4_keeps(line)]
    return {
        "lines": len(lines),
        "line_characters": sum(map(len, lines)),
        "nonblank_lines": sum(bool(line) for line in stripped),
        "bullet_lines": sum(line.startswith(("\u2022", "-")) for line in stripped),
        "ellipsis_lines": sum(line.endswith(("...", "\u2026")) for line in stripped),
        "terminal_lines": sum(line.endswith(TERMINAL) for line in stripped),
        "short_lines": sum(0 < len(line) < SHORT_LINE for line in stripped),
        "longest_line": max(map(len, lines)),
        "javascript_lines": sum("javascript" in line.lower() for line in stripped),
        "c4_lines": len(kept),
        "c4_sentences": sum(sentences(line) for line in kept),
    }


def c4_keeps(line: str) -> bool:
    """Whether C4 keeps a stripped line: an end mark that is no ellipsis, enough words, none too long, no notices."""
    words, lower = line.split(), line.lower()
    return (
        line.endswith(TERMINAL)
        and not line.endswith("...")
        and len(words) >= C4_WORDS
        and max(map(len, words)) <= C4_LONGEST_WORD
        and not any(notice in lower for notice in ("javascript", *POLICY))
    )


def sentences(line: str) -> int:
    """Sentences of a line with a word: those that end within, and the one that the line ends."""
    return sum(bool(re.search('[.?!]["\u201d]?$', word)) for word in line.split()[:-1]) + 1


def _repeated_parts(text: str) -> dict[str, int]:
    body = text.strip()
    lines = [line for line in re.split(r"\n+", body) if line]
    paragraphs = [part for part in re.split(r"\n{2,}", body) if part]
    line_count, line_characters = _repeats(lines)
    paragraph_count, paragraph_characters = _repeats(paragraphs)
    return {
        "body_lines": len(lines),
        "duplicate_lines": line_count,
        "duplicate_line_characters": line_characters,
        "paragraphs": len(paragraphs),
        "duplicate_paragraphs": paragraph_count,
        "duplicate_paragraph_characters": paragraph_characters,
    }


def _repeats(parts: Sequence[str]) -> tuple[int, int]:
    """(how many parts stood before, their characters)."""
    seen: set[Hashable] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count, characters


def top_ngram(words: Sequence[str], n: int) -> int:
    """Characters (with blanks between words) in all occurrences of the most frequent n-gram; of several, the first."""
    grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    if not grams:
        return 0
    gram, count = grams.most_common(1)[0]
    return (sum(map(len, gram)) + n - 1) * count


def duplicate_ngrams(words: Sequence[str], n: int) -> int:
    """Characters in n-grams that stood before, counted without overlap (Rae et al. 2021)."""
    seen: set[Hashable] = set()
    characters = at = 0
    while at + n <= len(words):
        gram = tuple(words[at : at + n])
        if gram in seen:
            characters += sum(map(len, gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters
