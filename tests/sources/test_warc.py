"""WARC, ARC and WET against a walk of thirty lines over the same bytes, built records, and pages that FastWARC wrote."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import Record
from tests.runs import REPOSITORY
from tests.sources.reading import read, records, recount, rejects, texts

PAGE = "<html><head><title>A  title</title></head><body><p>{}</p></body></html>"


def record(kind: str, block: bytes, content_type: str = "application/http; msgtype=response", **fields: str) -> bytes:
    head = {"WARC-Type": kind, "WARC-Target-URI": "https://example.org/", "WARC-Date": "2024-01-02T03:04:05Z", **fields}
    head |= {"WARC-Record-ID": f"<urn:x:{kind}>", "Content-Type": content_type, "Content-Length": str(len(block))}
    return b"WARC/1.0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in head.items()) + b"\r\n" + block + b"\r\n\r\n"


def http(body: bytes, content_type: str = "text/html", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def archive(tmp_path, *found: bytes, pack=lambda data: gzip.compress(data, mtime=0)):
    path = tmp_path / "x.warc"
    path.write_bytes(b"".join(map(pack, found)))
    return path


def walked(data: bytes) -> Counter:
    """Types of the records of an undamaged WARC, and status and media type of responses, by their own lengths."""
    stream, found = io.BytesIO(data), Counter()
    while line := stream.readline():
        if not line.startswith(b"WARC/"):
            continue
        head = {}
        while (line := stream.readline().strip()) != b"":
            key, _, value = line.partition(b":")
            head[key.lower()] = value.strip()
        block = stream.read(int(head[b"content-length"]))
        kind = head[b"warc-type"].decode()
        if kind == "response" and b"http" in head.get(b"content-type", b""):
            top = block.partition(b"\r\n\r\n")[0]
            status = re.match(rb"HTTP/\d\S* (\d{3})", top)
            media = re.search(rb"(?mi)^content-type:\s*([^;\r\n]*)", top)
            name = media[1].strip().lower().decode() if media else ""
            text = name in ("text/html", "application/xhtml+xml", "text/plain")
            kind = "http_status" if status is None or status[1] != b"200" else "document" if text else "not_text"
        elif kind == "resource":
            kind = "document" if head[b"content-type"].startswith(b"text/") else "not_text"
        else:
            kind = "not_a_response"
        found[kind] += 1
    return found


@pytest.mark.parametrize(
    "name",
    ["warc/dupes", "warc/iana", "warc/sample-0000", "warc/warcfile", "warc/whirlwind", "web/web-recipes", "web/web-trafilatura"],
)
def test_real_archives_are_those_of_the_walk(real_data, name):
    path = real_data / f"{name}.warc.gz"
    expected = walked(gzip.decompress(path.read_bytes()))
    found = read("warc", path, limit=64 << 20)
    assert {"document": len(texts(found)), **rejects(found)} == {"document": 0, **expected}
    assert recount("warc", path) == records(found) == expected.total()


def test_a_real_page_to_the_letter_as_the_docs_show_it(real_data):
    """docs/sources/common_crawl.md: text, title, date and counts."""
    text = (REPOSITORY / "docs" / "sources" / "common_crawl.md").read_text("utf-8")
    found = read("warc", real_data / "warc" / "iana.warc.gz", limit=64 << 20)
    (page,) = [one for one in found if isinstance(one, Record) and one.url == "http://www.iana.org/domains/root"]
    assert re.search(r"```text\n(.*?)\n```", text, re.DOTALL)[1] == page.text
    assert f"`title` {page.title} and `date` {page.date}" in text
    assert page.source_id == "<urn:uuid:2fe492ed-d004-4f8d-a35c-124069983049>"
    for name, shown in (("warc/iana", "`iana.warc.gz`"), ("web/web-trafilatura", "641 saved"), ("web/web-recipes", "212 recipe")):
        found = read("warc", real_data / f"{name}.warc.gz", limit=64 << 20)
        rejected = ", ".join(f"{reason} {count}" for reason, count in Counter(rejects(found)).most_common())
        row = next(line for line in text.splitlines() if line.startswith(f"| {shown}"))
        assert row.endswith(f" | {records(found)} | {len(texts(found))} | {rejected} |")


def test_lz4_is_gzip_in_another_wrapping(real_data):
    one, other = (texts(read("warc", real_data / "warc" / f"warcfile.warc.{ending}")) for ending in ("lz4", "gz"))
    assert one == other


def test_an_arc_is_read_to_its_own_count(real_data):
    path = real_data / "warc" / "example.arc.gz"
    found = read("warc", path, limit=64 << 20)
    headers = re.findall(rb"(?m)^(?:https?|dns|filedesc):\S* [\d.]+ \d{14} \S+ \d+\r?$", gzip.decompress(path.read_bytes()))
    assert recount("warc", path) == records(found) == len(headers) > 200
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one.date) for one in found if isinstance(one, Record))


def test_what_a_record_says_of_itself(tmp_path):
    (found,) = read("warc", archive(tmp_path, record("response", http(PAGE.format("Some words.").encode()))))
    assert found == Record(
        "x.warc#0", "Some words.", "<urn:x:response>", "https://example.org/", "A title", "2024-01-02T03:04:05Z"
    )


@pytest.mark.parametrize(
    ("content_type", "charset", "meta"),
    [
        ("text/html; charset=iso-8859-1", "cp1252", ""),  # what browsers take latin-1 for
        ("text/html; charset=windows-1251", "cp1251", '<meta charset="utf-8">'),  # the header wins over the page
        ("text/html", "cp1251", '<meta charset="windows-1251">'),
        ("text/html", "utf-8", ""),
        ('text/html; charset="UTF-8"', "utf-8", '<meta charset="windows-1251">'),
        ("text/html; charset=nonsense", "cp1251", '<meta charset="windows-1251">'),
        ("text/html; charset=windows-1251", "utf-8-sig", ""),  # a byte order mark wins over all
    ],
)
def test_the_character_set_is_found_by_the_webs_rules(tmp_path, content_type, charset, meta):
    word = "naïve" if charset == "cp1252" else "Привет, мир, это обычные русские слова" if "1251" in charset else "naïve привет"
    body = f"<html><head>{meta}<title>x</title></head><body><p>{word}</p></body></html>".encode(charset)
    for one in (record("response", http(body, content_type)), record("resource", body, content_type)):
        assert texts(read("warc", archive(tmp_path, one))) == [word]


def test_types_that_are_no_page_are_counted_together(tmp_path):
    found = read(
        "warc",
        archive(
            tmp_path,
            record("warcinfo", b"software: x", "application/warc-fields"),
            record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
            record("revisit", http(b"")),
            record("response", http(b"gone", status="404 Not Found")),
            record("response", http(b"\x89PNG", "image/png")),
            record("response", http(PAGE.format("kept").encode())),
            record("metadata", b"x: y", "application/warc-fields"),
        ),
    )
    assert texts(found) == ["kept"]
    assert [(one.locator, str(one.reason), one.count) for one in found if not isinstance(one, Record)] == [
        ("x.warc#0", "not_a_response", 3),
        ("x.warc#3", "http_status", 1),
        ("x.warc#4", "not_text", 1),
        ("x.warc#6", "not_a_response", 1),
    ]


def test_wet_is_its_text_as_it_stands(tmp_path):
    text = "Ünïcode\n\n  kept as it is <b>\n"
    assert texts(read("warc", archive(tmp_path, record("conversion", text.encode(), "text/plain")))) == [text]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize("decoded", [False, True], ids=["encoded", "already decoded"])
def test_encoded_payloads(tmp_path, encoding, decoded):
    """As transferred, and as many crawlers store them: decoded, under the header of the encoded one."""
    brotli = pytest.importorskip("brotli")
    body = PAGE.format("many words " * 30).encode()
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[encoding](body)
    payload = body if decoded else packed
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {encoding}\r\n\r\n".encode()
    assert texts(read("warc", archive(tmp_path, record("response", head + payload)))) == ["many words " * 29 + "many words"]


def encoded(encoding: str, payload: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {encoding}\r\n\r\n".encode() + payload


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("left", [0.5, 0.01, -1], ids=["half", "begin", "one byte less"])
def test_an_encoded_body_that_is_cut_off_is_truncated(tmp_path, encoding, left):
    """FastWARC hands out what there is of it and says nothing; the record's own length is right."""
    body = PAGE.format(" ".join(str(number) for number in range(9000))).encode()
    whole = (zlib.compress if encoding == "deflate" else gzip.compress)(body)
    cut = whole[: int(len(whole) * left)] if left > 0 else whole[:left]
    one = record("response", encoded(encoding, cut))
    found = read("warc", archive(tmp_path, one, record("response", http(PAGE.format("next").encode()))))
    assert texts(found) == ["next"]
    assert rejects(found) == {"truncated_record": 1}
    assert found[0].detail == f"the {encoding} body is cut off"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_empty_body_is_not_cut_off(tmp_path, encoding):
    pack = zlib.compress if encoding == "deflate" else gzip.compress
    found = read("warc", archive(tmp_path, *(record("response", encoded(encoding, body)) for body in (b"", pack(b"")))))
    assert texts(found) == ["", ""]


