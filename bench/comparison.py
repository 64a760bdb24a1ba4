"""The corpora, evaluation sets and recipe of the comparison that docs/comparison.md reports: `python bench/comparison.py OUT`, then
`winnow compare OUT/run --recipe OUT/recipe.yaml`.

Real texts are read by a first winnow run (OUT/survey: documents as they are kept, near-duplicate clusters, language, rules). Whole
clusters are held out by a hash of their key; OUT/train/ is what shares no key with them, OUT/evals/ what is judged, OUT/recipe.yaml
names both, and OUT/run is built from it. The folder of real data is WINNOW_TEST_DATA; packages of the embedded sample lie in the
cache (run `winnow demo` once). Printed: evaluation sets by group, sources by variant.

Held out of what is trained on: about a twentieth of a domain, 60 to 400 kB of text, from at most an eighth of it where 60 kB
allow. No key stands on both sides: no thread, author or message of a news group, no mail's subject, film, site, article, book,
and no near-duplicate cluster of any source. What is bound to a held-out document by another key is on neither side.

The classifier's positives are as in GLaM an encyclopedia and selected web pages. With the encyclopedia alone the two classes are
told apart so well that 97 % of the web scores 0.0000, and a draw among equal scores is a random one.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence

import yaml
from comparison_corpora import WEB, Document, Judged, Row, article, excerpt, lay_out, rank, site

from pipelines.build import build
from pipelines.engine import load_engine
from pipelines.overview import table
from pipelines.recipe_file import load, parse
from pipelines.schema import KEEP
from pipelines.store import Store, read_columns

CURATED = ("wikipedia", "leads", "openwebtext")  # the classifier's positives
SECOND = ("books",)  # the second classifier's
UNSEEN = ("questions", "mathematics", "news", "speeches")  # no classifier sees them, nothing trains on them
SETS = {  # domain -> group
    **dict.fromkeys((*CURATED, *SECOND), "positives"),
    **dict.fromkeys(UNSEEN, "unseen"),
    **dict.fromkeys(WEB, "web"),
    **dict.fromkeys(("spam", "rejected"), "junk"),
}
SHARE, LEAST, MOST = 0.05, 60_000, 400_000  # of a domain's bytes; bytes of evaluation text
MOST_HELD = 0.125  # of a domain's bytes
SHORTEST = 200  # bytes

SURVEY = """
name: survey
sources:
  pages: {format: warc, paths: ["pages/*"]}
  newsgroups: {format: jsonl, paths: ["newsgroups/*"]}
  reviews: {format: jsonl, paths: ["reviews/*"]}
  mail: {format: jsonl, paths: ["mail/*"]}
  wikipedia: {format: mediawiki, paths: ["wikipedia/*"]}
  leads: {format: jsonl, paths: ["leads/*"]}
  books: {format: jsonl, paths: ["books/*"]}
  questions: {format: stackexchange, paths: ["questions/*"]}
  mathematics: {format: arxiv, paths: ["mathematics/*"]}
  news: {format: jsonl, paths: ["news/*"]}
  openwebtext: {format: jsonl, paths: ["openwebtext/*"]}
  speeches: {format: jsonl, paths: ["speeches/*"]}
near: {bands: 14, rows: 8}
fit: {tokenizer: {vocab_size: 257, sample_mb: 0.1}}
variants:
  survey: {default: {languages: {keep: [en]}, rules: [gopher]}}
tokens: {validation: 0}
"""

RECIPE = """
name: comparison
sources:
  pages:      {format: jsonl, paths: ["train/pages.jsonl"]}
  newsgroups: {format: jsonl, paths: ["train/newsgroups.jsonl"]}
  reviews:    {format: jsonl, paths: ["train/reviews.jsonl"]}
  mail:       {format: jsonl, paths: ["train/mail.jsonl"]}
  wikipedia:  {format: jsonl, paths: ["train/wikipedia.jsonl"], priority: 1}
  leads:      {format: jsonl, paths: ["train/leads.jsonl"], priority: 1}
  openwebtext: {format: jsonl, paths: ["train/openwebtext.jsonl"], priority: 1}
  books:      {format: jsonl, paths: ["train/books.jsonl"], priority: 1}   # a second classifier's positives
