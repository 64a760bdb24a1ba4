"""The run directory: where files lie, how they appear, and how a finished part is recognised.

A file appears under its final name whole or not at all. On a file system: temporary file beside it, fsync, rename, fsync of
the folder. On an object store: a local temporary file, then one upload under the final name, with a checksum that the store or its
library holds against what arrived. No rename, no listing and no modification time decides anything. What goes wrong on the way to
an object store is tried again, and then it is a UserError that names the object.

Every part has a sidecar `<part>.stats.json` that names its key (see `stage_key`), rows, bytes, sha256 and statistics. The
sidecar is removed before its part is written again and published after it, so a sidecar that stands tells the truth:
resuming compares keys and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipelines import lock, remote
from pipelines.errors import CheckError

if TYPE_CHECKING:
    import fsspec

T = TypeVar("T")
Item = TypeVar("Item")
TEMPORARY = ".tmp-"  # in the name of every file that is not finished
SIDECAR = ".stats.json"
_AT_ONCE = 32  # requests to an object store
_AHEAD = 8 * _AT_ONCE  # answers that may wait to be looked at


def canonical_json(value: Any) -> bytes:
    """The one JSON form of a value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def stage_key(stage: str, version: int, parameters: Any, made_from: Any) -> str:
    """Names what a part is: the stage's version, the parameters that it reads, and the content it was made from.

    Where and how it runs (engine, workers, paths) does not enter. `made_from` holds sha256 of contents, not keys of parts:
    a stage that ran again and wrote the same bytes stops the chain.
    """
    return hashlib.sha256(canonical_json([stage, version, parameters, made_from])).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Published:
    """A file that stands whole under its name."""

    path: str
    size: int
    sha256: str


