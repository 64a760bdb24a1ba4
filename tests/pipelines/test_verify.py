"""verify: damage of every kind is found, also where all hashes were made to fit; deep checks by other means than the build's."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines import recheck
from pipelines.errors import UserError
from pipelines.parts import list_parts
from pipelines.recipe import Recipe
from pipelines.report import rewrite_report
from pipelines.store import Store
from pipelines.verify import load_plan, verify


@pytest.fixture
def run(built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    return tmp_path / "run"


def _restate(run, path):
    """Makes manifest and sidecar name a file as it lies there now, as a wrong build would have."""
    digest = Store(str(run)).digest(path)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"][path].update(digest)
    (run / "manifest.json").write_text(json.dumps(manifest))
    sidecar = run / (path + ".stats.json")
    if sidecar.exists():
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **digest}))


def _change_table(run, path, change):
    """Writes a table again with some rows changed."""
    table = pq.read_table(run / path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), run / path, row_group_size=10**6, write_page_checksum=True)
    _restate(run, path)


def _first(run, folder, ending):
    return next(p.relative_to(run).as_posix() for p in sorted((run / folder).rglob(f"*{ending}")) if p.stat().st_size)


def _deep(run):
    """(recipe, parts) for single deep checks."""
    store = Store(str(run))
    return store, Recipe.model_validate(store.read_json("manifest.json")["recipe"]), list_parts(store, load_plan(store))


def test_a_sound_run_holds_by_every_means(run):
    found = verify(str(run), deep=True)
    manifest = json.loads((run / "manifest.json").read_text())
    assert found.faults == []
    assert found.files == len(manifest["files"])
    kept = {v: sum(one["kept"] for one in by.values()) for v, by in manifest["accounts"]["variants"].items()}
    assert found.decoded == kept
    assert found.languages == 250  # every document of a run this small
    assert found.records == {"web": 175, "wiki": 75}
    assert found.to_text().splitlines()[-1] == "everything holds"
    assert list(found.to_json()) == ["files", "bytes", "faults", "decoded", "languages", "records", "purged"]


def test_a_verdict_that_was_changed_does_not_add_up(run):
    path = _first(run, "decisions/filtered/web", ".parquet")

    def change(rows):
        row = next(row for row in rows if row["verdict"] == "keep")
        row["verdict"], row["stage"] = "language", "language"

    _change_table(run, path, change)
    (fault,) = verify(str(run)).faults
    assert fault.startswith("conservation violated: variants.filtered, source web: kept for")


def test_accounts_that_were_changed_are_not_those_of_the_tables(run):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["accounts"]["sources"]["web"]["records"] += 1
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert verify(str(run)).faults == ["the accounts of the manifest are not those of the tables"]


def test_one_wrong_token_is_found_by_decoding(run):
    """The hashes fit and the counts add up: only the text tells."""
    prefix = _first(run, "tokens/filtered/train", ".bin").removesuffix(".bin")
    ids = np.fromfile(run / (prefix + ".bin"), np.uint16)
    ids[3] = ids[3] + 1 if ids[3] < 256 else 65
    ids.tofile(run / (prefix + ".bin"))
    _restate(run, prefix + ".bin")
    assert verify(str(run)).faults == []
    (fault,) = verify(str(run), deep=True).faults
    assert fault.startswith(f"{prefix}.bin: document 0 is not the text of ")


@pytest.mark.parametrize("swap", ["documents", "end"])
def test_documents_out_of_order_or_run_together_are_found(run, swap):
    prefix = _first(run, "tokens/unfiltered/train", ".bin").removesuffix(".bin")
    end = Tokenizer.from_file(str(run / "models/tokenizer.json")).token_to_id("<|endoftext|>")
    ids = np.fromfile(run / (prefix + ".bin"), np.uint16)
    ends = np.flatnonzero(ids == end)
    if swap == "documents":
        first, second, rest = np.split(ids, ends[:2] + 1)
        ids = np.concatenate([second, first, rest])
    else:
        ids[ends[0]] = 65
    ids.tofile(run / (prefix + ".bin"))
    store, recipe, parts = _deep(run)
    _, (fault,) = recheck.shards(store, recipe, parts)
    assert fault.startswith(f"{prefix}.bin: document 0 is not the text of ")


@pytest.mark.parametrize(("cut", "fault"), [(True, "but more are kept"), (False, "more documents than are kept")])
def test_too_few_and_too_many_documents_are_found(run, cut, fault):
    prefix = _first(run, "tokens/unfiltered/train", ".bin").removesuffix(".bin")
    content = (run / (prefix + ".bin")).read_bytes()
    ids = np.frombuffer(content, np.uint16)
    last = np.flatnonzero(ids == ids[-1])[-2] + 1  # where the last document begins
    (run / (prefix + ".bin")).write_bytes(ids[:last].tobytes() if cut else content + ids[last:].tobytes())
    store, recipe, parts = _deep(run)
    _, (found,) = recheck.shards(store, recipe, parts)
    assert fault in found


def test_an_index_with_other_lengths_is_found(run):
    path = _first(run, "tokens/unfiltered/train", ".idx")
    content = bytearray((run / path).read_bytes())
    content[34] += 1
    (run / path).write_bytes(content)
    store, recipe, parts = _deep(run)
    _, faults = recheck.shards(store, recipe, parts)
    assert faults == [f"{path}: has other lengths than the documents of its .bin"]


def test_a_token_file_is_split_alike_whatever_its_blocks_are(run, monkeypatch):
    store, recipe, parts = _deep(run)
    whole = recheck.shards(store, recipe, parts)
    monkeypatch.setattr(recheck, "_BLOCK", 14)
    assert recheck.shards(store, recipe, parts) == whole


def test_a_language_that_was_changed_is_found_by_fasttext(run):
    path = _first(run, "signals/wiki", ".parquet")
    _change_table(run, path, lambda rows: rows[5].update(language="de"))
    store, recipe, parts = _deep(run)
    compared, (fault,) = recheck.languages(store, recipe, parts)
    assert compared == 250
    assert fault.startswith(f"{path}: ")
    assert fault.endswith(" is de, fastText says en")


def test_a_run_is_verified_without_fasttext_too_and_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "fasttext", None)
    monkeypatch.setattr(recheck.util, "find_spec", lambda name: None)
    store, recipe, parts = _deep(run)
    assert recheck.languages(store, recipe, parts) == (None, [])
    found = verify(str(run), deep=True)
    assert (found.languages, found.faults) == (None, [])
    assert "languages not identified again: fastText is not installed" in found.to_text()


def test_an_input_that_grew_is_found_and_one_that_is_gone_is_an_error(built, inputs, run, tmp_path):
    plan = json.loads((run / "plan.json").read_text())
    for task in plan["tasks"]:
        for one in task["inputs"]:
            one["url"] = one["url"].replace(str(inputs), str(tmp_path / "moved"))
    shutil.copytree(inputs, tmp_path / "moved")
    (run / "plan.json").write_text(json.dumps(plan))
    store, recipe, _ = _deep(run)
    accounts = store.read_json("manifest.json")["accounts"]
    assert recheck.records(recipe, load_plan(store), accounts)[1] == []
    with open(tmp_path / "moved" / "wiki" / "w.jsonl", "a") as file:
        file.write('{"text": "One more."}\n')
    assert recheck.records(recipe, load_plan(store), accounts)[1] == [
        "sources.wiki: 75 records were read, 76 are counted in the inputs"
    ]
    (tmp_path / "moved" / "wiki" / "w.jsonl").unlink()
    with pytest.raises(UserError, match=r"w\.jsonl: cannot be opened"):
        recheck.records(recipe, load_plan(store), accounts)


def test_a_report_that_is_drawn_again_is_the_builds_and_leaves_the_run_sound(run):
    before = (run / "report.html").read_bytes()
    assert rewrite_report(str(run)) == f"{run}/report.html"
    assert (run / "report.html").read_bytes() == before
    (run / "report.html").write_bytes(b"damaged")
    assert len(verify(str(run)).faults) == 1
    rewrite_report(str(run))
    assert verify(str(run)).faults == []


def test_a_report_of_another_version_is_stated_in_the_manifest(run, monkeypatch):
    from pipelines import report

    monkeypatch.setattr(report, "draw", lambda stats: "another page")
    rewrite_report(str(run))
    assert (run / "report.html").read_bytes() == b"another page"
    assert verify(str(run)).faults == []


def test_a_run_of_another_version_of_winnow_is_one_line(built, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["recipe"]["sources"]["web"]["gone"] = None
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: unknown key sources\.web\.gone; see docs/recipe\.md for the keys$"):
        verify(str(run))
