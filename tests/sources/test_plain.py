"""Plain text against Python's own decoding."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st

from tests.sources.reading import read, recount, rejects, texts


@given(st.one_of(st.binary(max_size=80), st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_a_file_is_its_text_or_no_utf8(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("plain") / "x.txt"
    path.write_bytes(content)
    try:
        expected = [content.decode().removeprefix("\ufeff")]
    except UnicodeDecodeError:
        expected = []
    if content[:2] in (b"\x1f\x8b", b"BZ") or content[:4] in (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"):
        return  # a container by its first bytes
    found = read("text", path)
    assert texts(found) == expected
    assert rejects(found) == ({} if expected else {"invalid_utf8": 1})
    assert recount("text", path) == 1


def test_a_packed_file_and_one_over_the_limit(tmp_path):
    (tmp_path / "x.txt").write_bytes(gzip.compress("wörter\n".encode()))
    assert texts(read("text", tmp_path / "x.txt")) == ["wörter\n"]
    assert rejects(read("text", tmp_path / "x.txt", limit=3)) == {"too_large": 1}
    (tmp_path / "x.txt").write_bytes(gzip.compress(b"words " * 50)[:-4])
    assert rejects(read("text", tmp_path / "x.txt")) == {"corrupt_container": 1}
