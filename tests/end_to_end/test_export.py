"""winnow export against the run that it was made of: texts against the shards' ids, columns against the tables, `datasets` as the
reader, and folders as a killed or a mistaken export leaves them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import partial

import datasets
import orjson
import pyarrow.parquet as pq
import pytest
import zstandard
from tokenizers import Tokenizer

from pipelines import export as exports
from pipelines.errors import CheckError
from pipelines.export import export
from pipelines.parts import Part, shard_of
from pipelines.shards import open_shard
from tests import corpus
from tests.errors import one_line
from tests.faults.forked import Command, kill_at
from tests.runs import command, differing, hashes, run_build, temporaries

FORMATS = ["parquet", "jsonl"]
SPLITS = ("train", "validation")
TABLES = ("documents", "signals", "clusters", "decisions/unfiltered")
# A source whose addresses are masked and whose paragraphs stand once, in several parts; a variant that keeps nothing.
OVERRIDES = ["sources.web.mask=true", "variants.nothing={default: {rules: {gopher: {words.low: 90000}}}}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    corpus.write(folder, 60)
    with (folder / "web" / "a.jsonl").open("a") as file:
        for n in range(9):
            text = corpus.prose(f"mail {n}", True, 30) + f" Write to someone.{n}@mail.example.org, or to 8.8.4.{n}."
            row = {"text": text, "date": "2020-01-01T00:00:00Z", "license": "CC0-1.0", "title": "Ünï\u2028"}
            file.write(json.dumps(row) + "\n")
    run_build(folder, folder / "run", OVERRIDES)
    return folder / "run"


def _rows(folder, split, source, name):
    """The rows of one file, by readers that winnow does not use for them."""
    path = folder / split / source / name
    if (path.parent / f"{name}.parquet").exists():
        return pq.read_table(f"{path}.parquet").to_pylist()
    if (path.parent / f"{name}.jsonl.zst").exists():
        content = zstandard.ZstdDecompressor().stream_reader((path.parent / f"{name}.jsonl.zst").read_bytes()).read()
        return [orjson.loads(line) for line in content.splitlines()]
    return []


def _parts(run, source):
    return sorted(path.stem for path in (run / "documents" / source).glob("*.parquet"))


# -- what is written --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["unfiltered", "filtered"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_text_is_the_one_that_was_tokenised(run, tmp_path, form, variant):
    """Hugging Face's tokenizers, with the run's tokenizer.json, makes of every text the ids of its document in the shards."""
    export(str(run), variant, str(tmp_path / "out"), form)
    tokenizer = Tokenizer.from_file(str(run / "models" / "tokenizer.json"))
    (end,) = tokenizer.get_added_tokens_decoder()
    compared, texts = 0, []
    for split in SPLITS:
        for source in ("web", "wiki"):
            for number in range(2):
                names = [name for name in _parts(run, source) if shard_of(Part(-1, source, name, 0, 0, ""), 2) == number]
                rows = [row for name in names for row in _rows(tmp_path / "out", split, source, name)]
                shard = open_shard(str(run / f"tokens/{variant}/{split}/{source}-{number:05d}-of-00002"))
                assert len(shard) == len(rows)
                for row, ids in zip(rows, shard, strict=True):
                    assert [*tokenizer.encode(row["text"]).ids, end] == ids.tolist()
                    assert (row["split"], row["source"]) == (split, source)
                compared += len(rows)
                texts += [row["text"] for row in rows]
    everything = "\n".join(texts)
    assert compared > 40
    assert sum("All rights reserved by the owners" in text for text in texts) <= 1  # the footer of every page of web
    assert "mail.example.org" not in everything
    assert "8.8.4." not in everything
    assert "Write to email@example.com, or to 192.0.2.1." in everything


@pytest.mark.parametrize("form", FORMATS)
def test_counts_are_the_runs_and_files_are_what_is_stated(run, tmp_path, form):
    found = export(str(run), "filtered", str(tmp_path / "out"), form).to_json()
    accounts = json.loads((run / "manifest.json").read_bytes())["accounts"]["variants"]["filtered"]
    counted = Counter()
    for split in SPLITS:
        for source, one in accounts.items():
            stated = {"documents": one["documents"][split], "tokens": one["tokens"][split]}
            rows = [row for name in _parts(run, source) for row in _rows(tmp_path / "out", split, source, name)]
            assert found["counts"][split][source] == stated
            assert len(rows) == stated["documents"]
            counted[source] += len(rows)
    assert counted == {source: one["kept"] for source, one in accounts.items()}
    on_disk = hashes(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_bytes()) == {key: found[key] for key in found if key != "folder"}
    assert {path: one["sha256"] for path, one in found["files"].items()} == {n: h for n, h in on_disk.items() if n != "export.json"}
    assert found["run"] == {"name": "tiny", "manifest.json": hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest()}


def test_both_formats_say_what_the_tables_say(run, tmp_path):
    for form in FORMATS:
        export(str(run), "unfiltered", str(tmp_path / form), form)
    seen = Counter()
    for source in ("web", "wiki"):
        for name in _parts(run, source):
            paths = [run / table / source / f"{name}.parquet" for table in TABLES]
            tables = [pq.read_table(path).to_pylist() for path in paths]
            for split in SPLITS:
                expected = []
                for document, signals, cluster, decision in zip(*tables, strict=True):
                    if (decision["verdict"], decision["split"]) == ("keep", split):
                        of = cluster["near_cluster"] or cluster["exact_cluster"]
                        seen["clusters"] += of is not None
                        expected.append(
                            {key: document[key] for key in ("url", "title", "date", "license", "source")}
                            | {key: signals[key] for key in ("language", "language_score", "quality")}
                            | {"doc_id": document["doc_id"].hex(), "split": split, "cluster": of.hex() if of else None}
                        )
                rows, lines = ([*_rows(tmp_path / form, split, source, name)] for form in FORMATS)
                assert [row["text"] for row in rows] == [row["text"] for row in lines]
                assert [{key: row[key] for key in row if key != "text"} for row in rows] == expected
                for row, line in zip(rows, lines, strict=True):
                    assert list(row) == list(line)
                    scores = {key: round(row[key], 4) for key in ("language_score", "quality")}
                    assert line == {**row, **scores}
                seen["rows"] += len(rows)
    assert seen["rows"] > 60
    assert seen["clusters"] > 0


def test_a_split_and_a_source_are_all_that_is_written_when_they_are_asked_for(run, tmp_path):
    whole = export(str(run), "filtered", str(tmp_path / "whole")).to_json()
    some = export(str(run), "filtered", str(tmp_path / "some"), splits=["train"], sources=["wiki"]).to_json()
    assert some["counts"] == {"train": {"wiki": whole["counts"]["train"]["wiki"]}}
    data = {path: one for path, one in some["files"].items() if path != "README.md"}
    assert data == {path: one for path, one in whole["files"].items() if path.startswith("train/wiki/")}
    assert data


def test_a_variant_that_keeps_nothing_has_a_card_and_no_file(run, tmp_path):
    found = export(str(run), "nothing", str(tmp_path / "out"))
    assert sorted(hashes(tmp_path / "out")) == ["README.md", "export.json"]
    assert "configs" not in (tmp_path / "out" / "README.md").read_text("utf-8")
    assert found.to_text().endswith(f"1 files and export.json in {tmp_path / 'out'}")


def test_the_command_prints_what_it_wrote_and_starts_no_beam(run, tmp_path):
    given = ["export", str(run), "--variant", "filtered", "--to", str(tmp_path / "out"), "--split", "train", "--source", "wiki"]
    code = f"import sys; sys.argv = ['winnow', *{[*given, '--json']!r}]\nfrom pipelines.cli import main\nmain()\n"
    code += "assert 'apache_beam' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert sorted(found) == ["counts", "files", "folder", "format", "run", "sources", "splits", "variant"]
    assert (found["folder"], found["splits"], found["sources"]) == (str(tmp_path / "out"), ["train"], ["wiki"])
    again = command(given)
    counts = found["counts"]["train"]["wiki"]
    row = ["train", "wiki", str(counts["documents"]), f"{counts['tokens']:,}", str(len(found["files"]) - 1)]
    assert (again.returncode, again.stdout.splitlines()[2].split()) == (0, row)


# -- the same bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_hash_seed_time_zone_and_locale_change_no_byte(run, tmp_path, form):
    export(str(run), "filtered", str(tmp_path / "here"), form)
    environment = {"PYTHONHASHSEED": "4711", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
    environment |= {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = command(["export", str(run), "--variant", "filtered", "--to", str(tmp_path / "there"), "--format", form], environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert differing(hashes(tmp_path / "here"), hashes(tmp_path / "there")) == set()


def test_an_export_that_was_killed_is_made_again_to_the_same_bytes(run, tmp_path):
    """kill -9 at moments by a fixed draw, each time in the folder as the one before left it; then it is let go, and made anew."""
    export(str(run), "filtered", str(tmp_path / "whole"))
    reference, out, moment, kills = hashes(tmp_path / "whole"), tmp_path / "out", corpus.Draw("moments of killing"), 0
    arguments = ["export", str(run), "--variant", "filtered", "--to", str(out)]
    while kills < 4:
        killed = Command(arguments, tmp_path / f"log-{kills}", [kill_at(out, 2 + moment.below(4 * len(reference)))])
        assert killed.wait() == -signal.SIGKILL, killed.said()
        kills += 1
        assert not (out / "export.json").exists()
        visible = {name: one for name, one in hashes(out).items() if ".tmp-" not in name and name != "unfinished.json"}
        assert {name for name, one in visible.items() if reference.get(name) != one} == set()
    for number in (8, 9):
        ended = Command(arguments, tmp_path / f"log-{number}")
        assert (ended.wait(), temporaries(out)) == (0, []), ended.said()
        assert differing(reference, hashes(out)) == set()


# -- what is refused --------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_anything_else_is_left_alone(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    said = f"{out}: holds notes.txt, which is not of this export; give another --to"
    one_line(lambda: export(str(run), "filtered", str(out)), said)
    assert sorted(hashes(out)) == ["notes.txt"]
    (out / "notes.txt").unlink()
    export(str(run), "filtered", str(out))
    before = hashes(out)
    for change in ({"variant": "unfiltered"}, {"form": "jsonl"}, {"splits": ["train"]}, {"sources": ["wiki"]}):
        given = {"variant": "filtered", **change}
        said = f"{out}: holds another export (filtered as parquet, says export.json); give another --to"
        one_line(lambda given=given: export(str(run), to=str(out), **given), said)
    (out / "notes.txt").write_text("mine")
    one_line(lambda: export(str(run), "filtered", str(out)), f"{out}: holds notes.txt")
    (out / "notes.txt").unlink()
    assert hashes(out) == before
    (out / "export.json").write_text("[")
    one_line(lambda: export(str(run), "filtered", str(out)), f"{out}/export.json: damaged", "give another --to")
    (out / "export.json").unlink()
    one_line(lambda: export(str(run), "filtered", str(out)), f"{out}: holds README.md, which is not of this export")
    one_line(lambda: export(str(run), "filtered", str(run / "out")), "lies in the run, whose next build would remove it")


def test_what_is_not_there_is_named(run, tmp_path):
    out = str(tmp_path / "out")
    one_line(lambda: export(str(run), "other", out), f"{run}: no variant 'other'; it has filtered, nothing, unfiltered")
    one_line(lambda: export(str(run), "filtered", out, sources=["wiki", "Web"]), f"{run}: no source 'Web'; it has web, wiki")
    one_line(lambda: export(str(tmp_path), "filtered", out), f"{tmp_path}: no complete run (manifest.json is missing)")
    assert not (tmp_path / "out").exists()


def _flip(path, column):
    """One bit in the middle of a column's first chunk."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    (chunk,) = (one for one in map(group.column, range(group.num_columns)) if one.path_in_schema == column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("table", "harm"),
    [("documents", partial(_flip, column="text")), ("signals", partial(_flip, column="quality")), *((one, _cut) for one in TABLES)],
    ids=["a bit of a text", "a bit of a score", *(f"the end of {one}" for one in TABLES)],
)
def test_a_damaged_table_is_one_line_that_names_it_and_no_export(run, tmp_path, table, harm):
    shutil.copytree(run, tmp_path / "run")
    damaged = sorted((tmp_path / "run" / table / "wiki").glob("*.parquet"))[0]
    harm(damaged)
    with pytest.raises(CheckError, match=f"{damaged}: damaged") as caught:
        export(str(tmp_path / "run"), "unfiltered", str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "export.json").exists()
    assert temporaries(tmp_path / "out") == []


