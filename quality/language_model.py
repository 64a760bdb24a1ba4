"""The file lid.176.ftz: a fastText classifier with quantised rows, read by a parser that trusts nothing in it.

fastText's own reader believes every length that the file states. This one checks each against what is left, refuses
any kind of model but the one that `language_kernel` evaluates, and ends at the last byte. Little-endian throughout:

    header       int32 magic, version
    arguments    int32 dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate; float64 t
    dictionary   int32 entries, words, labels; int64 tokens, n-grams kept
                 an entry: its bytes, NUL, int64 count, int8 type (0 word, 1 label); words first, by falling count
                 a kept n-gram: int32 hash bucket, int32 place; its row stands at words + place
    input        bool quantised, bool with norms, int64 rows, columns, int32 codes; codes uint8 [rows, columns / 2]
                 quantiser of pairs; with norms also uint8 [rows] and their quantiser
    output       bool quantised, int64 rows, columns; float32 [rows, columns], one row an inner node of the tree
    a quantiser  int32 columns, parts, width, width of the last part; float32 centroids [parts, 256, width]

Sources: fastText 0.9.3 (fasttext.cc, dictionary.cc, quantmatrix.cc), Joulin et al. 2016 (FastText.zip: product quantisation).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError

DIM = 16  # columns of a row
BUCKETS = 2_000_000  # what an n-gram's hash is reduced to
SHORTEST, LONGEST = 2, 4  # characters of an n-gram
END = b"</s>"  # fastText ends every line with this word
LABEL = b"__label__"

_MAGIC, _VERSION = 793_712_314, 12
_HIERARCHICAL_SOFTMAX, _SUPERVISED = 1, 3
_WIDTH, _CENTROIDS = 2, 256
_MOST_ROWS = 1 << 16  # a row's number is held in 16 bits
_LONGEST_ENTRY = 1024  # bytes


@dataclass(frozen=True, slots=True)
class Classifier:
    """What the file holds, with the rows dequantised."""

    words: tuple[bytes, ...]  # in order of their rows
    labels: tuple[str, ...]  # without the prefix
    label_counts: np.ndarray  # int64 [labels], falling: the Huffman tree is built from them
    ngrams: np.ndarray  # int32 [kept, 2]: bucket, place; the row of an n-gram is words + place
    rows: np.ndarray  # float32 [words + kept, DIM]
    nodes: np.ndarray  # float32 [labels, DIM]: weights of the tree's inner nodes, in order of their making


def parse(content: bytes, name: str) -> Classifier:
    """The classifier in a file's content; a UserError that names the file where it is not exactly such a file."""
    reader = _Reader(content, name)
    reader.need(reader.fields("ii", "header") == (_MAGIC, _VERSION), "not a fastText model of version 12")
    dim, _, _, _, _, word_ngrams, loss, kind, bucket, shortest, longest, _, _ = reader.fields("12id", "arguments")
    reader.need((kind, loss) == (_SUPERVISED, _HIERARCHICAL_SOFTMAX), "not a classifier by hierarchical softmax")
    reader.need((dim, bucket) == (DIM, BUCKETS), f"not of {DIM} columns and {BUCKETS} buckets")
    reader.need((word_ngrams, shortest, longest) == (1, SHORTEST, LONGEST), "other n-grams than of 2 to 4 characters")
    words, labels, counts, ngrams = _dictionary(reader)
    rows = _quantised(reader)
    reader.need(len(rows) == len(words) + len(ngrams), "rows are not one a word and kept n-gram")
    reader.need(len(rows) <= _MOST_ROWS, f"more than {_MOST_ROWS} rows")
    reader.need(reader.fields("?", "output") == (False,), "output is quantised")
    reader.need(reader.fields("qq", "output") == (len(labels), DIM), "output is not one row a label")
    nodes = reader.floats(len(labels) * DIM, "output").reshape(len(labels), DIM)
    reader.end()
    return Classifier(words, labels, counts, ngrams, rows, nodes)


