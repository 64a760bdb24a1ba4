"""From stats.json to what the page shows of the funnel: rows, steps, reasons. Plain values in and out; every list is bounded.

How much is shown is a `Detail`: a page that would grow too large is drawn again with less, and says what it left out. Sources
that are left out stand together in one row, so that the sums still hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report import svg
from pipelines.report.words import gloss, share, told
from pipelines.schema import KEEP, TRAIN, Reason, RejectReason, Stage, stage_of

_MEANT = (Reason.REMOVED, Reason.MIXTURE)  # may empty a source
_BESIDE = (  # what stands beside documents in a sound input, or what a list leaves out
    RejectReason.NOT_A_RESPONSE, RejectReason.HTTP_STATUS, RejectReason.NOT_TEXT, RejectReason.BLOCKED_URL,
    RejectReason.NOT_AN_ARTICLE, RejectReason.REDIRECT, RejectReason.NOT_CODE, RejectReason.NOT_A_POST,
)  # fmt: skip
_RUNS = 3  # other runs that are named beside a reason, those with the most copies
_RUN_NAME = 24  # characters of their names
ALARM_SHARE, ALARM_DOCUMENTS = 0.01, 100  # a source of so many documents that keeps less than this share


@dataclass(frozen=True, slots=True)
class Detail:
    """How many of each kind a page shows; `excerpt` in characters of a sample document, `recipe` of the recipe's text."""

    variants: int
    sources: int
    reasons: int
    samples: int
    excerpt: int
    charts: int  # quality histograms of a variant
    lists: int  # evaluation sets, and lists of terms
    hosts: int
    languages: int
    recipe: int


@dataclass(frozen=True, slots=True)
class Row:
    """One source (or several) in one variant, from records to tokens. All counts; `tokens` by split."""

    source: str
    records: int
    rejects: int
    merged: int
    documents: int
    dropped: dict[str, int]  # by stage
    kept: int
    kept_documents: dict[str, int]  # by split
    tokens: dict[str, int]

    @property
    def share(self) -> str:
        return share(self.kept, self.documents)

    def bar(self, tips: bool = False) -> str:
        """What became of these documents; with tooltips where no number stands beside it."""
        parts = [("k", "kept", self.kept)] + [(f"s-{stage}", stage, count) for stage, count in self.dropped.items()]
        named = [(style, count, told(name, count, self.documents) if tips else "") for style, name, count in parts]
        return svg.bar(named, self.documents)


def alarms(accounts: Mapping[str, Any], sources: Mapping[str, Any]) -> list[str]:
    """What comes more often of a wrong recipe than of bad text, a line each. `sources`: the recipe's section, as plain values.

    A source of which almost nothing became documents; one that a variant wiped out almost whole, though mixture and removal may; a
    variant with nothing to train on. Sources that say `alarm: false` are passed over.
    """
    watched = [name for name in sorted(accounts["sources"]) if sources.get(name, {}).get("alarm", True)]
    found = [told for name in watched for told in _unread(name, accounts["sources"][name])]
    for variant, by_source in sorted(accounts["variants"].items()):
        found += _emptied(variant, by_source, watched)
    return found


def _unread(source: str, account: Mapping[str, Any]) -> list[str]:
    """The alarm of a source without documents, or with next to none."""
    made = account["documents"] + account["merged"]
    lost = {reason: count for reason, count in account["rejects"].items() if not made or reason not in _BESIDE}
    if made >= ALARM_SHARE * (made + sum(lost.values())):
        return []
    reason, count = _commonest(lost)
    way = f"; name the field of the text under sources.{source}.fields" if reason == RejectReason.MISSING_TEXT else ""
    came = f"{account['documents']:,} documents came of {account['records']:,} records of {source}"
    return [f"{came}; {count:,} are rejected as {reason}{way}"]


