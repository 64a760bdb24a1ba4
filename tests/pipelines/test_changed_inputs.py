"""An input of this machine that is another one when it has been read ends the build: held to what was hashed for the plan."""

from __future__ import annotations

import bz2
import json
import os
import shutil

import pyarrow as pa
import pytest

from pipelines import references
from pipelines.errors import UserError
from pipelines.extract import Settings, extract_task, task_key
from pipelines.parts import task_record
from pipelines.plan import make_plan
from pipelines.recipe_file import parse
from pipelines.records import Limits
from pipelines.store import Store

LINES = b"".join(json.dumps({"text": f"line {number} of this file"}).encode() + b"\n" for number in range(200))


def _appended(path):
    with path.open("ab") as file:
        file.write(b'{"text": "one more"}\n')


def _same_size_and_time(path):
    """Another content by another inode, as a copy that keeps times makes it."""
    was = path.stat()
    new = path.with_name("new")
    new.write_bytes(path.read_bytes().replace(b"line 7 ", b"line 8 "))
    os.utime(new, ns=(was.st_atime_ns, was.st_mtime_ns))
    os.replace(new, path)


def _same_inode_and_size(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"line 7 ", b"line 8 "))
    os.utime(path, ns=(1, 1))


CHANGES = {"appended": _appended, "replaced": _same_size_and_time, "written over": _same_inode_and_size, "gone": os.unlink}


def _recipe(kind="jsonl", path="in/x.jsonl", part_bytes=1 << 20):
    sources = f"sources: {{s: {{format: {kind}, paths: [{path}]}}}}"
    return parse(f"name: c\n{sources}\nlimits: {{part_bytes: {part_bytes}}}\nvariants: {{v: {{}}}}", "c")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").write_bytes(LINES)
    return tmp_path / "in" / "x.jsonl"


@pytest.mark.parametrize("part_bytes", [1 << 20, 2000], ids=["whole", "spans"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_ends_the_task_and_a_new_plan_takes_it(source, tmp_path, change, part_bytes, monkeypatch):
    """When it changes as the first record has been read: what was open is read to its end, and no record says that it was."""
    from pipelines import extract

    recipe, store = _recipe(part_bytes=part_bytes), Store(str(tmp_path / "run"))
    plan = make_plan(recipe, str(tmp_path))
    task = plan.tasks[0]
    assert (task.span is None) == (part_bytes > len(LINES))
    whole = extract.reader

    def reading(kind):
        def read(*arguments):
            for number, item in enumerate(whole(kind)(*arguments)):
                if number == 0:
                    CHANGES[change](source)
                yield item

        return read

    monkeypatch.setattr(extract, "reader", reading)
    with pytest.raises(UserError) as caught:
        extract_task(store, task, Settings.of(recipe, "s"))
    assert str(caught.value) == f"{source.as_uri()}: changed while the run was built; build it again"
    assert store.sidecar(task_record(task)) is None
    monkeypatch.undo()
    if change != "gone":
        again = make_plan(recipe, str(tmp_path)).tasks[0]
        assert task_key(again, Settings.of(recipe, "s")) != task_key(task, Settings.of(recipe, "s"))
        extract_task(store, again, Settings.of(recipe, "s"))


def test_a_file_that_was_touched_or_copied_over_itself_is_what_it_was(source, tmp_path):
    recipe, store = _recipe(), Store(str(tmp_path / "run"))
    plan = make_plan(recipe, str(tmp_path))
    shutil.copy(source, tmp_path / "copy")
    os.replace(tmp_path / "copy", source)
    os.utime(source, ns=(5, 5))
    extract_task(store, plan.tasks[0], Settings.of(recipe, "s"))
    assert store.read_json(task_record(plan.tasks[0]))["records"] == 200


def test_what_is_noted_of_a_file_is_in_no_key_and_no_plan_on_disk(source, tmp_path):
    recipe = _recipe()
    plan, settings = make_plan(recipe, str(tmp_path)), Settings.of(recipe, "s")
    os.utime(source, ns=(5, 5))
    later = make_plan(recipe, str(tmp_path))
    assert plan.tasks[0].inputs[0].stamp != later.tasks[0].inputs[0].stamp
    assert (plan, plan.to_json(), task_key(plan.tasks[0], settings)) == (later, later.to_json(), task_key(later.tasks[0], settings))
    (one,) = plan.to_json()["tasks"][0]["inputs"]
    assert list(one) == ["path", "url", "size", "sha256"]


def test_a_folder_of_a_dataset_that_changed_ends_the_task(tmp_path):
    import datasets

    recipe, store = _recipe("datasets", "in"), Store(str(tmp_path / "run"))
    datasets.Dataset(pa.table({"text": ["a", "b"]})).save_to_disk(str(tmp_path / "in"))
    plan = make_plan(recipe, str(tmp_path))
    extract_task(store, plan.tasks[0], Settings.of(recipe, "s"))
    datasets.Dataset(pa.table({"text": ["a", "b", "c"]})).save_to_disk(str(tmp_path / "in2"))
    shutil.copytree(tmp_path / "in2", tmp_path / "in", dirs_exist_ok=True)
    store = Store(str(tmp_path / "again"))
    with pytest.raises(UserError, match=r"/in: changed while the run was built; build it again$"):
        extract_task(store, plan.tasks[0], Settings.of(recipe, "s"))


def test_a_dump_that_changed_before_its_citations_were_read_ends_the_task(tmp_path):
    """It is read once for its articles and once more for what they cite."""
    page = "<page><title>A</title><ns>0</ns><id>1</id><revision><id>2</id><text>[http://a.example/ x]</text></revision></page>"
    dump = f"<mediawiki><siteinfo><base>http://w/wiki/Main</base></siteinfo>{page}</mediawiki>".encode()
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.xml.bz2"
    path.write_bytes(bz2.compress(dump))
    recipe, store = _recipe("mediawiki", "in/x.xml.bz2"), Store(str(tmp_path / "run"))
    task = make_plan(recipe, str(tmp_path)).tasks[0]
    path.write_bytes(bz2.compress(dump.replace(b"a.example", b"b.example")))
    with pytest.raises(UserError, match=r"/x\.xml\.bz2: changed while the run was built; build it again$"):
        references.cite_task(store, task, Limits())
    assert store.sidecar(references.task_path(task)) is None
