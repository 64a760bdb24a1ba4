"""The whole build on a corpus with known copies: counts by construction, shards read back, resume by keys, explain."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines.errors import UserError
from pipelines.explain import explain
from pipelines.shards import open_shard
from pipelines.verify import verify
from tests.end_to_end.conftest import run_build


def _rows(run, table, columns=None):
    """Every row of a table, source by source, part by part, in order."""
    rows = []
    for path in sorted((run / table).rglob("*.parquet")):
        rows += [{**row, "part": path.stem} for row in pq.read_table(path, columns=columns).to_pylist()]
    return rows


def _manifest(run):
    return json.loads((run / "manifest.json").read_text())


def _hashes(run):
    return {path: stated["sha256"] for path, stated in _manifest(run)["files"].items()}


def test_counts_are_those_of_the_corpus(built):
    """150 web originals, 15 exact and 10 near copies, 75 wiki articles; blank lines are no records."""
    accounts = _manifest(built)["accounts"]
    assert {name: one["records"] for name, one in accounts["sources"].items()} == {"web": 175, "wiki": 75}
    unfiltered = accounts["variants"]["unfiltered"]
    assert unfiltered["web"]["dropped"] == {"duplicate_exact": 15}
    assert unfiltered["wiki"] == {**unfiltered["wiki"], "kept": 75, "dropped": {}}
    filtered = accounts["variants"]["filtered"]["web"]
    assert filtered["dropped"]["duplicate_exact"] == 15
    assert filtered["dropped"]["duplicate_near"] == 10
    assert accounts["variants"]["filtered"]["wiki"]["kept"] == 75


def test_the_keep_rate_is_what_was_asked_for_in_expectation(built):
    solved = json.loads((built / "decisions/filtered/resolved.json").read_text())
    assert solved["default"]["expected_keep_rate"] == pytest.approx(0.5, abs=1e-6)


def test_shards_hold_the_kept_documents_token_for_token(built):
    """Decoded by Hugging Face tokenizers; the text is the document's without its dropped paragraphs, nor the blank lines that then
    stand at its ends."""
    tokenizer = Tokenizer.from_file(str(built / "models/tokenizer.json"))
    for variant in ("unfiltered", "filtered"):
        documents = _rows(built, "documents", ["source", "text"])
        clusters = _rows(built, "clusters", ["dropped_paragraphs"])
        decisions = _rows(built, f"decisions/{variant}", ["verdict", "split"])
        expected = Counter()
        for document, cluster, decision in zip(documents, clusters, decisions, strict=True):
            if decision["verdict"] == "keep":
                dropped = set(cluster["dropped_paragraphs"] or ())
                kept = [line for place, line in enumerate(document["text"].split("\n")) if place not in dropped]
                text = "\n".join(kept)
                expected[decision["split"], document["source"], text.strip("\n") if dropped else text] += 1
        got = Counter()
        for path in sorted((built / "tokens" / variant).rglob("*.idx")):
            shard = open_shard(str(path).removesuffix(".idx"))
            flat = np.fromfile(path.with_suffix(".bin"), np.uint16)
            assert len(flat) == len(shard.ids)
            for number in range(len(shard)):
                *ids, end = shard[number].tolist()
                assert tokenizer.id_to_token(end) == "<|endoftext|>"
                text = tokenizer.decode(ids, skip_special_tokens=False)
                got[path.parent.name, path.name.split("-")[0], text] += 1
        assert got == expected
        assert sum(got.values()) > 100


def test_every_removed_paragraph_survives_in_exactly_one_document_of_its_source(built):
    documents = _rows(built, "documents", ["source", "doc_id", "text", "paragraph_hashes"])
    clusters = _rows(built, "clusters", ["dropped_paragraphs"])
    dropped, kept = Counter(), Counter()
    for document, cluster in zip(documents, clusters, strict=True):
        for place, paragraph in enumerate(document["paragraph_hashes"] or ()):
            gone = place in (cluster["dropped_paragraphs"] or ())
            (dropped if gone else kept)[document["source"], paragraph] += 1
    assert sum(dropped.values()) > 150  # the footer of all but one page
    assert {kept[paragraph] for paragraph in dropped} == {1}


def test_every_dropped_duplicates_keeper_passed_the_same_steps(built):
    order = ["language", "rules", "decontamination", "exact", "near", "quality", "paragraphs", None]
    for variant in ("unfiltered", "filtered"):
        ids = [row["doc_id"] for row in _rows(built, "documents", ["doc_id"])]
        decisions = _rows(built, f"decisions/{variant}")
        stage = dict(zip(ids, (row["stage"] for row in decisions), strict=True))
        duplicates = [row for row in decisions if row["duplicate_of"] is not None]
        assert duplicates
        for row in duplicates:
            assert order.index(stage[row["duplicate_of"]]) > order.index(row["stage"])


def test_no_training_document_shares_a_cluster_with_a_validation_document(built):
    splits = {}
    for cluster, decision in zip(_rows(built, "clusters"), _rows(built, "decisions/filtered"), strict=True):
        if cluster["near_cluster"]:
            splits.setdefault(cluster["near_cluster"], set()).add(decision["split"])
    assert len(splits) == 25
    assert all(len(found) == 1 for found in splits.values())
    both = [_rows(built, f"decisions/{variant}", ["split"]) for variant in ("unfiltered", "filtered")]
    assert both[0] == both[1]


def test_blend_names_every_shard_and_its_weights_sum_to_one(built):
    blends = json.loads((built / "tokens/filtered/blend.json").read_text())
    assert set(blends) == {"train", "validation"}
    assert [entry["prefix"] for entry in blends["train"]] == [
        "train/web-00000-of-00002",
        "train/web-00001-of-00002",
        "train/wiki-00000-of-00002",
        "train/wiki-00001-of-00002",
    ]
    assert sum(entry["weight"] for entry in blends["train"]) == pytest.approx(1)


def test_explain_leads_to_the_documents_own_tokens_or_to_a_reason(built):
    tokenizer = Tokenizer.from_file(str(built / "models/tokenizer.json"))
    (kept,) = explain(str(built), "w.jsonl#3")
    where = next(one for one in kept.verdicts if one.variant == "filtered")
    shard = open_shard(str(built / where.prefix))
    text = tokenizer.decode(shard[where.position][:-1].tolist())
    assert text == next(row["text"] for row in _rows(built, "documents/wiki") if row["locator"] == "w.jsonl#3")
    assert shard.starts[where.position] == where.offset
    lost = next(
        row["doc_id"]
        for row, decision in zip(_rows(built, "documents"), _rows(built, "decisions/filtered"), strict=True)
        if decision["verdict"] == "duplicate_near"
    )
    (dropped,) = explain(str(built), lost.hex())
    verdict = next(one for one in dropped.verdicts if one.variant == "filtered")
    assert (verdict.verdict, verdict.stage, verdict.threshold) == ("duplicate_near", "near", pytest.approx(0.7))
    assert verdict.value >= 0.7
    with pytest.raises(UserError, match="no document goes by 'nobody'"):
        explain(str(built), "nobody")


def test_a_second_build_redoes_nothing(built, inputs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    before = _hashes(run)
    _, said = run_build(inputs, run)
    redone = {line.split()[0]: line.split()[1] for line in said}
    assert {stage: count for stage, count in redone.items() if stage not in ("fit", "report")} == dict.fromkeys(
        ("extract", "cluster", "sample", "annotate", "select", "tokenize", "statistics"), "0"
    )
    assert _hashes(run) == before


def test_a_changed_threshold_moves_only_that_variants_decisions_and_tokens(built, inputs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    before = _hashes(run)
    run_build(inputs, run, ["variants.filtered.default.quality.keep_rate=0.3"])
    after = _hashes(run)
    moved = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in moved if path.startswith(("tokens/", "decisions/"))}
    pages = ("stats.json", "report.html", "card.md", "croissant.json", "recipe.yaml")
    allowed = ("decisions/filtered/", "tokens/filtered/", "statistics/", *pages)
    assert {path for path in moved if not path.startswith(allowed)} == set()
    assert not {path for path in moved if path.startswith(("decisions/filtered/wiki", "tokens/filtered/train/wiki"))}


def test_a_new_input_leaves_the_parts_of_the_others_alone(built, inputs, tmp_path):
    more, run = tmp_path / "inputs", tmp_path / "run"
    shutil.copytree(inputs, more)
    shutil.copytree(built, run)
    before = _hashes(run)
    (more / "wiki" / "zz.jsonl").write_text(json.dumps({"text": "One more article about rivers and kingdoms."}) + "\n")
    _, said = run_build(more, run)
    after = _hashes(run)
    assert next(line for line in said if line.startswith("extract")).split()[1] == "1"
    documents = {path for path in before if path.startswith("documents/web")}
    assert documents
    assert all(before[path] == after[path] for path in documents)
    assert _manifest(run)["accounts"]["sources"]["wiki"]["records"] == 76


def test_a_source_that_left_the_recipe_leaves_nothing_behind(built, inputs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    from pipelines.build import build
    from pipelines.recipe_file import parse
    from tests import corpus
    from tests.end_to_end.conftest import ONE_WORKER

    text = corpus.recipe(inputs).split("fit:")[0] + "variants: {unfiltered: {dedup: [exact]}}"
    text = "\n".join(line for line in text.split("\n") if not line.startswith("  wiki:"))
    build(parse(text, "tiny"), ".", str(run), ONE_WORKER, lambda line: None)
    assert not [path for path in run.rglob("*") if path.is_file() and ("/wiki" in str(path) or "/filtered/" in str(path))]
    assert verify(str(run)).faults == []


def test_a_run_directory_of_another_recipe_is_refused(built, inputs, tmp_path):
    with pytest.raises(UserError, match="belongs to a recipe with name 'tiny', not 'other'"):
        run_build(inputs, built, ["name=other"])
    with pytest.raises(UserError, match="belongs to a recipe with seed 1, not 2"):
        run_build(inputs, built, ["seed=2"])


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("which", ["documents/web", "tokens/filtered/train", "models", "decisions/filtered/wiki"])
def test_verify_finds_every_damaged_file(built, tmp_path, which, damage):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    assert verify(str(run)).faults == []
    path = next(p for p in sorted((run / which).rglob("*")) if p.suffix in (".parquet", ".bin", ".ftz") and p.stat().st_size)
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    (fault,) = verify(str(run)).faults
    assert fault.startswith(str(path.relative_to(run)))


def test_verify_deep_counts_the_inputs_again(built):
    result = verify(str(built), deep=True)
    assert (result.records, result.faults) == ({"web": 175, "wiki": 75}, [])