limits: {part_bytes: 8_000_000}
near: {bands: 14, rows: 8}
fit:
  quality:
    curated: [wikipedia, leads, openwebtext]
    web: [pages, newsgroups, reviews, mail]
    judge_curated: [books]
    sample_mb: 8   # a class: what the classifier has learned from it knows by heart, and it is to judge the rest
  tokenizer: {vocab_size: 4096, sample_mb: 20}
variants:   # each has one step more than the one before
  raw: {}
  dedup: {dedup: [exact, near]}
  language:
    dedup: [exact, near]
    default: {languages: {keep: [en]}}
    sources: &english
  unfiltered:
    dedup: [exact, near]
    default: {languages: {keep: [en]}, rules: [gopher]}
    sources: &curated
  filtered:
    dedup: [exact, near]
    default: {languages: {keep: [en]}, rules: [gopher], quality: {draw: pareto, alpha: 9, keep_rate: 0.3}}
    sources: &curated
tokens: {shards: 1, validation: 0.01}
"""


def _policies(policy: str) -> str:
    return "{" + ", ".join(f"{name}: {{{policy}}}" for name in (*CURATED, *SECOND)) + "}"


RECIPE = RECIPE.replace("&english", _policies("languages: any"))
RECIPE = RECIPE.replace("&curated", _policies("languages: any, rules: none, quality: none"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=1_500_000, help="of a training run")
    parser.add_argument("--set-bytes", type=int, default=200_000, help="of an evaluation set")
    chosen = parser.parse_args()
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    data = pathlib.Path(os.environ.get("WINNOW_TEST_DATA", beside)).resolve()
    make(data, chosen.out.resolve(), comparison(chosen.out.resolve(), data, chosen.tokens, chosen.set_bytes))


def comparison(out: pathlib.Path, data: pathlib.Path, tokens: int, set_bytes: int) -> dict[str, object]:
    """The recipe's `compare`. Books teach the second classifier; as five clusters they are too few to be judged on."""
    evals = str(data / "evals")
    sets = {domain: {"group": group, "files": [str(out / "evals" / f"{domain}.jsonl")]} for domain, group in SETS.items()}
    return {
        "arms": ["filtered", "unfiltered"],
        "model": {"preset": "glam-tiny", "batch": 4},
        "tokens": tokens,
        "seeds": 8,
        "sets": {domain: one for domain, one in sets.items() if domain not in SECOND},
        "set_bytes": set_bytes,
        "endpoint": "unseen",
        "second": list(SECOND),
        "ladder": ["raw", "dedup", "language"],
        "tasks": {"folder": evals, "names": ["copa", "piqa", "arc_easy", "lambada_openai"], "items": 200},
        "bias": {"crows_pairs": evals, "winogender": evals, "words": f"{evals}/ldnoobw-en.txt", "continuations": 1000},
    }


def make(data: pathlib.Path, out: pathlib.Path, compare: Mapping[str, object]) -> None:
    """Everything below `out`, which is emptied first of what an earlier call left."""
    for name in ("raw", "survey", "train", "evals", "run"):
        shutil.rmtree(out / name, ignore_errors=True)
    listed = lay_out(data, out / "raw")
    engine = load_engine("local.yaml")
    build(parse(SURVEY, "survey"), str(out / "raw"), str(out / "survey"), engine)
    documents = list(survey(Store(str(out / "survey")), listed))
    judged, held = hold_out(documents)
    trained = [one for one in documents if one.source not in UNSEEN and held.isdisjoint(one.keys)]
    write(out, judged, trained, compare)
    recipe, base = load(str(out / "recipe.yaml"))
    build(recipe, base, str(out / "run"), engine)
    check(judged, trained, Store(str(out / "run")))
    print(sets_table(documents, judged, trained), "\n")
    print(sources_table(Store(str(out / "run")), list(recipe.variants)))


