"""diff: what changed between two runs: recipe, counts, distributions, and documents whose verdict is another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.explain import open_run
from pipelines.overview import table
from pipelines.store import Store, read_columns

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """Left against right; only what differs is listed."""

    recipe: dict[str, tuple[Any, Any]]  # dotted key -> values
    counts: list[tuple[str, str, str, int, int]]  # variant, source, what, left, right
    languages: list[tuple[str, int, int]]
    documents: tuple[int, int, int]  # only left, in both, only right
    changed: dict[str, list[tuple[str, str, str]]]  # variant -> (doc_id, left verdict, right verdict), a few
    changed_counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def to_text(self) -> str:
        only_left, both, only_right = self.documents
        blocks = [f"documents: {both:,} in both, {only_left:,} only left, {only_right:,} only right"]
        if self.recipe:
            blocks.append(table(["recipe key", "left", "right"], [(k, *map(str, v)) for k, v in self.recipe.items()]))
        if self.counts:
            blocks.append(table(["variant", "source", "what", "left", "right"], self.counts))
        if self.languages:
            blocks.append(table(["language", "left", "right"], self.languages))
        for variant, some in self.changed.items():
            lines = [f"  {doc_id}: {left} -> {right}" for doc_id, left, right in some]
            blocks.append("\n".join([f"{variant}: {self.changed_counts[variant]:,} verdicts changed", *lines]))
        return "\n\n".join(blocks)


def diff(left: str, right: str) -> Difference:
    """Compares two complete runs; a folder that is none is a UserError."""
    stores = (open_run(left), open_run(right))
    manifests = [store.read_json("manifest.json") for store in stores]
    flat = [_flat(manifest["recipe"]) for manifest in manifests]
    keys = sorted(set(flat[0]) | set(flat[1]))
    recipe = {key: (flat[0].get(key), flat[1].get(key)) for key in keys if flat[0].get(key) != flat[1].get(key)}
    verdicts = [_verdicts(store, manifest) for store, manifest in zip(stores, manifests, strict=True)]
    ids = [set(one) for one in verdicts]
    changed, counts = _changed(verdicts[0], verdicts[1])
    return Difference(
        recipe,
        _counts(manifests[0]["accounts"], manifests[1]["accounts"]),
        _languages(stores),
        (len(ids[0] - ids[1]), len(ids[0] & ids[1]), len(ids[1] - ids[0])),
        changed,
        counts,
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {key: v for name, one in value.items() for key, v in _flat(one, f"{prefix}.{name}".lstrip(".")).items()}


def _counts(left: dict[str, Any], right: dict[str, Any]) -> list[tuple[str, str, str, int, int]]:
    rows = []
    for what in ("records", "documents"):
        for source in sorted(set(left["sources"]) | set(right["sources"])):
            values = [side["sources"].get(source, {}).get(what, 0) for side in (left, right)]
            if values[0] != values[1]:
                rows.append(("", source, what, values[0], values[1]))
    for variant in sorted(set(left["variants"]) | set(right["variants"])):
        sides = [side["variants"].get(variant, {}) for side in (left, right)]
        for source in sorted(set(sides[0]) | set(sides[1])):
            flat = [_flat(side.get(source, {})) for side in sides]
            for what in sorted(set(flat[0]) | set(flat[1])):
                values = [one.get(what) or 0 for one in flat]
                if values[0] != values[1]:
                    rows.append((variant, source, what, values[0], values[1]))
    return rows


def _languages(stores: tuple[Store, Store]) -> list[tuple[str, int, int]]:
    totals = []
    for store in stores:
        total: dict[str, int] = {}
        for source in store.read_json("stats.json")["sources"].values():
            for label, count in (source or {"all": {"languages": {}}})["all"]["languages"].items():
                total[label] = total.get(label, 0) + count
        totals.append(total)
    rows = [(label, totals[0].get(label, 0), totals[1].get(label, 0)) for label in sorted(set(totals[0]) | set(totals[1]))]
    return [row for row in rows if row[1] != row[2]]


def _verdicts(store: Store, manifest: dict[str, Any]) -> dict[bytes, dict[str, str]]:
    """doc_id -> variant -> verdict."""
    found: dict[bytes, dict[str, str]] = {}
    for path in manifest["files"]:
        if not (path.startswith("documents/") and path.endswith(".parquet")):
            continue
        ids = read_columns(store, path, ["doc_id"]).column(0).to_pylist()
        for variant in manifest["recipe"]["variants"]:
            decided = read_columns(store, path.replace("documents/", f"decisions/{variant}/", 1), ["verdict"]).column(0)
            for doc_id, verdict in zip(ids, decided.to_pylist(), strict=True):
                found.setdefault(doc_id, {})[variant] = verdict
    return found


def _changed(
    left: dict[bytes, dict[str, str]], right: dict[bytes, dict[str, str]]
) -> tuple[dict[str, list[tuple[str, str, str]]], dict[str, int]]:
    examples: dict[str, list[tuple[str, str, str]]] = {}
    counts: dict[str, int] = {}
    for doc_id in sorted(set(left) & set(right)):
        for variant in sorted(set(left[doc_id]) & set(right[doc_id])):
            before, after = left[doc_id][variant], right[doc_id][variant]
            if before != after:
                counts[variant] = counts.get(variant, 0) + 1
                if len(examples.setdefault(variant, [])) < _EXAMPLES:
                    examples[variant].append((doc_id.hex(), before, after))
    return examples, counts
