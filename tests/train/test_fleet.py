"""Processes of training runs, how they are started; what they do is told in tests/train/compare."""

from __future__ import annotations

import pytest

from pipelines.errors import CheckError
from train import fleet


def test_a_train_py_of_the_folder_where_we_are_is_not_taken_for_our_own(tmp_path, monkeypatch):
    """Reference: train.child as a program does nothing and says nothing, so that its run ends without scores."""
    (tmp_path / "train.py").write_text("raise SystemExit('the train.py of the folder ran')")
    monkeypatch.chdir(tmp_path)
    task = fleet.Task("a-s1", tmp_path / "task", "train.child", {"settings": {"optimiser": {"peak": 0.1}}}, 1)
    with pytest.raises(CheckError, match=r"task: the run failed: ended with 0 "):
        fleet.run([task], 1, None, lambda line: None)
