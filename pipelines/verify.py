"""verify: does a run still hold what its manifest says, and do its counts still add up?

Every file is read and hashed; every count of the accounts is taken again from the tables. With `deep` inputs, shards and
languages are looked at again by other means than the build's (`recheck`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pipelines import recheck
from pipelines.conservation import account
from pipelines.errors import CheckError
from pipelines.finished import read_manifest
from pipelines.parts import list_parts
from pipelines.plan import Plan, Task
from pipelines.recipe_file import parse
from pipelines.records import Input, Span
from pipelines.store import SIDECAR, Store


@dataclass(slots=True)
class Verification:
    """What was looked at, and every fault that was found, a line each. All but files, bytes, faults are filled only when deep."""

    files: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    decoded: dict[str, int] = field(default_factory=dict)  # documents of the shards, by variant
    languages: int | None = None  # documents identified again; None where the library for it is not installed
    records: dict[str, int] = field(default_factory=dict)  # of the inputs, by source
    purged: int = 0  # documents that were purged, and of which nothing is left

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def to_text(self) -> str:
        lines = [f"{self.files:,} files, {self.bytes:,} bytes read and hashed; counts taken again from the tables"]
        lines += [f"{variant}: {n:,} documents decoded, held against their text" for variant, n in self.decoded.items()]
        if self.languages is not None:
            lines.append(f"{self.languages:,} documents: language identified again by fastText")
        elif self.decoded:
            lines.append("languages not identified again: fastText is not installed")
        lines += [f"{source}: {count:,} records counted again in the inputs" for source, count in self.records.items()]
        if self.purged:
            lines.append(f"{self.purged:,} documents are purged: nothing is left of their text and signals")
        lines += [f"FAULT {fault}" for fault in self.faults] or ["everything holds"]
        return "\n".join(lines)


def verify(folder: str, deep: bool = False) -> Verification:
    """Checks a complete run; faults are listed, not raised. With `deep` an input that is gone is a UserError."""
    store = Store(folder)
    manifest = read_manifest(store)
    result = Verification()
    for path, stated in manifest["files"].items():
        _check_file(store, path, stated, result)
    if result.faults:
        return result  # what is damaged cannot be counted
    # JSON is YAML; a key that this version of winnow does not know is an error of one line.
    recipe, plan = parse(json.dumps(manifest["recipe"]), store.url("manifest.json")), load_plan(store)
    parts = list_parts(store, plan)
    try:
        if account(store, recipe, plan, parts).to_json() != manifest["accounts"]:
            result.faults.append("the accounts of the manifest are not those of the tables")
    except CheckError as error:
        result.faults.append(str(error))
    if deep:
        result.decoded, faults = recheck.shards(store, recipe, parts)
        result.languages, more = recheck.languages(store, recipe, parts)
        result.records, most = recheck.records(recipe, plan, manifest["accounts"])
        result.purged, left = recheck.purged(store, parts)
        result.faults += [*faults, *more, *most, *left]
    return result


def _check_file(store: Store, path: str, stated: dict[str, Any], result: Verification) -> None:
    has_sidecar = "key" in stated
    way = f"remove {path}{SIDECAR} and build again" if has_sidecar else "build again"
    try:
        found = store.digest(path)
    except FileNotFoundError:
        result.faults.append(f"{path} is missing; {way}")
        return
    result.files += 1
    result.bytes += found["bytes"]
    if found["sha256"] != stated["sha256"]:
        told = f"sha256 {found['sha256'][:12]}, not {stated['sha256'][:12]}"
        result.faults.append(f"{path} is not what was written ({told}); {way}")
    elif has_sidecar and store.sidecar(path) is None:
        result.faults.append(f"{path}{SIDECAR} is missing; build again")


def load_plan(store: Store) -> Plan:
    """The plan that a run was made by."""
    found = store.read_json("plan.json")
    tasks = tuple(
        Task(
            task["source"],
            task["name"],
            tuple(Input(**one) for one in task["inputs"]),
            None if task["span"] is None else Span(**task["span"]),
        )
        for task in found["tasks"]
    )
    return Plan(found["recipe"], found["seed"], tasks)
