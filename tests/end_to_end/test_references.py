"""The reference classifier through whole builds, on an overlap made by hand: which documents are cited is known by construction.

40 sites of nine pages; the wiki cites three of each, every time written in another way. Cited pages are of one style of
`corpus.prose`, the others of the other one, so that a classifier has something to learn.
"""

from __future__ import annotations

import html
import json
import re

import pyarrow.parquet as pq
import pytest

from pipelines import models, references
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.recipe_file import parse
from pipelines.store import Store
from pipelines.verify import verify
from tests import corpus
from tests.runs import ONE_WORKER, TWO_THREADS, differing, hashes
from tests.sources.test_mediawiki import dump, page
from tests.sources.test_warc import PAGE, http, record

RECIPE = """
name: cited
sources:
  crawl: {format: warc, paths: [crawl.warc]}
  wiki: {format: mediawiki, paths: [x.xml]}
fit:
  quality: {cited_in: [wiki], web: [crawl]}
  tokenizer: {vocab_size: 300, sample_mb: 1}
variants:
  all: {}
  filtered: {dedup: [exact], default: {quality: {draw: cut, threshold: 0.5}}}
tokens: {validation: 0.05}
"""
SITES, PAGES = 40, 9
WAYS = [
    "{{{{cite web |url=http://www.site{0}.example/{1}/ |title=x}}}}",
    "<ref>[https://SITE{0}.example:443/{1}?utm_source=w Title]</ref>",
    "* https://site{0}.example/{1}#top.",
]


