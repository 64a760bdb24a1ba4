"""A full build of both variants over real text: what the classifier tells apart, keep rate asked and got, the accounts.

    python bench/real_build.py DATA [--run DIR] [--keep-rate 0.3] [--workers 2]

DATA holds web/ (saved pages and recipes as WARC, news groups, film reviews, mails), books/ (English books, novels in seven other
languages) and bench/ (technical documents). docs/results.md records what this printed. The web side is no Common Crawl: it is what
stands in for a crawl here.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import tempfile
import time
from collections.abc import Sequence

from pipelines import overview
from pipelines.build import build
from pipelines.engine import load_engine
from pipelines.recipe_file import parse
from pipelines.schema import KEEP
from pipelines.store import Store, read_columns

WEB = ("pages", "recipes", "newsgroups", "reviews", "mail")  # the sources that the draw judges
RECIPE = """
name: real
sources:
  pages:       {{format: warc, paths: ["{data}/web/web-trafilatura.warc.gz"], paragraphs: true}}
  recipes:     {{format: warc, paths: ["{data}/web/web-recipes.warc.gz"], paragraphs: true}}
  newsgroups:  {{format: jsonl, paths: ["{data}/web/newsgroups20.jsonl.gz"]}}
  reviews:     {{format: jsonl, paths: ["{data}/web/imdb-unsup.jsonl.gz"]}}
  mail:        {{format: jsonl, paths: ["{data}/web/spamassassin.jsonl.gz"]}}
  openwebtext: {{format: jsonl, paths: ["{data}/web/openwebtext-1000.jsonl.gz"], priority: 1}}
  books:       {{format: jsonl, paths: ["{data}/books/classic-books.jsonl.gz"], priority: 1}}
  novels:      {{format: jsonl, paths: ["{data}/books/eltec-*.jsonl.gz"], priority: 1}}
  manuals:     {{format: jsonl, paths: ["{data}/bench/docs.jsonl.gz"]}}
fit:
  quality:
    curated: [openwebtext, books]
    web: [pages, newsgroups, reviews, mail]
    judge_curated: [novels, manuals]
    judge_web: [recipes]
variants:
  unfiltered: {{dedup: [exact]}}
  filtered:
    dedup: [exact, near]
    default: {{languages: {{keep: [en]}}, rules: [gopher], quality: {{draw: pareto, alpha: 9, keep_rate: {keep_rate}}}}}
    sources:
      books: {{languages: any, rules: none}}
      novels: {{languages: any, rules: none, quality: none}}
      manuals: {{quality: none}}
      openwebtext: {{languages: any, rules: none}}
tokens: {{shards: 2, validation: 0.01}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--run", help="keep the run here; otherwise it is removed")
    parser.add_argument("--keep-rate", type=float, default=0.3)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = chosen.run or f"{scratch}/run"
        recipe = parse(RECIPE.format(data=chosen.data.resolve(), keep_rate=chosen.keep_rate), "real_build")
        started, cpu = time.monotonic(), time.process_time()
        engine = load_engine("local.yaml", [f"--direct_num_workers={chosen.workers}"])
        accounts = build(recipe, ".", run, engine)
        print(f"{time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} CPU s\n")
        print(overview.accounts_text(accounts), "\n")
        store = Store(run)
        classifier = store.read_json("models/quality.json")["metrics"]
        print("AUC on the held-out slice:", _auc(classifier["held_out_slice"]))
        for name in ("leave_one_source_out", "judged_only"):
            for one in classifier[name]:
                print(f"AUC {name.replace('_', ' ')}: {one['source']} {_auc(one)}")
        print("l2:", classifier["l2"], json.dumps(classifier["l2_search"]))
        asked, expected, got, spread = keep_rates(store, WEB)
        print(f"keep rate asked {asked:.1%}, expected {expected:.2%}, got {got:.2%} of the tokens (sd at most {spread:.2%})")


def _auc(one: dict[str, float]) -> str:
    return f"{one['auc']:.3f} [{one['low']:.3f}, {one['high']:.3f}], {one['curated_documents']}+{one['web_documents']} documents"


def keep_rates(store: Store, sources: Sequence[str]) -> tuple[float, float, float, float]:
    """(asked, expected, got, largest standard deviation) of the filtered variant's default draw over `sources`.

    Shares of the tokens that reached the draw. The deviation is that of documents kept with probability one half.
    """
    solved = store.read_json("decisions/filtered/resolved.json")["default"]
    reached: list[int] = []
    kept = 0
    for source in sources:
        for path in store.files(f"decisions/filtered/{source}"):
            if path.endswith(".parquet"):
                verdicts = read_columns(store, path, ["verdict"]).column(0).to_pylist()
                tokens = read_columns(store, path.replace("decisions/filtered", "signals"), ["n_tokens"]).column(0).to_pylist()
                for verdict, count in zip(verdicts, tokens, strict=True):
                    if verdict in (KEEP, "quality_draw"):
                        reached.append(count)
                        kept += count * (verdict == KEEP)
    total = sum(reached)
    spread = 0.5 * math.sqrt(sum(count * count for count in reached)) / total
    return solved["keep_rate"], solved["expected_keep_rate"], kept / total, spread


if __name__ == "__main__":
    main()
