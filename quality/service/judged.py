"""What a page shows of one document or one text: its verdicts in words, the rules that it met and broke, the numbers.

Plain values in and out. A rule is held against a signal exactly as `quality.rules` does it, so that a table of rules never says
another thing than the verdict beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.report import svg, words
from pipelines.schema import KEEP, Reason, stage_of
from quality.rules import Rule
from quality.service.drawing import number

if TYPE_CHECKING:
    from pipelines.recipe import Policy, Recipe

EXCERPT = 20_000  # characters of a document's text that a page shows
START = 80  # of a text in a table
_FACTS = (
    ("document id", "doc_id"), ("source", "source"), ("locator", "locator"), ("URL", "url"), ("its own id", "source_id"),
    ("date", "date"), ("license", "license"), ("hash of the text", "content_hash"),
)
_SENTENCES = {
    Reason.LANGUAGE: "Taken for {language}, with a score of {value}.",
    Reason.LANGUAGE_SCORE: "Taken for {language}, with a score of {value}; at least {threshold} is asked for.",
    Reason.PERPLEXITY: "Its perplexity is {value}; up to {threshold} is kept of its language.",
    Reason.DUPLICATE_NEAR: "They are alike by {value} (Jaccard); from {threshold} on one of them is left out.",
    Reason.QUALITY_DRAW: "Its quality is {value}; this draw would have kept it from {threshold} on.",
    Reason.QUALITY_CUT: "Its quality is {value}; from {threshold} on documents are kept.",
    Reason.TOO_SHORT: "{value} bytes are left; at least {threshold} are asked for.",
    Reason.MIXTURE: "Its draw is {value}; those below {threshold} are taken.",
}


# -- a document of a corpus -------------------------------------------------------------------------------------------------


def document(found: Mapping[str, Any], recipe: Recipe, text: Mapping[str, Any] | None) -> dict[str, Any]:
    """Everything that a page says of a document. found: what `winnow explain --json` says of it; text: as `excerpt` gives it, or
    None where it is not to be shown."""
    facts, signals = found["document"], found["signals"]
    verdicts = sorted(found["verdicts"], key=lambda one: list(recipe.variants).index(one["variant"]))
    judged_by = [(one["variant"], rules_of(recipe.policy(one["variant"], facts["source"]))) for one in verdicts]
    return {
        "rejected": False,
        "heading": facts["title"] or facts["url"] or facts["locator"],
        "source": facts["source"],
        "facts": [(label, facts[key]) for label, key in _FACTS if facts[key]],
        "verdicts": [
            _verdict(one, chosen, signals.get("language")) for one, (_, chosen) in zip(verdicts, judged_by, strict=True)
        ],
        "left_out": bool(found["clusters"]["dropped_paragraphs"]),
        "clusters": _clusters(found["clusters"]),
        "removed_by": found["removed_by"],
        "purged": found["purged"],
        "text": text,
        "numbers": [] if found["purged"] else numbers(signals),
        "rules": [rule_table(name, chosen, signals) for name, chosen in judged_by if chosen and not found["purged"]],
    }


def reject(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record that never became a document."""
    shown = {name: found[name] for name in ("source", "locator", "reason", "detail", "unknown_rest")}
    said = {"gloss": words.gloss(found["reason"], {}), "more": found["count"] - 1}
    return {**shown, **said, "rejected": True, "heading": found["locator"]}


def _verdict(one: Mapping[str, Any], chosen: Sequence[Rule], language: str | None) -> dict[str, Any]:
    kept = one["verdict"] == KEEP
    shown = {name: one[name] for name in ("variant", "split", "prefix", "position", "offset", "stage", "duplicate_of", "keeper")}
    return {
        **shown,
        "kept": kept,
        "reason": one["verdict"],
        "gloss": "" if kept else gloss(one["verdict"], chosen),
        "number": "" if kept else _sentence(one, language),
        "run": one["duplicate_run"],
    }


def _sentence(one: Mapping[str, Any], language: str | None) -> str:
    """The number that was judged, in words; "" where there is none."""
    reason, value, threshold = one["verdict"], one["value"], one["threshold"]
    form = _SENTENCES.get(Reason(reason)) if reason in list(Reason) else "Here it is {value}."
    if form is None or value is None:
        return ""
    held = "–" if threshold is None else _plain(threshold)
    return form.format(value=_plain(value), threshold=held, language=language)


def _plain(value: float) -> str:
    """A number that stands in a table of doubles: a count without a point."""
    return number(int(value) if value == int(value) and abs(value) >= 2 else value)


