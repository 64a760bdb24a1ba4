"""report.html: one self-contained page, drawn from stats.json alone. No script, a strict content policy, readable on paper.

Everything that came from a corpus is escaped by the template; control and bidirectional characters of sample texts are shown
as boxes, so that no text can change how the page reads. The page stays under `LIMIT` bytes whatever the corpus holds: it is
drawn with less and less detail until it fits, and says what it leaves to stats.json.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

from markupsafe import Markup

from pipelines.report import distributions, figures, lists, mixture, words
from pipelines.report.figures import Detail
from pipelines.schema import TRAIN, VALIDATION

LIMIT = 200_000  # bytes
LEVELS = (
    Detail(variants=8, sources=24, reasons=60, samples=2, excerpt=300, charts=24, lists=24, hosts=20, languages=12, recipe=20_000),
    Detail(variants=8, sources=16, reasons=40, samples=1, excerpt=200, charts=12, lists=12, hosts=20, languages=12, recipe=8_000),
    Detail(variants=6, sources=12, reasons=30, samples=1, excerpt=100, charts=8, lists=8, hosts=12, languages=10, recipe=4_000),
    Detail(variants=4, sources=10, reasons=25, samples=1, excerpt=60, charts=4, lists=4, hosts=10, languages=8, recipe=2_000),
    Detail(variants=3, sources=8, reasons=12, samples=0, excerpt=0, charts=2, lists=1, hosts=5, languages=6, recipe=400),
)


def draw(stats: dict[str, Any]) -> str:
    """The whole page, from the content of stats.json: the fullest one that is under LIMIT bytes."""
    page = ""
    for detail in LEVELS:
        page = draw_with(stats, detail)
        if len(page.encode()) < LIMIT:
            break
    return page


def draw_with(stats: dict[str, Any], detail: Detail) -> str:
    """The page with so much detail."""
    template, style = _template()
    recipe = stats["recipe"]
    variants = stats["variants"][: detail.variants]
    funnels = {variant: figures.funnel(stats, variant, detail.sources) for variant in variants}
    used = {variant: [stage for stage, count in total.dropped.items() if count] for variant, (_, total) in funnels.items()}
    drawing = [variant for variant in variants if stats["draws"][variant]] or variants[:1]
    return template.render(
        name=stats["name"],
        seed=stats["seed"],
        style=Markup(style),  # noqa: S704  (our own file)
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        detail=detail,
        accounts=stats["accounts"],
        inputs=stats["inputs"],
        came_in=figures.came_in(stats),
        variants=variants,
        variants_left_out=len(stats["variants"]) - len(variants),
        keys={variant: [("k", "kept"), *((f"s-{stage}", stage) for stage in used[variant])] for variant in variants},
        used=used,
        splits=(TRAIN, VALIDATION),
        funnels=funnels,
        steps={variant: figures.steps(stats, variant, total) for variant, (_, total) in funnels.items()},
        alarms=stats["alarms"],
        alarms_shown=6,
        rejects=figures.rejects(stats, detail),
        reasons={variant: figures.reasons(stats, variant, detail) for variant in variants},
        lengths={variant: distributions.lengths(stats, variant) for variant in variants},
        languages={variant: distributions.languages(stats, variant, detail.languages) for variant in variants},
        quality={variant: distributions.quality(stats, variant, detail.charts) for variant in drawing},
        draws=distributions.draws(stats, variants),
        mixtures={variant: mixture.shown(stats, variant, detail.sources) for variant in variants if stats["mixture"]},
        classifier=distributions.classifier(stats),
        duplicates=distributions.duplicates(stats, detail),
        evaluations=lists.evaluations(stats, variants, detail),
        terms=lists.terms(stats, variants, detail),
        hosts=distributions.hosts(stats, detail.hosts),
        recipe=recipe[: detail.recipe],
        recipe_cut=len(recipe) > detail.recipe,
    )


@functools.cache
def _template() -> tuple[Any, str]:
    """The compiled template and the style sheet."""
    from jinja2 import Environment, StrictUndefined

    folder = resources.files("pipelines.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        visible=words.visible, thousands=_thousands, trimmed=words.trimmed, size=words.readable_bytes, number=_number
    )
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    return template, (folder / "style.css").read_text("utf-8")


def _thousands(value: int) -> str:
    return f"{value:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
