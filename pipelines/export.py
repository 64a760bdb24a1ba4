"""export: the documents that one variant keeps, as files that other tools read, their text as it was tokenised.

    <split>/<source>/<part>.parquet or .jsonl.zst    columns: `export_files.EXPORTED`; a file for every part of the run that keeps
                                                     some, its rows in the part's order
    README.md                                        a card whose head tells `datasets.load_dataset` what to load
    export.json                                      last: what was exported of which run, every file with bytes and sha256

What is written is counted from the tables and held against the accounts of the run. A folder belongs to one export: while that is
under way it holds `unfinished.json`, which says what is being exported, so that the same command can be given again after it was
cut short and leaves the same bytes. A folder that holds anything else is refused. One row group is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import remote
from pipelines.errors import CheckError, UserError
from pipelines.export_files import ENDINGS, EXPORTED, PARQUET, writer
from pipelines.finished import MANIFEST
from pipelines.overview import table
from pipelines.parts import Part
from pipelines.report import STATS
from pipelines.report.card_export import export_card
from pipelines.schema import KEEP, TRAIN, VALIDATION
from pipelines.store import TEMPORARY, HashingFile, Store, read_columns, reading_table
from pipelines.variant import Variant
from pipelines.written import written

Facts = dict[str, Any]  # plain JSON
SPLITS = (TRAIN, VALIDATION)
EXPORT, UNFINISHED, README = "export.json", "unfinished.json", "README.md"

_DOCUMENT = ["doc_id", "text", "url", "title", "date", "license", "source"]
_SIGNALS = ["language", "language_score", "quality", "n_tokens"]
_CLUSTERS = ["dropped_paragraphs", "near_cluster", "exact_cluster"]


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported: the content of export.json, which lies in `folder`."""

    folder: str
    facts: Facts

    def to_json(self) -> dict[str, Any]:
        return {"folder": self.folder, **self.facts}

    def to_text(self) -> str:
        files = self.facts["files"]
        rows = [
            (split, source, counts["documents"], counts["tokens"], len(_of(files, split, source)))
            for split, by_source in self.facts["counts"].items()
            for source, counts in by_source.items()
            if counts["documents"]
        ]
        head = ["split", "source", "documents", "tokens", "files"]
        return f"{table(head, rows)}\n\n{len(files):,} files and {EXPORT} in {self.folder}"


def export(
    folder: str, variant: str, to: str, form: str = PARQUET, splits: Sequence[str] = SPLITS, sources: Iterable[str] = ()
) -> Export:
    """Exports what `variant` of the run in `folder` keeps, of these splits, and of these sources or all, into the folder `to`.

    UserError for what is not there, or a folder that holds something else; CheckError where the counts do not add up.
    """
    run, target = Variant.open(folder, variant, sources), Store(to)
    order = {
        "run": {"name": run.manifest["recipe"]["name"], MANIFEST: run.store.digest(MANIFEST)["sha256"]},
        "variant": variant,
        "format": form,
        "splits": list(splits),
        "sources": list(run.sources),
    }
    parts = run.parts()
    _make_room(run, target, order, [_path(split, part, form) for part in parts for split in splits])
    files: dict[str, Facts] = {}
    for part in parts:
        files |= _export_part(run, target, part, form, splits)
    counts = {split: {source: _summed(_of(files, split, source)) for source in run.sources} for split in splits}
    _prove(run, order, counts)
    card = target.publish(README, export_card(run.store.read_json(STATS), order, counts, EXPORTED).encode())
    files[README] = {"bytes": card.size, "sha256": card.sha256}
    facts = {**order, "counts": counts, "files": files}
    target.publish_json(EXPORT, facts)
    target.remove(UNFINISHED)
    return Export(to, facts)


def _path(split: str, part: Part, form: str) -> str:
    return f"{split}/{part.source}/{part.name}{ENDINGS[form]}"


def _of(files: Mapping[str, Facts], split: str, source: str) -> list[Facts]:
    return [facts for path, facts in files.items() if path.startswith(f"{split}/{source}/")]


def _summed(files: Sequence[Facts]) -> dict[str, int]:
    return {what: sum(one[what] for one in files) for what in ("documents", "tokens")}


def _prove(run: Variant, order: Facts, counts: Mapping[str, Mapping[str, Facts]]) -> None:
    """What was written is what the run's accounts say, and the run is still the same."""
    for split, by_source in counts.items():
        for source, found in by_source.items():
            stated = {what: run.account(source)[what][split] for what in ("documents", "tokens")}
            if found != stated:
                raise CheckError(
                    f"{run.store.root}: {run.name} has {found} for {split} in the tables of {source}, and {stated} in {MANIFEST};"
                    " run winnow verify"
                )
    if not run.store.exists(MANIFEST) or run.store.digest(MANIFEST)["sha256"] != order["run"][MANIFEST]:
        raise UserError(f"{run.store.root}: was built again meanwhile; export it again, into another folder")


