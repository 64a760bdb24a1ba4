"""The shipped recipes through whole builds: every source in the format that its recipe reads, conservation, the papers' shares.

The inputs are small and made: what real data come to stands in docs/results.md (`bench/llama_build.py`). Their sizes are such that
some sources are cut and others are gone through several times.
"""

from __future__ import annotations

import gzip
import html
import json
import textwrap
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from pipelines import mixture
from pipelines.build import build
from pipelines.recipe_file import load
from pipelines.verify import verify
from tests.corpus import prose
from tests.runs import ONE_WORKER
from tests.sources.test_arxiv import bundle, paper, tar
from tests.sources.test_books import zipped
from tests.sources.test_code import MIT
from tests.sources.test_gutenberg import NEW, NEW_END
from tests.sources.test_mediawiki import dump, page
from tests.sources.test_stackexchange import answer, question
from tests.sources.test_stackexchange import dump as posts
from tests.sources.test_warc import PAGE, http, record

TOKENS = 200_000
SMALLER = (
    f"mixture.tokens={TOKENS}", "tokens={shards: 2, validation: 0.05}", "fit.tokenizer.vocab_size=500", "fit.tokenizer.sample_mb=1",
    "fit.quality.sample_mb=1",
)  # fmt: skip
LLAMA = (
    "fit.perplexity={sources: [wikipedia], min_tokens: 1000, sample_mb: 1}",
    "fit.quality={curated: [wikipedia, books], web: [common_crawl]}",  # the dump cites none of these pages: see test_references
    # The classifier knows made pages by heart, and would keep none by the recipe's threshold.
    "variants.filtered.sources.common_crawl.quality={draw: cut, keep_rate: 0.5}",
    *SMALLER,
)
# Each breaks one rule of LLaMA's for code: a line of 1,502 characters, lines of 122, hardly any alphanumerics.
BAD_CODE = {
    "code_longest_line": "a = 1\n" * 30 + "# " + "word " * 300 + "\n",
    "code_mean_line_length": ("# " + "word " * 24 + "\n") * 20,
    "code_alphanumerics": "# -------\na = [[[[]]]] #\n" * 10,
}
COPIES = {"long": 0, "reprint": 200, "edition": 30}
PAPERS = {"llama": mixture.LLAMA, "glam": mixture.GLAM}


def _gzipped(folder, name, rows):
    folder.mkdir()
    (folder / name).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))


