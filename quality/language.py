"""Language identification: fastText's lid.176 (Joulin et al. 2016; what CCNet and so LLaMA use), on whole batches.

The label is the most probable of 176 languages, the score its probability, rounded to 4 decimals before it is stored or
compared, so that float noise decides nothing. Newlines are blanks, as the model was trained on lines. A text without a word
has no label. Whatever a script does not settle (short texts, lists of names, code) gets a low score: keep a minimum score.

The model is the 0.9 MB quantised file (CC BY-SA 3.0), checked by its hash before the library, which trusts what it is given,
may parse it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError

SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"  # lid.176.ftz
_PREFIX = "__label__"


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The content of the model's file."""

    content: bytes


def parse(content: bytes, name: str) -> LanguageModel:
    """The model in a file's content; any other file than lid.176.ftz is a UserError that names it."""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{name}: not lid.176.ftz (sha256 differs); run winnow models fetch")
    return LanguageModel(content)


class LanguageIdentifier:
    """The model, loaded; one per worker thread. `max_characters`: judge only the start of each text."""

    def __init__(self, model: LanguageModel, max_characters: int | None) -> None:
        import fasttext

        self._max_characters = max_characters
        descriptor, path = tempfile.mkstemp(suffix=".ftz")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(model.content)
            self._model = fasttext.load_model(path)
        finally:
            os.unlink(path)

    def __call__(self, texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """(labels string [n], null for a text of nothing but white space; scores float32 [n]) of large_string [n]."""
        if len(texts) == 0:
            return pa.array([], pa.string()), np.empty(0, np.float32)
        if self._max_characters is not None:
            texts = pc.utf8_slice_codeunits(texts, 0, self._max_characters)
        lines = [text + "\n" for text in pc.replace_substring(texts, "\n", " ").to_pylist()]
        labels, scores = self._model.f.multilinePredict(lines, 1, 0.0, "strict")
        blank = np.asarray(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0))
        names = [None if nothing or not found else found[0] for found, nothing in zip(labels, blank, strict=True)]
        values = np.array([found[0] if len(found) else 0.0 for found in scores], np.float64)
        values[blank] = 0.0
        rounded = np.rint(np.clip(values, 0.0, 1.0) * 1e4) / 1e4
        return pa.array([name and name.removeprefix(_PREFIX) for name in names], pa.string()), rounded.astype(np.float32)
