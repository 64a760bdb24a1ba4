"""Exact duplicates: the content hash of every text of a batch, without a Python string in between."""

from __future__ import annotations

import itertools

import pyarrow as pa

from pipelines.schema import content_hash
from quality.text import buffers


def content_hashes(texts: pa.Array) -> pa.Array:
    """binary(16) [documents]: `schema.content_hash` (blake2b-128) of each text's UTF-8."""
    data, offsets = buffers(texts)
    whole = data.data
    hashes = [content_hash(whole[start:stop]) for start, stop in itertools.pairwise(offsets.tolist())]
    return pa.array(hashes, pa.binary(16))
