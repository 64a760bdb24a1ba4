"""Inputs that lie elsewhere: `https://`, `s3://`, `gs://` and whatever else fsspec knows, opened so that no fault of the network
becomes a fault of the data.

A read that fails is asked for again where it stood, three times in all; then it is a UserError, which ends the task and is never
taken for a damaged input. Bytes that stop short of the size that the server stated are such a fault too. What a web server sends is
taken as it lies there: nothing is decompressed on the way. A server that does not know ranges is read once from its beginning
into a temporary file, since readers go back.

Identity of a remote input is its size and the checksums that its store reports, or else its strong ETag. Where there is none, it
is the sha256 of its content, which costs a reading.

Nothing is asked of a listing that was kept: another process may have written since, so fsspec's cache of listings is off.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipelines.errors import UserError

PAUSES = (0.5, 2.0)  # seconds before another attempt
_MEND = "mend the recipe's paths"
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "dataflow", "gcs": "dataflow"}  # what brings the library of a scheme
_BLOCK = 1 << 20
# What is fetched at a time, and how much of it is kept: Parquet is read here and there, and s3fs would take 50 MiB for each place.
_BY_RANGES: Mapping[str, Any] = {"block_size": 5 << 20, "cache_type": "blockcache", "cache_options": {"maxblocks": 2}}
_CHECKSUMS, _TAGS = ("md5Hash", "crc32c"), ("etag", "ETag")  # an ETag of Google's changes when the same bytes are written again
_REFUSED = frozenset([400, 401, 403, 404, 410])  # of HTTP: asking again changes nothing
_UNKNOWN_USER = frozenset([401, 403])
_AS_IT_LIES = {"headers": {"Accept-Encoding": "identity"}, "client_kwargs": {"auto_decompress": False}}

T = TypeVar("T")

if "GCSFS_DEBUG" not in os.environ:  # it writes a traceback for every error that it raises; ours is one line
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


def filesystem_of(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """(file system, its name for the path) of a URL or path. A kind whose library is not installed is a UserError."""
    options: dict[str, Any] = _AS_IT_LIES if url.startswith(("http://", "https://")) else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        extra = _EXTRAS.get(url.partition("://")[0])
        way = f"pip install 'winnow[{extra}]'" if extra else "install what it names"
        raise UserError(f"{url}: cannot be opened ({_said(error)}); {way}") from error
    except ValueError as error:
        raise UserError(f"{url}: cannot be opened ({_said(error)}); give a path, or a URL of another kind") from error
    except Exception as error:  # a store's library that finds no credentials, each in its own way
        raise UserError(f"{url}: cannot be opened ({_said(error)}); {_way(error)}") from error
    return filesystem, path


def is_local(url: str) -> bool:
    """Whether a URL or path lies on this machine's file system."""
    return isinstance(filesystem_of(url)[0], LocalFileSystem)


def facts(url: str) -> Mapping[str, Any]:
    """What the store says of an input: `size` (None where it does not say), `type`, checksums. A missing one is a UserError."""
    filesystem, path = filesystem_of(url)
    return attempted(url, lambda: dict(filesystem.info(path)))


def listing(url: str) -> Mapping[str, Mapping[str, Any]]:
    """path -> what the store says of it, of everything that a URL's wildcards match."""
    filesystem, path = filesystem_of(url)
    return attempted(url, lambda: filesystem.glob(path, detail=True))


def identity(url: str) -> tuple[int, str, bool]:
    """(size, sha256, whether the store reported it) of an input: of what the store reports, else of its content."""
    found = facts(url)
    _not_a_folder(url, found)
    known = [str(found[key]) for key in _CHECKSUMS if found.get(key)]
    known = known or [str(found[key]) for key in _TAGS if found.get(key) and not str(found[key]).startswith("W/")]
    if found.get("size") is not None and known:
        return int(found["size"]), hashlib.sha256("\0".join([str(found["size"]), *known]).encode()).hexdigest(), True
    digest, size = hashlib.sha256(), 0
    with open_remote(url) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest(), False


def _not_a_folder(url: str, found: Mapping[str, Any]) -> None:
    if found.get("type") == "directory":
        raise UserError(f"{url}: a folder, not a file; name its files, or use a wildcard")


def open_remote(url: str, passed: tuple[type[Exception], ...] = ()) -> BinaryIO:
    """The raw bytes of a remote input, seekable. Its faults are UserErrors, but those `passed` when it is opened."""
    filesystem, path = filesystem_of(url)
    if url.startswith(("http://", "https://")):
        size = facts(url)["size"]
        if not (size and attempted(url, lambda: _knows_ranges(filesystem, path, size))):
            stream: BinaryIO = attempted(url, lambda: _spooled(filesystem, path, size))
            return stream
    return _Remote(url, lambda: filesystem.open(path, "rb", **_BY_RANGES), passed)  # type: ignore[return-value]