# -- the folder -------------------------------------------------------------------------------------------------------------


def _make_room(run: Variant, target: Store, order: Facts, paths: Sequence[str]) -> None:
    """Takes the folder for this export, whose documents go to `paths`; what a killed one left half-written goes."""
    if _lies_in(target.root, run.store.root):
        raise UserError(f"{target.root}: lies in the run, whose next build would remove it; give another --to")
    there = target.files("")
    begun = [name for name in (UNFINISHED, EXPORT) if name in there]
    for name in begun:
        found = _read(target, name)
        if any(found.get(key) != value for key, value in order.items()):
            what = f"{found.get('variant')} as {found.get('format')}, says {name}"
            raise UserError(f"{target.root}: holds another export ({what}); give another --to, or remove the folder")
    mine = {*paths, EXPORT, UNFINISHED, README} if begun else set()
    for path in there:
        if path.partition(TEMPORARY)[0] not in mine:
            raise UserError(f"{target.root}: holds {path}, which is not of this export; give another --to, a new or empty folder")
    target.publish_json(UNFINISHED, order)
    target.remove(EXPORT)
    for path in there:
        if TEMPORARY in path:
            target.remove(path)


def _lies_in(inner: str, outer: str) -> bool:
    found = [remote.filesystem_of(one) for one in (inner, outer)]
    (kind, path), (other, root) = ((type(filesystem), path.rstrip("/") + "/") for filesystem, path in found)
    return kind is other and path.startswith(root)


def _read(target: Store, name: str) -> Facts:
    try:
        return dict(target.read_json(name))
    except (ValueError, TypeError) as error:
        raise UserError(f"{target.url(name)}: damaged ({error}); give another --to, or remove the folder") from error


# -- documents --------------------------------------------------------------------------------------------------------------


def _export_part(run: Variant, target: Store, part: Part, form: str, splits: Sequence[str]) -> dict[str, Facts]:
    """path -> bytes, sha256, documents and tokens of the files of a part: one a split that has documents."""
    decisions = read_columns(run.store, part.decisions(run.name), ["verdict", "split"])
    kept = pc.equal(decisions.column("verdict"), KEEP)
    chosen = {split: pc.and_(kept, pc.equal(decisions.column("split"), split)) for split in splits}
    wanted = [split for split in splits if pc.any(chosen[split]).as_py()]
    counts = {split: {"documents": 0, "tokens": 0} for split in wanted}
    with ExitStack() as stack:
        sinks = {split: stack.enter_context(target.publishing(_path(split, part, form))) for split in wanted}
        writers = {split: writer(form, sinks[split]) for split in wanted}
        first = 0
        for rows in _row_groups(run.store, part) if wanted else ():
            for split in wanted:
                some = rows.filter(chosen[split].slice(first, len(rows)))
                writers[split].write(_exported(some, split, run.masks(part.source)))
                counts[split]["documents"] += len(some)
                counts[split]["tokens"] += len(some) + (pc.sum(some.column("n_tokens")).as_py() or 0)
            first += len(rows)
        for one in writers.values():
            one.close()
    return {_path(split, part, form): {**_published(sinks[split]), **counts[split]} for split in wanted}


def _published(sink: HashingFile) -> Facts:
    assert sink.result is not None
    return {"bytes": sink.result.size, "sha256": sink.result.sha256}


def _row_groups(store: Store, part: Part) -> Iterator[pa.Table]:
    """What is known of a part's documents, a row group at a time."""
    columns = {"documents": _DOCUMENT, "signals": _SIGNALS, "clusters": _CLUSTERS}
    with ExitStack() as stack:
        files = {name: stack.enter_context(reading_table(store, part.path(name))) for name in columns}
        for group in range(files["documents"].num_row_groups):
            tables = [file.read_row_group(group, columns[name], use_threads=False) for name, file in files.items()]
            if len({len(one) for one in tables}) > 1:
                raise CheckError(f"{store.root}: the tables of {part.source}/{part.name} differ in rows; run winnow verify")
            yield pa.table({name: one.column(name) for one in tables for name in one.column_names})


def _exported(rows: pa.Table, split: str, mask: bool) -> pa.RecordBatch:
    """Rows of EXPORTED."""
    texts, _ = written(rows.column("text").combine_chunks(), rows.column("dropped_paragraphs").combine_chunks(), mask)
    made = {
        "doc_id": _hex(rows.column("doc_id")),
        "text": texts,
        "split": pa.array([split] * len(rows), pa.string()),
        "cluster": _hex(pc.coalesce(rows.column("near_cluster"), rows.column("exact_cluster"))),
    }
    columns = [made[name] if name in made else rows.column(name).combine_chunks() for name in EXPORTED.names]
    return pa.RecordBatch.from_arrays(columns, schema=EXPORTED)


def _hex(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if one is None else one.hex() for one in column.to_pylist()], pa.string())
