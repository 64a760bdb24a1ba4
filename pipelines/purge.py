"""purge: of documents that are taken back, neither text nor signals stay on disk; what a verdict drops is otherwise kept there.

A purged document keeps its row, doc_id, source and locator, so that tables stay aligned and every record stays accounted for, and
its place in clusters/ and against/; it loses

    documents/    text (""), content_hash (that of no text), every nullable column: URL, title, date, license, hashes of paragraphs
    signals/      token ids, all numbers (0), and every nullable column
    clusters/     which of its paragraphs were left out
    index/        its URL
    statistics/, stats.json, report.html     what they counted of its URL and text; they never quote a document that is taken back

samples/ and shards lost it in the build. Everything else that is made from what changed would be made to the same bytes again, so
it gets its new key and nothing else, and the next build redoes nothing. That is only true of a run that is up to date, so this is
checked before anything is touched.

The journal names what is to be emptied, and stands from before the first change until manifest.json, the last file, stands again.
Each step looks at what is there, so the same command goes on wherever it was cut short; a build waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import against, annotate, bpe, cluster, extract, fit, match, models, removal, select_settings, tokenize
from pipelines.cluster_parts import dropped_digest
from pipelines.conservation import account
from pipelines.errors import UserError
from pipelines.finished import MANIFEST
from pipelines.index import write_index
from pipelines.manifest import prune, write_manifest
from pipelines.parts import Part, list_parts
from pipelines.plan import Plan
from pipelines.recipe import Recipe
from pipelines.recipe_file import RECIPE, parse
from pipelines.report import statistics, write_report
from pipelines.run_directory import sweep
from pipelines.schema import CLUSTERS, DOCUMENTS, content_hash
from pipelines.store import SIDECAR, Store, TableWriter, reading_table
from pipelines.verify import load_plan

# What stands in a purged row for a column that cannot be null; these and the identity of the document are all that is left.
_IDENTITY = ("doc_id", "source", "locator")
_NOTHING: dict[str, Any] = {"text": "", "content_hash": content_hash(b""), "token_ids": b""}


@dataclass(frozen=True, slots=True)
class Purge:
    """What one purge did: documents that were emptied, in so many parts; and the purged documents that the run has now."""

    documents: int
    parts: int
    total: int

    def to_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}

    def to_text(self) -> str:
        done = f"{self.documents:,} documents purged in {self.parts:,} parts" if self.documents else "nothing to purge"
        return done + (f"; {self.total:,} documents of this run have neither text nor signals" if self.total else "")


def purge(folder: str) -> Purge:
    """Empties the rows of a run's documents that are taken back. UserError where the run is not complete and up to date."""
    where = Store(folder)
    if not where.exists(MANIFEST) and not where.exists(removal.JOURNAL):
        raise UserError(f"{folder}: no complete run (manifest.json is missing); run winnow build")
    with where.lock() as store:
        sweep(store)
        recipe, plan = parse(store.read(RECIPE).decode(), store.url(RECIPE)), load_plan(store)
        if store.exists(MANIFEST):
            store.remove(removal.JOURNAL)
            parts = list_parts(store, plan)
            _must_be_up_to_date(store, recipe, plan, parts)
            todo = [entry for part in parts if (entry := _entry(store, part)) is not None]
            if not todo:
                return Purge(0, 0, _total(store, parts))
            store.publish_json(removal.JOURNAL, todo)
            store.remove(MANIFEST)
        todo = store.read_json(removal.JOURNAL)
        for entry in todo:
            _empty_documents(store, entry)
        parts = list_parts(store, plan)
        touched = {(entry["source"], entry["name"]) for entry in todo}
        _bring_up_to_date(store, recipe, parts, [part for part in parts if (part.source, part.name) in touched])

        accounts = account(store, recipe, plan, parts)
        write_index(store, parts)
        write_report(store, recipe, parts, accounts)
        prune(store, write_manifest(store, recipe, plan, parts, accounts))
        store.remove(removal.JOURNAL)
    return Purge(sum(entry["new"] for entry in todo), len(todo), _total(store, parts))


