"""diff: what changed between two runs: recipe, counts, distributions, and documents whose verdict is another one.

Documents are matched by doc_id, that is by source and locator. Ids and verdicts are held as flat arrays, 16 bytes and two a
variant for each document of both runs; everything that is listed is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import index
from pipelines.finished import read_manifest
from pipelines.overview import table
from pipelines.store import Store, read_columns

_EXAMPLES = 5  # documents per variant and kind of change
_KINDS = 20  # kinds of change per variant, the most frequent
_SHOWN = 20  # rows of a distribution in the text, those that differ most
_WIDTH = 60  # characters of a recipe's value in the text


@dataclass(frozen=True, slots=True)
class Change:
    """Documents of both runs that one variant judges `left` in the one and `right` in the other."""

    variant: str
    left: str
    right: str
    documents: int
    examples: list[dict[str, str]]  # doc_id, source, locator


@dataclass(frozen=True, slots=True)
class Difference:
    """Left against right; only what differs is listed."""

    recipe: dict[str, tuple[Any, Any]]  # dotted key -> values
    counts: list[tuple[str, str, str, int, int]]  # variant or "", source, what, left, right
    distributions: dict[str, list[tuple[str, int, int]]]  # "<variant or all>: <what>" -> (place, left, right)
    documents: tuple[int, int, int]  # only left, in both, only right
    changes: list[Change]
    variants: list[str]  # of both runs: verdicts are compared in these, and in no other

    def to_json(self) -> dict[str, Any]:
        changes = [{name: getattr(change, name) for name in Change.__slots__} for change in self.changes]
        return {**{name: getattr(self, name) for name in self.__slots__}, "changes": changes}

    def to_text(self) -> str:
        only_left, both, only_right = self.documents
        blocks = [f"documents: {both:,} in both, {only_left:,} only left, {only_right:,} only right"]
        if not self.variants:
            blocks[0] += "\nno variant is in both: no verdict was compared"
        if self.recipe:
            values = [(key, _short(left), _short(right)) for key, (left, right) in self.recipe.items()]
            blocks.append(table(["recipe", "left", "right"], values))
        if self.counts:
            blocks.append(table(["variant", "source", "count", "left", "right"], self.counts))
        for name, rows in self.distributions.items():
            largest = sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:_SHOWN]
            blocks.append(table([name, "left", "right"], [row for row in rows if row in largest]))
        for change in self.changes:
            head = f"{change.variant}: {change.documents:,} documents, {change.left} -> {change.right}"
            lines = [f"  {one['doc_id']}  {one['source']}  {one['locator']}" for one in change.examples]
            blocks.append("\n".join([head, *lines]))
        if not (self.recipe or self.counts or self.distributions or self.changes or only_left or only_right):
            blocks.append("no difference")
        return "\n\n".join(blocks)


def diff(left: str, right: str) -> Difference:
    """Compares two complete runs; a folder that is none is a UserError."""
    stores = (Store(left), Store(right))
    manifests = [read_manifest(store) for store in stores]
    variants = sorted(set(manifests[0]["recipe"]["variants"]) & set(manifests[1]["recipe"]["variants"]))
    verdicts = [_Verdicts.read(store, manifest, variants) for store, manifest in zip(stores, manifests, strict=True)]
    both, in_left, in_right = np.intersect1d(verdicts[0].ids, verdicts[1].ids, assume_unique=True, return_indices=True)
    with index.opened(stores[0]) as known:
        changes = [
            change
            for number, variant in enumerate(variants)
            for change in _changes(variant, verdicts, (in_left, in_right), number, partial(_example, stores[0], known))
        ]
    return Difference(
        _recipe(manifests[0]["recipe"], manifests[1]["recipe"]),
        _counts(manifests[0]["accounts"], manifests[1]["accounts"]),
        _distributions([store.read_json("stats.json")["sources"] for store in stores], variants),
        (len(verdicts[0].ids) - len(both), len(both), len(verdicts[1].ids) - len(both)),
        changes,
        variants,
    )


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def _recipe(left: Any, right: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> values that differ, None where there is none; a section that only one side has is one entry."""
    if left == right:
        return {}
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return {prefix: (left, right)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(set(left) | set(right)):
        found.update(_recipe(left.get(key), right.get(key), f"{prefix}.{key}".lstrip(".")))
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: v for name, one in value.items() for key, v in _flat(one, f"{prefix}.{name}".lstrip(".")).items()}


# -- counts and distributions -----------------------------------------------------------------------------------------------


def _counts(left: dict[str, Any], right: dict[str, Any]) -> list[tuple[str, str, str, int, int]]:
    rows = []
    for source in sorted(set(left["sources"]) | set(right["sources"])):
        rows += [("", source, *row) for row in _differing(*(side["sources"].get(source, {}) for side in (left, right)))]
    for variant in sorted(set(left["variants"]) | set(right["variants"])):
        sides = [side["variants"].get(variant, {}) for side in (left, right)]
        for source in sorted(set(sides[0]) | set(sides[1])):
            rows += [(variant, source, *row) for row in _differing(*(side.get(source, {}) for side in sides))]
    return rows


