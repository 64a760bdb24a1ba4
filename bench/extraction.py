"""Main content of pages beside trafilatura, in the same run: `python bench/extraction.py WARC [--trafilatura PYTHON] [--pages N]`.

WARC is an archive of HTML pages; PYTHON an interpreter with trafilatura. Both read the same decoded pages, one process each, one
thread; CPU seconds are of the extraction alone, without imports and without reading the archive. Printed per side: MB of HTML a CPU
second, pages with text, characters of text, and boilerplate: words in lines of three words and more that stand on three pages or
more (nearly every page has its own host, so these are phrases of site software: comment forms, notices, menus), a lower bound.
What each leaves out of the other's: the share of its word 5-grams that the other does not have. And what each keeps of the page,
whose whole visible text is the third side (all but scripts, styles, comments, choices of forms; the standard library's parser): the
share of the characters of its words that stand in the side's text too, each as often as there.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser

THEIRS = """
import json, sys, time
import trafilatura
pages = [json.loads(line) for line in sys.stdin]
trafilatura.extract("<html><body><p>warm</p></body></html>")
started = time.process_time()
found = [trafilatura.extract(page) or "" for page in pages]
print(json.dumps({"seconds": time.process_time() - started, "texts": found}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc")
    parser.add_argument("--trafilatura", metavar="PYTHON")
    parser.add_argument("--pages", type=int)
    chosen = parser.parse_args()
    htmls = read_pages(chosen.warc)[: chosen.pages]
    megabytes = sum(len(html.encode()) for html in htmls) / 1e6
    print(f"{len(htmls)} pages, {megabytes:.1f} MB of HTML")
    texts = {"winnow": ours(htmls, megabytes)}
    if chosen.trafilatura:
        lines = "".join(json.dumps(html) + "\n" for html in htmls)
        done = subprocess.run([chosen.trafilatura, "-c", THEIRS], input=lines, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        texts["trafilatura"] = told["texts"]
        print(f"{'trafilatura':<12}{megabytes / told['seconds']:8.1f} MB of HTML a CPU second")
    visible = [visible_text(html) for html in htmls]
    print(f"{'the page':<12}{sum(map(bool, visible)):6} pages with text, {sum(map(len, visible)):10,} characters")
    grams = {name: [five_grams(text) for text in found] for name, found in texts.items()}
    for name, found in texts.items():
        repeated, words = boilerplate(found)
        print(f"{name:<12}{sum(map(bool, found)):6} pages with text, {sum(map(len, found)):10,} characters, ", end="")
        print(f"{repeated / max(words, 1):6.2%} of {words:,} words in lines of three pages or more")
        print(f"{'':<12}{kept(found, visible):6.1%} of the characters of the whole visible text")
        for other in texts:
            if other != name:
                own = sum(map(len, grams[name]))
                alone = sum(len(mine - theirs) for mine, theirs in zip(grams[name], grams[other], strict=True))
                print(f"{'':<12}{alone / max(own, 1):6.1%} of its word 5-grams are not in {other}'s text")


def read_pages(path: str) -> list[str]:
    """The decoded HTML of every page of an archive that winnow takes for HTML."""
    return [html for _, _, html in pages(path)]


def pages(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, str]]:
    """(URL, date, decoded HTML) of every page of an archive that winnow takes for HTML."""
    from pipelines.reading import decompressed, open_input
    from pipelines.sources.framing import frames
    from pipelines.sources.html import decode
    from pipelines.sources.warc import _http

    with open_input(str(path)) as raw:
        for frame in frames(decompressed(raw), 64 << 20):
            if frame.fields.get("warc-type") == "response":
                status, media, charset, payload = _http(frame, 64 << 20)
                if status == 200 and media in ("text/html", "application/xhtml+xml") and payload:
                    yield frame.fields.get("warc-target-uri", ""), frame.fields.get("warc-date", ""), decode(payload, charset)


class VisibleText(HTMLParser):
    """The text of a page but what no browser shows; what is not inline begins a line."""

    HIDDEN = frozenset("script style noscript template title textarea select svg iframe".split())
    INLINE = frozenset(
        "a abbr acronym b bdi bdo big cite code data dfn em font i ins kbd mark q s samp small span strong sub sup u wbr".split()
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden: str | None = None  # the element within which nothing shows; it may hold itself
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if self._hidden is None and tag in self.HIDDEN:
            self._hidden, self._depth = tag, 0
        if tag == self._hidden:
            self._depth += 1
        if tag not in self.INLINE:
            self.pieces.append("\n")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._depth -= 1
            self._hidden = self._hidden if self._depth else None
        if tag not in self.INLINE:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if self._hidden is None:
            self.pieces.append(data)


def visible_text(html: str) -> str:
    """The whole visible text of a page, a line a block, blanks run together, empty lines left out."""
    parser = VisibleText()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.pieces).split("\n"))
    return "\n".join(line for line in lines if line)


def kept(texts: list[str], visible: list[str]) -> float:
    """The share of the characters of the pages' words that stand in the texts as well, each as often as it stands there."""
    found = total = 0
    for text, whole in zip(texts, visible, strict=True):
        words, own = collections.Counter(whole.split()), collections.Counter(text.split())
        total += sum(len(word) * number for word, number in words.items())
        found += sum(len(word) * number for word, number in (words & own).items())
    return found / max(total, 1)


def ours(htmls: list[str], megabytes: float) -> list[str]:
    from pipelines.sources.html import TooDeep, main_text

    main_text("<p>warm</p>")
    texts = []
    started = time.process_time()
    for html in htmls:
        try:
            texts.append(main_text(html)[0])
        except TooDeep:
            texts.append("")
    print(f"{'winnow':<12}{megabytes / (time.process_time() - started):8.1f} MB of HTML a CPU second")
    return texts


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[first : first + 5]) for first in range(len(words) - 4)}


def boilerplate(texts: list[str]) -> tuple[int, int]:
    """(words in lines of three words and more that stand on three pages or more, all words)."""
    seen: collections.Counter[str] = collections.Counter()
    for text in texts:
        seen.update({" ".join(line.split()) for line in text.splitlines()})
    sizes = [(len(line.split()), seen[" ".join(line.split())]) for text in texts for line in text.splitlines()]
    return sum(size for size, pages in sizes if size >= 3 and pages >= 3), sum(size for size, _ in sizes)


if __name__ == "__main__":
    sys.exit(main())
