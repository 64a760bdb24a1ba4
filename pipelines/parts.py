"""The parts of a run: what extract wrote and every later stage keeps side by side.

Extract leaves one record per task that names its parts; the list of all parts, sorted by source and name, gives every
document a row number (part index << 32 | row) that is the same for every stage of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.plan import Plan, Task
from pipelines.store import Store

ROW_BITS = 32


@dataclass(frozen=True, slots=True)
class Part:
    """One documents part. `sha256` is of its file; `index` its place among all parts of the run."""

    index: int
    source: str
    name: str
    rows: int
    text_bytes: int
    sha256: str

    def path(self, table: str) -> str:
        return f"{table}/{self.source}/{self.name}.parquet"

    def decisions(self, variant: str) -> str:
        return f"decisions/{variant}/{self.source}/{self.name}.parquet"


def task_record(task: Task) -> str:
    """Where extract says what became of a task; its sidecar carries the key."""
    return f"documents/{task.source}/{task.name}.json"


def task_rejects(task: Task) -> str:
    """The table of the records of a task that are no documents."""
    return f"rejects/{task.source}/{task.name}.parquet"


def list_parts(store: Store, plan: Plan) -> tuple[Part, ...]:
    """Every documents part of the plan's tasks, in order."""
    records = store.each(plan.tasks, lambda task: store.read_json(task_record(task)))
    named = sorted((task.source, name) for task, record in zip(plan.tasks, records, strict=True) for name in record["parts"])
    sidecars = store.each([f"documents/{source}/{name}.parquet" for source, name in named], store.sidecar)
    parts = []
    for index, ((source, name), sidecar) in enumerate(zip(named, sidecars, strict=True)):
        if sidecar is None:
            raise RuntimeError(f"documents/{source}/{name}.parquet has no sidecar though its task is recorded as done")
        parts.append(Part(index, source, name, sidecar["rows"], sidecar["text_bytes"], sidecar["sha256"]))
    return tuple(parts)


def shard_of(part: Part, shards: int) -> int:
    """The shard of a part, by a hash of its name: a new part moves no other."""
    return int.from_bytes(hashlib.blake2b(part.name.encode(), digest_size=8).digest(), "big") % shards


def content_of(store: Store, paths: Sequence[str]) -> list[str]:
    """sha256 of finished parts, in order: what the next stage is made from."""
    digests = []
    for path, sidecar in zip(paths, store.each(paths, store.sidecar), strict=True):
        if sidecar is None:
            raise RuntimeError(f"{store.url(path)} is not finished")
        digests.append(sidecar["sha256"])
    return digests
