"""select, whole: every column of every decision against a plain Python version that knows no arrays, parts or shuffles.

The tables of random small corpora are written as the earlier stages would, select runs on Beam, and each document's verdict is
worked out again from the recipe, one document and one cluster at a time. Draws are hashed with Python integers; the shift of a
keep rate is found by scipy over documents, not over a histogram.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import brentq

from pipelines import engine, select
from pipelines.parts import Part
from pipelines.recipe import Draw, parse
from pipelines.schema import CLUSTERS, DOCUMENTS
from pipelines.store import Store
from quality.signals import SIGNAL_FIELDS
from tests.runs import ONE_WORKER, TWO_THREADS, differing, hashes

RECIPE = """
name: verdicts
seed: 5
sources:
  crawl: {format: jsonl, paths: [c], paragraphs: true}
  forum: {format: jsonl, paths: [f], priority: -2}
  wiki:  {format: jsonl, paths: [w], priority: 3}
near: {min_jaccard: 0.75}
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
      quality: {draw: pareto, keep_rate: 0.4}
    sources: {wiki: {languages: any, rules: none}}
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
ORDER = ["language", "rules", "exact", "near", "quality", "paragraphs", None]
# Values that pass every rule of Gopher's.
PASSING = {"mean_word_length": 5, "alphabetic_words": 1, "distinct_stop_words": 2}


# -- a corpus ---------------------------------------------------------------------------------------------------------------


def _documents(seed):
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
    _cluster(documents, "exact_cluster", lambda d: (d["group"], d["copy"]))
    _cluster([d for d in documents if not d["wordless"]], "near_cluster", lambda d: d["group"])
    for document in documents:
        document.setdefault("near_cluster", None)
        estimate = np.float32(round(0.7 + 0.3 * random.random(), 3))
        document["jaccard"] = float(estimate) if document["near_cluster"] else None
    return documents


def _step(value):
    return round(float(value), 4)


def _cluster(documents, column, key):
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

        signals = {f.name: pa.array([PASSING.get(f.name, 0)] * len(rows), f.type) for f in SIGNAL_FIELDS}
        signals |= {
            "words": column("words", pa.int32()),
            "language": column("language", pa.string()),
            "language_score": column("language_score", pa.float32()),
            "quality": column("quality", pa.float32()),
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


def _run(documents, folder, variants=None, on=ONE_WORKER):
    """{variant: {doc_id: decision}}, and the folder it was written to."""
    recipe = parse(RECIPE, "verdicts")
    names = list(variants or recipe.variants)
    parts = _write(documents, folder)
    store, settings = Store(str(folder)), select.Settings.of(recipe, names)
    engine.run(on, "select", lambda p: select.wire(p, store, settings, parts, dict.fromkeys(names, "key")))
    decided = {}
    for name in names:
        rows = {}
        for part in parts:
            ids = pq.read_table(folder / part.path("documents"))["doc_id"].to_pylist()
            rows |= dict(zip(ids, pq.read_table(folder / part.decisions(name)).to_pylist(), strict=True))
        decided[name] = rows
    return decided


# -- the same in plain Python -----------------------------------------------------------------------------------------------


def _uniform(doc_id, seed, purpose):
    full = (1 << 64) - 1
    digest = hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=16).digest()
    keys = [int.from_bytes(digest[at : at + 8], "little") for at in (0, 8)]
    halves = [int.from_bytes(doc_id[at : at + 8], "little") for at in (0, 8)]

    def finalised(value):
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            value = (value ^ (value >> 33)) * factor & full
        return value ^ (value >> 33)

    return (finalised(finalised(halves[0] ^ keys[0]) ^ halves[1] ^ keys[1]) >> 11) / 2**53


def _law(quality, alpha, shift):
    if shift:
        inside = min(max(quality, 0.5e-4), 1 - 0.5e-4)
        quality = 1 / (1 + math.exp(-(math.log(inside / (1 - inside)) + shift)))
    return (2 - quality) ** -alpha


def _solved(draw, reached):
    """The shift or the threshold of a draw over the documents that reach it."""
    total = sum(d["n_tokens"] for d in reached)
    if draw.keep_rate is None or not total:
        return draw.threshold or 0.0
    if draw.draw == "pareto":
        return brentq(
            lambda s: sum(d["n_tokens"] * _law(d["quality"], draw.alpha, s) for d in reached) / total - draw.keep_rate,
            -50,
            50,
            xtol=1e-13,
        )
    shares = {  # every threshold between 0 and just above 1; of equally near ones the highest
        step / 1e4: sum(d["n_tokens"] for d in reached if d["quality"] >= step / 1e4) / total for step in range(10_001 + 1)
    }
    return min(shares, key=lambda threshold: (round(abs(shares[threshold] - draw.keep_rate), 12), -threshold))


