"""The service's pages in a real browser, served by a real server on loopback over real runs.

What a page says is held to the library that says it too: `explain`, `TextScorer`, the manifest. Runs only where a Chromium is
installed and the extra `service` is; see `chromium`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import threading
import time
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="the extra `service` is not installed")
import pyarrow.parquet as pq
import uvicorn

from pipelines.build import build
from pipelines.explain import explain
from pipelines.recipe_file import parse
from pipelines.score import TextScorer
from quality.service.app import create_app
from quality.service.settings import Limits, Settings
from tests import corpus
from tests.browser import chromium
from tests.browser.test_report_page import _OVERFLOW
from tests.runs import ONE_WORKER
from tests.train.compare.test_page import HOSTILE, construct

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="no chromium on this machine")

TOKEN = "0123456789abcdef0123456789abcdef"
COMPARISON = "0123456789ab"
_OPEN = "document.querySelectorAll('details').forEach(one => { one.open = true })"
_TEXT = "document.body.innerText"
_ROWS = "[...document.querySelectorAll('tbody tr')].map(row => [...row.children].map(one => one.innerText))"


# -- what is served ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(built, tmp_path_factory):
    """tiny: the small corpus, with a comparison; hostile: every text of it is an attack; begun: a run without a manifest."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    shutil.copytree(built, folder / "tiny")
    comparison = folder / "tiny" / "comparisons" / COMPARISON
    comparison.mkdir(parents=True)
    result, _ = construct(5, ["primary", "matched"], rename=lambda name: f"{name}{HOSTILE}")
    (comparison / "result.json").write_text(json.dumps(result))
    (folder / "begun").mkdir()
    (folder / "begun" / ".lock").touch()
    inputs = folder.parent / "hostile"
    told = {"id": HOSTILE, "title": HOSTILE + "x" * 300}
    texts = [f"{corpus.prose(str(n), True)}{HOSTILE}" for n in range(12)]
    rows = [{**told, "url": f"javascript:alert({n})", "text": text} for n, text in enumerate(texts)]
    inputs.mkdir()
    (inputs / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + HOSTILE + "\n")
    recipe = f"""
name: hostile
sources: {{web: {{format: jsonl, paths: ["{inputs}/*.jsonl"]}}}}
fit: {{tokenizer: {{vocab_size: 600, sample_mb: 1}}}}
variants: {{all: {{}}, some: {{default: {{rules: {{gopher: {{words.low: 100000}}}}}}}}}}
"""
    build(parse(recipe, "hostile"), ".", str(folder / "hostile"), ONE_WORKER, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def serving(runs, inputs, tmp_path_factory):
    """Serves the runs, the recipe of the small corpus and one of a build that does not end; gives the address."""
    recipes = tmp_path_factory.mktemp("recipes")
    (recipes / "small.yaml").write_text("# A small corpus <b>for tests</b>. And more.\n" + corpus.recipe(inputs))
    (recipes / "endless.yaml").write_text("# Waits for its input.\n" + corpus.endless(recipes))
    with contextlib.ExitStack() as stack:

        def made(name: str, token: str | None = None, listeners: int = 16) -> str:
            state = tmp_path_factory.mktemp(name)
            limits = Limits(wait_seconds=60, listeners=listeners)
            settings = Settings(runs=runs, state=state, recipes=recipes, token=token, limits=limits)
            return stack.enter_context(_served(create_app(settings)))

        yield made


@contextlib.contextmanager
def _served(app):
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none", timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        _wait(lambda: server.started or not thread.is_alive(), 60)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(serving):
    return serving("open")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def _wait(is_so, seconds=120):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def _visit(page, url, width=1200, dark=False):
    page.complaints.clear()
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])
    page.call("Page.navigate", url=url)
    _until(page, f"location.href === {json.dumps(url)} && document.readyState === 'complete'")


def _until(page, expression, seconds=120):
    """Waits until an expression holds; a page that is just left cannot be asked."""

    def is_so():
        try:
            return page.evaluate(f"!!({expression})")
        except RuntimeError:
            return False

    _wait(is_so, seconds)


def _send(page, form, **fields):
    """Fills a form's fields and presses its button, as a user does."""
    for name, value in fields.items():
        page.evaluate(f"{form}.querySelector('[name={name}]').value = {json.dumps(value)}")
    page.evaluate(f"{form}.requestSubmit()")


