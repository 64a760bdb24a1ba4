"""The command's own part: durations, and recipes without a section compare."""

from __future__ import annotations

import pytest

from pipelines.errors import UserError
from train.fleet import duration


@pytest.mark.parametrize(
    ("given", "seconds"), [("90s", 90), ("45m", 2700), ("45min", 2700), ("3h", 10800), ("1.5h", 5400), (" 2 h", 7200)]
)
def test_durations(given, seconds):
    assert duration("--budget", given) == seconds


@pytest.mark.parametrize("given", ["", "3", "h", "-3h", "3d", "0h", "1h30m", "1e3s"])
def test_what_is_no_duration_is_said_in_one_line(given):
    with pytest.raises(UserError, match=r"--budget .*: give a time such as 90s, 45m or 3h"):
        duration("--budget", given)


def test_a_recipe_without_the_section(tmp_path):
    from tests import corpus
    from tests.runs import command

    (tmp_path / "recipe.yaml").write_text(corpus.recipe(tmp_path))
    done = command(["compare", str(tmp_path), "--recipe", str(tmp_path / "recipe.yaml")])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith("recipe.yaml: has no section compare; see docs/comparison.md")
