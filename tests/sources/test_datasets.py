"""Hugging Face datasets against `datasets` itself: saved to disk, files of its formats, folders, and the hub without a network."""

from __future__ import annotations

import os

import datasets
import pytest

from pipelines.build import build
from pipelines.errors import UserError
from pipelines.recipe_file import parse
from tests.runs import ONE_WORKER
from tests.sources.reading import read, records, recount, rejects, texts

ROWS = [{"text": f"row {n}, with a comma and 'ü'", "id": n} for n in range(25)]


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    """Whatever would go into a user's cache goes into a folder that must stay empty."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    yield
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def _saved(tmp_path, name):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(ROWS)
    if name == "dict":
        DatasetDict({"train": rows, "test": rows.select(range(5))}).save_to_disk(str(tmp_path / "saved"))
    else:
        rows.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    return tmp_path / "saved"


@pytest.mark.filterwarnings("ignore")
def test_saved_to_disk(tmp_path, capfd):
    found = read("datasets", _saved(tmp_path, "one"))
    assert texts(found) == [row["text"] for row in ROWS]
    assert [(one.locator, one.source_id) for one in found[:2]] == [("saved#0", "0"), ("saved#1", "1")]
    assert recount("datasets", tmp_path / "saved") == 25


@pytest.mark.filterwarnings("ignore")
def test_splits_in_the_order_of_their_names(tmp_path):
    found = read("datasets", _saved(tmp_path, "dict"))
    assert [one.locator for one in found] == [*(f"saved!test#{n}" for n in range(5)), *(f"saved!train#{n}" for n in range(25))]
    assert recount("datasets", tmp_path / "saved") == 30


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "tsv", "parquet", "txt", "jsonl.gz"])
def test_files_that_datasets_reads(tmp_path, ending):
    from datasets import Dataset

    path, rows = tmp_path / f"x.{ending}", Dataset.from_list(ROWS)
    if ending == "parquet":
        rows.to_parquet(str(path))
    elif ending in ("csv", "tsv"):
        rows.to_csv(str(path), sep="\t" if ending == "tsv" else ",", index=False)
    elif ending == "txt":
        path.write_text("".join(row["text"] + "\n" for row in ROWS))
    else:
        rows.to_json(str(path), compression="gzip" if ending.endswith("gz") else None)
    found = read("datasets", path)
    assert texts(found) == [row["text"] for row in ROWS]
    assert rejects(found) == {}
    assert recount("datasets", path) == records(found) == 25


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_files(tmp_path):
    from datasets import Dataset

    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("train-00000.parquet", "train-00001.parquet", "test-00000.parquet"):
        Dataset.from_list(ROWS[:7]).to_parquet(str(folder / name))
    found = read("datasets", folder)
    assert [one.locator for one in found] == [*(f"folder!test#{n}" for n in range(7)), *(f"folder!train#{n}" for n in range(14))]
    assert recount("datasets", folder) == 21


def test_rows_are_recounted_by_the_rules_of_their_format(tmp_path):
    """Quoted line ends, long fields, blank lines, U+2028 in a line, and a damaged file beside good ones."""
    (tmp_path / "x.csv").write_text('text,id\n"a\nb",1\n\n"' + "w" * 200_000 + '",2\n"say ""x""",3\n')
    (tmp_path / "x.jsonl").write_text('{"text": "a\u2028b"}\n\n{"text": "c"}\n')
    for name, expected in (("x.csv", 3), ("x.jsonl", 2)):
        assert recount("datasets", tmp_path / name) == records(read("datasets", tmp_path / name)) == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(str(folder / "a.parquet"))
    (folder / "b.parquet").write_bytes(b"PAR1")
    assert recount("datasets", folder) == 26


@pytest.mark.filterwarnings("ignore")
def test_rows_without_a_string_are_rejects(tmp_path):
    from datasets import Dataset

    rows = Dataset.from_dict({"text": ["a", None, "c"], "number": [1, 2, 3]})
    rows.to_parquet(str(tmp_path / "x.parquet"))
    assert rejects(read("datasets", tmp_path / "x.parquet")) == {"missing_text": 1}
    assert rejects(read("datasets", tmp_path / "x.parquet", text="number")) == {"text_not_string": 3}
    assert rejects(read("datasets", tmp_path / "x.parquet", text="gone")) == {"missing_text": 3}


@pytest.mark.filterwarnings("ignore")
def test_damage_is_one_reject(tmp_path):
    from datasets import Dataset

    path = tmp_path / "x.parquet"
    Dataset.from_list(ROWS).to_parquet(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    assert rejects(read("datasets", path)) == {"corrupt_container": 1}
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{")
    assert rejects(read("datasets", tmp_path / "saved")) == {"corrupt_container": 1}


def test_the_hub_without_a_network_is_one_line(tmp_path, monkeypatch):
    """With the library's own switch for it, so that nothing is tried."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    text = """
name: hub
sources: {web: {format: datasets, paths: ["hf://nobody/nothing"]}}
variants: {all: {}}
"""
    message = r"^hf://nobody/nothing: cannot be streamed from the hub \(.*\); it needs a network"
    with pytest.raises(UserError, match=message) as said:
        build(parse(text, "hub"), ".", str(tmp_path / "run"), ONE_WORKER, lambda line: None)
    assert "\n" not in str(said.value)


def test_another_ending_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "x.xml").write_text("<a/>")
    text = f"name: n\nsources: {{web: {{format: datasets, paths: [{tmp_path}/x.xml]}}}}\nvariants: {{all: {{}}}}\n"
    with pytest.raises(UserError, match=r"x\.xml: datasets has no reader for this ending; it has \.json"):
        build(parse(text, "n"), ".", str(tmp_path / "run"), ONE_WORKER, lambda line: None)
    assert os.listdir(tmp_path / "run") in ([], [".lock"])
