"""diff against the tables of both runs, joined by hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from pipelines.diff import Difference, diff
from tests import corpus
from tests.runs import run_build


@pytest.fixture(scope="module")
def edited(built, inputs, tmp_path_factory):
    """The run of the small corpus with another keep rate and an input more."""
    folder = tmp_path_factory.mktemp("edited")
    shutil.copytree(built, folder / "run")
    shutil.copytree(inputs, folder / "inputs")
    rows = [{"id": f"new {n}", "text": corpus.prose(f"new {n}", True)} for n in range(4)]
    (folder / "inputs" / "wiki" / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_build(folder / "inputs", folder / "run", ["variants.filtered.default.quality.keep_rate=0.2"])
    return folder / "run"


@pytest.fixture(scope="module")
def found(built, edited) -> Difference:
    return diff(str(built), str(edited))


def _verdicts(run, variant):
    found = {}
    for path in sorted((run / "documents").rglob("*.parquet")):
        decided = run / "decisions" / variant / path.relative_to(run / "documents")
        ids = pq.read_table(path, columns=["doc_id"]).column(0).to_pylist()
        found.update(zip(ids, pq.read_table(decided, columns=["verdict"]).column(0).to_pylist(), strict=True))
    return found


def test_changed_verdicts_are_those_of_the_joined_tables(found, built, edited):
    for variant in ("filtered", "unfiltered"):
        left, right = _verdicts(built, variant), _verdicts(edited, variant)
        expected = Counter((left[i], right[i]) for i in left.keys() & right.keys() if left[i] != right[i])
        got = {(one.left, one.right): one.documents for one in found.changes if one.variant == variant}
        assert got == expected
        for one in found.changes:
            if one.variant == variant:
                assert len(one.examples) == min(one.documents, 5)
                ids = [bytes.fromhex(example["doc_id"]) for example in one.examples]
                assert {(left[i], right[i]) for i in ids} == {(one.left, one.right)}
    assert ("keep", "quality_draw") in {(one.left, one.right) for one in found.changes}


def test_an_example_names_source_and_locator(found, built):
    example = found.changes[0].examples[0]
    rows = [
        (row["doc_id"].hex(), row["source"], row["locator"])
        for path in (built / "documents").rglob("*.parquet")
        for row in pq.read_table(path, columns=["doc_id", "source", "locator"]).to_pylist()
    ]
    assert (example["doc_id"], example["source"], example["locator"]) in rows


def test_documents_are_matched_by_id(found, built, edited):
    assert found.documents == (0, 250, 4)
    assert diff(str(edited), str(built)).documents == (4, 250, 0)


def test_only_the_recipes_changed_key_is_listed(found):
    changed = dict(found.recipe)
    # The inputs lie in another folder, so their paths differ too.
    assert changed.pop("variants.filtered.default.quality.keep_rate") == (0.5, 0.2)
    assert set(changed) <= {"sources.web.paths", "sources.web.root", "sources.wiki.paths"}


def test_counts_and_distributions_list_what_differs(found):
    counts = {(variant, source, what): (left, right) for variant, source, what, left, right in found.counts}
    assert counts["", "wiki", "records"] == (75, 79)
    assert counts["", "wiki", "documents"] == (75, 79)
    assert ("", "web", "records") not in counts
    left, right = counts["filtered", "web", "kept"]
    assert right < left
    assert set(found.distributions) >= {"all: lengths", "filtered: quality", "filtered: lengths"}
    assert sum(row[2] - row[1] for row in found.distributions["all: lengths"]) == 4
    assert all(row[1] != row[2] for rows in found.distributions.values() for row in rows)


def test_text_and_json_say_the_same(found):
    text = found.to_text()
    assert "documents: 250 in both, 0 only left, 4 only right" in text
    assert "variants.filtered.default.quality.keep_rate" in text
    change = found.changes[0]
    assert f"filtered: {change.documents:,} documents, {change.left} -> {change.right}" in text
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["changes"][0]["documents"] == change.documents
    assert list(plain) == ["recipe", "counts", "distributions", "documents", "changes", "variants"]
    assert plain["variants"] == ["filtered", "unfiltered"]


def test_a_run_does_not_differ_from_itself(built):
    same = diff(str(built), str(built))
    assert (same.recipe, same.counts, same.distributions, same.documents, same.changes) == ({}, [], {}, (0, 250, 0), [])
    assert same.to_text() == "documents: 250 in both, 0 only left, 0 only right\n\nno difference"


def test_runs_without_a_common_variant_are_compared_in_all_else(built, tmp_path):
    """A variant that was renamed: manifest, statistics and decisions name it otherwise, and nothing else differs."""
    shutil.copytree(built, tmp_path / "run")
    for name in ("manifest.json", "stats.json"):
        text = (tmp_path / "run" / name).read_text()
        (tmp_path / "run" / name).write_text(text.replace('"filtered"', '"other"').replace('"unfiltered"', '"all"'))
    shutil.rmtree(tmp_path / "run" / "decisions")
    found = diff(str(built), str(tmp_path / "run"))
    assert (found.documents, found.changes, found.variants) == ((0, 250, 0), [], [])
    assert sorted(found.recipe) == [f"variants.{name}" for name in ("all", "filtered", "other", "unfiltered")]
    assert {variant for variant, *_ in found.counts} == {"all", "filtered", "other", "unfiltered"}
    assert found.distributions == {}
    first, second = found.to_text().splitlines()[:2]
    assert (first, second) == (
        "documents: 250 in both, 0 only left, 0 only right",
        "no variant is in both: no verdict was compared",
    )
