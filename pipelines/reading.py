"""Bounded opening and line reading: what every source shares.

The container is told by its first bytes, never by its name. What a container delivers is what its checksums vouch for: a
member whose check fails delivers nothing, so that a flipped byte is an error and not another text. Only where the bytes end
inside a member, as in a broken download, is there no checksum to ask: then everything up to the cut is delivered. After
that `CorruptInput` says where the readable part ends.

The content of a member is held until its check has passed, up to 16 MiB; a longer member is decompressed twice, once for the
check and once for the content. bz2 checks every block of at most 900 kB, so it is never read twice.

Nothing here holds more than those MiB, whatever the input: a bomb streams, and a line over the limit is passed over without
being kept.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import fsspec

from pipelines import remote
from pipelines.errors import UserError

_BLOCK = 1 << 20  # what is read of a file at a time
_MAX_OUT = 4 << 20  # most that one step of gzip, bz2 or lz4 hands out
_HELD = 16 << 20  # of a member before its check is known
_CHUNK = 1 << 18  # smaller outputs are joined
_MAX_WINDOW = 15  # of deflate, in bits


class CorruptInput(Exception):
    """The input cannot be read on: damaged or cut off after `offset` decompressed bytes."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(f"{detail} after {offset} decompressed bytes")
        self.offset, self.detail = offset, detail


class Readable(Protocol):
    """What a reader needs of a stream: none of its bytes at the end, at least one before."""

    def read(self, size: int = -1, /) -> bytes: ...


def open_input(url: str) -> BinaryIO:
    """The raw bytes behind a URL or path. A missing one is a UserError, and so is what goes wrong on the way from a remote one."""
    if not remote.is_local(url):
        return remote.open_remote(url)
    try:
        return fsspec.open(url, "rb").open()
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be opened ({' '.join(str(error).split())}); mend the recipe's paths") from error


def read_given(located: str, way: str) -> bytes:
    """The whole of a small file that a recipe names. A missing one is a UserError with the way out."""
    if not remote.is_local(located):
        with remote.open_remote(located) as stream:
            return bytes(stream.read())
    try:
        with fsspec.open(located, "rb") as stream:
            return bytes(stream.read())
    except OSError as error:
        raise UserError(f"{located}: cannot be read ({error.strerror or error}); {way}") from error


# -- containers -------------------------------------------------------------------------------------------------------------


class _Decoder(Protocol):
    """One member of a container, decoded step by step."""

    def decode(self, data: bytes, /) -> bytes: ...
    @property
    def ended(self) -> bool: ...
    @property
    def rest(self) -> bytes: ...  # of the data given: what lies behind the member's end
    @property
    def pending(self) -> bool: ...  # more output waits for decode(b"")


class _Gzip:
    """A gzip member; CRC and length are checked at its end."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._error: Any = isal_zlib.error
        self._inner = isal_zlib.decompressobj(_MAX_WINDOW | 16)  # 16: with gzip's header and trailer

    def decode(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(self._inner.unconsumed_tail + data, _MAX_OUT)
        except self._error as error:
            raise ValueError(str(error)) from error

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

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
        return self._inner.decompress(data, _MAX_OUT)

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data or b""

    @property
    def pending(self) -> bool:
        return not self._inner.needs_input and not self._inner.eof


class _Zstd:
    """A frame, or a skippable one. All output of a step comes at once: the pieces that it is given have to be small."""

    pending = False

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._inner = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(write_size=1 << 16)

    def decode(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data)
        except self._error as error:
            raise ValueError(str(error).removeprefix("zstd decompressor error: ")) from error

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data or b""


@dataclass(frozen=True, slots=True)
class _Container:
    name: str
    magic: re.Pattern[bytes]
    make: Callable[[], _Decoder]
    piece: int  # compressed bytes of a step
    blocks: bool = False  # every block is checked, not only the member's end


# A zstd block of 4 bytes may stand for 128 KiB, so 1 KiB for 32 MiB. A deflate or bz2 step is bounded by _MAX_OUT; what
# lies behind a member's end is copied once, so a step of 64 KiB keeps archives of many small members linear.
_CONTAINERS = (
    _Container("gzip", re.compile(rb"\x1f\x8b"), _Gzip, 1 << 16),
    _Container("bz2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90|.{0,5}\Z)", re.DOTALL), _Bz2, 1 << 16, blocks=True),
    _Container("lz4", re.compile(rb"\x04\x22\x4d\x18"), _Lz4, 1 << 16),
    _Container("zstd", re.compile(rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)"), _Zstd, 1 << 10),
)
_MAGIC = 10  # bytes that tell a container


def container(raw: BinaryIO) -> str | None:
    """The name of the container that a file's first bytes tell, or None for bytes as they are."""
    found = _container(raw)
    return found.name if found else None


def decompressed(raw: BinaryIO) -> Readable:
    """A stream of the content: gzip (many members), bz2 (many streams), lz4 and zstd (many frames), or the bytes as they are.

    Its `read` hands out at least one byte unless the content has ended, and takes the size that is asked for as a hint.
    """
    found = _container(raw)
    return raw if found is None else _Content(_members(_Compressed(raw), found))


