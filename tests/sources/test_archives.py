"""Archive members against Python's own tarfile and zipfile, which write and read what the reader here reads by other code."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import Input, Limits, Reject
from pipelines.sources.archives import Member, Passed, is_archive, read_members, walk

PACKING = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
}
FILES = {
    "a.txt": b"one\n",
    "deep/" + "long/" * 60 + "name.py": b"print()\n" * 100,
    "empty": b"",
    "d/übung.c": b"int main;",
    "big": b"x" * 3_000_000,
}


def members(path, limit=64 << 20, wanted=None):
    """(members, rejects); conservation of places is checked: no two items share one."""
    found = list(read_members(Input(path.name, str(path), 0, ""), Limits(limit), wanted))
    return [m for m in found if isinstance(m, Member)], [r for r in found if isinstance(r, Reject)]


def tar_of(files, form=tarfile.PAX_FORMAT):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def zip_of(files, method=zipfile.ZIP_DEFLATED):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read_bytes(folder, data, **options):
    (folder / "x").write_bytes(data)
    return members(folder / "x", **options)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("packing", sorted(PACKING))
def test_a_tar_gives_what_tarfile_wrote(packing, form, tmp_path):
    found, rejects = read_bytes(tmp_path, PACKING[packing](tar_of(FILES, form)))
    assert rejects == []
    assert {m.name: m.content for m in found} == FILES
    assert [m.number for m in found] == list(range(5))


def test_ustar_joins_prefix_and_name(tmp_path):
    name = "folder/" * 20 + "name"
    (member,), _ = read_bytes(tmp_path, tar_of({name: b"x"}, tarfile.USTAR_FORMAT))
    assert member.name == name


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_gives_what_zipfile_wrote(method, tmp_path):
    found, rejects = read_bytes(tmp_path, zip_of(FILES, method))
    assert rejects == []
    assert {m.name: m.content for m in found} == FILES


def test_the_standard_librarys_packages_as_tarfile_itself_reads_them(tmp_path):
    """A real tree: every file of `json` and `email`, packed by tarfile's own walk, with its directories."""
    library = Path(tarfile.__file__).parent
    with tarfile.open(tmp_path / "x", "w:xz") as archive:
        for package in ("json", "email"):
            archive.add(library / package, package, filter=lambda info: None if "__pycache__" in info.name else info)
    found, rejects = members(tmp_path / "x")
    with tarfile.open(tmp_path / "x") as archive:
        expected = [(n, m.name, archive.extractfile(m).read()) for n, m in enumerate(archive.getmembers()) if m.isfile()]
    assert [(m.number, m.name, m.content) for m in found] == expected
    assert rejects == []
    assert len(found) > 25


def test_links_devices_and_paths_that_lead_out_are_refused(tmp_path):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for info in (
            special("symbolic", tarfile.SYMTYPE, "/etc/passwd"),
            special("hard", tarfile.LNKTYPE, "good"),
            special("pipe", tarfile.FIFOTYPE),
            special("device", tarfile.CHRTYPE),
            special("folder", tarfile.DIRTYPE),
            *(tarfile.TarInfo(name) for name in ("/etc/cron", "a/../../b", "..\\b", "C:/b", "a\nb", "x" * 5000)),
            tarfile.TarInfo("./good"),
        ):
            archive.addfile(info)
    found, rejects = read_bytes(tmp_path, sink.getvalue())
    assert [(m.name, m.number) for m in found] == [("good", 11)]
    assert Counter((r.reason, r.detail) for r in rejects) == {
        ("unsafe_path", "a link or a device"): 4,
        ("unsafe_path", "an absolute path"): 2,
        ("unsafe_path", "a path that leads out"): 2,
        ("unsafe_path", "control characters in the name"): 1,
        ("unsafe_path", "a name over 4096 bytes"): 1,
    }
    assert rejects[0].locator == "x!symbolic#0"


def test_a_zip_has_the_same_refusals(tmp_path):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        for name in ("../b", "/b", "folder/", "good"):
            archive.writestr(name, b"")
    found, rejects = read_bytes(tmp_path, sink.getvalue())
    assert [(m.name, m.number) for m in found] == [("good", 4)]
    assert [r.detail for r in rejects] == ["a link or a device", "a path that leads out", "an absolute path"]


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_file_over_the_limit_is_passed_over_and_the_next_is_read(pack, tmp_path):
    found, rejects = read_bytes(tmp_path, pack({"big": b"x" * 5000, "small": b"y"}), limit=1000)
    assert [m.name for m in found] == ["small"]
    assert [(r.reason, r.detail, r.locator) for r in rejects] == [("too_large", "5000 bytes", "x!big#0")]


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_what_is_not_wanted_is_named_by_walk_only(pack, tmp_path):
    found, _ = read_bytes(tmp_path, pack({"a.py": b"1", "b.png": b"2"}), wanted=lambda name: name.endswith(".py"))
    assert [m.name for m in found] == ["a.py"]
    everything = list(walk(Input("x", str(tmp_path / "x"), 0, ""), Limits(), lambda name: name.endswith(".py")))
    assert everything == [Member("a.py", 0, b"1"), Passed("b.png", 1)]


@pytest.mark.parametrize("packing", sorted(PACKING))
def test_what_stands_before_a_cut_is_delivered(packing, tmp_path):
    noise = b"".join(hashlib_block(n) for n in range(20_000))
    packed = PACKING[packing](tar_of({"a": noise, "b": noise[::-1]}))
    found, rejects = read_bytes(tmp_path, packed[: int(len(packed) * 0.9)])
    assert {m.name for m in found} <= {"a"}
    assert [(r.reason, r.count, r.unknown_rest) for r in rejects] == [("corrupt_container", 1, True)]
    if packing in ("plain", "gzip", "xz"):  # a block of the others is whole or nothing
        assert [m.content for m in found] == [noise]


