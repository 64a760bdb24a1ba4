"""The files of an export: the columns of its documents, and how they are written as Parquet or as JSON lines.

Both are compressed with Zstandard: Parquet by pyarrow, with page checksums; JSON lines by `zstandard`, one frame a file, with the
frame's checksum. What is written depends on the rows alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import orjson
import pyarrow as pa

from pipelines.store import TableWriter

PARQUET, JSON_LINES = "parquet", "jsonl"
ENDINGS = {PARQUET: ".parquet", JSON_LINES: ".jsonl.zst"}
_LEVEL = 3  # Zstandard's own default

EXPORTED = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),  # hex, as `winnow explain` takes it
        pa.field("text", pa.large_string(), nullable=False),  # as it was tokenised
        pa.field("url", pa.string()),
        pa.field("title", pa.string()),
        pa.field("date", pa.string()),
        pa.field("license", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string()),  # null where there is nothing to judge
        pa.field("language_score", pa.float32()),
        pa.field("quality", pa.float32()),  # null without a classifier
        pa.field("split", pa.string(), nullable=False),
        pa.field("cluster", pa.string()),  # of its near copies, or else its exact ones; null where the document has none
    ]
)


class Writer(Protocol):
    """Takes batches of EXPORTED; closing the sink is the caller's."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


class JsonLinesWriter:
    """One object a line, keys in the order of the columns, scores with the four decimals that they have."""

    def __init__(self, sink: Any) -> None:
        import zstandard

        self._stream = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(sink, closefd=False)

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            self._stream.write(orjson.dumps(rounded, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        self._stream.close()


def writer(form: str, sink: Any) -> Writer:
    """A writer of `form`, PARQUET or JSON_LINES."""
    return TableWriter(sink, EXPORTED) if form == PARQUET else JsonLinesWriter(sink)
