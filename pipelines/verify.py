"""verify: does a run still hold what its manifest says, and do its counts still add up?

Every file is read and hashed; every count of the accounts is taken again from the tables. With `deep` the inputs are read
again as well, by counters that share no code with the readers, and their records are held against the run's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.conservation import account
from pipelines.errors import CheckError, UserError
from pipelines.explain import open_run
from pipelines.parts import list_parts
from pipelines.plan import Plan, Task
from pipelines.recipe import Recipe
from pipelines.records import Input, Span
from pipelines.sources import SourceOptions, count_records
from pipelines.store import Store


@dataclass(slots=True)
class Verification:
    """What was looked at, and every fault that was found, a line each."""

    files: int = 0
    bytes: int = 0
    records: dict[str, int] = field(default_factory=dict)  # by source, recounted; only when deep
    faults: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"files": self.files, "bytes": self.bytes, "records": self.records, "faults": self.faults}

    def to_text(self) -> str:
        lines = [f"{self.files:,} files, {self.bytes:,} bytes read and hashed; counts taken again from the tables"]
        lines += [f"{source}: {count:,} records counted again in the inputs" for source, count in self.records.items()]
        lines += [f"FAULT {fault}" for fault in self.faults] or ["everything holds"]
        return "\n".join(lines)


def verify(folder: str, deep: bool = False) -> Verification:
    """Checks a complete run; faults are listed, not raised."""
    store = open_run(folder)
    manifest = store.read_json("manifest.json")
    result = Verification()
    for path, stated in manifest["files"].items():
        _check_file(store, path, stated, result)
    if not result.faults:
        recipe = Recipe.model_validate(manifest["recipe"])
        plan = load_plan(store)
        try:
            accounts = account(store, recipe, plan, list_parts(store, plan)).to_json()
            if accounts != manifest["accounts"]:
                result.faults.append("the accounts of the manifest are not those of the tables")
        except CheckError as error:
            result.faults.append(str(error))
        if deep:
            _recount(manifest, recipe, plan, result)
    return result


def _check_file(store: Store, path: str, stated: dict[str, Any], result: Verification) -> None:
    try:
        found = store.digest(path)
    except FileNotFoundError:
        result.faults.append(f"{path} is missing")
        return
    result.files += 1
    result.bytes += found["bytes"]
    if found["sha256"] != stated["sha256"]:
        result.faults.append(f"{path} is not what was written (sha256 {found['sha256'][:12]}, not {stated['sha256'][:12]})")


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


def _recount(manifest: dict[str, Any], recipe: Recipe, plan: Plan, result: Verification) -> None:
    for source, chosen in recipe.sources.items():
        inputs = {one.path: one for task in plan.of_source(source) for one in task.inputs}
        try:
            counted = sum(count_records(chosen.format, one, SourceOptions(**chosen.fields)) for one in inputs.values())
        except OSError as error:
            raise UserError(f"sources.{source}: {error.filename or error}: the input is gone; --deep reads it") from error
        result.records[source] = counted
        read = manifest["accounts"]["sources"][source]["records"]
        if counted != read:
            result.faults.append(f"sources.{source}: {read} records were read, {counted} are counted in the inputs")
