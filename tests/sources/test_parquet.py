"""Parquet against pyarrow's own reading of the same file; spans; damage."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
