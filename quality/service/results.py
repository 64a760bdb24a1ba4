"""What a comparison's result says in a few lines: read once for as long as the file is the same, since it holds the bits of all its
documents.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import orjson

RESULT = "result.json"
_ENDPOINT = ("gap", "low", "high", "level", "verdict", "seeds", "seed_gaps")
_ONE = threading.Lock()  # a result is large: one is read at a time


def summary(comparison: Path) -> dict[str, Any] | None:
    """Of the comparison in a folder `verdict`, `primary` (its arms), `model` (its name, or its parameters), `runs` (how many), and
    `endpoint` (None without a finished pair); None where it has no result, or one that cannot be read."""
    path = comparison / RESULT
    try:
        if path.is_symlink():
            return None
        stat = path.stat()
        with _ONE:
            return _read(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=256)
def _read(path: Path, inode: int, size: int, changed: int) -> dict[str, Any] | None:
    try:
        result = orjson.loads(path.read_bytes())
        found = next((one["endpoint"] for one in result["contrasts"] if one["name"] == "primary"), None)
        return {
            "verdict": result["verdict"],
            "primary": result["primary"],
            "model": result["model"]["preset"] or f"{result['model']['parameters']:,} parameters",
            "runs": len(result["runs"]),
            "endpoint": None if found is None else {name: found[name] for name in _ENDPOINT},
        }
    except (ValueError, KeyError, TypeError):
        return None
