"""What `verify --deep` does again by other means than the build's: readers, decoder, language identification.

    records     every input is read again by a counter that shares no code with its reader
    shards      every token file of every variant is split at its end-of-document tokens and decoded by Hugging Face
                `tokenizers`; text must be that of the kept documents without their dropped paragraphs, byte for byte, in order,
                and the index must have the lengths that were found
    purged      of documents that a purge has emptied nothing must be left; all else about them cannot be known again
    languages   of a sample of documents, drawn by a hash of their ids, by the fastText library, where it is installed
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from importlib import util
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import models, removal
from pipelines.cluster_parts import id_bytes, part_ids
from pipelines.dedup.paragraphs import without_reference
from pipelines.parts import Part
from pipelines.plan import Plan
from pipelines.recipe import Recipe
from pipelines.schema import KEEP
from pipelines.sources import SourceOptions, count_records
from pipelines.store import Store, read_columns, reading_table
from pipelines.tokenize import SPLITS, Shard, list_shards
from quality import language, pii, sampling

_BLOCK = 8 << 20  # bytes of a token file that are held
_BATCH = 256  # documents that are decoded together
_INDEX_HEAD = 34  # bytes of an index before its lengths
_SAMPLE = 1000  # documents whose language is identified again


def records(recipe: Recipe, plan: Plan, accounts: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """(records of every source as counted now, faults). An input that is gone is a UserError."""
    counts: dict[str, int] = {}
    faults = []
    for source, chosen in recipe.sources.items():
        inputs = {one.path: one for task in plan.of_source(source) for one in task.inputs}
        options = SourceOptions.named(chosen.fields)
        found = sum(count_records(chosen.format, one, options) for one in inputs.values())
        counts[source] = found
        read = accounts["sources"][source]["records"]
        if found != read:
            faults.append(f"sources.{source}: {read} records were read, {found} are counted in the inputs")
    return counts, faults


# -- shards -----------------------------------------------------------------------------------------------------------------


def shards(store: Store, recipe: Recipe, parts: Sequence[Part]) -> tuple[dict[str, int], list[str]]:
    """(variant -> documents that were decoded and compared, faults: the first of every shard that has one)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(store.read(models.TOKENIZER))
    counts = dict.fromkeys(recipe.variants, 0)
    faults = []
    for variant in recipe.variants:
        for shard in list_shards(recipe, parts):
            for split in SPLITS:
                compared, fault = _compare(store, recipe, tokenizer, shard, variant, split)
                counts[variant] += compared
                faults += [fault] if fault else []
    return counts, faults


def _compare(store: Store, recipe: Recipe, tokenizer: Any, shard: Shard, variant: str, split: str) -> tuple[int, str]:
    """(documents of one shard that hold what they should, the first fault or "")."""
    prefix = f"tokens/{variant}/{shard.prefix(split)}"
    (end,) = tokenizer.get_added_tokens_decoder()
    dtype = np.dtype("<u2" if tokenizer.get_vocab_size() < 65_500 else "<i4")
    lengths: list[int] = []
    expected = _kept_texts(store, recipe, shard.parts, variant, split)
    for batch in _batched(_token_documents(store, prefix + ".bin", dtype, end), _BATCH):
        texts = tokenizer.decode_batch([ids.tolist() for ids in batch], skip_special_tokens=False)
        for ids, text in zip(batch, texts, strict=True):
            doc_id, wanted = next(expected, ("", None))
            if wanted is None:
                return len(lengths), f"{prefix}.bin: more documents than are kept ({len(lengths)})"
            if text.encode() != wanted.encode():
                return len(lengths), f"{prefix}.bin: document {len(lengths)} is not the text of {doc_id}"
            lengths.append(len(ids) + 1)
    if next(expected, None) is not None:
        return len(lengths), f"{prefix}.bin: ends after {len(lengths)} documents, but more are kept"
    index = store.read(prefix + ".idx")
    if np.frombuffer(index, "<i4", len(lengths), _INDEX_HEAD).tolist() != lengths:
        return len(lengths), f"{prefix}.idx: has other lengths than the documents of its .bin"
    return len(lengths), ""


def _token_documents(store: Store, path: str, dtype: np.dtype, end: int) -> Iterator[np.ndarray]:
    """The ids of every document of a token file, without the end-of-document token that closes it."""
    rest = np.empty(0, dtype)
    with store.open(path) as stream:
        while block := stream.read(_BLOCK):
            ids = np.concatenate([rest, np.frombuffer(block, dtype)])
            *documents, rest = np.split(ids, np.flatnonzero(ids == end) + 1)
            yield from (document[:-1] for document in documents)
    if len(rest):
        yield rest  # a document without its end: no text is equal to it unless tokens were cut off