def test_deflate_without_the_frame_of_zlib(tmp_path):
    """What many servers send, and browsers read, under that name."""
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(PAGE.format("many words " * 30).encode()) + packer.flush()
    found = read("warc", archive(tmp_path, record("response", encoded("deflate", payload))))
    assert texts(found) == ["many words " * 29 + "many words"]


def test_chunked_payloads(tmp_path):
    body = PAGE.format("chunked words").encode()
    chunks = b"".join(f"{len(body[i : i + 20]):x}\r\n".encode() + body[i : i + 20] + b"\r\n" for i in range(0, len(body), 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert texts(read("warc", archive(tmp_path, record("response", head + chunks + b"0\r\n\r\n")))) == ["chunked words"]


PACKINGS = {"plain": bytes, "gzip": lambda data: gzip.compress(data, mtime=0), "lz4": lz4.frame.compress}


@pytest.mark.parametrize("packing", PACKINGS)
@given(st.data())
def test_any_cut_and_any_flipped_byte_end_no_run(tmp_path_factory, packing, data):
    """No exception; of a cut archive the documents are a prefix; every record up to the damage is accounted for."""
    folder = tmp_path_factory.mktemp("warc")
    found = [record("response", http(PAGE.format(f"page {n} " * 8).encode())) for n in range(5)]
    whole = archive(folder, *found, pack=PACKINGS[packing]).read_bytes()
    expected = [f"page {n} " * 7 + f"page {n}" for n in range(5)]
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(1, len(whole) - 1))]
        (folder / "x.warc").write_bytes(bytes(damaged))
        kept = texts(read("warc", folder / "x.warc"))
        assert kept == expected[: len(kept)]
    else:
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (folder / "x.warc").write_bytes(bytes(damaged))
        kept = texts(read("warc", folder / "x.warc"))
        assert len(kept) <= 5
        if packing == "gzip":  # its checksum stands behind every record
            assert set(kept) <= set(expected)