def _emptied(variant: str, by_source: Mapping[str, Any], watched: Collection[str]) -> list[str]:
    """The alarm of a variant that has nothing to train on, or of its sources that are wiped out."""
    documents = {source: mine["kept"] + sum(mine["dropped"].values()) for source, mine in by_source.items()}
    if any(documents[source] for source in watched) and not any(mine["tokens"][TRAIN] for mine in by_source.values()):
        lost = summed(mine["dropped"] for mine in by_source.values())
        why = "{1:,} are dropped by {0}".format(*_commonest(lost)) if lost else "all are held out"
        return [f"{variant} has nothing to train on; of {sum(documents.values()):,} documents {why}"]
    found = []
    for source in watched:
        dropped = {reason: count for reason, count in by_source[source]["dropped"].items() if reason not in _MEANT}
        passed = documents[source] - sum(dropped.values())
        if documents[source] >= ALARM_DOCUMENTS and passed < ALARM_SHARE * documents[source]:
            reason, count = _commonest(dropped)
            kept = f"{variant} keeps {passed:,} of {documents[source]:,} documents of {source}"
            found.append(f"{kept}; {count:,} are dropped by {reason}")
    return found


def _commonest(counts: Mapping[str, int]) -> tuple[str, int]:
    return max(counts.items(), key=lambda item: (item[1], item[0]))


# -- from input to tokens -----------------------------------------------------------------------------------------------------


def came_in(stats: Mapping[str, Any]) -> dict[str, int]:
    """What was read, over all sources."""
    accounts, inputs = stats["accounts"]["sources"].values(), stats["inputs"].values()
    return {
        "files": sum(one["files"] for one in inputs),
        "bytes": sum(one["bytes"] for one in inputs),
        "records": sum(one["records"] for one in accounts),
        "documents": sum(one["documents"] for one in accounts),
        "rejects": sum(sum(one["rejects"].values()) for one in accounts),
        "merged": sum(one["merged"] for one in accounts),
        "unknown_rests": sum(one["unknown_rests"] for one in accounts),
        "text_bytes": sum(one["text_bytes"] for one in stats["sources"].values() if one),
        "judged_bytes": sum(one["judged_bytes"] for one in stats["sources"].values() if one),
        "paragraphs": sum(one["dropped_paragraphs"] for one in stats["sources"].values() if one),
    }


def funnel(stats: Mapping[str, Any], variant: str, limit: int) -> tuple[list[Row], Row]:
    """A row a source, of more than `limit` the smallest in one row; and the row of all."""
    rows = [_row(stats, variant, source) for source in stats["accounts"]["sources"]]
    total = _together("all sources", rows)
    if len(rows) > limit:
        ordered = sorted(rows, key=lambda row: (-row.documents, -row.records, row.source))
        names = {row.source for row in ordered[: limit - 1]}
        others = ordered[limit - 1 :]
        rows = [row for row in rows if row.source in names] + [_together(f"{len(others)} others", others)]
    return rows, total


def _row(stats: Mapping[str, Any], variant: str, source: str) -> Row:
    account, mine = stats["accounts"]["sources"][source], stats["accounts"]["variants"][variant][source]
    dropped = dict.fromkeys(map(str, Stage), 0)
    for reason, count in mine["dropped"].items():
        dropped[str(stage_of(reason))] += count
    rejects = sum(account["rejects"].values())
    first = (source, account["records"], rejects, account["merged"], account["documents"])
    return Row(*first, dropped, mine["kept"], mine["documents"], mine["tokens"])


def _together(name: str, rows: list[Row]) -> Row:
    return Row(
        name,
        sum(row.records for row in rows),
        sum(row.rejects for row in rows),
        sum(row.merged for row in rows),
        sum(row.documents for row in rows),
        summed(row.dropped for row in rows),
        sum(row.kept for row in rows),
        summed(row.kept_documents for row in rows),
        summed(row.tokens for row in rows),
    )


def steps(stats: Mapping[str, Any], variant: str, total: Row) -> list[dict[str, Any]]:
    """What is left after each step of judgement, over all sources: documents and tokens."""
    tokens = summed(one["variants"][variant]["tokens"] for one in stats["sources"].values() if one)
    lost = summed({str(stage_of(verdict)): count} for verdict, count in tokens.items() if verdict != KEEP)
    left, left_tokens = total.documents, sum(tokens.values())
    found = [_step("extract", left, 0, left_tokens, total, "")]
    for stage, count in total.dropped.items():
        left, left_tokens = left - count, left_tokens - lost.get(stage, 0)
        if count:
            found.append(_step(stage, left, count, left_tokens, total, stage))
    return found


