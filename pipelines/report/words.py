"""The page's plain words: what a reason means, how a share, a size or an AUC is said."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from pipelines.schema import Reason, RejectReason

_FEW = 30  # documents of one side: below it an interval promises more than it holds

_GLOSSES: dict[str, str] = {
    Reason.REMOVED: "taken back: named by the recipe's list",
    Reason.LANGUAGE: "another language than those that are kept",
    Reason.LANGUAGE_SCORE: "a language that is kept, but not surely",
    Reason.PERPLEXITY: "more surprising than what is kept of its language",
    Reason.CONTAMINATED: "shares a run of words with an evaluation set",
    Reason.DUPLICATE_EXACT: "the text of a document that stays",
    Reason.DUPLICATE_NEAR: "nearly the text of a document that stays",
    Reason.QUALITY_DRAW: "lost the quality draw",
    Reason.QUALITY_CUT: "quality below the threshold",
    Reason.TOO_SHORT: "too little is left without its repeated paragraphs",
    Reason.MIXTURE: "good, but the mixture wants less of its source than there is",
    RejectReason.MALFORMED_JSON: "a line that is no JSON object",
    RejectReason.MISSING_TEXT: "no text field",
    RejectReason.TEXT_NOT_STRING: "the text field is no string",
    RejectReason.INVALID_UTF8: "bytes that are no UTF-8",
    RejectReason.TOO_LARGE: "over the limit for one record",
    RejectReason.TRUNCATED_RECORD: "shorter or longer than its header says",
    RejectReason.CORRUPT_CONTAINER: "the rest of the file cannot be read",
    RejectReason.MALFORMED_RECORD: "a record without its required parts",
    RejectReason.NOT_A_RESPONSE: "a web archive's request, metadata or other record without a page",
    RejectReason.HTTP_STATUS: "a web response other than 200",
    RejectReason.NOT_TEXT: "a media type without text",
    RejectReason.BLOCKED_URL: "its URL stands on the source's block list",
    RejectReason.TOO_DEEP: "HTML nested too deep",
    RejectReason.NOT_AN_ARTICLE: "a wiki page of another namespace",
    RejectReason.REDIRECT: "a wiki page that only points to another",
    RejectReason.UNSAFE_PATH: "a link, a device, or a path that leads out of its archive",
    RejectReason.NOT_CODE: "no programming language that is known by its name, or no text",
    RejectReason.LICENSE_UNKNOWN: "code without a license that can be told",
    RejectReason.LICENSE_NOT_PERMITTED: "code under a license that is not taken",
    RejectReason.NO_LATEX: "a submission without LaTeX source",
    RejectReason.NOT_A_POST: "neither a question nor an answer",
    RejectReason.ORPHAN_ANSWER: "an answer whose question is not in the dump",
}


def gloss(reason: str, rules: Mapping[str, Any]) -> str:
    """What a reason means; for a rule, the signal and the bounds that the document broke."""
    if reason in rules:
        bounds = " or ".join(_broken(low, high) for low, high in rules[reason]["bounds"])
        return f"{rules[reason]['signal'].replace('_', ' ')} {bounds}"
    return _GLOSSES.get(reason, "")


def _broken(low: float | None, high: float | None) -> str:
    if low is None:
        return f"over {high:,g}"
    return f"under {low:,g}" if high is None else f"outside {low:,g} to {high:,g}"


def law(draw: Mapping[str, Any]) -> str:
    """A quality draw in words."""
    if draw["draw"] == "cut":
        return f"keep from {draw['solved_threshold']:.4g} on"
    moved = f", scores moved by {draw['shift']:+.2f} on the logit scale" if draw["shift"] else ""
    return f"Pareto draw, alpha {draw['alpha']:g}{moved}"


def verdict_of_auc(one: Mapping[str, Any]) -> str:
    """What an AUC with its interval says, in words."""
    if one["auc"] is None:
        return "not measured: one side has no document"
    if one["high"] < 0.5:
        return "worse than a guess: it takes these curated texts for web text"
    if one["low"] <= 0.5:
        return "not shown to be better than a guess"
    steps = ((0.95, "almost always right"), (0.85, "mostly right"), (0.7, "right more often than not"))
    words = next((words for least, words in steps if one["auc"] >= least), "little better than a guess")
    few = min(one["curated_documents"], one["web_documents"]) < _FEW
    return f"{words}, but on few documents" if few else words


def citations(facts: Mapping[str, Any] | None) -> str:
    """What the classes of a reference classifier are; "" for another classifier."""
    if facts is None:
        return ""
    return (
        f"Curated means cited here: of {facts['documents']:,} documents {facts['documents_cited']:,} are at one of the"
        f" {facts['urls_cited']:,} URLs that {', '.join(facts['cited_in'])} cites. Learned from: {facts['learned_cited']:,} cited"
        f" ones of {facts['sites_cited']:,} sites, {facts['learned_not_cited']:,} others of {facts['sites_not_cited']:,} sites. A"
        " site is held out or left out as a whole, in both classes. Cited is not good: what the classifier is worth to a model is"
        " not known from this."
    )


def share(part: float, whole: float) -> str:
    """A percentage of one decimal that is 0 % or 100 % only where it is exactly that; "" of nothing."""
    if not whole:
        return ""
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<0.1 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 100 else f"{percent:.0f} %"


def per_million(part: int, whole: int) -> float | None:
    """Of a million; None of nothing."""
    return 1e6 * part / whole if whole else None


def shift(before: float | None, after: float | None) -> str:
    """How a rate changed, in percent; "" where there is none to compare with."""
    if not before or after is None:
        return ""
    return f"{round(100 * after / before) - 100:+d} %"


def told(name: str, part: int, whole: int) -> str:
    """A tooltip."""
    return f"{name}: {part:,} ({share(part, whole)})"


def readable_bytes(value: int) -> str:
    """A power of two, or a size rounded to three digits, in binary units."""
    size: float = value
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:,.0f} PiB"


def visible(text: str) -> str:
    """`text` with control, format and private characters shown as boxes; line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\u25a1" for c in text)


def trimmed(text: str, limit: int = 100) -> str:
    """`text` with its middle left out where it is long."""
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"
