"""Inputs that lie elsewhere: `https://`, `s3://`, `gs://` and whatever else fsspec knows, opened so that no fault of the network
becomes a fault of the data.

A read that fails is asked for again where it stood, three times in all; then it is a UserError, which ends the task and is never
taken for a damaged input. Bytes that stop short of the size that the server stated are such a fault too. What a web server sends is
taken as it lies there: nothing is decompressed on the way. A server that does not know ranges is read once from its beginning
into a temporary file, since readers go back.

Identity of a remote input is its size and the checksum or strong ETag that its store reports. Where there is none, it is the
sha256 of its content, which costs a reading.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipelines.errors import UserError

PAUSES = (0.5, 2.0)  # seconds before another attempt
_BLOCK = 1 << 20
_REPORTED = ("md5Hash", "crc32c", "etag", "ETag")
_REFUSED = frozenset([400, 401, 403, 404, 410])  # of HTTP: asking again changes nothing
_AS_IT_LIES = {"headers": {"Accept-Encoding": "identity"}, "client_kwargs": {"auto_decompress": False}}

T = TypeVar("T")


def filesystem_of(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """(file system, its name for the path) of a URL or path. A kind whose library is not installed is a UserError."""
    options: dict[str, Any] = _AS_IT_LIES if url.startswith(("http://", "https://")) else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: cannot be opened ({_said(error)}); mend the recipe's paths") from error
    return filesystem, path


def is_local(url: str) -> bool:
    """Whether a URL or path lies on this machine's file system."""
    return isinstance(filesystem_of(url)[0], LocalFileSystem)


def facts(url: str) -> Mapping[str, Any]:
    """What the store says of an input: `size` (None where it does not say), `type`, checksums. A missing one is a UserError."""
    filesystem, path = filesystem_of(url)

    def ask() -> Mapping[str, Any]:
        filesystem.invalidate_cache()
        return dict(filesystem.info(path))

    return _attempted(url, ask)


def listing(url: str) -> Mapping[str, Mapping[str, Any]]:
    """path -> what the store says of it, of everything that a URL's wildcards match."""
    filesystem, path = filesystem_of(url)
    return _attempted(url, lambda: filesystem.glob(path, detail=True))


def identity(url: str) -> tuple[int, str, bool]:
    """(size, sha256, whether the store reported it) of an input: of what the store reports, else of its content."""
    found = facts(url)
    known = [str(found[key]) for key in _REPORTED if found.get(key) and not str(found[key]).startswith("W/")]
    if found.get("size") is not None and known:
        return int(found["size"]), hashlib.sha256("\0".join([str(found["size"]), *known]).encode()).hexdigest(), True
    digest, size = hashlib.sha256(), 0
    with open_remote(url) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest(), False


def open_remote(url: str) -> BinaryIO:
    """The raw bytes of a remote input, seekable. Its faults are UserErrors."""
    filesystem, path = filesystem_of(url)
    found = facts(url)
    web = url.startswith(("http://", "https://"))
    if web and not (found["size"] and _attempted(url, lambda: _knows_ranges(filesystem, path, found["size"]))):
        stream: BinaryIO = _attempted(url, lambda: _spooled(filesystem, path, found["size"]))
        return stream
    return _Remote(url, lambda: filesystem.open(path, "rb"), int(found["size"]))  # type: ignore[return-value]


def _knows_ranges(filesystem: Any, path: str, size: int) -> bool:
    headers = {**filesystem.kwargs["headers"], "Range": "bytes=0-0"}
    with filesystem.open(path, "rb", block_size=0, size=size, headers=headers) as stream:
        return int(stream.r.status) == 206


def _spooled(filesystem: Any, path: str, size: int | None) -> Any:
    file: Any = tempfile.TemporaryFile(buffering=_BLOCK)  # noqa: SIM115  (handed out)
    try:
        with filesystem.open(path, "rb", block_size=0) as stream:
            while block := stream.read(_BLOCK):
                file.write(block)
        if size is not None and file.tell() != size:
            raise OSError(f"{file.tell()} bytes came of {size}")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


class _Remote:
    """A seekable stream over one of fsspec's, which is opened anew after a fault."""

    def __init__(self, url: str, open_again: Callable[[], Any], size: int) -> None:
        self._url, self._open_again, self._size = url, open_again, size
        self._stream: Any = None
        self._at = 0
        self.closed = False
        _attempted(url, lambda: self._tell(0))

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        pieces = []
        while wanted > 0:
            piece = _attempted(self._url, lambda: self._piece(wanted))  # noqa: B023  (called at once)
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _piece(self, wanted: int) -> bytes:
        try:
            self._tell(self._at)
            piece = bytes(self._stream.read(wanted))
        except Exception:
            self._forget()
            raise
        if not piece:
            self._forget()
            raise OSError(f"no byte came at {self._at:,} of {self._size:,}")
        return piece

    def _tell(self, at: int) -> None:
        if self._stream is None:
            self._stream = self._open_again()
        if self._stream.tell() != at:
            self._stream.seek(at)

    def _forget(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._forget()
        self.closed = True

    def __enter__(self) -> _Remote:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _attempted(url: str, action: Callable[[], T]) -> T:
    """What `action` gives, at the third attempt at the latest. Any fault of a store's library is a UserError in the end."""
    for pause in (*PAUSES, None):
        try:
            return action()
        except Exception as error:
            if pause is not None and not _is_refusal(error):
                time.sleep(pause)
                continue
            way = "mend the recipe's paths" if _is_refusal(error) else "build again, which goes on from what stands"
            raise UserError(f"{url}: cannot be read ({_said(error)}); {way}") from error
    raise AssertionError


def _is_refusal(error: BaseException) -> bool:
    """Whether the store said no, so that asking again is of no use."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
    status = getattr(cause, "status", None)
    return status in _REFUSED if status is not None else isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError)


def _said(error: BaseException) -> str:
    """An error in one line, without the library's wrapping."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
    status, message = getattr(cause, "status", None), getattr(cause, "message", None)
    if isinstance(status, int):
        return f"HTTP {status} {message}".strip()
    return " ".join(str(cause).split()) or type(cause).__name__
