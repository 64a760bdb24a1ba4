"""The models of a run: languages, tokenizer, quality classifier, perplexity, indexes of evaluation sets and of terms, the list of
bad words; files under models/, each with a sidecar.

A run carries its models, so that workers, `score` and later runs need nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.errors import UserError
from pipelines.store import Store

if TYPE_CHECKING:
    from pipelines.bpe import Tokenizer
    from pipelines.dedup.phrases import PhraseIndex
    from quality.c4 import BadWords
    from quality.classifier import Classifier
    from quality.language import LanguageModel
    from quality.perplexity import NgramModel

LANGUAGE = "models/language.ftz"
TOKENIZER = "models/tokenizer.json"
QUALITY = "models/quality.safetensors"
QUALITY_CARD = "models/quality.json"
PERPLEXITY = "models/perplexity.safetensors"
PERPLEXITY_CARD = "models/perplexity.json"
EVALUATIONS = "models/evaluations.safetensors"
TERMS = "models/terms.safetensors"
BAD_WORDS = "models/bad_words.json"
REFERENCES = "models/references.bin"

Hashes = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Models:
    """Loaded models; `quality`, the indexes and `bad_words` are None where the recipe has none, `perplexity` empty."""

    language: LanguageModel
    tokenizer: Tokenizer
    quality: Classifier | None
    perplexity: dict[str, NgramModel]  # by language
    evaluations: PhraseIndex | None = None
    terms: PhraseIndex | None = None
    bad_words: BadWords | None = None


def hashes(store: Store) -> Hashes:
    """sha256 of language model, tokenizer, classifier, perplexity models, indexes, bad words; None for one that is not there."""
    paths = (LANGUAGE, TOKENIZER, QUALITY, QUALITY_CARD, PERPLEXITY, EVALUATIONS, TERMS, BAD_WORDS)
    found = [store.sidecar(path) for path in paths]
    return tuple(None if sidecar is None else sidecar["sha256"] for sidecar in found)


def load(store: Store) -> Models:
    """The models of a run. A run without models/ is a UserError."""
    from quality import classifier, language

    for path in (LANGUAGE, TOKENIZER):
        if not store.exists(path):
            raise UserError(f"{store.url(path)}: no such model; build the run first")
    quality = None
    if store.exists(QUALITY):
        files = {"quality.safetensors": store.read(QUALITY), "quality.json": store.read(QUALITY_CARD)}
        quality = classifier.load(files)
    return Models(
        language.parse(store.read(LANGUAGE), store.url(LANGUAGE)),
        load_tokenizer(store),
        quality,
        load_perplexity(store),
        load_index(store, EVALUATIONS),
        load_index(store, TERMS),
        load_bad_words(store),
    )


def load_tokenizer(store: Store) -> Tokenizer:
    """The tokenizer of a run that has models/."""
    from pipelines import bpe

    return bpe.load(store.read(TOKENIZER), store.url(TOKENIZER))


def load_perplexity(store: Store) -> dict[str, NgramModel]:
    """The perplexity models of a run by language; {} where it has none."""
    from quality import perplexity

    return perplexity.load(store.read(PERPLEXITY), store.url(PERPLEXITY)) if store.exists(PERPLEXITY) else {}


def load_index(store: Store, path: str) -> PhraseIndex | None:
    """The index at `path`, EVALUATIONS or TERMS; None where the run has none."""
    from pipelines.dedup import phrases

    return phrases.load(store.read(path), store.url(path)) if store.exists(path) else None


def load_bad_words(store: Store) -> BadWords | None:
    """The list of bad words; None where the run has none."""
    from quality.c4 import BadWords

    return BadWords(store.read_json(BAD_WORDS)) if store.exists(BAD_WORDS) else None


def perplexity_bounds(store: Store) -> dict[str, tuple[float, float]]:
    """language -> the highest perplexity of its head, and of its middle; {} where the run has no such models."""
    if not store.exists(PERPLEXITY_CARD):
        return {}
    card = store.read_json(PERPLEXITY_CARD)
    return {language: (facts["head"] or math.inf, facts["middle"] or math.inf) for language, facts in card.items()}
