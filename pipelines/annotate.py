"""annotate: a documents part -> its signals part, row for row: language, rules' numbers, quality, perplexity, overlap with
evaluation sets, counts of terms, token ids.

Every document is judged as it will be written: without the paragraphs whose one kept copy stands elsewhere, and, where its source
says so, with e-mail and IP addresses masked. Batches of Arrow
text go through compiled kernels; nothing is shuffled and nothing is decided. The token ids are kept beside their count, so
that text is encoded once for all variants and tokenize only gathers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines import models
from pipelines.beam_parts import Each, spread
from pipelines.bpe import Encoder, pack_ids
from pipelines.dedup.evaluations import build_index, overlaps
from pipelines.dedup.terms import build_terms, count_terms
from pipelines.parts import Part
from pipelines.recipe import Recipe
from pipelines.shards import token_dtype
from pipelines.store import Store, TableWriter, reading_table, stage_key
from pipelines.written import written
from quality import pii
from quality.classifier import Scorer
from quality.language import LanguageIdentifier
from quality.perplexity import PerplexityScorer
from quality.signals import SIGNAL_FIELDS, Signals
from quality.text import buffers

VERSION = 4

SIGNALS = pa.schema(
    [
        pa.field("text_bytes", pa.int64(), nullable=False),  # of the judged text
        pa.field("language", pa.string()),  # null where there is nothing to judge
        pa.field("language_score", pa.float32()),
        pa.field("quality", pa.float32()),  # calibrated probability of "curated"; null without a classifier
        pa.field("perplexity", pa.float32()),  # null without a model of the document's language
        pa.field("emails", pa.int32(), nullable=False),  # addresses, before any is masked
        pa.field("ip_addresses", pa.int32(), nullable=False),  # public ones
        pa.field("contamination", pa.int32(), nullable=False),  # places where an n-gram of an evaluation set begins
        pa.field("contaminated_by", pa.string()),  # the sets, joined by commas; null where there is none
        pa.field("terms", pa.list_(pa.int32())),  # places where a term begins, by list in the recipe's order; null without lists
        pa.field("n_tokens", pa.int32(), nullable=False),  # without the end-of-document token
        *SIGNAL_FIELDS,
        pa.field("token_ids", pa.large_binary(), nullable=False),  # little-endian uint16, or int32 by vocabulary
    ]
)


def part_key(store: Store, recipe: Recipe, part: Part, model_hashes: models.Hashes) -> str:
    """The key of one signals part: models, document text, and the paragraphs that are left out of it."""
    clusters = store.sidecar(part.path("clusters"))
    assert clusters is not None
    mask = recipe.sources[part.source].mask
    parameters = [recipe.language_characters, mask, [field.name for field in SIGNAL_FIELDS]]
    return stage_key("annotate", VERSION, parameters, [part.sha256, clusters["paragraphs"], *model_hashes])


class Annotator:
    """The kernels with their models and caches; one per worker thread."""

    def __init__(self, loaded: models.Models, language_characters: int | None) -> None:
        self._language = LanguageIdentifier(loaded.language, language_characters)
        self._signals = Signals(loaded.bad_words)
        self._quality = None if loaded.quality is None else Scorer(loaded.quality)
        self._perplexity = PerplexityScorer(loaded.perplexity)
        self._evaluations = loaded.evaluations or build_index({})
        self._terms = loaded.terms or build_terms({})
        self._encoder = Encoder(loaded.tokenizer)
        self._dtype = token_dtype(loaded.tokenizer.vocab_size)

    def __call__(self, texts: pa.Array, found: pa.Array | None = None) -> pa.RecordBatch:
        """SIGNALS of a batch of texts (large_string). found: the same before addresses were masked, where they are counted."""
        emails, addresses = pii.count(texts if found is None else found)
        languages, scores = self._language(texts)
        signals = self._signals(texts)
        quality = pa.nulls(len(texts), pa.float32()) if self._quality is None else pa.array(self._quality(texts))
        contamination, contaminated_by = overlaps(texts, self._evaluations)
        ids, offsets = self._encoder(texts)
        columns = {
            "text_bytes": pa.array(np.diff(buffers(texts)[1])),
            "language": languages.cast(pa.string()),
            "language_score": pa.array(scores, pa.float32()),
            "quality": quality,
            "perplexity": pa.array(self._perplexity(ids, offsets, languages.to_pylist()), pa.float32(), from_pandas=True),
            "emails": pa.array(emails),
            "ip_addresses": pa.array(addresses),
            "contamination": pa.array(contamination),
            "contaminated_by": pa.array(contaminated_by, pa.string()),
            "terms": count_terms(texts, self._terms),
            "n_tokens": pa.array(np.diff(offsets).astype(np.int32)),
            "token_ids": pack_ids(ids, offsets, self._dtype),
        }
        arrays = [columns[f.name] if f.name in columns else signals.column(f.name) for f in SIGNALS]
        return pa.RecordBatch.from_arrays(arrays, schema=SIGNALS)


def annotate_part(store: Store, part: Part, annotator: Annotator, mask: bool, key: str) -> None:
    """Publishes the signals of a part, in the row groups of its documents."""
    path, tokens = part.path("signals"), 0
    if store.is_finished(path, key):
        return
    store.begin(path)
    with (
        reading_table(store, part.path("documents")) as documents,
        reading_table(store, part.path("clusters")) as clusters,
        store.publishing(path) as sink,
    ):
        writer = TableWriter(sink, SIGNALS)
        for group in range(documents.num_row_groups):
            texts = documents.read_row_group(group, ["text"], use_threads=False).column("text").combine_chunks()
            dropped = clusters.read_row_group(group, ["dropped_paragraphs"], use_threads=False).column(0)
            batch = annotator(*written(texts, dropped.combine_chunks(), mask))
            writer.write(batch)
            tokens += int(np.sum(batch.column("n_tokens").to_numpy(), dtype=np.int64))
        writer.close()
    assert sink.result is not None
    store.finish(sink.result, key, rows=writer.rows, tokens=tokens)


# -- wiring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _AnnotateWorker:
    store: Store
    language_characters: int | None
    masked: frozenset[str]  # sources

    def start(self) -> Callable[[Any], None]:
        annotator = Annotator(models.load(self.store), self.language_characters)
        return lambda e: annotate_part(self.store, e[0], annotator, e[0].source in self.masked, e[1])


def wire(pipeline: beam.Pipeline, store: Store, recipe: Recipe, keyed: Sequence[tuple[Part, str]]) -> None:
    """documents/ + clusters/ + models/ -> signals/"""
    masked = frozenset(name for name, source in recipe.sources.items() if source.mask)
    worker = _AnnotateWorker(store, recipe.language_characters, masked)
    spread(pipeline, "Parts", keyed) | "Annotate" >> beam.ParDo(Each(worker))