def _clusters(found: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    """(label, what is said, document id to follow or None) of the groups of copies that a document is in."""
    said: list[tuple[str, str, str | None]] = []
    if found["exact_cluster"]:
        said.append(("equal texts", f"{found['exact_size']:,} documents, named after", found["exact_cluster"]))
    if found["near_cluster"]:
        likeness = f"alike by {found['jaccard']:.2f} (Jaccard)" if found["jaccard"] is not None else ""
        said.append(("near copies", f"{found['near_size']:,} documents, {likeness} to the first", found["near_cluster"]))
    if found["dropped_paragraphs"]:
        count = len(found["dropped_paragraphs"])
        what = "paragraph that stands" if count == 1 else "paragraphs that stand"
        said.append(("left out of it", f"{count:,} {what} elsewhere too", None))
    return said


def excerpt(text: str, limit: int = EXCERPT) -> dict[str, Any]:
    """The start of a text, and how much of it that is, in bytes of UTF-8."""
    start = text[:limit]
    return {"start": start, "cut": len(start) < len(text), "shown": len(start.encode()), "bytes": len(text.encode())}


# -- a text that was given --------------------------------------------------------------------------------------------------


def scored(row: Mapping[str, Any], text: str, variant: str | None, policy: Policy | None) -> dict[str, Any]:
    """What a page says of a judgement of `score`, or of the error that stands in its place."""
    start = " ".join(text[: 2 * START].split())
    start = start if len(start) <= START else start[: START - 1] + "…"
    if "error" in row:
        return {"error": f"{row['error']}: {row['detail']}", "start": start}
    chosen = rules_of(policy) if policy is not None else ()
    quality, chance, reason = row["quality"], row["keep_probability"], row["verdict"]
    kept = reason == KEEP
    verdict = {"kept": kept, "reason": reason, "stage": None if kept else str(stage_of(reason)), "gloss": ""}
    if reason is not None and not kept:
        verdict["gloss"] = gloss(reason, chosen)
    return {
        "error": None,
        "start": start,
        "verdict": None if reason is None else verdict,
        "quality": quality,
        "quality_bar": None if quality is None else svg.bar([("k", quality, ""), ("a", 1 - quality, "")], 1),
        "chance": words.share(chance, 1) if chance is not None else "",
        "language": row["language"],
        "language_score": row["language_score"],
        "language_bar": svg.bar([("k", row["language_score"], ""), ("a", 1 - row["language_score"], "")], 1),
        "words": contributions(row.get("contributions") or []),
        "numbers": numbers(row["signals"]),
        "rules": [rule_table(variant, chosen, row["signals"])] if chosen else [],
    }


def contributions(found: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    """Words with what each adds to the quality's margin, the farthest to the right first."""
    ordered = sorted(((word, amount) for word, amount in found if amount), key=lambda one: (-one[1], one[0]))
    least, most = (pick([0.0, *(amount for _, amount in ordered)]) for pick in (min, max))
    return [{"text": word, "amount": f"{amount:+.3f}", "bar": _signed_bar(amount, least, most)} for word, amount in ordered]


def _signed_bar(amount: float, least: float, most: float) -> Any:
    """A bar from zero on a scale that holds it: to the right for an amount above, to the left below."""
    room = ("t", min(amount, 0.0) - least, "")
    return svg.bar([room, ("k" if amount > 0 else "s-quality", abs(amount), "")], most - least)


# -- rules and numbers ------------------------------------------------------------------------------------------------------


def rules_of(policy: Policy) -> tuple[Rule, ...]:
    """The rules that a policy names."""
    from pipelines.judge import resolve_rules

    return resolve_rules(policy)


def rule_table(variant: str | None, chosen: Sequence[Rule], signals: Mapping[str, Any]) -> dict[str, Any]:
    """Every rule with the text's number, broken ones first in the order in which rules speak."""
    rows = [
        {
            "rule": rule.name,
            "signal": rule.signal.replace("_", " "),
            "value": signals[rule.signal],
            "allowed": _allowed(rule),
            "broken": breaks(rule, signals[rule.signal]),
        }
        for rule in chosen
        if signals.get(rule.signal) is not None
    ]
    rows.sort(key=lambda row: not row["broken"])
    return {"variant": variant, "rows": rows, "broken": sum(row["broken"] for row in rows)}


def breaks(rule: Rule, value: float) -> bool:
    """Whether a signal breaks a rule. Fractions are float32 in the tables, and a bound is compared as the same."""
    at = np.float32 if isinstance(value, float) else float
    below = rule.low is not None and at(value) < at(rule.low)
    return bool(below or (rule.high is not None and at(value) > at(rule.high)))


def _allowed(rule: Rule) -> str:
    if rule.low is None:
        return f"up to {rule.high:,g}"
    return f"from {rule.low:,g}" if rule.high is None else f"{rule.low:,g} to {rule.high:,g}"


def gloss(reason: str, chosen: Sequence[Rule]) -> str:
    """What a reason means, with the bounds of the rules in force."""
    rules = {rule.name: {"signal": rule.signal, "bounds": [(rule.low, rule.high)]} for rule in chosen}
    return words.gloss(reason, rules)


def numbers(signals: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, number) of every signal that there is."""
    return [(name.replace("_", " "), number(value)) for name, value in signals.items() if value is not None]
