"""Head, middle and tail on real text: `python bench/perplexity_buckets.py DATA [--shown 20] [--free]`.

DATA holds web/ and books/. The 5-gram models learn from the Wikipedia dumps and lead paragraphs of the embedded sample (run
`winnow demo` once); judged are saved pages, news groups, mail, film reviews and OpenWebText, which are not to be quoted. With
`--free` it is what may be: threads of StackExchange's dumps (stackexchange/; CC BY-SA), manuals and changelogs of free software
(bench/docs.jsonl.gz, the first 3,000) and books out of copyright.

Printed: share of each source's documents by bucket, the share of each bucket that Gopher's rules drop, the rank correlation of
perplexity with the classifier's quality, and the beginning of documents drawn from head and tail by a hash of their ids.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import itertools
import pathlib
import tempfile

import numpy as np
import pyarrow.parquet as pq

from pipelines import models, sample
from pipelines.build import build
from pipelines.engine import load_engine
from pipelines.recipe_file import parse
from pipelines.store import Store
from quality import rules
from quality.perplexity import bucket

RECIPE = """
name: buckets
sources:
  wikipedia: {{format: mediawiki, paths: ["{sample}/wikipedia/*.bz2"]}}
  leads: {{format: jsonl, paths: ["{sample}/leads/*.jsonl"]}}
  books: {{format: jsonl, paths: ["{data}/books/classic-books.jsonl.gz"]}}
  pages: {{format: warc, paths: ["{data}/web/*.warc.gz"]}}
  newsgroups: {{format: jsonl, paths: ["{data}/web/newsgroups20.jsonl.gz"]}}
  mail: {{format: jsonl, paths: ["{data}/web/spamassassin.jsonl.gz"]}}
  reviews: {{format: jsonl, paths: ["{data}/web/imdb-unsup.jsonl.gz"]}}
  openwebtext: {{format: jsonl, paths: ["{data}/web/openwebtext-1000.jsonl.gz"]}}
fit:
  perplexity: {{sources: [wikipedia, leads]}}
  quality: {{curated: [books, openwebtext], web: [pages, newsgroups, mail, reviews], sample_mb: 30}}
  tokenizer: {{vocab_size: 16000, sample_mb: 20}}
variants: {{all: {{dedup: [exact]}}}}
"""
FREE = """
name: buckets
sources:
  wikipedia: {{format: mediawiki, paths: ["{sample}/wikipedia/*.bz2"]}}
  leads: {{format: jsonl, paths: ["{sample}/leads/*.jsonl"]}}
  books: {{format: jsonl, paths: ["{data}/books/classic-books.jsonl.gz"]}}
  threads: {{format: stackexchange, paths: ["{data}/stackexchange/*.xml.gz"]}}
  manuals: {{format: jsonl, paths: ["{folder}/manuals.jsonl"]}}
fit:
  perplexity: {{sources: [wikipedia, leads]}}
  quality: {{curated: [leads, books], web: [threads, manuals], sample_mb: 10}}
  tokenizer: {{vocab_size: 16000, sample_mb: 20}}
variants: {{all: {{dedup: [exact]}}}}
"""
MANUALS = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--shown", type=int, default=20)
    parser.add_argument("--free", action="store_true", help="only texts that may be quoted")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = pathlib.Path(name) / "run"
        if chosen.free:
            with gzip.open(chosen.data / "bench" / "docs.jsonl.gz", "rb") as lines:
                (pathlib.Path(name) / "manuals.jsonl").write_bytes(b"".join(itertools.islice(lines, MANUALS)))
        text = (FREE if chosen.free else RECIPE).format(sample=sample.sample_folder(), data=chosen.data, folder=name)
        recipe = parse(text, "buckets")
        build(recipe, ".", str(run), load_engine("local.yaml"), lambda line: None)
        show(run, list(recipe.sources), chosen.shown)


def show(run: pathlib.Path, sources: list[str], shown: int) -> None:
    fitted = models.load_perplexity(Store(str(run)))
    print({language: (round(model.head), round(model.middle)) for language, model in fitted.items()})
    drawn: dict[str, list[tuple[bytes, str, float, str]]] = {"head": [], "tail": []}
    dropped: dict[str, list[bool]] = {"head": [], "middle": [], "tail": []}
    gopher = rules.resolve({"gopher": {}})
    scores, qualities = [], []
    for source in sources:
        counts: collections.Counter[str] = collections.Counter()
        for path in sorted((run / "documents" / source).rglob("*.parquet")):
            documents = pq.read_table(path, columns=["doc_id", "text", "locator", "source_id"]).to_pylist()
            table = pq.read_table(run / "signals" / source / path.name)
            signals, failed = table.select(["language", "perplexity", "quality"]).to_pylist(), rules.judge(table, gopher)[0] >= 0
            for document, signal, fails in zip(documents, signals, failed.tolist(), strict=True):
                found, language = signal["perplexity"], signal["language"]
                which = "no model" if found is None else bucket(found, fitted[language])
                counts[which] += 1
                if found is not None and source not in ("wikipedia", "leads"):
                    scores.append(found)
                    qualities.append(signal["quality"])
                    dropped[which].append(fails)
                    if which in drawn:
                        name = f"{source} {document['locator'].partition('-')[0].partition('#')[0]} {document['source_id']}"
                        start = " ".join(document["text"][:400].split())[:110]
                        drawn[which].append((document["doc_id"], name, found, start))
        total = counts.total()
        shares = [f"{kind} {counts[kind] / total:6.1%}" for kind in ("head", "middle", "tail", "no model")]
        print(f"{source:<12}{total:>8,}  " + "  ".join(shares))
    for which, fails in dropped.items():
        print(f"Gopher's rules drop {sum(fails) / max(len(fails), 1):.1%} of the {len(fails):,} documents of the {which}")
    ranks = [np.argsort(np.argsort(values)) for values in (scores, qualities)]
    print(f"rank correlation of perplexity and quality: {np.corrcoef(*ranks)[0, 1]:.3f} over {len(scores):,} documents")
    for which, found in drawn.items():
        print(f"\n{which}")
        for _, name, score, start in sorted(found)[:shown]:
            print(f"  {score:9.0f}  {name:<32}{start}")


if __name__ == "__main__":
    main()
