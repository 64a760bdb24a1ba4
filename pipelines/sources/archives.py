"""Members of archives, one after another: tar (plain, gzip, bz2, lz4, zstd, xz) streamed, zip by its directory.

| what stands there                                          | what becomes of it                                   |
|------------------------------------------------------------|------------------------------------------------------|
| a file                                                     | a Member: its normalised name, its place, its bytes  |
| a directory; what only describes (pax, GNU long names)     | nothing                                              |
| a link, a device; an absolute path, `..`; no name, a name  |                                                      |
| over 4 KiB or with control characters                      | reject `unsafe_path`                                 |
| a file over the limit                                      | `too_large`, passed over as it streams               |
| a sparse file; in a zip, encryption or an unknown packing  | `malformed_record`; the next is read                 |
| in a zip, a member whose size or check fails               | `corrupt_container`; the next is read                |
| damage, a cut, bytes that are no archive                   | one `corrupt_container`, the rest unknown            |

Nothing is ever written to disk. Memory is one member of at most the limit, however many there are: the headers are read here
and not by the standard library, which keeps every one, follows chained long names by recursion and holds an extended header
whole. Offsets in a zip can make its members overlap, so that a small file holds a huge amount of text (Fifield 2019, "A better
zip bomb"): where the members together are longer than the file, it is damaged.
"""

from __future__ import annotations

import io
import lzma
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipelines.reading import CorruptInput, Readable, decompressed, open_input
from pipelines.records import Input, Limits, Reject, short
from pipelines.schema import RejectReason
from pipelines.sources.tar import Entry, begins_as_tar, tar_entries
from pipelines.sources.zip import Listed, ZipDamage, directory, member_bytes

