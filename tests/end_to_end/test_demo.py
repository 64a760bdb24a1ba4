"""The embedded sample, built as `winnow demo` builds it: real text in several languages, wiki dumps and pages out of WARCs."""

from __future__ import annotations

import json
import shutil

import pytest

from pipelines.demo import demo
from pipelines.store import Store, read_columns
from pipelines.verify import verify


@pytest.fixture(scope="module")
def manifest(demo_run):
    return json.loads((demo_run / "manifest.json").read_text())


def test_every_record_is_accounted_for(manifest):
    for source in manifest["accounts"]["sources"].values():
        assert source["records"] == source["documents"] + sum(source["rejects"].values()) + source["merged"]
    sources = manifest["accounts"]["sources"]
    assert {name: one["documents"] for name, one in sources.items() if name != "crawl"} == {
        "leads": 6558,
        "news": 1912,
        "posts": 200,
        "speeches": 3000,
        "tweets": 1979,
        "wikipedia": 107,
    }
    # The real WARC has revisits, requests and pictures; the saved pages are resources.
    assert sources["crawl"]["documents"] > 800
    assert sources["crawl"]["rejects"]["not_a_response"] > 100


def test_both_variants_hold_tokens_of_many_languages(demo_run, manifest):
    for variant in ("unfiltered", "filtered"):
        tokens = [one["tokens"]["train"] for one in manifest["accounts"]["variants"][variant].values()]
        assert sum(tokens) > 1_000_000
    store = Store(str(demo_run))
    labels: dict[str, int] = {}
    for path in store.files("signals"):
        if path.endswith(".parquet"):
            for label in read_columns(store, path, ["language"]).column(0).to_pylist():
                labels[label] = labels.get(label, 0) + 1
    assert {"en", "de", "es", "fr", "ru"} <= {label for label, count in labels.items() if count > 20}


def test_the_draw_expects_what_was_asked_for_and_got_it_within_four_deviations(demo_run):
    """A draw over few documents scatters: the expectation is solved exactly, what one draw got lies around it."""
    from bench.real_build import keep_rates

    asked, expected, got, spread = keep_rates(Store(str(demo_run)), ("crawl", "posts", "tweets"))
    assert expected == pytest.approx(asked, abs=1e-6)
    assert got == pytest.approx(asked, abs=4 * spread)


def test_the_report_is_small_and_whole(demo_run):
    page = (demo_run / "report.html").read_bytes()
    assert len(page) < 200_000
    assert page.rstrip().endswith(b"</html>")
    assert verify(str(demo_run)).faults == []


def test_a_second_demo_redoes_nothing_and_tells_the_same(demo_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    said: list[str] = []
    told = demo(str(run), said.append)
    redone = {line.split()[0]: line.split()[1] for line in said if " redone, " in line}
    assert {stage for stage, count in redone.items() if count != "0"} == {"fit", "report"}
    assert told["report"].endswith("/report.html")
    text = "\n".join(said)
    for part in ("What filtered leaves out, and why:", "left out, quality", "classifier: AUC", "report: "):
        assert part in text
    before, after = ((folder / "manifest.json").read_bytes() for folder in (demo_run, run))
    assert before == after
