"""I2: equal inputs give equal bytes, whatever runs them, in any order of listing, from any place, in any environment.

Every file of a run is compared by the sha256 of what lies on the disk: parts, shards, models, statistics, index, report and
manifest. `runs.jsonl` and `.lock` say when and how a run was made and stand outside. `plan.json` names where inputs lie.
"""

from __future__ import annotations

import json
import shutil

import pytest
from fsspec.implementations.local import LocalFileSystem

from pipelines.engine import load_engine
from tests import corpus
from tests.invariants.conftest import build_varied
from tests.runs import ONE_WORKER, TWO_PROCESSES_OPTIONS, TWO_THREADS, command, differing, hashes

pytestmark = pytest.mark.timeout(900)
LOOPBACK = "--environment_type=LOOPBACK"  # workers in this process, where the engine file names an image


def test_the_reference_holds_every_kind_of_file(reference):
    """What is compared below is not empty: rejects, duplicates, dropped paragraphs, models, shards of both variants."""
    manifest = json.loads((reference / "manifest.json").read_text("utf-8"))
    web = manifest["accounts"]["sources"]["web"]
    assert web["rejects"] == {"corrupt_container": 1, "malformed_json": 2, "missing_text": 1, "text_not_string": 1}
    dropped = manifest["accounts"]["variants"]["filtered"]["web"]["dropped"]
    assert {"duplicate_exact", "duplicate_near", "quality_draw"} <= dropped.keys()
    on_disk = set(hashes(reference)) - {"manifest.json", "plan.json"}
    assert {name for name in on_disk if not name.endswith(".stats.json")} == set(manifest["files"])
    assert {name.split("/")[0] for name in on_disk} == {
        *("documents", "rejects", "clusters", "samples", "models", "signals", "decisions", "tokens", "statistics"),
        *("index", "recipe.yaml", "stats.json", "report.html", "card.md", "croissant.json"),
    }


def test_two_threads_other_order_of_listing_and_another_place_give_the_same_bytes(reference, varied, tmp_path, monkeypatch):
    """The inputs are copied elsewhere and every listing of a folder comes backwards; only plan.json says where they lie."""
    elsewhere = tmp_path / "an other" / "place"
    shutil.copytree(varied, elsewhere)
    glob, find = LocalFileSystem.glob, LocalFileSystem.find

    def backwards(listed):
        return dict(reversed(listed.items())) if isinstance(listed, dict) else list(reversed(listed))

    monkeypatch.setattr(LocalFileSystem, "glob", lambda *args, **kwargs: backwards(glob(*args, **kwargs)))
    monkeypatch.setattr(LocalFileSystem, "find", lambda *args, **kwargs: backwards(find(*args, **kwargs)))
    build_varied(elsewhere, tmp_path / "run", TWO_THREADS)
    assert differing(hashes(reference), hashes(tmp_path / "run")) == {"plan.json"}


def test_worker_processes_hash_seed_time_zone_and_locale_give_the_same_bytes(reference, varied, tmp_path):
    """The command itself, in a fresh interpreter with two worker processes, ASCII as its encoding and another day's date."""
    environment = {
        "PYTHONHASHSEED": "4711",
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
    }
    arguments = ["build", str(varied / "recipe.yaml"), "--run", str(tmp_path / "run"), "--", *TWO_PROCESSES_OPTIONS]
    done = command(arguments, environment)
    assert (done.returncode, done.stderr[-2000:] if done.returncode else "") == (0, "")
    assert differing(hashes(reference), hashes(tmp_path / "run")) == set()


def test_a_job_server_gives_the_same_bytes(reference, varied, tmp_path):
    """Beam's own job server over gRPC, as flink.yaml asks one: the pipelines travel to it, and its workers call back here."""
    from apache_beam.runners.portability import local_job_service

    server = local_job_service.LocalJobServicer(staging_dir=str(tmp_path / "staging"))
    port = server.start_grpc_server(0)
    try:
        build_varied(varied, tmp_path / "run", load_engine("flink.yaml", [f"--job_endpoint=localhost:{port}", LOOPBACK]))
    finally:
        server.stop()
    assert differing(hashes(reference), hashes(tmp_path / "run")) == set()


def test_a_recipe_with_absolute_paths_changes_no_key_and_only_the_files_that_quote_it(reference, varied, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(varied, elsewhere)
    (elsewhere / "recipe.yaml").write_text(corpus.recipe(elsewhere), "utf-8")
    said = build_varied(elsewhere, run, ONE_WORKER)
    redone = {line.split()[0]: line.split()[1] for line in said}
    assert {stage for stage, count in redone.items() if count != "0"} == {"fit", "report"}
    quoting = {"recipe.yaml", "stats.json", "report.html", "manifest.json", "plan.json"}
    assert differing(hashes(reference), hashes(run)) == quoting
