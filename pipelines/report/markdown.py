"""The little Markdown that the dataset card is made of: tables, and text of a corpus that stays text.

What came from a corpus stands in a code span, where CommonMark knows no links, no HTML and no emphasis (0.31, section 6.1). The
two characters that could end one, and the control and bidirectional characters, are shown as boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.report.words import trimmed, visible

_ENDING = str.maketrans(dict.fromkeys("`|", "\u25a1"))


def quoted(text: str) -> str:
    """One line of a corpus, at most 100 characters of it; a box where nothing is to be seen."""
    return f"`{trimmed(visible(' '.join(text.split()))).translate(_ENDING) or chr(0x25A1)}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A pipe table; columns whose cells are all numbers are set to the right. Cells are Markdown without a pipe."""
    cells = [list(row) for row in rows]
    numeric = [all(isinstance(row[place], int) for row in cells) for place in range(len(head))]
    lines = [_line(head), _line(["--:" if right else "---" for right in numeric])]
    return "\n".join([*lines, *(_line(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) for row in cells)])


def bullets(lines: Iterable[str]) -> str:
    """A list; "" of nothing."""
    return "\n".join(f"* {line}" for line in lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
