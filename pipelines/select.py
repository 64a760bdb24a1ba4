"""select: signals + clusters -> one verdict a document for every variant. Only narrow columns move.

    every part  -> members of clusters that still stand          -> shuffle by cluster -> losers, back to their parts
    part+losers -> tokens per step of quality, per draw           -> the variant's draws (resolved.json)
    part+losers + draws                                           -> decisions/<variant>/

With a mixture, which is solved over what all other steps keep (pipelines/mixture.py):

    part+losers + draws        -> tokens per bin of the mixture's draw  -> by source the bin where its tokens are reached
    part+losers + draws + bins -> the documents of that bin             -> the variant's bounds (mixture.json)

A keep rate is the share of tokens that a draw keeps of the documents that reach it, over the whole run: an exact histogram
(integers per 1e-4 of quality) is summed and solved once, so no order of summing can move it.
Bytes that cross a shuffle: 72 a standing member of a cluster and variant, 32 a loser, 80 KB a part and draw; with a mixture
32 KB a part and variant, and 16 a document of the deciding bin, one in 4,096 (tests/invariants/test_shuffle_bytes.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from pipelines.beam_parts import Each, Scatter, naming, packed, spread
from pipelines.dedup.keepers import STANDING_ROW, losers
from pipelines.parts import ROW_BITS, Part
from pipelines.select_parts import Decide, DecidingDocuments, Losers, StandingMembers, TokensByDraw, TokensByQuality
from pipelines.select_settings import Settings
from pipelines.select_solve import FindBins, SolveDraws, SolveMixture
from pipelines.store import Store

_PARTITION_ROWS = 1 << 20


def _losers_of(values: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    lost = losers(np.frombuffer(b"".join(values), STANDING_ROW))
    if len(lost):
        yield from packed(lost["row"] >> ROW_BITS, lost)


class _With(beam.DoFn):
    """Calls `work` on every element with what was solved: mappings by the variant's number."""

    def __init__(self, work: Callable[..., Iterable[Any] | None]) -> None:
        self._work = work

    def process(self, element: Any, *solved: list[tuple[int, Any]]) -> Iterator[Any]:
        with naming(element):
            yield from self._work(element, *map(dict, solved)) or ()


def wire(
    pipeline: beam.Pipeline, store: Store, settings: Settings, parts: tuple[Part, ...], keys: dict[str, str]
) -> None:
    """signals/ + clusters/ -> decisions/ of the variants in `settings`"""
    rows = sum(part.rows for part in parts) * len(settings.variants)
    partitions = max(8, math.ceil(rows / _PARTITION_ROWS))
    lost = (
        spread(pipeline, "Parts", parts)
        | "Standing" >> beam.ParDo(Scatter(StandingMembers(store, settings, partitions)))
        | "ByCluster" >> beam.GroupByKey()
        | "Losers" >> beam.FlatMap(lambda group: _losers_of(group[1]))
    )  # (part, LOSER bytes)
    every = pipeline | "EveryPart" >> beam.Create([(part.index, b"") for part in parts], reshuffle=False)
    judged = (lost, every) | "Flatten" >> beam.Flatten() | "ByPart" >> beam.GroupByKey()  # (part, [LOSER bytes])
    of = Losers(store, parts, settings)
    # Every variant is solved, also where none draws by quality.
    numbers = range(len(settings.variants))
    empty = pipeline | "EveryVariant" >> beam.Create([(number, b"") for number in numbers], reshuffle=False)
    tokens = judged | "TokensByQuality" >> beam.ParDo(Each(TokensByQuality(of)))
    draws = (
        (tokens, empty)
        | "AllTokens" >> beam.Flatten()
        | "ByVariant" >> beam.GroupByKey()
        | "Solve" >> beam.ParDo(Each(SolveDraws(store, settings, keys)))
    )  # (variant, {group: ResolvedDraw})
    solved = [beam.pvalue.AsList(draws)]
    if settings.wanted:
        solved.append(beam.pvalue.AsList(_mixture(judged, of, solved[0], keys)))
    judged | "Decide" >> beam.ParDo(_With(Decide(of, keys)), *solved)


def _mixture(judged: beam.PCollection, of: Losers, draws: beam.pvalue.AsList, keys: dict[str, str]) -> beam.PCollection:
    """(part, [LOSER bytes]) -> (variant, {source: bound})

    No Flatten here: behind transforms with several side inputs the local runner waits for it for ever ("watermark-pending
    bundles", apache/beam 26190). So every part sends something for every variant.
    """
    bins = (
        judged
        | "TokensByDraw" >> beam.ParDo(_With(TokensByDraw(of)), draws)
        | "ByMixture" >> beam.GroupByKey()
        | "FindBins" >> beam.ParDo(Each(FindBins(of.settings)))
    )  # (variant, {source: Deciding})
    found = beam.pvalue.AsList(bins)
    return (
        judged
        | "DecidingDocuments" >> beam.ParDo(_With(DecidingDocuments(of)), draws, found)
        | "ByDecidingBin" >> beam.GroupByKey()
        | "SolveMixture" >> beam.ParDo(_With(SolveMixture(of.store, of.settings, keys)), found)
    )
