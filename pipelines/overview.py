"""What the command prints: a plan before a run, the accounts after it. Pure functions from values to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.blocklist import Blocklist
from pipelines.plan import Plan
from pipelines.recipe import Draw, Languages, Policy, Recipe
from pipelines.recipe_file import resolved
from pipelines.schema import TRAIN, VALIDATION

if TYPE_CHECKING:
    from pipelines.conservation import Accounts


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns of text: the first left-aligned, numbers right-aligned with thousands separators."""
    cells = [list(head)] + [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(head))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        parts = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("%", "").replace("-", "").strip().isdigit() or cell == "-"


# -- plan -------------------------------------------------------------------------------------------------------------------


def plan_text(recipe: Recipe, plan: Plan, blocked: Mapping[str, Blocklist]) -> str:
    """The resolved recipe, inputs and tasks by source, entries of block lists, and source by judgement."""
    blocks = [
        yaml.safe_dump(dict(resolved(recipe)), sort_keys=False, allow_unicode=True, width=110).rstrip(),
        table(["source", "format", "inputs", "bytes", "tasks"], _inputs(recipe, plan)),
    ]
    if blocked:
        entries = [(source, one.hosts, one.paths) for source, one in sorted(blocked.items())]
        blocks.append("block lists\n" + table(["source", "hosts", "paths"], entries))
    for variant in recipe.variants:
        rows = [(source, *_judgement(recipe.policy(variant, source))) for source in sorted(recipe.sources)]
        dedup = ", ".join(recipe.variants[variant].dedup) or "none"
        blocks.append(f"variant {variant} (dedup: {dedup})\n" + table(["source", "languages", "rules", "quality"], rows))
    return "\n\n".join(blocks)


def plan_json(recipe: Recipe, plan: Plan, blocked: Mapping[str, Blocklist]) -> dict[str, Any]:
    """The same as values."""
    return {
        "recipe": dict(resolved(recipe)),
        "sources": [
            dict(zip(("source", "format", "inputs", "bytes", "tasks"), row, strict=True)) for row in _inputs(recipe, plan)
        ],
        "blocklists": {source: {"hosts": one.hosts, "paths": one.paths} for source, one in sorted(blocked.items())},
        "tasks": plan.to_json()["tasks"],
    }


def _inputs(recipe: Recipe, plan: Plan) -> list[tuple[Any, ...]]:
    rows = []
    for source in sorted(recipe.sources):
        tasks = plan.of_source(source)
        inputs = {one.path: one.size for task in tasks for one in task.inputs}
        rows.append((source, recipe.sources[source].format, len(inputs), sum(inputs.values()), len(tasks)))
    return rows


def _judgement(policy: Policy) -> tuple[str, str, str]:
    languages = "any"
    if isinstance(policy.languages, Languages):
        languages = f"{', '.join(policy.languages.keep)} (score >= {policy.languages.min_score:g})"
    rules = policy.rules if isinstance(policy.rules, str) else ", ".join(policy.rules or ())
    quality = "none"
    if isinstance(policy.quality, Draw):
        draw = policy.quality
        law = f"pareto({draw.alpha:g})" if draw.draw == "pareto" else "cut"
        rate = f", keep {draw.keep_rate:.0%} of tokens" if draw.keep_rate is not None else ""
        quality = law + rate + (f" from {draw.threshold:g}" if draw.threshold is not None else "")
    return languages, rules, quality


# -- accounts ---------------------------------------------------------------------------------------------------------------


def accounts_text(accounts: Accounts) -> str:
    """The conservation table, why records were rejected, then what each variant kept and dropped."""
    blocks = [
        table(
            ["source", "records", "= documents", "+ rejects", "+ merged"],
            [
                (name, one.records, one.documents, one.rejects.total(), one.merged)
                for name, one in accounts.sources.items()
            ],
        )
    ]
    if rejecting := {name: one.rejects for name, one in accounts.sources.items() if one.rejects.total()}:
        why = sorted({reason for rejects in rejecting.values() for reason in rejects})
        rows = [(name, *(rejects[reason] for reason in why)) for name, rejects in rejecting.items()]
        blocks.append("rejected records\n" + _transposed(["source", *why], rows))
    for variant, by_source in accounts.variants.items():
        reasons = sorted({reason for one in by_source.values() for reason in one.dropped})
        rows = [
            (name, one.kept, *(one.dropped[reason] for reason in reasons), one.tokens[TRAIN], one.tokens[VALIDATION])
            for name, one in by_source.items()
        ]
        head = ["source", "kept", *reasons, "train tokens", "validation tokens"]
        blocks.append(f"variant {variant}\n" + _transposed(head, rows))
    return "\n\n".join(blocks)


def _transposed(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Reasons down, sources across: there are more reasons than sources."""
    return table([head[0], *(str(row[0]) for row in rows)], [[head[i], *(r[i] for r in rows)] for i in range(1, len(head))])
