"""Inputs to tasks: packs by content, names by path, spans side by side, and what is refused before anything runs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.plan import make_plan
from pipelines.recipe_file import parse
from pipelines.records import Span

TARGET = 1_000_000


def _recipe(paths, **source):
    tree = {
        "name": "p",
        "sources": {"s": {"format": "jsonl", "paths": paths, **source}},
        "limits": {"part_bytes": TARGET},
        "variants": {"all": {}},
    }
    return parse(json.dumps(tree), "p")


def _files(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")


def _planned(folder, sizes, spans=None, **source):
    """The plan over files of the given sizes, which need not exist in full: what a scan would say is given."""
    _files(folder, sizes)

    def scanned(url, kind, target):
        name = url.rpartition(f"{folder}/")[2]
        return sizes[name], "0" * 64, (spans or {}).get(name, [Span(0, sizes[name], 0)])

    return make_plan(_recipe([f"{folder}/**/*.jsonl"], root=str(folder), **source), "/", scanned)


sizes_of_many = st.dictionaries(
    st.from_regex(r"[a-c]{1,2}/[a-z]{1,6}", fullmatch=True).map(lambda name: name + ".jsonl"),
    st.integers(0, 3 * TARGET),
    min_size=1,
    max_size=40,
)


@given(sizes_of_many)
def test_every_input_is_in_exactly_one_task_and_packs_are_bounded(tmp_path_factory, sizes):
    plan = _planned(tmp_path_factory.mktemp("plan"), sizes)
    planned = [found.path for task in plan.tasks for found in task.inputs]
    assert sorted(planned) == sorted(sizes)
    names = [task.name for task in plan.tasks]
    assert names == sorted(set(names))
    for task in plan.tasks:
        # A pack is closed at four times the target; only its last input may lead beyond.
        assert sum(found.size for found in task.inputs[:-1]) < 4 * TARGET


@given(sizes_of_many, st.integers(0, 3 * TARGET))
def test_a_new_input_changes_at_most_its_own_pack_and_cuts_it_at_most_in_two(tmp_path_factory, sizes, size):
    """Up to where the cap of a pack speaks, which it does after four targets without a boundary."""
    folder = tmp_path_factory.mktemp("plan")
    before = {task.name: [found.path for found in task.inputs] for task in _planned(folder, sizes).tasks}
    after = {
        task.name: [found.path for found in task.inputs]
        for task in _planned(tmp_path_factory.mktemp("more"), {**sizes, "b/new0.jsonl": size}).tasks
    }
    if max(sum(sizes.get(path, 0) for path in paths) for paths in before.values()) < 2 * TARGET:
        changed = [name for name, paths in before.items() if after.get(name) != paths]
        assert len(changed) <= 1


def test_spans_are_tasks_of_their_own(tmp_path):
    spans = {"big.jsonl": [Span(0, 5, 0), Span(5, 9, 1)]}
    plan = _planned(tmp_path, {"a.jsonl": 1, "big.jsonl": 9, "c.jsonl": 1}, spans)
    by_path = {}
    for task in plan.tasks:
        for found in task.inputs:
            by_path.setdefault(found.path, []).append((task.name[-7:], task.span))
    assert [span for _, span in by_path["big.jsonl"]] == spans["big.jsonl"]
    assert [name for name, _ in by_path["big.jsonl"]] == ["-s00000", "-s00001"]
    assert by_path["a.jsonl"][0][1] is None


def test_nothing_at_a_path_is_said_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match=r"sources\.s: no input at .*/none\*\.jsonl; mend sources\.s\.paths"):
        make_plan(_recipe([f"{tmp_path}/none*.jsonl"]), "/")


def test_a_relative_path_is_told_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=rf"sources\.s: no input at d/\*\.jsonl \({tmp_path}/d/\*\.jsonl\); mend"):
        make_plan(_recipe(["d/*.jsonl"]), str(tmp_path))


def test_a_folder_is_told_from_its_files(tmp_path):
    _files(tmp_path, ["d/x.jsonl"])
    for path in ("d", "d/"):
        with pytest.raises(UserError, match=rf"sources\.s: {path} is a folder; name its files, such as d/\*$"):
            make_plan(_recipe([path]), str(tmp_path))


def test_two_inputs_of_one_relative_path_are_refused_and_a_root_tells_them_apart(tmp_path):
    _files(tmp_path, ["a/x.jsonl", "b/x.jsonl"])
    paths = [f"{tmp_path}/a/*.jsonl", f"{tmp_path}/b/*.jsonl"]
    with pytest.raises(UserError, match=r"have the same relative path 'x\.jsonl'; give the source a root"):
        make_plan(_recipe(paths), "/")
    plan = make_plan(_recipe(paths, root=str(tmp_path)), "/")
    assert sorted(found.path for task in plan.tasks for found in task.inputs) == ["a/x.jsonl", "b/x.jsonl"]
    with pytest.raises(UserError, match=r"does not lie below root .*/a/; mend sources\.s\.root"):
        make_plan(_recipe(paths, root=f"{tmp_path}/a"), "/")


def test_one_input_named_twice_is_one_input(tmp_path):
    _files(tmp_path, ["x.jsonl"])
    plan = make_plan(_recipe([f"{tmp_path}/x.jsonl", f"{tmp_path}/*.jsonl"]), "/")
    assert [found.path for task in plan.tasks for found in task.inputs] == ["x.jsonl"]
