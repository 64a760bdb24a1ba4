"""The index against a plain mapping from names to rows, and against what is read of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import index
from pipelines.store import Store


def _write(store, names):
    """Publishes the index of one part in which row n goes by names[n]."""
    keys = np.array([index.name_key(name) for name in names], np.uint64)
    order = np.lexsort((np.arange(len(names)), keys))
    store.publish(index.KEYS, keys[order].astype("<u8").tobytes())
    store.publish(index.ROWS, order.astype("<i8").tobytes())
    store.publish_json(index.PARTS, [{"source": "s", "name": "part"}])


@given(names=st.lists(st.sampled_from([f"n{n}" for n in range(12)]), max_size=60), window=st.integers(1, 70))
def test_every_row_of_a_name_is_found_whatever_is_read_at_once(names, window):
    """With names that many rows share, which no hash spreads."""
    store = Store("memory://index/small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_WINDOW", window)
        patch.setattr(index.math, "isqrt", lambda size: 0)
        _write(store, names)
        with index.opened(store) as found:
            for name in {*names, "absent"}:
                assert found.find(name) == [("s", "part", row) for row, one in enumerate(names) if one == name]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 8))
def test_the_ends_of_the_keys_are_places_too(keys, window):
    store = Store("memory://index/ends")
    keys = np.sort(np.array([*keys, 0, 2**64 - 1], np.uint64))
    store.publish(index.KEYS, keys.astype("<u8").tobytes())
    store.publish(index.ROWS, b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_WINDOW", window)
        with index.opened(store) as found:
            for key in {0, 1, 2**63, 2**64 - 2, 2**64 - 1, 2**64, *keys.tolist()}:
                assert found._first(key) == sum(one < key for one in keys.tolist())


READ: Counter[str] = Counter()  # bytes by file


class _Counted(Store):
    """A store that adds up what is read of each file."""

    __slots__ = ()

    def open(self, path):
        stream = super().open(path)

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                stream.close()

            def seek(self, *where):
                return stream.seek(*where)

            def read(self, size):
                READ[path] += size
                return stream.read(size)

        return Counting()


def test_a_name_costs_a_few_thousand_keys_and_its_own_rows(tmp_path):
    """Of 2 MB of keys 64 KB at each place where a name is looked for: where its hash says, and one more where that is too far off.
    Twice, since the end of its rows is looked for too.
    """
    store = _Counted(str(tmp_path))
    _write(store, [f"name {number}" for number in range(250_000)])
    for number in range(0, 250_000, 25_000):
        READ.clear()
        with index.opened(store) as found:
            assert found.find(f"name {number}") == [("s", "part", number)]
        assert READ[index.KEYS] <= 4 * 65_536
        assert READ[index.ROWS] == 8
