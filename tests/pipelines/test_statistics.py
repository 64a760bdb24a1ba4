"""The report's statistics against plain counting over the tables, and their merging against order and grouping."""

from __future__ import annotations

import functools
import itertools
import json
import weakref
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.parts import list_parts
from pipelines.report import statistics
from pipelines.report.statistics import host_of, merge, top_hosts
from pipelines.store import Store
from pipelines.verify import load_plan


def _rows(run, table, source, columns):
    paths = sorted((run / table / source).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


@pytest.fixture(scope="module")
def stats(built):
    return json.loads((built / "stats.json").read_text())


@pytest.fixture(scope="module", params=["web", "wiki"])
def both(request, built, stats):
    """(statistics of a source, its rows of all tables side by side)."""
    source = request.param
    tables = [
        _rows(built, "documents", source, ["doc_id", "url", "text", "locator"]),
        _rows(built, "signals", source, ["text_bytes", "language", "quality", "n_tokens"]),
        _rows(built, "clusters", source, ["exact_cluster", "exact_size", "near_cluster", "near_size", "dropped_paragraphs"]),
    ]
    rows = [{**a, **b, **c} for a, b, c in zip(*tables, strict=True)]
    for variant in ("filtered", "unfiltered"):
        for row, decision in zip(rows, _rows(built, f"decisions/{variant}", source, None), strict=True):
            row[variant] = decision
    return stats["sources"][source], rows


def test_totals_are_those_of_the_rows(both):
    found, rows = both
    assert found["documents"] == len(rows)
    assert found["text_bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert found["judged_bytes"] == sum(row["text_bytes"] for row in rows)
    assert found["tokens"] == sum(row["n_tokens"] for row in rows)
    assert found["dropped_paragraphs"] == sum(len(row["dropped_paragraphs"] or ()) for row in rows)


def test_histograms_are_those_of_the_rows(both):
    found, rows = both
    chosen = {("all",): rows}
    for variant in ("filtered", "unfiltered"):
        chosen["variants", variant, "kept"] = [row for row in rows if row[variant]["verdict"] == "keep"]
    for path, some in chosen.items():
        profile = functools.reduce(lambda value, key: value[key], path, found)
        assert profile["documents"] == len(some)
        assert profile["bytes"] == sum(row["text_bytes"] for row in some)
        assert profile["languages"] == Counter(row["language"] or "und" for row in some)
        lengths = Counter(max(row["text_bytes"], 1).bit_length() - 1 for row in some)
        assert profile["lengths"] == [lengths[i] for i in range(32)]
        quality = Counter(min(round(float(np.float32(row["quality"])) * 10_000) // 200, 49) for row in some)
        assert profile["quality"] == [quality[i] for i in range(50)]


def test_tokens_by_verdict_sum_to_all(both):
    found, rows = both
    for variant in ("filtered", "unfiltered"):
        expected = Counter()
        for row in rows:
            expected[row[variant]["verdict"]] += row["n_tokens"]
        assert found["variants"][variant]["tokens"] == expected


def test_a_cluster_is_counted_once_with_its_size(both):
    found, rows = both
    for kind in ("exact", "near"):
        heads = [row for row in rows if row[f"{kind}_cluster"] == row["doc_id"]]
        sizes = Counter(row[f"{kind}_size"].bit_length() - 1 for row in heads)
        assert found["clusters"][kind] == [sizes[i] for i in range(24)]
        assert found["clustered"][kind] == sum(row[f"{kind}_size"] for row in heads)
        largest = sorted((-row[f"{kind}_size"], row["doc_id"].hex()) for row in heads)[:3]
        assert [(-one["size"], one["doc_id"]) for one in found["largest"][kind]] == largest


def test_samples_are_documents_with_that_verdict_and_its_number(both):
    found, rows = both
    by_id = {row["doc_id"].hex(): row for row in rows}
    for variant in ("filtered", "unfiltered"):
        samples = found["variants"][variant]["samples"]
        counts = Counter(row[variant]["verdict"] for row in rows)
        assert {verdict: len(some) for verdict, some in samples.items()} == {v: min(n, 3) for v, n in counts.items()}
        for verdict, some in samples.items():
            for one in some:
                row = by_id[one["doc_id"]]
                assert row[variant]["verdict"] == verdict
                assert (one["value"], one["threshold"]) == (row[variant]["value"], row[variant]["threshold"])
                assert (one["text"], one["cut"]) == (row["text"][:300], len(row["text"]) > 300)
                assert one["locator"] == row["locator"]


@pytest.mark.parametrize("source", ["web", "wiki"])
def test_samples_are_those_with_the_smallest_draws(stats, monkeypatch, built, source):
    """Whatever the parts are: more samples of each part lead to the same first ones."""
    monkeypatch.setattr(statistics, "_SAMPLES", 50)
    store = Store(str(built))
    parts = [part for part in list_parts(store, load_plan(store)) if part.source == source]
    many = merge(statistics.part_statistics(store, part, ["filtered"], 1) for part in parts)
    for verdict, some in stats["sources"][source]["variants"]["filtered"]["samples"].items():
        assert many["variants"]["filtered"]["samples"][verdict][:3] == some


def test_kept_tokens_of_the_draws_are_those_that_no_draw_took(stats, built):
    solved = json.loads((built / "decisions/filtered/resolved.json").read_text())["default"]
    rows = _rows(built, "decisions/filtered", "web", ["stage"])
    tokens = _rows(built, "signals", "web", ["n_tokens"])
    lost = sum(t["n_tokens"] for t, row in zip(tokens, rows, strict=True) if row["stage"] == "quality")
    found = stats["draws"]["filtered"]["default"]
    assert found["sources"] == ["web"]
    assert found["kept_tokens"] == solved["tokens"] - lost
    assert found["kept_tokens"] / found["tokens"] == pytest.approx(0.5, abs=0.15)  # one draw over 120 documents
    assert stats["draws"]["unfiltered"] == {}


def test_inputs_and_names_are_those_of_the_recipe(stats, inputs):
    files = [path for path in (inputs / "web").rglob("*") if path.is_file()]
    assert stats["inputs"]["web"] == {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    assert (stats["name"], stats["seed"], stats["variants"]) == ("tiny", 1, ["unfiltered", "filtered"])


def test_rules_are_listed_with_the_bounds_in_force(stats):
    assert stats["rules"]["unfiltered"] == {}
    assert stats["rules"]["filtered"]["gopher_words"] == {"signal": "words", "bounds": [[50, 100_000]]}


# -- merging ----------------------------------------------------------------------------------------------------------------

_documents = st.lists(
    st.builds(lambda order, number: {"order": order, "doc_id": f"{number:04x}"}, st.integers(-5, 5), st.integers(0, 60)),
    max_size=5,
    unique_by=lambda one: one["doc_id"],
)
_statistics = st.fixed_dictionaries(
    {
        "documents": st.integers(0, 10),
        "lengths": st.lists(st.integers(0, 9), min_size=4, max_size=4),
        "languages": st.dictionaries(st.sampled_from("abc"), st.integers(1, 5)),
        "samples": st.dictionaries(st.sampled_from("xy"), _documents),
        "largest": _documents,
    }
)


@given(st.lists(_statistics, min_size=1, max_size=4))
def test_no_order_and_no_grouping_of_parts_shows(parts):
    before = json.dumps(parts)
    ordered = [merge(some) for some in itertools.permutations(parts)]
    assert all(one == ordered[0] for one in ordered)
    if len(parts) == 4:
        a, b, c, d = parts
        assert merge([merge([a, b]), merge([c, d])]) == ordered[0]
    assert json.dumps(parts) == before


def test_parts_are_let_go_and_the_sum_is_not_copied():
    """So merging costs what the parts hold. A part is gone when the next but one comes; a mapping of the sum is looked at by the
    keys of each part, and by no others: here it refuses to be gone through.
    """

    class Part(dict):
        pass

    class Sum(dict):
        def __iter__(self):
            raise AssertionError("the sum is gone through")

        items = keys = values = copy = __iter__

    seen = []

    def read():
        for number in range(50):
            part = Part(hosts={f"{number}.example": 1, "all.example": 1})
            seen.append(weakref.ref(part))
            yield part
            del part
            assert not any(one() for one in seen[:-1])

    total = {"hosts": Sum()}
    for part in read():
        statistics._add(total, part)
        del part
    assert dict.__len__(total["hosts"]) == 51
    assert total["hosts"]["all.example"] == 50
    assert merge(read()) == {"hosts": {"all.example": 50, **{f"{number}.example": 1 for number in range(50)}}}


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 99), max_size=12))
def test_hosts_that_are_cut_are_counted_with_the_others(largest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_HOSTS", 5)
        found = top_hosts({"largest": largest, "others": 7, "without": 3})
    assert len(found["largest"]) == min(len(largest), 5)
    assert sum(found["largest"].values()) + found["others"] == sum(largest.values()) + 7
    left_out = max((count for host, count in largest.items() if host not in found["largest"]), default=0)
    assert all(count >= left_out for count in found["largest"].values())
    assert found["without"] == 3


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.ORG:80/x?y=http://other.example/", "example.org"),
        ("https://user:secret@example.org/", "example.org"),
        ("example.org/x", ""),
        ("http://[::1", ""),
        ("urn:uuid:1", ""),
        ("", ""),
    ],
)
def test_a_host_is_read_out_of_a_url(url, host):
    assert host_of(url) == host


def test_hosts_of_a_part_add_up():
    urls = pa.chunked_array([["http://a/1", "http://A/2", None, "http://b/", "no url"]])
    assert statistics._hosts(urls) == {"largest": {"a": 2, "b": 1}, "others": 0, "without": 2}


def test_counts_of_terms_merge_with_those_of_a_part_that_has_none():
    """A variant that keeps nothing of a part, or a part of which nothing is left after a purge."""
    some = {"terms": [1, 2], "kept": 1}
    for left, right in itertools.permutations([some, {"terms": [], "kept": 0}]):
        assert merge([left, right]) == some
    assert merge([some, some]) == {"terms": [2, 4], "kept": 2}
