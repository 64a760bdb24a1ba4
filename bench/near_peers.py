"""Near duplicates as winnow, datasketch and brute force see them, at the same bands, rows and threshold.

    python bench/near_peers.py DATA [--documents N] [--seeds 1] [--bands 14] [--rows 8] [--threshold 0.7]

DATA holds bench/docs.jsonl.gz and bench/truth.jsonl.gz. Both sides shingle the same normalised words into 5-grams, propose the
pairs that share a band, and keep those whose signatures agree in `threshold` of their minima; winnow with seed 1, datasketch with
its own. The judge is the Jaccard similarity of the sets themselves, computed for every pair that either side proposes.
Then whole builds of the same documents, exact and near, one for each signature seed from 1: what they remove of every copy, and
what they remove besides. With `--documents 0` the part with datasketch is left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pathlib
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH
from near_quality import BINS, read_documents, read_truth, verified_pairs

from pipelines.build import build
from pipelines.dedup.minhash import MinHashSpec
from pipelines.dedup.words import words_reference
from pipelines.engine import load_engine
from pipelines.recipe_file import parse

NGRAM = 5
RECIPE = """
name: near
sources: {{docs: {{format: jsonl, paths: [{docs}]}}}}
near: {{seed: {seed}, bands: {bands}, rows: {rows}, min_jaccard: {threshold}}}
fit: {{tokenizer: {{vocab_size: 600, sample_mb: 1}}}}
variants: {{deduplicated: {{dedup: [exact, near]}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--documents", type=int, help="the first N only, for the part with datasketch")
    parser.add_argument("--seeds", type=int, default=1, help="builds, with signature seeds 1 to this")
    parser.add_argument("--bands", type=int, default=14)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.7)
    chosen = parser.parse_args()
    docs = chosen.data / "bench" / "docs.jsonl.gz"
    identifiers, batches = read_documents(docs)
    bases, copies = read_truth(chosen.data / "bench" / "truth.jsonl.gz", identifiers)
    if chosen.documents != 0:
        beside_datasketch(batches, chosen)
    for seed in range(1, chosen.seeds + 1):
        built(docs, identifiers, bases, copies, seed, chosen)


def beside_datasketch(batches: list[pa.Array], chosen: argparse.Namespace) -> None:
    spec = MinHashSpec(chosen.bands * chosen.rows, NGRAM, 1, 500_000)

    started = time.process_time()
    pairs = verified_pairs(batches, spec, chosen.bands, chosen.rows, chosen.threshold)
    seconds = time.process_time() - started
    count = chosen.documents or sum(map(len, batches))
    ours = {pair for pair in map(tuple, pairs.tolist()) if max(pair) < count}
    texts = [text for batch in batches for text in batch.to_pylist()][:count]
    sets = [shingles(text) for text in texts]
    started = time.process_time()
    theirs = datasketch_pairs(sets, chosen.bands, chosen.rows, chosen.threshold)
    print(f"{count} documents; CPU s: winnow {seconds:.1f} (all documents, words included), ", end="")
    print(f"datasketch {time.process_time() - started:.1f} (of ready shingles)")
    print(f"{'pairs found by':<16}{'number':>8}{'mean Jaccard':>14}{'at or over':>12}{'under by .1':>13}")
    for name, found in (("both", ours & theirs), ("winnow only", ours - theirs), ("datasketch only", theirs - ours)):
        true = np.array([jaccard(sets[a], sets[b]) for a, b in sorted(found)] or [np.nan])
        over, far = int((true >= chosen.threshold).sum()), int((true < chosen.threshold - 0.1).sum())
        print(f"{name:<16}{len(found):>8}{true.mean():>14.3f}{over:>12}{far:>13}")


def shingles(text: str) -> frozenset[bytes]:
    """The set whose similarity is meant: every five consecutive words; a shorter text is one shingle."""
    words = words_reference(text)
    size = min(NGRAM, len(words))
    firsts = range(len(words) - size + 1) if words else ()
    return frozenset(" ".join(words[first : first + size]).encode() for first in firsts)


def jaccard(left: frozenset[bytes], right: frozenset[bytes]) -> float:
    return len(left & right) / max(len(left | right), 1)


def datasketch_pairs(sets: list[frozenset[bytes]], bands: int, rows: int, threshold: float) -> set[tuple[int, int]]:
    """Pairs that share a bucket of MinHashLSH and whose MinHash.jaccard is at least `threshold`; smaller number first."""
    index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    hashes: dict[int, MinHash] = {}
    found = set()
    for number, chosen in enumerate(sets):
        if not chosen:
            continue
        signature = MinHash(num_perm=bands * rows)
        signature.update_batch(sorted(chosen))
        for other in index.query(signature):
            if signature.jaccard(hashes[other]) >= threshold:
                found.add((other, number))
        index.insert(number, signature)
        hashes[number] = signature
    return found


def built(
    docs: pathlib.Path,
    identifiers: list[str],
    bases: np.ndarray,
    copies: dict[str, np.ndarray],
    seed: int,
    chosen: argparse.Namespace,
) -> None:
    """What the jobs themselves remove: candidates as stars, verified over rounds, joined, one keeper a cluster."""
    text = RECIPE.format(docs=docs, bands=chosen.bands, rows=chosen.rows, threshold=chosen.threshold, seed=seed)
    with tempfile.TemporaryDirectory() as run, gzip.open(docs, "rt", encoding="utf-8") as lines:
        build(parse(text, "near"), ".", run, load_engine("local.yaml"), lambda line: None)
        order = {identifier: number for number, identifier in enumerate(identifiers)}
        records = [json.loads(line)["id"] for line in lines]
        removed = np.zeros(len(identifiers), bool)
        for path in sorted(pathlib.Path(run, "documents").rglob("*.parquet")):
            places = pq.read_table(path, columns=["locator"]).column(0).to_pylist()
            verdicts = pq.read_table(path.as_posix().replace("/documents/", "/decisions/deduplicated/"), columns=["verdict"])
            for place, verdict in zip(places, verdicts.column(0).to_pylist(), strict=True):
                removed[order[records[int(place.rpartition("#")[2])]]] = verdict != "keep"
    gone = np.bincount(bases, removed)
    size = np.bincount(bases)
    print(f"a build with seed {seed} removes")
    for name in BINS:
        lost = sum(bool(removed[pair].any()) for pair in copies[name])
        print(f"  {name:<6} {lost} of {len(copies[name])} copies, {lost / max(len(copies[name]), 1):.4f}")
    print(f"  wrongly {int(np.maximum(gone - (size - 1), 0).sum())} of {len(size)} documents without a copy or beyond it")


if __name__ == "__main__":
    main()
