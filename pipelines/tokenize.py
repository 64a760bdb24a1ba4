"""tokenize: decisions + token ids -> Megatron shards per variant, split, source and shard number.

Shard k of a source holds the kept documents of the parts whose name hashes to k, in part order; every document ends with the
end-of-document token. The ids were made by annotate; here they are gathered, once for all variants that are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.beam_parts import Each, spread
from pipelines.parts import Part, content_of, shard_of
from pipelines.recipe import Recipe
from pipelines.schema import KEEP, TRAIN, VALIDATION
from pipelines.shards import ShardWriter, blend, token_dtype
from pipelines.store import Store, read_columns, reading_table, stage_key

VERSION = 1
SPLITS = (TRAIN, VALIDATION)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a source: its parts, and the variants whose files are to be written, with their keys."""

    source: str
    number: int
    of: int
    parts: tuple[Part, ...]
    keys: tuple[tuple[str, str], ...]  # (variant, key)

    def prefix(self, split: str) -> str:
        return f"{split}/{self.source}-{self.number:05d}-of-{self.of:05d}"

    def paths(self, variant: str) -> list[str]:
        """Every file of the shard that is written for a variant."""
        return [f"tokens/{variant}/{self.prefix(split)}{end}" for split in SPLITS for end in (".bin", ".idx")]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a shard needs to know of the tokenizer."""

    size: int
    end_of_document: int


def list_shards(recipe: Recipe, parts: Sequence[Part]) -> list[Shard]:
    """Every shard of every source, without keys."""
    count = recipe.tokens.shards
    return [
        Shard(source, k, count, tuple(p for p in parts if p.source == source and shard_of(p, count) == k), ())
        for source in sorted(recipe.sources)
        for k in range(count)
    ]


def stale_shards(store: Store, recipe: Recipe, parts: Sequence[Part], vocabulary: Vocabulary) -> list[Shard]:
    """The shards with at least one variant whose files do not stand under their present key."""
    stale = []
    for shard in list_shards(recipe, parts):
        keys = []
        for variant in recipe.variants:
            made_from = [
                content_of(store, [part.path("signals") for part in shard.parts]),
                content_of(store, [part.decisions(variant) for part in shard.parts]),
            ]
            key = stage_key("tokenize", VERSION, [vocabulary.size, vocabulary.end_of_document], made_from)
            if not _stands(store, shard, variant, key):
                keys.append((variant, key))
        if keys:
            stale.append(Shard(shard.source, shard.number, shard.of, shard.parts, tuple(keys)))
    return stale


def _stands(store: Store, shard: Shard, variant: str, key: str) -> bool:
    return all(store.is_finished(path, key) for path in shard.paths(variant))


def write_shard(store: Store, shard: Shard, vocabulary: Vocabulary) -> None:
    """Publishes `.bin` and then `.idx` of a shard for its variants and both splits; the sidecar of `.idx` ends it.

    Variants whose files stand under their key are left as they are.
    """
    keys = [(variant, key) for variant, key in shard.keys if not _stands(store, shard, variant, key)]
    if not keys:
        return
    dtype = token_dtype(vocabulary.size)
    with ExitStack() as stack:
        writers = {}
        for variant, _ in keys:
            for split in SPLITS:
                prefix = f"tokens/{variant}/{shard.prefix(split)}"
                store.begin(prefix + ".idx")
                store.begin(prefix + ".bin")
                sink = stack.enter_context(store.publishing(prefix + ".bin"))
                writers[variant, split] = (sink, ShardWriter(sink, dtype, vocabulary.end_of_document))
        for part in shard.parts:
            _append_part(store, part, [variant for variant, _ in keys], writers, dtype)
    for variant, key in keys:
        for split in SPLITS:
            sink, writer = writers[variant, split]
            facts = {"documents": writer.documents, "tokens": writer.tokens}
            assert sink.result is not None
            store.finish(sink.result, key, **facts)
            index = store.publish(f"tokens/{variant}/{shard.prefix(split)}.idx", writer.index())
            store.finish(index, key, **facts)


def _append_part(store: Store, part: Part, variants: list[str], writers: dict[Any, Any], dtype: np.dtype) -> None:
    chosen = {}
    for variant in variants:
        decisions = read_columns(store, part.decisions(variant), ["verdict", "split"])
        kept = pc.equal(decisions.column("verdict"), KEEP)
        for split in SPLITS:
            chosen[variant, split] = pc.and_(kept, pc.equal(decisions.column("split"), split)).combine_chunks()
    first = 0
    with reading_table(store, part.path("signals")) as signals:
        for group in range(signals.num_row_groups):
            column = signals.read_row_group(group, ["token_ids"], use_threads=False).column(0).combine_chunks()
            for which, mask in chosen.items():
                writers[which][1].append(*ids_of(column.filter(mask.slice(first, len(column))), dtype))
            first += len(column)


def ids_of(column: pa.Array, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(ids [total], offsets int64 [documents + 1] from 0) of a large_binary column of packed ids."""
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    if len(column) == 0:
        return np.empty(0, dtype), np.zeros(1, np.int64)
    ids = data[offsets[0] : offsets[-1]].view(dtype)
    return ids, (offsets - offsets[0]) // dtype.itemsize


def write_blend(store: Store, recipe: Recipe) -> None:
    """tokens/<variant>/blend.json: what a trainer reads, per split: prefixes with tokens, documents, weight, epochs.

    A mixture is for training: what is held out is mixed by its tokens, the same with any mixture.
    """
    wanted = recipe.wanted_tokens() or None
    for variant in recipe.variants:
        blends = {}
        for split in SPLITS:
            entries = []
            for shard in list_shards(recipe, ()):
                sidecar = store.sidecar(f"tokens/{variant}/{shard.prefix(split)}.idx")
                assert sidecar is not None
                entries.append((shard.prefix(split), shard.source, sidecar["tokens"], sidecar["documents"]))
            blends[split] = blend(entries, wanted if split == TRAIN else None)
        store.publish_json(f"tokens/{variant}/blend.json", blends)


# -- wiring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TokenizeWorker:
    store: Store
    vocabulary: Vocabulary

    def start(self) -> Callable[[Shard], None]:
        return lambda shard: write_shard(self.store, shard, self.vocabulary)


def wire(pipeline: beam.Pipeline, store: Store, shards: Sequence[Shard], vocabulary: Vocabulary) -> None:
    """signals/ + decisions/ -> tokens/"""
    spread(pipeline, "Shards", shards) | "Tokenize" >> beam.ParDo(Each(_TokenizeWorker(store, vocabulary)))
