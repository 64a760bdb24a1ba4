"""Whole comparisons of a small run: a built-in effect is found and none is invented, interruptions change nothing, faults are told.

In the small corpus a quarter of the web is written in the style of the curated source; what is judged on is written in it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.errors import CheckError, UserError
from pipelines.shards import open_shard
from pipelines.store import read_columns
from tests.runs import REPOSITORY, command
from tests.train.compare import comparisons
from train import fleet
from train.compare import comparison, earlier, jobs, runner, worker
from train.compare.documents import Run, read_rows, read_texts
from train.compare.jobs import Arm
from train.compare.pool_files import GLAM
from train.compare.prepare import prepare

SHORT = {**comparisons.MODEL, "model": {**comparisons.MODEL["model"], "context": 16}}
TASKS = str(Path(__file__).parent / "tasks")  # three items, no prompt, a word


def quiet(text: str) -> None:
    """Says nothing."""


def compared(run, settings, **more):
    """Trains in this process what is not done, then compares."""
    comparisons.train_all(prepare(str(run), settings))
    return comparison.compare(str(run), quiet, settings, **more)


@pytest.fixture(scope="module")
def whole(comparable, tmp_path_factory):
    """A comparison of five seeds with an A/A control; (folder of the run, what it told)."""
    folder = tmp_path_factory.mktemp("whole")
    run = shutil.copytree(comparable, folder / "run")
    sets = comparisons.write_sets(folder / "sets")
    asked = comparisons.settings(sets, seeds=5, tokens=16384, controls=["random", "matched"], max_epochs=10)
    return run, compared(run, asked)


def test_a_built_in_effect_is_found_and_put_down_to_quality(whole):
    found = {one["name"]: one for one in whole[1]["result"]["contrasts"]}
    assert found["primary"]["endpoint"]["verdict"] == "better"
    assert found["primary"]["endpoint"]["gap"] > 0.02
    assert found["primary"]["because_of_quality"]
    assert found["primary"]["domains"]["shop"]["gap"] < found["primary"]["domains"]["essays"]["gap"]


def test_none_is_found_where_there_is_none(whole):
    found = {one["name"]: one for one in whole[1]["result"]["contrasts"]}
    assert found["aa"]["endpoint"]["verdict"] in ("equivalent", "not resolved")


@pytest.mark.timeout(900)  # a build and ten runs, on a machine that may do other things
def test_nothing_is_found_on_a_corpus_without_an_effect(tmp_path):
    """Curated source and web are of one style: whatever the filter takes is as good as what it leaves."""
    run = comparisons.build(comparisons.write_without_effect(tmp_path / "inputs"), tmp_path / "run")
    asked = comparisons.settings(comparisons.write_sets(tmp_path / "sets"), seeds=5)
    (found,) = compared(run, asked)["result"]["contrasts"]
    assert found["endpoint"]["seeds"] == 5
    assert found["endpoint"]["verdict"] in ("equivalent", "not resolved")
    assert not found["because_of_quality"]


def test_arms_of_one_seed_differ_in_their_pool_alone(run, sets):
    """So initialisation, rate, steps and jitter are paired; and the first sequences of a pass have one order in both pools."""
    from tests.train.small_runs import same
    from train.corpus import open_corpus
    from train.loop import Trainer
    from train.parallel import ALONE
    from train.run_config import Settings

    made = prepare(str(run), comparisons.settings(sets, seeds=2))
    pair = [job for job in comparisons.jobs.jobs(made.contrasts, 0.01, made.tokens) if job.seed == 2]
    told = [runner.describe(made, job) for job in pair]
    paths = [one["settings"]["data"].pop("path") for one in told]
    assert told[0].pop("content") != told[1].pop("content")
    assert told[0] == {**told[1], "keep": told[0]["keep"]}
    assert [Path(path).parent.name for path in paths] == ["filtered", "unfiltered"]
    trainers = [Trainer(Settings.of(one["settings"], "test"), open_corpus(path, made.tokenizer), ALONE) for one, path in
                zip(told, paths, strict=True)]  # fmt: skip
    assert same(*(one.model.state_dict() for one in trainers))
    assert {one.data.blend.seed for one in trainers} == {2}
    assert len({one.data.blend.names for one in trainers}) == 1


def test_the_result_can_be_recomputed_from_its_bits(whole):
    told = json.loads((whole[0] / "comparisons" / whole[1]["result"]["id"] / "result.json").read_bytes())
    assert told == whole[1]["result"]
    documents, runs = told["documents"], {(run["arm"], run["seed"]): run["bits"] for run in told["runs"]}
    finding = next(one for one in told["contrasts"] if one["name"] == "primary")["endpoint"]
    for seed, gap in enumerate(finding["seed_gaps"], 1):
        by_domain = []
        for domain in ("essays", "letters"):
            at = [n for n, one in enumerate(documents) if one["domain"] == domain and one["leaked"] is None]
            bits = sum(runs["unfiltered", seed][n] - runs["filtered", seed][n] for n in at)
            by_domain.append(bits / sum(documents[n]["bytes"] for n in at))
        assert np.mean(by_domain) == pytest.approx(gap, rel=1e-9)


def test_arms_have_equal_compute_to_the_flop(whole):
    assert len({run["flops"] for run in whole[1]["result"]["runs"]}) == 1


def test_no_evaluation_document_stands_in_a_pool(whole):
    """By the tokens themselves: no whole evaluation document is a run of a pool's tokens."""
    from train.evaluate import Encoder

    run, told = whole
    folder = run / "comparisons" / told["result"]["id"]
    encoder = Encoder((run / "models/tokenizer.json").read_bytes(), "tokenizer.json")
    rows = [json.loads(line) for line in (folder / "sets/documents.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 60
    for pool in sorted((folder / "pools").iterdir()):
        ids = open_shard(str(pool / "web")).ids.astype("<u2").tobytes()
        for row in rows:
            assert encoder(row["text"]).astype("<u2").tobytes() not in ids


def test_hashes_of_what_is_judged_on_are_in_no_pool_though_copies_were_planted(run, tmp_path):
    """Reference: sha256 of texts, of the pools' documents by their ids in the run. The planted copies are in a pool, and marked."""
    opened = Run.open(str(run))
    texts = {}
    for part in opened.parts:
        rows = read_columns(opened.store, part.path("documents"), ["doc_id", "text"]).to_pylist()
        texts.update({row["doc_id"]: row["text"] for row in rows})
    rows = read_rows(opened, "unfiltered", ["web"])
    judged = [text for batch in read_texts(opened, rows) for text in batch.to_pylist()]
    planted = [judged[0], judged[7], texts[rows.doc_id_R[3].tobytes()]]  # as it is trained on, and as it came
    lines = [{"text": text} for text in (*planted, "Nobody wrote this before, not even once.", "?!")]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = {"mine": {"group": "unseen", "files": [str(tmp_path / "set.jsonl")]}, "wiki": {"group": "positives"}}
    made = prepare(str(run), comparisons.settings(asked, controls=["matched", "random", "glam"]))

    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()

    told = [json.loads(line) for line in made.documents.read_text("utf-8").splitlines()]
    counted = {digest(one["text"]) for one in told if one["leaked"] is None}
    pooled = set()
    for pool in made.pools:
        listed = pq.read_table(made.folder / "pools" / pool / "documents.parquet").column("doc_id").to_pylist()
        pooled |= {digest(texts[one]) for one in listed}
    pooled |= {digest(text) for text in judged}
    assert len(counted) > 2
    assert not counted & pooled
    assert {digest(text) for text in planted} <= pooled
    assert [one["leaked"] for one in told if one["text"] in planted] == ["ngram"] * 3
    assert any("by near-duplicate cluster and not by thread, host or author: wiki." in said for said in limits_of(made))


def limits_of(made):
    return comparison.limits(made, [], 0.01, 0)


def test_pools_hold_the_documents_that_they_say(whole):
    """Reference: the variants' own token shards."""
    run, told = whole
    folder = run / "comparisons" / told["result"]["id"] / "pools"
    opened = Run.open(str(run))
    for variant in ("filtered", "unfiltered"):
        shard, pool = open_shard(str(run / f"tokens/{variant}/train/web-00000-of-00001")), open_shard(str(folder / variant / "web"))
        assert (pool.tokens - 1) % 32 == 0
        assert shard.tokens - pool.tokens < 32
        assert np.array_equal(pool.ids[:-1], shard.ids[: pool.tokens - 1])
        listed = pq.read_table(folder / variant / "documents.parquet")
        assert listed.num_rows == len(shard) == len(read_rows(opened, variant, ["web"]))
        assert sum(listed.column("tokens").to_pylist()) == shard.tokens
    names = {
        name: set(pq.read_table(folder / name / "documents.parquet").column("doc_id").to_pylist())
        for name in ("random_draw1", "random_draw5", "unfiltered")
    }
    assert names["random_draw1"] < names["unfiltered"]
    assert names["random_draw5"] < names["unfiltered"]
    assert names["random_draw1"] != names["random_draw5"]


def test_the_page_and_the_costs_are_written(whole):
    folder = whole[0] / "comparisons" / whole[1]["result"]["id"]
    assert whole[1]["result"]["verdict"] in (folder / "index.html").read_text("utf-8").replace("&#39;", "'")
    costs = json.loads((folder / "costs.json").read_bytes())["runs"]
    assert set(costs) == {run["job"] for run in whole[1]["result"]["runs"]}
    assert not list(folder.glob("runs/*-s2/train/checkpoints"))
    assert len(list(folder.glob("runs/*-s1/train/checkpoints/step-*"))) == 2


def test_all_controls_can_be_run(run, sets):
    controls = ["matched", "cut", "second", "glam", "sweep", "rates", "doubled"]
    more = {"controls": controls, "second": ["books"], "sweep": [4], "ladder": ["raw", "deduplicated"]}
    asked = comparisons.settings(sets, seeds=1, tokens=2048, rates=[0.005, 0.01], **more)
    told = compared(run, asked)["result"]
    assert [one["name"] for one in told["contrasts"]] == [
        "primary", "matched", "sources", "cut", "second", "positives", "glam", "sweep_4", "sweep_4_matched", "ladder_deduplicated",
        "ladder_unfiltered", "rate_half", "rate_twice", "doubled",
    ]  # fmt: skip
    assert {one["name"]: one["steps"] for one in told["contrasts"] if one["name"].startswith("ladder")} == {
        "ladder_deduplicated": ["exact", "near"],
        "ladder_unfiltered": ["rules"],
    }
    losses = {one["rate"]: one["loss"] for one in told["rate"]["pilot"]}
    assert len(losses) > 2  # the best of two is at an end: the pilot goes on
    assert told["rate"]["chosen"] == min(losses, key=losses.__getitem__)
    assert {run["tokens"] for run in told["runs"] if run["arm"].endswith("_doubled")} == {4096}


def test_more_seeds_and_controls_train_only_what_is_new(run, sets):
    """Reference: a folder in which everything is trained anew gives the same result but for what is told of the runs."""
    small = comparisons.settings(sets, seeds=1, tokens=2048)
    compared(run, small)
    asked = comparisons.settings(sets, seeds=2, tokens=2048, controls=["rates"])
    made = prepare(str(run), asked)
    assert earlier.take_over(made) == ["filtered-s1", "unfiltered-s1"]
    assert earlier.take_over(made) == []
    taken = runner.folder_of(made, jobs.Job(made.contrasts[0].first, 1, 0.01, made.tokens))
    before = (taken / "scores.json").stat().st_ino
    told = compared(run, asked)["result"]
    assert (taken / "scores.json").stat().st_ino == before
    assert (taken / "train" / "checkpoints").exists()  # the first seed's weights are kept, here too
    shutil.rmtree(made.folder.parent)
    again = compared(run, asked)["result"]
    assert again == told


def test_runs_of_other_settings_are_not_taken_over(run, sets):
    compared(run, comparisons.settings(sets, seeds=1, tokens=2048))
    others = {"tokens": 4096}, {"rates": [0.02]}, {"sets": {"essays": sets["essays"]}}, {"model": {**comparisons.MODEL, "batch": 4}}
    for change in others:
        made = prepare(str(run), comparisons.settings(**{"sets": sets, "seeds": 1, "tokens": 2048, **change}))
        assert earlier.take_over(made) == []


def test_runs_that_failed_are_not_taken_over(run, sets):
    made = prepare(str(run), comparisons.settings(sets, seeds=1, tokens=2048))
    for job in comparisons.train_all(made):
        path = runner.folder_of(made, job) / "scores.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "failed": "it did"}))
    assert earlier.take_over(prepare(str(run), comparisons.settings(sets, seeds=2, tokens=2048))) == []


def test_a_pilot_at_a_rate_that_is_too_high_loses(run, sets):
    asked = comparisons.settings(sets, seeds=1, tokens=2048, rates=[0.01, 1e12])
    told = compared(run, asked)["result"]["rate"]
    losses = {one["rate"]: one["loss"] for one in told["pilot"]}
    assert losses[1e12] is None
    assert told["chosen"] == min((rate for rate in losses if rate < 1), key=losses.__getitem__)


def test_a_control_that_fails_is_left_out_and_the_others_go_on(run, sets):
    """At 1e12 times the rate gradients are not finite: the primary contrast and its next seed stand without that control."""
    asked = comparisons.settings(sets, seeds=2, tokens=2048, rates=[0.01], controls=["rates"])
    made = prepare(str(run), asked)
    wild = [
        replace(one, first=replace(one.first, rate_times=1e12), second=replace(one.second, rate_times=1e12))
        if one.name == "rate_twice"
        else one
        for one in made.contrasts
    ]
    made = replace(made, contrasts=tuple(wild))
    comparisons.train_all(made)
    told, _ = comparison.results(made, [], 0.01)
    assert [(one["name"], one["endpoint"]["seeds"]) for one in told["contrasts"]] == [("primary", 2), ("rate_half", 2)]
    failed = [one for one in told["limits"] if one.startswith("A run of a control failed and counts nowhere: ")]
    assert [one.split(": ")[1].split(" ")[0] for one in failed] == [
        "filtered_rate_twice-s1", "filtered_rate_twice-s2", "unfiltered_rate_twice-s1", "unfiltered_rate_twice-s2",
    ]  # fmt: skip
    assert str(made.folder) not in "".join(told["limits"])


def test_a_dense_model_is_compared_without_expert_use(run, sets):
    dense = {**comparisons.MODEL, "model": {**comparisons.MODEL["model"], "moe": None}}
    told = compared(run, comparisons.settings(sets, seeds=1, tokens=2048, model=dense))["result"]
    assert [one["name"] for one in told["contrasts"]] == ["primary"]
    assert told["experts"] == {"mean": [], "layers": [], "routing": {}}


def test_controls_that_would_repeat_too_often_are_left_out_and_said(run, sets):
    """Reference: the pools' own sequences."""
    most = 1.5 * prepare(str(run), comparisons.settings(sets)).passes(Arm("filtered", "filtered"))
    controls = ["doubled", "glam", "rates"]
    made = prepare(str(run), comparisons.settings(sets, controls=controls, max_epochs=most))
    assert "doubled" not in [one.name for one in made.contrasts]
    assert {"primary", "rate_half", "rate_twice"} <= {one.name for one in made.contrasts}
    pool = made.pools["filtered"]
    passes = made.tokens * 2 / 32 / pool.sequences
    assert f"doubled is left out: a run would go {passes:.1f} times through filtered, {most:g} are allowed." in made.limits
    curated = made.tokens * 0.58 / 32 / made.pools["curated"].sequences
    assert ("glam" in [one.name for one in made.contrasts]) == (curated <= most)
    assert made.passes_by_pool(Arm("glam_filtered", "filtered", GLAM))["curated"] == pytest.approx(curated)


def test_what_leaks_counts_in_no_expert_use(run, tmp_path):
    """Reference: the documents' own tokens. A model's routing is asked for the documents that do not leak alone."""
    path = tmp_path / "documents.jsonl"
    one = {"domain": "essays", "cluster": "", "text": "text"}
    rows = [{**one, "doc": str(n), "leaked": ["ngram", None][n % 2]} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    read = worker.read_documents(path, len)
    assert [(document.doc, leaked) for document, leaked in read] == [("0", True), ("1", False), ("2", True), ("3", False)]


def test_another_endpoint_of_the_same_documents_is_told_beside_the_result(run, sets):
    one = compared(run, comparisons.settings(sets, seeds=1, tokens=2048, endpoint=["essays"]))
    asked = comparisons.settings(sets, seeds=1, tokens=2048, endpoint=["letters"])
    two = compared(run, asked)
    costs = json.loads(Path(two["folder"], "costs.json").read_bytes())
    assert {"id": Path(one["folder"]).name, "endpoint": ["essays"]} in costs["other_endpoints"]
    assert "Other comparisons of this run have other endpoints" in Path(two["page"]).read_text("utf-8")
    assert {"id": Path(two["folder"]).name, "endpoint": ["letters"]} not in costs["other_endpoints"]


def test_glams_mixture_has_the_same_curated_documents_at_the_same_places(run, sets):
    from train.corpus import open_corpus
    from train.data import TrainingData

    made = prepare(str(run), comparisons.settings(sets, controls=["glam"]))
    blends = [str(made.folder / "pools" / arm / "glam.json") for arm in ("filtered", "unfiltered")]
    data = [TrainingData.of(open_corpus(blend, made.tokenizer), 3, 32) for blend in blends]
    places = range(400)
    chosen = [[one.blend.at(place) for place in places] for one in data]
    pairs = [zip(places, some, strict=True) for some in chosen]
    curated = [[(place, found.sequence) for place, found in some if found.part == 1] for some in pairs]
    assert curated[0] == curated[1]
    assert len(curated[0]) == 232  # 58 % of 400
    files = [one.corpus.train[1].file for one in data]
    assert os.path.samefile(files[0].prefix + ".bin", files[1].prefix + ".bin")


def test_a_comparison_that_is_killed_and_goes_on_gives_the_same_result(run, sets, tmp_path):
    """Reference: the same comparison in one piece, in this process."""
    other = shutil.copytree(run, tmp_path / "other")
    asked = {"sets": sets, "seeds": 1, "tokens": 16384, "controls": [], "rates": [0.01], "max_epochs": 10}
    asked["model"] = comparisons.MODEL
    reference = compared(other, comparisons.settings(**asked))["result"]
    recipe = tmp_path / "recipe.yaml"
    from pipelines.recipe_file import dump

    recipe.write_text(dump(comparisons.recipe(tmp_path, **asked)), "utf-8")
    arguments = ["compare", str(run), "--recipe", str(recipe), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    _until(lambda: list(run.glob("comparisons/*/runs/*/train/checkpoints/step-00000012")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _until(lambda: not _workers(run))  # they end with it
    done = command(arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == reference
    assert (run / "comparisons" / reference["id"] / "result.json").read_bytes() == (
        other / "comparisons" / reference["id"] / "result.json"
    ).read_bytes()


def _until(holds, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _workers(run) -> list[int]:
    found = []
    for path in os.listdir("/proc"):
        if path.isdigit():
            try:
                said = Path(f"/proc/{path}/cmdline").read_bytes().decode()
            except OSError:
                continue
            if "train.compare.worker" in said and str(run) in said:
                found.append(int(path))
    return found


def test_a_budget_that_is_over_leaves_a_valid_smaller_result(run, sets):
    asked = comparisons.settings(sets, seeds=3)
    made = prepare(str(run), asked)
    told = comparison.compare(str(run), quiet, asked, budget=0.001)
    assert not told["complete"]
    assert told["result"]["contrasts"] == []
    assert told["result"]["verdict"] == "no pair of runs is finished"
    comparisons.train_all(made)
    assert comparison.compare(str(run), quiet, asked, budget=0.001)["complete"]


def test_a_run_that_fails_is_named_with_its_reason(run, sets):
    asked = comparisons.settings(sets, seeds=1)
    made = prepare(str(run), asked)
    (made.folder / "pools" / "filtered" / "web.bin").write_bytes(b"\xff" * made.pools["filtered"].tokens * 2)
    with pytest.raises(CheckError, match=r"runs/filtered-s1: the run failed: .*web\.bin"):
        fleet.run([runner.task(made, job) for job in _first_jobs(made)], 1, None, quiet)


def _first_jobs(made):
    return jobs.jobs(made.contrasts, 0.01, made.tokens)[:1]


def test_a_budget_counts_what_is_still_to_be_done(run, sets):
    asked = comparisons.settings(sets, seeds=1, tokens=1024, controls=["matched"])
    made = prepare(str(run), asked)
    runs = comparisons.train_all(made)
    plan = comparison.make_plan(made, 0.0, 1)
    assert (plan.runs, plan.done, plan.tokens, plan.left_out) == (3, 3, 0, ())
    (runner.folder_of(made, runs[-1]) / "scores.json").unlink()
    plan = comparison.make_plan(made, 0.0, 1)
    assert [one.name for one in plan.left_out] == ["matched", "sources"]
    assert not comparison.compare(str(run), quiet, asked, budget=0.001)["complete"]


def test_what_is_finished_is_told_though_a_later_run_fails(run, sets):
    asked = comparisons.settings(sets, seeds=1, tokens=1024)
    made = prepare(str(run), asked)
    (made.folder / "pools" / "unfiltered" / "web.bin").write_bytes(b"\xff" * made.pools["unfiltered"].tokens * 2)
    with pytest.raises(CheckError, match="runs/unfiltered-s1: the run failed"):
        comparison.compare(str(run), quiet, asked, processes=1)
    told = json.loads((made.folder / "result.json").read_bytes())
    assert [one["job"] for one in told["runs"]] == ["filtered-s1"]
    assert (made.folder / "index.html").exists()


def test_two_at_once_on_one_comparison(run, sets):
    from pipelines import lock

    asked = comparisons.settings(sets, seeds=1)
    made = prepare(str(run), asked)
    with (
        lock.hold(str(made.folder / "runs" / ".lock"), str(made.folder)),
        pytest.raises(UserError, match=r"another build is running here; wait for it to end"),
    ):
        comparison.compare(str(run), quiet, asked)


def test_pools_that_stand_are_not_drawn_again(run, sets, monkeypatch):
    from train.compare import pools

    asked = comparisons.settings(sets, seeds=1, controls=["matched", "random"])
    first = prepare(str(run), asked)
    for draw in ("matched", "random"):
        monkeypatch.delattr(pools, draw)
        monkeypatch.setattr(pools, draw, None, raising=False)
    assert prepare(str(run), asked).pools == first.pools


def test_a_second_classifier_whose_positives_are_too_long_for_its_sample(run, sets, monkeypatch):
    from train.compare import second

    monkeypatch.setattr(second, "_TOKENS_A_MEGABYTE", 0)
    with pytest.raises(UserError, match=r"compare\.second: a document of books is more than twice its sample of"):
        prepare(str(run), comparisons.settings(sets, seeds=1, controls=["second"], second=["books"]))


def test_a_run_that_was_begun_at_another_rate_is_begun_again(run, sets):
    """A longer pilot may choose another rate for runs that are half done."""
    made = prepare(str(run), comparisons.settings(sets, seeds=1, tokens=1024))
    job = _first_jobs(made)[0]
    task = runner.task(made, job)
    folder, told = task.folder, task.told
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "half").touch()
    (folder / "job.json").write_text(json.dumps({**told, "settings": {**told["settings"], "optimiser": {"peak": 0.5}}}))
    assert fleet.run([task], 1, None, quiet)
    assert not (folder / "train" / "half").exists()


def test_evaluation_texts_may_hold_what_python_takes_for_the_end_of_a_line(run, tmp_path):
    """U+2028, U+2029 and U+0085 stand in real pages; JSON leaves them as they are."""
    from train.evaluate import Encoder

    texts = [f"One more {n} line\u2028of\u0085that\u2029kind, number {n * n}, which no run holds." for n in range(3)]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    asked = comparisons.settings({"lines": {"group": "unseen", "files": [str(tmp_path / "lines.jsonl")]}}, seeds=1)
    made = prepare(str(run), asked)
    encoder = Encoder((run / "models/tokenizer.json").read_bytes(), "tokenizer.json")
    assert sorted(one.text for one, _ in worker.read_documents(made.documents, encoder)) == sorted(texts)
    assert len(comparison.results(made, [], 0.01)[0]["documents"]) == 3


# -- bad input: one line before any training ----------------------------------------------------------------------------------


def test_variants_of_different_tokenizers(run, sets, inputs, tmp_path):
    from tests.runs import run_build

    run_build(inputs, tmp_path / "other", (*comparisons.OVERRIDES, "fit.tokenizer.vocab_size=500"))
    asked = comparisons.settings(sets, arms=["filtered", f"{tmp_path}/other:unfiltered"])
    message = r"other:unfiltered was made with another tokenizer than .*; build it with fit\.tokenizer\.file"
    with pytest.raises(UserError, match=message):
        prepare(str(run), asked)


def test_an_evaluation_set_that_decontamination_empties(run, tmp_path):
    text = next(iter(_texts(run)))
    (tmp_path / "leaked.jsonl").write_text(json.dumps({"text": text}) + "\n")
    asked = comparisons.settings({"leaked": {"group": "unseen", "files": [str(tmp_path / "leaked.jsonl")]}})
    with pytest.raises(UserError, match=r"compare\.sets\.leaked: all 1 documents leak into what the arms may learn from"):
        prepare(str(run), asked)


def _texts(run):
    for line in (json.loads(line) for line in _web_lines(run)):
        yield line["text"]


def _web_lines(run):
    plan = json.loads((run / "plan.json").read_bytes())
    urls = [one["url"] for task in plan["tasks"] if task["source"] == "wiki" for one in task["inputs"]]
    for url in urls:
        yield from (line for line in Path(url.removeprefix("file://")).read_text().splitlines() if line.strip())


def test_a_pool_that_gives_an_arm_unequal_compute(run, sets):
    """A pool that stands there but for its last tokens, as after a copy that broke off."""
    made = prepare(str(run), comparisons.settings(sets))
    facts = made.folder / "pools/filtered/pool.json"
    told = json.loads(facts.read_bytes())
    facts.write_text(json.dumps({**told, "tokens": told["tokens"] - 5}))
    with pytest.raises(UserError, match=r"pools/filtered: [\d,]+ tokens are not [\d,]+ whole sequences of 32: arms would have"):
        prepare(str(run), comparisons.settings(sets))
    assert not (made.folder / "runs").exists()


def test_runs_of_unequal_compute_are_found_before_others_are_trained(run, sets):
    made = prepare(str(run), comparisons.settings(sets, seeds=2, tokens=1024))
    first = comparisons.train_all(made, most=2)
    scores = runner.folder_of(made, first[1]) / "scores.json"
    scores.write_text(json.dumps({**json.loads(scores.read_bytes()), "tokens": 992}))
    with pytest.raises(UserError, match=r"primary, seed 1: filtered was trained on 1,024 tokens, unfiltered on 992: arms must"):
        comparison.compare(str(run), quiet, made.settings)
    assert sorted(path.name for path in (made.folder / "runs").iterdir() if path.is_dir()) == ["filtered-s1", "unfiltered-s1"]


def test_a_pool_that_is_too_small(run, sets):
    message = r"compare\.tokens: 1,048,576 tokens go \d+\.\d times through the [\d,]+ of filtered, 4 allowed"
    with pytest.raises(UserError, match=message):
        prepare(str(run), comparisons.settings(sets, tokens=1 << 20))


def test_documents_too_short_to_begin_a_continuation(run, tmp_path):
    (tmp_path / "short.jsonl").write_text("".join(json.dumps({"text": f"Only {n} such words here."}) + "\n" for n in range(5)))
    sets = {"short": {"group": "unseen", "files": [str(tmp_path / "short.jsonl")]}}
    with pytest.raises(UserError, match=r"compare\.bias\.words: no evaluation document has words enough to begin a continuation"):
        prepare(str(run), comparisons.settings(sets, bias={"words": f"{TASKS}/words"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 10}, r"compare\.tokens: 10 is less than one step of 256"),
        ({"second": ["wiki"], "controls": ["second"]}, r"compare\.second: 'wiki' is a source of the first classifier"),
        ({"arms": ["raw", "unfiltered"]}, r"compare\.web is missing: raw draws no source by quality"),
        ({"model": {"preset": "glam-tiny", "seed": 3}}, r"compare\.model\.seed: a comparison sets it itself"),
        ({"model": {"preset": "glam-tiny", "optimiser": {"peak": 0.1}}}, r"compare\.model\.optimiser\.peak: a comparison sets it"),
        ({"model": {"preset": "glam-tinny"}}, r"glam-tinny"),
        ({"tasks": {"folder": "nowhere", "names": ["copa"]}}, r"nowhere/copa\.jsonl"),
        ({"tasks": {"folder": TASKS, "names": ["copa"], "shots": [0, 5]}}, r"compare\.tasks\.shots: copa: 5 examples: there are 2"),
        ({"bias": {"words": f"{TASKS}/words", "prompts": f"{TASKS}/none"}}, r"compare\.bias\.prompts: \S+none has no prompt in it"),
        ({"bias": {"words": f"{TASKS}/words"}, "model": SHORT}, r"compare\.bias\.words: a continuation has 20 tokens, the model's"),
        ({"arms": ["filtered", "/nowhere:unfiltered"]}, r"/nowhere: no complete run"),
        ({"arms": ["nowhere", "unfiltered"]}, r"compare\.arms: \S+ has no variant 'nowhere'; there are unfiltered, filtered, "),
        ({"arms": ["filtered", "nowhere"]}, r"compare\.arms: \S+ has no variant 'nowhere'"),
        ({"ladder": ["raw", "nowhere"]}, r"compare\.ladder: \S+ has no variant 'nowhere'"),
        ({"ladder": ["raw", "unfiltered"]}, r"compare\.ladder ends in the second arm, unfiltered, by itself"),
        ({"web": ["web", "nowhere"]}, r"compare\.web: \S+ has no source 'nowhere'; there are "),
        ({"controls": ["sweep"], "sweep": [9999]}, r"pool filtered_9999_draw1: .* less than one sequence of 32; leave its control"),
    ],
)
def test_settings_that_do_not_fit(run, sets, changes, message):
    asked = comparisons.settings(sets, **changes)
    with pytest.raises(UserError, match=message):
        prepare(str(run), asked)
    assert not list(run.glob("comparisons/*/runs"))


def test_the_default_comparison_judges_on_what_was_held_out(run):
    from pipelines.recipe_compare_default import default_compare

    opened = Run.open(str(run))
    found = default_compare(opened.recipe, opened.store.read_json, opened.store.root)
    assert {name: one.group for name, one in found.sets.items()} == {"books": "unseen", "web": "web", "wiki": "positives"}
    assert found.endpoint == "unseen"


def test_the_command_prints_its_plan_first(run, sets, tmp_path):
    from pipelines.recipe_file import dump

    recipe = tmp_path / "recipe.yaml"
    asked = {"sets": sets, "seeds": 2, "tokens": 4096, "rates": [0.01], "model": comparisons.MODEL, "controls": ["matched"]}
    recipe.write_text(dump(comparisons.recipe(tmp_path, **asked)), "utf-8")
    found = command(["compare", str(run), "--recipe", str(recipe), "--plan"])
    assert found.returncode == 0, found.stderr
    assert "primary endpoint: essays, letters, equal weight each" in found.stdout
    assert "6 runs, 0 of them done; 24,576 tokens to train" in found.stdout
    assert max(len(line) for line in found.stdout.splitlines() if str(run) not in line) <= 100
    assert not list(run.glob("comparisons/*/runs"))