def _form(action):
    return f"document.querySelector('form[action=\"{action}\"]')"


def _documents(run, variant):
    """Verdict -> a document id of it, in the run."""
    found = {}
    for path in sorted((run / "decisions" / variant).rglob("*.parquet")):
        ids = pq.read_table(run / "documents" / path.relative_to(run / "decisions" / variant), columns=["doc_id"])
        for doc_id, verdict in zip(ids["doc_id"].to_pylist(), pq.read_table(path)["verdict"].to_pylist(), strict=True):
            found.setdefault(verdict, doc_id.hex())
    return found


# -- every page -------------------------------------------------------------------------------------------------------------

_PAGES = [
    "/", "/score", "/recipes", "/jobs", "/corpora/tiny", "/corpora/hostile", "/corpora/begun", "/corpora/hostile/documents?name=0",
    "/corpora/hostile/documents?name=a.jsonl%230", "/corpora/hostile/documents?name=a.jsonl%2312",
    "/corpora/hostile/documents?name=" + quote(HOSTILE, safe=""), "/corpora/nowhere", "/nowhere",
]  # fmt: skip


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("path", _PAGES)
def test_a_page_loads_nothing_runs_nothing_and_fits(page, address, path, width):
    _visit(page, address + path, width)
    page.evaluate(_OPEN)
    refused = ["Failed to load resource"] if "nowhere" in path or "name=0" in path or "name=%3C" in path else []
    assert [one for one in page.complaints if not any(known in one for known in refused)] == []
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert page.evaluate("document.querySelectorAll('iframe, object, embed, img, script[src], link:not([rel=icon])').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(_OVERFLOW) == []
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.evaluate("getComputedStyle(document.querySelector('.top')).borderBottomWidth") == "1px"  # the style was let in


@pytest.mark.parametrize("path", ["/", "/score", "/recipes", "/corpora/tiny", "/corpora/tiny/documents?name=w.jsonl%230"])
def test_every_field_has_a_label_and_headings_go_down_by_one(page, address, path):
    _visit(page, address + path)
    page.evaluate(_OPEN)
    fields = "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]"
    assert page.evaluate(f"{fields}.filter(one => !one.labels.length).length") == 0
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert all(second <= first + 1 for first, second in itertools.pairwise(levels))


def test_the_policy_stops_what_is_not_the_pages_own(page, address):
    """A script and a style that got into a page would not run, and the test would see it."""
    _visit(page, address + "/")
    attack = "<p id=x style='color: red' onclick='document.title = 1'>x</p>"
    page.evaluate(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(attack)})")
    page.evaluate("{ const s = document.createElement('script'); s.textContent = 'document.title = 2'; document.body.append(s) }")
    page.evaluate("document.getElementById('x').click()")
    assert page.evaluate("document.title") == "Corpora – winnow"
    assert page.evaluate("getComputedStyle(document.getElementById('x')).color") == "rgb(23, 33, 43)"
    _until(page, "1")
    assert len([one for one in page.complaints if "Content Security Policy" in one]) >= 3


# -- reading ----------------------------------------------------------------------------------------------------------------


def test_corpora_say_what_their_manifests_say(page, address, runs):
    accounts = json.loads((runs / "tiny" / "manifest.json").read_text())["accounts"]
    _visit(page, address + "/")
    text = page.evaluate(_TEXT)
    for variant, by_source in accounts["variants"].items():
        tokens = sum(sum(one["tokens"].values()) for one in by_source.values())
        assert variant in text
        assert f"{tokens:,} tokens" in text
    assert "A build was begun and has not ended" in text
    _visit(page, address + "/corpora/tiny")
    text = page.evaluate(_TEXT)
    assert "250 records read = 250 documents + 0 rejected + 0 merged" in text
    rows = page.evaluate(_ROWS)
    for by_source in accounts["variants"].values():
        for source, one in by_source.items():
            kept, tokens = f"{one['kept']:,}", f"{sum(one['tokens'].values()):,}"
            assert any(row[0] == source and kept in row and tokens in row for row in rows)


