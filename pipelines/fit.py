"""fit: what is learned from a deterministic sample of the documents: tokenizer, quality classifier, perplexity models; and the
indexes of evaluation sets and terms that the recipe names, which no document changes.

The sample leaves out validation clusters, every duplicate but the smallest of its cluster, and what is taken back (`removal`),
so that nothing learned has seen such a text and no text counts twice. Whether a document is in it is a hash of its doc_id, so the
sample does not depend on order, parts or workers. Sampling runs on the workers, part by part; learning is single-threaded, in
fixed order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines import bpe, fit_references, models, references, removal
from pipelines.beam_parts import Each, spread
from pipelines.cluster_parts import id_bytes, ids_or, part_ids
from pipelines.dedup.paragraphs import without
from pipelines.errors import UserError
from pipelines.fit_lists import GivenLists, publish_indexes
from pipelines.judge import splits
from pipelines.parts import Part, content_of
from pipelines.recipe import Recipe
from pipelines.store import Store, TableWriter, read_columns, reading_table, stage_key
from quality import classifier, classifier_fit, language, ngrams, perplexity, pii, sampling

VERSION = 4

SAMPLE = pa.schema(
    [
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("for_quality", pa.bool_(), nullable=False),
        pa.field("for_tokenizer", pa.bool_(), nullable=False),
        pa.field("for_perplexity", pa.bool_(), nullable=False),
        pa.field("url", pa.string()),  # of the classes of the reference classifier; null otherwise
        pa.field("cited", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of a source's documents that each purpose samples."""

    quality: float
    tokenizer: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """What sampling reads of the recipe."""

    seed: int
    validation: float
    masked: frozenset[str]  # sources
    by_citation: frozenset[str]  # sources whose documents are of one class or the other by what is cited


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
    perplexity = dict.fromkeys(recipe.sources, 0.0)
    if recipe.fit.perplexity is not None:
        taught = set(recipe.fit.perplexity.sources)
        for group in (taught, recipe.sources.keys() - taught):
            size = sum(text_bytes[name] for name in group)
            perplexity |= dict.fromkeys(group, min(1.0, recipe.fit.perplexity.sample_mb * 1e6 / max(size, 1)))
    return {
        source: Shares(min(1.0, wanted[source] / max(text_bytes[source], 1)), tokenizer, perplexity[source])
        for source in recipe.sources
    }


def sample_key(store: Store, recipe: Recipe, part: Part, share: Shares) -> str:
    clusters = content_of(store, [part.path("clusters")])
    mask, cited = recipe.sources[part.source].mask, part.source in _by_citation(recipe) and references.digest(store, recipe)
    parameters = [share.quality, share.tokenizer, share.perplexity, mask, cited, recipe.seed, recipe.tokens.validation]
    return stage_key("sample", VERSION, parameters, [part.sha256, clusters, *removal.content(store, [part])])


def _by_citation(recipe: Recipe) -> frozenset[str]:
    chosen = recipe.fit.quality
    return frozenset(chosen.web if chosen is not None and chosen.cited_in else [])


def sample_part(store: Store, part: Part, share: Shares, settings: SampleSettings, key: str, keys: np.ndarray) -> None:
    """Publishes the sampled documents of a part as they will be written: see `annotate`. keys: uint64 [n], what wikis cite.

    Of a source whose classes are told by citation, every cited document is sampled; its sidecar counts all that are cited.
    """
    path, cited = part.path("samples"), 0
    if store.is_finished(path, key):
        return
    store.begin(path)
    with (
        reading_table(store, part.path("documents")) as documents,
        reading_table(store, part.path("clusters")) as clusters,
        store.publishing(path) as sink,
    ):
        writer = TableWriter(sink, SAMPLE)
        removed = removal.removed(store, part)
        for group in range(documents.num_row_groups):
            found = documents.read_row_group(group, ["doc_id", "text", "url"], use_threads=False)
            if part.source not in settings.by_citation:
                found = found.set_column(2, SAMPLE.field("url"), pa.nulls(len(found), pa.string()))
            are_cited = references.are_cited(keys, found.column("url").to_pylist())
            cited += int(are_cited.sum())
            there, removed = ~removed[: len(found)], removed[len(found) :]
            batch = _sampled(found, clusters.read_row_group(group, use_threads=False), there, share, settings, are_cited)
            texts = batch.column("text")
            masked = pii.mask(texts) if part.source in settings.masked else texts
            writer.write(batch.set_column(1, SAMPLE.field("text"), masked))
        writer.close()
    assert sink.result is not None
    store.finish(sink.result, key, rows=writer.rows, cited=cited)


