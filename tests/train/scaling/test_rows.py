"""A CSV of measurements: what is read, in which order, and one line for everything that is wrong with it."""

from __future__ import annotations

import gzip
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from train.scaling.resample import counts, counts_by_group, interval
from train.scaling.rows import need_distinct, need_rows, read

GOOD = "params,tokens,loss,set\n2e6,3e8,4.0,a\n1e6,1e8,5.0,a\n1e6,2e8,4.5,b\n"
THREE = ("params", "tokens", "loss")


@pytest.fixture
def csv(tmp_path):
    def write(text, name="runs.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize("name", ["runs.csv", "runs.csv.gz"])
def test_rows_come_sorted_by_their_values(csv, name):
    rows = read(csv(GOOD, name), THREE, {}, {})
    assert rows["params"].tolist() == [1e6, 1e6, 2e6]
    assert rows["tokens"].tolist() == [1e8, 2e8, 3e8]
    assert rows["loss"].tolist() == [5.0, 4.5, 4.0]


def test_columns_by_other_names_and_a_choice_of_rows(csv):
    rows = read(csv(GOOD), ("params", "loss"), {"params": "tokens"}, {"set": "a"})
    assert rows["params"].tolist() == [1e8, 3e8]
    assert len(rows) == 2


def test_tokens_and_flops_fill_each_other_in(csv):
    """C = 6 N D."""
    from_flops = read(csv("params,flops,loss\n1e6,6e14,5\n"), THREE, {}, {})
    assert from_flops["tokens"].tolist() == [1e8]
    from_tokens = read(csv(GOOD), ("params", "flops", "loss"), {}, {"set": "b"})
    assert from_tokens["flops"].tolist() == [6 * 1e6 * 2e8]


def test_runs_are_text(csv):
    rows = read(csv("run,params,tokens,loss\nsmall,1,2,3\nbig,4,5,6\n"), ("run", *THREE), {}, {})
    assert rows.runs == ("big", "small")
    assert rows["loss"].tolist() == [6.0, 3.0]


@pytest.mark.parametrize(
    ("text", "columns", "where", "message"),
    [
        ("", {}, {}, "empty; the first line names the columns"),
        ("params,tokens,loss\n", {}, {}, "no rows"),
        (GOOD, {}, {"set": "c"}, "no rows with set=c"),
        (GOOD, {}, {"kind": "c"}, "no column 'kind', only params, tokens, loss, set"),
        ("n,tokens,loss\n1,1,1\n", {}, {}, "no column 'params', only n, tokens, loss; name it with --column params=NAME"),
        (GOOD, {"loss": "nll"}, {}, "no column 'nll', only params, tokens, loss, set; name it with --column loss=NAME"),
        (GOOD, {"size": "params"}, {}, "size: no column that a fit reads; these are: params, tokens, flops, loss, experts, run"),
        ("params,tokens,loss\n1e6,1e8,5\n1e6,,4\n", {}, {}, "line 3: tokens is ''; it must be a number above 0"),
        ("params,tokens,loss\n1e6,1e8,-5\n", {}, {}, "line 2: loss is '-5'; it must be a number above 0"),
        ("params,tokens,loss\n0,1e8,5\n", {}, {}, "line 2: params is '0'; it must be a number above 0"),
        ("params,tokens,loss\n1,1e8,nan\n", {}, {}, "line 2: loss is 'nan'; it must be a number above 0"),
        ("params,tokens,loss\n1,inf,5\n", {}, {}, "line 2: tokens is 'inf'; it must be a number above 0"),
        ("params,tokens,loss\n1,2\n", {}, {}, "line 2 has 2 values, the header 3"),
        ("params,params,loss\n1,2,3\n", {}, {}, "column 'params' stands twice in the header"),
        ('params,tokens,loss\n"1,2,3\n', {}, {}, "not a CSV file (unexpected end of data)"),
    ],
)
def test_what_is_wrong_is_one_line(csv, text, columns, where, message):
    path = csv(text)
    with pytest.raises(UserError) as error:
        read(path, THREE, columns, where)
    assert str(error.value) in (f"{path}: {message}", message)


def test_files_that_are_none(csv, tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read \(No such file or directory\); give a CSV"):
        read(str(tmp_path / "none.csv"), THREE, {}, {})
    broken = tmp_path / "runs.csv.gz"
    broken.write_bytes(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(UserError, match=r"not a CSV file|cannot be read"):
        read(str(broken), THREE, {}, {})
    binary = tmp_path / "runs.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a CSV file"):
        read(str(binary), THREE, {}, {})


def test_too_few_rows_and_all_at_one_size(csv):
    path = csv("params,tokens,loss\n1e6,1e8,5\n1e6,2e8,4\n")
    rows = read(path, THREE, {}, {})
    with pytest.raises(UserError, match="2 rows; this fit needs at least 10"):
        need_rows(rows, 10)
    with pytest.raises(UserError, match=r"all rows have params 1e\+06; this fit needs at least 3"):
        need_distinct(rows, "params", 3)
    with pytest.raises(UserError, match="only 2 different values of tokens; this fit needs at least 3"):
        need_distinct(rows, "tokens", 3)


@given(st.integers(0, 2**32))
def test_the_order_of_the_file_changes_nothing(tmp_path_factory, seed):
    head, *lines = GOOD.splitlines()
    random.Random(seed).shuffle(lines)
    path = tmp_path_factory.mktemp("rows") / "runs.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    assert {name: column.tolist() for name, column in read(str(path), THREE, {}, {}).values.items()} == {
        "params": [1e6, 1e6, 2e6], "tokens": [1e8, 2e8, 3e8], "loss": [5.0, 4.5, 4.0],
    }  # fmt: skip


# -- resamples --------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**40), resample=st.integers(0, 10**6), size=st.integers(1, 300))
def test_a_resample_draws_as_many_rows_as_there_are_and_is_the_same_every_time(seed, resample, size):
    drawn = counts(seed, resample, size)
    assert drawn.shape == (size,)
    assert drawn.sum() == size
    assert drawn.tolist() == counts(seed, resample, size).tolist()


def test_these_are_the_resamples_of_seed_0():
    """Pinned: an interval that is printed today must be printed tomorrow, on any machine and library version."""
    assert counts(0, 0, 8).tolist() == [0, 1, 1, 1, 3, 0, 0, 2]
    assert counts(0, 1, 8).tolist() == [1, 0, 1, 1, 1, 0, 2, 2]


def test_draws_are_uniform():
    """4,000 resamples of 10 rows: each row's mean count is 1 within 5 standard errors, sqrt(.9 / 4000); the variance is .9."""
    drawn = np.array([counts(7, number, 10) for number in range(4000)])
    assert np.abs(drawn.mean(0) - 1).max() < 5 * (0.9 / 4000) ** 0.5
    assert np.abs(drawn.var(0) - 0.9).max() < 0.1
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.08


@given(groups=st.lists(st.integers(0, 4), min_size=1, max_size=40), resample=st.integers(0, 99))
def test_groups_keep_their_size(groups, resample):
    drawn = counts_by_group(3, resample, groups)
    for group in set(groups):
        assert sum(count for count, label in zip(drawn, groups, strict=True) if label == group) == groups.count(group)


def test_the_interval_is_the_middle_95_percent():
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
