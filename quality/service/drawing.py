"""How a page of the service becomes HTML: templates, the one style sheet, the one script, and the policy that lets in these two.

A page is drawn on the server from plain values and loads nothing: style sheet and script stand in it and are named in the content
policy by their hashes. The look is the report's: its style sheet comes first. Everything that a template writes is escaped, and
control and bidirectional characters are shown as boxes, so that no text of a corpus can change how a page reads.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

from markupsafe import Markup

from pipelines.report import words


def page(template: str, **values: Any) -> str:
    """The page that `template`, such as "home", makes of `values`; a value that it needs and does not get is an error."""
    return str(_environment().get_template(f"{template}.html.jinja").render(values))


@functools.cache
def policy() -> str:
    """The Content-Security-Policy of every page."""
    style, script = (f"'sha256-{_hash(_text(name))}'" for name in ("style", "script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:;"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


@functools.cache
def _text(name: str) -> str:
    """The style sheet or the script, as it stands in the page."""
    mine = resources.files("quality.service")
    if name == "script":
        return (mine / "page.js").read_text("utf-8")
    return (resources.files("pipelines.report") / "style.css").read_text("utf-8") + (mine / "style.css").read_text("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("quality.service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
        auto_reload=False,
    )
    environment.filters.update(thousands=_thousands, number=number, trimmed=words.trimmed, size=words.readable_bytes)
    environment.globals.update(style=Markup(_text("style")), script=Markup(_text("script")))  # noqa: S704  (our own files)
    return environment


def _shown(value: Any) -> Any:
    """What a template writes: text without a character that changes how a page reads."""
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _thousands(value: int) -> str:
    return f"{value:,}"


def number(value: Any) -> str:
    """A number in at most four digits after thousands; a count in full; other values as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