class HashingFile:
    """A write-only stream that forwards to a local file and hashes what passes; `result` once the file stands."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False
        self.result: Published | None = None
        self._abandoned = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._abandoned:
            return len(view)
        self._hash.update(view)
        self._file.write(view)
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        """From now on writes go nowhere: a Parquet writer that an exception left open writes its footer when it is collected."""
        self._abandoned = True

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Store:
    """One folder, local or on an object store (any URL that fsspec knows). Paths below it are relative, with `/`.

    `holder` says which process holds the lock of a local folder; other processes of its machine write on its behalf only.
    """

    root: str
    holder: str | None = None

    def url(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def _located(self, path: str) -> tuple[fsspec.AbstractFileSystem, str]:
        return remote.filesystem_of(self.url(path))

    def _asked(self, path: str, action: Callable[[], T], doing: str = "read") -> T:
        """What `action` gives, tried again where the store is not on this machine. A missing file is the caller's affair."""
        if self.is_local():
            return action()
        passed = () if doing == "written" else (FileNotFoundError,)
        return remote.attempted(self.url(path), action, doing=doing, passed=passed, way="make the bucket, or mend --run")

    def is_local(self) -> bool:
        return isinstance(self._located("")[0], LocalFileSystem)

    def local_path(self, path: str) -> str:
        """The path for memory mapping and locks; only where `is_local`."""
        return self._located(path)[1]

    # -- reading ----------------------------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        filesystem, located = self._located(path)
        if isinstance(filesystem, LocalFileSystem):
            return os.path.exists(located)
        try:  # fsspec's own `exists` takes a broken connection for a file that is not there
            return bool(self._asked(path, lambda: filesystem.info(located))["type"] == "file")
        except FileNotFoundError:
            return False

    def open(self, path: str) -> BinaryIO:
        """A stream of a file; one that is not there is a FileNotFoundError."""
        filesystem, located = self._located(path)
        if isinstance(filesystem, LocalFileSystem):
            return filesystem.open(located, "rb")
        return remote.open_remote(self.url(path), passed=(FileNotFoundError,))

    def read(self, path: str) -> bytes:
        """The content of a file; one that is not there is a FileNotFoundError."""
        filesystem, located = self._located(path)
        return self._asked(path, lambda: remote.content(filesystem, located))

    def read_json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def size(self, path: str) -> int:
        filesystem, located = self._located(path)
        return int(self._asked(path, lambda: filesystem.info(located))["size"])

    def digest(self, path: str) -> dict[str, Any]:
        """Bytes and sha256 of a file as it lies there."""
        digest, size = hashlib.sha256(), 0
        with self.open(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
        return {"bytes": size, "sha256": digest.hexdigest()}

    def files(self, folder: str) -> list[str]:
        """Every file below `folder`, sorted; for reporting and pruning only, never to decide what is finished."""
        filesystem, located = self._located(folder)
        base = self._located("")[1].rstrip("/") + "/"
        try:
            found = self._asked(folder, lambda: filesystem.find(located), "listed")
        except FileNotFoundError:
            return []
        return sorted(name[len(base) :] for name in found if name.startswith(base))

    def each(self, items: Sequence[Item], ask: Callable[[Item], T]) -> Iterator[T]:
        """What `ask` says of every item, in order; of an object store, where a question is a request, many are asked at once."""
        if self.is_local():
            yield from map(ask, items)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for first in range(0, len(items), _AHEAD):
                yield from pool.map(ask, items[first : first + _AHEAD])

    # -- writing ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def publishing(self, path: str) -> Iterator[HashingFile]:
        """A stream whose bytes appear under `path` when the block ends without an exception, or not at all."""
        self._follow_holder()
        filesystem, located = self._located(path)
        local = isinstance(filesystem, LocalFileSystem)
        if local:
            os.makedirs(os.path.dirname(located), exist_ok=True)
            folder, name = os.path.split(located)
            temporary = os.path.join(folder, f"{name}{TEMPORARY}{uuid.uuid4().hex}")
        else:
            temporary = os.path.join(tempfile.gettempdir(), f"winnow{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb", buffering=1 << 20) as file:
                sink = HashingFile(file)
                try:
                    yield sink
                except BaseException:
                    sink.abandon()
                    raise
                file.flush()
                os.fsync(file.fileno())
            if local:
                os.replace(temporary, located)
                _sync_folder(os.path.dirname(located))
            else:
                self._asked(path, lambda: remote.upload(filesystem, temporary, located), "written")
            sink.result = Published(path, sink.size, sink.hexdigest())
        except OSError as error:
            if error.errno is None or error.filename not in (None, temporary):
                raise
            raise OSError(error.errno, error.strerror, self.url(path)) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def publish(self, path: str, data: bytes) -> Published:
        with self.publishing(path) as sink:
            sink.write(data)
        assert sink.result is not None
        return sink.result

    def publish_json(self, path: str, value: Any) -> Published:
        return self.publish(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")

    def remove(self, path: str) -> None:
        self._follow_holder()
        filesystem, located = self._located(path)
        with contextlib.suppress(FileNotFoundError):
            self._asked(path, lambda: filesystem.rm_file(located), "removed")

    # -- finished parts ---------------------------------------------------------------------------------------------------

    def sidecar(self, path: str) -> dict[str, Any] | None:
        """The sidecar of a part, or None while the part is unfinished."""
        try:
            return dict(self.read_json(path + SIDECAR))
        except FileNotFoundError:
            return None

    def is_finished(self, path: str, key: str) -> bool:
        sidecar = self.sidecar(path)
        return sidecar is not None and sidecar["key"] == key

    def begin(self, path: str) -> None:
        """Declares `path` unfinished, before its new content appears."""
        self.remove(path + SIDECAR)

    def finish(self, published: Published, key: str, **facts: Any) -> None:
        """Publishes the sidecar of a part; from now on it counts as finished."""
        self.publish_json(
            published.path + SIDECAR, {"key": key, "bytes": published.size, "sha256": published.sha256, **facts}
        )

    # -- one build at a time ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[Store]:
        """Holds the run directory for one build; yields the store to build with.

        A local lock dies with its process, and takes the worker processes that write for it along. One on an object store is an
        object that only one of two builds can create. It outlives a killed build: who knows that the build is gone removes it.
        """
        if self.is_local():
            with lock.hold(self.local_path(".lock"), self.root) as holder:
                yield Store(self.root, holder)
            return
        with lock.hold_object(self.url(".lock")):
            yield self

    def _follow_holder(self) -> None:
        if self.holder is not None:
            lock.follow(self.local_path(".lock"), self.holder)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- Parquet ----------------------------------------------------------------------------------------------------------------

# Columns of hashes and token ids: incompressible, so neither dictionary nor codec is tried on them.
_RAW_COLUMNS = frozenset(
    ["doc_id", "content_hash", "paragraph_hashes.list.element", "signature", "token_ids", "paragraph_hashes"]
)


class TableWriter:
    """Writes record batches as row groups, with page checksums: one flipped byte is an error, not another text."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        names = [name for name in schema.names if name not in _RAW_COLUMNS]
        compression: Mapping[str, str] = {
            _leaf(field): "none" if field.name in _RAW_COLUMNS else "zstd" for field in schema
        }
        self.schema = schema
        self.rows = 0
        self._writer = pq.ParquetWriter(
            sink,
            schema,
            compression=dict(compression),
            compression_level={_leaf(schema.field(name)): 1 for name in names},
            use_dictionary=[_leaf(f) for f in schema if pa.types.is_string(f.type)],
            write_statistics=False,
            write_page_checksum=True,
            store_schema=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._writer.write_batch(batch, row_group_size=batch.num_rows)
            self.rows += batch.num_rows

    def close(self) -> None:
        self._writer.close()


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


class TableFile(pq.ParquetFile):
    """A Parquet part whose damage is a CheckError that names it."""

    def __init__(self, url: str, stream: BinaryIO) -> None:
        self._url = url
        with self._naming():
            super().__init__(stream, page_checksum_verification=True, pre_buffer=False)

    def read_row_group(self, *arguments: Any, **options: Any) -> pa.Table:
        with self._naming():
            return super().read_row_group(*arguments, **options)

    def read(self, *arguments: Any, **options: Any) -> pa.Table:
        with self._naming():
            return super().read(*arguments, **options)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not damage: the file system's own error
            detail = " ".join(str(error).split())
            raise CheckError(f"{self._url}: damaged ({detail}); remove {self._url}{SIDECAR} and build again") from error


@contextlib.contextmanager
def reading_table(store: Store, path: str) -> Iterator[TableFile]:
    """A finished Parquet part, read with its page checksums verified."""
    with store.open(path) as stream, TableFile(store.url(path), stream) as file:
        yield file


def read_columns(store: Store, path: str, columns: list[str]) -> pa.Table:
    """Narrow columns of a whole part."""
    with reading_table(store, path) as file:
        return file.read(columns, use_threads=False)
