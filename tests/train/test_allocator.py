"""train.allocator: what the kernel counts, in a process of its own, since the setting is the process's."""

import subprocess
import sys

import pytest

from train.allocator import keep_freed_memory

# Tensors of 8 to 31 MiB are written and freed, one after another. Prints the pages that they faulted in.
GROWING = """
import resource, sys
import torch
from train.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(8, 32):
    torch.ones(size << 20, dtype=torch.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20)
"""


def faulted_in(how):
    """MiB."""
    done = subprocess.run([sys.executable, "-c", GROWING, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_taken_again():
    """Together they hold 468 MiB, the largest 31. Reference: the same process without the setting, which faults in nearly all."""
    if not keep_freed_memory():
        pytest.skip("malloc is not glibc's")
    assert faulted_in("keep") < 200
    assert faulted_in("return") > 400
