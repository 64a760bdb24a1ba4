"""Charts read back as XML: what is drawn is in proportion to the numbers, within the picture, and nothing is markup by accident."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import svg

counts = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


def _steps(path):
    """(left edge, height above the floor, width) of every step of a histogram's outline."""
    move, floor = re.match(r"M([\d.]+) (\d+)", path).groups()
    x, found = float(move), []
    for y, wide in re.findall(r"V([\d.]+)h([\d.]+)", path):
        found.append((x, float(floor) - float(y), float(wide)))
        x += float(wide)
    return found


def test_bars_are_in_proportion_and_side_by_side():
    picture = ET.fromstring(svg.bar([("k", 30, "kept: 30"), ("s-rules", 0, "never"), ("s-near", 50, "")], 100))
    paths = list(picture)
    assert [path.get("d") for path in paths] == ["M0.00 0h30.00v1H0.00z", "M30.00 0h50.00v1H30.00z"]
    assert [path.get("class") for path in paths] == ["k", "s-near"]
    assert [title.text for title in picture.iter("title")] == ["kept: 30"]


def test_what_is_there_is_never_invisible():
    (path,) = ET.fromstring(svg.bar([("k", 1, "")], 10**9))
    assert "h0.15v1" in path.get("d")
    picture = ET.fromstring(svg.histogram([10**9, 1], [0, 0], [], [], "t"))
    outline = next(path for path in picture if path.get("class") == "a").get("d")
    assert [height for _, height, _ in _steps(outline)] == [114.0, pytest.approx(0.7)]


@given(counts)
def test_heights_of_a_histogram_are_in_proportion(values):
    picture = ET.fromstring(svg.histogram(values, [0] * len(values), [], [], "t"))
    outlines = [path.get("d") for path in picture if path.get("class") == "a"]
    if not any(values):
        assert outlines == []
        return
    filled = [i for i, value in enumerate(values) if value]
    within = values[filled[0] : filled[-1] + 1]
    steps = _steps(outlines[0])
    assert len(steps) == len(within)
    tallest = max(values)
    for value, (x, height, wide) in zip(within, steps, strict=True):
        assert height == pytest.approx(max(114 * value / tallest, 0.7 if value else 0), abs=0.051)
        assert 0 <= x <= x + wide <= svg.WIDTH


@given(counts, st.sampled_from([3, 5]))
def test_ticks_are_few_round_and_within(values, most):
    peak = max(*values, 1)
    ticks = svg.y_ticks(peak, most)
    assert 1 <= len(ticks) <= most
    assert 0 < ticks[0] <= ticks[-1] <= peak < ticks[-1] + ticks[0]
    assert str(ticks[0]).rstrip("0") in ("1", "2", "5")


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (7, "7"), (950, "950"), (1000, "1k"), (1500, "1.5k"), (20_000, "20k"), (2_000_000, "2M"), (5 * 10**12, "5T")],
)
def test_numbers_at_an_axis_are_short(value, said):
    assert svg.short(value) == said


def test_labels_and_tooltips_are_text():
    hostile = "</svg><script>alert(1)</script>"
    drawn = [
        svg.histogram([1, 2], [1, 1], [(0, hostile)], [(0, 2, hostile)], hostile),
        svg.bar([(hostile, 1, hostile)], 1),
    ]
    for picture in drawn:
        assert "<script" not in picture
        assert hostile in "".join([*ET.fromstring(picture).itertext(), *ET.fromstring(picture).attrib.values()])


def test_an_interval_lies_on_its_scale():
    (line, between, point) = ET.fromstring(svg.interval(0.4, 0.75, 1.0, 0.5, 1.0))
    assert line.get("d") == "M0 .45h100v.1H0z"
    assert between.get("d") == "M0.0 .2H100.0v.6H0.0z"  # 0.4 lies before the scale's start
    assert point.get("d").startswith("M49.3 0h1.4")
