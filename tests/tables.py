"""Random small corpora as the stages before select leave them, and select run on them: for tests of every column of a decision."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import engine, select, select_settings
from pipelines.parts import Part
from pipelines.recipe_file import parse
from pipelines.schema import CLUSTERS, DOCUMENTS
from pipelines.store import Store
from quality.signals import SIGNAL_FIELDS
from tests.runs import ONE_WORKER

RECIPE = """
name: verdicts
seed: 5
sources:
  crawl: {format: jsonl, paths: [c], paragraphs: true}
  forum: {format: jsonl, paths: [f], priority: -2}
  wiki:  {format: jsonl, paths: [w], priority: 3}
near: {min_jaccard: 0.75}
evaluations: {some: e}
fit: {quality: {curated: [wiki], web: [crawl, forum]}}
variants:
  everything: {}
  exact: {dedup: [exact]}
  near: {dedup: [near]}
  drawn:
    dedup: [exact, near]
    default:
      languages: {keep: [en, fr], min_score: 0.65}
      rules: {gopher: {words.low: 20}}
      decontaminate: true
      quality: {draw: pareto, keep_rate: 0.4}
    sources: {wiki: {languages: any, rules: none, decontaminate: false}}
  plain_draw:
    dedup: [near, exact]
    default: {rules: [gopher], quality: {draw: pareto, alpha: 2.5}, min_bytes: 120}
    sources: {forum: {quality: none, min_bytes: 0}}
  cut:
    dedup: [exact]
    default: {languages: {keep: [en], min_score: 0}, quality: {draw: cut, threshold: 0.25}}
    sources:
      crawl: {quality: {draw: cut, keep_rate: 0.7}, languages: any}
      wiki: {quality: {draw: pareto, keep_rate: 0.5, alpha: 4}, languages: {keep: [fr], min_score: 0.3}}
