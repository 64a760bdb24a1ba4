"""One member of a 7z archive as a stream, through a temporary file; anything else is opened as `reading` does.

A 7z archive keeps its directory at its end and can only be unpacked from a folder's start, so the member goes to disk first, and
its checksum has to hold before a byte of it is believed: an archive that is cut off gives nothing. What is unpacked never has a
name from the archive. Bounds: `MAX_RATIO` on all that is unpacked, whether it is wanted or stands before what is; `MAX_DICTIONARY`
on the memory that the archive asks of its decoder; `MAX_DIRECTORY` on its directory, whose every byte may be a member.
"""

from __future__ import annotations

import contextlib
import io
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.errors import UserError
from pipelines.reading import CorruptInput, Readable, decompressed, open_input
from pipelines.records import short

MAX_RATIO = 1000  # unpacked to packed bytes; real dumps have about 5
MAX_DICTIONARY = 256 << 20  # bytes; the largest of 7-Zip's own levels
MAX_DIRECTORY = 256 << 10  # bytes, unpacked; that of a site's dump has some hundred
_STEP = 1 << 10  # packed bytes that are decoded at a time: at 7,000 to 1, which LZMA can reach, 7 MB
_MAGIC = b"7z\xbc\xaf\x27\x1c"
_ENCODED = b"\x17"  # a directory that is packed itself
_LZMA, _LZMA2, _PPMD = b"\x03\x01\x01", b"\x21", b"\x03\x04\x01"


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream, and the name of the member that it holds, "" where the file is no archive or cannot be read."""

    stream: Readable
    member: str = ""


@contextlib.contextmanager
def opened_member(url: str, name: str) -> Iterator[Opened]:
    """The one member called `name`, in whatever folder, of the 7z archive at `url`, or the content of another file.

    An archive that cannot be read, or has no such member, or several, gives a stream that raises CorruptInput when it is read.
    UserError where py7zr is missing or the disk is full.
    """
    with open_input(url) as raw:
        head = raw.read(len(_MAGIC))
        raw.seek(0)
        if head != _MAGIC:
            yield Opened(decompressed(raw))
            return
        with tempfile.TemporaryFile(prefix="winnow-7z-") as unpacked:
            try:
                member = _unpack(raw, url, name, unpacked)
            except CorruptInput as error:
                yield Opened(_Failed(error))
                return
            unpacked.seek(0)
            yield Opened(unpacked, member)


class _Failed:
    def __init__(self, error: CorruptInput) -> None:
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        raise self._error


class _Watched(io.RawIOBase):
    """The archive's bytes, handed out in steps of `step`; remembers an error of the store, which is no fault of the archive."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.step: int | None = None
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            if self.step is not None and (size is None or not 0 <= size <= self.step):
                size = self.step
            return self._raw.read(-1 if size is None else size)
        except Exception as error:
            self.failure = error
            raise


def _unpack(raw: BinaryIO, url: str, name: str, target: BinaryIO) -> str:
    """Writes the member to `target`; returns its name in the archive."""
    try:
        import py7zr
    except ImportError as error:
        raise UserError(f"{url}: reading a 7z archive needs py7zr; install winnow[sevenzip], or unpack it first") from error
    watched: Any = _Watched(raw)
    size = raw.seek(0, 2)
    raw.seek(0)
    try:
        _check_directory(watched)
        with py7zr.SevenZipFile(watched, max_extract_size=MAX_RATIO * size) as archive:
            wanted = [member for member in archive.getnames() if member.rsplit("/", 1)[-1] == name]
            if len(wanted) != 1:
                raise CorruptInput(0, f"7z: {len(wanted)} members are called {name}, not one")
            streams = archive.header.main_streams
            _check_memory(streams.unpackinfo.folders if streams else [])
            watched.step = _STEP
            archive.extract(targets=wanted, factory=_sinks(target))
            return str(wanted[0])
    except (UserError, CorruptInput):
        raise
    except Exception as error:  # its parser stumbles over damaged headers in many ways
        if watched.failure is not None:
            raise watched.failure from None
        raise CorruptInput(target.tell(), f"7z: {type(error).__name__} {short(error)}".strip()) from error


def _check_directory(raw: BinaryIO) -> None:
    """Refuses a directory of over MAX_DIRECTORY bytes, before it is unpacked: a byte of it may cost hundreds."""
    from py7zr.archiveinfo import HeaderStreamsInfo, SignatureHeader

    signature = SignatureHeader.retrieve(raw)
    size = signature.nextheadersize
    if size <= MAX_DIRECTORY:
        raw.seek(signature.nextheaderofs, 1)
        header = io.BytesIO(raw.read(size))
        if header.read(1) == _ENCODED:
            folders = HeaderStreamsInfo.retrieve(header).unpackinfo.folders
            _check_memory(folders)
            size = sum(folder.get_unpack_size() for folder in folders)
    if size > MAX_DIRECTORY:
        raise CorruptInput(0, f"7z: a directory of over {MAX_DIRECTORY >> 10} KiB")
    raw.seek(0)


def _check_memory(folders: Iterable[Any]) -> None:
    """Refuses what asks for a larger dictionary than MAX_DICTIONARY, before memory is given to it."""
    for folder in folders:
        for coder in folder.coders:
            if _memory(coder["method"], coder.get("properties") or b"") > MAX_DICTIONARY:
                raise CorruptInput(0, f"7z: a dictionary of over {MAX_DICTIONARY >> 20} MiB")


def _memory(method: bytes, properties: bytes) -> int:
    """Bytes of the dictionary or model that a coder's properties ask for (7-Zip's `Methods.txt` and `lzma.txt`)."""
    if method == _LZMA2 and properties:
        bits = properties[0]
        return (2 | bits & 1) << (bits // 2 + 11)
    if method in (_LZMA, _PPMD) and len(properties) >= 5:
        return int(struct.unpack_from("<I", properties, 1)[0])
    return 0


def _sinks(target: BinaryIO) -> Any:
    """py7zr's way to be given a file: a factory of writers; the only member that is asked for goes to `target`."""
    from py7zr.io import Py7zIO, WriterFactory

    class Sink(Py7zIO):
        def write(self, data: Any) -> int:
            try:
                return target.write(data)
            except OSError as error:
                where = f"{tempfile.gettempdir()}: {short(error)}"
                raise UserError(f"{where}; the dump is unpacked there: free some room or set TMPDIR") from error

        def read(self, size: int | None = None) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            return offset

        def flush(self) -> None:
            target.flush()

        def size(self) -> int:
            return target.tell()

    class Sinks(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            return Sink()

    return Sinks()
