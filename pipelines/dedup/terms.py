"""Counts of terms: how often a document holds the words and phrases of lists that the user names.

Filters shift how often a corpus speaks of whom, and how rudely: Dodge et al. (2021, "Documenting Large Webtext Corpora") found that
C4's word list takes out texts that mention some minorities far more often than others. Counted before and after a filter, words of
identity and of toxicity show it. No list ships with winnow: which words are meant is the user's to say. A list is text, plain or
compressed, one word or phrase a line; blank lines are none. Case and punctuation decide nothing (`phrases`): "Non-binary" finds
"non binary". Every place where a phrase begins counts, also inside a longer phrase of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipelines.dedup.phrases import LONGEST, PhraseIndex, build, find
from pipelines.dedup.words import words_reference
from pipelines.errors import UserError
from pipelines.given_lines import decoded, given_lines

LINE_BYTES = 1 << 16


def build_terms(lists: Mapping[str, Iterable[str]]) -> PhraseIndex:
    """The index of phrases by list, in the order of `lists`; a phrase without a word is counted and not looked for."""
    return build(lists, lambda words: words)


def count_terms(texts: pa.Array, index: PhraseIndex) -> pa.Array:
    """list<int32> [documents]: places where a phrase begins, by list in the order of index.names; null without a list."""
    if not index.names:
        return pa.nulls(len(texts), pa.list_(pa.int32()))
    _, by_list = find(texts, index)
    offsets = np.arange(len(texts) + 1, dtype=np.int32) * np.int32(len(index.names))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(by_list.reshape(-1)))


def read_terms(url: str) -> Iterator[str]:
    """The lines of a list that are not blank. A file that is no such list is a UserError."""
    none, mend = True, "mend the list"
    for number, line in given_lines(url, LINE_BYTES, "a list has one word or phrase a line", mend):
        phrase = decoded(line, number, url, mend)
        if len(words_reference(phrase)) > LONGEST:
            raise UserError(f"{url}: line {number}: a phrase of over {LONGEST} words; shorten it")
        if phrase:
            none = False
            yield phrase
    if none:
        raise UserError(f"{url}: no word in it; a list of terms has one word or phrase a line")
