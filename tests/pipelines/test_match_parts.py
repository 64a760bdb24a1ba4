"""The pure side of match, against plain searches: exact copies, meeting buckets, what is inherited, and a part's table."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import match_parts
from pipelines.cluster_parts import Kind
from pipelines.dedup.near import BUCKET_ROW
from pipelines.match_parts import COPY, HASH_ROW, MEMBER_ROW, Settings, exact_copies, inherited_copies, matches_table, meeting_edges
from pipelines.parts import ROW_BITS

_small = st.integers(0, 3)
SETTINGS = Settings(4, 2, 2, 0.7)
RUNS = np.array([0, 0, 1, -1, -1])  # sides: two parts of one run, one of another, two of ours


def _filled(dtype, rows):
    out = np.zeros(len(rows), dtype)
    for place, row in enumerate(rows):
        for name, value in row.items():
            out[name][place] = value
    return out


def _cut(rows, cuts):
    """The bytes of the rows in pieces, as a shuffle hands them over."""
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return [rows[start:stop].tobytes() for start, stop in itertools.pairwise(edges)]


_hashed = st.tuples(st.integers(0, 4), _small, _small, _small, _small)


@given(st.lists(_hashed, max_size=30), st.lists(st.integers(0, 30), max_size=3))
def test_exact_copies_are_those_of_a_plain_search(rows, cuts):
    """Rows are (side, two halves of the content hash, two of the doc_id)."""
    rows = [
        {"hash_high": a, "hash_low": b, "high": c, "low": d, "row": (side << ROW_BITS) + place}
        for place, (side, a, b, c, d) in enumerate(rows)
    ]
    expected = {}
    for one in rows:
        if RUNS[one["row"] >> ROW_BITS] < 0:
            theirs = [
                (int(RUNS[other["row"] >> ROW_BITS]), other["high"], other["low"])
                for other in rows
                if RUNS[other["row"] >> ROW_BITS] >= 0
                and (other["hash_high"], other["hash_low"]) == (one["hash_high"], one["hash_low"])
            ]
            if theirs:
                expected[one["row"]] = min(theirs)
    found = exact_copies(_cut(_filled(HASH_ROW, rows), cuts), RUNS)
    assert {row["row"]: (row["run"], row["high"], row["low"]) for row in found} == expected
    assert len(found) == len(expected)
    assert set(found["kind"].tolist()) <= {Kind.EXACT}
    assert set(found["jaccard"].tolist()) <= {1.0}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), max_size=40))
def test_edges_lead_from_the_smallest_of_theirs_in_buckets_of_both(rows):
    """Rows from 12 on are ours."""
    members = defaultdict(set)
    for bucket, row in rows:
        members[bucket].add(row)
    expected = {
        (min(some), row)
        for some in members.values()
        if min(some) < 12 <= max(some)
        for row in some - {min(some)}
    }
    found = meeting_edges(np.array(rows, BUCKET_ROW), 12)
    assert {(edge["hub"], edge["spoke"]) for edge in found} == expected
    assert len(found) == len(expected)


_seed = st.tuples(_small, _small, _small, st.sampled_from([0.7, 0.8, 1.0]), _small, _small)


@given(st.lists(_seed, max_size=12), st.lists(st.tuples(_small, _small), max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_members_inherit_the_most_alike_seed_of_their_cluster(seeds, members, cuts):
    names = ("cluster_high", "cluster_low", "run", "jaccard", "high", "low")
    seeds = [dict(zip(names, seed, strict=True)) for seed in seeds]
    for seed in seeds:
        seed["signature"] = [seed["run"], seed["high"], seed["low"], 9]  # as one document has one signature
    members = [{"cluster_high": a, "cluster_low": b, "row": 100 + place} for place, (a, b) in enumerate(members)]
    expected = {}
    for member in members:
        some = [s for s in seeds if all(s[half] == member[half] for half in ("cluster_high", "cluster_low"))]
        if some:
            best = min(some, key=lambda s: (-s["jaccard"], s["run"], s["high"], s["low"]))
            expected[member["row"]] = (best["run"], best["high"], best["low"], best["signature"])
    found = inherited_copies(_cut(_filled(SETTINGS.seed, seeds), cuts), _cut(_filled(MEMBER_ROW, members), cuts), SETTINGS)
    assert {row["row"]: (row["run"], row["high"], row["low"], row["signature"].tolist()) for row in found} == expected
    assert len(found) == len(expected)


_copy = st.tuples(st.integers(0, 4), st.sampled_from([0, 1]), st.sampled_from([0.7, 0.75, 0.9]), _small, _small)


@given(st.lists(_copy, max_size=12), st.lists(_copy, max_size=12), st.randoms(use_true_random=False))
def test_of_several_copies_a_table_names_one_whatever_the_order_of_arrival(direct, inherited, random):
    """First what was found for the document itself, then exact before near, the most alike, the first run, the smallest doc_id."""
    names = ["one", "two"]
    copies = []
    for late, some in ((False, direct), (True, inherited)):
        for row, run, jaccard, high, kind in some:
            exact = kind == 0 and not late
            one = {"row": (4 << ROW_BITS) + row, "kind": Kind.EXACT if exact else Kind.NEAR, "run": run, "high": high, "low": 7}
            copies.append((late, {**one, "jaccard": 1.0 if exact else jaccard}))
    random.shuffle(copies)
    found = matches_table(
        _filled(COPY, [one for late, one in copies if not late]), _filled(COPY, [one for late, one in copies if late]), 5, names
    ).to_pylist()

    def best(some):
        return min(some, key=lambda c: (c[0], c[1]["kind"], -c[1]["jaccard"], c[1]["run"], c[1]["high"]), default=(None, None))[1]

    for row, told in enumerate(found):
        mine = [one for one in copies if one[1]["row"] & match_parts.ROW_MASK == row]
        exact, near = best([one for one in mine if one[1]["kind"] == Kind.EXACT]), best(mine)
        for prefix, one in (("exact", exact), ("near", near)):
            doc_id = one and (one["high"].to_bytes(8, "big") + one["low"].to_bytes(8, "big"))
            assert (told[f"{prefix}_run"], told[f"{prefix}_of"]) == (one and names[one["run"]], doc_id or None)
        assert told["near_jaccard"] == (near and pytest.approx(near["jaccard"]))
    assert len(found) == 5


def test_no_rows_at_all():
    assert len(exact_copies([], RUNS)) == 0
    assert len(meeting_edges(np.empty(0, BUCKET_ROW), 5)) == 0
    assert len(inherited_copies([], [], SETTINGS)) == 0
    empty = np.empty(0, COPY)
    assert matches_table(empty, empty, 0, ["one"]).num_rows == 0
