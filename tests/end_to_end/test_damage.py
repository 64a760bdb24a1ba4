"""A damaged run is mended by what `verify` says of each fault and another build: to the bytes that it had (`built`)."""

from __future__ import annotations

import re
import shutil

import pytest

from pipelines.errors import CheckError
from pipelines.manifest import write_manifest
from pipelines.parts import list_parts
from pipelines.recipe_file import parse
from pipelines.store import SIDECAR, Store
from pipelines.verify import load_plan, verify
from tests import corpus
from tests.runs import differing, hashes, run_build

WAY = re.compile(r"^(\S+) is not what was written \(.*\); remove (\S+\.stats\.json) and build again$")


@pytest.fixture
def run(built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    return tmp_path / "run"


def _first(run, folder, ending):
    return next(path.relative_to(run).as_posix() for path in sorted((run / folder).rglob(f"*{ending}")) if path.stat().st_size)


def test_what_no_later_stage_reads_is_made_again(run, built, inputs):
    """Token ids, and records that are no documents: nothing of a build would stumble over them."""
    damaged = [_first(run, "tokens/filtered/train", ".bin"), _first(run, "rejects/web", ".parquet")]
    for path in damaged:
        content = bytearray((run / path).read_bytes())
        content[len(content) // 2] ^= 1
        (run / path).write_bytes(content)
    faults = [WAY.fullmatch(fault) for fault in verify(str(run)).faults]
    assert sorted(found[1] for found in faults) == sorted(damaged)
    for path, (_, sidecar) in zip(damaged, sorted(found.groups() for found in faults)[::-1], strict=True):
        assert sidecar == path + SIDECAR
        (run / sidecar).unlink()
    _, said = run_build(inputs, run)
    redone = {line.split()[0]: line.split()[1] for line in said if " redone, " in line}
    assert (redone["extract"], redone["tokenize"], redone["annotate"]) == ("1", "1", "0")
    assert differing(hashes(built), hashes(run)) == set()
    assert verify(str(run)).faults == []


@pytest.mark.parametrize("which", ["file", "sidecar"])
def test_what_is_lost_is_told_with_the_way_out_and_made_again(run, built, inputs, which):
    path = _first(run, "tokens/unfiltered/validation", ".bin")
    if which == "file":
        (run / path).unlink()
        assert verify(str(run)).faults == [f"{path} is missing; remove {path}{SIDECAR} and build again"]
    (run / (path + SIDECAR)).unlink()
    if which == "sidecar":
        assert verify(str(run)).faults == [f"{path}{SIDECAR} is missing; build again"]
    run_build(inputs, run)
    assert differing(hashes(built), hashes(run)) == set()


@pytest.mark.parametrize(
    ("folder", "ending"),
    [
        ("rejects", ".parquet"),
        ("signals", ".parquet"),
        ("decisions/filtered", "resolved.json"),
        ("models", "tokenizer.json"),
        ("tokens/filtered/train", ".bin"),
        ("statistics", ".json"),
    ],
)
def test_a_manifest_never_leaves_out_what_the_recipe_makes(run, inputs, folder, ending):
    """Whatever let a stage pass over it: a file without a sidecar is not finished, and would be pruned."""
    path, store = _first(run, folder, ending), Store(str(run))
    recipe, plan = parse(corpus.recipe(inputs), "tiny"), load_plan(store)
    parts = list_parts(store, plan)
    (run / (path + SIDECAR)).unlink()
    before = hashes(run)
    with pytest.raises(CheckError) as caught:
        write_manifest(store, recipe, plan, parts, None)
    assert str(caught.value) == f"{run}/{path}: not finished, though every stage is done; build again"
    assert hashes(run) == before
