"""Files of training runs and comparisons on a local disk: written whole or not at all, and read line by line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def publish(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def publish_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """The same of JSON; a number that is none is a ValueError."""
    publish(path, json.dumps(value, allow_nan=False, indent=indent).encode())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a text may hold other marks of a line's end (U+2028, U+0085), which end none here."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
