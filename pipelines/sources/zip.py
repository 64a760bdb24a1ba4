"""The directory of a zip and its members' bytes, by PKWARE's APPNOTE 6.3 (4.3.7, 4.3.12 to 4.3.16, 4.5.3).

The directory is read in blocks, one entry at a time: Python's zipfile holds an object for each of a million members.
"""

from __future__ import annotations

import bz2
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = 1 << 20
_PIECE = 1 << 16
_END = struct.Struct("<4s4H2IH")  # end of the directory
_END64_PLACE = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_DIRECTORY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class Listed:
    """A member as the zip's directory has it."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    place: int
    mode: int  # Unix file mode, 0 where none is stated


class ZipDamage(Exception):
    """The directory cannot be read."""


def member_bytes(raw: BinaryIO, listed: Listed) -> bytes | None:
    """The content of a member; None where size or CRC are others than the directory's. Never more than its stated size."""
    raw.seek(listed.place)
    local = raw.read(_LOCAL.size)
    if len(local) < _LOCAL.size or local[:4] != b"PK\x03\x04":
        return None
    name_bytes, extra_bytes = _LOCAL.unpack(local)[-2:]
    raw.seek(name_bytes + extra_bytes, io.SEEK_CUR)
    out, left = bytearray(), listed.packed
    decoder = zlib.decompressobj(-15) if listed.method == 8 else bz2.BZ2Decompressor() if listed.method == 12 else None
    try:
        while left and (data := raw.read(min(left, _PIECE))):
            left -= len(data)
            out += decoder.decompress(data, listed.size + 1 - len(out)) if decoder else data
            if len(out) > listed.size or (decoder and decoder.eof):
                break
    except (zlib.error, OSError):
        return None
    content = bytes(out)
    return content if len(content) == listed.size and zlib.crc32(content) == listed.crc else None


def directory(raw: BinaryIO, length: int) -> Iterator[Listed]:
    """The entries of the central directory, read in blocks."""
    start, size = _directory_place(raw, length)
    held, at = b"", 0
    while size - at >= _DIRECTORY.size:
        if len(held) < 3 * (_FULL16 + 1) + _DIRECTORY.size:
            raw.seek(start + at + len(held))
            held += raw.read(min(_BLOCK, size - at - len(held)))
        if held[:4] != b"PK\x01\x02":
            raise ZipDamage("a directory that ends early")
        fields = _DIRECTORY.unpack_from(held)
        made_by, flags, method, crc, packed, unpacked = fields[1], fields[3], fields[4], *fields[7:10]
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        name_raw = held[_DIRECTORY.size : _DIRECTORY.size + name_bytes]
        extra = held[_DIRECTORY.size + name_bytes : _DIRECTORY.size + name_bytes + extra_bytes]
        unpacked, packed, place = _wide(extra, unpacked, packed, fields[16])
        mode = fields[15] >> 16 if made_by >> 8 in (3, 19) else 0
        yield Listed(_zip_name(name_raw, flags), flags, method, crc, packed, unpacked, place, mode)
        taken = _DIRECTORY.size + name_bytes + extra_bytes + comment_bytes
        held, at = held[taken:], at + taken


def _directory_place(raw: BinaryIO, length: int) -> tuple[int, int]:
    """(offset, size) of the central directory, by the record at the file's end and its 64-bit form."""
    tail_at = max(0, length - _END.size - _FULL16)
    raw.seek(tail_at)
    tail = raw.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise ZipDamage("no directory at the end")
    size, start = _END.unpack_from(tail, found)[5:7]
    if found >= _END64_PLACE.size and tail[found - _END64_PLACE.size :][:4] == b"PK\x06\x07":
        raw.seek(min(_END64_PLACE.unpack_from(tail, found - _END64_PLACE.size)[2], length))
        block = raw.read(_END64.size)
        if len(block) < _END64.size or block[:4] != b"PK\x06\x06":
            raise ZipDamage("no 64-bit directory where it should be")
        size, start = _END64.unpack(block)[8:10]
    if start + size > length:
        raise ZipDamage("a directory beyond the file's end")
    return start, size


def _wide(extra: bytes, unpacked: int, packed: int, place: int) -> tuple[int, int, int]:
    """(unpacked, packed, place), from the 64-bit extra field where the 32-bit ones are full."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(size, 24) // 8}Q", extra, 4))
            unpacked, packed, place = (next(values, v) if v == _FULL32 else v for v in (unpacked, packed, place))
        extra = extra[4 + size :]
    return unpacked, packed, place


def _zip_name(raw_name: bytes, flags: int) -> str:
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError:
        name = raw_name.decode("cp437")
    return name.replace("\\", "/")
