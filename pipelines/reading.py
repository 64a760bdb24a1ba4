"""Bounded opening and line reading: what every source shares.

The container is told by its first bytes, never by its name. Everything before a damaged place is delivered, then
`CorruptInput` says where the readable part ends. Nothing here holds more than a few MiB, whatever the input: a bomb streams,
and a line over the limit is passed over without being kept.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import fsspec

from pipelines.errors import UserError

_BLOCK = 1 << 20
_MAX_OUT = 4 << 20  # most that one step of decompression may hand out


class CorruptInput(Exception):
    """The input cannot be read on: damaged or cut off after `offset` decompressed bytes."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(f"{detail} after {offset} decompressed bytes")
        self.offset, self.detail = offset, detail


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def open_input(url: str) -> BinaryIO:
    """The raw bytes behind a URL or path. A missing one is a UserError."""
    try:
        return fsspec.open(url, "rb").open()  # type: ignore[no-any-return]
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"{url}: cannot be opened ({' '.join(str(error).split())}); mend the recipe's paths") from error


class _Decoder(Protocol):
    """One member of a container: bytes in, at most `_MAX_OUT` bytes out at a time."""

    def decode(self, data: bytes) -> bytes: ...
    @property
    def ended(self) -> bool: ...
    @property
    def rest(self) -> bytes: ...


