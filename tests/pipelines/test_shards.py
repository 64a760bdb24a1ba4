"""Token shards: the byte layout by hand, round trips of any documents, files that lie, and blends by hand computation."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.shards import ShardWriter, blend, open_shard, token_dtype

END = 299
documents = st.lists(st.lists(st.integers(0, 298), max_size=9), max_size=12)


def _write(folder, texts, vocab=300, batches=1):
    stream = io.BytesIO()
    writer = ShardWriter(stream, token_dtype(vocab), END)
    for texts_of_batch in np.array_split(np.arange(len(texts)), batches):
        chosen = [texts[number] for number in texts_of_batch]
        offsets = np.cumsum([0, *map(len, chosen)]).astype(np.int64)
        writer.append(np.array([i for ids in chosen for i in ids], token_dtype(vocab)), offsets)
    (folder / "s.bin").write_bytes(stream.getvalue())
    (folder / "s.idx").write_bytes(writer.index())
    return str(folder / "s")


def test_the_layout_is_megatrons_byte_by_byte(tmp_path):
    prefix = _write(tmp_path, [[1, 2], [], [7]])
    assert (tmp_path / "s.bin").read_bytes() == struct.pack("<6H", 1, 2, END, END, 7, END)
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 3, 4)
    index = header + struct.pack("<3i", 3, 1, 2) + struct.pack("<3q", 0, 6, 8) + struct.pack("<4q", 0, 1, 2, 3)
    assert (tmp_path / "s.idx").read_bytes() == index
    shard = open_shard(prefix)
    assert (len(shard), shard.tokens, shard.starts.tolist()) == (3, 6, [0, 3, 4, 6])


@given(documents, st.integers(1, 4), st.sampled_from([300, 65_499, 65_500, 130_000]))
def test_documents_come_back_whatever_the_batches(tmp_path_factory, texts, batches, vocab):
    shard = open_shard(_write(tmp_path_factory.mktemp("shard"), texts, vocab, batches))
    assert [ids.tolist() for ids in shard] == [[*ids, END] for ids in texts]
    assert shard.ids.dtype == (np.dtype("<u2") if vocab < 65_500 else np.dtype("<i4"))


@given(documents.filter(bool), st.data())
def test_a_damaged_index_or_a_cut_bin_is_refused_or_harmless(tmp_path_factory, texts, data):
    """Any one byte of the index changed, any cut of either file: a UserError that names the file, never other documents."""
    folder = tmp_path_factory.mktemp("damaged")
    prefix = _write(folder, texts)
    name = data.draw(st.sampled_from(["s.idx", "s.bin"]))
    content = bytearray((folder / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if name == "s.bin" or data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"s\.(idx|bin): "):
        open_shard(prefix)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.idx: cannot be read: No such file or directory; a shard is a pair of files"):
        open_shard(str(tmp_path / "none"))


def test_a_document_out_of_range_is_no_other_document(tmp_path):
    shard = open_shard(_write(tmp_path, [[1], [2]]))
    for number in (-1, 2):
        with pytest.raises(IndexError, match=f"document {number} of 2"):
            shard[number]


def test_blend_by_hand():
    shards = [("a0", "a", 30, 3), ("a1", "a", 10, 1), ("b0", "b", 60, 2), ("c0", "c", 0, 0)]
    by_tokens = blend(shards)  # an empty shard is left out
    assert {one["prefix"]: one["weight"] for one in by_tokens} == pytest.approx({"a0": 0.3, "a1": 0.1, "b0": 0.6})
    assert {one["epochs"] for one in by_tokens} == {1.0}
    # A mixture: a is gone through twice, b's documents were taken until 55 tokens were there.
    mixed = {one["prefix"]: (one["weight"], one["epochs"]) for one in blend(shards, {"a": 80, "b": 55, "c": 0})}
    weights = {prefix: weight for prefix, (weight, _) in mixed.items()}
    assert weights == pytest.approx({"a0": 60 / 135, "a1": 20 / 135, "b0": 55 / 135})
    assert {prefix: epochs for prefix, (_, epochs) in mixed.items()} == {"a0": 2.0, "a1": 2.0, "b0": 1.0}
    # What a source that ran dry was to have is shared by the others.
    dry = {one["prefix"]: one["weight"] for one in blend(shards, {"a": 50, "b": 50, "c": 100})}
    assert dry == pytest.approx({"a0": 0.375, "a1": 0.125, "b0": 0.5})
    assert blend([]) == blend([], {"a": 1}) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1000)), max_size=9))
def test_weights_sum_to_one_and_follow_tokens(shards):
    entries = blend([(f"{n}", source, tokens, 1) for n, (source, tokens) in enumerate(shards)])
    assert [entry["prefix"] for entry in entries] == [f"{n}" for n, (_, tokens) in enumerate(shards) if tokens]
    total = sum(tokens for _, tokens in shards)
    assert [entry["weight"] for entry in entries] == pytest.approx([entry["tokens"] / total for entry in entries])
