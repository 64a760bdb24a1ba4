"""card.md and croissant.json of a whole run: their numbers against the tables, mlcroissant as the judge and the reader, verify."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from pipelines.build import build
from pipelines.recipe_file import parse
from pipelines.report import rewrite_report
from pipelines.verify import verify
from tests import corpus
from tests.runs import ONE_WORKER, hashes

# What mlcroissant calls warns of itself: rdflib of a class that it uses, pandas of a keyword that mlcroissant does.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index is deprecated:DeprecationWarning"),
]

RECIPE = """
name: carded
sources:
  mail: {format: jsonl, paths: [INPUT/mail.jsonl], mask: true}
  open: {format: jsonl, paths: [INPUT/open.jsonl]}
fit: {tokenizer: {vocab_size: 400, sample_mb: 1}}
variants: {all: {}, once: {dedup: [exact]}}
tokens: {validation: 0}
"""


@pytest.fixture(scope="module")
def carded(tmp_path_factory):
    """Two sources with licenses and addresses; every text of `open` stands in `mail` as well."""
    folder = tmp_path_factory.mktemp("carded")
    rows = [{"text": corpus.prose(f"mail {n}", n % 2 == 0, 3), "license": "MIT" if n % 4 else None} for n in range(20)]
    rows[3]["text"] += " Write to jane.doe@mail.example.org or call 8.8.4.4."
    rows[7]["text"] += " a@b.de, c@d.fr"
    for name, some in (("mail", rows), ("open", rows[:10])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    build(parse(RECIPE.replace("INPUT", str(folder)), "carded"), ".", str(folder / "run"), ONE_WORKER, lambda line: None)
    return folder / "run"


def _columns(run, table, names, source="*"):
    paths = sorted(run.glob(f"{table}/{source}/*.parquet"))
    return [row for path in paths for row in pq.read_table(path, columns=names).to_pylist()]


def _json(run, name):
    return json.loads((run / name).read_bytes())


@pytest.mark.parametrize("source", ["mail", "open"])
def test_licenses_and_addresses_are_those_of_the_tables(carded, source):
    found = _json(carded, "stats.json")["sources"][source]
    stated = Counter(row["license"] for row in _columns(carded, "documents", ["license"], source))
    assert found["licenses"] == {"largest": {"MIT": stated["MIT"]}, "others": 0, "without": stated[None]}
    assert stated == ({"MIT": 15, None: 5} if source == "mail" else {"MIT": 7, None: 3})
    signals = _columns(carded, "signals", ["emails", "ip_addresses", "perplexity", "language"], source)
    for variant in (None, "all", "once"):
        some, profile = signals, found["all"]
        if variant:
            verdicts = _columns(carded, f"decisions/{variant}", ["verdict"], source)
            some = [row for row, one in zip(signals, verdicts, strict=True) if one["verdict"] == "keep"]
            profile = found["variants"][variant]["kept"]
        for name in ("emails", "ip_addresses"):
            assert profile[name] == sum(row[name] for row in some)
    assert (found["all"]["emails"], found["all"]["ip_addresses"]) == (3, 1)
    assert found["without_perplexity"] == Counter(row["language"] or "und" for row in signals)  # no model at all


def test_the_card_says_so(carded):
    text = (carded / "card.md").read_text("utf-8")
    assert "license:\n- mit\n- unknown\n" in text
    assert "| mail | `MIT` | 15 |\n| mail | *none stated* | 5 |\n| open | `MIT` | 7 |\n| open | *none stated* | 3 |\n" in text
    assert "| mail | masked | 3 | 3 | " in text
    assert "| open | as found | 3 | 3 | " in text
    assert "E-mail and IP addresses of open in the shards as they were found: up to 4 in a variant." in text
    assert "addresses of mail in the shards as" not in text


def test_the_cards_tokens_are_those_in_the_shards(built):
    text, accounts = (built / "card.md").read_text("utf-8"), _json(built, "manifest.json")["accounts"]
    for source, one in accounts["sources"].items():
        kept = [sum(accounts["variants"][variant][source]["tokens"].values()) for variant in ("unfiltered", "filtered")]
        size = [
            sum(path.stat().st_size for path in built.glob(f"tokens/{variant}/*/{source}-*.bin"))
            for variant in ("unfiltered", "filtered")
        ]
        assert size == [2 * tokens for tokens in kept]
        row = next(line for line in text.splitlines() if line.startswith(f"| {source} | jsonl | {one['records']} |"))
        assert row.endswith(f" | {kept[0]:,} | {kept[1]:,} |")
    assert "| `duplicate_exact` | exact | the text of a document that stays | 15 | 6.0 % |" in text


# -- Croissant --------------------------------------------------------------------------------------------------------------


def test_croissant_names_files_as_they_lie(built):
    found = [one for one in _json(built, "croissant.json")["distribution"] if one["@type"] == "cr:FileObject"]
    for one in found:
        content = (built / one["contentUrl"]).read_bytes()
        assert (one["contentSize"], one["sha256"]) == (f"{len(content)} B", hashlib.sha256(content).hexdigest())
    named = {one["@id"] for one in found}
    on_disk = {name for name in hashes(built) if not name.endswith(".stats.json")}
    assert {name for name in on_disk if name.startswith("tokens/")} < named
    assert {name for name in on_disk if name.startswith(("documents/", "decisions/")) and name.endswith(".parquet")} < named
    assert {name.split("/")[0] for name in named} == {"documents", "decisions", "tokens", "models"}


def test_mlcroissant_finds_no_error_and_only_the_publishers_part_missing(carded, built):
    mlcroissant = pytest.importorskip("mlcroissant")
    publishers = {"citeAs", "datePublished", "version"}
    for run, missing in ((carded, publishers), (built, publishers | {"license"})):  # no record of `built` states a license
        metadata = mlcroissant.Dataset(str(run / "croissant.json")).metadata
        assert metadata.ctx.issues.errors == set()
        assert {warning.split('"')[1].split("/")[-1] for warning in metadata.ctx.issues.warnings} == missing
        assert metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.0"


def test_mlcroissant_reads_documents_and_decisions_side_by_side(built):
    """Every value of every row, by another reader, from nothing but croissant.json."""
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(str(built / "croissant.json"))
    tables = ["documents", "decisions/unfiltered", "decisions/filtered"]
    assert [one.uuid for one in dataset.metadata.record_sets] == tables
    for table in tables:
        expected = _columns(built, table, None)
        found = list(dataset.records(table))
        assert len(found) == len(expected) == 250
        for one, row in zip(found, expected, strict=True):
            assert one == {f"{table}/{name}": _encoded(value) for name, value in row.items()}


def _encoded(value):
    """Text as mlcroissant hands it out."""
    return value.encode() if isinstance(value, str) else value


def test_mlcroissant_refuses_a_description_that_is_broken(built, tmp_path):
    """The judge can say no: a field without a type, a set without patterns."""
    mlcroissant = pytest.importorskip("mlcroissant")
    for name, key in (("recordSet", "dataType"), ("distribution", "includes")):
        found = _json(built, "croissant.json")
        target = found[name][0]["field"][0] if name == "recordSet" else found[name][-1]
        del target[key]
        (tmp_path / "croissant.json").write_text(json.dumps(found))
        with pytest.raises(mlcroissant.ValidationError):
            mlcroissant.Dataset(str(tmp_path / "croissant.json"))


# -- as files of the run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["card.md", "croissant.json"])
def test_verify_finds_a_change_and_report_mends_it(built, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    before = hashes(run)
    (run / name).write_bytes(b"changed")
    (fault,) = verify(str(run)).faults
    assert fault.startswith(f"{name} is not what was written")
    rewrite_report(str(run))
    assert hashes(run) == before
    assert verify(str(run)).faults == []


def test_a_card_of_another_version_is_stated_in_the_manifest(built, tmp_path, monkeypatch):
    from pipelines import report

    run = tmp_path / "run"
    shutil.copytree(built, run)
    monkeypatch.setattr(report, "card", lambda stats: "another card")
    rewrite_report(str(run))
    assert (run / "card.md").read_bytes() == b"another card"
    assert verify(str(run)).faults == []
