"""opened_member on archives that py7zr writes here, and on what is no archive."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import sys
import tracemalloc
import zlib

import pytest

from pipelines.errors import UserError
from pipelines.reading import CorruptInput
from pipelines.sources import sevenzip
from pipelines.sources.sevenzip import MAX_DICTIONARY, MAX_RATIO, opened_member

py7zr = pytest.importorskip("py7zr", reason="the extra winnow[sevenzip] is not installed")

NOISE = b"".join(hashlib.sha256(b"%d" % n).hexdigest().encode() for n in range(2000))
MEMBERS = {"Badges.xml": b"<badges/>" * 1000, "Posts.xml": NOISE, "Users.xml": b"<users/>"}


def archive(members=MEMBERS, **options) -> bytes:
    sink = io.BytesIO()
    with py7zr.SevenZipFile(sink, "w", **options) as target:
        for name, content in members.items():
            target.writestr(content, name)
    return sink.getvalue()


def content(path, data, name="Posts.xml"):
    """(member, content) or what CorruptInput says."""
    path.write_bytes(data)
    with opened_member(str(path), name) as opened:
        try:
            parts = []
            while block := opened.stream.read(1 << 16):
                parts.append(block)
        except CorruptInput as error:
            assert opened.member == ""
            return error.detail
        return opened.member, b"".join(parts)


@pytest.mark.parametrize(
    "filters",
    [
        None,
        [{"id": py7zr.FILTER_LZMA}],
        [{"id": py7zr.FILTER_BZIP2}],
        [{"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}],
        [{"id": py7zr.FILTER_ZSTD, "level": 3}],
        [{"id": py7zr.FILTER_COPY}],
    ],
    ids=["lzma2", "lzma", "bzip2", "ppmd", "zstd", "copy"],
)
def test_a_member_in_the_middle_of_a_solid_archive(filters, tmp_path):
    assert content(tmp_path / "a.7z", archive(filters=filters)) == ("Posts.xml", NOISE)


def test_a_member_in_a_folder_and_the_first_and_last(tmp_path):
    inside = {f"site/{name}": value for name, value in MEMBERS.items()}
    assert content(tmp_path / "a.7z", archive(inside)) == ("site/Posts.xml", NOISE)
    for name in ("Badges.xml", "Users.xml"):
        assert content(tmp_path / "a.7z", archive(), name) == (name, MEMBERS[name])


def test_what_is_no_archive_is_content(tmp_path):
    import gzip

    assert content(tmp_path / "a.7z", b"<posts/>") == ("", b"<posts/>")
    assert content(tmp_path / "a.7z", b"") == ("", b"")
    assert content(tmp_path / "Posts.xml", gzip.compress(NOISE)) == ("", NOISE)


def test_archives_without_the_member_or_with_two(tmp_path):
    assert content(tmp_path / "a.7z", archive({"Users.xml": b"x"})) == "7z: 0 members are called Posts.xml, not one"
    two = archive({"a/Posts.xml": b"x", "b/Posts.xml": b"y"})
    assert content(tmp_path / "a.7z", two) == "7z: 2 members are called Posts.xml, not one"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_an_archive_that_is_cut_off_gives_nothing(share, tmp_path):
    data = archive()
    found = content(tmp_path / "a.7z", data[: max(6, int(len(data) * share))])
    assert isinstance(found, str)
    assert found.startswith("7z: ")


def test_a_flipped_byte_gives_nothing_or_changes_nothing(tmp_path):
    """Any byte of a small archive: the content is that of the checksum, or there is none; nothing else is ever raised."""
    text = NOISE[:300]
    data = archive({"Posts.xml": text})
    outcomes = set()
    for place in range(6, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :]
        found = content(tmp_path / "a.7z", damaged)
        assert isinstance(found, str) or found[1] == text, place
        outcomes.add(type(found))
    assert str in outcomes


def test_headers_of_noise_raise_nothing_else(tmp_path):
    """The directory replaced by noise with a right checksum, so that the parser goes into it."""
    draw = random.Random(7)
    whole = archive({"Posts.xml": NOISE[:300]})
    offset, size = struct.unpack_from("<QQ", whole, 12)
    start = 32 + offset
    for number in range(300):
        header = bytearray(whole[start : start + size])
        if number % 2:
            header[draw.randrange(size)] = draw.randrange(256)
        else:
            header = bytearray(draw.choice((1, 1, 4, 23)).to_bytes(1, "little") + draw.randbytes(size - 1))
        fields = struct.pack("<QQI", offset, size, zlib.crc32(header))
        head = whole[:8] + struct.pack("<I", zlib.crc32(fields)) + fields
        found = content(tmp_path / "a.7z", head + whole[32:start] + bytes(header))
        assert isinstance(found, str) or found[1] == NOISE[:300]


def test_an_archive_with_a_password(tmp_path):
    found = content(tmp_path / "a.7z", archive(password="secret"))
    assert isinstance(found, str)
    assert found.startswith("7z: PasswordRequired")


@pytest.mark.parametrize("bomb", ["Posts.xml", "Badges.xml"])
def test_a_bomb_is_refused_whether_it_is_wanted_or_stands_before(bomb, tmp_path):
    """60 MB out of some 9 kB; unpacking stops at a thousand times the archive's size, within a bounded memory."""
    data = archive({bomb: bytes(60_000_000), **({} if bomb == "Posts.xml" else {"Posts.xml": b"x"})})
    assert len(data) * MAX_RATIO < 30_000_000
    tracemalloc.start()
    found = content(tmp_path / "a.7z", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, str)
    assert found.startswith("7z: DecompressionBombError")
    assert peak < 55_000_000


