"""A pool on disk: the token ids of an arm's documents as one shard, its blend, and what is in it.

    pools/<name>/web.{bin,idx}       the documents, in the order of the run's parts, cut to whole sequences
    pools/<name>/blend.json          the blend of the estimand "web only": this shard alone
    pools/<name>/glam.json           GLaM's: 42 % this shard, 58 % pools/curated/web
    pools/<name>/documents.parquet   doc_id, source and tokens of every document
    pools/<name>/pool.json           last: what it holds, in numbers

The shard has the same name in every pool. A run's order goes by seed and shard name (train/blend.py), so that two arms of one seed
begin with the same permutation as far as their sizes allow, and see the same curated documents at the same places.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import models
from pipelines.errors import UserError
from pipelines.shards import ShardWriter, token_dtype
from pipelines.store import reading_table
from pipelines.tokenize import ids_of
from train.compare.documents import Rows, Run, rows_of_part
from train.compare.pools import sequences_of
from train.files import publish_json

WEB, FACTS, WEB_ONLY, GLAM, CURATED = "web", "pool.json", "blend.json", "glam.json", "curated"
GLAM_WEB, GLAM_CURATED = 0.42, 0.58  # GLaM, Du et al. 2022, table 3: filtered web pages, and all other sources together


@dataclass(frozen=True, slots=True)
class Pool:
    """What a pool holds. `sha256` is of its ids."""

    name: str
    tokens: int
    sequences: int
    documents: int
    sources: dict[str, dict[str, int]]
    made: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_pool(root: Path, name: str) -> Pool | None:
    """The pool that stands there whole, if one does."""
    facts = root / name / FACTS
    return Pool(**json.loads(facts.read_bytes())) if facts.exists() else None


def write_pool(root: Path, name: str, run: Run, rows: Rows, context: int, made: str, curated: bool = False) -> Pool:
    """Writes the pool and returns what it holds.

    curated: whether a pool of that name lies beside it, for GLaM's blend. Raises UserError where the documents do not give one
    sequence of `context` tokens.
    """
    folder = root / name
    sequences = sequences_of(rows.tokens, context)
    if not sequences:
        raise UserError(
            f"pool {name}: {rows.tokens} tokens in {len(rows)} documents, less than one sequence of {context}; leave its "
            "control out of compare.controls or its part out of compare.sweep, or compare a larger run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = models.load(run.store).tokenizer
    dtype = token_dtype(tokenizer.vocab_size)
    digest = hashlib.sha256()
    left = sequences * context + 1
    with open(folder / f"{WEB}.bin", "wb") as file:
        sink = _Hashing(file, digest)
        writer = ShardWriter(sink, dtype, tokenizer.end_of_document)
        for part in run.parts:
            left = _append(writer, run, part, rows_of_part(rows, part), dtype, left)
    (folder / f"{WEB}.idx").write_bytes(writer.index())
    assert left == 0
    doc_ids = pa.array([one.tobytes() for one in rows.doc_id_R], pa.binary(16))
    sources = pa.array(np.array(rows.sources, object)[rows.source_R], pa.string())
    pq.write_table(
        pa.table({"doc_id": doc_ids, "source": sources, "tokens": pa.array(rows.tokens_R)}), folder / "documents.parquet"
    )
    tokens = writer.tokens
    publish_json(folder / WEB_ONLY, {"train": [_shard(WEB, tokens, 1.0)]})
    if curated:
        beside = read_pool(root, CURATED)
        assert beside is not None
        other = _shard(f"../{CURATED}/{WEB}", beside.tokens, GLAM_CURATED)
        publish_json(folder / GLAM, {"train": [_shard(WEB, tokens, GLAM_WEB), other]})
    pool = Pool(name, tokens, sequences, writer.documents, rows.by_source(), made, digest.hexdigest())
    publish_json(folder / FACTS, pool.to_json())
    return pool


def _shard(prefix: str, tokens: int, weight: float) -> dict[str, Any]:
    return {"prefix": prefix, "tokens": tokens, "weight": weight}


@dataclass(frozen=True, slots=True)
class _Hashing:
    file: Any
    digest: Any

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return int(self.file.write(data))


def _append(writer: ShardWriter, run: Run, part: Any, wanted: np.ndarray, dtype: np.dtype, left: int) -> int:
    """Appends a part's rows, the last one cut where no token is left to take; returns how many are left."""
    if not len(wanted) or not left:
        return left
    first = 0
    with reading_table(run.store, part.path("signals")) as signals:
        for group in range(signals.num_row_groups):
            column = signals.read_row_group(group, ["token_ids"], use_threads=False).column(0).combine_chunks()
            mine = wanted[(wanted >= first) & (wanted < first + len(column))] - first
            first += len(column)
            ids, offsets = ids_of(column.take(pa.array(mine)), dtype)
            ends = offsets[1:] + np.arange(1, len(offsets))  # with an end-of-document token behind each
            whole = int(np.searchsorted(ends, left, "right"))
            writer.append(ids, offsets[: whole + 1])
            left -= int(ends[whole - 1]) if whole else 0
            if whole < len(ends):
                if left:  # the end-of-document token takes the last place
                    begin = int(offsets[whole])
                    writer.append(ids, np.array([begin, begin + left - 1]))
                return 0
    return left
