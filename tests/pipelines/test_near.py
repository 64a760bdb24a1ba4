"""Candidates, components and keepers against brute force: every pair, networkx-free transitive closure, plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.keepers import LOSER, STANDING_ROW, Kind, losers
from pipelines.dedup.near import BUCKET_ROW, EDGE, components, stars

rows_in_buckets = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), max_size=60)


@given(rows_in_buckets, st.randoms())
def test_stars_join_each_bucket_to_its_smallest_row(pairs, random):
    expected = sorted(
        {
            (min(r for b, r in pairs if b == bucket), row)
            for bucket, row in pairs
            if row != min(r for b, r in pairs if b == bucket)
        }
    )
    random.shuffle(pairs)
    edges = stars(np.array(pairs, BUCKET_ROW))
    assert [tuple(map(int, edge)) for edge in edges] == expected


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60), st.randoms())
def test_components_agree_with_a_walk(pairs, random):
    neighbours = {}
    for a, b in pairs:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)

    def reached(start):
        seen, todo = {start}, [start]
        while todo:
            for other in neighbours[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    expected = {node: min(reached(node)) for node in neighbours}
    random.shuffle(pairs)
    nodes, roots = components(np.array(pairs, EDGE))
    assert dict(zip(nodes.tolist(), roots.tolist(), strict=True)) == expected


members = st.lists(
    st.tuples(
        st.integers(0, 1),  # variant
        st.integers(0, 2),  # priority
        st.sampled_from([-1.0, 0.25, 0.5]),  # quality
        st.integers(0, 2),  # near cluster
        st.integers(0, 3),  # exact cluster within it
    ),
    max_size=25,
)


@given(members, st.integers(0, 3), st.randoms())
def test_keepers_agree_with_plain_loops(found, dedup, random):
    documents = [
        (variant, dedup, priority, quality, 0, near, near, exact, 7, number, number)
        for number, (variant, priority, quality, near, exact) in enumerate(found)
    ]

    def best(cluster):
        return min(cluster, key=lambda d: (-d[2], -d[3], d[8], d[9]))

    expected = set()
    standing = list(documents)
    for kind, key in ((Kind.EXACT, lambda d: (d[0], d[6], d[7])), (Kind.NEAR, lambda d: (d[0], d[4], d[5]))):
        if not dedup >> kind & 1:
            continue
        kept = []
        for cluster in {key(d) for d in standing}:
            same = [d for d in standing if key(d) == cluster]
            keeper = best(same)
            kept.append(keeper)
            expected |= {(d[0], int(kind), d[10], keeper[8], keeper[9]) for d in same if d is not keeper}
        standing = kept
    random.shuffle(documents)
    got = losers(np.array(documents, STANDING_ROW))
    assert got.dtype == LOSER
    assert {tuple(row.tolist()) for row in got} == expected
    assert len(got) == len(expected)


@given(rows_in_buckets, st.dictionaries(st.integers(0, 20), st.sampled_from([0.7, 0.8, 0.9])), st.randoms())
def test_rows_of_a_threshold_get_the_edges_that_they_would_get_alone(pairs, thresholds, random):
    """least by row, 0.7 unless drawn: one star a bucket around its first row by (least, row), and one within each threshold."""
    least = {row: thresholds.get(row, 0.7) for _, row in pairs}
    expected = set()
    for bucket in {bucket for bucket, _ in pairs}:
        rows = {row for b, row in pairs if b == bucket}
        for some in (rows, *({row for row in rows if least[row] == one} for one in set(least.values()))):
            hub = min(some, key=lambda row: (least[row], row), default=None)
            expected |= {(hub, row) for row in some if row != hub}
    random.shuffle(pairs)
    found = stars(np.array(pairs, BUCKET_ROW), np.array([least[row] for _, row in pairs], np.float32))
    edges = [tuple(map(int, edge)) for edge in found]
    assert edges == sorted(expected)
    for one in (0.7, 0.8, 0.9):
        alone = stars(np.array([pair for pair in pairs if least[pair[1]] == one], BUCKET_ROW))
        assert {tuple(map(int, edge)) for edge in alone} <= set(edges)
    # What has the lowest threshold of its bucket is asked of no other document first.
    assert all(least[hub] <= least[spoke] for hub, spoke in edges)
