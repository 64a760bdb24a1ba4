"""Text out of Wikipedia's markup beside gensim's, on the same dump: `python bench/wikipedia_text.py DUMP.xml.bz2`.

gensim (`gensim.corpora.wikicorpus.filter_wiki`) is in an environment beside winnow. Printed per side: articles, characters, markup
left over a thousand characters (brackets, braces, quotes of bold and italics, tags, table marks, entities, URLs), the share of the
other's word 5-grams that it does not have, and MB of XML a CPU second of the whole reading (gensim's parser is ElementTree).
"""

from __future__ import annotations

import bz2
import re
import sys
import time

from gensim.corpora.wikicorpus import extract_pages, filter_wiki

from pipelines.records import Input, Limits, Record
from pipelines.sources import SourceOptions
from pipelines.sources.mediawiki import read

MARKUP = re.compile(
    r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|'''?|</?[a-zA-Z][^>\n]{0,80}>|&[a-z]{2,8};|https?://|^[*#:;]+|={2,}", re.MULTILINE
)


def main() -> None:
    path = sys.argv[1]
    with bz2.open(path) as dump:
        size = len(dump.read()) / 1e6
    started = time.process_time()
    ours = {r.title: r.text for r in read(Input(path, path, 0, ""), SourceOptions(), Limits(), None) if isinstance(r, Record)}
    seconds = time.process_time() - started
    started = time.process_time()
    with bz2.open(path) as dump:
        theirs = {title: filter_wiki(text) for title, text, _ in extract_pages(dump, ("0",)) if title in ours}
    their_seconds = time.process_time() - started
    common = sorted(ours.keys() & theirs.keys())
    for name, texts, other, spent in (("winnow", ours, theirs, seconds), ("gensim", theirs, ours, their_seconds)):
        whole = "\n".join(texts[title] for title in common)
        left = len(MARKUP.findall(whole)) / len(whole) * 1000
        lost = [len(grams(other[t]) - grams(texts[t])) for t in common]
        share = sum(lost) / max(1, sum(len(grams(other[t])) for t in common))
        print(f"{name:<8}{len(common)} articles, {len(whole):,} characters, {left:.2f} markup a thousand characters, ", end="")
        print(f"{share:.1%} of the other's word 5-grams are not there, {size / spent:.1f} MB of XML a CPU second")


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[first : first + 5]) for first in range(len(words) - 4)}


if __name__ == "__main__":
    main()