def _expected(documents, recipe, variant):
    """{doc_id: decision} by the order of judgement, and {draw's name: (solution, documents that reached it)}."""
    chosen = recipe.variants[variant]
    policy = {source: recipe.policy(variant, source) for source in recipe.sources}
    verdict = {}

    def drop(document, reason, stage, value, threshold, keeper=None):
        verdict[document["doc_id"]] = (reason, stage, value, threshold, keeper)

    def standing(found):
        return [d for d in found if d["doc_id"] not in verdict]

    def emptied(document):
        return document["words"] == 0 and document["dropped"] is not None

    for d in documents:
        own = policy[d["source"]]
        if emptied(d):
            continue
        if own.languages != "any" and d["language"] not in own.languages.keep:
            drop(d, "language", "language", d["language_score"], None)
        elif own.languages != "any" and d["language_score"] < own.languages.min_score:
            drop(d, "language_score", "language", d["language_score"], own.languages.min_score)
        elif own.rules != "none":
            least = own.rules["gopher"]["words.low"] if isinstance(own.rules, dict) else 50
            if d["words"] < least:
                drop(d, "gopher_words", "rules", d["words"], least)

    for kind, least in (("exact", 1.0), ("near", recipe.near.min_jaccard)):
        members = defaultdict(list)
        for d in standing(documents):
            exact = d["exact_cluster"] or d["doc_id"]
            members[exact if kind == "exact" else d["near_cluster"] or exact].append(d)
        for found in members.values() if kind in chosen.dedup else ():
            keeper = min(
                found, key=lambda d: (emptied(d), -recipe.sources[d["source"]].priority, -d["quality"], d["doc_id"])
            )
            for d in found:
                if d is not keeper:
                    value = 1.0 if kind == "exact" else d["jaccard"]
                    drop(d, f"duplicate_{kind}", kind, value, least, keeper["doc_id"])

    reached = defaultdict(list)
    for d in standing(documents):
        draw = policy[d["source"]].quality
        if isinstance(draw, Draw) and not emptied(d):
            own = d["source"] in chosen.sources and chosen.sources[d["source"]].quality is not None
            reached[d["source"] if own else "default"].append(d)
    solutions = {}
    for name, found in reached.items():
        draw = policy[found[0]["source"]].quality
        solution = _solved(draw, found)
        solutions[name] = (solution, found)
        for d in found:
            if draw.draw == "cut" and d["quality"] < solution:
                drop(d, "quality_cut", "quality", d["quality"], solution)
            if draw.draw == "pareto":
                uniform = _uniform(d["doc_id"], recipe.seed, "quality")
                if uniform >= _law(d["quality"], draw.alpha, solution):
                    drop(d, "quality_draw", "quality", d["quality"], ("would have kept", uniform, draw.alpha, solution))

    for d in standing(documents):
        left = 0 if emptied(d) else d["text_bytes"]
        if left < policy[d["source"]].min_bytes:
            drop(d, "too_short", "paragraphs", left, policy[d["source"]].min_bytes)
    return verdict, solutions


# -- the comparison -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2, 3])
def decided(request, tmp_path_factory):
    documents, folder = _documents(request.param), tmp_path_factory.mktemp("select")
    return documents, _run(documents, folder), folder


def test_every_decision_is_that_of_plain_python(decided):
    documents, found, _ = decided
    recipe = parse(RECIPE, "verdicts")
    reasons = set()
    for variant, rows in found.items():
        expected, _ = _expected(documents, recipe, variant)
        for d in documents:
            got = rows[d["doc_id"]]
            reason, stage, value, threshold, keeper = expected.get(d["doc_id"], ("keep", None, None, None, None))
            assert (got["verdict"], got["stage"], got["duplicate_of"]) == (reason, stage, keeper), (variant, d)
            assert got["value"] == (value if value is None else pytest.approx(value, abs=1e-7)), (variant, d)
            if isinstance(threshold, tuple):  # the quality that would have been kept by the same draw, where one would
                _, uniform, alpha, shift = threshold
                assert got["threshold"] > got["value"] - 1e-9
                if 0.001 < got["threshold"] < 0.999:
                    assert _law(got["threshold"], alpha, shift) == pytest.approx(uniform, rel=1e-6)
            else:
                assert got["threshold"] == threshold, (variant, d)
            reasons.add(reason)
    assert reasons == {
        "keep", "language", "language_score", "gopher_words", "duplicate_exact", "duplicate_near", "quality_draw",
        "quality_cut", "too_short",
    }  # fmt: skip