def test_counts_that_differ_from_the_accounts_are_an_error(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["accounts"]["variants"]["filtered"]["wiki"]["tokens"]["train"] += 1
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckError, match=r"for train in the tables of wiki, and .* in manifest\.json; run winnow verify"):
        export(str(tmp_path / "run"), "filtered", str(tmp_path / "out"))
    assert not (tmp_path / "out" / "export.json").exists()


def test_a_run_that_is_built_meanwhile_is_not_exported(run, tmp_path, monkeypatch):
    """The manifest becomes another one when the last document is written."""
    shutil.copytree(run, tmp_path / "run")
    proven, manifest = exports._prove, tmp_path / "run" / "manifest.json"

    def late(*arguments):
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        proven(*arguments)

    monkeypatch.setattr(exports, "_prove", late)
    one_line(lambda: export(str(tmp_path / "run"), "filtered", str(tmp_path / "out")), f"{tmp_path}/run: was built again meanwhile")
    assert not (tmp_path / "out" / "export.json").exists()


# -- by the library that everybody has -----------------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`datasets.load_dataset`, which asks nobody and keeps its cache to itself."""
    for where in ("huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"):
        monkeypatch.setattr(where, True)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    return lambda folder, *more: datasets.load_dataset(str(folder), *more, cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("form", FORMATS)
def test_datasets_loads_an_export_as_it_is(run, tmp_path, form, load):
    """Every row; also of JSON lines, where titles, dates and licenses of most files are null to the last."""
    export(str(run), "unfiltered", str(tmp_path / "out"), form)
    found = load(tmp_path / "out")
    assert sorted(found) == ["train", "validation"]
    for split in SPLITS:
        names = [(source, name) for source in ("web", "wiki") for name in _parts(run, source)]
        rows = {row["doc_id"]: row for source, name in names for row in _rows(tmp_path / "out", split, source, name)}
        loaded = {row["doc_id"]: row for row in found[split]}
        assert loaded.keys() == rows.keys()
        assert {key: row["text"] for key, row in loaded.items()} == {key: row["text"] for key, row in rows.items()}
        if form == "parquet":
            assert loaded == rows
    features = {name: one.dtype for name, one in found["train"].features.items()}
    other = {"text": "large_string", "language_score": "float32", "quality": "float32"}
    assert features == {**dict.fromkeys(features, "string"), **other}
    assert {row["title"] for row in found["train"]} > {None, "Ünï\u2028"}


def test_datasets_loads_documents_and_verdicts_of_a_run_whose_card_is_its_readme(run, tmp_path, load):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "card.md").rename(tmp_path / "copy" / "README.md")
    names = [(source, name) for source in ("web", "wiki") for name in _parts(run, source)]
    documents = load(tmp_path / "copy")["train"]
    stored = [row for source, name in names for row in pq.read_table(run / "documents" / source / f"{name}.parquet").to_pylist()]
    assert documents.to_list() == stored
    verdicts = load(tmp_path / "copy", "decisions-filtered")["train"]
    paths = [run / "decisions" / "filtered" / source / f"{name}.parquet" for source, name in names]
    assert verdicts["verdict"] == [one for path in paths for one in pq.read_table(path)["verdict"].to_pylist()]
