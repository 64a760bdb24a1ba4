"""fit: what is learned from a deterministic sample of the documents: the quality classifier and the tokenizer.

The sample leaves out validation clusters and every duplicate but the smallest of its cluster, so that nothing learned has
seen a held-out text and no text counts twice. Whether a document is in it is a hash of its doc_id, so the sample does not
depend on order, parts or workers. Sampling runs on the workers, part by part; learning is single-threaded, in fixed order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines import bpe, models
from pipelines.beam_parts import Each, spread
from pipelines.cluster_parts import id_bytes, ids_or, part_ids
from pipelines.dedup.paragraphs import without
from pipelines.errors import UserError
from pipelines.judge import splits
from pipelines.parts import Part, content_of
from pipelines.recipe import Recipe
from pipelines.store import Store, TableWriter, read_columns, reading_table, stage_key
from quality import classifier, classifier_fit, sampling

VERSION = 1

SAMPLE = pa.schema(
    [
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("for_quality", pa.bool_(), nullable=False),
        pa.field("for_tokenizer", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of a source's documents that each purpose samples."""

    quality: float
    tokenizer: float


def shares(recipe: Recipe, parts: Sequence[Part]) -> dict[str, Shares]:
    """Shares by source, so that each class gets about `sample_mb`, equally from its sources."""
    text_bytes = {source: sum(part.text_bytes for part in parts if part.source == source) for source in recipe.sources}
    wanted = dict.fromkeys(recipe.sources, 0.0)
    quality = recipe.fit.quality
    if quality is not None:
        for names in (quality.curated, quality.web, quality.judge_curated, quality.judge_web):
            for name in names:
                wanted[name] = quality.sample_mb * 1e6 / len(names)
    total = sum(text_bytes.values())
    tokenizer = 0.0 if recipe.fit.tokenizer.file else min(1.0, recipe.fit.tokenizer.sample_mb * 1e6 / max(total, 1))
    return {
        source: Shares(min(1.0, wanted[source] / max(text_bytes[source], 1)), tokenizer) for source in recipe.sources
    }


def sample_key(store: Store, recipe: Recipe, part: Part, share: Shares) -> str:
    clusters = content_of(store, [part.path("clusters")])
    parameters = [share.quality, share.tokenizer, recipe.seed, recipe.tokens.validation]
    return stage_key("sample", VERSION, parameters, [part.sha256, clusters])


def sample_part(store: Store, part: Part, share: Shares, seed: int, validation: float, key: str) -> None:
    """Publishes the sampled documents of a part, without the paragraphs that are left out of it."""
    path = part.path("samples")
    store.begin(path)
    with (
        reading_table(store, part.path("documents")) as documents,
        reading_table(store, part.path("clusters")) as clusters,
        store.publishing(path) as sink,
    ):
        writer = TableWriter(sink, SAMPLE)
        for group in range(documents.num_row_groups):
            found = documents.read_row_group(group, ["doc_id", "text"], use_threads=False)
            writer.write(_sampled(found, clusters.read_row_group(group, use_threads=False), share, seed, validation))
        writer.close()
    assert sink.result is not None
    store.finish(sink.result, key, rows=writer.rows)


def _sampled(found: pa.Table, clusters: pa.Table, share: Shares, seed: int, validation: float) -> pa.RecordBatch:
    own = np.stack(part_ids(found.column("doc_id")), axis=1)
    exact = ids_or(clusters.column("exact_cluster"), own)
    near = ids_or(clusters.column("near_cluster"), own)
    alone = (exact == own).all(axis=1) & (near == own).all(axis=1)
    eligible = alone & ~splits(id_bytes(ids_or(clusters.column("near_cluster"), exact)), seed, validation)
    ids = id_bytes(own)
    for_quality = eligible & (sampling.uniform(ids, seed, "fit quality") < share.quality)
    for_tokenizer = eligible & (sampling.uniform(ids, seed, "fit tokenizer") < share.tokenizer)
    chosen = pa.array(for_quality | for_tokenizer)
    texts = without(
        found.column("text").combine_chunks(), clusters.column("dropped_paragraphs").combine_chunks()
    )
    columns = [found.column("doc_id").combine_chunks(), texts, pa.array(for_quality), pa.array(for_tokenizer)]
    return pa.RecordBatch.from_arrays(columns, schema=SAMPLE).filter(chosen)


# -- learning -----------------------------------------------------------------------------------------------------------------


