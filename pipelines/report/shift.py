"""What filtering shifts: the documents of the first variant beside those of the others, in languages, lengths, quality, sources.

Every filter moves what a corpus is made of, also where nobody meant it. `moved` is the total variation distance of two
distributions: the share of one that would have to change to become the other, from 0 to 100 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.figures import added
from pipelines.report.markdown import quoted, table
from pipelines.report.stated import UNDETERMINED, kept_languages
from pipelines.report.words import readable_bytes, share

_LANGUAGES = 8  # shown, the largest of any variant


def shifted(stats: Mapping[str, Any]) -> str:
    """One table, a column a variant; a sentence where there is nothing to compare."""
    variants = stats["variants"]
    if len(variants) < 2:
        return "There is one variant."
    spoken = [kept_languages(stats, variant) for variant in variants]
    sources = [_tokens(stats, variant) for variant in variants]
    lengths = [_histogram(stats, variant, "lengths") for variant in variants]
    quality = [_histogram(stats, variant, "quality") for variant in variants]
    sizes = [sum(_kept(stats, variant, "bytes")) for variant in variants]
    documents = [sum(one) for one in lengths]
    rows: list[list[str | int]] = [
        ["mean length, bytes", *(f"{size / count:,.0f}" if count else "" for size, count in zip(sizes, documents, strict=True))],
        ["median length", *(_median(one) for one in lengths)],
    ]
    if any(map(sum, quality)):
        rows.append(["documents of quality 0.5 or more", *(share(sum(one[len(one) // 2 :]), sum(one)) for one in quality)])
    rows += [[f"language {_language(name)}, of documents", *_shares(spoken, name)] for name in _largest(spoken)]
    rows += [[f"source {name}, of tokens", *_shares(sources, name)] for name in sources[0]]
    moved: dict[str, Sequence[Mapping[Any, int]]] = {"languages": spoken, "lengths": [dict(enumerate(one)) for one in lengths]}
    if any(map(sum, quality)):
        moved["quality"] = [dict(enumerate(one)) for one in quality]
    moved["sources"] = sources
    rows += [[f"moved: {what}", "", *(_moved(found[0], one) for one in found[1:])] for what, found in moved.items()]
    return (
        "Of the documents that a variant keeps. `moved` is the share that would have to change to become the first column's"
        f" distribution.\n\n{table(['measure', *variants], rows)}"
    )


def distance(left: Mapping[Any, int], right: Mapping[Any, int]) -> float | None:
    """Half the sum of the absolute differences of shares, 0 to 1; None where a side is empty."""
    totals = sum(left.values()), sum(right.values())
    if not all(totals):
        return None
    keys = [*left, *(key for key in right if key not in left)]
    # In whole numbers until the end: no order of summing shows.
    return sum(abs(left.get(key, 0) * totals[1] - right.get(key, 0) * totals[0]) for key in keys) / (2 * totals[0] * totals[1])


def _moved(left: Mapping[Any, int], right: Mapping[Any, int]) -> str:
    found = distance(left, right)
    return "" if found is None else share(found, 1)


def _kept(stats: Mapping[str, Any], variant: str, key: str) -> list[Any]:
    return [one["variants"][variant]["kept"][key] for one in stats["sources"].values() if one]


def _histogram(stats: Mapping[str, Any], variant: str, key: str) -> list[int]:
    found = _kept(stats, variant, key)
    return added(found) if found else []


def _tokens(stats: Mapping[str, Any], variant: str) -> dict[str, int]:
    return {source: sum(one["tokens"].values()) for source, one in stats["accounts"]["variants"][variant].items()}


def _median(lengths: Sequence[int]) -> str:
    """The power of two in which the middle document lies."""
    total, below = sum(lengths), 0
    for place, count in enumerate(lengths):
        below += count
        if count and 2 * below >= total:
            return f"{readable_bytes(2**place)} to {readable_bytes(2 ** (place + 1))}"
    return ""


def _largest(counts: Sequence[Mapping[str, int]]) -> list[str]:
    """The languages with the largest share of any variant."""
    totals = [max(sum(one.values()), 1) for one in counts]
    names = sorted({name for one in counts for name in one})
    most = {name: max(one.get(name, 0) / total for one, total in zip(counts, totals, strict=True)) for name in names}
    return sorted(names, key=lambda name: (-most[name], name))[:_LANGUAGES]


def _shares(counts: Sequence[Mapping[str, int]], name: str) -> list[str]:
    return [share(one.get(name, 0), sum(one.values())) for one in counts]


def _language(name: str) -> str:
    return "undetermined" if name == UNDETERMINED else quoted(name)