def _sampled(
    found: pa.Table, clusters: pa.Table, there: np.ndarray, share: Shares, settings: SampleSettings, cited: np.ndarray
) -> pa.RecordBatch:
    seed = settings.seed
    own = np.stack(part_ids(found.column("doc_id")), axis=1)
    exact = ids_or(clusters.column("exact_cluster"), own)
    near = ids_or(clusters.column("near_cluster"), own)
    alone = (exact == own).all(axis=1) & (near == own).all(axis=1)
    eligible = there & alone & ~splits(id_bytes(ids_or(clusters.column("near_cluster"), exact)), seed, settings.validation)
    ids = id_bytes(own)
    for_quality = eligible & (cited | (sampling.uniform(ids, seed, "fit quality") < share.quality))
    for_tokenizer = eligible & (sampling.uniform(ids, seed, "fit tokenizer") < share.tokenizer)
    for_perplexity = eligible & (sampling.uniform(ids, seed, "fit perplexity") < share.perplexity)
    purposes = [for_quality, for_tokenizer, for_perplexity]
    doc_ids, texts, urls = (found.column(name).combine_chunks() for name in ("doc_id", "text", "url"))
    texts = without(texts, clusters.column("dropped_paragraphs").combine_chunks())
    columns = [doc_ids, texts, *map(pa.array, purposes), urls, pa.array(cited)]
    return pa.RecordBatch.from_arrays(columns, schema=SAMPLE).filter(pa.array(np.logical_or.reduce(purposes)))


# -- learning -----------------------------------------------------------------------------------------------------------------


def fit_models(
    store: Store, recipe: Recipe, parts: Sequence[Part], language_model: bytes, given: bytes | None, lists: GivenLists
) -> None:
    """Publishes models/ where they do not stand yet. `given`: the content of the recipe's own tokenizer.json."""
    _publish(store, models.LANGUAGE, language_model, stage_key("language", VERSION, [], []))
    samples = content_of(store, [part.path("samples") for part in parts])
    _fit_tokenizer(store, recipe, parts, samples, given)
    _fit_quality(store, recipe, parts, samples)
    _fit_perplexity(store, recipe, parts, samples)
    publish_indexes(store, lists)


def _without(store: Store, *paths: str) -> None:
    """Takes away models that the recipe no longer fits."""
    for path in paths:
        store.begin(path)
        store.remove(path)


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
        return _without(store, models.QUALITY, models.QUALITY_CARD)
    key = stage_key("quality", VERSION, [chosen.model_dump(mode="json"), recipe.seed], samples)
    if store.is_finished(models.QUALITY, key) and store.is_finished(models.QUALITY_CARD, key):
        return

    def examples(names: Sequence[str], curated: bool) -> list[classifier_fit.Example]:
        return [_example(store, [part for part in parts if part.source == name], name, curated) for name in names]

    cited: dict[str, Any] = {}
    if chosen.cited_in:
        training, found = fit_references.examples(store, recipe, parts)
        cited = {"references": found}
    else:
        training = examples(chosen.curated, True) + examples(chosen.web, False)
        for example in training:
            if len(example.texts) == 0:
                raise UserError(f"fit.quality: the source {example.source!r} has no document to learn from")
    judging = examples(chosen.judge_curated, True) + examples(chosen.judge_web, False)
    fitted = classifier_fit.fit(training, judging, classifier_fit.FitSettings(seed=recipe.seed))
    files = classifier.save(replace(fitted, metrics={**fitted.metrics, **cited}))
    _publish(store, models.QUALITY_CARD, files["quality.json"], key)
    _publish(store, models.QUALITY, files["quality.safetensors"], key)


def _example(store: Store, parts: Sequence[Part], source: str, curated: bool) -> classifier_fit.Example:
    columns = ["doc_id", "text", "for_quality"]
    tables = [pa.schema([SAMPLE.field(name) for name in columns]).empty_table()]
    for part in parts:
        with reading_table(store, part.path("samples")) as file:
            for group in range(file.num_row_groups):  # one at a time: what is filtered out is never held
                found = file.read_row_group(group, columns, use_threads=False)
                tables.append(found.filter(found.column("for_quality")))
    table = pa.concat_tables(tables)
    return classifier_fit.Example(
        source, curated, table.column("text").combine_chunks(), table.column("doc_id").combine_chunks()
    )


