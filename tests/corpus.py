"""A small corpus with known copies, made from a hash: prose-like text in two styles, exact and near copies, repeated lines.

Two styles share a grammar and differ in words, so that a classifier has something to learn; counts are exact by construction.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

_COMMON = "the of and to in that is was for it with as his on be at by had not are but from or have an they which one you".split()
_CURATED = (
    "century history described theory population river government species language literature philosophy structure region"
    " evidence development kingdom author mathematics climate culture observation treaty architecture analysis"
).split()
_WEB = (
    "click free sale login buy cheap shipping offer comment reply forum update download coupon deal page link account review"
    " subscribe phone price order guest"
).split()


class Draw:
    """An endless stream of numbers from a name."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def below(self, limit: int) -> int:
        self._count += 1
        digest = hashlib.blake2b(f"{self._name}/{self._count}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % limit


def prose(name: str, curated: bool, sentences: int = 12) -> str:
    """A document of a few paragraphs."""
    draw, special = Draw(name), _CURATED if curated else _WEB
    out = []
    for number in range(sentences):
        words = [
            special[draw.below(len(special))] if draw.below(3) == 0 else _COMMON[draw.below(len(_COMMON))]
            for _ in range(9 + draw.below(14))
        ]
        out.append(" ".join(words).capitalize() + "." + ("\n\n" if number % 4 == 3 else " "))
    return "".join(out).strip()


def near_copy(text: str, name: str) -> str:
    """The text with one word in about sixty changed: a word-5-gram Jaccard of about .85."""
    draw, words = Draw(name), text.split(" ")
    for _ in range(max(1, len(words) // 90)):
        words[draw.below(len(words))] = f"changed{draw.below(1000)}"
    return " ".join(words)


def write(folder: Path, documents: int = 150) -> None:
    """web/ (three inputs, one compressed) and wiki/ (one input) below `folder`.

    web holds `documents` originals, then an exact copy of every tenth and a near copy of every fifteenth (longer) one; every
    web document ends with the same footer line, and every seventh line of input is blank.
    """
    footer = "All rights reserved by the owners of this page since the beginning."
    web = []
    for number in range(documents):
        text = prose(f"web {number}", curated=number % 4 == 0, sentences=30) + "\n" + footer
        web.append({"id": str(number), "url": f"https://host{number % 7}.example/{number}", "text": text})
    copies = [{**web[n], "id": f"exact {n}", "url": None} for n in range(0, documents, 10)]
    copies += [
        {"id": f"near {n}", "text": near_copy(web[n]["text"], f"near {n}")} for n in range(1, documents, 15)
    ]
    everything = web + copies
    third = len(everything) // 3
    for name, rows in (("a.jsonl", everything[:third]), ("b.jsonl.gz", everything[third : 2 * third])):
        _lines(folder / "web" / name, rows)
    _lines(folder / "web" / "deep" / "c.jsonl", everything[2 * third :])
    wiki = [{"id": str(n), "text": prose(f"wiki {n}", True), "title": f"Title {n}"} for n in range(documents // 2)]
    _lines(folder / "wiki" / "w.jsonl", wiki)


def _lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(
        json.dumps(row).encode() + b"\n" + (b"\n" if number % 7 == 6 else b"") for number, row in enumerate(rows)
    )
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


RECIPE = """
name: tiny
sources:
  web: {format: jsonl, root: INPUT/web, paths: ["INPUT/web/*.jsonl", "INPUT/web/*.jsonl.gz", "INPUT/web/deep/*"], paragraphs: true}
  wiki: {format: jsonl, paths: ["INPUT/wiki/*.jsonl"], priority: 1}
limits: {part_bytes: 60000}
near: {bands: 14, rows: 8}
fit:
  quality: {curated: [wiki], web: [web], sample_mb: 1}
  tokenizer: {vocab_size: 600, sample_mb: 1}
variants:
  unfiltered: {dedup: [exact]}
  filtered:
    dedup: [exact, near]
    default: {languages: {keep: [en], min_score: 0.3}, rules: [gopher], quality: {draw: pareto, keep_rate: 0.5}}
    sources: {wiki: {rules: none}}
tokens: {shards: 2, validation: 0.1}
"""


def recipe(folder: Path) -> str:
    """The recipe over `write(folder)`, as YAML."""
    return RECIPE.replace("INPUT", str(folder))


def endless(folder: Path) -> str:
    """A recipe whose build waits for its input, and so goes on until it is stopped. Makes that input in the folder."""
    os.mkfifo(folder / "never.jsonl")
    return f"name: endless\nsources: {{web: {{format: jsonl, paths: ['{folder}/never.jsonl']}}}}\nvariants: {{all: {{}}}}\n"