# -- the split ----------------------------------------------------------------------------------------------------------------


def survey(store: Store, listed: Mapping[str, Mapping[str, Row]]) -> Iterator[Document]:
    """The survey's documents with all their keys, in the order of its parts."""
    for path in sorted(store.files("documents")):
        if not path.endswith(".parquet"):
            continue
        columns = ["source", "locator", "source_id", "url", "title", "text"]
        found = read_columns(store, path, columns).to_pylist()
        clusters = read_columns(store, path.replace("documents", "clusters", 1), ["exact_cluster", "near_cluster"]).to_pylist()
        verdicts = read_columns(store, path.replace("documents", "decisions/survey", 1), ["verdict"]).column(0).to_pylist()
        for one, cluster, verdict in zip(found, clusters, verdicts, strict=True):
            row = listed.get(one["source"], {}).get(one["source_id"])
            if row is not None:
                keys = row.keys
            elif one["source"] == "pages":
                if site(one["url"]) is None:
                    continue  # could be of a site on either side
                keys = (f"site {site(one['url'])}",)
            elif one["source"] == "wikipedia":
                keys = (article(one["title"]),)
            else:
                keys = (f"{one['source']} {one['locator']}",)
            keys += tuple(f"{kind} {key.hex()}" for kind, key in cluster.items() if key is not None)
            label = row.label if row else ""
            yield Document(
                f"{one['source']} {one['locator']}", one["source"], one["title"], one["url"], one["text"], keys, verdict, label
            )


def hold_out(documents: Sequence[Document]) -> tuple[dict[str, list[Judged]], frozenset[str]]:
    """({domain: evaluation documents}, the keys that no training document may have)."""
    by_domain: dict[str, dict[str, list[Document]]] = {domain: collections.defaultdict(list) for domain in SETS}
    for one in documents:
        if one.domain is not None:
            by_domain[one.domain][one.keys[0]].append(one)
    judged: dict[str, list[Judged]] = {}
    clusters: set[str] = set()
    for domain, groups in by_domain.items():
        judged[domain], chosen = choose(groups, domain not in UNSEEN)
        clusters |= chosen
    held = {key for one in documents if one.keys[0] in clusters for key in one.keys}
    return judged, frozenset(held)


def choose(groups: Mapping[str, Sequence[Document]], trains: bool) -> tuple[list[Judged], set[str]]:
    """(evaluation documents, their clusters) of one domain. `trains`: the rest is trained on, so it is not all held out."""
    total = sum(one.bytes for group in groups.values() for one in group)
    target = min(max(SHARE * total, LEAST), MOST) if trains else MOST
    judged: list[Judged] = []
    chosen: set[str] = set()
    held = taken = 0
    near: set[str] = set()
    for cluster in sorted(groups, key=rank):
        size = sum(one.bytes for one in groups[cluster])
        if taken >= target or (trains and held >= MOST_HELD * total and taken >= LEAST):
            break
        if trains and size > SHARE * total:
            continue  # a cluster that is a large share of its domain stays in training
        held += size
        chosen.add(cluster)
        of_cluster = 0
        for one in sorted(groups[cluster], key=lambda one: rank(one.id)):
            text = excerpt(one.text, one.id)
            if len(text.encode()) < SHORTEST or not near.isdisjoint(one.keys[1:]) or of_cluster >= target / 10:
                continue  # held out all the same
            near.update(key for key in one.keys[1:] if key.startswith(("near ", "exact ")))
            judged.append(Judged(text, cluster, one.keys))
            of_cluster += len(text.encode())
            taken += len(text.encode())
    return judged, chosen


