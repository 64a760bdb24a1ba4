"""Charts as SVG text, drawn on the server: no script, printable.

Colours come from the page's style sheet by class, so that print and dark pages can change them: `a` all, `k` kept, `s-<stage>`
dropped at a stage, `r` rejected. A bar is only its shape and stretches to the room it gets: its label and number are the
page's own text beside it, which keeps its size on a phone. What no number beside a chart says is a tooltip (<title>).
Paths are relative with one decimal: a report must stay small.

A row of a forest plot has no view box: its x are percentages of the room it gets and its y are pixels, so that dots stay round and
axis labels keep their size from a phone to a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 360  # of a chart, in user units; the page shows it at 0.9 to 1.3 times that many pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 6, 8, 18
_ROW, _SEEDS, _MIDDLE = 34, 9, 22  # of a row, its lane of single seeds, its lane of the interval, in pixels
_TICKS = 5
_PAD = 0.06  # of a scale at either end: room for half a label
_REACH = 3  # an interval is drawn up to so many times as far as the farthest single seed


def bar(segments: Sequence[tuple[str, float, str]], whole: float) -> Markup:
    """One bar of (class, value, tooltip or "") side by side, as long as their share of `whole`."""
    parts = ['<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">']
    x = 0.0
    for name, value, tip in segments:
        wide = 100 * value / whole if whole else 0.0
        if value > 0:
            title = f"<title>{escape(tip)}</title>" if tip else ""
            parts.append(f'<path class="{escape(name)}" d="M{x:.2f} 0h{max(wide, 0.15):.2f}v1H{x:.2f}z">{title}</path>')
        x += wide
    return Markup("".join(parts) + "</svg>")  # noqa: S704  (every value is a number or escaped)


def histogram(
    counts: Sequence[int],
    shaded: Sequence[int],
    ticks: Sequence[tuple[float, str]],
    tips: Sequence[tuple[int, int, str]],
    title: str,
    height: int = 140,
) -> Markup:
    """Bars of `counts` with the part `shaded` drawn over them.

    ticks: (place in bins from the left edge of the first, label); tips: (first bin, end bin, tooltip).
    """
    step = (WIDTH - _LEFT - _RIGHT) / max(len(counts), 1)
    plot = height - _TOP - _BOTTOM
    floor = _TOP + plot
    peak = max([*counts, *shaded, 1])
    lines = y_ticks(peak, most=5 if height > 120 else 3)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for value in lines:
        y = floor - plot * value / peak
        parts.append(f'<path class="g" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" class="e">{short(value)}</text>')
    for name, values in (("a", counts), ("k", shaded)):
        if any(values):
            parts.append(f'<path class="{name}" d="{_outline(values, step, floor, plot / peak)}"/>')
    parts.append(f'<path class="x" d="M{_LEFT} {floor}H{WIDTH - _RIGHT}"/>')
    for place, label in ticks:
        x = _LEFT + place * step
        parts.append(f'<path class="x" d="M{x:.1f} {floor}v3"/><text x="{x:.1f}" y="{height - 5}" class="m">{escape(label)}</text>')
    for first, stop, tip in tips:
        x, wide = _LEFT + first * step, (stop - first) * step
        parts.append(f'<path class="t" d="M{x:.1f} {_TOP}h{wide:.1f}v{plot}h-{wide:.1f}z"><title>{escape(tip)}</title></path>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704


def _outline(values: Sequence[int], step: float, floor: int, scale: float) -> str:
    """The steps of a histogram from its first filled bin to its last; a filled bin is never invisible."""
    filled = [i for i, value in enumerate(values) if value]
    path = [f"M{_LEFT + filled[0] * step:.1f} {floor}"]
    for value in values[filled[0] : filled[-1] + 1]:
        path.append(f"V{floor - max(scale * value, 0.7 if value else 0.0):.1f}h{step:.2f}")
    return "".join(path) + f"V{floor}z"


def interval(low: float, value: float, high: float, least: float, most: float) -> Markup:
    """A point with its interval on a scale from `least` to `most`."""
    a, b, c = (100 * (min(max(x, least), most) - least) / (most - least) for x in (low, value, high))
    return Markup(  # noqa: S704
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="r" d="M0 .45h100v.1H0z"/><path class="a" d="M{a:.1f} .2H{c:.1f}v.6H{a:.1f}z"/>'
        f'<path class="k" d="M{max(b - 0.7, 0):.1f} 0h1.4v1h-1.4z"/></svg>'
    )


def y_ticks(peak: int, most: int) -> list[int]:
    """At most so many round numbers from 1 to `peak`: multiples of 1, 2 or 5 times a power of ten."""
    step = 1
    while peak // step > most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(step, peak + 1, step))


def short(value: float) -> str:
    """A number in at most five characters: 950, 1.2k, 34k, 1.2M."""
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.0f}{unit}" if value >= 10 or value == int(value) or not unit else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


# -- forest plots -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """A line of values with its round marks."""

    least: float
    most: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        """The place of a value, held within the line."""
        return 100 * min(max((value - self.least) / (self.most - self.least), 0.0), 1.0)


def round_ticks(least: float, most: float) -> tuple[float, ...]:
    """At most about _TICKS multiples of 1, 2 or 5 times a power of ten that take in both ends; `least` < `most`."""
    rough = (most - least) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return tuple(round(n * step, 12) for n in range(first, last + 1))


def scale(points: Sequence[float], ends: Sequence[float | None], margin: float) -> Scale:
    """A scale for `points` (means and seeds) and the margin on both sides; interval ends as far as they do not dwarf those."""
    reach = _REACH * max([margin, *map(abs, points)])
    held = [min(max(end, -reach), reach) for end in ends if end is not None]
    return padded([-margin, margin, *points, *held])


def padded(values: Sequence[float]) -> Scale:
    """A scale over all values with round marks and room at both ends."""
    least, most = min(values), max(values)
    if least == most:
        least, most = least - 1, most + 1
    ticks = round_ticks(least, most)
    pad = _PAD * (ticks[-1] - ticks[0])
    return Scale(ticks[0] - pad, ticks[-1] + pad, ticks)


def signed(value: float) -> str:
    """A mark's label with its sign, zero without."""
    return f"{value:+.4g}" if value else "0"


