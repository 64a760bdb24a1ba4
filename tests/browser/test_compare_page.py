"""The comparison's page in a real browser: no complaint, nothing blocked, nothing run, no text over another, none cut off.

Runs only where a Chromium is installed; see `chromium`.
"""

from __future__ import annotations

import re

import pytest

from tests.browser import chromium
from tests.browser.test_report_page import _OVERFLOW
from tests.train.compare.test_page import HOSTILE, bare, construct, named
from train.compare.page import render

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="no chromium on this machine")

_OPEN = "document.querySelectorAll('details').forEach(one => { one.open = true })"
# Texts of one figure that stand over each other, or outside of the figure.
_TEXTS = """
[...document.querySelectorAll('svg')].flatMap(figure => {
  const room = figure.getBoundingClientRect();
  const texts = [...figure.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  const out = texts.filter(([_, a]) => a.left < room.left - 1 || a.right > room.right + 1)
    .concat(texts.filter(([_, a]) => a.top < room.top - 1 || a.bottom > room.bottom + 1)).map(([text]) => 'outside: ' + text);
  const over = texts.flatMap(([text, a], n) => texts.slice(n + 1)
    .filter(([_, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
    .map(([other]) => text + ' over ' + other));
  return out.concat(over);
})
"""
# Words of a row of a forest plot that run into its figure or out of their own room.
_ROWS = """
[...document.querySelectorAll('.line')].filter(row => {
  const parts = [...row.children], rooms = parts.map(one => one.getBoundingClientRect());
  return parts.some(one => one.tagName === 'DIV' && one.scrollWidth > one.clientWidth + 1) ||
    rooms.some((x, n) => rooms.slice(n + 1).some(y => x.width && y.width &&
      x.left < y.right - 1 && y.left < x.right - 1 && x.top < y.bottom - 1 && y.top < x.bottom - 1));
}).map(row => row.textContent.trim().slice(0, 60))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A whole comparison; the least there is; one whose names are attacks without a place to break."""
    folder = tmp_path_factory.mktemp("page")
    hostile = construct(5, rename=lambda name: f"{name}{'x' * 80}{HOSTILE}")
    hostile[0].update(verdict="x" * 300, limits=["y" * 300], recipe="z" * 300)
    found = {}
    for name, made in (("whole", construct()), ("bare", bare()), ("hostile", hostile)):
        found[name] = folder / f"{name}.html"
        found[name].write_text(render(*made), "utf-8")
    return found


@pytest.mark.parametrize("name", ["whole", "bare", "hostile"])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_page_loads_nothing_runs_nothing_and_fits(page, paths, name, width):
    page.open(paths[name], width, 844)
    page.evaluate(_OPEN)
    assert page.complaints == []
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert page.evaluate("document.querySelectorAll('script, iframe, object, embed, img, link').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(_OVERFLOW) == []
    assert page.evaluate(_ROWS) == []


@pytest.mark.parametrize("name", ["whole", "bare"])
@pytest.mark.parametrize("width", [390, 700, 1200])
def test_no_label_of_a_figure_stands_over_another_or_is_cut_off(page, paths, name, width):
    page.open(paths[name], width)
    page.evaluate(_OPEN)
    assert page.evaluate(_TEXTS) == []


def test_the_checks_see_what_they_look_for(page, paths):
    """A label moved over its neighbour, one moved out of its figure, and numbers moved over a row's plot."""
    page.open(paths["whole"], 1200)
    page.evaluate("{ const [a, b] = document.querySelectorAll('.plot text'); b.setAttribute('x', a.getAttribute('x')) }")
    assert len(page.evaluate(_TEXTS)) == 1
    page.evaluate("document.querySelector('.plot text').setAttribute('x', '100%')")
    assert page.evaluate(_TEXTS)[0].startswith("outside: ")
    page.evaluate("document.querySelectorAll('.num').forEach(one => one.style.marginLeft = '-100px')")
    assert len(page.evaluate(_ROWS)) > 20


def test_the_first_screen_of_a_phone_has_verdict_gap_and_interval(page, paths):
    finding = named(construct()[0], "primary")["endpoint"]
    page.open(paths["whole"], 390, 844)
    box = "document.querySelector('#verdict p:nth-of-type({})').getBoundingClientRect().bottom"
    assert page.evaluate(box.format(2)) < 844
    text = re.sub(r"\s+", " ", page.evaluate("document.querySelector('#verdict').innerText"))
    interval = f"{finding['low']:+.4f} to {finding['high']:+.4f}"
    assert f"Gap {finding['gap']:+.4f} bits per byte, 95 % interval {interval}; 8 paired seeds" in text


@pytest.mark.parametrize("dark", [False, True])
def test_points_and_intervals_stand_out_from_their_ground(page, paths, dark):
    """They are drawn, in the colour of the style sheet's `--kept`, which the report's test holds to its contrast; dark differs."""
    page.open(paths["whole"], 1200, dark=dark)
    colours = page.evaluate(
        "['.point', '.whisker'].map(name => getComputedStyle(document.querySelector(name)))"
        ".map((style, n) => n ? style.stroke : style.fill)"
    )
    assert colours == [("rgb(79, 176, 204)" if dark else "rgb(23, 107, 135)")] * 2
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
    assert page.evaluate("document.querySelector('.point').getBoundingClientRect().width") == pytest.approx(10, abs=1)


def test_on_paper_nothing_is_cut_off(page, paths, tmp_path):
    page.open(paths["whole"], 700)
    page.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert page.evaluate("[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth + 1).length") == 0
    page.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"
