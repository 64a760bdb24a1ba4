"""The few Beam idioms that the stages share: work on parts without a shuffle, and packed `bytes` for what must travel.

Values that cross a shuffle are plain `bytes`, one per bundle and partition: numpy rows back to back. Text never travels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.runners.worker import sdk_worker
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipelines.errors import CheckError, UserError

_FLUSH_BYTES = 64 << 20

# Beam's worker prints the traceback of a failure, besides logging and returning it: see engine.failure for what a user reads.
sdk_worker.print = lambda *lines, **options: None


class Worker(Protocol):
    """A picklable description of the work on one element. `start` builds what is costly, once per worker thread.

    A runner may give an element to another worker as well, or once more with its bundle, and the later attempt may die. So work
    that publishes first asks whether its part stands under its key: what is finished stays so, and is not done again.
    """

    def start(self) -> Callable[[Any], Iterable[Any] | None]: ...


class Each(beam.DoFn):
    """Calls a Worker on every element."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def setup(self) -> None:
        self._work = self._worker.start()

    def process(self, element: Any) -> Iterator[Any]:
        with naming(element):
            yield from self._work(element) or ()


@contextmanager
def naming(element: Any) -> Iterator[None]:
    """Adds the part, task or shard that an element describes to an error that does not speak to the user by itself."""
    try:
        yield
    except (UserError, CheckError, OSError):
        raise
    except Exception as error:
        described = element[0] if isinstance(element, tuple) and element else element
        names = [str(getattr(described, name)) for name in ("source", "name", "number") if hasattr(described, name)]
        if not names:
            raise
        raise RuntimeError(f"{'/'.join(names)}: {type(error).__name__}: {error}") from error


def spread(pipeline: beam.Pipeline, label: str, elements: Sequence[Any]) -> beam.PCollection:
    """A PCollection of `elements`, each free to go to any worker.

    What Beam's Reshuffle does by random keys, by numbers: half the steps, and a third less of what a job costs before it works.
    """
    numbered = pipeline | f"{label}/List" >> beam.Create(list(enumerate(elements)), reshuffle=False)
    return numbered | f"{label}/Spread" >> beam.GroupByKey() | f"{label}/Elements" >> beam.FlatMap(lambda group: group[1])


class Scatter(beam.DoFn):
    """Packs what a Worker yields, (int64 keys [n], structured rows [n]), into one bytes value per bundle and key."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def setup(self) -> None:
        self._work = self._worker.start()

    def start_bundle(self) -> None:
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._size = 0

    def process(self, element: Any) -> Iterator[tuple[int, bytes]]:
        with naming(element):
            for keys, rows in self._work(element) or ():
                if len(rows):
                    self._held.append((keys, rows))
                    self._size += rows.nbytes
                if self._size >= _FLUSH_BYTES:
                    yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for item in self._flush():
            yield WindowedValue(item, window.max_timestamp(), (window,))

    def _flush(self) -> Iterator[tuple[int, bytes]]:
        held, self._held, self._size = self._held, [], 0
        if held:
            keys = np.concatenate([keys for keys, _ in held])
            rows = np.concatenate([rows for _, rows in held])
            yield from packed(keys, rows)


def packed(keys: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """(key, bytes of its rows) for every key, in key order; rows of a key keep their order."""
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    cuts = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    for start, stop in zip(np.r_[0, cuts], np.r_[cuts, len(keys)], strict=True):
        yield int(keys[start]), rows[start:stop].tobytes()


def unpacked(values: Iterable[bytes], dtype: np.dtype, order: Sequence[str]) -> np.ndarray:
    """The rows of all values, sorted by the fields in `order`: no arrival order survives a shuffle."""
    rows = np.frombuffer(b"".join(values), dtype)
    return rows[np.lexsort([rows[name] for name in reversed(order)])]