def test_a_comparison_stands_in_the_corpus_with_its_gap(page, address):
    primary = next(one for one in construct(5, ["primary", "matched"])[0]["contrasts"] if one["name"] == "primary")["endpoint"]
    _visit(page, address + "/corpora/tiny")
    text = page.evaluate("document.querySelector('.findings').innerText")
    assert f"{primary['gap']:+.4f}" in text
    assert f"{primary['low']:+.4f} to {primary['high']:+.4f}" in text
    assert text.count("<script>alert(1)</script>") == 2  # both arms are called so
    assert page.evaluate("document.querySelector('.findings a').getAttribute('href')").endswith(f"/comparisons/{COMPARISON}/page")


def test_a_document_is_explained_as_explain_does(page, address, runs):
    """Every verdict that the filtered variant gives, found by the form on the corpus' page."""
    found = _documents(runs / "tiny", "filtered")
    assert len(found) >= 4
    for verdict, doc_id in found.items():
        (known,) = explain(str(runs / "tiny"), doc_id)
        mine = next(one for one in known.verdicts if one.variant == "filtered")
        _visit(page, address + "/corpora/tiny")
        _send(page, _form("/corpora/tiny/documents"), name=f" {doc_id} ")
        _until(page, "location.pathname.endsWith('/documents') && document.readyState === 'complete'")
        text = page.evaluate("[...document.querySelectorAll('.card')].find(one => /^filtered/.test(one.innerText)).innerText")
        if verdict == "keep":
            assert "kept" in text
            assert f"document {mine.position:,} of {mine.prefix}, from token {mine.offset:,} on" in text
        else:
            assert f"dropped {mine.stage}" in text
            assert mine.verdict in text
            assert (mine.keeper or "") in text
        tables = [pq.read_table(path, columns=["doc_id", "text"]) for path in (runs / "tiny" / "documents").rglob("*.parquet")]
        texts = {row["doc_id"].hex(): row["text"] for table in tables for row in table.to_pylist()}
        assert page.evaluate("document.querySelector('pre.text').textContent") == texts[doc_id]
        broken = page.evaluate("[...document.querySelectorAll('tr.broken th')].map(one => one.innerText)")
        assert (verdict in broken) == (mine.stage == "rules")
        assert page.complaints == []


def test_what_a_corpus_holds_is_inert(page, address):
    _visit(page, address + "/corpora/hostile/documents?name=a.jsonl%230")
    text = page.evaluate(_TEXT)
    assert page.evaluate("document.querySelector('h1').innerText").startswith("<script>alert(1)</script>")
    assert text.count("<script>alert(1)</script>") >= 3
    assert "javascript:alert(0)" in text
    assert page.evaluate("[...document.querySelectorAll('a')].filter(one => one.protocol !== 'http:').length") == 0
    assert "\u202e" not in page.evaluate("document.documentElement.outerHTML")
    assert "\u25a1gnp.exe" in text
    _visit(page, address + "/corpora/hostile/documents?name=a.jsonl%2312")
    assert "malformed_json" in page.evaluate(_TEXT)


def test_an_unknown_name_is_said_and_can_be_mended(page, address):
    _visit(page, address + "/corpora/tiny/documents?name=w.jsonl%23999")
    assert "no document or reject goes by 'w.jsonl#999'" in page.evaluate(_TEXT)
    _send(page, _form("/corpora/tiny/documents"), name="w.jsonl#0")
    _until(page, "document.querySelector('h1').innerText === 'Title 0'")


# -- scores -----------------------------------------------------------------------------------------------------------------


def test_a_text_is_scored_as_the_scorer_does(page, address, runs):
    text = corpus.prose("a new one", curated=True, sentences=30) + "\n<script>alert(1)</script>"
    (known,) = TextScorer(str(runs / "tiny"), "filtered")([text], explain=True)
    _visit(page, address + "/score")
    _send(page, _form("/score"), by="tiny/filtered", text=text)
    _until(page, "document.querySelector('#result') && document.readyState === 'complete'")
    cards = page.evaluate("document.querySelector('#result').innerText")
    assert ("kept" if known["verdict"] == "keep" else known["verdict"]) in cards
    assert f"{known['quality']:.4g}" in cards
    assert known["language"] in cards
    words = page.evaluate("[...document.querySelectorAll('.words code')].map(one => one.textContent)")
    assert words == [word for word, amount in sorted(known["contributions"], key=lambda one: (-one[1], one[0])) if amount]
    assert page.evaluate("document.querySelectorAll('.numbers li').length") == len(known["signals"])
    assert page.evaluate("document.querySelector('#text').value") == text  # what was pasted stays as it was
    assert page.complaints == []


