"""select: signals + clusters -> one verdict a document for every variant. Only narrow columns move.

    every part  -> members of clusters that still stand          -> shuffle by cluster -> losers, back to their parts
    part+losers -> tokens per step of quality, per draw           -> the variant's solutions (resolved.json)
    part+losers + solutions                                       -> decisions/<variant>/

A keep rate is the share of tokens that a draw keeps of the documents that reach it, over the whole run: an exact histogram
(integers per 1e-4 of quality) is summed and solved once, so no order of summing can move it.
Bytes that cross a shuffle: 72 a standing member of a cluster and variant, 32 a loser, 80 KB a part and draw
(tests/invariants/test_shuffle_bytes.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.beam_parts import Each, Scatter, packed, spread, unpacked
from pipelines.cluster_parts import id_bytes, ids_or, part_ids
from pipelines.dedup.keepers import LOSER, STANDING_ROW, Kind, losers
from pipelines.judge import (
    Judgement,
    ResolvedDraw,
    decisions_table,
    judge_duplicates,
    judge_length,
    judge_quality,
    judge_text,
    resolve_rules,
    splits,
)
from pipelines.parts import ROW_BITS, Part, content_of
from pipelines.recipe import Draw, Policy, Recipe
from pipelines.schema import DECISIONS, Reason
from pipelines.store import Store, TableWriter, read_columns, stage_key
from quality import sampling
from quality.signals import SIGNAL_FIELDS

VERSION = 1
_PARTITION_ROWS = 1 << 20
DEFAULT_GROUP = "default"  # the draw that the sources without one of their own share
_LAST = np.iinfo(np.int32).min
_SIGNALS = ["language", "language_score", "quality", "n_tokens", "text_bytes", *(field.name for field in SIGNAL_FIELDS)]


@dataclass(frozen=True, slots=True)
class VariantSettings:
    """What select reads of one variant, with every policy resolved."""

    name: str
    dedup: tuple[str, ...]
    policies: dict[str, Policy]  # by source
    draws: dict[str, str]  # source -> whose solution it uses: "default" or the source's own name

    @staticmethod
    def of(recipe: Recipe, name: str) -> VariantSettings:
        chosen = recipe.variants[name]
        policies = {source: recipe.policy(name, source) for source in sorted(recipe.sources)}
        own = {source for source, policy in chosen.sources.items() if policy.quality is not None}
        draws = {s: s if s in own else DEFAULT_GROUP for s, policy in policies.items() if isinstance(policy.quality, Draw)}
        return VariantSettings(name, tuple(sorted(chosen.dedup)), policies, draws)

    def parameters(self) -> Any:
        """Plain values for the key."""
        policies = {
            source: [policy.model_dump(mode="json"), [repr(rule) for rule in resolve_rules(policy)]]
            for source, policy in self.policies.items()
        }
        return [self.dedup, policies, self.draws]

    @property
    def groups(self) -> list[str]:
        """The draws that are solved together, in the order of their numbers."""
        return sorted(set(self.draws.values()))

    def draw_of(self, group: str) -> Draw:
        quality = next(self.policies[source].quality for source, used in self.draws.items() if used == group)
        assert isinstance(quality, Draw)
        return quality


@dataclass(frozen=True, slots=True)
class Settings:
    """What select reads of the recipe, for the variants that it decides now."""

    variants: tuple[VariantSettings, ...]
    priorities: dict[str, int]
    min_jaccard: float
    seed: int
    validation: float

    @staticmethod
    def of(recipe: Recipe, names: Sequence[str]) -> Settings:
        return Settings(
            tuple(VariantSettings.of(recipe, name) for name in names),
            {source: recipe.sources[source].priority for source in sorted(recipe.sources)},
            recipe.near.min_jaccard,
            recipe.seed,
            recipe.tokens.validation,
        )


def variant_keys(store: Store, recipe: Recipe, parts: Sequence[Part]) -> dict[str, str]:
    """One key a variant, for all its parts: a keep rate and a keeper depend on every document."""
    made_from = [
        content_of(store, [part.path("signals") for part in parts]),
        content_of(store, [part.path("clusters") for part in parts]),
        [part.sha256 for part in parts],
    ]
    keys = {}
    for name in recipe.variants:
        settings = Settings.of(recipe, [name])
        parameters = [settings.variants[0].parameters(), settings.priorities, settings.min_jaccard]
        keys[name] = stage_key("select", VERSION, [*parameters, settings.seed, settings.validation], made_from)
    return keys


def solution_path(variant: str) -> str:
    """Where the solved draws of a variant are written, by group: "default", or a source with a draw of its own."""
    return f"decisions/{variant}/resolved.json"


def decided_paths(variant: str, parts: Sequence[Part]) -> list[str]:
    """Every file that select writes for a variant."""
    return [solution_path(variant), *(part.decisions(variant) for part in parts)]


# -- one part's judgement ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """The narrow columns of one part."""

    part: Part
    signals: pa.Table
    high: np.ndarray  # uint64 [rows], doc_id
    low: np.ndarray
    exact: np.ndarray  # uint64 [rows, 2], the exact cluster, or the document itself
    group: np.ndarray  # uint64 [rows, 2], the near cluster, or the exact one
    clustered: np.ndarray  # bool [rows]: in any cluster
    jaccard: np.ndarray  # float64 [rows]
    emptied: np.ndarray  # bool [rows]: paragraph dedup left nothing

    @staticmethod
    def read(store: Store, part: Part) -> _Columns:
        names = ["exact_cluster", "near_cluster", "jaccard", "dropped_paragraphs"]
        clusters = read_columns(store, part.path("clusters"), names)
        high, low = part_ids(read_columns(store, part.path("documents"), ["doc_id"]).column("doc_id"))
        own = np.stack([high, low], axis=1)
        exact = ids_or(clusters.column("exact_cluster"), own)
        group = ids_or(clusters.column("near_cluster"), exact)
        clustered = np.asarray(clusters.column("exact_cluster").is_valid()) | np.asarray(
            clusters.column("near_cluster").is_valid()
        )
        jaccard = clusters.column("jaccard").to_numpy().astype(np.float64)
        signals = read_columns(store, part.path("signals"), _SIGNALS)
        nothing = signals.column("words").to_numpy() == 0  # blank lines are never dropped, but are nothing to judge
        emptied = nothing & np.asarray(clusters.column("dropped_paragraphs").is_valid())
        return _Columns(part, signals, high, low, exact, group, clustered, jaccard, emptied)

    @property
    def quality(self) -> np.ndarray:
        return np.asarray(self.signals.column("quality").to_numpy(), np.float32)

    @property
    def doc_ids(self) -> np.ndarray:
        return id_bytes(np.stack([self.high, self.low], axis=1))


def _before_duplicates(columns: _Columns, variant: VariantSettings) -> Judgement:
    judgement = Judgement(columns.part.rows)
    judge_text(judgement, columns.signals, variant.policies[columns.part.source], columns.emptied)
    return judgement


def _before_quality(
    columns: _Columns, variant: VariantSettings, number: int, lost: np.ndarray, least: float
) -> Judgement:
    judgement = _before_duplicates(columns, variant)
    for kind, reason, jaccard in (
        (Kind.EXACT, Reason.DUPLICATE_EXACT, 1.0),
        (Kind.NEAR, Reason.DUPLICATE_NEAR, columns.jaccard),
    ):
        own = lost[(lost["variant"] == number) & (lost["kind"] == kind)]
        places = own["row"] & ((1 << ROW_BITS) - 1)
        keepers = np.stack([own["high"], own["low"]], axis=1)
        judge_duplicates(judgement, reason, places, keepers, jaccard, 1.0 if kind == Kind.EXACT else least)
    return judgement


# -- the steps on a worker ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _StandingMembers:
    """part -> STANDING_ROW of its clustered documents, keyed by a partition of their cluster."""

    store: Store
    settings: Settings
    partitions: int

    def start(self) -> Callable[[Part], Iterator[tuple[np.ndarray, np.ndarray]]]:
        return self._work

    def _work(self, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        columns = _Columns.read(self.store, part)
        for number, variant in enumerate(self.settings.variants):
            if not variant.dedup:
                continue
            chosen = np.flatnonzero(columns.clustered & _before_duplicates(columns, variant).standing)
            rows = np.empty(len(chosen), STANDING_ROW)
            rows["variant"] = number
            rows["dedup"] = sum(1 << Kind[name.upper()] for name in variant.dedup)
            # A document of which paragraph dedup left nothing keeps its cluster only if all members are like it.
            rows["priority"] = np.where(columns.emptied[chosen], _LAST, self.settings.priorities[part.source])
            rows["quality"] = np.nan_to_num(columns.quality[chosen], nan=-1.0)
            rows["group_high"], rows["group_low"] = columns.group[chosen].T
            rows["exact_high"], rows["exact_low"] = columns.exact[chosen].T
            rows["high"], rows["low"] = columns.high[chosen], columns.low[chosen]
            rows["row"] = (part.index << ROW_BITS) + chosen
            yield (rows["group_high"] % np.uint64(self.partitions)).astype(np.int64), rows


def _losers_of(values: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    lost = losers(np.frombuffer(b"".join(values), STANDING_ROW))
    if len(lost):
        yield from packed(lost["row"] >> ROW_BITS, lost)


@dataclass(frozen=True, slots=True)
class _TokensByQuality:
    """(part, losers) -> (variant, bytes of int64 [1 + BINS]: number of the draw, tokens per step of quality)."""

    store: Store
    parts: tuple[Part, ...]
    settings: Settings

    def start(self) -> Callable[[Any], Iterator[tuple[int, bytes]]]:
        return self._work

    def _work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        part = self.parts[element[0]]
        wanted = [n for n, variant in enumerate(self.settings.variants) if part.source in variant.draws]
        if not wanted:
            return
        lost = unpacked(element[1], LOSER, ("variant", "kind", "row"))
        columns = _Columns.read(self.store, part)
        tokens = columns.signals.column("n_tokens").to_numpy().astype(np.int64)
        for number in wanted:
            variant = self.settings.variants[number]
            standing = _before_quality(columns, variant, number, lost, self.settings.min_jaccard).standing
            standing = standing & ~columns.emptied
            histogram = np.zeros(sampling.BINS, np.int64)
            np.add.at(histogram, sampling.quality_bin(columns.quality[standing]), tokens[standing])
            group = variant.groups.index(variant.draws[part.source])
            yield number, np.concatenate([[group], histogram]).tobytes()


def resolve(draw: Draw, histogram: np.ndarray) -> ResolvedDraw:
    """The solution of a draw over int64 [10001] tokens per step of quality."""
    if draw.draw == "pareto":
        shift = 0.0 if draw.keep_rate is None else sampling.solve_shift(histogram, draw.alpha, draw.keep_rate)
        return ResolvedDraw(draw, shift=shift)
    if draw.threshold is not None:
        return ResolvedDraw(draw, threshold=draw.threshold)
    assert draw.keep_rate is not None
    return ResolvedDraw(draw, threshold=sampling.solve_cut(histogram, draw.keep_rate))


@dataclass(frozen=True, slots=True)
class _Decide:
    """(part, losers) and the solutions -> decisions/<variant>/"""

    store: Store
    parts: tuple[Part, ...]
    settings: Settings
    keys: dict[str, str]

    def __call__(self, element: tuple[int, Iterable[bytes]], solutions: dict[int, dict[str, ResolvedDraw]]) -> None:
        part = self.parts[element[0]]
        lost = unpacked(element[1], LOSER, ("variant", "kind", "row"))
        columns = _Columns.read(self.store, part)
        validation = splits(id_bytes(columns.group), self.settings.seed, self.settings.validation)
        for number, variant in enumerate(self.settings.variants):
            judgement = _before_quality(columns, variant, number, lost, self.settings.min_jaccard)
            policy = variant.policies[part.source]
            if part.source in variant.draws:
                solution = solutions[number][variant.draws[part.source]]
                judge_quality(judgement, columns.quality, columns.doc_ids, solution, self.settings.seed, columns.emptied)
            left = np.where(columns.emptied, 0, columns.signals.column("text_bytes").to_numpy())
            judge_length(judgement, left, policy)
            self._publish(part, variant.name, decisions_table(judgement, validation))

    def _publish(self, part: Part, variant: str, table: pa.Table) -> None:
        path = part.decisions(variant)
        self.store.begin(path)
        with self.store.publishing(path) as sink:
            writer = TableWriter(sink, DECISIONS)
            for batch in table.combine_chunks().to_batches():
                writer.write(batch)
            writer.close()
        assert sink.result is not None
        self.store.finish(sink.result, self.keys[variant], rows=part.rows)


class _DecideParts(beam.DoFn):
    def __init__(self, decide: _Decide) -> None:
        self._decide = decide

    def process(self, element: Any, solved: list[tuple[int, dict[str, ResolvedDraw]]]) -> None:
        self._decide(element, dict(solved))


@dataclass(frozen=True, slots=True)
class _Solve:
    """(variant, [histogram bytes]) -> (variant, solution by group), also written to decisions/<variant>/resolved.json."""

    store: Store
    settings: Settings
    keys: dict[str, str]

    def start(self) -> Callable[[Any], Iterator[tuple[int, dict[str, ResolvedDraw]]]]:
        return self._work

    def _work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, dict[str, ResolvedDraw]]]:
        number, values = element
        variant = self.settings.variants[number]
        histograms = np.zeros((len(variant.groups), sampling.BINS), np.int64)
        for value in values:
            if value:
                group, *_ = found = np.frombuffer(value, np.int64)
                histograms[group] += found[1:]
        solved = {
            group: resolve(variant.draw_of(group), histogram)
            for group, histogram in zip(variant.groups, histograms, strict=True)
        }
        told = {
            group: _told(solution, histogram)
            for (group, solution), histogram in zip(solved.items(), histograms, strict=True)
        }
        path = solution_path(variant.name)
        self.store.begin(path)
        self.store.finish(self.store.publish_json(path, told), self.keys[variant.name])
        yield number, solved


def _told(solution: ResolvedDraw, histogram: np.ndarray) -> dict[str, Any]:
    """A solved draw as resolved.json says it; `load_solutions` reads it back."""
    return {
        **solution.draw.model_dump(mode="json"),
        "shift": solution.shift,
        "solved_threshold": solution.threshold,
        "expected_keep_rate": expected_share(solution, histogram),
        "tokens": int(histogram.sum()),
    }


def expected_share(solution: ResolvedDraw, histogram: np.ndarray) -> float | None:
    """The token-weighted share that a solution keeps, in expectation; None where nothing reaches it."""
    total = int(histogram.sum())
    if total == 0:
        return None
    steps = np.arange(sampling.BINS) / 1e4
    kept = solution.probability(steps)
    return math.fsum((kept * histogram).tolist()) / total


# -- wiring -----------------------------------------------------------------------------------------------------------------


def wire(
    pipeline: beam.Pipeline, store: Store, settings: Settings, parts: tuple[Part, ...], keys: dict[str, str]
) -> None:
    """signals/ + clusters/ -> decisions/ of the variants in `settings`"""
    rows = sum(part.rows for part in parts) * len(settings.variants)
    partitions = max(8, math.ceil(rows / _PARTITION_ROWS))
    lost = (
        spread(pipeline, "Parts", parts)
        | "Standing" >> beam.ParDo(Scatter(_StandingMembers(store, settings, partitions)))
        | "ByCluster" >> beam.GroupByKey()
        | "Losers" >> beam.FlatMap(lambda group: _losers_of(group[1]))
    )  # (part, LOSER bytes)
    every = pipeline | "EveryPart" >> beam.Create([(part.index, b"") for part in parts], reshuffle=False)
    judged = (lost, every) | "Flatten" >> beam.Flatten() | "ByPart" >> beam.GroupByKey()  # (part, [LOSER bytes])
    tokens = judged | "TokensByQuality" >> beam.ParDo(Each(_TokensByQuality(store, parts, settings)))
    numbers = range(len(settings.variants))
    empty = pipeline | "EveryVariant" >> beam.Create([(number, b"") for number in numbers], reshuffle=False)
    solutions = (
        (tokens, empty)
        | "AllTokens" >> beam.Flatten()
        | "ByVariant" >> beam.GroupByKey()
        | "Solve" >> beam.ParDo(Each(_Solve(store, settings, keys)))
    )  # (variant, {group: ResolvedDraw})
    judged | "Decide" >> beam.ParDo(
        _DecideParts(_Decide(store, parts, settings, keys)), beam.pvalue.AsList(solutions)
    )