def _is_cited(number):
    return number < len(WAYS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A crawl of 360 pages in a hashed order, and a wiki of 40 articles."""
    made = tmp_path_factory.mktemp("cited")
    order = sorted(((s, n) for s in range(SITES) for n in range(PAGES)), key=lambda one: corpus.Draw(str(one)).below(1 << 60))
    write_crawl(made / "crawl.warc", order)
    articles = []
    for site in range(SITES):
        links = " ".join(way.format(site, number) for number, way in enumerate(WAYS))
        articles.append(page(site, html.escape(f"{corpus.prose(f'wiki {site}', True)} {links} http://elsewhere.example/{site}")))
    talk = page(900, "https://site0.example/8", namespace=1)
    dump(made, *articles, talk)
    return made


def write_crawl(path, order):
    blocks = [http(PAGE.format(corpus.prose(f"page {one}", _is_cited(one[1]), 20)).encode()) for one in order]
    urls = [f"https://site{site}.example/{number}" for site, number in order]
    path.write_bytes(b"".join(record("response", b, **{"WARC-Target-URI": u}) for b, u in zip(blocks, urls, strict=True)))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    made = tmp_path_factory.mktemp("run") / "run"
    _build(folder, made)
    return made


def _build(folder, run, *changes, engine=ONE_WORKER):
    said = []
    build(parse(RECIPE, "cited", changes), str(folder), str(run), engine, said.append)
    return {line.split()[0]: int(line.split()[1]) for line in said}


def _rows(run, table, source="crawl"):
    return [row for path in sorted((run / table / source).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_the_cited_are_found_however_they_are_written(run):
    for row in _rows(run, "samples"):
        number = int(row["url"].rpartition("/")[2])
        assert row["cited"] == _is_cited(number)
    assert sum(row["cited"] for row in _rows(run, "samples")) > 100
    assert {row["url"] for row in _rows(run, "samples", "wiki")} <= {None}
    store = Store(str(run))
    assert len(references.load(store)) == SITES * (len(WAYS) + 1)
    (task,) = (run / "references" / "wiki").glob("*.bin")
    facts = store.sidecar(f"references/wiki/{task.name}")
    assert (facts["pages"], facts["links"], facts["urls"]) == (SITES, SITES * 4, SITES * 4)


def test_the_card_says_what_was_found_and_judges_by_sites(run):
    metrics = json.loads((run / models.QUALITY_CARD).read_text())["metrics"]
    facts = metrics["references"]
    held_out = sum(row["split"] == "validation" for row in _rows(run, "decisions/all"))
    assert 0 < held_out < 60
    assert facts == {
        "cited_in": ["wiki"], "urls_cited": SITES * 4, "documents": SITES * PAGES, "documents_cited": SITES * len(WAYS),
        "learned_cited": sum(row["cited"] and row["for_quality"] for row in _rows(run, "samples")),
        "learned_not_cited": sum(not row["cited"] and row["for_quality"] for row in _rows(run, "samples")),
        "sites_cited": SITES, "sites_not_cited": SITES,
    }  # fmt: skip
    assert facts["learned_cited"] + facts["learned_not_cited"] == SITES * PAGES - held_out
    left_out = metrics["leave_one_source_out"]
    names = [f"{kind}, sites {n} of 4" for kind in ("cited", "not cited") for n in (1, 2, 3, 4)]
    assert [one["source"] for one in left_out] == names
    assert sum(one["curated_documents"] for one in left_out[:4]) < facts["learned_cited"]  # some are held out
    for cited, other in zip(left_out[:4], left_out[4:], strict=True):
        # One group of sites, out of both classes at once: each is scored against the other, and nothing else.
        assert (cited["curated_documents"], cited["web_documents"]) == (other["curated_documents"], other["web_documents"])
        assert cited["auc"] == other["auc"] > 0.95
    assert metrics["held_out_slice"]["auc"] > 0.95


def test_cited_pages_score_above_the_others_and_the_wiki_is_not_judged(run):
    scores = {True: [], False: []}
    for document, signals in zip(_rows(run, "documents"), _rows(run, "signals"), strict=True):
        scores[_is_cited(int(document["url"].rpartition("/")[2]))].append(signals["quality"])
    kept = [sum(score >= 0.5 for score in scores[cited]) for cited in (True, False)]
    assert kept[0] > 0.9 * SITES * len(WAYS)
    assert kept[1] < 0.1 * SITES * (PAGES - len(WAYS))
    assert {row["verdict"] for row in _rows(run, "decisions/filtered", "wiki")} == {"keep"}
    dropped = [row["verdict"] for row in _rows(run, "decisions/filtered")]
    assert dropped.count("quality_cut") == SITES * PAGES - sum(kept)


def test_page_and_dataset_card_tell_it_and_claim_nothing(run):
    page_text = " ".join(re.sub(r"<[^>]+>", " ", html.unescape((run / "report.html").read_text())).split())
    for text in (page_text, (run / "card.md").read_text()):
        assert "of 360 documents 120 are at one of the 160 URLs that wiki cites" in text
        assert "Cited is not good" in text
    assert verify(str(run), deep=True).faults == []


def test_workers_do_not_matter(folder, run, tmp_path):
    _build(folder, tmp_path / "run", engine=TWO_THREADS)
    assert differing(hashes(run), hashes(tmp_path / "run")) == set()


def test_only_what_changed_is_redone_and_another_classifier_leaves_nothing(folder, run, tmp_path):
    assert _build(folder, run)["cite"] == 0
    other = tmp_path / "inputs"
    other.mkdir()
    (other / "crawl.warc").write_bytes((folder / "crawl.warc").read_bytes())
    (other / "x.xml").write_text((folder / "x.xml").read_text().replace("SITE0.example:443/1", "SITE0.example:443/none"))
    copy = tmp_path / "run"
    _build(other, copy)
    redone = _build(folder, copy)
    assert (redone["cluster"], redone["cite"], redone["sample"]) == (0, 1, 1)  # no text has changed
    assert differing(hashes(copy), hashes(run)) == set()
    plain = ("fit.quality={curated: [wiki], web: [crawl]}",)
    _build(folder, copy, *plain)
    assert not (copy / models.REFERENCES).exists()
    assert not [path for path in (copy / "references").rglob("*") if path.is_file()]


def test_a_sample_of_the_cited_is_cut_in_hash_order(folder, tmp_path):
    """120 documents of about 2 kB; 20 kB of them take about ten."""
    _build(folder, tmp_path / "run", "fit.quality.sample_mb=0.02")
    facts = json.loads((tmp_path / "run" / models.QUALITY_CARD).read_text())["metrics"]["references"]
    sizes = {row["doc_id"]: len(row["text"].encode()) for row in _rows(tmp_path / "run", "samples") if row["cited"]}
    assert 5 < facts["learned_cited"] < 20 < len(sizes)
    assert facts["documents_cited"] == 120


def test_too_few_cited_documents_are_said_with_what_there_is(folder, tmp_path):
    (tmp_path / "x.xml").write_bytes((folder / "x.xml").read_bytes())
    write_crawl(tmp_path / "crawl.warc", [(site, number) for site in range(20) for number in range(PAGES)])
    with pytest.raises(UserError, match=(
        r"^fit\.quality\.cited_in: 60 documents of crawl are cited by wiki \(160 URLs\), and \d\d of them can be learned from"
        r" \(no copies, not held out\); at least 100 are needed: give more of the crawl, or name fit\.quality\.curated instead$"
    )):  # fmt: skip
        _build(tmp_path, tmp_path / "run")


def test_a_crawl_that_is_cited_whole_has_no_other_class(folder, tmp_path):
    (tmp_path / "x.xml").write_bytes((folder / "x.xml").read_bytes())
    write_crawl(tmp_path / "crawl.warc", [(site, number) for site in range(SITES) for number in range(len(WAYS))])
    with pytest.raises(UserError, match=r"^fit\.quality\.web: crawl has no document that is not cited; give more of the crawl$"):
        _build(tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{cited_in: [wiki], curated: [wiki], web: [crawl]}", "give either curated or cited_in"),
        ("{web: [crawl]}", "give either curated or cited_in"),
        ("{cited_in: [wikj], web: [crawl]}", r"fit\.quality\.cited_in names the source 'wikj'; did you mean 'wiki'\?"),
        ("{cited_in: [crawl], web: [crawl]}", r"fit\.quality\.cited_in names 'crawl', no mediawiki source"),
    ],
)
def test_recipes_that_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        parse(RECIPE, "cited", [f"fit.quality={change}"])