def content(filesystem: Any, path: str) -> bytes:
    """The whole of a small file, of s3fs by one request."""
    return bytes(filesystem.cat_file(path, **({"max_concurrency": 1} if "s3" in _kinds(filesystem) else {})))


def _kinds(filesystem: Any) -> tuple[str, ...]:
    return filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)


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


def upload(filesystem: Any, local: str, path: str) -> None:
    """One upload of a file of this machine under its final name. Bytes that arrive as others are an error of the library."""
    filesystem.put_file(local, path, **({"consistency": "md5"} if "gs" in _kinds(filesystem) else {}))  # s3fs sends a checksum


class _Remote:
    """A seekable stream over one of fsspec's, which is opened anew after a fault."""

    def __init__(self, url: str, open_again: Callable[[], Any], passed: tuple[type[Exception], ...]) -> None:
        self._url, self._open_again = url, open_again
        self._stream: Any = attempted(url, open_again, passed=passed)
        _not_a_folder(url, getattr(self._stream, "details", {}))
        self._size = int(self._stream.size)
        self._at = 0
        self.closed = False

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        pieces = []
        while wanted > 0:
            piece = attempted(self._url, lambda: self._piece(wanted))  # noqa: B023  (called at once)
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

    def __iter__(self) -> Iterator[bytes]:
        """Lines with their newline, as Python's own files give them."""
        held = b""
        while block := self.read(_BLOCK):
            *whole, held = (held + block).split(b"\n")
            yield from (line + b"\n" for line in whole)
        if held:
            yield held

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


def attempted(
    url: str, action: Callable[[], T], *, doing: str = "read", passed: tuple[type[Exception], ...] = (), way: str = _MEND
) -> T:
    """What `action` gives, at the third attempt at the latest. Any fault of a store's library is a UserError in the end.

    doing: what cannot be done, for the error; passed: faults that mean something to the caller, raised at once and as they are;
    way: the way out where nothing is there.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, passed):
                raise
            fault = _fault(error)
            if pause is not None and not _is_refusal(fault):
                time.sleep(pause)
                continue
            raise UserError(f"{url}: cannot be {doing} ({_said(fault)}); {_way(fault, way)}") from error
    raise AssertionError


def _fault(error: BaseException) -> BaseException:
    """The error that tells: fsspec says "not found" also of a web server that nobody reached."""
    cause = error.__cause__
    is_unreached = isinstance(error, FileNotFoundError) and isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return cause if is_unreached and cause is not None and _status(error) is None else error


def _is_refusal(error: BaseException) -> bool:
    """Whether the store said no, so that asking again is of no use."""
    if isinstance(error, FileNotFoundError | IsADirectoryError | FileExistsError) or _is_denial(error):
        return True
    return _status(error) in _REFUSED and not isinstance(error, TimeoutError)


def _is_denial(error: BaseException) -> bool:
    """Whether a store's library has no credentials, or the store does not take them: each says so in its own way."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if "aiohttp.ClientError" in kinds or kinds & {"botocore.NoCredentialsError", "botocore.PartialCredentialsError"}:
        return "aiohttp.ClientError" not in kinds  # a web server's no is one to the address
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden:")  # gcsfs
    denied = isinstance(error, PermissionError) or "google.GoogleAuthError" in kinds or forbidden
    return denied or (not isinstance(error, FileNotFoundError) and _status(error) in _UNKNOWN_USER)


def _way(error: BaseException, absent: str = _MEND) -> str:
    """The way out of an error, in a few words."""
    if _is_denial(error):
        return "give the store's library credentials that may do this"
    return absent if _is_refusal(error) else "build again, which goes on from what stands"


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error, or of the answer that it was made of.

    aiohttp calls it status, gcsfs code, and botocore keeps it in the answer. A code below an error is no answer's: aiohttp gives
    400 to a connection that was cut.
    """
    answers = [getattr(one, "response", None) for one in (error, error.__cause__)]
    stated = [one.get("ResponseMetadata", {}).get("HTTPStatusCode") for one in answers if isinstance(one, dict)]
    own = error.status if hasattr(error, "status") else getattr(error, "code", None)  # aiohttp warns where one asks for both
    named = [own, getattr(error.__cause__, "status", None)]
    return next((int(found) for found in [*named, *stated] if str(found).isdigit()), None)


def _said(error: BaseException) -> str:
    """An error in one line, without the library's wrapping."""
    for one in (error, error.__cause__):
        status, message = _status(one) if one is not None else None, getattr(one, "message", None)
        if status is not None and message is not None:
            return f"HTTP {status} {' '.join(str(message).removesuffix(f', {status}').split())}".strip()
    said = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError) and " " not in said:  # the path again, and no more
        return "no such object or bucket"
    return said or type(error).__name__