def fit_models(store: Store, recipe: Recipe, parts: Sequence[Part], language_model: bytes, given: bytes | None) -> None:
    """Publishes models/ where they do not stand yet. `given`: the content of the recipe's own tokenizer.json."""
    _publish(store, models.LANGUAGE, language_model, stage_key("language", VERSION, [], []))
    samples = content_of(store, [part.path("samples") for part in parts])
    _fit_tokenizer(store, recipe, parts, samples, given)
    _fit_quality(store, recipe, parts, samples)


def _publish(store: Store, path: str, data: bytes, key: str) -> None:
    store.begin(path)
    store.finish(store.publish(path, data), key)


def _fit_tokenizer(store: Store, recipe: Recipe, parts: Sequence[Part], samples: list[str], given: bytes | None) -> None:
    chosen = recipe.fit.tokenizer
    key = stage_key("tokenizer", VERSION, chosen.model_dump(mode="json"), [samples, _digest(given)])
    if store.is_finished(models.TOKENIZER, key):
        return
    if given is not None:
        tokenizer = bpe.load(given, chosen.file or "tokenizer")
    else:
        tokenizer = bpe.train(_tokenizer_texts(store, parts), chosen.vocab_size, chosen.digits)
    _publish(store, models.TOKENIZER, bpe.save(tokenizer), key)


def _digest(given: bytes | None) -> str | None:
    return None if given is None else hashlib.sha256(given).hexdigest()


def _tokenizer_texts(store: Store, parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        with reading_table(store, part.path("samples")) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, ["text", "for_tokenizer"], use_threads=False)
                yield from table.filter(table.column("for_tokenizer")).column("text").to_pylist()


def _fit_quality(store: Store, recipe: Recipe, parts: Sequence[Part], samples: list[str]) -> None:
    chosen = recipe.fit.quality
    if chosen is None:
        for path in (models.QUALITY, models.QUALITY_CARD):
            store.begin(path)
            store.remove(path)
        return
    key = stage_key("quality", VERSION, [chosen.model_dump(mode="json"), recipe.seed], samples)
    if store.is_finished(models.QUALITY, key) and store.is_finished(models.QUALITY_CARD, key):
        return

    def examples(names: Sequence[str], curated: bool) -> list[classifier_fit.Example]:
        return [_example(store, [part for part in parts if part.source == name], name, curated) for name in names]

    training = examples(chosen.curated, True) + examples(chosen.web, False)
    judging = examples(chosen.judge_curated, True) + examples(chosen.judge_web, False)
    for example in training:
        if len(example.texts) == 0:
            raise UserError(f"fit.quality: the source {example.source!r} has no document to learn from")
    fitted = classifier_fit.fit(training, judging, classifier_fit.FitSettings(seed=recipe.seed))
    files = classifier.save(fitted)
    _publish(store, models.QUALITY_CARD, files["quality.json"], key)
    _publish(store, models.QUALITY, files["quality.safetensors"], key)


def _example(store: Store, parts: Sequence[Part], source: str, curated: bool) -> classifier_fit.Example:
    tables = [read_columns(store, part.path("samples"), ["doc_id", "text", "for_quality"]) for part in parts]
    table = pa.concat_tables(tables) if tables else SAMPLE.empty_table()
    table = table.filter(table.column("for_quality"))
    return classifier_fit.Example(
        source, curated, table.column("text").combine_chunks(), table.column("doc_id").combine_chunks()
    )


# -- wiring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _SampleWorker:
    store: Store
    seed: int
    validation: float

    def start(self) -> Callable[[Any], None]:
        return lambda e: sample_part(self.store, e[0], e[1], self.seed, self.validation, e[2])


def stale_samples(store: Store, recipe: Recipe, parts: Sequence[Part]) -> list[tuple[Part, Shares, str]]:
    """The parts whose sample does not stand under its present key."""
    by_source = shares(recipe, parts)
    keyed = [(part, by_source[part.source], sample_key(store, recipe, part, by_source[part.source])) for part in parts]
    return [element for element in keyed if not store.is_finished(element[0].path("samples"), element[2])]


def wire(
    pipeline: beam.Pipeline, store: Store, recipe: Recipe, stale: Sequence[tuple[Part, Shares, str]]
) -> None:
    """documents/ + clusters/ -> samples/"""
    worker = _SampleWorker(store, recipe.seed, recipe.tokens.validation)
    spread(pipeline, "Parts", stale) | "Sample" >> beam.ParDo(Each(worker))
