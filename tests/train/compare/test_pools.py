"""Pools are held to brute force over plain lists, and to what their names promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.recipe import Draw
from pipelines.select_settings import VariantSettings
from quality import sampling
from train.compare import pools
from train.compare.documents import Rows

PARETO = Draw(draw="pareto", alpha=9.0, keep_rate=0.3)


def rows_of(tokens, sources=None, quality=None, seed=1) -> Rows:
    count = len(tokens)
    draw = np.random.Generator(np.random.PCG64(seed))
    return Rows(
        ("mail", "pages"),
        np.array(sources if sources is not None else [0] * count, np.int64),
        np.arange(count, dtype=np.int64),
        np.array(tokens, np.int64),
        np.array(quality if quality is not None else np.round(draw.random(count), 4), np.float32),
        draw.integers(0, 256, (count, 16), dtype=np.uint8),
    )


def variant(draws) -> VariantSettings:
    class Policy:
        quality = PARETO

    return VariantSettings("filtered", (), {source: Policy() for source in draws}, draws)  # type: ignore[arg-type]


some_rows = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1), st.integers(0, 10_000)), min_size=1, max_size=60).map(
    lambda rows: rows_of([row[0] for row in rows], [row[1] for row in rows], [row[2] / 1e4 for row in rows])
)


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(0, 120))
def test_the_nearest_prefix_is_the_best_of_all_prefixes(tokens, wanted):
    found = pools.nearest_prefix(np.array(tokens, np.int64), wanted)
    misses = [abs(sum(tokens[:n]) - wanted) for n in range(len(tokens) + 1)]
    assert found == misses.index(min(misses))


@given(some_rows, st.integers(0, 400))
def test_drawn_rows_are_the_first_by_hash_and_stand_in_their_order(rows, wanted):
    found = pools.drawn(rows, wanted, 7, "a purpose")
    hashes = sampling.uniform(rows.doc_id_R, 7, "a purpose")
    taken = np.isin(rows.row_R, found.row_R)
    assert list(found.row_R) == sorted(found.row_R)
    assert hashes[taken].max(initial=0) <= hashes[~taken].min(initial=1)
    prefixes = np.cumsum([0, *rows.tokens_R[np.argsort(hashes, kind="stable")]])
    assert abs(found.tokens - wanted) == np.abs(prefixes - wanted).min()


def test_a_larger_draw_holds_a_smaller_one():
    rows = rows_of(range(1, 200))
    small, large = pools.drawn(rows, 500, 1, "x"), pools.drawn(rows, 5000, 1, "x")
    assert set(small.row_R) < set(large.row_R)


def test_a_fraction_has_that_share_of_tokens():
    rows = rows_of([10] * 640)
    assert pools.fraction(rows, 8, 1, 1).tokens == 800
    assert pools.fraction(rows, 64, 1, 1).tokens == 100


@settings(max_examples=60)
@given(some_rows, st.integers(0, 2**32))
def test_matched_has_each_cell_of_source_and_length_as_the_first_arm_to_a_document(second, seed):
    chosen = np.random.Generator(np.random.PCG64(seed)).random(len(second)) < 0.4
    first = second.take(chosen)
    found = pools.matched(first, second, 3, 1)
    cells, taken = pools.length_cells(second, first)
    mine = cells[np.isin(second.row_R, found.row_R)]
    for cell in np.unique(cells):
        wanted, got = first.tokens_R[taken == cell].sum(), found.tokens_R[mine == cell].sum()
        assert abs(wanted - got) <= second.tokens_R[cells == cell].max()
        if wanted == second.tokens_R[cells == cell].sum():
            assert got == wanted


def test_a_source_that_the_second_arm_lacks_is_matched_by_nothing():
    """Its tokens are asked of no cell: what is drawn of the other source is as if it were not there."""
    second = rows_of([*range(1, 101)], [1] * 100)
    first = rows_of([*range(51, 101), *range(1, 51)], [1] * 50 + [0] * 50)
    with_it, without = (pools.matched(one, second, 3, 1) for one in (first, first.take(np.arange(50))))
    assert with_it.row_R.tolist() == without.row_R.tolist()
    assert abs(without.tokens - first.tokens_R[:50].sum()) <= 100


def test_length_cells_are_tenths_of_each_source():
    rows = rows_of([*range(1, 101), *range(1001, 1101)], [0] * 100 + [1] * 100)
    cells, _ = pools.length_cells(rows, rows)
    assert np.bincount(cells).tolist() == [10] * 20


def test_draws_without_a_look_are_others_for_every_run():
    rows = rows_of([10] * 1000)
    first = rows.take(np.arange(300))
    for draw in (pools.random, pools.matched):
        one, two = (draw(first, rows, 1, number) for number in (1, 2))
        assert one.tokens == two.tokens == 3000
        assert 40 < len(set(one.row_R) & set(two.row_R)) < 140  # 90 by chance


def test_matched_takes_no_notice_of_quality():
    quality = np.linspace(0, 1, 1000)
    second = rows_of([20] * 1000, quality=quality)
    found = pools.matched(second.take(quality > 0.7), second, 1, 1)
    assert len(found) == 300
    assert 0.4 < found.quality_R.mean() < 0.6


def test_cut_takes_the_best_of_every_draw():
    second = rows_of([10] * 100, [0] * 50 + [1] * 50, [n / 100 for n in range(100)])
    first = second.take(np.arange(0, 100, 5))  # ten of each source
    together = pools.cut(first, second, variant({"mail": "default", "pages": "default"}), 1)
    assert list(together.row_R) == list(range(80, 100))
    apart = pools.cut(first, second, variant({"mail": "mail", "pages": "pages"}), 1)
    assert list(apart.row_R) == [*range(40, 50), *range(90, 100)]


def test_sources_without_a_draw_stay_as_they_are():
    second = rows_of([10] * 100, [0] * 50 + [1] * 50, [n / 100 for n in range(100)])
    first = second.take(np.array([1, 2, 3, 60, 70, 80]))
    for found in (
        pools.cut(first, second, variant({"pages": "pages"}), 1),
        pools.second_draw(first, second, variant({"pages": "pages"}), 1, "quality"),
    ):
        assert [row for row in found.row_R if row < 50] == [1, 2, 3]


def test_the_draw_with_the_same_scores_is_the_recipes_own_draw():
    """Reference: the law and its hash as select applies them (quality/sampling.py)."""
    second = rows_of([10] * 4000)
    histogram = np.zeros(sampling.BINS, np.int64)
    np.add.at(histogram, sampling.quality_bin(second.quality_R), second.tokens_R)
    shift = sampling.solve_shift(histogram, 9.0, 0.3)
    exact = second.quality_R.astype(np.float64)
    kept = sampling.uniform(second.doc_id_R, 5, "quality") < sampling.keep_probability(exact, 9.0, shift)
    first = second.take(kept)
    found = pools.second_draw(first, second, variant({"mail": "default"}), 5, "quality")
    # The rate is what the first draw got, not what it was asked for: a handful of documents at the border differ.
    assert len(set(found.row_R) ^ set(first.row_R)) <= 0.02 * len(first)


def test_other_scores_choose_other_documents_of_the_same_amount():
    second = rows_of([10] * 4000)
    first = second.take(second.quality_R > 0.7)
    other = second.with_quality(1 - second.quality_R)
    found = pools.second_draw(first, other, variant({"mail": "default"}), 5, "quality")
    assert abs(found.tokens - first.tokens) < 0.06 * first.tokens
    assert second.quality_R[found.row_R].mean() < 0.45


@pytest.mark.parametrize(("tokens", "sequences"), [(0, 0), (1, 0), (32, 0), (33, 1), (64, 1), (65, 2)])
def test_whole_sequences_only(tokens, sequences):
    assert pools.sequences_of(tokens, 32) == sequences
