"""A build writes into run directories and empty folders only, and removes nothing there but its own: by what lies there then."""

from __future__ import annotations

import json
import shutil
import uuid

import pytest

from pipelines import run_directory
from pipelines.errors import UserError
from pipelines.store import TEMPORARY, Store
from tests.runs import hashes, run_build

UNFINISHED = f"{TEMPORARY}{uuid.UUID(int=1).hex}"
PLAN = json.dumps({"recipe": "tiny", "seed": 1, "tasks": []})
FOREIGN = {
    "thesis.txt": "thesis.txt",
    "data/x.jsonl": "data",
    "recipe.yaml": "recipe.yaml",  # somebody's own, as it lies beside his inputs
    ".git/HEAD": ".git",
    "run/plan.json": "run",  # a folder of run directories
    f"thesis.txt{UNFINISHED}": f"thesis.txt{UNFINISHED}",
    "plan.json": "plan.json",  # no plan
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def _write(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.mark.parametrize("path", FOREIGN)
@pytest.mark.parametrize("locked", [False, True])
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(inputs, folder, path, locked):
    """Also where there is a lock, which a build of an older winnow would have left."""
    _write(folder, {path: "{}", **({".lock": ""} if locked else {})})
    before = hashes(folder)
    with pytest.raises(UserError) as caught:
        run_build(inputs, folder)
    said = f"holds files and is no run directory ({FOREIGN[path]}); give --run a new folder, or an empty one"
    assert str(caught.value) == f"{folder}: {said}"
    assert hashes(folder) == before
    assert {one.name for one in folder.iterdir()} == {FOREIGN[path], *([".lock"] if locked else [])}


def test_a_folder_of_many_names_is_told_by_three(folder):
    _write(folder, dict.fromkeys("dbca", ""))
    with pytest.raises(UserError, match=r"no run directory \(a, b, c, \.\.\.\); "):
        run_directory.check(Store(str(folder)))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".lock": "process 1 of elsewhere\n"},
        {".lock": "", f"plan.json{UNFINISHED}": '{"recip'},
        {".lock": "", "plan.json": PLAN},
        {".lock": "", "plan.json": PLAN, f"recipe.yaml{UNFINISHED}": "", "thesis.txt": "", "data/x": ""},
    ],
    ids=["nothing", "lock", "plan begun", "plan", "and more"],
)
def test_what_a_killed_build_leaves_is_a_run_directory(folder, files):
    _write(folder, files)
    run_directory.check(Store(str(folder)))
    run_directory.check(Store(f"{folder}/none/yet"))


def test_other_files_in_a_run_directory_stay(built, inputs, folder):
    """A variant that the recipe no longer has goes; what somebody put there does not, also where its name looks unfinished."""
    shutil.copytree(built, folder, dirs_exist_ok=True)
    mine = {
        "notes.txt": "a",
        "my.yaml": "b",
        "data/x.jsonl": "c",
        "comparisons/one/result.json": "d",
        f"comparisons/one/x{UNFINISHED}": "e",
        f"data/x{UNFINISHED}": "f",
        "a.tmp-b": "g",
    }
    gone = {f"stats.json{UNFINISHED}": "", f"models/x{UNFINISHED}": "", "decisions/filtered/web/old.parquet": ""}
    _write(folder, mine | gone)
    run_build(inputs, folder, ["variants={unfiltered: {dedup: [exact]}}"])
    after = hashes(folder)
    assert {path: (folder / path).read_text() for path in mine} == mine
    assert not after.keys() & gone.keys()
    assert not [path for path in after if "filtered" in path.split("/")]


def test_an_input_in_the_run_directory_is_refused(built, inputs, folder):
    shutil.copytree(built, folder, dirs_exist_ok=True)
    shutil.copytree(inputs, folder / "inputs")
    before = hashes(folder)
    with pytest.raises(UserError, match=r"/folder/inputs/.*: an input in the run directory; move it, or give another --run$"):
        run_build(folder / "inputs", folder)
    assert hashes(folder) == before


def test_every_folder_that_a_build_writes_is_known(built):
    written = {path.name for path in built.iterdir() if path.is_dir()}
    assert written <= run_directory.FOLDERS
