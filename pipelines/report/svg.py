"""Charts as SVG text, drawn on the server: no script, printable.

Colours come from the page's style sheet by class, so that print and dark pages can change them: `a` all, `k` kept, `s-<stage>`
dropped at a stage, `r` rejected. A bar is only its shape and stretches to the room it gets: its label and number are the
page's own text beside it, which keeps its size on a phone. What no number beside a chart says is a tooltip (<title>).
Paths are relative with one decimal: a report must stay small.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 360  # of a chart, in user units; the page shows it at 0.9 to 1.3 times that many pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 6, 8, 18


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
