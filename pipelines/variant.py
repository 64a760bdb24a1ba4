"""One variant of a finished run, as commands look at it: its parts and its accounts, of all sources or of some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import UserError
from pipelines.finished import read_manifest
from pipelines.parts import Part
from pipelines.store import Store


@dataclass(frozen=True, slots=True)
class Variant:
    """What the manifest says of it."""

    store: Store
    manifest: Mapping[str, Any]
    name: str
    sources: tuple[str, ...]  # sorted

    @classmethod
    def open(cls, folder: str, name: str, sources: Iterable[str] = ()) -> Variant:
        """The variant `name` of the run in `folder`, of these sources or of all. What there is not is a UserError."""
        store = Store(folder)
        manifest = read_manifest(store)
        _known(folder, "variant", [name], manifest["recipe"]["variants"])
        _known(folder, "source", sources, manifest["recipe"]["sources"])
        return cls(store, manifest, name, tuple(sorted(set(sources) or manifest["recipe"]["sources"])))

    def parts(self) -> list[Part]:
        """The documents parts of its sources, by source and name."""
        found = []
        for source in self.sources:
            start, end = f"documents/{source}/", ".parquet"
            paths = [path for path in self.manifest["files"] if path.startswith(start) and path.endswith(end)]
            for name in sorted(path.removeprefix(start).removesuffix(end) for path in paths):
                facts = self.manifest["files"][f"{start}{name}{end}"]
                found.append(Part(-1, source, name, facts["rows"], facts["text_bytes"], facts["sha256"]))
        return found

    def masks(self, source: str) -> bool:
        """Whether addresses of a source are masked."""
        return bool(self.manifest["recipe"]["sources"][source]["mask"])

    def account(self, source: str) -> Mapping[str, Any]:
        """What became of a source's documents: `kept`, `dropped` by reason, `documents` and `tokens` by split."""
        found: Mapping[str, Any] = self.manifest["accounts"]["variants"][self.name][source]
        return found


def _known(folder: str, what: str, names: Iterable[str], there: Iterable[str]) -> None:
    for name in names:
        if name not in there:
            raise UserError(f"{folder}: no {what} {name!r}; it has {', '.join(there)}")
