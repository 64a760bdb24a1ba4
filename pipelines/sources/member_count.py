"""How many files an archive holds, counted by Python's own readers and not by `archives`, for `verify --deep`.

Folders do not count, links and devices do, and what cannot be read on is one more. Exact for tars that are whole or cut off, and
for zips whose directory is whole.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
from typing import Any, BinaryIO

from pipelines.reading import CorruptInput, decompressed

_BLOCK = 1 << 20
_DESCRIBE = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


def count_members(raw: BinaryIO) -> int:
    """The files of a tar in any container, or of a zip."""
    head = raw.read(6)
    raw.seek(0)
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(raw) as archive:
                return sum(not info.filename.endswith("/") for info in archive.infolist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return 1
    return _count_tar(lzma.open(raw) if head == b"\xfd7zXZ\0" else decompressed(raw))


def _count_tar(stream: Any) -> int:
    """Headers, read one by one with tarfile's own parser."""
    found, held = 0, bytearray()

    def take(size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        while len(held) < size and (block := stream.read(_BLOCK)):
            held.extend(block)
        taken = bytes(held[:size])
        del held[:size]
        return taken

    def whole(size: int) -> bool:
        """Passes over `size` bytes; whether there were as many."""
        while size and (passed := len(take(min(size, _BLOCK)))):
            size -= passed
        return size == 0

    try:
        while True:
            block = take(tarfile.BLOCKSIZE)
            if block == bytes(tarfile.BLOCKSIZE):
                return found
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            found += info.type not in _DESCRIBE and not info.isdir()
            size = 0 if info.type in _WITHOUT_DATA else -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if not whole(size):
                return found + (info.type in _DESCRIBE or info.isdir())
    except (tarfile.HeaderError, CorruptInput, lzma.LZMAError, EOFError):
        return found + 1
