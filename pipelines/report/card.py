"""card.md: the dataset card of a run, from stats.json alone: what is in the corpus, what is not and why, and what is not known.

Its head (`card_head`) is what Hugging Face's hub and library read; its sections follow Gebru et al. 2021, "Datasheets for
Datasets", as far as a machine can answer. What only people know (who may use it, for what) is for the publisher to add, and the
card says so. Text of the corpus stands quoted (`report.markdown`). The card says the same every time: nothing in it knows when or
where it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.recipe import Recipe
from pipelines.recipe_file import RECIPE, parse
from pipelines.report import card_lists, distributions, shift
from pipelines.report.card_head import run_head
from pipelines.report.figures import came_in, summed
from pipelines.report.markdown import bullets, quoted, table
from pipelines.report.mixture import shown
from pipelines.report.stated import UNDETERMINED, kept_languages
from pipelines.report.words import gloss, readable_bytes, share
from pipelines.schema import TRAIN, VALIDATION, stage_of

_REASONS, _LANGUAGES, _LICENSES = 12, 20, 10  # shown, each; the others stand together in one row

Stats = Mapping[str, Any]


def card(stats: Stats) -> str:
    """The whole card as Markdown, from the content of stats.json."""
    recipe = parse(stats["recipe"], "stats.json")
    sections = {
        "Variants": _variants(stats),
        "Sources": _sources(stats, recipe),
        "Licenses": _licenses(stats, recipe),
        "Languages": _languages(stats),
        "What was left out, and why": _left_out(stats),
        "E-mail and IP addresses": _addresses(stats, recipe),
        "Evaluation sets": card_lists.evaluations(stats),
        "Terms": card_lists.terms(stats),
        "Quality classifier": _classifier(stats),
        f"What filtering shifts: from {stats['variants'][0]} to the others": shift.shifted(stats),
        "Known limits": _limits(stats, recipe),
    }
    blocks = [run_head(stats), f"# {stats['name']}", _opening(stats)]
    blocks += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(blocks) + "\n"


def _opening(stats: Stats) -> str:
    read = came_in(stats)
    return (
        f"A text corpus, built by `winnow` from {_counted(read['files'], 'file')} ({readable_bytes(read['bytes'])}) of"
        f" {_counted(len(stats['accounts']['sources']), 'source')}. Every record is accounted for:"
        f" {read['records']:,} records read = {read['documents']:,} documents + {read['rejects']:,} rejected +"
        f" {read['merged']:,} merged into other documents. A variant is one set of decisions over all documents.\n\n"
        f"`{RECIPE}` beside this card says how it was built, `report.html` shows more of what came out, `croissant.json` describes"
        " the files for programs. Who may use the corpus and for what is not known here: that is for its publisher to add."
    )


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _variants(stats: Stats) -> str:
    rows = []
    for variant in stats["variants"]:
        mine = stats["accounts"]["variants"][variant].values()
        documents, kept = sum(one["kept"] + sum(one["dropped"].values()) for one in mine), sum(one["kept"] for one in mine)
        tokens = summed(one["tokens"] for one in mine)
        rows.append([variant, kept, share(kept, documents), tokens[TRAIN], tokens[VALIDATION]])
    return table(["variant", "documents kept", "of all", "training tokens", "validation tokens"], rows)


def _sources(stats: Stats, recipe: Recipe) -> str:
    rows: list[list[str | int]] = []
    for name, one in stats["accounts"]["sources"].items():
        found = stats["sources"][name]
        tokens = [sum(stats["accounts"]["variants"][variant][name]["tokens"].values()) for variant in stats["variants"]]
        text = readable_bytes(found["text_bytes"]) if found else ""
        rows.append([name, recipe.sources[name].format, one["records"], one["documents"], text, *tokens])
    head = ["source", "format", "records", "documents", "text", *(f"tokens kept, {variant}" for variant in stats["variants"])]
    return table(head, rows) + _mixture(stats)


def _mixture(stats: Stats) -> str:
    """What a mixture was asked and got, by source, where the recipe has one."""
    if stats["mixture"] is None:
        return ""
    rows = []
    for variant in stats["variants"]:
        told = shown(stats, variant, len(stats["accounts"]["sources"]))
        assert told is not None
        rows += [[variant, row["source"], row["asked"], row["got"], row["epochs"]] for row in told["rows"]]
    head = ["variant", "source", "share asked", "share got", "epochs"]
    return f"\n\nThe shards are meant for a training run of {stats['mixture']['tokens']:,} tokens:\n\n{table(head, rows)}"


def _licenses(stats: Stats, recipe: Recipe) -> str:
    rows: list[list[str | int]] = []
    for name, one in stats["sources"].items():
        if not one:
            continue
        found = one["licenses"]
        ordered = sorted(found["largest"].items(), key=lambda item: (-item[1], item[0]))
        rows += [[name, quoted(stated), count] for stated, count in ordered[:_LICENSES]]
        others = sum(count for _, count in ordered[_LICENSES:]) + found["others"]
        rows += [[name, "*others*", others]] if others else []
        rows += [[name, "*none stated*", found["without"]]] if found["without"] else []
    given = [f"{name} {quoted(source.license)}" for name, source in sorted(recipe.sources.items()) if source.license]
    stated = f" Where a record states none, its source's license in the recipe stands for it: {', '.join(given)}." if given else ""
    return (
        f"As the records state them (code: its license files and notices), over all documents.{stated}"
        f" Nobody has checked that it is true.\n\n{table(['source', 'license', 'documents'], rows)}"
    )


def _languages(stats: Stats) -> str:
    counts = [kept_languages(stats, variant) for variant in (None, *stats["variants"])]
    ordered = sorted(counts[0], key=lambda name: (-counts[0][name], name))
    rows: list[list[str | int]] = [[_language(name), *(one.get(name, 0) for one in counts)] for name in ordered[:_LANGUAGES]]
    if rest := ordered[_LANGUAGES:]:
        rows.append([f"*{len(rest):,} others*", *(sum(one.get(name, 0) for name in rest) for one in counts)])
    return (
        "Documents by the language that `lid.176` identifies, one for each. The head of this card names those with 0.1 % or"
        f" more of a variant.\n\n{table(['language', 'all', *stats['variants']], rows)}"
    )


def _language(name: str) -> str:
    return "*undetermined*" if name == UNDETERMINED else quoted(name)


def _left_out(stats: Stats) -> str:
    rejects = summed(one["rejects"] for one in stats["accounts"]["sources"].values())
    rows: list[list[str | int]] = [[f"`{reason}`", gloss(reason, {}), count] for reason, count in _ordered(rejects)]
    blocks = [f"Records that never became documents:\n\n{table(['reason', 'meaning', 'records'], rows)}"] if rows else []
    for variant in stats["variants"]:
        blocks.append(f"Documents that `{variant}` leaves out, each by its first reason:\n\n{_dropped(stats, variant)}")
    return "\n\n".join(blocks)


def _dropped(stats: Stats, variant: str) -> str:
    dropped = summed(one["dropped"] for one in stats["accounts"]["variants"][variant].values())
    tokens = summed(one["variants"][variant]["tokens"] for one in stats["sources"].values() if one)
    documents = sum(one["documents"] for one in stats["accounts"]["sources"].values())
    if not dropped:
        return "None."
    ordered, rules = _ordered(dropped), stats["rules"][variant]
    rows: list[list[str | int]] = [
        [f"`{reason}`", str(stage_of(reason)), gloss(reason, rules), count, share(count, documents), tokens[reason]]
        for reason, count in ordered[:_REASONS]
    ]
    if rest := ordered[_REASONS:]:
        count, lost = sum(count for _, count in rest), sum(tokens[reason] for reason, _ in rest)
        rows.append([f"*{len(rest):,} others*", "", "", count, share(count, documents), lost])
    return table(["reason", "step", "meaning", "documents", "of all", "tokens"], rows)


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _addresses(stats: Stats, recipe: Recipe) -> str:
    rows: list[list[str | int]] = []
    for name, one in stats["sources"].items():
        if one:
            profiles = [one["all"], *(one["variants"][variant]["kept"] for variant in stats["variants"])]
            counts = [profile[key] for key in ("emails", "ip_addresses") for profile in profiles]
            rows.append([name, "masked" if recipe.sources[name].mask else "as found", *counts])
    columns = [f"{what}, {where}" for what in ("e-mail", "IP") for where in ("all", *stats["variants"])]
    return (
        "Counted in the text before any is masked. Where a source is masked, the token shards and what `winnow export` writes hold"
        " placeholders; the tables under `documents/` hold the text as it was read. Other personal data is neither counted nor"
        " removed."
        f"\n\n{table(['source', 'in the shards', *columns], rows)}"
    )


def _classifier(stats: Stats) -> str:
    measured = distributions.classifier(stats)
    if measured is None:
        return "None: no document has a quality score."
    head = ["measured on", "curated", "web", "AUC", "95 % interval", "in words"]
    rows = [[row["what"], row["curated"], row["web"], row["auc"], row["interval"], row["words"]] for row in measured["rows"]]
    said = (
        "Quality is the calibrated probability that a text is of the curated sources. The AUC is the chance that a curated document"
        " scores above one of the web (0.5 is a guess); it says how well the two kinds are told apart here, not whether a text is"
        " true, useful or fair. Held-out documents come from the sources of the fit, so that theirs is the most favourable figure;"
        " the intervals are Hanley and McNeil's of 1982 and take documents as independent."
    )
    unknown = "No source was left out of the fit or only judged: how it does on other sources is not known."
    alone = "" if len(rows) > 1 else f"\n\n{unknown}"
    classes = f"\n\n{measured['citations']}" if measured["citations"] else ""
    return f"{said}{classes}\n\n{table(head, rows)}{alone}"


def _limits(stats: Stats, recipe: Recipe) -> str:
    found = [one for one in stats["sources"].values() if one]
    lines = [f"{alarm}." for alarm in stats["alarms"]]
    if rests := sum(one["unknown_rests"] for one in stats["accounts"]["sources"].values()):
        lines.append(f"Inputs that could not be read to their end, and may have held more records: {rests:,}.")
    lines += [f"The source {name} has no document." for name, one in stats["sources"].items() if not one]
    lines += _without_perplexity(stats, recipe)
    if without := sum(one["licenses"]["without"] for one in found):
        lines.append(f"Documents that state no license: {without:,}.")
    if unsure := kept_languages(stats, None).get(UNDETERMINED):
        lines.append(f"Documents whose language could not be told: {unsure:,}.")
    lines += _unmasked(stats, recipe)
    if stats["classifier"] is not None and not stats["classifier"]["metrics"]["converged"]:
        lines.append("The fit of the quality classifier did not converge.")
    if stats["mixture"] is not None:
        for variant in stats["variants"]:
            told = shown(stats, variant, len(stats["accounts"]["sources"]))
            lines += [f"{variant}: {warning}" for warning in (told["warnings"] if told else ())]
    lines.append("Every document has one language, told by a model: of short and mixed texts it is less sure.")
    if not stats["terms"]:
        lines.append("Toxicity and terms of identity are not counted, so what the filters shift in them is not known.")
    return bullets(lines)


def _without_perplexity(stats: Stats, recipe: Recipe) -> list[str]:
    if recipe.fit.perplexity is None:
        return ["No perplexity was computed."]
    without = summed(one["without_perplexity"] for one in stats["sources"].values() if one)
    everything = kept_languages(stats, None)
    lacking = [name for name, count in _ordered(without) if count == everything[name] and name != UNDETERMINED]
    if not without:
        return []
    line = f"Documents without a perplexity, which no cut by perplexity judges: {sum(without.values()):,}."
    if not lacking:
        return [line]
    named = ", ".join(quoted(name) for name in lacking[:_LANGUAGES]) + (" and others" if len(lacking) > _LANGUAGES else "")
    return [f"{line} Languages without a model: {named}."]


def _unmasked(stats: Stats, recipe: Recipe) -> list[str]:
    """The sources whose addresses stand in some shard as they were found."""
    lines = []
    for name, one in stats["sources"].items():
        if one and not recipe.sources[name].mask:
            kept = [one["variants"][variant]["kept"] for variant in stats["variants"]]
            if most := max(profile["emails"] + profile["ip_addresses"] for profile in kept):
                lines.append(f"E-mail and IP addresses of {name} in the shards as they were found: up to {most:,} in a variant.")
    return lines