def _step(name: str, left: int, lost: int, tokens: int, total: Row, stage: str) -> dict[str, Any]:
    bar = svg.bar([("k", left, ""), (f"s-{stage}", lost, "")], total.documents)
    values = {"name": name, "documents": left, "lost": lost, "tokens": tokens}
    return {**values, "share": share(left, total.documents), "bar": bar}


# -- reasons ------------------------------------------------------------------------------------------------------------------


def reasons(stats: Mapping[str, Any], variant: str, detail: Detail) -> tuple[list[dict[str, Any]], int]:
    """(reasons by size with their sample documents, `keep` last; how many reasons were left out)."""
    counts = summed(mine["dropped"] for mine in stats["accounts"]["variants"][variant].values())
    samples: dict[str, list[dict[str, Any]]] = {}
    for source, found in stats["sources"].items():
        for verdict, some in (found["variants"][variant]["samples"] if found else {}).items():
            samples.setdefault(verdict, []).extend({"source": source, **one} for one in some)
    total, peak = sum(counts.values()), max(counts.values(), default=0)
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
    rows = [
        {
            "reason": reason,
            "stage": str(stage_of(reason)),
            "gloss": _meaning(reason, stats, variant),
            "count": counts[reason],
            "share": share(counts[reason], total),
            "bar": svg.bar([(f"s-{stage_of(reason)}", counts[reason], "")], peak),
            "samples": first(samples.get(reason, []), detail),
        }
        for reason in ordered[: detail.reasons]
    ]
    kept = sum(mine["kept"] for mine in stats["accounts"]["variants"][variant].values())
    some = first(samples.get(KEEP, []), detail)
    rows.append(
        {"reason": KEEP, "stage": KEEP, "gloss": "", "count": kept, "share": "", "bar": "", "samples": some}
    )
    return rows, max(len(ordered) - detail.reasons, 0)


def _meaning(reason: str, stats: Mapping[str, Any], variant: str) -> str:
    """What a reason means; of what is taken back also by which kinds of entry, of copies which other runs keep the document."""
    meaning = gloss(reason, stats["rules"].get(variant, {}))
    if theirs := stats["against"][variant].get(reason):
        most = sorted(theirs.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{count:,} of what the run {run[:_RUN_NAME]} keeps" for run, count in most[:_RUNS]]
        return f"{meaning} ({', '.join(shown)}{', ...' if len(most) > _RUNS else ''})"
    if reason != Reason.REMOVED:
        return meaning
    kinds = summed(stats["removal"].values())
    return f"{meaning} ({', '.join(f'{count:,} by {kind}' for kind, count in sorted(kinds.items()))})"


def first(samples: list[dict[str, Any]], detail: Detail) -> list[dict[str, Any]]:
    """The sample documents that are shown, by their order, with their texts cut."""
    chosen = sorted(samples, key=lambda one: (one["order"], one["doc_id"]))[: detail.samples]
    return [_excerpted(one, detail) for one in chosen]


def _excerpted(one: dict[str, Any], detail: Detail) -> dict[str, Any]:
    text = one["text"][: detail.excerpt].rstrip()
    return {**one, "text": text, "cut": one["cut"] or len(text) < len(one["text"].rstrip())}


def rejects(stats: Mapping[str, Any], detail: Detail) -> list[dict[str, Any]]:
    """Records that never became documents: reasons by size, with the sources and a few locators."""
    counts = summed(account["rejects"] for account in stats["accounts"]["sources"].values())
    total, peak = sum(counts.values()), max(counts.values(), default=0)
    return [
        {
            "reason": reason,
            "gloss": gloss(reason, {}),
            "count": counts[reason],
            "share": share(counts[reason], total),
            "bar": svg.bar([("r", counts[reason], "")], peak),
            "samples": [
                {"source": source, **one}
                for source, found in stats["rejects"].items()
                for one in found.get(reason, ())
            ][: 2 * detail.samples],
        }
        for reason in sorted(counts, key=lambda reason: (-counts[reason], reason))
    ]


# -- sums ---------------------------------------------------------------------------------------------------------------------


def summed(mappings: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Key by key."""
    total: dict[str, int] = {}
    for mapping in mappings:
        for key, count in mapping.items():
            total[key] = total.get(key, 0) + count
    return total


def added(lists: Iterable[list[int]]) -> list[int]:
    """Place by place; all lists have one length."""
    return [sum(values) for values in zip(*lists, strict=True)]

