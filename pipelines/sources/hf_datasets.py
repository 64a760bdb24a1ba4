"""Hugging Face datasets: folders written by `save_to_disk`, and `hf://` names streamed from the hub.

A record is a row; its locator is `<path>#<row>`, or `<path>!<split>#<row>` where there are splits. `hf://owner/name` and
`hf://owner/name:configuration` are streamed, never downloaded whole, and no code of a dataset is ever run; this is the one
source that needs a network at run time, because the recipe says so.

| what stands there                     | what becomes of it                             |
|---------------------------------------|------------------------------------------------|
| a string under the text's name        | a document                                     |
| null, or no such column               | reject `missing_text`                          |
| a value of another type               | reject `text_not_string`                       |
| a text over the limit                 | reject `too_large`                             |
| a folder or shard that cannot be read | one `corrupt_container` with an unknown rest   |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.records import Input, Limits, Record, Reject, Span
from pipelines.schema import RejectReason
from pipelines.sources import SourceOptions
from pipelines.sources.jsonl import record_of

_HUB = "hf://"


def read(
    source_input: Input, options: SourceOptions, limits: Limits, span: Span | None = None
) -> Iterator[Record | Reject]:
    """The records of one dataset, split by split in name order."""
    try:
        splits = _splits(source_input.url)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        if source_input.url.startswith(_HUB):
            raise UserError(f"{source_input.url}: cannot be streamed from the hub ({_short(error)})") from error
        yield _corrupt(f"{source_input.path}#0", error)
        return
    for name, rows in splits:
        prefix = f"{source_input.path}!{name}" if name else source_input.path
        number = 0
        try:
            for row in rows:
                yield _record(f"{prefix}#{number}", row, options, limits)
                number += 1
        except (ValueError, OSError, RuntimeError) as error:  # ArrowInvalid is a ValueError
            yield _corrupt(f"{prefix}#{number}", error)


def _splits(url: str) -> list[tuple[str, Iterable[dict[str, Any]]]]:
    import datasets

    if url.startswith(_HUB):
        name, _, configuration = url.removeprefix(_HUB).partition(":")
        found: Any = datasets.load_dataset(name, configuration or None, streaming=True)
    else:
        found = datasets.load_from_disk(_local(url))
    return sorted(found.items()) if isinstance(found, dict) else [("", found)]


def _local(url: str) -> str:
    return url.removeprefix("file://")


def _record(locator: str, row: dict[str, Any], options: SourceOptions, limits: Limits) -> Record | Reject:
    found = record_of(locator, row, options)
    if isinstance(found, Record) and len(found.text.encode("utf-8", "surrogatepass")) > limits.record_bytes:
        return Reject(locator, RejectReason.TOO_LARGE, f"over {limits.record_bytes} bytes")
    return found


def _corrupt(locator: str, error: Exception) -> Reject:
    return Reject(locator, RejectReason.CORRUPT_CONTAINER, _short(error), unknown_rest=True)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def scan(url: str) -> tuple[int, str, tuple[Span, ...]]:
    """(size, sha256, no spans): of all files of a folder, in name order; of the name itself for the hub."""
    if url.startswith(_HUB):
        return 0, hashlib.sha256(url.encode()).hexdigest(), ()
    digest, size = hashlib.sha256(), 0
    root = Path(_local(url))
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return size, digest.hexdigest(), ()


def count(source_input: Input, options: SourceOptions) -> int:
    """Rows by the Arrow files' own headers; a folder that cannot be read counts as one record."""
    import json

    import pyarrow as pa

    root = Path(_local(source_input.url))
    total = 0
    try:
        listed = json.loads((root / "dataset_dict.json").read_text())["splits"] if (root / "dataset_dict.json").exists() else [""]
        for split in listed:
            state = json.loads((root / split / "state.json").read_text())
            for one in state["_data_files"]:
                with pa.memory_map(str(root / split / one["filename"])) as stream:
                    total += sum(batch.num_rows for batch in pa.ipc.open_stream(stream))
    except (OSError, ValueError, KeyError):
        return total + 1
    return total
