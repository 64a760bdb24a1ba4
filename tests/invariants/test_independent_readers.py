"""Shards read back by trainers' own means: `megatron-core`'s dataset class and a bare `numpy.memmap`, text by `tokenizers`.

Every kept document of every variant is compared: its ids with the signals table's, its text with the documents table's,
without the paragraphs that were dropped.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines.shards import open_shard

VARIANTS = ("unfiltered", "filtered")


def _prefixes(run: Path, variant: str) -> list[Path]:
    """Those that the blend names, which are all that hold documents."""
    folder = run / "tokens" / variant
    blends = json.loads((folder / "blend.json").read_text("utf-8"))
    named = sorted(folder / entry["prefix"] for entries in blends.values() for entry in entries)
    holding = [path.with_suffix("") for path in sorted(folder.rglob("*.bin")) if path.stat().st_size]
    assert named == sorted(holding)
    return named


def _kept(run: Path, variant: str) -> dict[tuple[str, str], Counter]:
    """(split, source) -> every kept document as (text that is left, packed ids)."""
    kept: dict[tuple[str, str], Counter] = {}
    for path in sorted((run / "documents").rglob("*.parquet")):
        at = path.relative_to(run / "documents")
        columns = {
            "documents": ["text"],
            "clusters": ["dropped_paragraphs"],
            "signals": ["token_ids"],
            f"decisions/{variant}": ["verdict", "split"],
        }
        tables = [pq.read_table(run / name / at, columns=wanted).to_pylist() for name, wanted in columns.items()]
        for document, cluster, signal, decision in zip(*tables, strict=True):
            if decision["verdict"] == "keep":
                dropped = set(cluster["dropped_paragraphs"] or ())
                text = "\n".join(line for place, line in enumerate(document["text"].split("\n")) if place not in dropped)
                text = text.strip("\n") if dropped else text  # blank lines that then stand at its ends go too
                kept.setdefault((decision["split"], at.parts[0]), Counter())[text, signal["token_ids"]] += 1
    return kept


def _megatron():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it would like to have on a GPU
        module = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    return module.IndexedDataset


@pytest.mark.parametrize("variant", VARIANTS)
def test_megatron_core_and_memmap_read_the_ids_that_we_read(built, variant):
    reader = _megatron()
    prefixes = _prefixes(built, variant)
    assert len(prefixes) >= 6  # of two sources, two shards, two splits; some have no document to validate with
    documents = 0
    for prefix in prefixes:
        ours = open_shard(str(prefix))
        flat = np.memmap(f"{prefix}.bin", "<u2", "r")
        theirs = reader(str(prefix))
        assert len(theirs) == len(ours)
        assert theirs.document_indices.tolist() == list(range(len(ours) + 1))
        begin = 0
        for number in range(len(ours)):
            read = theirs[number]
            assert read.dtype == np.uint16
            assert read.tolist() == ours[number].tolist() == flat[begin : begin + len(read)].tolist()
            begin += len(read)
        assert begin == len(flat)
        documents += len(ours)
    manifest = json.loads((built / "manifest.json").read_text("utf-8"))
    assert documents == sum(source["kept"] for source in manifest["accounts"]["variants"][variant].values()) > 100


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoded_text_is_every_kept_document_without_its_dropped_paragraphs(built, variant):
    tokenizer = Tokenizer.from_file(str(built / "models" / "tokenizer.json"))
    reader = _megatron()
    expected = _kept(built, variant)
    found: dict[tuple[str, str], Counter] = {}
    for prefix in _prefixes(built, variant):
        key = (prefix.parent.name, prefix.name.rsplit("-", 3)[0])
        for ids in reader(str(prefix)):
            *body, end = ids.tolist()
            assert tokenizer.id_to_token(end) == "<|endoftext|>"
            text = tokenizer.decode(body, skip_special_tokens=False)
            found.setdefault(key, Counter())[text, np.array(body, "<u2").tobytes()] += 1
    assert found == expected
    assert any("\n" in text for kept in found.values() for text, _ in kept)