def axis(on: Scale, signs: bool) -> Markup:
    """The labels of a scale, to stand above or below its rows."""
    parts = ['<svg class="plot" height="18" aria-hidden="true">']
    for tick in on.ticks:
        label = signed(tick) if signs else f"{tick:.4g}"
        parts.append(f'<text x="{on.percent(tick):.2f}%" y="13">{label}</text>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704  (every value is a number)


def row(
    on: Scale,
    value: float,
    ends: tuple[float, float] | None,
    title: str,
    description: str,
    seeds: Sequence[float] = (),
    band: float | None = None,
    line: tuple[float, str] | None = (0.0, "zero"),
) -> Markup:
    """A value with its interval, single seeds above it as circles.

    ends: None where no interval is known; one that passes the scale ends in an arrow. band: shaded from -band to band.
    line: a vertical mark and its class.
    """
    parts = [f'<svg class="plot" height="{_ROW}" role="img"><title>{escape(title)}</title><desc>{escape(description)}</desc>']
    if band is not None:
        left, right = on.percent(-band), on.percent(band)
        parts.append(f'<rect class="band" x="{left:.2f}%" y="0" width="{right - left:.2f}%" height="{_ROW}"/>')
    for tick in on.ticks:
        parts.append(_upright("g", on.percent(tick)))
    if line is not None:
        parts.append(_upright(line[1], on.percent(line[0])))
    for seed in seeds:
        parts.append(f'<circle class="seed" cx="{on.percent(seed):.2f}%" cy="{_SEEDS}" r="3"/>')
    if ends is not None:
        left, right = on.percent(ends[0]), on.percent(ends[1])
        parts.append(f'<line class="whisker" x1="{left:.2f}%" x2="{right:.2f}%" y1="{_MIDDLE}" y2="{_MIDDLE}"/>')
        if ends[0] < on.least:
            parts.append(_arrow("0", "M0 0l8-5v10z"))
        if ends[1] > on.most:
            parts.append(_arrow("100%", "M0 0l-8-5v10z"))
    parts.append(f'<circle class="point" cx="{on.percent(value):.2f}%" cy="{_MIDDLE}" r="5"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704


def _upright(name: str, at: float) -> str:
    return f'<line class="{name}" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="{_ROW}"/>'


def _arrow(x: str, path: str) -> str:
    return f'<svg x="{x}" y="{_MIDDLE}" overflow="visible" width="1" height="1"><path class="cut" d="{path}"/></svg>'


# -- charts of lines ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """One line: x from 0 to 1 across the chart, y a value; `low` and `high` a value a point, or none. `style`: c0 to c3, or cx."""

    style: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


def lines(
    series: Sequence[Series],
    x_ticks: Sequence[tuple[float, str]],
    labels: tuple[str, str],
    title: str,
    description: str,
    bars: bool = False,
    span: tuple[float, float] | None = None,
) -> Markup:
    """Lines over a common x with round marks on y.

    labels: of x and y. bars: low and high as whiskers with spots on the points, else as a shaded band. span: of y where several
    charts share it; whiskers that pass it are cut there.
    """
    values = [value for one in series for value in one.y]
    least, most = span or (min(values), max(values))
    if least == most:
        least, most = least - 0.5, most + 0.5
    ticks = round_ticks(least, most)
    height, top, left, right = 200, 24, 40, WIDTH - 14
    floor, wide = height - 30, right - left

    def across(x: float) -> str:
        return f"{left + wide * x:.1f}"

    def up(y: float) -> str:
        held = min(max(y, ticks[0]), ticks[-1])
        return f"{floor - (floor - top) * (held - ticks[0]) / (ticks[-1] - ticks[0]):.1f}"

    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title>'
    parts = [head, f"<desc>{escape(description)}</desc>"]
    for tick in ticks:
        parts.append(f'<path class="g" d="M{left} {up(tick)}H{right}"/>')
        parts.append(f'<text class="e" x="{left - 4}" y="{float(up(tick)) + 3:.1f}">{tick:.4g}</text>')
    if ticks[0] < 0 < ticks[-1]:
        parts.append(f'<path class="x" d="M{left} {up(0)}H{right}"/>')
    for x, label in x_ticks:
        parts.append(f'<path class="x" d="M{across(x)} {floor}v3"/>')
        parts.append(f'<text class="m" x="{across(x)}" y="{floor + 13}">{escape(label)}</text>')
    parts.append(f'<text class="m" x="{left + wide / 2:g}" y="{height - 3}">{escape(labels[0])}</text>')
    parts.append(f'<text x="2" y="10">{escape(labels[1])}</text>')
    for one in series:
        triples = zip(one.x, one.low, one.high, strict=True) if one.low else ()
        ranged = [(x, a, b) for x, a, b in triples if a is not None and b is not None]
        if bars:
            parts += [f'<path class="cap {one.style}" d="M{across(x)} {up(a)}V{up(b)}"/>' for x, a, b in ranged]
        elif ranged:
            there = "L".join(f"{across(x)} {up(b)}" for x, _, b in ranged)
            back = "L".join(f"{across(x)} {up(a)}" for x, a, _ in reversed(ranged))
            parts.append(f'<path class="area {one.style}" d="M{there}L{back}z"/>')
    for one in series:
        places = [f"{across(x)} {up(y)}" for x, y in zip(one.x, one.y, strict=True)]
        parts.append(f'<path class="c {one.style}" d="M{"L".join(places)}"/>')
        if bars:
            parts += [f'<path class="spot {one.style}" d="M{place}h.01"/>' for place in places]
    return Markup("".join(parts) + "</svg>")  # noqa: S704


def thinned(points: Sequence[Sequence[float]], most: int) -> list[Sequence[float]]:
    """At most `most` of the points at even places, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


# -- heat maps ----------------------------------------------------------------------------------------------------------------


def heat(rows: Sequence[tuple[str, Sequence[float]]], most: float, title: str, description: str) -> Markup:
    """A row a label, a column a place from 0; full colour at `most`. Shares stand in the cells, in percent, where there is room."""
    left, top, high = 92, 16, 20
    columns = max(len(shares) for _, shares in rows)
    wide = (WIDTH - left - 2) / columns
    height = top + high * len(rows) + 2
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title>'
    parts = [head, f"<desc>{escape(description)}</desc>"]
    every = max(1, math.ceil(16 / wide))
    for column in range(0, columns, every):
        parts.append(f'<text class="m" x="{left + wide * (column + 0.5):.1f}" y="11">{column}</text>')
    for place, (label, shares) in enumerate(rows):
        y = top + high * place
        parts.append(f'<text class="e" x="{left - 5}" y="{y + 14}">{escape(label)}</text>')
        for column, share in enumerate(shares):
            x, part = left + wide * column, min(share / most, 1.0) if most else 0.0
            parts.append(f'<path class="k" fill-opacity="{part:.2f}" d="M{x:.1f} {y}h{wide:.1f}v{high}h-{wide:.1f}z"/>')
            if wide >= 22:
                name = "m on" if part > 0.55 else "m ink"
                parts.append(f'<text class="{name}" x="{x + wide / 2:.1f}" y="{y + 14}">{100 * share:.0f}</text>')
    parts.append(f'<path class="frame" d="M{left} {top}H{WIDTH - 2}V{height - 2}H{left}z"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704


def evenly(values: Sequence[float]) -> list[float]:
    """Places from 0 to 1 of positive values on a logarithmic line; one value stands in the middle."""
    logs = [math.log(value) for value in values]
    least, most = min(logs), max(logs)
    return [0.5 if least == most else 0.04 + 0.92 * (one - least) / (most - least) for one in logs]