def test_the_memory_that_a_decoder_may_ask_for(tmp_path):
    """7-Zip's lzma.txt: LZMA states its dictionary, LZMA2 a code for it, PPMd its model."""
    assert sevenzip._memory(b"\x21", bytes([24])) == 16 << 20
    assert sevenzip._memory(b"\x21", bytes([25])) == 24 << 20
    assert sevenzip._memory(b"\x03\x01\x01", b"\x5d" + struct.pack("<I", 1 << 26)) == 64 << 20
    assert sevenzip._memory(b"\x03\x04\x01", b"\x06" + struct.pack("<I", 1 << 24)) == 16 << 20
    assert sevenzip._memory(b"\x04\x02\x02", b"") == 0
    greedy = [{"id": py7zr.FILTER_LZMA, "dict_size": MAX_DICTIONARY}]
    data = archive({"Posts.xml": b"x"}, filters=greedy, header_encryption=False)
    assert content(tmp_path / "a.7z", data) == ("Posts.xml", b"x")


def test_a_dictionary_beyond_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sevenzip, "MAX_DICTIONARY", 1 << 20)
    data = archive(filters=[{"id": py7zr.FILTER_LZMA2, "dict_size": 2 << 20}])
    assert content(tmp_path / "a.7z", data) == "7z: a dictionary of over 1 MiB"


def test_a_directory_of_very_many_names_is_refused(tmp_path):
    """3,000 names of 62 characters pack to few kB and unpack to 0.4 MB; a real dump has ten."""
    data = archive({f"{'a' * 52}{number:010}": b"" for number in range(3000)} | {"Posts.xml": b"x"})
    assert len(data) < 60_000
    assert content(tmp_path / "a.7z", data) == "7z: a directory of over 256 KiB"
    few = archive({f"{'a' * 52}{number:010}": b"" for number in range(300)} | {"Posts.xml": b"x"})
    assert content(tmp_path / "a.7z", few) == ("Posts.xml", b"x")


def test_without_py7zr_one_line_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.7z").write_bytes(archive())
    monkeypatch.setitem(sys.modules, "py7zr", None)
    message = r"a\.7z: reading a 7z archive needs py7zr; install winnow\[sevenzip\], or unpack it"
    with pytest.raises(UserError, match=message), opened_member(str(tmp_path / "a.7z"), "Posts.xml"):
        pass
    with opened_member(__file__, "Posts.xml") as opened:  # anything else is read without it
        assert opened.stream.read(3) == b'"""'


def test_a_full_disk_and_a_failing_store_are_no_damage_of_the_archive(tmp_path, monkeypatch):
    """What is not the archive's fault must not become a reject: the next attempt reads it."""
    path = tmp_path / "a.7z"
    path.write_bytes(archive())

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def tell(self):
            return 0

    with open(path, "rb") as raw, pytest.raises(UserError, match="No space left on device; the dump is unpacked there"):
        sevenzip._unpack(raw, str(path), "Posts.xml", Full())

    class Store(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 32:
                raise ConnectionError("the store is gone")
            return super().read(size)

    with pytest.raises(ConnectionError, match="the store is gone"):
        sevenzip._unpack(Store(path.read_bytes()), "a.7z", "Posts.xml", io.BytesIO())
