"""Keepers against a brute-force version: exact copies first, near ones among their keepers, by priority, quality, doc_id."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.keepers import STANDING_ROW, Kind, losers

_members = st.lists(
    st.tuples(
        st.integers(0, 1),  # variant
        st.integers(0, 3),  # near group
        st.integers(0, 2),  # exact cluster within the group
        st.integers(0, 2),  # priority
        st.sampled_from([-1.0, 0.25, 0.5]),  # quality
    ),
    max_size=24,
)


def _rows(members, dedup):
    rows = np.zeros(len(members), STANDING_ROW)
    for number, (variant, group, exact, priority, quality) in enumerate(members):
        rows[number] = (variant, dedup[variant], priority, quality, 0, group, group, exact, 7, 1000 - number, number)
    return rows


def _brute_force(members, dedup):
    """(variant, kind, row) -> row of the keeper."""
    lost = {}
    for variant in (0, 1):
        standing = [n for n, member in enumerate(members) if member[0] == variant]
        for kind, cluster in ((Kind.EXACT, lambda m: m[1:3]), (Kind.NEAR, lambda m: m[1])):
            if not dedup[variant] >> kind & 1:
                continue
            for name in {cluster(members[n]) for n in standing}:
                inside = [n for n in standing if cluster(members[n]) == name]
                # doc_ids fall with the number, so the smallest is that of the last.
                best = min(inside, key=lambda n: (-members[n][3], -members[n][4], -n))
                for n in inside:
                    if n != best:
                        lost[variant, int(kind), n] = best
                        standing.remove(n)
    return lost


@given(_members, st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_losers_are_those_of_the_brute_force(members, dedup):
    found = losers(_rows(members, dedup))
    got = {(int(r["variant"]), int(r["kind"]), int(r["row"])): 1000 - int(r["low"]) for r in found}
    assert got == _brute_force(members, dedup)
    assert len(found) == len(got)


@given(_members)
def test_a_keeper_stands_at_its_own_step_and_no_cluster_vanishes(members):
    rows = _rows(members, (3, 3))
    found = losers(rows)
    gone = {(int(r["variant"]), int(r["row"])) for r in found}
    exact_losers = {(int(r["variant"]), int(r["row"])) for r in found if r["kind"] == Kind.EXACT}
    for one in found:
        keeper = (int(one["variant"]), 1000 - int(one["low"]))
        assert keeper not in (exact_losers if one["kind"] == Kind.EXACT else gone)
    for variant, group in {(m[0], m[1]) for m in members}:
        alive = [n for n, m in enumerate(members) if m[:2] == (variant, group) and (variant, n) not in gone]
        assert len(alive) == 1