def hashlib_block(number):
    return hashlib.sha256(str(number).encode()).digest()


def test_a_flipped_bit_in_xz_delivers_nothing(tmp_path):
    packed = bytearray(lzma.compress(tar_of({"a": b"".join(map(hashlib_block, range(9000))), "b": b"1"})))
    packed[len(packed) // 2] ^= 1
    found, rejects = read_bytes(tmp_path, bytes(packed))
    assert (found, [r.reason for r in rejects]) == ([], ["corrupt_container"])


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04" + b"no zip" * 50, b"text " * 500, b"short", gzip.compress(b"text " * 9, mtime=0), zip_of({"a": b"1"})[:-9]],
    ids=["nothing", "no zip", "text", "short text", "text in gzip", "zip without its end"],
)
def test_what_is_no_archive_is_one_reject(data, tmp_path):
    found, rejects = read_bytes(tmp_path, data)
    assert found == []
    assert [(r.reason, r.unknown_rest) for r in rejects] == [("corrupt_container", True)]


def test_is_archive_goes_by_the_first_bytes():
    assert all(is_archive(io.BytesIO(PACKING[kind](tar_of(FILES)))) for kind in PACKING)
    assert is_archive(io.BytesIO(zip_of(FILES)))
    assert not any(is_archive(io.BytesIO(data)) for data in (b"", b"short", b"import os\n" * 100, gzip.compress(b"text " * 500)))


def test_a_damaged_member_of_a_zip_ends_nothing(tmp_path):
    data = bytearray(zip_of({"a": b"AAAA", "b": b"BBBB"}, zipfile.ZIP_STORED))
    data[data.index(b"AAAA")] ^= 1
    found, rejects = read_bytes(tmp_path, bytes(data))
    assert [m.name for m in found] == ["b"]
    assert [(r.locator, r.reason, r.unknown_rest) for r in rejects] == [("x!a#0", "corrupt_container", False)]


def test_members_of_a_zip_that_overlap_are_damage(tmp_path):
    """Fifield's bomb in small: every entry of the directory points at the one member that is there."""
    data = zip_of({"a": b"a" * 9, **{f"{n}": b"" for n in range(3)}}, zipfile.ZIP_STORED)
    entry = data.index(b"PK\x01\x02")
    one = data[entry : entry + 47]
    start = len(data[:entry])
    end = b"PK\x05\x06" + bytes(4) + b"\xc8\0\xc8\0" + (47 * 200).to_bytes(4, "little") + start.to_bytes(4, "little") + b"\0\0"
    big = bytearray(one)
    big[20:28] = (60).to_bytes(4, "little") * 2
    found, rejects = read_bytes(tmp_path, data[:entry] + bytes(big) * 200 + end)
    assert found == []
    assert rejects[-1].detail.startswith("zip: members that overlap")


def test_chained_extended_headers_and_huge_ones_are_bounded(tmp_path):
    """tarfile follows the first by recursion and holds the second: here one is read and the other refused."""
    long_name = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    long_name.size = 4
    chain = (long_name.tobuf(tarfile.GNU_FORMAT) + b"abc\0".ljust(512, b"\0")) * 5000
    found, _ = read_bytes(tmp_path, chain + tar_of({"x": b"1"}))
    assert [m.name for m in found] == ["abc"]
    long_name.size = 1 << 40
    _, rejects = read_bytes(tmp_path, long_name.tobuf(tarfile.GNU_FORMAT) + bytes(5120))
    assert [r.detail for r in rejects] == [f"tar: an extended header of {1 << 40} bytes after 0 decompressed bytes"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_hundred_thousand_members_take_no_memory(kind, tmp_path):
    """Peak of traced memory while every member of an archive of 1e5 empty ones streams by: a few blocks, as for one."""
    if kind == "tar":
        with open(tmp_path / "x", "wb") as sink:
            head = tarfile.TarInfo("f").tobuf()
            for _ in range(1000):
                sink.write(head * 100)
            sink.write(bytes(1024))
    else:
        one = zip_of({"a": b""}, zipfile.ZIP_STORED)
        entry = one.index(b"PK\x01\x02")
        size, count = 47 * 100_000, (100_000).to_bytes(8, "little")
        end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12) + count * 2
        end64 += size.to_bytes(8, "little") + entry.to_bytes(8, "little")
        place = b"PK\x06\x07" + bytes(4) + (entry + size).to_bytes(8, "little") + b"\1\0\0\0"
        end = b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + b"\0\0"
        (tmp_path / "x").write_bytes(one[:entry] + one[entry : entry + 47] * 100_000 + end64 + place + end)
        with zipfile.ZipFile(tmp_path / "x") as archive:
            assert len(archive.infolist()) == 100_000
    tracemalloc.start()
    try:
        found = sum(1 for _ in read_members(Input("x", str(tmp_path / "x"), 0, ""), Limits()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == 100_000
    assert peak < 12 << 20


@given(st.binary(max_size=2000), st.integers(0, 5), st.integers(0, 4000), st.integers(0, 255))
def test_no_bytes_make_the_readers_raise(tmp_path_factory, noise, kind, at, value):
    """Whatever is changed in a tar or zip, the items are members and rejects, and the last reject is the only unknown rest."""
    data = [tar_of, zip_of][kind % 2]({"a": noise, "b/c": b"1" * 600})
    data = data[: at % len(data)] + bytes([value]) + data[at % len(data) + 1 :] if kind < 4 else noise
    folder = tmp_path_factory.mktemp("noise")
    _, rejects = read_bytes(folder, data)
    assert sum(r.unknown_rest for r in rejects) <= 1
