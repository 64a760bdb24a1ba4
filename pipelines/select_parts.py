"""The parts' side of select: what a part's narrow columns lend to each shuffle, and the verdicts that are written row for row.

A verdict is worked out anew from the columns for every step that needs it: reading them again is cheaper than sending them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import against, mixture, removal
from pipelines.beam_parts import unpacked
from pipelines.cluster_parts import id_bytes, ids_or, part_ids
from pipelines.dedup.keepers import LOSER, STANDING_ROW, Kind
from pipelines.judge import (
    Judgement,
    ResolvedDraw,
    decisions_table,
    judge_against,
    judge_duplicates,
    judge_length,
    judge_mixture,
    judge_quality,
    judge_removal,
    judge_text,
    splits,
)
from pipelines.parts import ROW_BITS, Part
from pipelines.schema import DECISIONS, Reason
from pipelines.select_settings import Settings
from pipelines.store import Store, TableWriter, read_columns
from quality import sampling
from quality.signals import SIGNAL_FIELDS

_LAST = np.iinfo(np.int32).min
_SIGNALS = ["language", "language_score", "perplexity", "quality", "contamination", "n_tokens", "text_bytes"]
_SIGNALS += [field.name for field in SIGNAL_FIELDS]

PartLosers = tuple[int, Iterable[bytes]]  # (index of a part, LOSER bytes)
Draws = dict[int, dict[str, ResolvedDraw]]  # variant's number -> group -> its solved draw
Bins = dict[int, dict[str, mixture.Deciding]]  # variant's number -> source -> where its tokens are reached
Bounds = dict[int, dict[str, float]]  # variant's number -> source -> the bound of the draw


@dataclass(frozen=True, slots=True)
class Columns:
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
    removed: np.ndarray  # bool [rows]: taken back
    copies: tuple[against.Copies, against.Copies] | None  # exact and near copies of what other runs keep

    @staticmethod
    def read(store: Store, part: Part) -> Columns:
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
        removed, copies = removal.removed(store, part), against.copies(store, part)
        return Columns(part, signals, high, low, exact, group, clustered, jaccard, emptied, removed, copies)

    @property
    def quality(self) -> np.ndarray:
        return np.asarray(self.signals.column("quality").to_numpy(), np.float32)

    @property
    def tokens(self) -> np.ndarray:
        """int64 [rows], without the end-of-document token."""
        return np.asarray(self.signals.column("n_tokens").to_numpy(), np.int64)

    @property
    def doc_ids(self) -> np.ndarray:
        return id_bytes(np.stack([self.high, self.low], axis=1))

    def validation(self, settings: Settings) -> np.ndarray:
        """bool [rows]: held out."""
        return splits(id_bytes(self.group), settings.seed, settings.validation)


# -- one part's judgement, up to a step ---------------------------------------------------------------------------------------


def _before_duplicates(columns: Columns, settings: Settings, number: int) -> Judgement:
    judgement = Judgement(columns.part.rows)
    judge_removal(judgement, columns.removed)
    policy = settings.variants[number].policies[columns.part.source]
    judge_text(judgement, columns.signals, policy, columns.emptied, settings.bounds)
    return judgement


def _before_quality(columns: Columns, settings: Settings, number: int, lost: np.ndarray) -> Judgement:
    """Documents of other runs come before those of this one, exact copies before near ones: as in `losers`."""
    judgement = _before_duplicates(columns, settings, number)
    for kind, reason, jaccard, least in (
        (Kind.EXACT, Reason.DUPLICATE_EXACT, 1.0, 1.0),
        (Kind.NEAR, Reason.DUPLICATE_NEAR, columns.jaccard, settings.min_jaccards[columns.part.source]),
    ):
        if columns.copies is not None and kind.name.lower() in settings.variants[number].dedup:
            judge_against(judgement, reason, columns.copies[kind], least)
        own = lost[(lost["variant"] == number) & (lost["kind"] == kind)]
        places = own["row"] & ((1 << ROW_BITS) - 1)
        keepers = np.stack([own["high"], own["low"]], axis=1)
        judge_duplicates(judgement, reason, places, keepers, jaccard, least)
    return judgement


def _before_mixture(columns: Columns, settings: Settings, number: int, lost: np.ndarray, draws: Draws) -> Judgement:
    judgement, variant = _before_quality(columns, settings, number, lost), settings.variants[number]
    source = columns.part.source
    if source in variant.draws:
        solution = draws[number][variant.draws[source]]
        judge_quality(judgement, columns.quality, columns.doc_ids, solution, settings.seed, columns.emptied)
    left = np.where(columns.emptied, 0, columns.signals.column("text_bytes").to_numpy())
    judge_length(judgement, left, variant.policies[source])
    return judgement


# -- the steps on a worker ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StandingMembers:
    """part -> STANDING_ROW of its clustered documents, keyed by a partition of their cluster."""

    store: Store
    settings: Settings
    partitions: int

    def start(self) -> Callable[[Part], Iterator[tuple[np.ndarray, np.ndarray]]]:
        return self._work

    def _work(self, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        columns = Columns.read(self.store, part)
        for number, variant in enumerate(self.settings.variants):
            if not variant.dedup:
                continue
            chosen = np.flatnonzero(columns.clustered & _before_duplicates(columns, self.settings, number).standing)
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


@dataclass(frozen=True, slots=True)
class Losers:
    """What the steps after the first shuffle share: the parts, and which of their documents lost against a copy."""

    store: Store
    parts: tuple[Part, ...]
    settings: Settings

    def read(self, element: PartLosers) -> tuple[Columns, np.ndarray]:
        """(columns of the part, LOSER rows in a fixed order)."""
        lost = unpacked(element[1], LOSER, ("variant", "kind", "row"))
        return Columns.read(self.store, self.parts[element[0]]), lost


@dataclass(frozen=True, slots=True)
class TokensByQuality:
    """(part, losers) -> (variant, bytes of int64 [1 + BINS]: number of the draw, tokens per step of quality)."""

    of: Losers

    def start(self) -> Callable[[Any], Iterator[tuple[int, bytes]]]:
        return self._work

    def _work(self, element: PartLosers) -> Iterator[tuple[int, bytes]]:
        settings, source = self.of.settings, self.of.parts[element[0]].source
        wanted = [n for n, variant in enumerate(settings.variants) if source in variant.draws]
        if not wanted:
            return
        columns, lost = self.of.read(element)
        for number in wanted:
            variant = settings.variants[number]
            standing = _before_quality(columns, settings, number, lost).standing & ~columns.emptied
            histogram = np.zeros(sampling.BINS, np.int64)
            np.add.at(histogram, sampling.quality_bin(columns.quality[standing]), columns.tokens[standing])
            group = variant.groups.index(variant.draws[source])
            yield number, np.concatenate([[group], histogram]).tobytes()


@dataclass(frozen=True, slots=True)
class TokensByDraw:
    """(part, losers), draws -> (variant, bytes of int64 [1 + BINS]: number of the source, tokens per bin of the mixture's draw)."""

    of: Losers

    def __call__(self, element: PartLosers, draws: Draws) -> Iterator[tuple[int, bytes]]:
        settings = self.of.settings
        columns, lost = self.of.read(element)
        training = ~columns.validation(settings)
        drawn = sampling.uniform(columns.doc_ids, settings.seed, mixture.PURPOSE)
        for number in range(len(settings.variants)):
            kept = _before_mixture(columns, settings, number, lost, draws).standing & training
            histogram = mixture.histogram(drawn[kept], columns.tokens[kept] + 1)
            yield number, np.concatenate([[settings.mixed.index(columns.part.source)], histogram]).tobytes()


@dataclass(frozen=True, slots=True)
class DecidingDocuments:
    """(part, losers), draws, bins -> (variant, DRAWN bytes of the documents in the bin where the source's tokens are reached).

    No bytes where nothing is cut; every variant gets a value, so that it is solved.
    """

    of: Losers

    def __call__(self, element: PartLosers, draws: Draws, bins: Bins) -> Iterator[tuple[int, bytes]]:
        settings, source = self.of.settings, self.of.parts[element[0]].source
        deciding = {number: found[source].bin for number, found in sorted(bins.items())}
        if all(place is None for place in deciding.values()):
            yield from ((number, b"") for number in deciding)
            return
        columns, lost = self.of.read(element)
        training = ~columns.validation(settings)
        drawn = sampling.uniform(columns.doc_ids, settings.seed, mixture.PURPOSE)
        for number, place in deciding.items():
            if place is None:
                yield number, b""
                continue
            chosen = (mixture.bin_of(drawn) == place) & training
            chosen &= _before_mixture(columns, settings, number, lost, draws).standing
            rows = np.empty(int(chosen.sum()), mixture.DRAWN)
            rows["draw"] = (drawn[chosen] * 2**mixture.DRAW_BITS).astype(np.uint64)
            rows["tokens"] = columns.tokens[chosen] + 1
            rows["source"] = settings.mixed.index(source)
            yield number, rows.tobytes()


@dataclass(frozen=True, slots=True)
class Decide:
    """(part, losers), draws and bounds of the mixture -> decisions/<variant>/"""

    of: Losers
    keys: dict[str, str]

    def __call__(self, element: PartLosers, draws: Draws, bounds: Bounds | None = None) -> None:
        settings, part = self.of.settings, self.of.parts[element[0]]
        missing = [
            (number, variant)
            for number, variant in enumerate(settings.variants)
            if not self.of.store.is_finished(part.decisions(variant.name), self.keys[variant.name])
        ]
        if not missing:
            return
        columns, lost = self.of.read(element)
        validation = columns.validation(settings)
        for number, variant in missing:
            judgement = _before_mixture(columns, settings, number, lost, draws)
            if bounds is not None:
                drawn = sampling.uniform(columns.doc_ids, settings.seed, mixture.PURPOSE)
                judge_mixture(judgement, drawn, bounds[number][columns.part.source], validation)
            self._publish(columns.part, variant.name, decisions_table(judgement, validation))

    def _publish(self, part: Part, variant: str, table: pa.Table) -> None:
        store, path = self.of.store, part.decisions(variant)
        store.begin(path)
        with store.publishing(path) as sink:
            writer = TableWriter(sink, DECISIONS)
            for batch in table.combine_chunks().to_batches():
                writer.write(batch)
            writer.close()
        assert sink.result is not None
        counted = against.counted(table)
        told = {against.NAMED: counted} if counted else {}
        store.finish(sink.result, self.keys[variant], rows=part.rows, **told)
