"""Rules over the signals: families by paper, each rule a signal with a lower or an upper bound.

A rule's name is the reason that a verdict gives. Bounds are inclusive: a document at a bound passes, as in datatrove (FineWeb's
paper drops it). Thresholds are the papers'; a recipe may change single ones by name. The rules, like the papers, are for English:
other languages have other stop words and terminal marks. Line-level cleaning, which C4 also does, belongs to the C4 source.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.errors import UserError


@dataclass(frozen=True, slots=True)
class Rule:
    """Keeps documents with low <= signal <= high."""

    name: str
    signal: str
    low: float | None = None
    high: float | None = None


# Rae et al. 2021 (Gopher), appendix A1.1 and table A1.
GOPHER = (
    Rule("gopher_words", "words", 50, 100_000),
    Rule("gopher_mean_word_length", "mean_word_length", 3, 10),
    Rule("gopher_hash_ratio", "hash_ratio", high=0.1),
    Rule("gopher_ellipsis_ratio", "ellipsis_ratio", high=0.1),
    Rule("gopher_bullet_lines", "bullet_lines", high=0.9),
    Rule("gopher_ellipsis_lines", "ellipsis_lines", high=0.3),
    Rule("gopher_alphabetic_words", "alphabetic_words", low=0.8),
    Rule("gopher_stop_words", "distinct_stop_words", low=2),
    Rule("gopher_duplicate_lines", "duplicate_lines", high=0.30),
    Rule("gopher_duplicate_paragraphs", "duplicate_paragraphs", high=0.30),
    Rule("gopher_duplicate_line_characters", "duplicate_line_characters", high=0.20),
    Rule("gopher_duplicate_paragraph_characters", "duplicate_paragraph_characters", high=0.20),
    Rule("gopher_top_2_gram", "top_2_gram", high=0.20),
    Rule("gopher_top_3_gram", "top_3_gram", high=0.18),
    Rule("gopher_top_4_gram", "top_4_gram", high=0.16),
    Rule("gopher_duplicate_5_grams", "duplicate_5_grams", high=0.15),
    Rule("gopher_duplicate_6_grams", "duplicate_6_grams", high=0.14),
    Rule("gopher_duplicate_7_grams", "duplicate_7_grams", high=0.13),
    Rule("gopher_duplicate_8_grams", "duplicate_8_grams", high=0.12),
    Rule("gopher_duplicate_9_grams", "duplicate_9_grams", high=0.11),
    Rule("gopher_duplicate_10_grams", "duplicate_10_grams", high=0.10),
)
# Raffel et al. 2020 (C4), section 2.2: the rules for whole pages, the list of bad words being the user's: without one no page
# breaks that rule. Sentences are those of lines that C4 would keep.
C4 = (
    Rule("c4_lorem_ipsum", "lorem_ipsum", high=0),
    Rule("c4_curly_bracket", "curly_brackets", high=0),
    Rule("c4_bad_words", "bad_words", high=0),
    Rule("c4_sentences", "c4_sentences", low=3),
)
# Penedo et al. 2024 (FineWeb), section 3.6. Its appendix and datatrove have 0.01 for duplicate lines; datatrove adds a fourth
# rule, at most 0.3 newlines a word.
FINEWEB = (
    Rule("fineweb_terminal_lines", "terminal_lines", low=0.12),
    Rule("fineweb_duplicate_line_characters", "duplicate_line_characters", high=0.1),
    Rule("fineweb_short_lines", "short_lines", high=0.67),
)
# Touvron et al. 2023 (LLaMA), section 2.1: line length and share of alphanumerics; bounds of Chen et al. 2021 (Codex).
CODE = (
    Rule("code_longest_line", "longest_line", high=1000),
    Rule("code_mean_line_length", "mean_line_length", high=100),
    Rule("code_alphanumerics", "alphanumerics", low=0.25),
)

FAMILIES: dict[str, tuple[Rule, ...]] = {"gopher": GOPHER, "c4": C4, "fineweb": FINEWEB, "code": CODE}


def resolve(selection: Mapping[str, Mapping[str, float]]) -> tuple[Rule, ...]:
    """The rules of the chosen families, in their order. {"gopher": {"words.low": 30}} changes one bound.

    Unknown families and bounds are UserErrors that name the nearest known one.
    """
    chosen: list[Rule] = []
    for family, changes in selection.items():
        if family not in FAMILIES:
            raise UserError(f"rules: no family {family!r}{_nearest(family, list(FAMILIES))}")
        rules = {rule.name.removeprefix(f"{family}_"): rule for rule in FAMILIES[family]}
        bounds = [f"{name}.{bound}" for name in rules for bound in ("low", "high")]
        for key, value in changes.items():
            if key not in bounds:
                raise UserError(f"rules.{family}: no threshold {key!r}{_nearest(key, bounds)}")
            name, bound = key.split(".")
            rules[name] = replace(rules[name], low=value) if bound == "low" else replace(rules[name], high=value)
        chosen += rules.values()
    return tuple(chosen)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def judge(signals: pa.Table | pa.RecordBatch, rules: Sequence[Rule]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first failing rule int16 [rows], -1 where all pass; the value and the bound that it broke, float64 [rows])."""
    rows = signals.num_rows
    failed = np.full(rows, -1, np.int16)
    value, bound = np.full(rows, np.nan), np.full(rows, np.nan)
    for index, rule in enumerate(rules):
        column = signals.column(rule.signal).to_numpy()
        # Fractions are stored as float32: the bound is compared as the same float32, so that a document at it passes.
        for limit, breaks in ((rule.low, np.less), (rule.high, np.greater)):
            if limit is not None:
                at = np.float32(limit) if column.dtype == np.float32 else limit
                fails = breaks(column, at) & (failed < 0)
                failed[fails], value[fails], bound[fails] = index, column[fails].astype(np.float64), limit
    return failed, value, bound
