"""A mixture through the whole build: asked against got, conservation, what moves and what stays, resume, two workers."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from pipelines.explain import explain, to_text
from pipelines.verify import verify
from tests import corpus
from tests.end_to_end.conftest import run_build
from tests.runs import TWO_THREADS, command, differing, hashes

TOKENS = 50_000
MIXTURE = f"mixture={{tokens: {TOKENS}, weights: {{web: 50, wiki: 50}}}}"
QUOTING = {"recipe.yaml", "stats.json", "report.html", "card.md", "manifest.json"}  # they say what the recipe says
ASIDE = {"fit", "report"}  # stages that are looked at in every build


@pytest.fixture(scope="module")
def mixed(built, inputs, tmp_path_factory):
    """The small corpus with a mixture, built over a run without one. Web has more than is wanted, wiki less."""
    run = tmp_path_factory.mktemp("mixed") / "run"
    shutil.copytree(built, run)
    run_build(inputs, run, [MIXTURE])
    return run


def _json(run, name):
    return json.loads((run / name).read_bytes())


def _decided(run, variant, source):
    """[(decision, tokens with the end of the document)] in order."""
    rows = []
    for path in sorted((run / "decisions" / variant / source).glob("*.parquet")):
        tokens = pq.read_table(run / "signals" / source / path.name, columns=["n_tokens"]).column(0).to_pylist()
        rows += zip(pq.read_table(path).to_pylist(), (count + 1 for count in tokens), strict=True)
    return rows


@pytest.mark.parametrize("variant", ["unfiltered", "filtered"])
def test_the_blend_hits_the_proportions(mixed, variant):
    """Within 1 point of what is asked, and within one document of each source's tokens; counted from the tables and shards."""
    trained, weight = defaultdict(float), defaultdict(float)
    for entry in _json(mixed, f"tokens/{variant}/blend.json")["train"]:
        source = entry["prefix"].split("/")[1].split("-")[0]
        trained[source] += entry["epochs"] * entry["tokens"]
        weight[source] += entry["weight"]
        assert (mixed / "tokens" / variant / (entry["prefix"] + ".bin")).stat().st_size == 2 * entry["tokens"]
    solved = _json(mixed, f"decisions/{variant}/mixture.json")
    for source, wanted in {"web": TOKENS // 2, "wiki": TOKENS // 2}.items():
        training = [(row, tokens) for row, tokens in _decided(mixed, variant, source) if row["split"] == "train"]
        kept = [tokens for row, tokens in training if row["verdict"] == "keep"]
        left = [tokens for row, tokens in training if row["verdict"] == "mixture"]
        longest = max(kept + left)
        assert solved[source]["available"] == sum(kept + left)
        assert solved[source]["taken"] == sum(kept)
        assert abs(trained[source] - wanted) < longest
        assert trained[source] / sum(trained.values()) == pytest.approx(0.5, abs=0.01)
        assert weight[source] == pytest.approx(0.5)
        assert bool(left) == (sum(kept + left) > wanted) == (source == "web")


def test_every_document_is_accounted_for_and_every_shard_verified(mixed):
    found = verify(str(mixed), deep=True)
    assert found.faults == []
    for variant, by_source in _json(mixed, "manifest.json")["accounts"]["variants"].items():
        dropped = by_source["web"]["dropped"]["mixture"]
        assert dropped == sum(row["verdict"] == "mixture" for row, _ in _decided(mixed, variant, "web")) > 0
        assert "mixture" not in by_source["wiki"]["dropped"]


def test_what_is_held_out_is_the_same_with_any_mixture(mixed, built):
    """Verdicts, shards and blend of validation."""
    before, after = hashes(built), hashes(mixed)
    shards = {name for name in before if "/validation/" in name and not name.endswith(".stats.json")}
    assert len(shards) == 16
    assert {name for name in shards if before[name] != after[name]} == set()
    for variant in ("unfiltered", "filtered"):
        blends = [_json(run, f"tokens/{variant}/blend.json")["validation"] for run in (built, mixed)]
        assert blends[0] == blends[1]
        for source in ("web", "wiki"):
            pairs = zip(_decided(built, variant, source), _decided(mixed, variant, source), strict=True)
            assert all(old == new for old, new in pairs if old[0]["split"] == "validation" or new[0]["verdict"] != "mixture")


def test_two_workers_from_nothing_and_a_rebuilt_run_have_the_same_bytes(mixed, inputs, tmp_path):
    run_build(inputs, tmp_path / "run", [MIXTURE], TWO_THREADS)
    assert differing(hashes(mixed), hashes(tmp_path / "run")) == set()


def test_a_mixture_moves_only_decisions_and_tokens_and_leaves_nothing_when_it_goes(mixed, built, inputs, tmp_path):
    before, after = hashes(built), hashes(mixed)
    moved = differing(before, after) - QUOTING
    allowed = ("decisions/", "tokens/", "statistics/", "croissant.json")
    assert {name for name in moved if not name.startswith(allowed)} == set()
    run = tmp_path / "run"
    shutil.copytree(mixed, run)
    run_build(inputs, run)
    assert differing(before, hashes(run)) == set()


def _redone(said):
    return {line.split()[0]: line.split()[1] for line in said if line.split()[0] not in ASIDE}


def test_the_scale_of_weights_and_the_limit_of_epochs_redo_nothing(mixed, inputs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(mixed, run)
    again = f"mixture={{tokens: {TOKENS}, weights: {{web: 0.5, wiki: 0.5}}, max_epochs: 1.5}}"
    _, said = run_build(inputs, run, [again])
    assert set(_redone(said).values()) == {"0"}
    assert differing(hashes(mixed), hashes(run)) == QUOTING
    assert "Running dry" in (run / "report.html").read_text("utf-8")
    assert "Running dry" not in (mixed / "report.html").read_text("utf-8")


def test_other_weights_decide_anew_and_write_only_the_shards_that_they_touch(mixed, inputs, tmp_path):
    """Wiki stands whole in its shards either way: only its epochs move."""
    run = tmp_path / "run"
    shutil.copytree(mixed, run)
    _, said = run_build(inputs, run, [f"mixture={{tokens: {TOKENS}, weights: {{web: 40, wiki: 60}}}}"])
    redone = _redone(said)
    assert redone["select"] == "18"
    assert redone["tokenize"] == "2"
    moved = {name for name in differing(hashes(mixed), hashes(run)) if "wiki" in name and not name.endswith(".stats.json")}
    assert moved == set()
    epochs = {entry["epochs"] for entry in _json(run, "tokens/filtered/blend.json")["train"] if "/wiki" in entry["prefix"]}
    assert epochs == {30_000 / _json(run, "decisions/filtered/mixture.json")["wiki"]["available"]}


@pytest.mark.parametrize("lost", ["decisions/filtered/mixture.json.stats.json", "decisions/filtered/resolved.json.stats.json"])
def test_a_build_that_died_goes_on_where_it_stopped(mixed, inputs, tmp_path, lost):
    """A solution without its sidecar is unfinished: the variant is decided again, to the same bytes."""
    run = tmp_path / "run"
    shutil.copytree(mixed, run)
    (run / lost).unlink()
    _, said = run_build(inputs, run, [MIXTURE])
    assert (_redone(said)["select"], _redone(said)["tokenize"]) == ("9", "0")
    assert differing(hashes(mixed), hashes(run)) == set()


def test_a_source_of_weight_0_is_left_out_of_training_and_still_held_out(mixed, inputs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(mixed, run)
    run_build(inputs, run, [f"mixture={{tokens: {TOKENS}, weights: {{web: 1, wiki: 0}}}}"])
    blends = _json(run, "tokens/unfiltered/blend.json")
    assert not any("wiki" in entry["prefix"] for entry in blends["train"])
    assert any("wiki" in entry["prefix"] for entry in blends["validation"])
    assert sum(entry["weight"] for entry in blends["train"]) == pytest.approx(1)
    assert {row["verdict"] for row, _ in _decided(run, "unfiltered", "wiki") if row["split"] == "train"} == {"mixture"}
    assert _json(run, "decisions/unfiltered/mixture.json")["wiki"]["bound"] == 0.0
    assert 'class="alarm"' not in (run / "report.html").read_text("utf-8")  # asked for, so nothing to be alarmed about
    assert verify(str(run)).faults == []


def test_explain_names_the_draw_and_the_bound(mixed):
    part = sorted((mixed / "decisions/unfiltered/web").glob("*.parquet"))[0]
    place = [row["verdict"] for row in pq.read_table(part).to_pylist()].index("mixture")
    doc_id = pq.read_table(mixed / "documents/web" / part.name, columns=["doc_id"]).column(0)[place].as_py().hex()
    (found,) = explain(str(mixed), doc_id)
    verdict = next(one for one in found.verdicts if one.variant == "unfiltered")
    bound = _json(mixed, "decisions/unfiltered/mixture.json")["web"]["bound"]
    assert (verdict.verdict, verdict.stage, verdict.threshold) == ("mixture", "mixture", bound)
    assert verdict.value >= bound
    assert f"unfiltered: dropped at mixture: mixture, {verdict.value:.4g} against {bound:.4g}" in to_text(found)


def test_plan_beside_a_run_with_a_mixture_says_what_there_was_before_it(mixed, built, inputs, tmp_path):
    """The command, as text and as JSON; a run with a mixture and the run without it have the same to offer."""
    (tmp_path / "r.yaml").write_text(corpus.recipe(inputs))
    arguments = ["plan", str(tmp_path / "r.yaml"), "--set", MIXTURE, "--run"]
    told = [json.loads(command([*arguments, str(run), "--json"]).stdout)["mixture"] for run in (mixed, built)]
    assert told[0] == told[1]
    available = {source: one["available"] for source, one in _json(mixed, "decisions/filtered/mixture.json").items()}
    assert {source: one["available"] for source, one in told[0]["variants"]["filtered"].items()} == available
    printed = command([*arguments, str(mixed)]).stdout
    assert f"mixture of {TOKENS:,} tokens\nsource " in printed
    assert f"{available['web']:,}" in printed


def test_the_report_shows_asked_and_got(mixed):
    stats = _json(mixed, "stats.json")["mixture"]
    assert (stats["tokens"], stats["max_epochs"]) == (TOKENS, 4.0)
    page = (mixed / "report.html").read_text("utf-8")
    assert 'id="mixture"' in page
    accounts = _json(mixed, "manifest.json")["accounts"]["variants"]
    for variant, by_source in stats["variants"].items():
        assert sum(one["got"] for one in by_source.values()) == pytest.approx(1)
        for source, one in by_source.items():
            assert one["in_shards"] == accounts[variant][source]["tokens"]["train"]
            assert one["got"] == pytest.approx(one["asked"], abs=0.01)
            for number in (one["available"], one["in_shards"], one["trained"]):
                assert f">{number:,}<" in page
