"""Masking through a whole build: shards hold no address, signals count what there was, documents/ keep the text."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines.build import build
from pipelines.recipe_file import parse
from pipelines.shards import open_shard
from pipelines.verify import verify
from tests import corpus
from tests.runs import ONE_WORKER, differing, hashes

RECIPE = """
name: masked
sources:
  mail: {format: jsonl, paths: [INPUT/mail.jsonl], mask: true}
  open: {format: jsonl, paths: [INPUT/open.jsonl]}
fit: {tokenizer: {vocab_size: 400, sample_mb: 1}}
variants: {all: {}}
tokens: {validation: 0}
"""


@pytest.fixture
def folder(tmp_path):
    rows = [{"text": corpus.prose(f"mail {n}", False, 3)} for n in range(20)]
    rows[3]["text"] += " Write to jane.doe@mail.example.org or call 8.8.4.4."
    rows[7]["text"] += " a@b.de, c@d.fr"
    for name in ("mail", "open"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def _build(folder, run, *changes):
    text = RECIPE.replace("INPUT", str(folder))
    build(parse(text, "masked", changes), ".", str(run), ONE_WORKER, lambda line: None)
    return run


def _texts(run, source):
    tokenizer = Tokenizer.from_file(str(run / "models" / "tokenizer.json"))
    shard = open_shard(str(run / f"tokens/all/train/{source}-00000-of-00001"))
    return [tokenizer.decode(ids[:-1].tolist(), skip_special_tokens=False) for ids in shard]


def test_masked_text_is_written_counted_and_verified(folder, tmp_path):
    run = _build(folder, tmp_path / "run")
    masked, plain = _texts(run, "mail"), _texts(run, "open")
    assert masked[3].endswith("Write to email@example.com or call 192.0.2.1.")
    assert masked[7].endswith(" email@example.com, email@example.com")
    assert plain[3].endswith("Write to jane.doe@mail.example.org or call 8.8.4.4.")
    assert [one == other for one, other in zip(masked, plain, strict=True)].count(False) == 2
    for source in ("mail", "open"):  # counted either way
        (path,) = (run / "signals" / source).rglob("*.parquet")
        table = pq.read_table(path, columns=["emails", "ip_addresses"])
        assert (np.sum(table["emails"]), np.sum(table["ip_addresses"])) == (3, 1)
        (path,) = (run / "documents" / source).rglob("*.parquet")
        assert "jane.doe@" in pq.read_table(path, columns=["text"])["text"][3].as_py()
    result = verify(str(run), deep=True)
    assert (result.faults, result.decoded) == ([], {"all": 40})


def test_a_changed_mask_redoes_that_source_and_not_the_other(folder, tmp_path):
    run = _build(folder, tmp_path / "run")
    before = hashes(run)
    _build(folder, run, "sources.mail.mask=false", "fit.tokenizer.sample_mb=1")
    changed = {name for name in differing(before, hashes(run)) if name.startswith(("signals/", "tokens/", "documents/"))}
    assert changed
    assert not [name for name in changed if name.startswith("documents/")]
    texts = _texts(run, "mail")
    assert texts == _texts(run, "open")
