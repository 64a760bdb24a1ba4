"""GLaM's quality classifier: is this page more like the curated sources or like the rest of the web?

Du et al. 2022, section 3: "a feature hash based linear classifier", trained to tell curated text (Wikipedia, books, selected
sites) from other web pages. Here: the set of hashed word 1-2-grams, rows of norm 1, logistic regression under strong L2
(`classifier_fit` says how it is chosen), and Platt's sigmoid, so that `quality` is a calibrated probability of "curated" with
both classes equally likely beforehand. It is rounded to 4 decimals: float noise decides nothing.

The artefact is `quality.safetensors` (weights, float32) and `quality.json` (settings, calibration, measured AUCs). No pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import UserError
from quality.classifier_kernel import TEXT_CAP, batch_margins, features_reference, new_seen
from quality.text import buffers

FORMAT = 1
WEIGHTS, CARD = "quality.safetensors", "quality.json"
_MAX_BITS = 30  # features are int32


@dataclass(frozen=True, slots=True)
class Classifier:
    """margin = bias + weights . x;  quality = sigmoid(slope * margin + intercept)."""

    weights: np.ndarray  # float32 [2^bits]
    bias: float
    slope: float
    intercept: float
    metrics: Mapping[str, Any]  # what was measured when it was fitted

    @property
    def bits(self) -> int:
        return len(self.weights).bit_length() - 1

    def calibrated(self, margins: np.ndarray) -> np.ndarray:
        """float32 [n]: probability of "curated" of float64 [n] margins, in steps of 1e-4."""
        values = 1.0 / (1.0 + np.exp(-np.clip(self.slope * margins + self.intercept, -60.0, 60.0)))
        return (np.rint(values * 1e4) / 1e4).astype(np.float32)


class Scorer:
    """Scores batches with one classifier. Holds scratch memory: one per thread."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._seen = new_seen(classifier.bits)
        self._scratch = np.empty(TEXT_CAP + 2, np.int32)

    def margins(self, texts: pa.Array) -> np.ndarray:
        """float64 [n] of large_string [n]."""
        data, offsets = buffers(texts)
        out = np.empty(len(texts))
        model = self._classifier
        batch_margins(data, offsets, model.bits, model.weights, model.bias, self._seen, self._scratch, out)
        return out

    def __call__(self, texts: pa.Array) -> np.ndarray:
        """quality, float32 [n] in steps of 1e-4, of large_string [n]."""
        return self._classifier.calibrated(self.margins(texts))


def contributions(classifier: Classifier, text: str, top: int) -> list[tuple[str, float]]:
    """The words and pairs that moved the margin most, largest first, with what each added to it."""
    found = features_reference(text.encode(), classifier.bits)
    scale = 1.0 / math.sqrt(max(len(found), 1))
    parts = [
        (" / ".join(name.decode("utf-8", "replace") for name in names), float(classifier.weights[place]) * scale)
        for place, names in found.items()
    ]
    return sorted(parts, key=lambda part: (-abs(part[1]), part[0]))[:top]


def save(classifier: Classifier) -> dict[str, bytes]:
    """The artefact's files by name."""
    import safetensors.numpy

    card = {
        "format": FORMAT,
        "bits": classifier.bits,
        "bias": classifier.bias,
        "slope": classifier.slope,
        "intercept": classifier.intercept,
        "metrics": classifier.metrics,
    }
    return {
        WEIGHTS: safetensors.numpy.save({"weights": np.ascontiguousarray(classifier.weights, np.float32)}),
        CARD: json.dumps(card, indent=1, sort_keys=True).encode() + b"\n",
    }


def load(files: Mapping[str, bytes]) -> Classifier:
    """The classifier in an artefact's files; files that are none are UserErrors that name the file."""
    import safetensors
    import safetensors.numpy

    try:
        card = json.loads(files[CARD])
        bits, metrics = card["bits"], card["metrics"]
        bias, slope, intercept = (float(card[name]) for name in ("bias", "slope", "intercept"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r:.20}")
        if type(bits) is not int or not 1 <= bits <= _MAX_BITS or not all(map(math.isfinite, (bias, slope, intercept))):
            raise ValueError(f"bits {bits!r:.20}, bias {bias}, slope {slope}, intercept {intercept}")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{CARD}: not a quality classifier of format {FORMAT} ({error}); build the run again") from error
    try:
        weights = safetensors.numpy.load(files[WEIGHTS])["weights"]
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{WEIGHTS}: not the weights of a quality classifier ({error}); build the run again") from error
    if weights.shape != (1 << bits,) or weights.dtype != np.float32:
        raise UserError(f"{WEIGHTS}: {weights.dtype}{list(weights.shape)} where {CARD} asks for float32[{1 << bits}]")
    if not np.isfinite(weights).all():
        raise UserError(f"{WEIGHTS}: holds weights that are no numbers; build the run again")
    return Classifier(weights, bias, slope, intercept, metrics)
