"""Growing a corpus: other runs whose kept documents count as earlier keepers of this one.

    against: [DIR, {run: DIR, variant: filtered}]

What one variant of such a run keeps is compared with every document of this run, exact and near, by the rule that holds within
a run: equal content hashes; LSH buckets, and signatures that agree in `near.min_jaccard`. A document of this run that is a copy is
dropped as one, wherever a variant deduplicates by this kind; the decision names run and document. A near cluster of this
run one of whose members is a copy goes as a whole: all of it has its keeper in the other run, as it would if both runs were one.

This module knows the other runs: which they are (`resolve`), and what stands in their tables. Their names are those of their
folders, so that a move changes no byte; what they are is told by the hashes of their documents and decisions. `match` finds the
copies and writes, for every part of this run, `against/<source>/<part>.parquet`: one row a document. No row, text or count of
another run is part of this one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cluster_parts import part_ids
from pipelines.errors import UserError
from pipelines.finished import MANIFEST, read_manifest
from pipelines.parts import Part
from pipelines.recipe import Against, Near, Recipe
from pipelines.schema import KEEP
from pipelines.store import Store, canonical_json, read_columns

DEFAULT_VARIANT = "filtered"
TABLE = "against"
NAMED = "against"  # in plan.json and sidecars of against parts: the runs that it was held against; of decisions: `counted`
# What a signature depends on: signatures of runs that differ in one of these say nothing of each other.
_SIGNATURE = ("ngram", "permutations", "text_cap", "seed")

MATCHES = pa.schema(
    [
        pa.field("exact_run", pa.string()),  # the run that keeps a document of the same text; null where none does
        pa.field("exact_of", pa.binary(16)),  # its doc_id there
        pa.field("near_run", pa.string()),  # likewise, for a near copy of this document or of a member of its near cluster
        pa.field("near_of", pa.binary(16)),
        pa.field("near_jaccard", pa.float32()),  # estimated similarity to that document
    ]
)


@dataclass(frozen=True, slots=True)
class Earlier:
    """One complete run, and the variant whose kept documents count. `index` of its parts is their place among them."""

    name: str
    url: str
    variant: str
    documents: int  # kept
    identity: str  # of documents and decisions: what every copy was found in
    parts: tuple[Part, ...]
    decided: tuple[str, ...]  # sha256 of the decisions of each part

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it, for `explain`."""
        return {name: getattr(self, name) for name in ("name", "url", "variant", "documents", "identity")}

    @property
    def store(self) -> Store:
        return Store(self.url)

    def is_in(self, store: Store) -> bool:
        """Whether this is the run of that folder."""
        return _place(self.store) == _place(store)


def _place(store: Store) -> str:
    return os.path.realpath(store.local_path("")) if store.is_local() else store.root.rstrip("/")


# -- which runs -------------------------------------------------------------------------------------------------------------


def resolve(recipe: Recipe, base: str) -> tuple[Earlier, ...]:
    """The runs that the recipe is held against, in its order; relative folders lie below `base`.

    UserError where one is missing, unfinished, without the variant, or cannot be compared.
    """
    found = [_resolve(one, recipe.near, base) for one in recipe.against]
    for place, one in enumerate(found):
        for other in found[:place]:
            if one.name == other.name:
                raise UserError(
                    f"against: {other.url} and {one.url} are both called {one.name!r}, and decisions name runs by their folders;"
                    " rename one"
                )
    return tuple(found)


def _resolve(given: Against, near: Near, base: str) -> Earlier:
    located = given.run if "://" in given.run or given.run.startswith("/") else f"{base}/{given.run}"
    store = Store(located if "://" in located else os.path.abspath(located))
    try:
        manifest = read_manifest(store, "build that run")
    except UserError as error:
        raise UserError(f"against: {error}") from error
    recipe, files, accounts = manifest["recipe"], manifest["files"], manifest["accounts"]
    variants, settings = list(recipe["variants"]), recipe["near"]
    variant = _variant(given.variant, variants, located)
    for key in _SIGNATURE:
        if settings[key] != getattr(near, key):
            raise UserError(
                f"against: {located} was built with near.{key} {settings[key]}, this recipe has {getattr(near, key)};"
                " signatures can only be compared where both are equal"
            )
    parts, decided = _parts(files, variant)
    named = [[part.source, part.name, part.sha256, sha256] for part, sha256 in zip(parts, decided, strict=True)]
    return Earlier(
        store.root.rstrip("/").rpartition("/")[2],
        store.root,
        variant,
        sum(source["kept"] for source in accounts["variants"][variant].values()),
        hashlib.sha256(canonical_json(named)).hexdigest(),
        parts,
        decided,
    )


def _variant(given: str | None, known: Sequence[str], located: str) -> str:
    if given is None:
        if len(known) == 1:
            return known[0]
        if DEFAULT_VARIANT in known:
            return DEFAULT_VARIANT
        raise UserError(f"against: {located} has the variants {', '.join(known)}; say which: {{run: ..., variant: {known[0]}}}")
    if given not in known:
        raise UserError(f"against: {located} has no variant {given!r}; it has {', '.join(known)}")
    return given


