"""How well signatures find near duplicates: recall of injected copies per Jaccard bin, and pairs that are wrong.

    python bench/near_quality.py DATA [--seeds 10] [--bands 14] [--rows 8] [--threshold 0.7]

DATA holds bench/docs.jsonl.gz (`id`, `text`) and bench/truth.jsonl.gz (`id`, `base`, `kind`, and for near copies
`jaccard5w`, the true Jaccard similarity of word 5-grams). For every signature seed: the pairs that share an LSH
bucket and agree in at least `threshold` of their minima. A copy is found when it and its base document are such a
pair; only bases with exactly one copy count, as in the peers' figures. Wrong is

    wrong pairs        a pair of documents of two different bases
    wrong base pairs   the same, a pair of bases counted once however many copies they have
    wrong removals     a document that joined components drop beyond size - 1 of its base and copies, which is what the
                       peers' figures call a false removal
"""

from __future__ import annotations

import argparse
import gzip
import json
import pathlib
from collections import defaultdict

import numpy as np
import pyarrow as pa

from pipelines.dedup.minhash import MinHashSpec, agreement, band_hashes, signatures
from pipelines.dedup.near import EDGE, components
from pipelines.normalise import normalise

WRONG = ("wrong pairs", "wrong base pairs", "wrong removals")
BINS = ("exact", "J>=.9", ".8-.9", ".7-.8", ".6-.7", "<.6")
_BATCH = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, help="folder with bench/docs.jsonl.gz and bench/truth.jsonl.gz")
    parser.add_argument("--seeds", type=int, default=10, help="signature seeds 1 to this")
    parser.add_argument("--bands", type=int, default=14)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--ngram", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.7)
    chosen = parser.parse_args()

    identifiers, texts = read_documents(chosen.data / "bench" / "docs.jsonl.gz")
    bases, copies = read_truth(chosen.data / "bench" / "truth.jsonl.gz", identifiers)
    print("seed" + "".join(f"{name:>17}" for name in BINS) + "".join(f"{name:>18}" for name in WRONG))
    shares, wrong = [], []
    for seed in range(1, chosen.seeds + 1):
        spec = MinHashSpec(chosen.bands * chosen.rows, chosen.ngram, seed, 500_000)
        pairs = verified_pairs(texts, spec, chosen.bands, chosen.rows, chosen.threshold)
        found = [found_copies(copies[name], pairs) for name in BINS]
        shares.append([count / max(len(copies[name]), 1) for name, count in zip(BINS, found, strict=True)])
        wrong.append(wrong_counts(bases, pairs))
        cells = [
            f"{n}/{len(copies[name])} {n / max(len(copies[name]), 1):.4f}" for name, n in zip(BINS, found, strict=True)
        ]
        print(f"{seed:>4}" + "".join(f"{cell:>17}" for cell in cells) + "".join(f"{n:>18}" for n in wrong[-1]))
    for label, statistic in (("mean", np.mean), ("min", np.min), ("max", np.max)):
        print(f"{label:>4}" + "".join(f"{share:>17.4f}" for share in statistic(shares, axis=0)), end="")
        print("".join(f"{count:>18.2f}" for count in statistic(wrong, axis=0)))


def read_documents(path: pathlib.Path) -> tuple[list[str], list[pa.Array]]:
    """(ids, normalised texts in batches)."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    texts = [document["text"] for document in documents]
    batches = [normalise(texts[first : first + _BATCH], "prose") for first in range(0, len(texts), _BATCH)]
    return [document["id"] for document in documents], batches


def read_truth(path: pathlib.Path, identifiers: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(base number of every document, and by bin the pairs [n, 2] of a base and its only copy), by document number."""
    place = {identifier: number for number, identifier in enumerate(identifiers)}
    members = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            members[row["base"]].append(row)
    bases = np.full(len(identifiers), -1)
    pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in BINS}
    for number, rows in enumerate(members.values()):
        bases[[place[row["id"]] for row in rows]] = number
        if len(rows) == 2:
            base, copy = sorted(rows, key=lambda row: row["kind"] != "base")
            pairs[bin_of(copy)].append((place[base["id"]], place[copy["id"]]))
    return bases, {name: np.sort(np.array(found).reshape(-1, 2), axis=1) for name, found in pairs.items()}


def bin_of(copy: dict[str, object]) -> str:
    if copy["kind"] == "exact":
        return "exact"
    jaccard = float(str(copy["jaccard5w"]))
    return next((name for name, least in zip(BINS[1:], (0.9, 0.8, 0.7, 0.6), strict=False) if jaccard >= least), "<.6")


def verified_pairs(texts: list[pa.Array], spec: MinHashSpec, bands: int, rows: int, threshold: float) -> np.ndarray:
    """Document numbers [n, 2], smaller first: every pair that shares a bucket and agrees well enough."""
    signed = [signatures(batch, spec) for batch in texts]
    minima = np.concatenate([part for part, _ in signed])
    numbers = np.flatnonzero(np.concatenate([valid for _, valid in signed]))
    buckets = band_hashes(minima[numbers], bands, rows).ravel()
    owners = np.repeat(numbers, bands)
    order = np.lexsort((owners, buckets))
    buckets, owners = buckets[order], owners[order]
    candidates = []
    for distance in range(1, len(buckets)):
        meet = buckets[:-distance] == buckets[distance:]
        if not meet.any():
            break
        candidates.append(np.stack([owners[:-distance][meet], owners[distance:][meet]], axis=1))
    pairs = np.unique(np.concatenate(candidates), axis=0)
    return pairs[agreement(minima[pairs[:, 0]], minima[pairs[:, 1]]) >= threshold]


def found_copies(copies: np.ndarray, pairs: np.ndarray) -> int:
    known = set(map(tuple, pairs.tolist()))
    return sum(tuple(pair) in known for pair in copies.tolist())


def wrong_counts(bases: np.ndarray, pairs: np.ndarray) -> tuple[int, int, int]:
    """What `WRONG` names, in its order."""
    sides = np.sort(bases[pairs], axis=1)
    apart = sides[sides[:, 0] != sides[:, 1]]
    edges = np.empty(len(pairs), EDGE)
    edges["hub"], edges["spoke"] = pairs[:, 0], pairs[:, 1]
    rows, roots = components(edges)
    dropped = np.bincount(bases[rows[rows != roots]], minlength=int(bases.max()) + 1)
    removals = np.maximum(dropped - (np.bincount(bases) - 1), 0)
    return len(apart), len(np.unique(apart, axis=0)), int(removals.sum())


if __name__ == "__main__":
    main()