def _fit_perplexity(store: Store, recipe: Recipe, parts: Sequence[Part], samples: list[str]) -> None:
    chosen = recipe.fit.perplexity
    if chosen is None:
        return _without(store, models.PERPLEXITY, models.PERPLEXITY_CARD)
    made_from = [samples, models.hashes(store)[:2]]
    key = stage_key("perplexity", VERSION, [chosen.model_dump(mode="json"), recipe.language_characters], made_from)
    if store.is_finished(models.PERPLEXITY, key) and store.is_finished(models.PERPLEXITY_CARD, key):
        return
    reader = _Reader(store, recipe.language_characters)
    taught = reader.by_language(part for part in parts if part.source in chosen.sources)
    judged = reader.by_language(part for part in parts if part.source not in chosen.sources)
    fitted = {
        language: ngrams.with_bounds(ngrams.fit(documents, reader.vocab_size), judged.get(language, []))
        for language, documents in sorted(taught.items())
        if sum(map(len, documents)) >= chosen.min_tokens
    }
    if not fitted:
        sizes = ", ".join(f"{language} {sum(map(len, found)):,}" for language, found in sorted(taught.items())) or "no document"
        raise UserError(f"fit.perplexity: no language of its sources has {chosen.min_tokens:,} tokens ({sizes}); name more sources")
    card = {
        language: {
            "tokens": sum(map(len, taught[language])),
            "documents": len(taught[language]),
            "judged": len(judged.get(language, [])),
            # Without a document to find the thirds by, all is head.
            **{name: bound if np.isfinite(bound) else None for name, bound in (("head", model.head), ("middle", model.middle))},
        }
        for language, model in fitted.items()
    }
    _publish(store, models.PERPLEXITY_CARD, json.dumps(card, indent=1).encode(), key)
    _publish(store, models.PERPLEXITY, perplexity.save(fitted), key)


class _Reader:
    """Sampled documents as token ids by language."""

    def __init__(self, store: Store, language_characters: int | None) -> None:
        loaded = language.parse(store.read(models.LANGUAGE), models.LANGUAGE)
        tokenizer = bpe.load(store.read(models.TOKENIZER), models.TOKENIZER)
        self._store, self._identify = store, language.LanguageIdentifier(loaded, language_characters)
        self._encode, self.vocab_size = bpe.Encoder(tokenizer), tokenizer.vocab_size

    def by_language(self, parts: Iterable[Part]) -> dict[str, list[np.ndarray]]:
        found: dict[str, list[np.ndarray]] = {}
        for part in parts:
            table = read_columns(self._store, part.path("samples"), ["text", "for_perplexity"])
            for batch in table.filter(table.column("for_perplexity")).to_batches(max_chunksize=1000):
                labels = self._identify(batch.column("text"))[0].to_pylist()
                ids, offsets = self._encode(batch.column("text"))
                for number, label in enumerate(labels):
                    if label is not None:
                        found.setdefault(label, []).append(ids[offsets[number] : offsets[number + 1]].copy())
        return found


# -- wiring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _SampleWorker:
    store: Store
    settings: SampleSettings

    def start(self) -> Callable[[Any], None]:
        keys = references.load(self.store) if self.settings.by_citation else np.zeros(0, np.uint64)
        return lambda e: sample_part(self.store, e[0], e[1], self.settings, e[2], keys)


def stale_samples(store: Store, recipe: Recipe, parts: Sequence[Part]) -> list[tuple[Part, Shares, str]]:
    """The parts whose sample does not stand under its present key."""
    by_source = shares(recipe, parts)

    def keyed(part: Part) -> tuple[Part, Shares, str] | None:
        share = by_source[part.source]
        key = sample_key(store, recipe, part, share)
        return None if store.is_finished(part.path("samples"), key) else (part, share, key)

    return [found for found in store.each(parts, keyed) if found is not None]


def wire(
    pipeline: beam.Pipeline, store: Store, recipe: Recipe, stale: Sequence[tuple[Part, Shares, str]]
) -> None:
    """documents/ + clusters/ -> samples/"""
    masked = frozenset(name for name, source in recipe.sources.items() if source.mask)
    worker = _SampleWorker(store, SampleSettings(recipe.seed, recipe.tokens.validation, masked, _by_citation(recipe)))
    spread(pipeline, "Parts", stale) | "Sample" >> beam.ParDo(Each(worker))