def _kept_texts(
    store: Store, recipe: Recipe, parts: Sequence[Part], variant: str, split: str
) -> Iterator[tuple[str, str]]:
    """(doc_id, text) of the documents that a shard should hold, in order."""
    for part in parts:
        decisions = read_columns(store, part.decisions(variant), ["verdict", "split"])
        kept = pc.and_(pc.equal(decisions.column("verdict"), KEEP), pc.equal(decisions.column("split"), split))
        yield from _texts(store, recipe, part, kept.combine_chunks())


def _texts(store: Store, recipe: Recipe, part: Part, chosen: pa.Array) -> Iterator[tuple[str, str]]:
    """(doc_id, text as it was written) of the chosen (bool [rows]) documents of a part."""
    masked = recipe.sources[part.source].mask
    first = 0
    with reading_table(store, part.path("documents")) as documents, reading_table(store, part.path("clusters")) as clusters:
        for group in range(documents.num_row_groups):
            rows = documents.metadata.row_group(group).num_rows
            mask = chosen.slice(first, rows)
            first += rows
            found = documents.read_row_group(group, ["doc_id", "text"], use_threads=False).filter(mask)
            dropped = clusters.read_row_group(group, ["dropped_paragraphs"], use_threads=False).filter(mask)
            for row, lines in zip(found.to_pylist(), dropped.column(0).to_pylist(), strict=True):
                text = without_reference(row["text"], frozenset(lines or ()))
                yield row["doc_id"].hex(), pii.masked(text) if masked else text


# -- purged documents -------------------------------------------------------------------------------------------------------

# What names a document, and what has a value for a text of nothing, where a later build judges it.
_IDENTITY, _OF_NOTHING = ("doc_id", "source", "locator"), ("content_hash", "quality", "lines")


def purged(store: Store, parts: Sequence[Part]) -> tuple[int, list[str]]:
    """(documents that are purged, faults): their columns must be null, empty or 0 but for what names the document."""
    count = 0
    faults = []
    for part in parts:
        rows = sorted(row for some in removal.purged(store, part).values() for row in some)
        count += len(rows)
        for table in ("documents", "signals") if rows else ():
            with reading_table(store, part.path(table)) as file:
                names = [name for name in file.schema_arrow.names if name not in _IDENTITY + _OF_NOTHING]
            for name in names:
                left = [value for value in read_columns(store, part.path(table), [name]).column(0).take(rows).to_pylist() if value]
                if left:
                    faults.append(f"{part.path(table)}: {len(left)} purged documents still have their {name}")
    return count, faults


# -- languages --------------------------------------------------------------------------------------------------------------


def languages(store: Store, recipe: Recipe, parts: Sequence[Part]) -> tuple[int | None, list[str]]:
    """(documents whose language was identified again, faults); None without the fastText library."""
    if util.find_spec("fasttext") is None:
        return None, []
    compared = 0
    faults = []
    rows = sum(part.rows for part in parts)
    for part in parts:
        chosen = _sample(store, part, recipe.seed, _SAMPLE / max(rows, 1))
        stored = read_columns(store, part.path("signals"), ["language"]).column(0).filter(chosen).to_pylist()
        sampled = list(_texts(store, recipe, part, chosen))
        texts = [text[: recipe.language_characters] for _, text in sampled]
        for (doc_id, _), was, label in zip(sampled, stored, fasttext_labels(store, texts), strict=True):
            compared += 1
            if label != was:
                faults.append(f"{part.path('signals')}: {doc_id} is {was}, fastText says {label}")
    return compared, faults


def _sample(store: Store, part: Part, seed: int, rate: float) -> pa.Array:
    """bool [rows]: a draw by a hash of each document's id."""
    ids = np.stack(part_ids(read_columns(store, part.path("documents"), ["doc_id"]).column(0)), axis=1)
    return pa.array(sampling.uniform(id_bytes(ids), seed, "verify languages") < rate)


def fasttext_labels(store: Store, texts: Sequence[str]) -> list[str | None]:
    """The most probable language of each text, by the fastText library with the run's model; None for white space."""
    model = language.parse(store.read(models.LANGUAGE), store.url(models.LANGUAGE))
    labels, _ = language.reference(model, pa.array(texts, pa.large_string()))
    return labels.to_pylist()


def _batched(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
