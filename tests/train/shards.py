"""Small token shards, written by winnow's own writer or, for other tools' files, byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from pipelines import bpe_file
from pipelines.shards import ShardWriter, token_dtype


def write_shard(prefix: Path, documents: list[list[int]], end: int, vocab_size: int = 257) -> int:
    """A shard of winnow; returns its tokens."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{prefix}.bin", "wb") as stream:
        writer = ShardWriter(stream, token_dtype(vocab_size), end)
        ids = np.array([one for document in documents for one in document], np.int64)
        writer.append(ids, np.cumsum([0, *map(len, documents)]))
    Path(f"{prefix}.idx").write_bytes(writer.index())
    return writer.tokens


def write_megatron(prefix: Path, sequences: list[list[int]], borders: list[int], dtype: str, code: int) -> None:
    """A pair as Megatron writes it: documents may hold several sequences, ids be of any type."""
    ids = [np.array(sequence, dtype) for sequence in sequences]
    lengths = np.array([len(one) for one in ids], "<i4")
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]]) * np.dtype(dtype).itemsize
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, len(ids), len(borders))
    Path(f"{prefix}.bin").write_bytes(b"".join(one.tobytes() for one in ids))
    index = header + lengths.tobytes() + begins.astype("<i8").tobytes() + np.array(borders, "<i8").tobytes()
    Path(f"{prefix}.idx").write_bytes(index)


def text_like(documents: int, seed: int, vocab: int = 256, structured: bool = True) -> list[list[int]]:
    """Documents of 5 to 60 ids below `vocab`; structured ones repeat a short pattern, so that there is something to learn."""
    draw = np.random.Generator(np.random.PCG64(seed))
    made = []
    for _ in range(documents):
        length = int(draw.integers(5, 60))
        pattern = draw.integers(0, vocab, 7) if structured else draw.integers(0, vocab, length)
        made.append([int(one) for one in np.resize(pattern, length)])
    return made


def write_variant(run: Path, variant: str = "filtered", documents: int = 120, vocab: int = 64) -> Path:
    """A variant's folder below a run with a tokenizer of 257 ids: sources web (two shards) and wiki; returns the folder."""
    tokenizer = bpe_file.bytes_only()
    (run / "models").mkdir(parents=True, exist_ok=True)
    (run / "models" / "tokenizer.json").write_bytes(bpe_file.save(tokenizer))
    folder = run / "tokens" / variant
    plan = {"train": [("web", 0, 2, 3), ("web", 1, 2, 2), ("wiki", 0, 1, 1)], "validation": [("web", 0, 1, 1), ("wiki", 0, 1, 1)]}
    blend: dict[str, list[dict[str, object]]] = {}
    for number, (split, shards) in enumerate(plan.items()):
        for source, shard, of, share in shards:
            prefix = f"{split}/{source}-{shard:05d}-of-{of:05d}"
            count = documents * share // 6 if split == "train" else documents // 12
            made = text_like(count, 100 * number + 10 * shard + len(source), vocab)
            tokens = write_shard(folder / prefix, made, tokenizer.end_of_document, tokenizer.vocab_size)
            weight = share / (6 if split == "train" else 2)
            blend.setdefault(split, []).append({"prefix": prefix, "tokens": tokens, "documents": count, "weight": weight})
    (folder / "blend.json").write_text(json.dumps(blend))
    return folder