def _crawl(folder, documents):
    """Pages, every other one in the words of the curated sources, each behind its request."""
    folder.mkdir()
    found = []
    for number in range(documents):
        text = "".join(f"<p>{part}</p>" for part in prose(f"{folder.name} {number}", number % 2 == 0, 40).split("\n\n"))
        where = {"WARC-Target-URI": f"https://host{number}.example/"}
        found.append(record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request", **where))
        found.append(record("response", http(PAGE.replace("<p>{}</p>", text).encode()), **where))
    (folder / "a.warc.gz").write_bytes(b"".join(gzip.compress(one, mtime=0) for one in found))


def _wikipedia(folder):
    import bz2

    folder.mkdir()
    articles = [page(number, html.escape(prose(f"wiki {number}", True, 20))) for number in range(40)]
    made = dump(folder, *articles, page(99, "#REDIRECT [[Page 1]]"), pack=bz2.compress)
    made.rename(folder / "enwiki-pages-articles.xml.bz2")


def _books(folder):
    folder.mkdir()
    texts = {f"{number}.txt": prose(f"book {number}", True) for number in range(60)}
    # One word in 200 changed: 97.5 % of its shingles stand in the other book. One in 30: 83 %, which is no copy of a book.
    texts |= {f"{name}.txt": _changed(prose("long book", True, 60), every) for name, every in COPIES.items()}
    (folder / "books.zip").write_bytes(zipped({name: (NEW + text + NEW_END).encode() for name, text in texts.items()}))


def _changed(text, every):
    """The text with one word in `every` replaced; 0: as it is."""
    words = text.split(" ")
    return " ".join(f"word{at}" if every and at % every == every // 2 else word for at, word in enumerate(words))


def _rows(name, documents):
    return [{"text": prose(f"{name} {number}", False), "url": f"https://{name}.example/{number}"} for number in range(documents)]


def _inputs(name, folder):
    _wikipedia(folder / "wikipedia")
    _books(folder / "books")
    if name == "glam":
        _crawl(folder / "filtered_webpages", 150)
        for source, documents in (("conversations", 90), ("forums", 40), ("news", 40)):
            _gzipped(folder / source, "a.jsonl.gz", _rows(source, documents))
        return {"filtered_webpages": 300, "wikipedia": 41, "books": 63, "conversations": 90, "forums": 40, "news": 40}
    _crawl(folder / "common_crawl", 150)
    rows = [*_rows("c4", 80), {"text": prose("page of code", False) + "\nIt is a function { of this page.", "url": "https://c4.example/"}]
    crawled = [{**row, "timestamp": "2019-04-25T12:57:54Z"} for row in rows]
    _gzipped(folder / "c4", "c4-train.00000-of-01024.json.gz", crawled)
    for source in ("github", "arxiv", "stackexchange"):
        (folder / source).mkdir()
    code = {f"r/f{n}.py": "".join(f"# {line}\n" for line in textwrap.wrap(prose(f"code {n}", False), 80)) for n in range(40)}
    code |= {f"r/{name}.py": text for name, text in BAD_CODE.items()}
    (folder / "github" / "r.tar").write_bytes(tar({path: text.encode() for path, text in {"r/LICENSE": MIT, **code}.items()}))
    papers = {f"2301/2301.{n:05d}.gz": bundle(paper(prose(f"paper {n}", True))) for n in range(30)}
    (folder / "arxiv" / "arXiv_src_2301_001.tar").write_bytes(tar(papers))
    rows = [question(n, f"<p>{prose(f'question {n}', False)}</p>") for n in range(1, 31)]
    rows += [answer(100 + n, n, n, f"<p>{prose(f'answer {n}', False)}</p>") for n in range(1, 31)]
    (folder / "stackexchange" / "Posts.xml").write_bytes(posts(*rows))
    (folder / "stackexchange" / "small.site.xml").write_bytes(posts(*rows))  # not among the sites that were chosen
    (folder / "stackexchange" / "sites.txt").write_text("Posts.xml\n")
    records = {"common_crawl": 300, "c4": 81, "github": 44, "wikipedia": 41, "books": 63, "arxiv": 30, "stackexchange": 60}
    return records


@pytest.fixture(scope="module", params=sorted(PAPERS))
def made(request, tmp_path_factory):
    """(name, recipe, run, records by source)."""
    folder = tmp_path_factory.mktemp(request.param)
    records = _inputs(request.param, folder)
    recipe, _ = load(request.param, LLAMA if request.param == "llama" else SMALLER)
    build(recipe, str(folder), str(folder / "run"), ONE_WORKER, lambda line: None)
    return request.param, recipe, folder / "run", records


def test_the_recipe_has_the_papers_sources_and_proportions():
    """Of GLaM also the epochs that its tokens give in 600 billion: no source is warned of that has what the table says."""
    for name, published in PAPERS.items():
        recipe, _ = load(name)
        assert recipe.mixture is not None
        assert list(recipe.sources) == list(published.sources)
        assert recipe.wanted_tokens() == mixture.wanted_tokens(published.weights, recipe.mixture.tokens)
    there = {source: row.tokens for source, row in mixture.GLAM.sources.items()}
    wanted, most = recipe.wanted_tokens(), recipe.mixture.max_epochs
    assert [mixture.warning(source, wanted[source], there[source], most) for source in there] == [None] * 6
    assert mixture.warning("wikipedia", wanted["wikipedia"] + 1, there["wikipedia"], most) is not None


def test_every_record_of_every_format_is_accounted_for(made):
    _, _, run, records = made
    accounts = json.loads((run / "manifest.json").read_bytes())["accounts"]["sources"]
    assert {source: one["records"] for source, one in accounts.items()} == records
    assert all(one["documents"] > 0 for one in accounts.values())
    assert verify(str(run), deep=True).faults == []


@pytest.mark.parametrize("variant", ["unfiltered", "filtered"])
def test_the_mixture_is_the_papers(made, variant):
    """Of the blend within 1 percentage point, in tokens within one document; some sources are cut, others repeated."""
    name, recipe, run, _ = made
    trained, weight, epochs = defaultdict(float), defaultdict(float), {}
    for entry in json.loads((run / "tokens" / variant / "blend.json").read_bytes())["train"]:
        source = entry["prefix"].split("/")[1].rsplit("-", 3)[0]
        trained[source] += entry["epochs"] * entry["tokens"]
        weight[source] += entry["weight"]
        epochs[source] = entry["epochs"]
    for source, row in PAPERS[name].sources.items():
        assert weight[source] == pytest.approx(row.percent / 100, abs=1e-3)
        assert trained[source] / sum(trained.values()) == pytest.approx(row.percent / 100, abs=0.01)
        assert abs(trained[source] - recipe.wanted_tokens()[source]) < _longest(run, source)
    assert min(epochs.values()) == 1.0 < max(epochs.values())
    solved = json.loads((run / "decisions" / variant / "mixture.json").read_bytes())
    assert any(one["taken"] < one["available"] for one in solved.values())


def _longest(run, source):
    tables = [pq.read_table(path, columns=["n_tokens"]) for path in sorted((run / "signals" / source).glob("*.parquet"))]
    return max(max(table.column(0).to_pylist(), default=0) for table in tables) + 1


def test_the_filter_is_the_papers(made):
    """GLaM draws web pages alone; LLaMA cuts the crawl by perplexity and classifier, and asks C4's rules of c4 alone."""
    name, _, run, _ = made
    accounts = json.loads((run / "manifest.json").read_bytes())["accounts"]["variants"]["filtered"]
    dropped = {source: set(one["dropped"]) for source, one in accounts.items()}
    drawn = {source for source, reasons in dropped.items() if reasons & {"quality_draw", "quality_cut"}}
    assert drawn == {"glam": {"filtered_webpages"}, "llama": {"common_crawl"}}[name]
    if name == "llama":
        assert {reason: accounts["github"]["dropped"].get(reason) for reason in BAD_CODE} == dict.fromkeys(BAD_CODE, 1)
        assert accounts["c4"]["dropped"]["c4_curly_bracket"] == 1
        assert accounts["books"]["dropped"]["duplicate_near"] == 1  # the reprint, not the edition
        assert "perplexity" in dropped["common_crawl"]
        assert {source for source, reasons in dropped.items() if "perplexity" in reasons} == {"common_crawl"}
