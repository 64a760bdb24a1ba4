"""Language identification: fastText's lid.176 (Joulin et al. 2016; what CCNet and so LLaMA use), on whole batches.

The label is the most probable of 176 languages, the score its probability, rounded to 4 decimals before it is stored or
compared, so that float noise decides nothing. Newlines are blanks, as the model was trained on lines. A text without a word
has no label. Whatever a script does not settle (short texts, lists of names, code) gets a low score: keep a minimum score.

The model is the 0.9 MB quantised file (CC BY-SA 3.0), checked by its hash and by a strict parser (`language_model`), evaluated by
a compiled kernel (`language_kernel`). `reference` asks fastText itself: the tests and `verify --deep` hold the kernel to it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from quality import language_model
from quality.language_kernel import Tables, build, identify, new_state
from quality.text import buffers

SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"  # lid.176.ftz
_PREFIX = "__label__"
_CACHE_SLOTS = 1 << 16  # 4 MiB: more were no faster


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The content of the model's file."""

    content: bytes


def parse(content: bytes, name: str) -> LanguageModel:
    """The model in a file's content; any other file than lid.176.ftz is a UserError that names it."""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{name}: not lid.176.ftz (sha256 differs); run winnow models fetch")
    return LanguageModel(content)


def labels(model: LanguageModel) -> tuple[str, ...]:
    """Every label that the model gives."""
    return language_model.parse(model.content, "lid.176.ftz").labels


@functools.cache
def _tables(content: bytes) -> tuple[Tables, pa.Array]:
    """The kernel's tables and the labels by number; read-only, so that threads share them."""
    classifier = language_model.parse(content, "lid.176.ftz")
    return build(classifier), pa.array(classifier.labels, pa.string())


class LanguageIdentifier:
    """The model with a cache of words; one per thread. `max_characters`: judge only the start of each text."""

    def __init__(self, model: LanguageModel, max_characters: int | None, cache_slots: int = _CACHE_SLOTS) -> None:
        self._tables, self._labels = _tables(model.content)
        self._max_characters = max_characters
        self._state = new_state(cache_slots)

    def __call__(self, texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """(labels string [n], null for a text of nothing but white space; scores float32 [n]) of large_string [n]."""
        texts = _starts(texts, self._max_characters)
        data, offsets = buffers(texts)
        numbers, scores = np.empty(len(texts), np.int64), np.empty(len(texts), np.float32)
        identify(data, offsets, self._tables, self._state, numbers, scores)
        numbers[_blank(texts)] = -1
        return self._labels.take(pa.array(numbers, mask=numbers < 0)), _rounded(np.where(numbers < 0, 0.0, scores))


def reference(model: LanguageModel, texts: pa.Array, max_characters: int | None = None) -> tuple[pa.Array, np.ndarray]:
    """The same by fastText itself, some fifteen times slower; a text with the word "</s>" is judged by what stands before."""
    import fasttext

    texts = _starts(texts, max_characters)
    descriptor, path = tempfile.mkstemp(suffix=".ftz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(model.content)
        loaded = fasttext.load_model(path)
    finally:
        os.unlink(path)
    if len(texts) == 0:
        return pa.array([], pa.string()), np.empty(0, np.float32)
    lines = [text + "\n" for text in pc.replace_substring(texts, "\n", " ").to_pylist()]
    labels, scores = loaded.f.multilinePredict(lines, 1, 0.0, "strict")
    blank = _blank(texts)
    names = [None if empty or not found else found[0].removeprefix(_PREFIX) for found, empty in zip(labels, blank, strict=True)]
    values = np.array([found[0] if len(found) and not empty else 0.0 for found, empty in zip(scores, blank, strict=True)])
    return pa.array(names, pa.string()), _rounded(values)


def _starts(texts: pa.Array, max_characters: int | None) -> pa.Array:
    return texts if max_characters is None else pc.utf8_slice_codeunits(texts, 0, max_characters)


def _blank(texts: pa.Array) -> np.ndarray:
    """bool [n]: nothing but white space, in the widest sense."""
    return np.asarray(pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0)))


def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 [n] in steps of 1e-4."""
    return (np.rint(np.clip(values.astype(np.float64), 0.0, 1.0) * 1e4) / 1e4).astype(np.float32)
