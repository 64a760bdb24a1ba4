"""The verdicts: pure functions over a part's narrow columns, in the order of judgement.

    removal, language, rules, decontamination, exact, near, quality, paragraphs, mixture     (schema.Stage)

A verdict names its first reason, the number that was judged and what it was held against, so that `explain` has an answer
for every document. A document that has a verdict is never looked at again; -1 stands for one that still stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.against import Copies
from pipelines.cluster_parts import id_array
from pipelines.recipe import Draw, Languages, Policy
from pipelines.schema import DECISIONS, KEEP, TRAIN, VALIDATION, Reason, stage_of
from quality import rules, sampling

STANDING = -1
PURPOSE = "quality"  # of the hash that a quality draw goes by
_DUPLICATES = (Reason.DUPLICATE_EXACT, Reason.DUPLICATE_NEAR)


@dataclass(slots=True)
class Judgement:
    """Verdicts in the making, one row a document. `code` indexes `reasons`, or is STANDING."""

    rows: int
    reasons: list[str] = field(default_factory=list)
    code: np.ndarray = field(init=False)  # int16 [rows]
    value: np.ndarray = field(init=False)  # float64 [rows], nan where there is no number
    threshold: np.ndarray = field(init=False)  # float64 [rows]
    keeper: np.ndarray = field(init=False)  # uint64 [rows, 2], the doc_id that stays, for duplicates
    keeper_run: np.ndarray = field(init=False)  # object [rows], the name of the run that has it, None for this one

    def __post_init__(self) -> None:
        self.code = np.full(self.rows, STANDING, np.int16)
        self.value = np.full(self.rows, np.nan)
        self.threshold = np.full(self.rows, np.nan)
        self.keeper = np.zeros((self.rows, 2), np.uint64)
        self.keeper_run = np.full(self.rows, None, object)

    @property
    def standing(self) -> np.ndarray:
        """bool [rows]: without a verdict so far."""
        return self.code == STANDING

    def drop(
        self, fails: np.ndarray, reason: str, value: np.ndarray, threshold: np.ndarray | float
    ) -> np.ndarray:
        """Gives `reason` to the standing documents that fail; returns bool [rows] of those. value, threshold: [rows]."""
        fails = fails & self.standing
        if fails.any():
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.code[fails] = self.reasons.index(reason)
            self.value[fails] = np.broadcast_to(value, self.rows)[fails]
            self.threshold[fails] = np.broadcast_to(threshold, self.rows)[fails]
        return fails


Bounds = Mapping[str, tuple[float, float]]  # language -> the highest perplexity of the head, and of the middle


def judge_removal(judgement: Judgement, removed: np.ndarray) -> None:
    """The first step: documents that are taken back (bool [rows]) get no other verdict, and are never a keeper."""
    nothing = np.full(judgement.rows, np.nan)
    judgement.drop(removed, Reason.REMOVED, nothing, nothing)


def judge_text(judgement: Judgement, signals: pa.Table, policy: Policy, emptied: np.ndarray, bounds: Bounds) -> None:
    """The steps that look at one document alone and come before duplicates: language, rules, perplexity, overlap with
    evaluation sets.

    emptied: bool [rows], documents of which paragraph dedup left nothing. There is no text to judge: they are copies, or in
    the end too short.
    """
    if isinstance(policy.languages, Languages):
        labels = signals.column("language").to_numpy(zero_copy_only=False)
        score = signals.column("language_score").to_numpy().astype(np.float64)
        known = np.isin(labels.astype(str), policy.languages.keep)
        nothing = np.full(judgement.rows, np.nan)
        judgement.drop(~known & ~emptied, Reason.LANGUAGE, score, nothing)
        low = ~emptied & (score < np.float64(np.float32(policy.languages.min_score)))
        judgement.drop(low, Reason.LANGUAGE_SCORE, score, policy.languages.min_score)
    chosen = resolve_rules(policy)
    if chosen:
        failed, value, threshold = rules.judge(signals, chosen)
        for index in np.unique(failed[failed >= 0]):
            judgement.drop((failed == index) & ~emptied, chosen[index].name, value, threshold)
    if policy.perplexity in ("head", "middle"):
        labels = signals.column("language").to_numpy(zero_copy_only=False)
        found = signals.column("perplexity").to_numpy().astype(np.float64)
        most = np.array([bounds.get(label, (np.inf, np.inf))[policy.perplexity == "middle"] for label in labels], np.float64)
        judgement.drop(found > np.float32(most).astype(np.float64), Reason.PERPLEXITY, found, most)  # null is never above
    if policy.decontaminate:
        shared = signals.column("contamination").to_numpy()
        judgement.drop(shared >= 1, Reason.CONTAMINATED, shared.astype(np.float64), 1.0)


def resolve_rules(policy: Policy) -> tuple[rules.Rule, ...]:
    """The rules that a policy names, with its thresholds. Unknown names are UserErrors."""
    if policy.rules is None or policy.rules == "none":
        return ()
    if isinstance(policy.rules, dict):
        return rules.resolve(policy.rules)
    return rules.resolve({family: {} for family in policy.rules})


def judge_duplicates(
    judgement: Judgement, reason: Reason, places: np.ndarray, keepers: np.ndarray, jaccard: np.ndarray | float, least: float
) -> None:
    """Drops the documents at `places` (int64 [n]) in favour of `keepers` (uint64 [n, 2], doc_ids); jaccard: [rows]."""
    lost = np.zeros(judgement.rows, bool)
    lost[places] = True
    taken = judgement.drop(lost, reason, np.asarray(jaccard, np.float64), least)[places]
    judgement.keeper[places[taken]] = keepers[taken]


def judge_against(judgement: Judgement, reason: Reason, copies: Copies, least: float) -> None:
    """Drops the documents that are copies of what another run keeps."""
    taken = judgement.drop(copies.found, reason, copies.jaccard, least)
    judgement.keeper[taken], judgement.keeper_run[taken] = copies.keepers[taken], copies.runs[taken]


@dataclass(frozen=True, slots=True)
class ResolvedDraw:
    """A quality draw with its solution: the shift of the Pareto law, or the threshold of the cut."""

    draw: Draw
    shift: float = 0.0
    threshold: float = 0.0

    def probability(self, quality: np.ndarray) -> np.ndarray:
        """Of being kept, float64 [n], by quality (float64 [n], in steps of 1e-4)."""
        if self.draw.draw == "cut":
            return (quality >= self.threshold).astype(np.float64)
        return sampling.keep_probability(quality, self.draw.alpha, self.shift)

    def required(self, doc_ids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(uniform draws [rows], the lowest quality that each draw would have kept [rows])."""
        if self.draw.draw == "cut":
            return np.zeros(len(doc_ids)), np.full(len(doc_ids), self.threshold)
        uniform = sampling.uniform(doc_ids, seed, PURPOSE)
        with np.errstate(divide="ignore"):
            shifted = np.clip(2.0 - uniform ** (-1.0 / self.draw.alpha), 0.0, 1.0)
            logit = np.log(shifted) - np.log1p(-shifted) - self.shift
        return uniform, 1.0 / (1.0 + np.exp(-logit))


