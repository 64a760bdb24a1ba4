"""Tests of the trainer: skipped without torch; one thread, since more would fight over the cores of a test run."""

import importlib.util

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(1)