def test_json_lines_are_scored_one_by_one(page, address, runs):
    texts = [corpus.prose("one", curated=True), corpus.prose("two", curated=False)]
    known = TextScorer(str(runs / "tiny"), "filtered")(texts)
    _visit(page, address + "/score")
    page.evaluate("document.querySelector('[value=lines]').checked = true")
    lines = [json.dumps({"text": text}) for text in texts]
    _send(page, _form("/score"), by="tiny/filtered", text="\n".join([lines[0], "", '{"no', lines[1]]))
    _until(page, "document.querySelector('#result') && document.readyState === 'complete'")
    rows = page.evaluate(_ROWS)
    assert len(rows) == 3
    assert "malformed_json" in rows[1][1]
    for row, one in zip((rows[0], rows[2]), known, strict=True):
        assert row[1] == ("kept" if one["verdict"] == "keep" else one["verdict"])
        assert row[2] == f"{one['quality']:.4g}"


@pytest.mark.parametrize(("by", "text", "said"), [("tiny/none", "x", "no such variant"), ("tiny", " \n ", "no text to judge")])
def test_what_cannot_be_scored_is_said_above_the_form(page, address, by, text, said):
    _visit(page, address + "/score?by=tiny")
    page.evaluate(f"document.querySelector('#by').append(new Option('x', {json.dumps(by)}))")
    _send(page, _form("/score"), by=by, text=text)
    _until(page, "document.querySelector('.alarm') && document.readyState === 'complete'")
    assert said in page.evaluate("document.querySelector('.alarm').innerText")
    assert page.evaluate("document.querySelector('#text').value") == text


# -- starting and stopping --------------------------------------------------------------------------------------------------


def test_a_build_is_started_watched_to_its_end_and_shown(page, address, runs):
    """The page is never loaded again: its script draws it anew until the job has ended."""
    _visit(page, address + "/recipes")
    assert "A small corpus <b>for tests</b>" in page.evaluate(_TEXT)
    _send(page, _form("/recipes"), recipe="small", run="made-here", overrides="variants.filtered.default.quality.keep_rate=0.4\n")
    _until(page, "location.pathname.startsWith('/jobs/') && document.readyState === 'complete'")
    page.evaluate("window.same = true")
    _until(page, "document.querySelector('.now.running .steps .current')")
    _until(page, "document.querySelector('.now.succeeded')")
    assert page.evaluate("window.same") is True
    assert page.evaluate("document.title").startswith("succeeded: Build of small into made-here")
    assert "9 of 9 redone" in page.evaluate("document.querySelector('pre.log').innerText")
    assert page.complaints == []
    page.evaluate("document.querySelector('.actions a').click()")
    _until(page, "document.querySelector('h1').innerText === 'made-here'")
    manifest = json.loads((runs / "made-here" / "manifest.json").read_text())
    assert manifest["recipe"]["variants"]["filtered"]["default"]["quality"]["keep_rate"] == 0.4
    assert "Build of small into made-here" in page.evaluate(_TEXT)


