"""JSON lines against the standard library's json over the same bytes; containers; spans; any cut and any flipped byte."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import types

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import Record
from pipelines.sources.jsonl import _filled_lines, spans
from tests.sources.reading import read, records, recount, rejects, texts

PACKED = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "gzip of many members": lambda data: b"".join(gzip.compress(line, mtime=0) for line in data.splitlines(True)),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zstd of many frames": lambda data: b"".join(
        zstandard.ZstdCompressor(write_checksum=True).compress(line) for line in data.splitlines(True)
    ),
    "bz2": bz2.compress,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True, block_checksum=True),
}
rows = st.lists(
    st.one_of(
        st.fixed_dictionaries({"text": st.text(max_size=40)}, optional={"id": st.integers(), "url": st.text(max_size=9)}),
        st.fixed_dictionaries({"text": st.one_of(st.none(), st.integers(), st.lists(st.text(max_size=3)))}),
        st.fixed_dictionaries({"other": st.text(max_size=9)}),
    ),
    max_size=12,
)


def _data(rows):
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in rows)


def _expected(rows):
    """What the table in the reader's docstring says, from the values themselves."""
    reasons = {}
    kept = []
    for row in rows:
        text = row.get("text")
        if isinstance(text, str):
            kept.append(text)
        else:
            name = "missing_text" if text is None else "text_not_string"
            reasons[name] = reasons.get(name, 0) + 1
    return kept, reasons


@pytest.mark.parametrize("packing", PACKED)
@given(rows)
def test_every_container_gives_the_same_records(tmp_path_factory, packing, rows):
    path = tmp_path_factory.mktemp("jsonl") / "x.bin"  # told by its bytes, not by its name
    path.write_bytes(PACKED[packing](_data(rows)))
    found = read("jsonl", path)
    assert (texts(found), rejects(found)) == _expected(rows)
    assert recount("jsonl", path) == records(found) == len(rows)
    assert [one.locator for one in found] == [f"x.bin#{number}" for number in range(len(rows))]


@given(rows.filter(bool), st.integers(1, 60), st.data())
def test_spans_give_every_record_once_under_its_number(tmp_path_factory, rows, target, data):
    path = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    blanks = [data.draw(st.sampled_from([b"", b"\n", b"  \n"])) for _ in rows]
    lines = _data(rows).splitlines(True)
    path.write_bytes(b"".join(blank + line for blank, line in zip(blanks, lines, strict=True)))
    cut = list(spans(str(path), target))
    assert cut[0].start == 0
    assert cut[-1].stop == path.stat().st_size
    assert all(one.stop == other.start for one, other in itertools.pairwise(cut))
    assert [one for span in cut for one in read("jsonl", path, span)] == read("jsonl", path)


@pytest.mark.parametrize("packing", [name for name in PACKED if name != "plain"])
@given(st.data())
def test_a_cut_delivers_a_prefix_and_says_so(tmp_path_factory, packing, data):
    """Cut anywhere: no exception, nothing but records of the whole file from its start, and a reject for what is missing."""
    path = tmp_path_factory.mktemp("jsonl") / "x"
    whole = PACKED[packing](_data([{"text": f"document {number} " * 5} for number in range(8)]))
    path.write_bytes(whole)
    expected = texts(read("jsonl", path))
    at = data.draw(st.integers(1, len(whole) - 1))
    path.write_bytes(whole[:at])
    found = read("jsonl", path)
    kept = texts(found)
    assert kept == expected[: len(kept)]
    if "many" not in packing:  # a cut between two members is no damage
        assert not isinstance(found[-1], Record)
        # Within the first bytes it is no container yet.
        assert found[-1].unknown_rest == (at >= 4) or packing in ("gzip", "bz2")


@pytest.mark.parametrize("packing", ["gzip", "gzip of many members", "zstd", "bz2", "lz4"])
@given(st.data())
def test_a_flipped_bit_changes_no_text_that_a_checksum_stands_behind(tmp_path_factory, packing, data):
    path = tmp_path_factory.mktemp("jsonl") / "x"
    whole = bytearray(PACKED[packing](_data([{"text": f"document {number} " * 5} for number in range(8)])))
    path.write_bytes(bytes(whole))
    expected = texts(read("jsonl", path))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(whole))
    found = read("jsonl", path)
    if not set(texts(found)) <= set(expected):
        # The damage hides the member's end, so that the file looks cut off: there is no checksum to ask, and the rest is in doubt.
        assert found[-1].unknown_rest
        assert "cut off" in found[-1].detail


MANY = _data([{"text": f"{number}"} for number in range(20_000)])


@pytest.mark.parametrize(
    ("packing", "at", "size"),
    [("gzip", 0.4, 400), ("gzip", -8, 1), ("zstd", 0.5, 2), ("zstd", -1, 1), ("bz2", 0.5, 2), ("lz4", 0.5, 2)],
)
def test_what_is_read_of_damage_is_what_is_counted(tmp_path, packing, at, size):
    """Inside of the data and in the checksum: `count` is for `verify --deep`, which holds it against what was read."""
    path = tmp_path / "x"
    whole = bytearray(PACKED[packing](MANY))
    place = int(at * len(whole)) if at > 0 else len(whole) + at
    for one in range(place, place + size):
        whole[one] ^= 0xFF
    path.write_bytes(bytes(whole))
    found = read("jsonl", path)
    assert rejects(found).get("corrupt_container") == 1
    assert recount("jsonl", path) == records(found)


@given(st.lists(st.sampled_from([b"a", b" ", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\t", b"\0"])).map(b"".join), st.integers(1, 5))
def test_lines_are_counted_as_the_standard_library_has_them(data, size):
    """Whatever the pieces are in which they come."""
    pieces = iter([*(data[at : at + size] for at in range(0, len(data), size)), b"", b""])
    expected = sum(bool(line.strip()) for line in io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")))
    assert _filled_lines(types.SimpleNamespace(read=lambda _: next(pieces))) == (expected, False)


def test_fields_are_found_by_name_and_along_dots(tmp_path):
    path = tmp_path / "x.jsonl"
    row = {"body": {"text": "words", "n": 1}, "post.id": 7, "meta": {"url": "u", "date": 5}, "title": "t", "license": "MIT"}
    path.write_text(json.dumps(row) + "\n")
    found = read("jsonl", path, text="body.text", id="post.id", url="meta.url", date="meta.date")
    assert found == [Record("x.jsonl#0", "words", "7", "u", "t", None, "MIT")]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert texts(read("jsonl", path)) == ["a", "b"]
    assert recount("jsonl", path) == 2


def test_real_lines_are_those_of_the_standard_library(real_data):
    path = real_data / "web" / "openwebtext-1000.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        expected = [json.loads(line)["text"] for line in lines]
    found = read("jsonl", path, limit=64 << 20)
    assert texts(found) == expected
    assert (len(expected), rejects(found)) == (1000, {})
