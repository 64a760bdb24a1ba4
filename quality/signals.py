"""The heuristic signals of C4, Gopher, FineWeb and LLaMA's code rules: one column each, by its usual name.

The kernel counts integers (`signals_reference` says each counter in plain Python); fractions are taken here, once, as
float32; where there is nothing to divide by they are 0. `bad_words` are the lines that hold a word of the user's list
(`c4.BadWords`), 0 without one. What the numbers are judged against stands in `rules`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from quality.c4 import BadWords
from quality.signals_kernel import LONGEST_TEXT, count, new_scratch
from quality.signals_reference import COUNTERS
from quality.text import buffers

# column -> (counter, what it is divided by); None: the count itself
_COLUMNS: dict[str, tuple[str, str | None]] = {
    "characters": ("characters", None),
    "words": ("words", None),
    "lines": ("lines", None),
    "mean_word_length": ("word_characters", "words"),
    "hash_ratio": ("hashes", "words"),
    "ellipsis_ratio": ("ellipses", "words"),
    "alphabetic_words": ("alphabetic_words", "words"),
    "distinct_stop_words": ("distinct_stop_words", None),
    "bullet_lines": ("bullet_lines", "lines"),
    "ellipsis_lines": ("ellipsis_lines", "lines"),
    "duplicate_lines": ("duplicate_lines", "body_lines"),
    "duplicate_line_characters": ("duplicate_line_characters", "characters"),
    "duplicate_paragraphs": ("duplicate_paragraphs", "paragraphs"),
    "duplicate_paragraph_characters": ("duplicate_paragraph_characters", "characters"),
    **{f"top_{n}_gram": (f"top_{n}_gram_characters", "characters") for n in (2, 3, 4)},
    **{f"duplicate_{n}_grams": (f"duplicate_{n}_gram_characters", "characters") for n in range(5, 11)},
    "c4_lines": ("c4_lines", None),
    "c4_sentences": ("c4_sentences", None),
    "javascript_lines": ("javascript_lines", None),
    "lorem_ipsum": ("lorem_ipsum", None),
    "curly_brackets": ("curly_brackets", None),
    "terminal_lines": ("terminal_lines", "nonblank_lines"),
    "short_lines": ("short_lines", "nonblank_lines"),
    "longest_line": ("longest_line", None),
    "mean_line_length": ("line_characters", "lines"),
    "alphanumerics": ("alphanumerics", "characters"),
    "digits": ("digits", "characters"),
}

_PLACE = {name: index for index, name in enumerate(COUNTERS)}
_KEPT_SCRATCH = 4 << 20  # bytes of the longest text for which memory is kept

SIGNAL_FIELDS: list[pa.Field] = [
    pa.field(name, pa.int32() if divisor is None else pa.float32(), nullable=False)
    for name, (_, divisor) in _COLUMNS.items()
] + [pa.field("bad_words", pa.int32(), nullable=False)]


class Signals:
    """Counts batches of texts. Holds scratch memory: one per thread. A batch with a very long text has its own."""

    def __init__(self, listed: BadWords | None = None) -> None:
        """listed: the list that `bad_words` are counted by."""
        self._scratch = new_scratch(_KEPT_SCRATCH)
        self._listed = listed

    def __call__(self, texts: pa.Array) -> pa.RecordBatch:
        """SIGNAL_FIELDS of large_string [n]. ValueError for a text of 2 GiB or more: counts are int32."""
        longest = int(np.diff(buffers(texts)[1]).max(initial=0))
        if longest > LONGEST_TEXT:
            raise ValueError(f"a text of {longest} bytes; the longest that can be counted has {LONGEST_TEXT}")
        scratch = self._scratch if longest <= _KEPT_SCRATCH else new_scratch(longest)
        counts = count(texts, scratch)  # int64 [n, len(COUNTERS)]
        columns = []
        for counter, divisor in _COLUMNS.values():
            values = counts[:, _PLACE[counter]]
            if divisor is not None:
                values = values / np.maximum(counts[:, _PLACE[divisor]], 1)
            columns.append(pa.array(values.astype(np.int32 if divisor is None else np.float32)))
        return pa.RecordBatch.from_arrays([*columns, self._bad_words(texts)], schema=pa.schema(SIGNAL_FIELDS))

    def _bad_words(self, texts: pa.Array) -> pa.Array:
        if self._listed is None:
            return pa.array(np.zeros(len(texts), np.int32))
        return pa.array([self._listed.lines(text) for text in texts.to_pylist()], pa.int32())