tokens: {validation: 0.3}
"""
# Values that pass every rule of Gopher's.
_PASSING = {"mean_word_length": 5, "alphabetic_words": 1, "distinct_stop_words": 2}


def random_documents(seed):
    """Documents of 3 sources in 5 parts; clusters across all of them, exact ones inside near ones."""
    random = np.random.default_rng(seed)
    parts = [("crawl", "a", 60), ("crawl", "b", 31), ("forum", "a", 40), ("wiki", "a", 1), ("wiki", "b", 25)]
    documents = []
    for source, name, rows in parts:
        for row in range(rows):
            emptied = source == "crawl" and random.random() < 0.15
            text_bytes = int(random.integers(0, 3)) if emptied else int(random.integers(60, 4000))
            documents.append(
                {
                    "source": source,
                    "part": name,
                    "row": row,
                    "doc_id": random.bytes(16),
                    "language": None if emptied else str(random.choice(["en", "fr", "de"], p=[0.7, 0.2, 0.1])),
                    "language_score": 0.0 if emptied else _step(random.choice([0.2, 0.65, 0.65 - 1e-4, random.random()])),
                    "quality": _step(random.choice([0.25, 0.5, 0.9999, 1.0, 0.0, *random.random(6)])),
                    "n_tokens": 0 if emptied else text_bytes // 4,
                    "text_bytes": text_bytes,
                    "words": 0 if emptied else int(random.choice([19, 20, 49, 50, 800])),
                    "contamination": 0 if emptied else {9: 1, 10: 5}.get(row % 11, 0),
                    "dropped": [0] if emptied or (source == "crawl" and random.random() < 0.2) else None,
                    "group": int(random.integers(0, 70)),
                    "copy": int(random.integers(0, 3)),
                    "wordless": False,
                }
            )
    # A few groups have no words, hence no signature: exact clusters only.
    for document in documents:
        document["wordless"] = document["group"] < 6
        if document["wordless"]:
            document["copy"] = 0
    cluster(documents, "exact_cluster", lambda d: (d["group"], d["copy"]))
    cluster([d for d in documents if not d["wordless"]], "near_cluster", lambda d: d["group"])
    for document in documents:
        document.setdefault("near_cluster", None)
        estimate = np.float32(round(0.7 + 0.3 * random.random(), 3))
        document["jaccard"] = float(estimate) if document["near_cluster"] else None
    return documents


def _step(value):
    return round(float(value), 4)


def cluster(documents, column, key):
    """The smallest doc_id of each cluster with two members or more."""
    members = defaultdict(list)
    for document in documents:
        members[key(document)].append(document)
    for found in members.values():
        for document in found:
            document[column] = min(d["doc_id"] for d in found) if len(found) > 1 else None


def _write(documents, folder):
    """The tables that select reads, and its parts."""
    by_part = defaultdict(list)
    for document in documents:
        by_part[document["source"], document["part"]].append(document)
    parts = []
    for index, ((source, name), rows) in enumerate(sorted(by_part.items())):
        part = Part(index, source, name, len(rows), sum(d["text_bytes"] for d in rows), "")
        parts.append(part)

        def column(key, kind, rows=rows):
            return pa.array([d[key] for d in rows], kind)

        signals = {f.name: pa.array([_PASSING.get(f.name, 0)] * len(rows), f.type) for f in SIGNAL_FIELDS}
        signals |= {
            "words": column("words", pa.int32()),
            "language": column("language", pa.string()),
            "language_score": column("language_score", pa.float32()),
            "quality": column("quality", pa.float32()),
            "contamination": column("contamination", pa.int32()),
            "n_tokens": column("n_tokens", pa.int32()),
            "text_bytes": column("text_bytes", pa.int64()),
        }
        clusters = {
            "exact_cluster": column("exact_cluster", pa.binary(16)),
            "exact_size": pa.nulls(len(rows), pa.int32()),
            "near_cluster": column("near_cluster", pa.binary(16)),
            "near_size": pa.nulls(len(rows), pa.int32()),
            "jaccard": column("jaccard", pa.float32()),
            "dropped_paragraphs": column("dropped", pa.list_(pa.int32())),
        }
        tables = {
            "documents": pa.table({"doc_id": column("doc_id", pa.binary(16))}, pa.schema([DOCUMENTS.field("doc_id")])),
            "signals": pa.table(signals),
            "clusters": pa.table(clusters, CLUSTERS),
        }
        for table, content in tables.items():
            path = folder / part.path(table)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(content, path)
    return tuple(parts)


def run_select(documents, folder, variants=None, on=ONE_WORKER, recipe=RECIPE):
    """{variant: {doc_id: decision}}, and the folder it was written to."""
    recipe = parse(recipe, "verdicts")
    names = list(variants or recipe.variants)
    parts = _write(documents, folder)
    store, settings = Store(str(folder)), select_settings.Settings.of(recipe, names, {})
    engine.run(on, "select", lambda p: select.wire(p, store, settings, parts, dict.fromkeys(names, "key")))
    decided = {}
    for name in names:
        rows = {}
        for part in parts:
            ids = pq.read_table(folder / part.path("documents"))["doc_id"].to_pylist()
            rows |= dict(zip(ids, pq.read_table(folder / part.decisions(name)).to_pylist(), strict=True))
        decided[name] = rows
    return decided


def uniform_of(doc_id, seed, purpose):
    """`quality.sampling.uniform` in plain Python."""
    full = (1 << 64) - 1
    digest = hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=16).digest()
    keys = [int.from_bytes(digest[at : at + 8], "little") for at in (0, 8)]
    halves = [int.from_bytes(doc_id[at : at + 8], "little") for at in (0, 8)]

    def finalised(value):
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            value = (value ^ (value >> 33)) * factor & full
        return value ^ (value >> 33)

    return (finalised(finalised(halves[0] ^ keys[0]) ^ halves[1] ^ keys[1]) >> 11) / 2**53