class _Zlib:
    """A gzip member; CRC and length are checked by zlib at its end."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _MAX_OUT)

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data

    @property
    def pending(self) -> bool:
        return bool(self._inner.unconsumed_tail)


class _Bz2:
    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _MAX_OUT)

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data

    @property
    def pending(self) -> bool:
        return not self._inner.needs_input and not self._inner.eof


class _Lz4:
    def __init__(self) -> None:
        import lz4.frame

        self._inner = lz4.frame.LZ4FrameDecompressor()

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _MAX_OUT)  # type: ignore[no-any-return]

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data or b""

    @property
    def pending(self) -> bool:
        return not self._inner.needs_input and not self._inner.eof


# (first bytes, name, decoder); zstandard has its own stream reader.
_MEMBERS: tuple[tuple[bytes, str, Callable[[], _Zlib | _Bz2 | _Lz4]], ...] = (
    (b"\x1f\x8b", "gzip", _Zlib),
    (b"BZh", "bz2", _Bz2),
    (b"\x04\x22\x4d\x18", "lz4", _Lz4),
)
_ZSTD = b"\x28\xb5\x2f\xfd"


def decompressed(raw: Readable) -> Readable:
    """A stream of the content: gzip (many members), bz2 (many streams), lz4 frames, zstd frames, or the bytes as they are."""
    head = raw.read(4)
    source = _Prefixed(head, raw)
    if head == _ZSTD:
        return _Zstd(source)
    for magic, name, decoder in _MEMBERS:
        if head.startswith(magic):
            return _Members(source, name, magic, decoder)
    return source


class _Prefixed:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, raw: Readable) -> None:
        self._head, self._raw = head, raw

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head + self._raw.read(max(size - len(head), 0) if size >= 0 else -1)
        return self._raw.read(size)


class _Members:
    """Members of one kind, one after another; zero bytes after the last are padding."""

    def __init__(self, raw: Readable, name: str, magic: bytes, make: Callable[[], _Zlib | _Bz2 | _Lz4]) -> None:
        self._raw, self._name, self._magic, self._make = raw, name, magic, make
        self._decoder: _Zlib | _Bz2 | _Lz4 | None = make()
        self._waiting = b""  # compressed bytes that belong to the next member
        self._offset = 0
        self._failure: CorruptInput | None = None

    def read(self, size: int = -1, /) -> bytes:
        """At least one byte unless the content has ended; `size` is a hint."""
        if self._failure is not None:
            raise self._failure
        while True:
            if self._decoder is None:
                return b""
            out = self._step(self._decoder)
            if out:
                self._offset += len(out)
                return out

    def _step(self, decoder: _Zlib | _Bz2 | _Lz4) -> bytes:
        data = b""
        if not decoder.pending:
            data, self._waiting = self._waiting or self._raw.read(_BLOCK), b""
            if not data:
                raise self._corrupt("cut off")
        try:
            out = decoder.decode(data)
        except (zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise self._corrupt(str(error)) from error
        if decoder.ended:
            self._next_member(decoder.rest)
        return out

    def _next_member(self, rest: bytes) -> None:
        while True:
            rest = rest.lstrip(b"\0")
            if len(rest) >= len(self._magic):
                break
            more = self._raw.read(_BLOCK)
            if not more:
                break
            rest += more
        if not rest:
            self._decoder = None
        elif rest.startswith(self._magic):
            self._decoder, self._waiting = self._make(), rest
        else:
            self._decoder = None
            self._failure = CorruptInput(self._offset, f"{self._name}: bytes that are no further member")

    def _corrupt(self, detail: str) -> CorruptInput:
        return CorruptInput(self._offset, f"{self._name}: {detail}")


class _Zstd:
    def __init__(self, raw: Readable) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._raw = _Watched(raw)
        self._reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            self._raw, read_size=_BLOCK, read_across_frames=True
        )
        self._offset = 0

    def read(self, size: int = -1, /) -> bytes:
        try:
            out = self._reader.read(_MAX_OUT)
        except self._error as error:
            raise CorruptInput(self._offset, f"zstd: {error}") from error
        self._offset += len(out)
        if not out and not self._whole():
            raise CorruptInput(self._offset, "zstd: cut off")
        return bytes(out)

    def _whole(self) -> bool:
        """Whether the compressed bytes end with a frame: the reader itself takes a cut for an end."""
        return self._raw.ends_with_frame()


class _Watched:
    """Follows zstd frames in the compressed bytes as they pass, block header by block header."""

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._held = bytearray()
        self._skip = 0  # bytes of blocks, checksums or skippable frames still to pass
        self._in_frame = False
        self._last = self._checksum = False

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        self._held += data
        self._walk()
        return data

    def ends_with_frame(self) -> bool:
        return not self._held and not self._skip and not self._in_frame

    def _walk(self) -> None:
        while self._held:
            if self._skip:
                passed = min(self._skip, len(self._held))
                del self._held[:passed]
                self._skip -= passed
                continue
            if not (self._block() if self._in_frame else self._frame()):
                return

    def _frame(self) -> bool:
        if len(self._held) < 18:
            # A header has at most 18 bytes; a shorter rest is whole only if its own size says so.
            if len(self._held) < 5 or len(self._held) < self._header_size():
                return False
        if self._held[1:4] == b"\x2a\x4d\x18" and self._held[0] & 0xF0 == 0x50:  # skippable frame
            if len(self._held) < 8:
                return False
            self._skip = int.from_bytes(self._held[4:8], "little")
            del self._held[:8]
            return True
        self._checksum = bool(self._held[4] & 4)
        del self._held[: self._header_size()]
        self._in_frame = True
        return True

    def _header_size(self) -> int:
        if self._held[1:4] == b"\x2a\x4d\x18":
            return 8
        descriptor = self._held[4]
        single = descriptor >> 5 & 1
        content = (single, 2, 4, 8)[descriptor >> 6]
        return 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content

    def _block(self) -> bool:
        if len(self._held) < 3:
            return False
        header = int.from_bytes(self._held[:3], "little")
        del self._held[:3]
        kind, size = header >> 1 & 3, header >> 3
        self._skip = 1 if kind == 1 else size
        if header & 1:
            self._skip += 4 if self._checksum else 0
            self._in_frame = False
        return True


# -- lines ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OversizedLine:
    """A line over the limit, passed over; `size` is its length in bytes."""

    size: int


def lines(stream: Readable, limit: int) -> Iterator[bytes | OversizedLine]:
    """Lines without their newline, in order, the last with or without one. Never holds more than limit + a block."""
    held: list[bytes] = []
    size = 0
    try:
        while block := stream.read(_BLOCK):
            start = 0
            while (stop := block.find(b"\n", start)) >= 0:
                if size + stop - start > limit:
                    yield OversizedLine(size + stop - start)
                elif held:
                    yield b"".join([*held, block[start:stop]])
                else:
                    yield block[start:stop]
                held, size, start = [], 0, stop + 1
            size += len(block) - start
            if size > limit:
                held = []
            elif start < len(block):
                held.append(block[start:])
    except CorruptInput:
        # What was read of the damaged line is no line; its place is told by the exception.
        raise
    if size > limit:
        yield OversizedLine(size)
    elif held:
        yield b"".join(held)
