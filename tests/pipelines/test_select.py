"""select, whole: every column of every decision against a plain Python version that knows no arrays, parts or shuffles.

The tables of random small corpora are written as the earlier stages would, select runs on Beam, and each document's verdict is
worked out again from the recipe, one document and one cluster at a time. Draws are hashed with Python integers; the shift of a
keep rate is found by scipy over documents, not over a histogram.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict

import pytest
from scipy.optimize import brentq

from pipelines.recipe import Draw
from pipelines.recipe_file import parse
from tests.runs import TWO_THREADS, differing, hashes
from tests.tables import RECIPE, cluster, random_documents, run_select, uniform_of

ORDER = ["language", "rules", "decontamination", "exact", "near", "quality", "paragraphs", None]
# (training tokens, weights): cut by a half and left out; all cut; a whole number of tokens for no source; nothing cut.
MIXTURES = [
    (20_000, {"crawl": 1, "forum": 0, "wiki": 1}),
    (9_001, {"crawl": 0.5, "forum": 0.3, "wiki": 0.25}),
    (10**9, {"crawl": 67, "forum": 30.5, "wiki": 2.5}),
]


# -- the same in plain Python -----------------------------------------------------------------------------------------------


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
        if own.decontaminate and d["contamination"] and d["doc_id"] not in verdict:
            drop(d, "contaminated", "decontamination", d["contamination"], 1)

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
                uniform = uniform_of(d["doc_id"], recipe.seed, "quality")
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
    documents, folder = random_documents(request.param), tmp_path_factory.mktemp("select")
    return documents, run_select(documents, folder), folder


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
        "keep", "language", "language_score", "gopher_words", "contaminated", "duplicate_exact", "duplicate_near", "quality_draw",
        "quality_cut", "too_short",
    }  # fmt: skip


def test_the_splits_are_hashes_of_clusters_and_equal_in_all_variants(decided):
    documents, found, _ = decided
    for d in documents:
        group = d["near_cluster"] or d["exact_cluster"] or d["doc_id"]
        split = "validation" if uniform_of(group, 5, "split") < 0.3 else "train"
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
            if ORDER.index(stage) > ORDER.index("decontamination"):
                group = d["near_cluster"] or d["exact_cluster"] or d["doc_id"]
                left[group].append(stage not in ("exact", "near"))
        assert left
        assert all(sum(stays) == 1 for stays in left.values())


def test_bytes_depend_neither_on_the_engine_nor_on_what_else_is_decided(decided, tmp_path):
    """All variants at once on one worker; one variant on two threads: the same files."""
    documents, _, folder = decided
    run_select(documents, tmp_path, ["drawn"], TWO_THREADS)
    reference = {name: digest for name, digest in hashes(folder).items() if name.startswith("decisions/drawn/")}
    assert len(reference) > 6
    assert differing(reference, {n: d for n, d in hashes(tmp_path).items() if n.startswith("decisions/")}) == set()


@pytest.mark.parametrize("chosen", MIXTURES)
def test_a_mixture_takes_documents_in_the_order_of_their_draw_until_the_tokens_are_there(decided, tmp_path, chosen):
    """Over what every variant keeps without a mixture: sorted by draw, taken one by one. What is held out stays."""
    documents, plain, _ = decided
    tokens, weights = chosen
    mixed = f"{RECIPE}mixture: {{tokens: {tokens}, weights: {json.dumps(weights)}}}\n"
    found = run_select(documents, tmp_path, recipe=mixed)
    cut = 0
    for variant, rows in found.items():
        told = json.loads((tmp_path / f"decisions/{variant}/mixture.json").read_bytes())
        assert sorted(told) == sorted(weights)
        for source, weight in weights.items():
            kept = [
                (uniform_of(d["doc_id"], 5, "mixture"), d["n_tokens"] + 1, d["doc_id"])
                for d in documents
                if d["source"] == source
                and (plain[variant][d["doc_id"]]["verdict"], plain[variant][d["doc_id"]]["split"]) == ("keep", "train")
            ]
            wanted, taken, ids = told[source]["wanted"], 0, set()
            assert abs(wanted - tokens * weight / sum(weights.values())) <= 1
            for _, count, doc_id in sorted(kept):
                if taken < wanted:
                    taken, ids = taken + count, ids | {doc_id}
            available = sum(count for _, count, _ in kept)
            assert (told[source]["available"], told[source]["taken"]) == (available, taken)
            nothing = None if wanted else 0.0
            assert told[source]["epochs"] == (pytest.approx(wanted / available) if available else nothing)
            lost = {doc_id for _, _, doc_id in kept} - ids
            for draw, _, doc_id in kept:
                bound = told[source]["bound"]
                if doc_id in lost:
                    dropped = {"verdict": "mixture", "stage": "mixture", "value": draw, "threshold": bound}
                    assert rows[doc_id] == {**dropped, "duplicate_of": None, "duplicate_run": None, "split": "train"}
                    assert draw >= bound
                else:
                    assert draw < bound
            cut += len(lost)
        touched = {doc_id for doc_id, row in rows.items() if row != plain[variant][doc_id]}
        assert touched == {doc_id for doc_id, row in rows.items() if row["verdict"] == "mixture"}
        assert sum(one["wanted"] for one in told.values()) == tokens
    assert (cut > 50) == (tokens < 10**6)


def test_a_mixture_is_the_same_on_two_threads_and_whatever_else_is_decided(decided, tmp_path):
    documents, _, _ = decided
    mixed = RECIPE + "mixture: {tokens: 9001, weights: {crawl: 1, forum: 1, wiki: 1}}\n"
    run_select(documents, tmp_path / "all", recipe=mixed)
    run_select(documents, tmp_path / "one", ["drawn"], TWO_THREADS, mixed)
    drawn = [{n: d for n, d in hashes(tmp_path / run).items() if n.startswith("decisions/drawn/")} for run in ("all", "one")]
    assert any(name.endswith("mixture.json") for name in drawn[0])
    assert differing(*drawn) == set()


def test_an_emptied_document_stays_only_where_all_copies_are_empty(tmp_path):
    """Two copies, one of them emptied with the better score; two emptied ones: the first pair keeps its text."""
    documents = [d for d in random_documents(4) if d["source"] == "crawl"][:4]
    for number, d in enumerate(documents):
        d.update(group=number // 2, copy=0, part="a", row=number, language="en", language_score=1.0, wordless=False, jaccard=None)
        empty = number != 1
        d.update(words=0 if empty else 60, dropped=[0] if empty else None, quality=0.9 if empty else 0.1)
        d.update(text_bytes=0 if empty else 400, n_tokens=0 if empty else 100)
    cluster(documents, "exact_cluster", lambda d: d["group"])
    for d in documents:
        d["near_cluster"] = d["exact_cluster"]
    rows = run_select(documents, tmp_path, ["exact"])["exact"]
    first, second = documents[:2], documents[2:]
    assert [rows[d["doc_id"]]["verdict"] for d in first] == ["duplicate_exact", "keep"]
    assert rows[first[0]["doc_id"]]["duplicate_of"] == first[1]["doc_id"]
    assert sorted(rows[d["doc_id"]]["verdict"] for d in second) == ["duplicate_exact", "too_short"]