def check(judged: Mapping[str, Sequence[Judged]], trained: Sequence[Document], run: Store) -> None:
    """No key stands on both sides, and the run holds the very texts of the split."""
    both = {key for one in trained for key in one.keys} & {key for found in judged.values() for one in found for key in one.keys}
    assert not both, f"on both sides: {sorted(both)[:5]}"
    given = collections.Counter((one.source, one.text) for one in trained)
    built: collections.Counter[tuple[str, str]] = collections.Counter()
    for path in run.files("documents"):
        if path.endswith(".parquet"):
            built.update((one["source"], one["text"]) for one in read_columns(run, path, ["source", "text"]).to_pylist())
    assert given == built, f"{sum((given - built).values())} texts changed between the survey and the run"


# -- files and tables ---------------------------------------------------------------------------------------------------------


def write(
    out: pathlib.Path, judged: Mapping[str, Sequence[Judged]], trained: Iterable[Document], compare: Mapping[str, object]
) -> None:
    for name in ("train", "evals"):
        (out / name).mkdir()
    for domain, found in judged.items():
        with (out / "evals" / f"{domain}.jsonl").open("w") as lines:
            lines.writelines(json.dumps({"text": one.text, "cluster": one.cluster}) + "\n" for one in found)
    by_source = collections.defaultdict(list)
    for one in trained:
        by_source[one.source].append(one)
    for source, of_source in by_source.items():
        with (out / "train" / f"{source}.jsonl").open("w") as lines:
            for one in of_source:
                lines.write(json.dumps({"id": one.id, "url": one.url, "title": one.title, "text": one.text}) + "\n")
    (out / "recipe.yaml").write_text(f"{RECIPE}\n{yaml.safe_dump({'compare': dict(compare)}, sort_keys=False, width=130)}")


def sets_table(documents: Sequence[Document], judged: Mapping[str, Sequence[Judged]], trained: Sequence[Document]) -> str:
    sources = collections.Counter(one.source for one in documents)
    kept = collections.Counter(one.source for one in trained)
    of_domain = collections.Counter(one.domain for one in documents)
    rows = []
    for domain, group in SETS.items():
        found = judged[domain]
        size = sum(len(one.text.encode()) for one in found)
        aside = sources[domain] - kept[domain] if kept[domain] else "-"
        rows.append((domain, group, len(found), len({one.cluster for one in found}), size, of_domain[domain], aside))
    return table(("set", "group", "documents", "clusters", "bytes", "of documents", "not trained on"), rows)


def sources_table(run: Store, variants: Sequence[str]) -> str:
    """Documents, megabytes and tokens of every source: of all training inputs, then what each variant keeps."""
    rows: dict[str, dict[str, list[int]]] = {}
    for path in sorted(run.files("documents")):
        if not path.endswith(".parquet"):
            continue
        source = path.split("/")[1]
        found = rows.setdefault(source, {variant: [0, 0, 0] for variant in variants})
        sizes = [len(text.encode()) for text in read_columns(run, path, ["text"]).column(0).to_pylist()]
        tokens = read_columns(run, path.replace("documents", "signals", 1), ["n_tokens"]).column(0).to_pylist()
        for variant in variants:
            verdicts = read_columns(run, path.replace("documents", f"decisions/{variant}", 1), ["verdict"]).column(0).to_pylist()
            for verdict, size, count in zip(verdicts, sizes, tokens, strict=True):
                if verdict == KEEP:
                    found[variant] = [a + b for a, b in zip(found[variant], (1, size, count), strict=True)]
    rows["web"] = {variant: [sum(rows[source][variant][i] for source in WEB) for i in range(3)] for variant in variants}
    cells = [
        (source, variant, count, f"{size / 1e6:.2f}", tokens)
        for source, found in rows.items()
        for variant, (count, size, tokens) in found.items()
    ]
    return table(("source", "variant", "documents", "MB", "tokens"), cells)


if __name__ == "__main__":
    main()
