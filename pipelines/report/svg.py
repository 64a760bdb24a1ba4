"""Charts as SVG text, drawn on the server: no script, printable, each value readable as a tooltip (<title>).

Colours come from the page's style sheet by class (`all`, `kept`, `dropped`, `axis`, `grid`), so that print and dark pages can
change them. Widths are in user units of a viewBox; the page scales them.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 640


def histogram(
    counts: Sequence[int], shaded: Sequence[int], labels: Sequence[str], ticks: Sequence[int], title: str, height: int = 150
) -> Markup:
    """Bars of `counts` with the part `shaded` (at most as high) drawn over them; `ticks` are the bins with a label."""
    top, bottom, left = 8, 22, 4
    peak = max([*counts, 1])
    step = (WIDTH - 2 * left) / max(len(counts), 1)
    plot = height - top - bottom
    parts = [_open(height, title)]
    for i, (count, part) in enumerate(zip(counts, shaded, strict=True)):
        x = left + i * step
        tip = f"{labels[i]}: {count:,} documents, {part:,} kept"
        for value, name in ((count, "all"), (part, "kept")):
            tall = plot * value / peak
            if tall > 0:
                parts.append(
                    f'<rect class="{name}" x="{x:.1f}" y="{top + plot - tall:.1f}" width="{max(step - 1, 1):.1f}"'
                    f' height="{tall:.1f}"><title>{escape(tip)}</title></rect>'
                )
    parts.append(f'<line class="axis" x1="{left}" y1="{top + plot}" x2="{WIDTH - left}" y2="{top + plot}"/>')
    for i in ticks:
        x = left + (i + 0.5) * step
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{escape(labels[i])}</text>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704  (every value is a number or escaped)


def stacked_bar(segments: Sequence[tuple[str, str, int]], title: str, height: int = 22) -> Markup:
    """One bar of (class, label, value) segments side by side, in proportion."""
    total = sum(value for _, _, value in segments)
    parts = [_open(height, title)]
    x = 0.0
    for name, label, value in segments:
        wide = WIDTH * value / total if total else 0
        if wide > 0:
            tip = f"{label}: {value:,} ({value / total:.1%})"
            parts.append(
                f'<rect class="{escape(name)}" x="{x:.2f}" y="1" width="{wide:.2f}" height="{height - 2}">'
                f"<title>{escape(tip)}</title></rect>"
            )
        x += wide
    return Markup("".join(parts) + "</svg>")  # noqa: S704


def paired_bars(rows: Sequence[tuple[str, int, int]], title: str) -> Markup:
    """A line a row: its label, a bar of all and over it the part that is kept, and both numbers."""
    tall, label_width, number_width = 20, 130, 150
    span = WIDTH - label_width - number_width
    peak = max([value for _, value, _ in rows] + [1])
    parts = [_open(tall * max(len(rows), 1) + 4, title)]
    for i, (label, value, part) in enumerate(rows):
        y = i * tall + 3
        parts.append(f'<text x="{label_width - 6}" y="{y + 13}" text-anchor="end">{escape(label)}</text>')
        for amount, name in ((value, "all"), (part, "kept")):
            wide = span * amount / peak
            parts.append(
                f'<rect class="{name}" x="{label_width}" y="{y}" width="{wide:.1f}" height="{tall - 5}">'
                f"<title>{escape(label)}: {value:,}, kept {part:,}</title></rect>"
            )
        x = label_width + span * value / peak + 6
        parts.append(f'<text x="{x:.1f}" y="{y + 13}">{value:,} / {part:,}</text>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704


def _open(height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"'
        ' xmlns="http://www.w3.org/2000/svg">'
    )
