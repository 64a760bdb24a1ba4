"""quality.text: the hash against its plain-Python form, masks against Python's own predicates."""

import itertools
import os
import subprocess
import sys

import numba
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from quality import text
from tests.runs import REPOSITORY


@numba.njit
def _masks(data):
    base = data.ctypes.data
    return (
        text.mask_letters(base, 0),
        text.mask_digits(base, 0),
        text.mask_split_space(base, 0),
        text.mask_regex_space(base, 0),
        text.mask_control(base, 0),
        text.mask_high(base, 0),
        text.mask_continuation(base, 0),
        text.mask_equal(base, 0, 35),
        text.mask_equal_folded(base, 0, 106),
        data[0],
    )


def _bits(block, predicate):
    return sum(1 << i for i, byte in enumerate(block) if predicate(byte))


@given(st.binary(min_size=64, max_size=64))
def test_masks_agree_with_a_loop_over_bytes(block):
    got = _masks(np.frombuffer(block, np.uint8))
    expected = (
        _bits(block, lambda b: chr(b).isascii() and chr(b).isalpha()),
        _bits(block, lambda b: 48 <= b <= 57),
        _bits(block, lambda b: b < 128 and chr(b).isspace()),
        _bits(block, lambda b: b in b" \t\n\v\f\r"),
        _bits(block, lambda b: b < 32 or b == 127),
        _bits(block, lambda b: b >= 128),
        _bits(block, lambda b: 128 <= b < 192),
        _bits(block, lambda b: b == 35),
        _bits(block, lambda b: b in b"jJ"),
    )
    assert tuple(int(mask) for mask in got[:9]) == expected


@given(st.binary(max_size=70), st.binary(max_size=20), st.integers(0, 2**64 - 1))
def test_hash_agrees_with_its_reference_wherever_it_stands(key, after, seed):
    data = np.frombuffer(b"xyz" + key + after, np.uint8)
    assert int(text.hash_bytes(data, 3, 3 + len(key), np.uint64(seed))) == text.hash_bytes_reference(key, seed)


@given(st.text(min_size=1, max_size=5))
def test_decode_walks_the_characters(characters):
    data = np.frombuffer(characters.encode("utf-8", "ignore") + b" ", np.uint8)
    at, codes = 0, []
    while at < len(data) - 1:
        code, width = text.decode(data, at)
        codes.append(code)
        at += width
    assert codes == [ord(c) for c in characters.encode("utf-8", "ignore").decode()]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=9), max_size=6), st.integers(0, 6))
def test_buffers_and_back(texts, skip):
    array = pa.array(texts, pa.large_string())[skip:]
    data, offsets = text.buffers(array)
    assert [bytes(data[a:b]).decode() for a, b in itertools.pairwise(offsets)] == texts[skip:]
    moved = np.ascontiguousarray(offsets - offsets[0])
    assert text.string_array(data[offsets[0] :].copy(), moved).to_pylist() == texts[skip:]


_NOWHERE = """
import os, tempfile
from numba.core import caching
# As if nobody could write: to the superuser, whom tests may run as, every folder is open.
os.access = lambda *arguments, **named: False
def refuse(self):
    raise OSError("read-only")
for locator in (caching.InTreeCacheLocator, caching.UserWideCacheLocator):
    locator.ensure_cache_path = refuse
import numpy as np
from quality import text
import numba
print(numba.config.CACHE_DIR)
assert text.hash_bytes(np.frombuffer(b"a word", np.uint8), 0, 6, np.uint64(1)) == text.hash_bytes_reference(b"a word", 1)
print(sum(name.endswith(".nbc") for _, _, names in os.walk(numba.config.CACHE_DIR) for name in names))
"""


def test_kernels_compile_where_neither_the_installation_nor_the_home_can_be_written(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", _NOWHERE]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    folder, compiled = done.stdout.splitlines()
    assert folder.startswith(f"{tmp_path}/winnow-kernels-")
    assert int(compiled) >= 1
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
