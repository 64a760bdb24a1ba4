"""Main content of pages beside trafilatura, in the same run: `python bench/extraction.py WARC [--trafilatura PYTHON] [--pages N]`.

WARC is an archive of HTML pages; PYTHON an interpreter with trafilatura. Both read the same decoded pages, one process each, one
thread; CPU seconds are of the extraction alone, without imports and without reading the archive. Printed per side: MB of HTML a CPU
second, pages with text, characters of text, and boilerplate: words in lines of three words and more that stand on three pages or
more (nearly every page has its own host, so these are phrases of site software: comment forms, notices, menus), a lower bound.
And what each leaves out of the other's: the share of its word 5-grams that the other does not have.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time

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
    grams = {name: [five_grams(text) for text in found] for name, found in texts.items()}
    for name, found in texts.items():
        repeated, words = boilerplate(found)
        print(f"{name:<12}{sum(map(bool, found)):6} pages with text, {sum(map(len, found)):10,} characters, ", end="")
        print(f"{repeated / max(words, 1):6.2%} of {words:,} words in lines of three pages or more")
        for other in texts:
            if other != name:
                own = sum(map(len, grams[name]))
                alone = sum(len(mine - theirs) for mine, theirs in zip(grams[name], grams[other], strict=True))
                print(f"{'':<12}{alone / max(own, 1):6.1%} of its word 5-grams are not in {other}'s text")


def read_pages(path: str) -> list[str]:
    """The decoded HTML of every page of an archive that winnow takes for HTML."""
    from pipelines.reading import decompressed, open_input
    from pipelines.sources.framing import frames
    from pipelines.sources.html import decode
    from pipelines.sources.warc import _http

    found = []
    with open_input(path) as raw:
        for frame in frames(decompressed(raw), 64 << 20):
            if frame.fields.get("warc-type") == "response":
                status, media, charset, payload = _http(frame, 64 << 20)
                if status == 200 and media in ("text/html", "application/xhtml+xml") and payload:
                    found.append(decode(payload, charset))
    return found


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
