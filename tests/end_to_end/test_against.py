"""Growing a corpus through real builds: a first run, a second against it, a third against both.

The reference is plain Python: the words of each text, their 5-grams as sets, and Jaccard's similarity of all pairs. The corpus
is made so that no pair lies near the threshold, where the signatures' estimate and the true similarity may part (it is asserted).
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import Counter

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import against, bpe, engine, match
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.explain import explain, to_text
from pipelines.parts import list_parts
from pipelines.purge import purge
from pipelines.recipe_file import load, parse
from pipelines.schema import doc_id
from pipelines.store import Store
from pipelines.verify import load_plan, verify
from tests import corpus
from tests.runs import ONE_WORKER, TWO_THREADS, command, differing, hashes

LEAST = 0.7
SHORT = 200  # bytes; what the first run drops as too short

RECIPE = """
name: grown
sources:
  web: {format: jsonl, root: INPUT, paths: [INPUT/*.jsonl]}
limits: {part_bytes: 16384}
fit: {tokenizer: {file: FOLDER/tokenizer.json}}
variants:
  filtered: {dedup: [exact, near]}
  exact: {dedup: [exact]}
  near: {dedup: [near]}
  everything: {}
tokens: {validation: 0.2}
"""


def _changed(text, name, every):
    """The text with one word of `every` replaced."""
    words = text.split(" ")
    return " ".join(f"{name}{place}" if place % every == every // 2 else word for place, word in enumerate(words))


def _texts():
    """run -> name -> text."""

    def prose(name):
        return corpus.prose(name, False, 30)

    first = {f"a{n}": prose(f"a{n}") for n in range(30)}
    first |= {f"short{n}": f"Short document number {n} of the first run, with few words." for n in range(5)}
    first |= {"copy of a0": first["a0"], "near a1": _changed(first["a1"], "q", 90), "wordless": "!!! ... ???"}
    second = {f"b{n}": prose(f"b{n}") for n in range(25)}
    second |= {f"exact a{n}": first[f"a{n}"] for n in range(2, 8)}
    second |= {f"near a{n}": _changed(first[f"a{n}"], "x", 90) for n in range(8, 13)}
    second |= {"exact short0": first["short0"], "exact short1": first["short1"], "wordless": first["wordless"]}
    # A chain: the second link is like the first, which is like a document of the first run, but not like that document.
    second["link a13"] = _changed(first["a13"], "y", 42)
    second["chain a13"] = _changed(second["link a13"], "z", 39)
    # Two copies of one text that is like one of the first run; one copy of a text and one like it, both of the first run's a15.
    second["twin a14"] = second["other twin a14"] = _changed(first["a14"], "v", 90)
    second |= {"exact a15": first["a15"], "near a15": _changed(first["a15"], "u", 90)}
    # Copies within the second run.
    second |= {"exact b0": second["b0"], "near b1": _changed(second["b1"], "w", 90)}
    third = {f"c{n}": prose(f"c{n}") for n in range(10)}
    third |= {"exact a16": first["a16"], "near b2": _changed(second["b2"], "t", 90), "exact b3": second["b3"]}
    third |= {"near c0": _changed(third["c0"], "s", 90), "near a17": _changed(first["a17"], "r", 90)}
    third |= {"unlike a18": _changed(first["a18"], "p", 17)}
    return {"first": first, "second": second, "third": third}


TEXTS = _texts()
NAMES = {run: {name: f"part{place % 2}.jsonl#{place // 2}" for place, name in enumerate(texts)} for run, texts in TEXTS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every run's texts in two files, and a tokenizer."""
    folder = tmp_path_factory.mktemp("against")
    for run, texts in TEXTS.items():
        rows = [json.dumps({"text": text, "id": name}) for name, text in texts.items()]
        (folder / run).mkdir()
        for half in range(2):
            (folder / run / f"part{half}.jsonl").write_text("".join(row + "\n" for row in rows[half::2]))
    (folder / "tokenizer.json").write_bytes(bpe.save(bpe.train(iter(TEXTS["first"].values()), 400, "split")))
    return folder


def _recipe(folder, run):
    return RECIPE.replace("INPUT", str(folder / run)).replace("FOLDER", str(folder)).replace("grown", f"grown_{run}")


def _build(folder, run, *changes, to=None, engine=ONE_WORKER):
    """(accounts, stage -> parts that were redone) of a build into runs/<run>."""
    said: list[str] = []
    target = to or folder / "runs" / run
    accounts = build(parse(_recipe(folder, run), run, changes), str(folder), str(target), engine, said.append)
    return accounts.to_json(), {line.split()[0]: int(line.split()[1]) for line in said if " redone, " in line}


AGAINST_FIRST = "against=[{run: runs/first, variant: filtered}]"
TOO_SHORT = f"variants.filtered.default={{min_bytes: {SHORT}}}"


@pytest.fixture(scope="module")
def first(folder):
    _build(folder, "first", TOO_SHORT)
    return folder / "runs" / "first"


@pytest.fixture(scope="module")
def second(folder, first):
    """(run, accounts) against the first."""
    accounts, _ = _build(folder, "second", AGAINST_FIRST)
    return folder / "runs" / "second", accounts


def _rows(run, variant):
    """name -> its decision, with the text, its doc_id and the estimate to the near copy that another run keeps."""
    found = {}
    for path in sorted((run / "documents/web").glob("*.parquet")):
        documents = pq.read_table(path, columns=["source_id", "doc_id", "text"]).to_pylist()
        decisions = pq.read_table(run / "decisions" / variant / "web" / path.name).to_pylist()
        for document, decision in zip(documents, decisions, strict=True):
            found[document["source_id"]] = {**document, **decision}
    return found


def _kept(run, variant="filtered"):
    return {name: row["text"] for name, row in _rows(run, variant).items() if row["verdict"] == "keep"}


# -- the reference ----------------------------------------------------------------------------------------------------------


def _shingles(text):
    words = re.findall(r"\w+", text.lower())
    size = min(5, len(words))
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)} if words else set()


_SETS = {text: _shingles(text) for texts in TEXTS.values() for text in texts.values()}


def _jaccard(left, right):
    one, two = _SETS[left], _SETS[right]
    return len(one & two) / len(one | two) if one and two else float(left == right)


def _expected(own, theirs):
    """name -> reason of the documents of which another run keeps a copy; `filtered` of this run, the rest of which is kept."""
    exact = {name for name, text in own.items() if text in theirs.values()}
    linked = exact | {n for n, text in own.items() if any(_jaccard(text, other) >= LEAST for other in theirs.values())}
    while grown := {n for n in own.keys() - linked if any(_jaccard(own[n], own[m]) >= LEAST for m in linked)}:
        linked |= grown
    return exact, linked - exact


# -- who is dropped ---------------------------------------------------------------------------------------------------------


def test_no_pair_lies_near_the_threshold():
    likeness = [_jaccard(one, two) for one, two in itertools.combinations(_SETS, 2)]
    assert not [one for one in likeness if 0.63 < one < 0.77]
    assert sum(one >= LEAST for one in likeness) == 14  # a1, a8 to a12, a13 and its link, link and chain, a14, a15, a17, b1, b2, c0


def test_copies_of_what_the_first_run_keeps_are_dropped_and_counted(first, second):
    """Every verdict against all pairs; what the first run drops as too short is no keeper; counts by hand."""
    run, accounts = second
    kept, own = _kept(first), TEXTS["second"]
    assert len(kept) == 30  # a0 to a29: without the copies of a0 and a1, five short ones and the wordless one
    exact, near = _expected(own, kept)
    assert exact == {*(f"exact a{n}" for n in range(2, 8)), "exact a15"}
    assert near == {
        *(f"near a{n}" for n in range(8, 13)), "near a15", "link a13", "chain a13", "twin a14", "other twin a14",
    }  # fmt: skip
    rows = _rows(run, "filtered")
    theirs = {name: row["verdict"] for name, row in rows.items() if row["duplicate_run"] is not None}
    assert theirs == {**dict.fromkeys(exact, "duplicate_exact"), **dict.fromkeys(near - {_later_twin(rows)}, "duplicate_near")}
    assert {row["duplicate_run"] for row in rows.values()} == {None, "first"}
    ours = {name for name, row in rows.items() if row["verdict"] != "keep"} - theirs.keys()
    assert ours == {_later_twin(rows), *_losers(rows, "b0"), *_losers(rows, "b1")}
    assert accounts["variants"]["filtered"]["web"]["dropped"] == {"duplicate_exact": 9, "duplicate_near": 10}
    assert accounts["variants"]["filtered"]["web"]["kept"] == 28


def _later_twin(rows):
    """Of two copies of one text the one that does not stay in the second run, nor in any."""
    return max("twin a14", "other twin a14", key=lambda name: rows[name]["doc_id"])


def _losers(rows, name):
    """Of a document of the second run and its copy, the one with the larger doc_id."""
    return {name, f"exact {name}", f"near {name}"} & rows.keys() - {
        min({name, f"exact {name}", f"near {name}"} & rows.keys(), key=lambda one: rows[one]["doc_id"])
    }


def test_every_variant_drops_the_kinds_that_it_deduplicates(second):
    run, accounts = second
    dropped = {variant: by["web"]["dropped"] for variant, by in accounts["variants"].items()}
    assert dropped == {
        "everything": {},
        "exact": {"duplicate_exact": 9},
        "near": {"duplicate_near": 19},
        "filtered": {"duplicate_exact": 9, "duplicate_near": 10},
    }
    assert not [row for row in _rows(run, "everything").values() if row["duplicate_of"] is not None]
    exact = {name for name, row in _rows(run, "exact").items() if row["duplicate_run"] == "first"}
    assert exact == {*(f"exact a{n}" for n in range(2, 8)), "exact a15"}


def test_only_documents_of_this_run_are_counted(second):
    run, accounts = second
    assert accounts["sources"]["web"]["records"] == accounts["sources"]["web"]["documents"] == len(TEXTS["second"])
    for by in accounts["variants"].values():
        assert by["web"]["kept"] + sum(by["web"]["dropped"].values()) == len(TEXTS["second"])
    assert verify(str(run), deep=True).faults == []


def test_a_keeper_is_named_with_the_run_that_has_it_and_a_number(first, second):
    rows, theirs = _rows(second[0], "filtered"), _rows(first, "filtered")
    names = {row["doc_id"]: name for name, row in theirs.items()}
    for name, row in rows.items():
        if row["duplicate_run"] == "first":
            assert names[row["duplicate_of"]] == name.split()[-1]
            assert theirs[name.split()[-1]]["verdict"] == "keep"
            true = _jaccard(row["text"], theirs[name.split()[-1]]["text"])
            assert row["value"] == pytest.approx(true, abs=0.12)  # three standard errors of 112 permutations
            assert row["threshold"] == pytest.approx(1.0 if row["verdict"] == "duplicate_exact" else LEAST)
    assert rows["chain a13"]["value"] < LEAST  # it is like the link, which is like the document of the first run


def test_a_grown_corpus_has_no_copies_left_and_nothing_is_lost(first, second):
    """All pairs of what both runs keep; and every text that is dropped has, over keepers, one that is kept."""
    both = [*_kept(first).values(), *_kept(second[0]).values()]
    assert len(both) == len(set(both)) == 58
    assert [pair for pair in itertools.combinations(both, 2) if _jaccard(*pair) >= LEAST] == []
    rows = {"first": _rows(first, "filtered"), "second": _rows(second[0], "filtered")}
    by_id = {(run, row["doc_id"]): row for run, some in rows.items() for row in some.values()}
    for row in rows["second"].values():
        run, at = "second", row
        while at["verdict"] != "keep":
            run = at["duplicate_run"] or run
            at = by_id[run, at["duplicate_of"]]


def test_a_third_run_against_both(folder, first, second, tmp_path):
    """A bare name takes `filtered`; each copy names the run that keeps it.

    In buckets as wide as these all texts meet that are half alike, and one that is not alike enough is seen to be no copy.
    """
    wide = "near={bands: 56, rows: 2}"
    accounts, _ = _build(folder, "third", "against=[runs/first, runs/second]", wide, to=tmp_path / "third")
    rows = _rows(tmp_path / "third", "filtered")
    expected = {"exact a16": "first", "near a17": "first", "near b2": "second", "exact b3": "second"}
    assert {name: row["duplicate_run"] for name, row in rows.items() if row["duplicate_run"]} == expected
    assert 0.5 < _jaccard(TEXTS["third"]["unlike a18"], TEXTS["first"]["a18"]) < 0.6
    assert rows["unlike a18"]["verdict"] == "keep"
    assert accounts["variants"]["filtered"]["web"]["dropped"] == {"duplicate_exact": 2, "duplicate_near": 3}
    theirs = {**_kept(first), **_kept(second[0])}
    assert _expected(TEXTS["third"], theirs) == ({"exact a16", "exact b3"}, {"near a17", "near b2"})


SENT: Counter[str] = Counter()  # bytes of values by the shuffle's label; one worker in this process
VALUES: Counter[str] = Counter()
_GROUP = beam.GroupByKey


def _count(element, label):
    assert (type(element[0]), type(element[1])) == (int, bytes), label
    SENT[label] += len(element[1])
    VALUES[label] += 1
    return element


class _Counted(beam.PTransform):
    def expand(self, collection):
        label = collection.pipeline._current_transform().full_label
        if "/Spread" in label:  # what a job is told of its work: see beam_parts.spread
            return collection | _GROUP()
        return collection | beam.Map(_count, label).with_output_types(tuple[int, bytes]) | _GROUP()


def test_what_crosses_the_shuffles_is_hashes_and_numbers(folder, first, second, tmp_path, monkeypatch):
    """Counted to the byte where it follows from the tables: of theirs the kept documents, of ours all. A tag is one byte."""
    SENT.clear()
    VALUES.clear()
    recipe = parse(_recipe(folder, "second"), "r", [AGAINST_FIRST])
    store, earlier = Store(str(tmp_path)), against.resolve(recipe, str(folder))
    for table in ("documents", "clusters"):
        shutil.copytree(second[0] / table, tmp_path / table)
    parts = list_parts(store, load_plan(Store(str(second[0]))))
    monkeypatch.setattr(beam, "GroupByKey", _Counted)
    engine.run(ONE_WORKER, "match", lambda pipeline: match.wire(pipeline, store, recipe, parts, earlier, "key"))
    assert hashes(tmp_path / "against").keys() == hashes(second[0] / "against").keys()
    for name in (second[0] / "against").rglob("*.parquet"):
        assert (tmp_path / name.relative_to(second[0])).read_bytes() == name.read_bytes()
    bands, signature = recipe.near.banding()[0], 2 * recipe.near.permutations
    assert SENT["ExactGroups"] == 40 * (30 + 47)
    assert SENT["BandGroups"] == 16 * bands * (30 + 46)  # one text of ours has no words
    clusters = [pq.read_table(path)["near_cluster"] for path in (tmp_path / "clusters").rglob("*.parquet")]
    assert sum(len(column) - column.null_count for column in clusters) == 10
    # In a near cluster: a13's link and chain, a14's twins, a15's two, b0's two, b1's two. All but the chain and the copies of b0
    # and b1 are like a document of the first run; the chain inherits it. Near copies are also the exact ones, and a8 to a12.
    assert SENT["ByCluster"] - VALUES["ByCluster"] == 24 * 10 + (40 + signature) * 5
    assert SENT["ByPart"] - VALUES["ByPart"] == 36 * (7 + 6 + 5 + 5) + (28 + signature) * 6
    pairs, left = divmod(SENT["SpokeParts0"], 32 + signature)
    assert left == 0
    assert 16 <= pairs <= SENT["HubParts0"] // 16


# -- what is redone ---------------------------------------------------------------------------------------------------------

STILL = {"extract": 0, "cluster": 0, "match": 0, "sample": 0, "annotate": 0, "select": 0, "tokenize": 0, "statistics": 0}


def test_a_run_is_as_without_it_but_for_what_comes_after_clusters(folder, second, tmp_path):
    """Held against nothing any more, it has the bytes of a run that never was."""
    run = second[0]
    _build(folder, "second", to=tmp_path / "plain")
    changed = differing(hashes(tmp_path / "plain"), hashes(run))
    tables = {name.split("/")[0] for name in changed if "/" in name}
    assert tables == {"against", "decisions", "tokens", "statistics"}
    shutil.copytree(run, tmp_path / "second")
    _, redone = _build(folder, "second", to=tmp_path / "second")
    assert "match" not in redone
    assert differing(hashes(tmp_path / "plain"), hashes(tmp_path / "second")) == set()


def test_the_same_bytes_with_two_threads_and_nothing_redone_wherever_the_runs_lie(folder, first, second, tmp_path):
    _build(folder, "second", AGAINST_FIRST, to=tmp_path / "second", engine=TWO_THREADS)
    assert differing(hashes(second[0]), hashes(tmp_path / "second")) == set()
    shutil.copytree(first, tmp_path / "elsewhere" / "first")
    moved = f"against=[{{run: {tmp_path}/elsewhere/first, variant: filtered}}]"
    _, redone = _build(folder, "second", moved, to=tmp_path / "second")
    assert {stage: redone[stage] for stage in STILL} == STILL


def test_a_changed_other_run_redoes_what_is_touched(folder, first, second, tmp_path):
    """Short documents that the first run keeps now are dropped here; what it is held out by changes nothing here."""
    for run in (first, second[0]):
        shutil.copytree(run, tmp_path / run.name)
    moved = f"against=[{{run: {tmp_path}/first, variant: filtered}}]"
    before = hashes(tmp_path / "second")
    _build(folder, "first", to=tmp_path / "first")
    accounts, redone = _build(folder, "second", moved, to=tmp_path / "second")
    parts = len(list((tmp_path / "second/documents").rglob("*.parquet")))
    expected = {"match": parts, "select": 4 * parts, "sample": 0, "extract": 0, "cluster": 0, "annotate": 0}
    assert {stage: redone[stage] for stage in expected} == expected
    assert redone["tokenize"] > 0
    changed = {name for name in differing(before, hashes(tmp_path / "second")) if "/" in name}
    assert {name.split("/")[0] for name in changed} == {"against", "decisions", "tokens", "statistics"}
    rows = _rows(tmp_path / "second", "filtered")
    short = {name: row["verdict"] for name, row in rows.items() if "short" in name or name == "wordless"}
    assert short == dict.fromkeys(["exact short0", "exact short1", "wordless"], "duplicate_exact")
    assert accounts["variants"]["filtered"]["web"]["dropped"] == {"duplicate_exact": 12, "duplicate_near": 10}
    assert _rows(tmp_path / "second", "near")["wordless"]["verdict"] == "duplicate_near"  # without words, equal texts are alike

    before = hashes(tmp_path / "second")
    _build(folder, "first", "tokens.validation=0.5", to=tmp_path / "first")
    _, redone = _build(folder, "second", moved, to=tmp_path / "second")
    assert {stage: redone[stage] for stage in STILL} == {**STILL, "match": parts}
    changed = {name for name in differing(before, hashes(tmp_path / "second")) if not name.endswith(".stats.json")}
    assert changed <= {"manifest.json", "plan.json", "recipe.yaml"}


def test_a_purge_leaves_it_up_to_date_even_without_the_other_run(folder, first, second, tmp_path):
    for run in (first, second[0]):
        shutil.copytree(run, tmp_path / run.name)
    changes = (f"against=[{{run: {tmp_path}/first, variant: filtered}}]", f"remove={tmp_path}/remove.txt")
    (tmp_path / "remove.txt").write_text(doc_id("web", NAMES["second"]["link a13"]).hex())
    _build(folder, "second", *changes, to=tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "away")
    assert purge(str(tmp_path / "second")).documents == 1
    (tmp_path / "away").rename(tmp_path / "first")
    _, redone = _build(folder, "second", *changes, to=tmp_path / "second")
    assert {stage: redone[stage] for stage in STILL} == STILL
    rows = _rows(tmp_path / "second", "filtered")
    assert rows["chain a13"]["duplicate_run"] == "first"  # its cluster is what it was


# -- what a user reads ------------------------------------------------------------------------------------------------------


def test_explain_names_run_and_document(first, second, tmp_path):
    (found,) = explain(str(second[0]), NAMES["second"]["near a8"])
    keeper = doc_id("web", NAMES["first"]["a8"]).hex()
    (line,) = [line for line in to_text(found).split("\n") if line.startswith("filtered: ")]
    place = re.escape(f"in favour of first:{keeper} (web {NAMES['first']['a8']})")
    assert re.fullmatch(rf"filtered: dropped at near: duplicate_near, 0\.[89]\d* against 0\.7, {place}", line)
    told = {one["variant"]: one for one in found.to_json()["verdicts"]}["filtered"]
    assert (told["duplicate_run"], told["duplicate_of"]) == ("first", keeper)
    shutil.copytree(second[0], tmp_path / "second")
    plan = json.loads((tmp_path / "second/plan.json").read_text())
    plan["against"][0]["url"] = f"{tmp_path}/gone"
    (tmp_path / "second/plan.json").write_text(json.dumps(plan))
    (found,) = explain(str(tmp_path / "second"), NAMES["second"]["near a8"])
    assert f"in favour of first:{keeper}\n" in to_text(found)


def test_the_report_counts_the_copies_by_run(second):
    told = json.loads((second[0] / "stats.json").read_text())["against"]
    kinds = {"filtered": (7, 9), "exact": (7, 0), "near": (0, 17), "everything": (0, 0)}
    for variant, counts in kinds.items():
        named = zip(("duplicate_exact", "duplicate_near"), counts, strict=True)
        assert told[variant] == {reason: {"first": count} for reason, count in named if count}
    assert "7 of what the run first keeps" in (second[0] / "report.html").read_text()


def test_plan_tells_the_runs(folder, first):
    (folder / "second.yaml").write_text(_recipe(folder, "second"))
    arguments = ["plan", str(folder / "second.yaml"), "--set", AGAINST_FIRST]
    assert f"first: 30 documents kept by filtered, {first}" in command(arguments).stdout
    (told,) = json.loads(command([*arguments, "--json"]).stdout)["against"]
    assert (told["name"], told["variant"], told["documents"], told["url"]) == ("first", "filtered", 30, str(first))


# -- what cannot be -----------------------------------------------------------------------------------------------------------


def _faulty(folder, tmp_path, given, *more):
    with pytest.raises(UserError) as error:
        _build(folder, "second", f"against={given}", *more, to=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    return str(error.value)


def test_a_run_that_is_not_there_or_not_complete(folder, first, tmp_path):
    assert "runs/none: no complete run (manifest.json is missing)" in _faulty(folder, tmp_path, "[runs/none]")
    shutil.copytree(first, tmp_path / "half")
    (tmp_path / "half/manifest.json").write_text("{")
    assert "half/manifest.json: damaged" in _faulty(folder, tmp_path, f"[{tmp_path}/half]")
    (tmp_path / "half/manifest.json").unlink()
    assert "half: no complete run" in _faulty(folder, tmp_path, f"[{tmp_path}/half]")


def test_a_variant_that_is_not_there_or_not_told(folder, first, tmp_path):
    said = _faulty(folder, tmp_path, "[{run: runs/first, variant: clean}]")
    assert said.endswith("runs/first has no variant 'clean'; it has everything, exact, filtered, near")
    manifest = json.loads((first / "manifest.json").read_text())
    shutil.copytree(first, tmp_path / "other")
    del manifest["recipe"]["variants"]["filtered"]
    (tmp_path / "other/manifest.json").write_text(json.dumps(manifest))
    said = _faulty(folder, tmp_path, f"[{tmp_path}/other]")
    assert said.endswith("has the variants everything, exact, near; say which: {run: ..., variant: everything}")
    manifest["recipe"]["variants"] = {"near": manifest["recipe"]["variants"]["near"]}
    (tmp_path / "other/manifest.json").write_text(json.dumps(manifest))
    (one,) = against.resolve(parse(_recipe(folder, "second"), "r", [f"against=[{tmp_path}/other]"]), "/")
    assert (one.variant, one.documents) == ("near", len(_kept(first, "near")))


@pytest.mark.parametrize(
    ("key", "value", "theirs"), [("ngram", 4, 5), ("permutations", 128, 112), ("seed", 2, 1), ("text_cap", 1000, 500000)]
)
def test_signatures_that_cannot_be_compared(folder, first, tmp_path, key, value, theirs):
    said = _faulty(folder, tmp_path, "[runs/first]", f"near.{key}={value}")
    assert f"built with near.{key} {theirs}, this recipe has {value}" in said


def test_two_runs_of_one_name_and_the_run_itself(folder, first, second, tmp_path):
    shutil.copytree(first, tmp_path / "first")
    assert "are both called 'first'" in _faulty(folder, tmp_path, f"[runs/first, {tmp_path}/first]")
    with pytest.raises(UserError, match="`against` names this very run"):
        _build(folder, "second", "against=[runs/../runs/second]")
    assert (second[0] / "manifest.json").exists()


def test_a_run_that_changes_while_it_is_read(folder, first, second, tmp_path, monkeypatch):
    """Resolved before it was built again: the build stops, and nothing that was found counts."""
    shutil.copytree(first, tmp_path / "first")
    changes = (f"against=[{tmp_path}/first]",)
    before = against.resolve(parse(_recipe(folder, "second"), "r", changes), "/")
    _build(folder, "first", to=tmp_path / "first")
    monkeypatch.setattr(against, "resolve", lambda recipe, base: before)
    with pytest.raises(UserError, match=r"first changed while it was read; build again when its own build has ended"):
        _build(folder, "second", *changes, to=tmp_path / "second")
    assert list((tmp_path / "second").glob("against/**/*.stats.json")) == []
    shutil.copytree(second[0], tmp_path / "third")
    monkeypatch.setattr(against, "kept", lambda store, part, variant, decided: np.ones(part.rows, bool))
    with pytest.raises(UserError, match="changed while it was read"):
        _build(folder, "second", *changes, to=tmp_path / "third")
    assert list((tmp_path / "third").glob("against/**/*.stats.json")) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("runs/first", "against: Input should be a valid list"),
        ("[{run: a, variantx: b}]", "unknown key against.0.variantx; did you mean 'variant'?"),
        ("[{variant: b}]", "the key against.0.run is missing"),
        ("[3]", "against.0: "),
    ],
)
def test_the_key_is_strict(folder, tmp_path, given, said):
    (tmp_path / "recipe.yaml").write_text(_recipe(folder, "second"))
    with pytest.raises(UserError) as error:
        load(str(tmp_path / "recipe.yaml"), [f"against={given}"])
    assert said in str(error.value)
