"""extract: source records -> documents and rejects, one task a worker, nothing shuffled.

What is written never changes because of a model or a threshold: text in its normalised form, hashes, signature. Records are
taken in batches of Arrow text, so that normalisation, hashing and signing run in compiled code, and memory is bounded by a
batch. A task writes successive parts of about `part_bytes` of text; its record, published last, names them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines import blocklist, normalise
from pipelines.beam_parts import Each, spread
from pipelines.dedup.exact import content_hashes
from pipelines.dedup.minhash import MinHashSpec, pack, signatures
from pipelines.dedup.paragraphs import paragraph_table
from pipelines.parts import task_record, task_rejects
from pipelines.plan import Plan, Task
from pipelines.recipe import Recipe
from pipelines.records import Limits, Record, Reject, short
from pipelines.schema import DOCUMENTS, REJECTS, RejectReason, doc_id
from pipelines.sources import SourceOptions, check_unchanged, reader
from pipelines.store import HashingFile, Store, TableWriter, stage_key
from quality import c4

VERSION = 2
BATCH_DOCUMENTS = 2000
BATCH_CHARACTERS = 2 << 20
_REJECT_ROWS = 10_000
# Characters of the fields beside a record's text: from where they count as text does, and how many they may be. (A WARC record's
# whole header has no more bytes.)
_SOME_BESIDE, _MOST_BESIDE = 1 << 13, 1 << 16


@dataclass(frozen=True, slots=True)
class Settings:
    """What extract reads of the recipe, for one source."""

    format: str
    options: SourceOptions
    license: str | None  # of documents whose record states none
    clean: Literal["none", "c4"]
    form: Literal["prose", "verbatim"]
    paragraphs: bool
    limits: Limits
    part_bytes: int
    minhash: MinHashSpec
    blocked: str  # what the source's block list says, by its hash; "" without one

    @staticmethod
    def of(recipe: Recipe, source: str, blocked: str = "") -> Settings:
        chosen, near = recipe.sources[source], recipe.near
        return Settings(
            chosen.format,
            SourceOptions.named(chosen.fields),
            chosen.license,
            chosen.clean,
            chosen.form,
            chosen.paragraphs,
            Limits(recipe.limits.record_bytes),
            recipe.limits.part_bytes,
            MinHashSpec(near.permutations, near.ngram, near.seed, near.text_cap),
            blocked,
        )


def task_key(task: Task, settings: Settings) -> str:
    """The key of all that a task writes: its settings and the content of its inputs, wherever they lie."""
    inputs = [[found.path, found.size, found.sha256] for found in task.inputs]
    span = None if task.span is None else [task.span.start, task.span.stop, task.span.first_record]
    return stage_key("extract", VERSION, [normalise.VERSION, repr(settings)], [inputs, span])


def documents_batch(source: str, records: Sequence[Record], settings: Settings) -> pa.RecordBatch:
    """The documents of `records`, with every column of DOCUMENTS."""
    raw = [record.text for record in records]
    if settings.clean == "c4":
        raw = [c4.clean(text)[0] for text in raw]
    texts = normalise.normalise(raw, settings.form)
    minima, valid = signatures(texts, settings.minhash)
    if settings.paragraphs:
        paragraph_hashes, paragraph_bytes = paragraph_table(texts)
    else:
        paragraph_hashes = pa.nulls(len(records), DOCUMENTS.field("paragraph_hashes").type)
        paragraph_bytes = pa.nulls(len(records), DOCUMENTS.field("paragraph_bytes").type)
    columns = [
        pa.array([doc_id(source, record.locator) for record in records], pa.binary(16)),
        pa.array([source] * len(records), pa.string()),
        pa.array([record.locator for record in records], pa.string()),
        *(
            pa.array([getattr(record, name) for record in records], pa.string())
            for name in ("source_id", "url", "title", "date")
        ),
        pa.array([record.license or settings.license for record in records], pa.string()),
        texts,
        content_hashes(texts),
        paragraph_hashes,
        paragraph_bytes,
        pack(minima, valid),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS)


@dataclass
class _Parts:
    """Writes the successive documents parts of a task."""

    store: Store
    task: Task
    key: str
    part_bytes: int
    names: list[str] = field(default_factory=list)
    _open: ExitStack | None = None
    _sink: HashingFile | None = None
    _writer: TableWriter | None = None
    _bytes: int = 0

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            self._begin()
        assert self._writer is not None
        self._writer.write(batch)
        self._bytes += _text_bytes(batch)
        if self._bytes >= self.part_bytes:
            self.close()

    def _begin(self) -> None:
        name = f"{self.task.name}-{len(self.names):05d}"
        path = f"documents/{self.task.source}/{name}.parquet"
        self.store.begin(path)
        self.names.append(name)
        self._open = ExitStack()
        self._sink = self._open.enter_context(self.store.publishing(path))
        self._writer = TableWriter(self._sink, DOCUMENTS)
        self._bytes = 0

    def close(self) -> None:
        if self._writer is None or self._open is None or self._sink is None:
            return
        self._writer.close()
        self._open.close()
        assert self._sink.result is not None
        self.store.finish(self._sink.result, self.key, rows=self._writer.rows, text_bytes=self._bytes)
        self._open = self._sink = self._writer = None

    def abandon(self, *error: Any) -> None:
        """Leaves nothing of a part that an exception cut short."""
        if self._open is not None:
            self._open.__exit__(*error)


def extract_task(store: Store, task: Task, settings: Settings) -> None:
    """Reads one task's inputs to their end and publishes its documents, its rejects and then its record."""
    key = task_key(task, settings)
    if _stands(store, task, key):
        return
    store.begin(task_record(task))
    parts = _Parts(store, task, key, settings.part_bytes)
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    rejects_path = task_rejects(task)
    store.begin(rejects_path)
    with store.publishing(rejects_path) as sink:
        rejects = TableWriter(sink, REJECTS)
        try:
            for records, bad in _batches(_read(store, task, settings)):
                if records:
                    parts.write(documents_batch(task.source, records, settings))
                if bad:
                    rejects.write(_rejects_batch(task.source, bad))
                counts["documents"] += len(records)
                counts["merged"] += sum(record.merged for record in records)
                for reject in bad:
                    rejected[str(reject.reason)] += reject.count
            parts.close()
        except BaseException as error:
            parts.abandon(type(error), error, error.__traceback__)
            raise
        rejects.close()
    assert sink.result is not None
    store.finish(sink.result, key, rows=rejects.rows)
    record = {
        "parts": parts.names,
        "records": counts["documents"] + counts["merged"] + sum(rejected.values()),
        "documents": counts["documents"],
        "merged": counts["merged"],
        "rejects": dict(sorted(rejected.items())),
    }
    store.finish(store.publish(task_record(task), json.dumps(record, sort_keys=True).encode()), key)


