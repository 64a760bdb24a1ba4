"""Parquet against pyarrow's own reading of the same file; spans; damage."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import Input, Limits
from pipelines.sources import SourceOptions, reader
from pipelines.sources.parquet import spans
from tests.sources.reading import read, records, recount, rejects, texts

values = st.lists(st.one_of(st.none(), st.text(max_size=20)), min_size=1, max_size=40)


def write(folder, column, rows=7, kind=None, **more):
    path = folder / "x.parquet"
    table = pa.table({"text": pa.array(column, kind or pa.string()), "id": pa.array(range(len(column)))})
    pq.write_table(table, path, row_group_size=rows, write_page_checksum=True, **more)
    return path


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@given(values)
def test_rows_are_those_of_pyarrow(tmp_path_factory, kind, values):
    path = write(tmp_path_factory.mktemp("parquet"), values, kind=kind)
    found = read("parquet", path)
    expected = pq.read_table(path).column("text").to_pylist()
    assert texts(found) == [value for value in expected if value is not None]
    assert rejects(found) == ({"missing_text": expected.count(None)} if None in expected else {})
    assert recount("parquet", path) == records(found) == len(values)


@given(values, st.integers(1, 500))
def test_spans_give_every_row_once_under_its_number(tmp_path_factory, values, target):
    path = write(tmp_path_factory.mktemp("parquet"), values, rows=3)
    cut = list(spans(str(path), target))
    assert [one for span in cut for one in read("parquet", path, span)] == read("parquet", path)


def test_a_column_of_numbers_is_one_reject_of_all_rows(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": [1, 2, 3]}), path)
    assert rejects(read("parquet", path)) == {"text_not_string": 3}
    assert rejects(read("parquet", path, text="body")) == {"missing_text": 3}


KINDS = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.binary_view()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "dictionary"])
def test_every_encoding_of_every_kind_of_text_is_read(tmp_path, kind, encoding):
    values = ["aa", "b", None, "cc" * 50, "ü"] * 40
    chosen = {"use_dictionary": ["text"]}
    if encoding != "dictionary":
        chosen = {"column_encoding": {"text": encoding}, "use_dictionary": False}
    path = write(tmp_path, pa.array(values).cast(kind), rows=90, kind=kind, **chosen)
    assert texts(read("parquet", path)) == [value for value in values if value is not None]
    assert rejects(read("parquet", path)) == {"missing_text": 40}


@pytest.mark.parametrize("kind", ["parquet", "code"])
@pytest.mark.parametrize(
    ("values", "options"),
    [
        (lambda: pa.DictionaryArray.from_arrays(pa.array([0] * 512, pa.int32()), pa.array(["a b " * (1 << 18)])), {}),
        (lambda: ["a b " * (1 << 18)] * 512, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}),
        (lambda: [f"{number} " + "a b " * (1 << 18) for number in range(128)], {"use_dictionary": False, "write_batch_size": 1}),
    ],
    ids=["one value for all", "one prefix for all", "many long texts"],
)
def test_a_small_file_does_not_become_a_large_batch(tmp_path, kind, values, options):
    """Half a gigabyte of text in one row group, out of some kB; what Arrow holds when the first row is here."""
    table = pa.table({"content" if kind == "code" else "text": values()})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", store_schema=False, **options)
    del table
    before = pa.total_allocated_bytes()
    source_input = Input("x.parquet", str(tmp_path / "x.parquet"), 0, "")
    found = reader(kind)(source_input, SourceOptions(), Limits(1 << 16), None)
    assert next(found).reason == "too_large"
    assert pa.total_allocated_bytes() - before < 40 << 20
    found.close()


def test_bytes_of_code_are_counted_as_bytes(tmp_path):
    """A text of fewer characters than the limit has bytes, but not fewer bytes."""
    path = tmp_path / "x.parquet"
    rows = ["\u4e2d" * 300, "\u4e2d" * 400, "x" * 1000, "x" * 1001]
    pq.write_table(pa.table({"content": rows, "path": ["a.py"] * 4, "license": ["mit"] * 4}), path)
    found = read("code", path, limit=1000)
    assert [one.detail for one in found if getattr(one, "reason", "") == "too_large"] == ["over 1000 bytes"] * 2


@given(st.data())
def test_any_cut_and_any_flipped_byte_end_no_run(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("parquet")
    whole = bytearray(write(folder, [f"document {n} " * 4 for n in range(20)], compression="zstd").read_bytes())
    expected = texts(read("parquet", folder / "x.parquet"))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "x.parquet").write_bytes(bytes(whole))
    kept = texts(read("parquet", folder / "x.parquet"))
    assert len(kept) <= len(expected)
