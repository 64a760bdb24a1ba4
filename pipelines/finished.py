"""A finished run as every command opens it: complete, whole, and written by a winnow that this one understands."""

from __future__ import annotations

import json
from typing import Any

from pipelines.errors import UserError
from pipelines.store import Store

MANIFEST = "manifest.json"
SCHEMA_VERSION = 3  # one more whenever a table's columns, or keys of the manifest or of stats.json, become other ones


def open_run(folder: str) -> Store:
    """The store of a finished run; anything else is a UserError."""
    store = Store(folder)
    read_manifest(store)
    return store


def read_manifest(store: Store, way: str = "run winnow build") -> dict[str, Any]:
    """The manifest of a run. UserError, with this way out, where there is none, or it is damaged or of another version."""
    if not store.exists(MANIFEST):
        raise UserError(f"{store.root.rstrip('/')}: no complete run ({MANIFEST} is missing); {way}")
    try:
        manifest = store.read_json(MANIFEST)
        version = manifest["schema_version"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{store.url(MANIFEST)}: damaged ({error}); {way} again") from error
    if version != SCHEMA_VERSION:
        other = f"written by another version of winnow ({version}, not {SCHEMA_VERSION})"
        raise UserError(f"{store.url(MANIFEST)}: {other}; {way} again")
    return dict(manifest)