_BLOCK = 1 << 20
_PIECE = 1 << 16
_NAME_BYTES = 4096
_XZ = b"\xfd7zXZ\x00"
_XZ_MEMORY = 256 << 20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive. `number` is its 0-based place among all members, directories too."""

    name: str
    number: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Passed:
    """A file that was not wanted: its content was not read."""

    name: str
    number: int


Wanted = Callable[[str], bool]


def read_members(source_input: Input, limits: Limits, wanted: Wanted | None = None) -> Iterator[Member | Reject]:
    """The files of an archive in its order; of those that `wanted` refuses by name, nothing. The first bytes tell its kind."""
    for found in walk(source_input, limits, wanted):
        if not isinstance(found, Passed):
            yield found


def walk(source_input: Input, limits: Limits, wanted: Wanted | None = None) -> Iterator[Member | Passed | Reject]:
    """As `read_members`, with the names and places of the files that are not wanted."""
    with open_input(source_input.url) as raw:
        head = raw.read(len(_XZ))
        raw.seek(0)
        if head[:4] in _ZIP:
            yield from _walk_zip(raw, source_input.path, limits, wanted)
        elif head == _XZ:
            yield from walk_tar(_Unxz(raw), source_input.path, limits, wanted)
        else:
            yield from walk_tar(decompressed(raw), source_input.path, limits, wanted)


def is_archive(raw: BinaryIO) -> bool:
    """Whether a file begins as a zip or, decompressed, as a tar."""
    raw.seek(0)
    head = raw.read(len(_XZ))
    raw.seek(0)
    try:
        return head[:4] in _ZIP or begins_as_tar(_Unxz(raw) if head == _XZ else decompressed(raw))
    except CorruptInput:
        return False
    finally:
        raw.seek(0)


# -- tar --------------------------------------------------------------------------------------------------------------------


def walk_tar(stream: Readable, path: str, limits: Limits, wanted: Wanted | None = None) -> Iterator[Member | Passed | Reject]:
    """The files of the tar in a stream; `path` stands before the `!` of locators."""
    number = 0
    try:
        for entry in tar_entries(stream):
            yield from _file_of_tar(entry, path, number, limits, wanted)
            number += 1
    except CorruptInput as error:
        yield Reject(f"{path}#{number}", RejectReason.CORRUPT_CONTAINER, str(error), unknown_rest=True)


def _file_of_tar(entry: Entry, path: str, number: int, limits: Limits, wanted: Wanted | None) -> Iterator[Member | Passed | Reject]:
    if entry.kind == "directory":
        return
    name, fault = safe_name(entry.name)
    locator = f"{path}!{name}#{number}"
    if entry.kind == "other":
        yield Reject(locator, RejectReason.UNSAFE_PATH, "a link or a device")
    elif fault:
        yield Reject(locator, RejectReason.UNSAFE_PATH, fault)
    elif wanted is not None and not wanted(name):
        yield Passed(name, number)
    elif entry.kind == "sparse":
        yield Reject(locator, RejectReason.MALFORMED_RECORD, "a sparse file")
    elif entry.size > limits.record_bytes:
        yield Reject(locator, RejectReason.TOO_LARGE, f"{entry.size} bytes")
    else:
        yield Member(name, number, entry.content())


def safe_name(name: str) -> tuple[str, str]:
    """(name below the archive's root with `/`, what is wrong with it or nothing)."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    shown = short("/".join(steps))
    if len(name.encode()) > _NAME_BYTES:
        return shown, "a name over 4096 bytes"
    if not steps:
        return shown, "no name"
    if name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\"):
        return shown, "an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return shown, "a path that leads out"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return shown, "control characters in the name"
    return "/".join(steps), ""


class _Unxz:
    """The content of an xz file. Its check stands at its end, so it is decompressed once for the check and once for the content."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._chunks = raw, self._content(raw)
        self._checked = False

    def read(self, size: int = -1, /) -> bytes:
        if not self._checked:
            self._checked = True
            for _ in self._content(self._raw, whole=True):
                pass
            self._raw.seek(0)
        return next(self._chunks, b"")

    @staticmethod
    def _content(raw: BinaryIO, whole: bool = False) -> Iterator[bytes]:
        """Chunks of content. Of a file that is cut off `whole` says nothing: what stands before the cut is believed."""
        offset = 0
        data = raw.read(_PIECE)
        while data:
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
            while not decoder.eof:
                try:
                    out = decoder.decompress(data, _BLOCK)
                except lzma.LZMAError as error:
                    raise CorruptInput(offset if not whole else 0, f"xz: {error}") from error
                offset += len(out)
                if out:
                    yield out
                data = raw.read(_PIECE) if decoder.needs_input and not decoder.eof else b""
                if not data and decoder.needs_input and not decoder.eof:
                    if whole:
                        return
                    raise CorruptInput(offset, "xz: cut off")
            data = (decoder.unused_data or raw.read(_PIECE)).lstrip(b"\0")
            while not data and (data := raw.read(_PIECE)):
                data = data.lstrip(b"\0")


# -- zip --------------------------------------------------------------------------------------------------------------------


def _walk_zip(raw: BinaryIO, path: str, limits: Limits, wanted: Wanted | None) -> Iterator[Member | Passed | Reject]:
    number = total = 0
    try:
        length = raw.seek(0, io.SEEK_END)
        for listed in directory(raw, length):
            total += listed.packed
            if total > length or listed.place > length:
                raise ZipDamage("members that overlap or lie beyond the file's end")
            if not listed.name.endswith("/"):
                yield _file_of_zip(raw, listed, path, number, limits, wanted)
            number += 1
    except (ZipDamage, struct.error, OSError) as error:
        yield Reject(f"{path}#{number}", RejectReason.CORRUPT_CONTAINER, f"zip: {short(error)}", unknown_rest=True)


def _file_of_zip(
    raw: BinaryIO, listed: Listed, path: str, number: int, limits: Limits, wanted: Wanted | None
) -> Member | Passed | Reject:
    name, fault = safe_name(listed.name)
    locator = f"{path}!{name}#{number}"
    if fault:
        return Reject(locator, RejectReason.UNSAFE_PATH, fault)
    if listed.mode >> 12 not in (0, 8):
        return Reject(locator, RejectReason.UNSAFE_PATH, "a link or a device")
    if wanted is not None and not wanted(name):
        return Passed(name, number)
    if listed.size > limits.record_bytes:
        return Reject(locator, RejectReason.TOO_LARGE, f"{listed.size} bytes")
    if listed.flags & 1 or listed.method not in (0, 8, 12):
        detail = "encrypted" if listed.flags & 1 else f"compression method {listed.method}"
        return Reject(locator, RejectReason.MALFORMED_RECORD, detail)
    content = member_bytes(raw, listed)
    if content is None:
        return Reject(locator, RejectReason.CORRUPT_CONTAINER, "its bytes are not what the directory promises")
    return Member(name, number, content)