def test_the_splits_are_hashes_of_clusters_and_equal_in_all_variants(decided):
    documents, found, _ = decided
    for d in documents:
        group = d["near_cluster"] or d["exact_cluster"] or d["doc_id"]
        split = "validation" if _uniform(group, 5, "split") < 0.3 else "train"
        assert {rows[d["doc_id"]]["split"] for rows in found.values()} == {split}


def test_the_solutions_are_written_with_the_share_that_they_keep(decided):
    """resolved.json against brute force: the shift to 1e-9, the token-weighted expectation, and the tokens that reached it."""
    documents, found, folder = decided
    recipe = parse(RECIPE, "verdicts")
    for variant, rows in found.items():
        written = json.loads((folder / f"decisions/{variant}/resolved.json").read_bytes())
        _, solutions = _expected(documents, recipe, variant)
        assert set(written) == set(solutions)
        for name, (solution, reached) in solutions.items():
            told, total = written[name], sum(d["n_tokens"] for d in reached)
            assert told["tokens"] == total
            if told["draw"] == "cut":
                kept = sum(d["n_tokens"] for d in reached if d["quality"] >= solution) / total
                assert told["solved_threshold"] == solution
                assert told["expected_keep_rate"] == pytest.approx(kept, abs=1e-12)
                continue
            law = {d["doc_id"]: _law(d["quality"], told["alpha"], solution) for d in reached}
            expected = sum(d["n_tokens"] * law[d["doc_id"]] for d in reached) / total
            assert told["shift"] == pytest.approx(solution, abs=1e-7)
            assert told["expected_keep_rate"] == pytest.approx(expected, abs=1e-9)
            if told["keep_rate"] is not None:
                assert told["expected_keep_rate"] == pytest.approx(told["keep_rate"], abs=1e-9)
            # What was drawn lies within 4 standard deviations of what was to be expected.
            drawn = sum(d["n_tokens"] for d in reached if rows[d["doc_id"]]["verdict"] != "quality_draw") / total
            deviation = math.sqrt(sum((d["n_tokens"] / total) ** 2 * (p := law[d["doc_id"]]) * (1 - p) for d in reached))
            assert abs(drawn - expected) < 4 * deviation


def test_a_keeper_passed_the_same_steps_and_no_cluster_vanishes(decided):
    documents, found, _ = decided
    for variant, rows in found.items():
        for row in rows.values():
            if row["duplicate_of"] is not None:
                assert ORDER.index(rows[row["duplicate_of"]]["stage"]) > ORDER.index(row["stage"])
        if variant not in ("near", "drawn", "plain_draw"):
            continue
        left = defaultdict(list)
        for d in documents:
            stage = rows[d["doc_id"]]["stage"]
            if ORDER.index(stage) > ORDER.index("rules"):
                group = d["near_cluster"] or d["exact_cluster"] or d["doc_id"]
                left[group].append(stage not in ("exact", "near"))
        assert left
        assert all(sum(stays) == 1 for stays in left.values())


def test_bytes_depend_neither_on_the_engine_nor_on_what_else_is_decided(decided, tmp_path):
    """All variants at once on one worker; one variant on two threads: the same files."""
    documents, _, folder = decided
    _run(documents, tmp_path, ["drawn"], TWO_THREADS)
    reference = {name: digest for name, digest in hashes(folder).items() if name.startswith("decisions/drawn/")}
    assert len(reference) > 6
    assert differing(reference, {n: d for n, d in hashes(tmp_path).items() if n.startswith("decisions/")}) == set()


def test_an_emptied_document_stays_only_where_all_copies_are_empty(tmp_path):
    """Two copies, one of them emptied with the better score; two emptied ones: the first pair keeps its text."""
    documents = [d for d in _documents(4) if d["source"] == "crawl"][:4]
    for number, d in enumerate(documents):
        d.update(group=number // 2, copy=0, part="a", row=number, language="en", language_score=1.0, wordless=False, jaccard=None)
        empty = number != 1
        d.update(words=0 if empty else 60, dropped=[0] if empty else None, quality=0.9 if empty else 0.1)
        d.update(text_bytes=0 if empty else 400, n_tokens=0 if empty else 100)
    _cluster(documents, "exact_cluster", lambda d: d["group"])
    for d in documents:
        d["near_cluster"] = d["exact_cluster"]
    rows = _run(documents, tmp_path, ["exact"])["exact"]
    first, second = documents[:2], documents[2:]
    assert [rows[d["doc_id"]]["verdict"] for d in first] == ["duplicate_exact", "keep"]
    assert rows[first[0]["doc_id"]]["duplicate_of"] == first[1]["doc_id"]
    assert sorted(rows[d["doc_id"]]["verdict"] for d in second) == ["duplicate_exact", "too_short"]