def _total(store: Store, parts: Sequence[Part]) -> int:
    return sum(len(rows) for part in parts for rows in removal.purged(store, part).values())


def _entry(store: Store, part: Part) -> dict[str, Any] | None:
    """What the journal says of a part: its sidecar as it was, and the rows that are to be empty; None where all are."""
    found, emptied = removal.found_in(store, part), removal.purged(store, part)
    new = sum(map(len, found.values())) - sum(map(len, emptied.values()))
    if not new:
        return None
    return {"source": part.source, "name": part.name, "rows": found, "new": new, "sidecar": store.sidecar(part.path("documents"))}


# -- rows -------------------------------------------------------------------------------------------------------------------


def emptied(batch: pa.RecordBatch, gone: np.ndarray) -> pa.RecordBatch:
    """`batch` with nothing in the rows that are `gone` (bool [rows]) but the identity of a document."""
    places = pa.array(np.arange(batch.num_rows), mask=gone)
    return pa.RecordBatch.from_arrays(
        [
            column if field.name in _IDENTITY else _without(column, places, field)
            for column, field in zip(batch.columns, batch.schema, strict=True)
        ],
        schema=batch.schema,
    )


def _without(column: pa.Array, places: pa.Array, field: pa.Field) -> pa.Array:
    taken = column.take(places)
    return taken if field.nullable else taken.fill_null(pa.scalar(_NOTHING.get(field.name, 0), field.type))


def _rewrite(
    store: Store, path: str, schema: pa.Schema, change: Callable[[pa.RecordBatch, slice], pa.RecordBatch]
) -> tuple[Any, pa.Table]:
    """Publishes a table with every row group changed; returns what was published, and the table without its wide columns."""
    narrow = [field.name for field in schema if field.name not in ("text", "token_ids", "signature")]
    batches, first = [], 0
    with reading_table(store, path) as file, store.publishing(path) as sink:
        writer = TableWriter(sink, schema)
        for group in range(file.num_row_groups):
            batch = file.read_row_group(group, use_threads=False).combine_chunks().to_batches()[0]
            batch = change(batch, slice(first, first + batch.num_rows))
            writer.write(batch)
            batches.append(batch.select(narrow))
            first += batch.num_rows
        writer.close()
    return sink.result, pa.Table.from_batches(batches)


def _empty_documents(store: Store, entry: Mapping[str, Any]) -> None:
    path, before = f"documents/{entry['source']}/{entry['name']}.parquet", entry["sidecar"]
    now = store.sidecar(path)
    if now is not None and now.get(removal.PURGED) == entry["rows"]:
        return
    gone = _mask(before["rows"], entry["rows"])
    store.begin(path)
    published, _ = _rewrite(store, path, DOCUMENTS, lambda batch, place: emptied(batch, gone[place]))
    # text_bytes stays what was extracted: shares of samples are measured by it.
    facts = {"rows": before["rows"], "text_bytes": before["text_bytes"], removal.PURGED: entry["rows"]}
    store.finish(published, before["key"], **facts)


def _mask(count: int, rows: removal.Found) -> np.ndarray:
    gone = np.zeros(count, bool)
    for some in rows.values():
        gone[some] = True
    return gone


def _empty_clusters(store: Store, part: Part, gone: np.ndarray, key: str) -> None:
    """A text that is gone has no paragraphs that could be left out of it; its clusters stay."""
    path, place = part.path("clusters"), CLUSTERS.get_field_index("dropped_paragraphs")

    def change(batch: pa.RecordBatch, rows: slice) -> pa.RecordBatch:
        left = batch.column(place).take(pa.array(np.arange(batch.num_rows), mask=gone[rows]))
        return batch.set_column(place, CLUSTERS.field(place), left)

    store.begin(path)
    published, table = _rewrite(store, path, CLUSTERS, change)
    store.finish(published, key, rows=part.rows, paragraphs=dropped_digest(table.column("dropped_paragraphs")))


def _empty_signals(store: Store, part: Part, gone: np.ndarray, key: str) -> None:
    path = part.path("signals")
    store.begin(path)
    published, table = _rewrite(store, path, annotate.SIGNALS, lambda batch, place: emptied(batch, gone[place]))
    tokens = int(np.sum(table.column("n_tokens").to_numpy(), dtype=np.int64))
    store.finish(published, key, rows=part.rows, tokens=tokens)