def judge_quality(
    judgement: Judgement,
    quality: np.ndarray,
    doc_ids: np.ndarray,
    resolved: ResolvedDraw,
    seed: int,
    emptied: np.ndarray,
) -> None:
    """GLaM's draw or LLaMA's cut over quality (float32 [rows], in steps of 1e-4); doc_ids: uint8 [rows, 16]."""
    exact = np.rint(quality.astype(np.float64) * 1e4) / 1e4
    uniform, required = resolved.required(doc_ids, seed)
    lost = (uniform >= resolved.probability(exact)) & ~emptied
    judgement.drop(lost, Reason.QUALITY_CUT if resolved.draw.draw == "cut" else Reason.QUALITY_DRAW, exact, required)


def judge_length(judgement: Judgement, text_bytes: np.ndarray, policy: Policy) -> None:
    """Documents of which paragraph dedup left too little. text_bytes: int64 [rows] of the judged text."""
    if policy.min_bytes:
        judgement.drop(text_bytes < policy.min_bytes, Reason.TOO_SHORT, text_bytes.astype(np.float64), policy.min_bytes)


def judge_mixture(judgement: Judgement, draws: np.ndarray, bound: float, validation: np.ndarray) -> None:
    """Training documents that the mixture has no room for: their draw (float64 [rows]) is not below the bound of their source.

    validation: bool [rows]. What is held out is the same with any mixture.
    """
    judgement.drop(~validation & (draws >= bound), Reason.MIXTURE, draws, bound)


def splits(groups: np.ndarray, seed: int, validation: float) -> np.ndarray:
    """bool [rows], true for validation: a hash of the document's cluster (uint8 [rows, 16]), the same in all variants."""
    return sampling.uniform(groups, seed, "split") < validation


def decisions_table(judgement: Judgement, validation: np.ndarray) -> pa.Table:
    """The DECISIONS rows of a finished judgement."""
    names = pa.array([KEEP, *map(str, judgement.reasons)], pa.string())
    stages = pa.array([None, *(str(stage_of(reason)) for reason in judgement.reasons)], pa.string())
    code = pa.array(judgement.code.astype(np.int32) + 1)
    duplicate = np.array([False, *(reason in _DUPLICATES for reason in judgement.reasons)])[judgement.code + 1]
    columns = [
        names.take(code),
        stages.take(code),
        pa.array(judgement.value, pa.float64(), from_pandas=True),
        pa.array(judgement.threshold, pa.float64(), from_pandas=True),
        id_array(judgement.keeper[:, 0], judgement.keeper[:, 1], duplicate),
        pa.array(judgement.keeper_run, pa.string()),
        pa.array([TRAIN, VALIDATION], pa.string()).take(pa.array(validation.astype(np.int32))),
    ]
    return pa.Table.from_arrays(columns, schema=DECISIONS)
