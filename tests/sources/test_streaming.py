"""Every reader's memory is that of a record and of a block: no higher peak for an input of three times the size.

Peaks are of what Python allocates (tracemalloc), while every record is thrown away as it comes. Inputs are not compressed but for a
member a record: a container may hold 16 MB of its own before its checksum is known (`reading`), more than is read here.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.records import Input, Limits, Record
from pipelines.sources import FORMATS, SourceOptions, reader
from tests.corpus import prose
from tests.sources.test_arxiv import bundle, paper, tar
from tests.sources.test_books import zipped
from tests.sources.test_code import MIT
from tests.sources.test_mediawiki import dump, page
from tests.sources.test_stackexchange import answer, question
from tests.sources.test_stackexchange import dump as posts
from tests.sources.test_warc import PAGE, http, record

TEXT = prose("streaming", False, 200)  # 20 kB
FEW, MANY = 80, 240  # 1.6 and 4.8 MB


def _texts(count):
    return [f"Number {number}. {TEXT}" for number in range(count)]


def _file(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


def _jsonl(folder, count):
    return _file(folder, "x.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in _texts(count)).encode())


def _parquet(folder, count):
    pq.write_table(pa.table({"text": _texts(count)}), folder / "x.parquet", row_group_size=10)
    return folder / "x.parquet"


def _warc(folder, count):
    blocks = (record("response", http(PAGE.format(text).encode())) for text in _texts(count))
    return _file(folder, "x.warc.gz", b"".join(gzip.compress(block, 1, mtime=0) for block in blocks))


def _wiki(folder, count):
    return dump(folder, *(page(number, text) for number, text in enumerate(_texts(count))))


def _posts(folder, count):
    rows = [question(number, f"<p>{text}</p>") for number, text in enumerate(_texts(count // 2))]
    return _file(folder, "x.xml", posts(*rows, *(answer(9000 + n, n, body=f"<p>{TEXT}</p>") for n in range(count // 2))))


def _books(folder, count):
    return _file(folder, "x.zip", zipped({f"{number}.txt": text.encode() for number, text in enumerate(_texts(count))}))


def _arxiv(folder, count):
    papers = {f"2301/2301.{number:05d}.gz": bundle(paper(text)) for number, text in enumerate(_texts(count))}
    return _file(folder, "x.tar", tar(papers))


def _code(folder, count):
    files = {f"{number}.py": f'"""{text}"""\n'.encode() for number, text in enumerate(_texts(count))}
    return _file(folder, "x.tar", tar({"LICENSE": MIT.encode(), **files}))


MADE = {
    "jsonl": _jsonl,
    "parquet": _parquet,
    "warc": _warc,
    "mediawiki": _wiki,
    "stackexchange": _posts,
    "books": _books,
    "arxiv": _arxiv,
    "code": _code,
}


def test_every_format_of_many_records_is_here():
    """A text file is one record; rows of `datasets` are read by its own library."""
    assert set(MADE) == set(FORMATS) - {"text", "datasets"}


@pytest.mark.parametrize("name", sorted(MADE))
def test_three_times_as_many_records_take_no_more_memory(name, tmp_path):
    peaks = []
    for count in (2, FEW, MANY):  # the first loads what is loaded once
        folder = tmp_path / str(count)
        folder.mkdir()
        path = MADE[name](folder, count)
        tracemalloc.start()
        try:
            documents = 0
            for one in reader(name)(Input(path.name, str(path), 0, ""), SourceOptions(), Limits(), None):
                documents += (1 + one.merged) if isinstance(one, Record) else 0
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert documents == count
    assert peaks[2] < peaks[1] + (2 << 20), peaks  # blocks that a small file does not fill; the text grows by 3.2 MB