def _differing(left: dict[str, Any], right: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(dotted key, left, right) of the counts that differ; what is absent counts 0."""
    flat = [{key: value for key, value in _flat(side).items() if isinstance(value, int)} for side in (left, right)]
    rows = [(key, flat[0].get(key, 0), flat[1].get(key, 0)) for key in sorted(set(flat[0]) | set(flat[1]))]
    return [row for row in rows if row[1] != row[2]]


def _distributions(
    sides: Sequence[dict[str, Any]], variants: Iterable[str]
) -> dict[str, list[tuple[str, int, int]]]:
    """Languages, lengths and quality of all documents and of those that each common variant keeps."""
    found = {}
    for name in ("all", *variants):
        profiles = [
            [one["all"] if name == "all" else one["variants"][name]["kept"] for one in side.values() if one]
            for side in sides
        ]
        for what, named in (("languages", _languages), ("lengths", _lengths), ("quality", _tenths)):
            left, right = ([named(profile[what]) for profile in side] for side in profiles)
            rows = _differing(_summed(left), _summed(right))
            if rows:
                order = list(_summed([*left, *right]))
                found[f"{name}: {what}"] = sorted(rows, key=lambda row: order.index(row[0]))
    return found


def _languages(profile: dict[str, int]) -> dict[str, int]:
    return profile


def _lengths(counts: list[int]) -> dict[str, int]:
    """By powers of two."""
    return {f"{2**i:,} bytes and more": count for i, count in enumerate(counts)}


def _tenths(counts: list[int]) -> dict[str, int]:
    """Quality by tenths."""
    step = len(counts) // 10
    return {f"{i / 10:.1f} to {(i + 1) / 10:.1f}": sum(counts[i * step : (i + 1) * step]) for i in range(10)}


def _summed(mappings: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for mapping in mappings:
        for key, count in mapping.items():
            total[key] = total.get(key, 0) + count
    return total


# -- documents --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Every document of a run: its id, and by variant a code of its verdict."""

    ids: np.ndarray  # void16 [documents], sorted
    codes: np.ndarray  # int16 [variants, documents]
    names: list[str]  # code -> verdict

    @staticmethod
    def read(store: Store, manifest: dict[str, Any], variants: Sequence[str]) -> _Verdicts:
        paths = [path for path in manifest["files"] if path.startswith("documents/") and path.endswith(".parquet")]
        names: list[str] = []
        ids, codes = [np.empty(0, "V16")], [np.empty((len(variants), 0), np.int16)]
        for path in paths:
            column = read_columns(store, path, ["doc_id"]).column(0).combine_chunks()
            ids.append(np.frombuffer(column.buffers()[1] or b"", "V16")[column.offset : column.offset + len(column)])
            decided = [path.replace("documents/", f"decisions/{variant}/", 1) for variant in variants]
            found = [_codes(read_columns(store, one, ["verdict"]), names) for one in decided]
            codes.append(np.array(found, np.int16).reshape(len(variants), len(column)))
        together = np.concatenate(ids)
        order = np.argsort(together)
        return _Verdicts(together[order], np.concatenate(codes, axis=1)[:, order], names)


def _codes(verdicts: pa.Table, names: list[str]) -> np.ndarray:
    """int16 [rows]: places in `names`, which grows by the verdicts that are new."""
    encoded = verdicts.column(0).combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names += [name for name in found if name not in names]
    places = np.array([names.index(name) for name in found] or [0], np.int16)
    return places[encoded.indices.to_numpy()]


def _changes(
    variant: str,
    verdicts: Sequence[_Verdicts],
    rows: tuple[np.ndarray, np.ndarray],
    number: int,
    example: Callable[[str], dict[str, str]],
) -> list[Change]:
    """What changed in one variant, the most frequent kind first; rows: int64 [documents in both] of each side."""
    left, right = (side.codes[number][some].astype(np.int64) for side, some in zip(verdicts, rows, strict=True))
    everything = sorted({*verdicts[0].names, *verdicts[1].names})
    left, right = (
        np.array([everything.index(name) for name in side.names] or [0])[codes]
        for side, codes in zip(verdicts, (left, right), strict=True)
    )
    changed = np.flatnonzero(left != right)
    kinds, counts = np.unique(left[changed] * len(everything) + right[changed], return_counts=True)
    found = []
    for place in np.lexsort((kinds, -counts))[:_KINDS]:
        before, after = divmod(int(kinds[place]), len(everything))
        some = changed[(left[changed] == before) & (right[changed] == after)][:_EXAMPLES]
        examples = [example(verdicts[0].ids[rows[0][row]].tobytes().hex()) for row in some]
        found.append(Change(variant, everything[before], everything[after], int(counts[place]), examples))
    return found


def _example(store: Store, known: index.Index, doc_id: str) -> dict[str, str]:
    """doc_id, source and locator of a document."""
    for source, part, row in known.find(doc_id):
        found = read_columns(store, f"documents/{source}/{part}.parquet", ["doc_id", "locator"]).slice(row, 1).to_pylist()[0]
        if found["doc_id"].hex() == doc_id:
            return {"doc_id": doc_id, "source": source, "locator": found["locator"]}
    raise RuntimeError(f"{store.root}: the index does not know {doc_id}")