# -- keys -------------------------------------------------------------------------------------------------------------------


def _bring_up_to_date(store: Store, recipe: Recipe, parts: tuple[Part, ...], touched: Sequence[Part]) -> None:
    """Empties what was made from the touched parts, then gives every file the key that it has now, in the order of the build."""
    key = cluster.cluster_key(store, recipe, parts)
    for part in touched:
        if not store.is_finished(part.path("clusters"), key):
            _empty_clusters(store, part, removal.removed(store, part), key)
    _stamp(store, _cluster_keys(store, recipe, parts))
    _stamp(store, _match_keys(store, recipe, parts))
    _stamp(store, _sample_keys(store, recipe, parts))
    signals = dict(_signal_keys(store, recipe, parts))
    for part in touched:
        if not store.is_finished(part.path("signals"), signals[part.path("signals")]):
            _empty_signals(store, part, removal.removed(store, part), signals[part.path("signals")])
    _stamp(store, _decision_keys(store, recipe, parts))
    _stamp(store, _shard_keys(store, recipe, parts))
    count = statistics.StatisticsWorker(store, tuple(sorted(recipe.variants)), recipe.seed).start()
    for part in parts:
        key = statistics.statistics_key(store, recipe, part)
        if not store.is_finished(statistics.statistics_path(part), key):
            count((part, key))


def _stamp(store: Store, keys: Iterator[tuple[str, str]]) -> None:
    """Gives finished files their present keys."""
    for path, key in keys:
        sidecar = store.sidecar(path)
        assert sidecar is not None
        if sidecar["key"] != key:
            store.publish_json(path + SIDECAR, {**sidecar, "key": key})


Keys = Iterator[tuple[str, str]]  # of (path, the key that it has when it is up to date)


def _cluster_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    key = cluster.cluster_key(store, recipe, parts)
    yield from ((part.path("clusters"), key) for part in parts)


def _match_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    """Held against the same runs as before, whatever has become of them."""
    for part in parts:
        sidecar = store.sidecar(against.path(part))
        if sidecar is not None:
            yield against.path(part), match.match_key(store, recipe, parts, sidecar[against.NAMED])


def _sample_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    for part, _, key in fit.stale_samples(store, recipe, parts):
        yield part.path("samples"), key


def _signal_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    hashes = models.hashes(store)
    yield from ((part.path("signals"), annotate.part_key(store, recipe, part, hashes)) for part in parts)


def _decision_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    for name, key in select_settings.variant_keys(store, recipe, parts, models.perplexity_bounds(store)).items():
        yield from ((path, key) for path in select_settings.decided_paths(recipe, name, parts))


def _shard_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    tokenizer = bpe.load(store.read(models.TOKENIZER), models.TOKENIZER)
    vocabulary = tokenize.Vocabulary(tokenizer.vocab_size, tokenizer.end_of_document)
    for shard in tokenize.stale_shards(store, recipe, parts, vocabulary):
        for variant, key in shard.keys:
            for split in tokenize.SPLITS:
                yield from ((f"tokens/{variant}/{shard.prefix(split)}{end}", key) for end in (".bin", ".idx"))


def _statistics_keys(store: Store, recipe: Recipe, parts: tuple[Part, ...]) -> Keys:
    for part in parts:
        yield statistics.statistics_path(part), statistics.statistics_key(store, recipe, part)


def _must_be_up_to_date(store: Store, recipe: Recipe, plan: Plan, parts: tuple[Part, ...]) -> None:
    """A part that stands under an old key must not be given a new one."""
    stale = [f"documents/{task.source}/{task.name}" for task in extract.stale_tasks(store, plan, recipe)]
    for keys in (_cluster_keys, _match_keys, _sample_keys, _signal_keys, _decision_keys, _shard_keys, _statistics_keys):
        stale += [path for path, key in keys(store, recipe, parts) if not store.is_finished(path, key)]
    if stale:
        raise UserError(f"{store.url(stale[0])}: made by another version of winnow; run winnow build, then purge")