def _container(raw: BinaryIO) -> _Container | None:
    raw.seek(0)
    head = raw.read(_MAGIC)
    raw.seek(0)
    return next((known for known in _CONTAINERS if known.magic.match(head)), None)


class _Content:
    """The stream over chunks of content; damage is told again to whoever reads on."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._damage: CorruptInput | None = None

    def read(self, size: int = -1, /) -> bytes:
        if self._damage is not None:
            raise self._damage
        try:
            return next(self._chunks, b"")
        except CorruptInput as error:
            self._damage = error
            raise


class _Compressed:
    """The compressed bytes, in pieces, with a way back."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._base = self._at = 0  # where the block lies in the file, and where the reader is in the block
        self._block = b""

    def piece(self, size: int) -> bytes:
        """Up to `size` further bytes; none at the end."""
        if self._at == len(self._block):
            self._base += len(self._block)
            self._block, self._at = self._raw.read(_BLOCK), 0
        piece = self._block[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def give_back(self, size: int) -> None:
        """The last bytes of the last piece were not wanted."""
        self._at -= size

    def tell(self) -> int:
        return self._base + self._at

    def seek(self, position: int) -> None:
        self._raw.seek(position)
        self._base, self._at, self._block = position, 0, b""

    def ahead(self) -> bytes:
        """The next bytes, as many as tell a container, without taking them; zero bytes before them are padding."""
        while True:
            found = self.piece(_BLOCK)
            kept = found.lstrip(b"\0")
            self.give_back(len(kept))
            if kept or not found:
                break
        head = kept[:_MAGIC]
        if head and len(head) < _MAGIC:
            back = self.tell()
            self.seek(back)
            head = self.piece(_MAGIC)
            self.seek(back)
        return head


class _CutOff(Exception):
    """The bytes end inside a member."""


class _Damaged(Exception):
    """A member's bytes contradict themselves."""


def _members(source: _Compressed, kind: _Container) -> Iterator[bytes]:
    """The content of all members, one after another."""
    offset = 0
    while head := source.ahead():
        if not kind.magic.match(head):
            raise CorruptInput(offset, f"{kind.name}: bytes that are no further member")
        try:
            for chunk in _checked(source, kind):
                offset += len(chunk)
                yield chunk
        except _CutOff:
            raise CorruptInput(offset, f"{kind.name}: cut off") from None
        except _Damaged as error:
            raise CorruptInput(offset, f"{kind.name}: {error}") from error


def _checked(source: _Compressed, kind: _Container) -> Iterator[bytes]:
    """The content of one member as far as its checks vouch for it, or as far as there are bytes."""
    start = source.tell()
    decoder = kind.make()
    held: list[bytes] = []
    size = 0
    trusted = False
    try:
        for out in _steps(source, kind, decoder):
            held.append(out)
            size += len(out)
            if size > _HELD and not trusted:
                if not kind.blocks:
                    _check(source, kind, start)
                    trusted = True
            elif size < _CHUNK or not (trusted or (kind.blocks and not decoder.pending)):
                continue
            yield b"".join(held)
            held, size = [], 0
    except _CutOff:
        if size:
            yield b"".join(held)
        raise
    if size:
        yield b"".join(held)


def _steps(source: _Compressed, kind: _Container, decoder: _Decoder) -> Iterator[bytes]:
    """The outputs of one member; the source then stands behind it."""
    while not decoder.ended:
        data = b""
        if not decoder.pending:
            data = source.piece(kind.piece)
            if not data:
                raise _CutOff
        try:
            yield decoder.decode(data)
        except (OSError, EOFError, RuntimeError, ValueError) as error:
            raise _Damaged(" ".join(str(error).split())) from error
    source.give_back(len(decoder.rest))


def _check(source: _Compressed, kind: _Container, start: int) -> None:
    """Decompresses a member from its start to its end and forgets it. _Damaged says that it cannot be trusted."""
    back = source.tell()
    source.seek(start)
    try:
        for _ in _steps(source, kind, kind.make()):
            pass
    except _CutOff:
        pass
    finally:
        source.seek(back)


# -- lines ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OversizedLine:
    """A line over the limit, passed over; `size` is its length in bytes."""

    size: int
    blank: bool  # nothing but white space


def lines(stream: Readable, limit: int) -> Iterator[bytes | OversizedLine]:
    """Lines without their newline, in order, the last with or without one. Never holds more than `limit` and a block.

    Where the stream is damaged, what was read of the present line is no line; its place is told by CorruptInput.
    """
    held = bytearray()
    size, blank = 0, True
    while block := stream.read(_BLOCK):
        start = 0
        while True:
            stop = block.find(b"\n", start)
            piece = block[start:stop] if stop >= 0 else block[start:]
            size += len(piece)
            if size > limit:
                blank = blank and not held.strip() and not piece.strip()
                held.clear()
            elif held or stop < 0:
                held += piece
            if stop < 0:
                break
            if size > limit:
                yield OversizedLine(size, blank)
            else:
                yield bytes(held) or piece
            held.clear()
            size, blank, start = 0, True, stop + 1
    if size > limit:
        yield OversizedLine(size, blank)
    elif size:
        yield bytes(held)
