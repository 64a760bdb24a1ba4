"""A comparison's id is a function of what it reads, and of no place."""

from __future__ import annotations

import json

from tests.train.compare import comparisons
from train.compare.prepare import prepare

QUERY = {"query": "The glass fell because", "choices": ["it slid.", "it sang."], "gold": 0}


def write_files(folder):
    """Evaluation sets, a task and a list of words below `folder`; the settings that name them."""
    sets = comparisons.write_sets(folder / "sets")
    (folder / "copa.jsonl").write_text(json.dumps(QUERY) + "\n")
    (folder / "words.txt").write_text("damn\n")
    tasks = {"folder": str(folder), "names": ["copa"]}
    return comparisons.settings(sets, tasks=tasks, bias={"words": str(folder / "words.txt"), "continuations": 4})


def test_moved_files_leave_the_id_and_changed_ones_do_not(run, tmp_path):
    here, there = write_files(tmp_path / "here"), write_files(tmp_path / "there")
    made = prepare(str(run), here)
    assert prepare(str(run), there).id == made.id
    told = json.dumps(made.told)
    assert str(tmp_path) not in told
    assert str(tmp_path) not in (made.folder / "settings.json").read_text()

    seen = {made.id}
    for name, text in (("copa.jsonl", json.dumps(QUERY | {"gold": 1})), ("words.txt", "damned\n")):
        (tmp_path / "there" / name).write_text(text)
        other = prepare(str(run), there).id
        assert other not in seen, name
        seen.add(other)


def test_paths_of_a_recipe_start_beside_it(run, tmp_path):
    given = write_files(tmp_path)
    relative = given.model_copy(
        update={
            "tasks": given.tasks.model_copy(update={"folder": "."}),
            "bias": given.bias.model_copy(update={"words": "words.txt"}),
        }
    )
    assert prepare(str(run), relative, str(tmp_path)).id == prepare(str(run), given).id
