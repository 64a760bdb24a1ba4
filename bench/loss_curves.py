"""Loss curves of training runs as one SVG: `python bench/loss_curves.py OUT.svg RUN [RUN ...]`.

Every RUN is a folder of `winnow train run`; its log.jsonl has the training loss of each step (drawn thin, and its mean over 10
steps) and the validation losses (dots). The horizontal axis is training tokens, the vertical one nats a token.
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 46, 110, 16, 40
COLOURS = ("#196a87", "#c2562d", "#6b8f3c", "#8a63b0")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.g{stroke:#ddd}"
    ".t{fill:none;stroke-width:1;opacity:.25}.m{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#bbb}.g{stroke:#444}}"
)


def main() -> None:
    out, *folders = map(pathlib.Path, sys.argv[1:])
    runs = {folder.name: read(folder) for folder in folders}
    most = max(tokens for steps, _ in runs.values() for tokens, _ in steps)
    losses = [loss for steps, _ in runs.values() for _, loss in steps]
    low, high = math.floor(min(losses)), math.ceil(max(losses))

    def x(tokens: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / most

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>Loss by tokens</title>']
    parts.append(f"<style>{STYLE}</style>")
    for value in range(low, high + 1):
        parts.append(f'<path class="g" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    for share in (0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{x(share * most):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{share * most / 1e3:,.0f}k</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">training tokens; nats a token; dots: validation</text>')
    for (steps, validated), colour in zip(runs.values(), COLOURS, strict=False):
        smooth = [(tokens, mean([loss for _, loss in steps[max(0, i - 9) : i + 1]])) for i, (tokens, _) in enumerate(steps)]
        for css, line in (("t", steps), ("m", smooth)):
            points = " ".join(f"{x(tokens):.1f},{y(loss):.1f}" for tokens, loss in line)
            parts.append(f'<polyline class="{css}" stroke="{colour}" points="{points}"/>')
        parts += [f'<circle cx="{x(t):.1f}" cy="{y(v):.1f}" r="4" fill="{colour}"/>' for t, v in validated]
    ends = sorted((y(validated[-1][1]), name) for name, (_, validated) in runs.items())
    place = -99.0
    for at, name in ends:  # labels that would overlap move down
        place = max(at, place + 15)
        colour = COLOURS[list(runs).index(name)]
        last = runs[name][1][-1][1]
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{place + 4:.1f}" style="fill:{colour}">{escape(name)} {last:.2f}</text>')
    out.write_text("\n".join([*parts, "</svg>"]) + "\n")


def read(folder: pathlib.Path) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """((tokens, loss) of every step, (tokens, loss) of every validation)."""
    steps: list[tuple[int, float]] = []
    validated: list[tuple[int, float]] = []
    with open(folder / "log.jsonl") as lines:
        for line in map(json.loads, lines):
            if line["event"] == "step":
                steps.append((line["tokens"], line["loss"]))
            elif line["event"] == "validation":
                validated.append((steps[-1][0], line["loss"]))
    return steps, validated


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


if __name__ == "__main__":
    main()
