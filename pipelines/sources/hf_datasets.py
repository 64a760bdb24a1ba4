"""Hugging Face datasets: folders of `save_to_disk`, files that `datasets` reads, and `hf://` names streamed from the hub.

A record is a row; its locator is `<path>#<row>`, or `<path>!<split>#<row>` where there are splits. `hf://owner/name` and
`hf://owner/name:configuration` are streamed, never downloaded whole; this is the one source that needs a network at run time,
because the recipe says so. Files (`.json`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`, `.txt`, compressed or not) and folders
of them are streamed too, so that nothing is copied into a cache. No code of a dataset is ever run.

| what stands there                     | what becomes of it                             |
|---------------------------------------|------------------------------------------------|
| a string under the text's name        | a document                                     |
| null, or no such column               | reject `missing_text`                          |
| a value of another type               | reject `text_not_string`                       |
| a text over the limit                 | reject `too_large`                             |
| a folder, file or shard that cannot be read | one `corrupt_container` with an unknown rest |
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.records import Input, Limits, Record, Reject, Span, short
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions
from pipelines.sources.jsonl import record_of

_HUB = "hf://"
_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz", ".lz4")


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one dataset, split by split in name order."""
    from datasets.exceptions import DatasetsError

    try:
        splits = _splits(source_input.url)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        if source_input.url.startswith(_HUB):
            reason = f"cannot be streamed from the hub ({short(error)}); it needs a network, and a login where it is gated"
            raise UserError(f"{source_input.url}: {reason}") from error
        yield _corrupt(f"{source_input.path}#0", error)
        return
    for name, rows in splits:
        prefix = f"{source_input.path}!{name}" if name else source_input.path
        number = 0
        try:
            for row in rows:
                yield _record(f"{prefix}#{number}", row, options, limits)
                number += 1
        except (ValueError, OSError, RuntimeError, EOFError, DatasetsError) as error:  # ArrowInvalid is a ValueError
            if source_input.url.startswith(_HUB):
                raise UserError(f"{source_input.url}: ended at row {number} ({short(error)}); build again") from error
            yield _corrupt(f"{prefix}#{number}", error)


def _splits(url: str) -> list[tuple[str, Iterable[dict[str, Any]]]]:
    import datasets

    path = _local(url)
    if any((path / name).exists() for name in _SAVED):
        found: Any = datasets.load_from_disk(str(path))
    else:
        # Streaming keeps no cache, but leaves a lock file where one would be.
        with tempfile.TemporaryDirectory(prefix="winnow-datasets-") as folder:
            found = _streamed(url, path, folder)
    return sorted(found.items()) if isinstance(found, dict) else [("", found)]


def _streamed(url: str, path: Path, cache: str) -> Any:
    from datasets import config, load_dataset

    config.HF_UPDATE_DOWNLOAD_COUNTS = False  # nobody is told what is read
    if url.startswith(_HUB):
        name, _, configuration = url.removeprefix(_HUB).partition(":")
        return load_dataset(name, configuration or None, streaming=True, cache_dir=cache)
    if path.is_dir():
        return load_dataset(str(path), streaming=True, cache_dir=cache)
    more = {"sep": "\t"} if _ending(path) == ".tsv" else {}
    return load_dataset(builder(path), data_files=str(path), split="train", streaming=True, cache_dir=cache, **more)


def builder(path: Path) -> str:
    """Which of datasets' own builders reads a file, by its ending. Another ending is a UserError."""
    found = _BUILDERS.get(_ending(path))
    if found is None:
        raise UserError(f"{path}: datasets has no reader for this ending; it has {', '.join(_BUILDERS)}")
    return found


def _ending(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _local(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _record(locator: str, row: dict[str, Any], options: SourceOptions, limits: Limits) -> Record | Reject:
    found = record_of(locator, row, options)
    if isinstance(found, Record) and len(found.text.encode("utf-8", "surrogatepass")) > limits.record_bytes:
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
    return found


def _corrupt(locator: str, error: Exception) -> Reject:
    return Reject(locator, RejectReason.CORRUPT_CONTAINER, short(error), unknown_rest=True)


def scan(url: str) -> tuple[int, str, tuple[Span, ...]]:
    """(size, sha256, no spans): of a file, of all files of a folder in name order, of the name itself for the hub."""
    if url.startswith(_HUB):
        return 0, hashlib.sha256(url.encode()).hexdigest(), ()
    digest, size = hashlib.sha256(), 0
    root = _local(url)
    if not root.is_dir():
        builder(root)
    for path in sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]:
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return size, digest.hexdigest(), ()


def count(source_input: Input, options: SourceOptions) -> int:
    """Rows by the files' own headers or by Python's own readers; of the hub by its own reading, which is the only one there is."""
    from pipelines.sources import dataset_count

    if source_input.url.startswith(_HUB):
        return sum(1 for _, rows in _splits(source_input.url) for _ in rows)
    return dataset_count.rows(_local(source_input.url))