def test_the_page_of_a_job_goes_on_without_events_and_after_an_answer_that_broke_off(page, serving):
    """A build that stays at one stage makes no event. What reads pages aloud is told of states and stages, and of nothing else."""
    _visit(page, serving("long") + "/recipes")
    _send(page, _form("/recipes"), recipe="endless", run="long")
    _until(page, "location.pathname.startsWith('/jobs/') && document.readyState === 'complete'")
    broken = "{ ok: true, text: () => { window.broke = true; return Promise.reject(new Error('gone')) } }"
    page.evaluate(f"window.whole = window.fetch; window.fetch = () => Promise.resolve({broken})")
    _until(page, "window.broke")
    page.evaluate("window.fetch = window.whole")
    _until(page, "document.querySelector('.now.running')")
    said = page.evaluate("document.querySelector('.now .soft').innerText")
    _until(page, f"document.querySelector('.now .soft').innerText !== {json.dumps(said)}")
    assert page.evaluate("document.querySelector('[role=status]').textContent").startswith("running")
    assert page.evaluate("[...document.querySelectorAll('[tabindex]')].every(one => one.role && one.ariaLabel)")
    page.evaluate("document.querySelector('#act form').requestSubmit()")
    _until(page, "document.querySelector('[role=status]').textContent === 'cancelled'")
    assert page.complaints == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run": "x", "overrides": "sources.web.paths=[/etc/*]"}, "since it may name files"),
        ({"run": "x", "overrides": "variants.filtered.dedup=[gofer]"}, "gofer"),
        ({"run": "../x"}, "run"),
    ],
)
def test_a_build_that_cannot_be_is_refused_in_words(page, address, fields, said):
    _visit(page, address + "/recipes")
    page.evaluate("document.querySelector('#run').removeAttribute('pattern')")
    _send(page, _form("/recipes"), recipe="small", **fields)
    _until(page, "document.querySelector('.kicker').innerText === '422' && document.readyState === 'complete'")
    assert said in page.evaluate("document.querySelector('.alarm').innerText")


def test_with_a_token_a_job_is_started_and_stopped_by_those_who_have_it(page, serving):
    """Nothing is asked of the reader; a writer types the token once, and it is no part of any address or form. Nobody may listen
    to events here, so the page asks now and then instead."""
    guarded = serving("guarded", TOKEN, listeners=0)
    _visit(page, guarded + "/recipes")
    form = _form("/recipes")
    for wrong in ("", "x" * 32):
        page.evaluate(f"{form}.querySelector('[data-token]').removeAttribute('required')")
        page.evaluate(f"{form}.querySelector('[data-token]').value = '{wrong}'")
        _send(page, form, recipe="endless", run="stopped")
        _until(page, f"{form}.querySelector('.refused').innerText")
        assert "Authorization: Bearer" in page.evaluate(f"{form}.querySelector('.refused').innerText")
    page.evaluate(f"{form}.querySelector('[data-token]').value = '{TOKEN}'")
    _send(page, form)
    _until(page, "location.pathname.startsWith('/jobs/') && document.readyState === 'complete'")
    assert TOKEN not in page.evaluate("location.href + document.documentElement.outerHTML")
    _until(page, "document.querySelector('.now.running')")
    assert page.evaluate("document.querySelector('#act [data-token]').value") == TOKEN
    page.evaluate("document.querySelector('#act form').requestSubmit()")
    _until(page, "document.querySelector('.now.cancelled')")
    assert page.evaluate("document.querySelector('#act').innerText.trim()") == ""
    _visit(page, guarded + "/jobs")
    rows = page.evaluate("[...document.querySelectorAll('tbody tr')].map(one => one.innerText)")
    assert len(rows) == 1  # what was refused made none
    assert "cancelled" in rows[0]


def test_a_page_of_another_site_starts_nothing(page, serving, tmp_path):
    """What the browser would send for it, token or not, is refused by where it comes from."""
    address = serving("alone")
    attack = tmp_path / "attack.html"
    fields = "".join(f'<input name="{name}" value="{value}">' for name, value in (("recipe", "small"), ("run", "owned")))
    attack.write_text(f'<!doctype html><form method="post" action="{address}/recipes">{fields}</form>')
    _visit(page, attack.as_uri())
    page.evaluate("document.querySelector('form').submit()")
    _until(page, "document.querySelector('.kicker')?.innerText === '403'")
    assert "a page of another site may not ask for this" in page.evaluate(_TEXT)
    _visit(page, address + "/jobs")
    assert "No job yet." in page.evaluate(_TEXT)


def test_without_script_all_but_the_live_part_is_there(page, serving, runs):
    """A build is started and stopped by forms alone; its page asks to be loaded again."""
    address = serving("plain")
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        _visit(page, address + "/recipes")
        _send(page, _form("/recipes"), recipe="endless", run="plain")
        _until(page, "location.pathname.startsWith('/jobs/') && document.readyState === 'complete'")
        assert page.evaluate("document.querySelector('meta[http-equiv=refresh]').content") == "5"
        page.evaluate("document.querySelector('#act form').requestSubmit()")
        _until(page, "document.querySelector('.now.cancelled')")  # by loading itself again
        assert page.evaluate("document.querySelector('meta[http-equiv=refresh]')") is None
        _visit(page, address + "/score")
        _send(page, _form("/score"), by="tiny/filtered", text=corpus.prose("plain", curated=True))
        _until(page, "document.querySelector('#result')")
        assert page.complaints == []
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