def _parts(files: dict[str, Any], variant: str) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Every documents part that a manifest names, in order, and the hash of its decisions."""
    parts: list[Part] = []
    decided: list[str] = []
    for path in sorted(files):
        if path.startswith("documents/") and path.endswith(".parquet"):
            source, name = path.removeprefix("documents/").removesuffix(".parquet").split("/")
            stated = files[path]
            part = Part(len(parts), source, name, stated["rows"], stated["text_bytes"], stated["sha256"])
            parts.append(part)
            decided.append(files.get(part.decisions(variant), {}).get("sha256", ""))
    return tuple(parts), tuple(decided)


def identities(earlier: Iterable[Earlier]) -> list[list[str]]:
    """[name, identity]: what the key of the copies takes of the other runs."""
    return [[one.name, one.identity] for one in earlier]


def check_unchanged(earlier: Iterable[Earlier]) -> None:
    """UserError where a run is being built again, or has been, since it was resolved."""
    for one in earlier:
        if not one.store.exists(MANIFEST):
            raise _changed(one.store)
        files = one.store.read_json(MANIFEST)["files"]
        if _parts(files, one.variant) != (one.parts, one.decided):
            raise _changed(one.store)


def kept(store: Store, part: Part, variant: str, decided: str) -> np.ndarray:
    """bool [rows] of a part of another run: kept by the variant. decided: sha256 of its decisions.

    UserError where the part or its decisions are not what was resolved.
    """
    for table, sha256 in ((part.path("documents"), part.sha256), (part.decisions(variant), decided)):
        sidecar = store.sidecar(table)
        if sidecar is None or sidecar["sha256"] != sha256:
            raise _changed(store)
    verdicts = read_columns(store, part.decisions(variant), ["verdict"]).column(0)
    return np.asarray(pc.equal(verdicts, KEEP).combine_chunks())


def _changed(store: Store) -> UserError:
    return UserError(f"against: {store.root} changed while it was read; build again when its own build has ended")


# -- what they have of this run ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copies:
    """The copies among a part's documents of one kind, row for row."""

    found: np.ndarray  # bool [rows]
    runs: np.ndarray  # object [rows]: the name of the run; None where nothing is found
    keepers: np.ndarray  # uint64 [rows, 2], doc_ids
    jaccard: np.ndarray  # float64 [rows]


def path(part: Part) -> str:
    return part.path(TABLE)


def copies(store: Store, part: Part) -> tuple[Copies, Copies] | None:
    """(exact, near) copies of other runs' documents among a part's; None where the run is held against nothing."""
    if store.sidecar(path(part)) is None:
        return None
    table = read_columns(store, path(part), MATCHES.names)
    exact = np.ones(part.rows)
    near = table.column("near_jaccard").to_numpy().astype(np.float64)
    return _copies(table, "exact", exact), _copies(table, "near", near)


def _copies(table: pa.Table, kind: str, jaccard: np.ndarray) -> Copies:
    runs, ids = table.column(f"{kind}_run"), table.column(f"{kind}_of")
    halves = np.stack(part_ids(ids), axis=1)
    return Copies(np.asarray(runs.is_valid()), runs.to_numpy(), halves, jaccard)


def content(store: Store, parts: Sequence[Part]) -> list[list[str]]:
    """[TABLE, source, part, sha256]: what the keys of later stages take of the copies; [] where there are none."""
    sidecars = zip(parts, store.each(parts, lambda part: store.sidecar(path(part))), strict=True)
    return [[TABLE, part.source, part.name, sidecar["sha256"]] for part, sidecar in sidecars if sidecar is not None]


def counted(decisions: pa.Table) -> dict[str, dict[str, int]]:
    """Reason -> run -> documents that are dropped in favour of one of that run; what the sidecar of a decisions part says of it."""
    theirs = decisions.select(["verdict", "duplicate_run"]).filter(decisions.column("duplicate_run").is_valid())
    total: dict[str, dict[str, int]] = {}
    for row in theirs.group_by(["verdict", "duplicate_run"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        total.setdefault(row["verdict"], {})[row["duplicate_run"]] = row["count_all"]
    return total


def counts(store: Store, variant: str, parts: Sequence[Part]) -> dict[str, dict[str, int]]:
    """`counted`, of all parts."""
    total: dict[str, dict[str, int]] = {}
    for sidecar in store.each(parts, lambda part: store.sidecar(part.decisions(variant))):
        for reason, by_run in (sidecar or {}).get(NAMED, {}).items():
            mine = total.setdefault(reason, {})
            for run, count in by_run.items():
                mine[run] = mine.get(run, 0) + count
    return {reason: dict(sorted(mine.items())) for reason, mine in sorted(total.items())}


def forget(store: Store, parts: Sequence[Part]) -> None:
    """Takes the tables away from a run that is held against nothing any more."""
    for part, sidecar in zip(parts, store.each(parts, lambda part: store.sidecar(path(part))), strict=True):
        if sidecar is not None:
            store.begin(path(part))
            store.remove(path(part))


def text(earlier: Sequence[Earlier]) -> str:
    """What `winnow plan` says: a line a run."""
    lines = [f"  {one.name}: {one.documents:,} documents kept by {one.variant}, {one.url}" for one in earlier]
    return "\n".join(["against (documents that count as earlier keepers):", *lines])