def _read(store: Store, task: Task, settings: Settings) -> Iterator[Record | Reject]:
    read, options = reader(settings.format), settings.options
    if settings.blocked:
        options = replace(options, blocked=blocklist.of_run(store, task.source))
    for source_input in task.inputs:
        for item in read(source_input, options, settings.limits, task.span):
            yield item if options.blocked is None else _unblocked(item, options.blocked)
        check_unchanged(source_input, settings.format)


def _unblocked(item: Record | Reject, blocked: Callable[[str], str | None]) -> Record | Reject:
    """The item, or the reject that a record's URL makes of it, for readers that do not look themselves."""
    if isinstance(item, Reject) or not item.url or (entry := blocked(item.url)) is None:
        return item
    return Reject(item.locator, RejectReason.BLOCKED_URL, short(entry), 1 + item.merged)


def _batches(items: Iterator[Record | Reject]) -> Iterator[tuple[list[Record], list[Reject]]]:
    """Records and rejects in reading order, cut so that a batch is bounded in documents and in text.

    A record whose title, URL and other fields have over 65,536 characters together is `too_large`: a batch holds 2,000 of each.
    """
    records: list[Record] = []
    rejects: list[Reject] = []
    characters = 0
    for item in items:
        if isinstance(item, Reject):
            rejects.append(item)
        elif (beside := _beside(item)) > _MOST_BESIDE:
            detail = f"{beside} characters beside the text, over {_MOST_BESIDE}"
            rejects.append(Reject(item.locator, RejectReason.TOO_LARGE, detail, 1 + item.merged))
        else:
            records.append(item)
            characters += len(item.text) + (beside if beside > _SOME_BESIDE else 0)
        if len(records) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS or len(rejects) >= _REJECT_ROWS:
            yield records, rejects
            records, rejects, characters = [], [], 0
    if records or rejects:
        yield records, rejects


def _beside(record: Record) -> int:
    """Characters of the fields beside the text."""
    names = len(record.source_id or "") + len(record.title or "") + len(record.date or "")
    return names + len(record.url or "") + len(record.license or "")


def _rejects_batch(source: str, rejects: Sequence[Reject]) -> pa.RecordBatch:
    columns = [
        pa.array([source] * len(rejects), pa.string()),
        pa.array([reject.locator for reject in rejects], pa.string()),
        pa.array([str(reject.reason) for reject in rejects], pa.string()),
        pa.array([reject.detail for reject in rejects], pa.string()),
        pa.array([reject.count for reject in rejects], pa.int64()),
        pa.array([reject.unknown_rest for reject in rejects], pa.bool_()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=REJECTS)


def _text_bytes(batch: pa.RecordBatch) -> int:
    offsets = np.frombuffer(batch.column("text").buffers()[1], np.int64)
    start = batch.column("text").offset
    return int(offsets[start + batch.num_rows] - offsets[start])


# -- wiring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ExtractWorker:
    store: Store
    settings: dict[str, Settings]  # by source

    def start(self) -> Callable[[Task], None]:
        return lambda task: extract_task(self.store, task, self.settings[task.source])


def _settings(store: Store, recipe: Recipe) -> dict[str, Settings]:
    def blocked(source: str) -> str:
        return blocklist.digest(store, source) if recipe.sources[source].blocklist else ""

    return {source: Settings.of(recipe, source, blocked(source)) for source in recipe.sources}


def stale_tasks(store: Store, plan: Plan, recipe: Recipe) -> list[Task]:
    """The tasks whose record, rejects, or a part that the record names, do not stand under their present key."""
    settings = _settings(store, recipe)
    stand = store.each(plan.tasks, lambda task: _stands(store, task, task_key(task, settings[task.source])))
    return [task for task, stands in zip(plan.tasks, stand, strict=True) if not stands]


def _stands(store: Store, task: Task, key: str) -> bool:
    if not all(store.is_finished(path, key) for path in (task_record(task), task_rejects(task))):
        return False
    names = store.read_json(task_record(task))["parts"]
    return all(store.is_finished(f"documents/{task.source}/{name}.parquet", key) for name in names)


def wire(pipeline: beam.Pipeline, store: Store, recipe: Recipe, tasks: Sequence[Task]) -> None:
    """tasks -> documents/, rejects/"""
    settings = _settings(store, recipe)
    spread(pipeline, "Tasks", tasks) | "Extract" >> beam.ParDo(Each(_ExtractWorker(store, settings)))
