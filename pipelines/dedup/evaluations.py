"""Overlap with evaluation sets: does a document hold words that a benchmark will ask for?

After GPT-3 (Brown et al. 2020, appendix C), which GLaM follows (Du et al. 2022, section 5.1): a document overlaps with an
evaluation text when they share an n-gram of words; n is 13, or the number of words of a text that has fewer, down to 8. A shorter
text cannot be told from everyday language and is not looked for; how many these are is counted. Case and punctuation decide
nothing (`phrases`).

Departures: GPT-3 passes over n-grams that stand in more than ten training documents, which depends on the corpus and would let a
document's verdict change with its neighbours; here every n-gram counts. The whole document is dropped, where GPT-3 cuts 200
characters around the overlap out of it.

A set is given as JSON lines, plain or compressed. Every string value of a record, nested too, is one text: question, choices and
answer alike, whatever the benchmark calls them. Names of keys are no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.dedup.phrases import PhraseIndex, build, find
from pipelines.errors import UserError
from pipelines.given_lines import given_lines

NGRAM, SHORTEST = 13, 8  # words
LINE_BYTES = 64 << 20  # the limit for one record


def build_index(sets: Mapping[str, Iterable[str]]) -> PhraseIndex:
    """The index of evaluation texts by set, sets in the order of their names; at most `phrases.MOST_LISTS` of them."""
    return build(
        {name: sets[name] for name in sorted(sets)}, lambda words: np.where(words < SHORTEST, 0, np.minimum(words, NGRAM))
    )


def overlaps(texts: pa.Array, index: PhraseIndex) -> tuple[np.ndarray, list[str | None]]:
    """(shared n-grams int32 [documents], names of their sets joined by commas, None where there is none) of a string array.

    Every place of a document where an n-gram of the index begins counts.
    """
    counts, by_set = find(texts, index)
    names: list[str | None] = [None] * len(counts)
    for place in np.flatnonzero(counts):
        names[place] = ",".join(name for name, shared in zip(index.names, by_set[place], strict=True) if shared)
    return counts, names


# -- reading ------------------------------------------------------------------------------------------------------------------


def read_texts(url: str) -> Iterator[str]:
    """Every string value of a file of JSON lines, in order. A file that holds anything else, or no text, is a UserError."""
    none, mend = True, "mend the evaluation set"
    for number, line in given_lines(url, LINE_BYTES, mend, mend):
        if line.strip():
            for text in _strings(_parsed(line, f"{url}: line {number}")):
                none = False
                yield text
    if none:
        raise UserError(f"{url}: no text in it; an evaluation set is JSON lines with strings among their values")


def _parsed(line: bytes, place: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UserError(f"{place}: no JSON ({error}); an evaluation set is JSON lines") from error


def _strings(value: Any) -> Iterator[str]:
    """The strings of a JSON value, in order."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += reversed(one.values())
        elif isinstance(one, list):
            waiting += reversed(one)