def _dictionary(reader: _Reader) -> tuple[tuple[bytes, ...], tuple[str, ...], np.ndarray, np.ndarray]:
    """(words, labels, label counts, n-grams) of a Classifier."""
    total, n_words, n_labels = reader.fields("iii", "dictionary")
    _, kept = reader.fields("qq", "dictionary")
    reader.need(n_words >= 1 and n_labels >= 2 and n_words + n_labels == total, "dictionary's counts disagree")
    entries, counts = [], []
    for number in range(total):
        entries.append(reader.entry())
        count, kind = reader.fields("qb", "dictionary")
        reader.need(kind == (number >= n_words), "words and labels are mixed")
        reader.need(0 <= count < 1 << 40, "a count is out of range")
        counts.append(count)
    reader.need(len(set(entries)) == total, "an entry stands twice")
    words, labels = tuple(entries[:n_words]), entries[n_words:]
    reader.need(END in words and not any(word.startswith(LABEL) for word in words), "no end of line, or a label for a word")
    reader.need(all(label.startswith(LABEL) and label.isascii() for label in labels), "a label without its prefix")
    label_counts = np.array(counts[n_words:], np.int64)
    reader.need(bool(np.all(np.diff(label_counts) <= 0)), "labels do not fall by count")
    ngrams = reader.array(np.dtype("<i4"), 2 * kept, "dictionary").reshape(-1, 2)
    reader.need(bool(np.all((ngrams[:, 0] >= 0) & (ngrams[:, 0] < BUCKETS))), "an n-gram's bucket is out of range")
    reader.need(len(np.unique(ngrams[:, 0])) == kept, "an n-gram stands twice")
    reader.need(np.array_equal(np.sort(ngrams[:, 1]), np.arange(kept)), "n-grams' places are not 0 to their number")
    return words, tuple(label.removeprefix(LABEL).decode() for label in labels), label_counts, ngrams


def _quantised(reader: _Reader) -> np.ndarray:
    """The input matrix, float32 [rows, DIM]: pairs of columns by their codes, times the row's norm by its code."""
    reader.need(reader.fields("??", "input") == (True, True), "rows are not quantised with norms")
    count, columns, size = reader.fields("qqi", "input")
    parts = DIM // _WIDTH
    reader.need(columns == DIM and size == count * parts, "input's sizes disagree")
    codes = reader.array(np.dtype(np.uint8), size, "input").reshape(count, parts)
    pairs = _centroids(reader, DIM, _WIDTH)
    norm_codes = reader.array(np.dtype(np.uint8), count, "norms")
    norms = _centroids(reader, 1, 1)[0, norm_codes]
    return (pairs[np.arange(parts), codes].reshape(count, DIM) * norms).astype(np.float32)


def _centroids(reader: _Reader, columns: int, width: int) -> np.ndarray:
    """A quantiser's centroids, float32 [parts, 256, width]."""
    parts = columns // width
    reader.need(reader.fields("4i", "quantiser") == (columns, parts, width, width), "another quantiser")
    return reader.floats(columns * _CENTROIDS, "quantiser").reshape(parts, _CENTROIDS, width)


class _Reader:
    """Takes a file's content from front to back; what does not fit is a UserError that says what and where."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content, self._name, self._at = content, name, 0

    def need(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise UserError(
                f"{self._name}: not lid.176.ftz: {otherwise} (before byte {self._at}); run winnow models fetch"
            )

    def fields(self, layout: str, what: str) -> tuple:
        """Packed values, `layout` as of `struct`."""
        size = struct.calcsize("<" + layout)
        return struct.unpack("<" + layout, self._take(size, what))

    def entry(self) -> bytes:
        """A NUL-ended word of the dictionary, without the NUL."""
        stop = self._content.find(b"\0", self._at, self._at + _LONGEST_ENTRY)
        self.need(stop > self._at, "an empty or endless entry")
        return self._take(stop + 1 - self._at, "dictionary")[:-1]

    def array(self, dtype: np.dtype, count: int, what: str) -> np.ndarray:
        """`count` values of `dtype`."""
        self.need(count >= 0, f"{what} of a negative size")
        return np.frombuffer(self._take(count * dtype.itemsize, what), dtype)

    def floats(self, count: int, what: str) -> np.ndarray:
        """`count` finite float32."""
        values = self.array(np.dtype("<f4"), count, what)
        self.need(bool(np.all(np.isfinite(values))), f"{what} with a number that is none")
        return values

    def end(self) -> None:
        self.need(self._at == len(self._content), f"{len(self._content) - self._at} bytes follow the output")

    def _take(self, size: int, what: str) -> bytes:
        self.need(size <= len(self._content) - self._at, f"{what} is cut short")
        self._at += size
        return self._content[self._at - size : self._at]
