"""What crosses each shuffle of the real jobs, counted: 16 to 40 bytes a document, band or paragraph, and never text.

Every `GroupByKey` of a whole build is led past a counter. The counts that follow from the finished tables are asserted to
the byte; the candidate pairs, which exist only inside the job, by their caps in the docstrings of `cluster` and `select`.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.internal import pickler

from pipelines import mixture
from pipelines.dedup.near import ROUNDS
from quality import sampling
from tests.invariants.conftest import build_varied
from tests.runs import ONE_WORKER

BANDS, PERMUTATIONS = 14, 112
SENT: Counter[str] = Counter()  # bytes of values by the shuffle's label; one worker in this process
KEYS: Counter[str] = Counter()  # elements

_GROUP = beam.GroupByKey


def _count(element, label):
    key, value = element
    assert type(key) is int, label
    assert type(value) is bytes, label
    SENT[label] += len(value)
    KEYS[label] += 1
    return element


def _count_listed(element, label):
    SENT[label] += len(pickler.dumps(element))
    KEYS[label] += 1
    return element


class _CountedGroup(beam.PTransform):
    def expand(self, values):
        label = values.pipeline._current_transform().full_label
        if "/Spread" in label:  # what a job is told of its work: see beam_parts.spread
            return values | beam.Map(_count_listed, label) | _GROUP()
        return values | beam.Map(_count, label).with_output_types(tuple[int, bytes]) | _GROUP()


@pytest.fixture(scope="module")
def run(varied, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("counted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "GroupByKey", _CountedGroup)
        SENT.clear()
        KEYS.clear()
        build_varied(varied, run, ONE_WORKER)
    return run


def _table(run, table, column):
    paths = sorted((run / table).rglob("*.parquet"))
    return [value for path in paths for value in pq.read_table(path, columns=[column]).column(0).to_pylist()]


def test_the_counting_changed_nothing(run, reference):
    manifests = [json.loads((folder / "manifest.json").read_text("utf-8")) for folder in (run, reference)]
    assert manifests[0]["files"] == manifests[1]["files"]


def test_every_shuffle_is_counted(run):
    """A shuffle that is new stands here with its bytes, or fails: cluster's, select's, and the rounds of near."""
    fixed = {"ExactGroups", "ParagraphGroups", "BandGroups", "AllEdges", "MemberParts", "Roots", "ByCluster", "ByVariant", "ByPart"}
    rounds = {f"{name}{number}" for name in ("HubParts", "SpokeParts", "Failed") for number in range(ROUNDS)}
    groups = {label for label in SENT if "/Spread" not in label}
    assert fixed | {"HubParts0", "SpokeParts0"} <= groups <= fixed | rounds


def test_documents_and_paragraphs_cost_what_the_docstring_says(run):
    documents = len(_table(run, "documents", "doc_id"))
    signed = sum(signature is not None for signature in _table(run, "documents", "signature"))
    web = run / "documents" / "web"
    paragraphs = sum(
        int(np.count_nonzero(hashes))
        for path in sorted(web.rglob("*.parquet"))
        for hashes in pq.read_table(path, columns=["paragraph_hashes"]).column(0).to_pylist()
    )
    assert documents > 90
    assert SENT["ExactGroups"] == 40 * documents
    assert SENT["BandGroups"] == 16 * BANDS * signed
    assert SENT["ParagraphGroups"] == 36 * paragraphs


def test_near_costs_by_pair_and_by_member_of_a_cluster(run):
    members = sum(cluster is not None for cluster in _table(run, "clusters", "near_cluster"))
    assert members > 20
    assert SENT["MemberParts"] == 16 * members
    assert SENT["Roots"] == (32 + 2 * PERMUTATIONS) * members
    candidates = SENT["HubParts0"] // 16  # an edge for every bucket that two documents share
    assert members - members // 2 <= candidates <= BANDS * members * members
    assert SENT["SpokeParts0"] % (16 + 2 * PERMUTATIONS) == 0
    assert SENT["SpokeParts0"] // (16 + 2 * PERMUTATIONS) <= candidates
    assert SENT["AllEdges"] // 16 <= candidates
    assert sum(SENT[label] for label in SENT if label.startswith("Failed")) <= 16 * BANDS * candidates


def test_what_returns_to_the_parts_is_forty_bytes_a_fact_and_a_loser_thirty_two(run):
    """cluster and select both end with a shuffle `ByPart`; their labels are one in this count."""
    facts = sum(cluster is not None for name in ("exact_cluster", "near_cluster") for cluster in _table(run, "clusters", name))
    facts += sum(len(dropped or ()) for dropped in _table(run, "clusters", "dropped_paragraphs"))
    keepers = [keeper for name in ("unfiltered", "filtered") for keeper in _table(run, f"decisions/{name}", "duplicate_of")]
    lost = sum(keeper is not None for keeper in keepers)
    assert facts > 60
    assert lost > 10
    assert SENT["ByPart"] == 40 * facts + 32 * lost


def test_select_sends_standing_members_and_one_histogram_a_part(run):
    clustered = sum(
        exact is not None or near is not None
        for exact, near in zip(_table(run, "clusters", "exact_cluster"), _table(run, "clusters", "near_cluster"), strict=True)
    )
    drawn = len(list((run / "documents" / "web").rglob("*.parquet")))  # wiki teaches the classifier and is not drawn from
    assert 0 < SENT["ByCluster"] <= 2 * 72 * clustered
    assert SENT["ByCluster"] % 72 == 0
    assert SENT["ByVariant"] == 8 * (1 + sampling.BINS) * drawn  # one variant with a draw


def test_a_mixture_sends_a_histogram_a_part_and_sixteen_bytes_a_document_of_the_deciding_bin(varied, run, tmp_path):
    """web is cut in both variants, wiki in neither: of the documents only those of web's deciding bin travel."""
    from pipelines.build import build
    from pipelines.recipe_file import load

    mixed = tmp_path / "run"
    shutil.copytree(run, mixed)
    before = (SENT.copy(), KEYS.copy())
    SENT.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "GroupByKey", _CountedGroup)
        recipe, base = load(str(varied / "recipe.yaml"), ["mixture={tokens: 20000, weights: {web: 1, wiki: 3}}"])
        build(recipe, base, str(mixed), ONE_WORKER, lambda line: None)
    sent = SENT.copy()
    for counter, earlier in zip((SENT, KEYS), before, strict=True):
        counter.clear()
        counter.update(earlier)
    assert {label for label in sent if "/Spread" not in label} == {"ByCluster", "ByPart", "ByVariant", "ByMixture", "ByDecidingBin"}
    parts = len(list((mixed / "documents").rglob("*.parquet")))
    assert sent["ByMixture"] == 2 * 8 * (1 + mixture.BINS) * parts
    deciding = 0
    for variant in ("unfiltered", "filtered"):
        solved = json.loads((mixed / f"decisions/{variant}/mixture.json").read_bytes())
        assert [solved[source]["epochs"] < 1 for source in ("web", "wiki")] == [True, False]
        last = int((solved["web"]["bound"] - 2.0**-53) * mixture.BINS)  # the bin of the last document that is taken
        ids = np.array([list(doc_id) for doc_id in _table(mixed, "documents/web", "doc_id")], np.uint8)
        there = mixture.bin_of(sampling.uniform(ids, recipe.seed, mixture.PURPOSE)) == last
        decided = f"decisions/{variant}/web"
        verdicts, splits = (np.array(_table(mixed, decided, column)) for column in ("verdict", "split"))
        deciding += int((there & np.isin(verdicts, ["keep", "mixture"]) & (splits == "train")).sum())
    assert sent["ByDecidingBin"] == 16 * deciding
    assert 2 <= deciding < 10  # of 120 documents; one in 4,096 of a large corpus


def test_lists_of_parts_stay_small(run):
    """What a worker is told of its work: names and numbers, under 4 KB a part, task or shard."""
    listed = {label: SENT[label] / KEYS[label] for label in SENT if "/Spread" in label}
    assert listed
    assert {label: size for label, size in listed.items() if size > 4096} == {}
