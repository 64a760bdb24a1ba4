"""The report in a real browser: no complaint, nothing blocked, nothing run, nothing too wide for a phone, whole on paper.

Runs only where a Chromium is installed; no library is needed to drive it (see `chromium`).
"""

from __future__ import annotations

import json

import pytest

from pipelines.report.page import draw
from tests.browser import chromium
from tests.pipelines.test_report import HOSTILE, stats

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="no chromium on this machine")

_OVERFLOW = """
[...document.querySelectorAll('body *')].filter(one => !one.closest('.wide > table, svg') &&
  (one.getBoundingClientRect().right > innerWidth + 0.5 || one.getBoundingClientRect().left < -0.5))
  .map(one => one.tagName + '.' + one.className + ': ' + one.textContent.slice(0, 40))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page on which every text of the corpus is an attack, and long words have no place to break."""
    found = json.loads(json.dumps(stats(text=HOSTILE, scale=10**9)))
    found["sources"]["web"]["hosts"]["largest"]["x" * 250] = 10**9
    for verdict in found["sources"]["web"]["variants"].values():
        verdict["samples"]["language"].append({**verdict["samples"]["keep"][0], "text": "x" * 300, "order": 0})
    found["alarms"] = ["filtered keeps 0 of 9 documents of web"]
    path = tmp_path_factory.mktemp("page") / "hostile.html"
    path.write_text(draw(found))
    return path


def test_a_builds_page_shows_its_counts_without_complaint(page, built):
    accounts = json.loads((built / "manifest.json").read_text())["accounts"]
    page.open(built / "report.html", 1200)
    text = page.evaluate("document.body.innerText")
    assert page.complaints == []
    assert "250 records read = 250 documents + 0 rejected + 0 merged" in text
    for variant, by_source in accounts["variants"].items():
        kept = sum(one["kept"] for one in by_source.values())
        tokens = sum(sum(one["tokens"].values()) for one in by_source.values())
        assert variant in text
        assert f"{kept:,} documents kept" in text
        assert f"{tokens:,} tokens" in text
    # The style sheet was let in by the content policy, and the charts have a size.
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") != "0px"
    assert page.evaluate("document.querySelector('.chart').getBoundingClientRect().height") > 50
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_that_a_corpus_holds_runs_or_complains(page, hostile, width):
    page.open(hostile, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    text = page.evaluate("document.body.innerText")
    assert page.complaints == []
    assert page.evaluate("document.querySelectorAll('script, iframe, object, embed, img, link').length") == 0
    assert text.count("<script>alert(1)</script>") > 20
    assert "Nearly everything of a source is gone." in text


@pytest.mark.parametrize("opened", [False, True])
def test_nothing_is_wider_than_a_phone(page, hostile, built, opened):
    for path in (hostile, built / "report.html"):
        page.open(path, 390, 844)
        if opened:
            page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate(_OVERFLOW) == []


def test_the_policy_would_have_stopped_what_got_through(page, built, tmp_path):
    """The page's own policy, tried: a script and a style that are not its own are refused, and the test would see it."""
    attack = "<script>document.title = 'owned'</script><p style='color: red'>x</p></body>"
    path = tmp_path / "attacked.html"
    path.write_text((built / "report.html").read_text().replace("</body>", attack))
    page.open(path, 1200)
    page.evaluate("1")
    assert page.evaluate("document.title") == "tiny: corpus report"
    assert page.evaluate("getComputedStyle(document.querySelector('body > p:last-of-type')).color") != "rgb(255, 0, 0)"
    assert len([one for one in page.complaints if "Content Security Policy" in one]) >= 2


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page, built, dark):
    """WCAG's contrast of 4.5 between the page's two text colours and its ground; kept and dropped differ too."""
    page.open(built / "report.html", 1200, dark=dark)
    colours = page.evaluate(
        "['--ink', '--soft', '--paper', '--kept', '--bad', '--all']"
        ".map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )
    ink, soft, paper, kept, bad, dropped = map(_luminance, colours)
    assert (paper < 0.5) == dark
    for text in (ink, soft, bad):
        assert _contrast(text, paper) >= 4.5
    assert _contrast(kept, paper) >= 3
    assert _contrast(kept, dropped) >= 2


def _luminance(colour):
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    high, low = max(one, other), min(one, other)
    return (high + 0.05) / (low + 0.05)


def test_on_paper_no_table_is_cut_off(page, built, tmp_path):
    """Printed on A4: what scrolls on a screen is shown whole."""
    page.open(built / "report.html", 700)
    page.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert page.evaluate("[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth + 1).length") == 0
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes()[:5] == b"%PDF-"


def test_a_chart_has_a_name_and_every_column_a_tooltip(page, built):
    page.open(built / "report.html", 1200)
    charts = page.evaluate(
        "[...document.querySelectorAll('.chart')].map(one => [one.getAttribute('role'), one.getAttribute('aria-label'),"
        " one.querySelectorAll('.t title').length])"
    )
    assert charts
    assert all(role == "img" and label and tips >= 1 for role, label, tips in charts)
