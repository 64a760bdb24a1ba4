"""What a comparison may say: one verdict of five, its cause where there is proof of one, and the sentence a reader sees.

    better       the interval (95 %) of the gap lies above zero: the first arm needs fewer bits per byte
    worse        it lies below zero
    equivalent   the sign is open, but two one-sided tests (Schuirmann 1987) show the gap to lie within MARGIN on both sides
    open         neither: the runs do not tell
    too few      fewer than MIN_SEEDS paired seeds, whatever the numbers

A gap can be clear of zero and yet within the margin; the sign is the verdict then, and the sentence adds that it is a small one.

The cause is quality only where three things hold: the variants differ in the quality draw and in nothing else; the gap is clear of
zero; and so is, on the same side, the gap of the first arm over *matched random* (as many tokens per source and length decile,
drawn at random), since that control has the filtered pool's choice of sources without its choice of documents.

Single domains stand beside the primary endpoint with simultaneous intervals: with D domains each one is taken at 1 - .05 / D, so
that all cover at once with at least 95 %, however the domains depend on each other (Bonferroni's inequality; Dunn 1961).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from train.gaps import Cells, Estimate, estimate

LEVEL = 0.95
MARGIN = 0.02  # bits per byte
MIN_SEEDS = 5  # what the controls run with; the exact sign-flip p of 5 seeds cannot go below 1/16
QUALITY = "quality"  # the step whose worth the primary contrast measures
ANOTHER_RUN = "another run"  # the step between arms of two runs


class Verdict(StrEnum):
    """The five things that a comparison can find; the first two are said of the first arm."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    OPEN = "not resolved"
    TOO_FEW = "too few runs for a verdict"


@dataclass(frozen=True)
class Finding:
    """A verdict on one gap. `low` and `high` (bits per byte) are infinite where a variance is unknown: one seed, one cluster."""

    verdict: Verdict
    estimate: Estimate
    level: float
    low: float
    high: float
    equivalence_p: float

    @property
    def within_margin(self) -> bool:
        return self.equivalence_p <= 1 - self.level


@dataclass(frozen=True)
class Contrast:
    """The finding on the primary endpoint with what it may be put down to, and the findings on every domain."""

    primary: Finding
    domains: dict[str, Finding]
    steps: tuple[str, ...]
    because_of_quality: bool
    sentence: str


def equivalence_p(gap: Estimate, margin: float = MARGIN) -> float:
    """The larger p of the two one-sided tests that the true gap is at most -margin, and at least +margin (Schuirmann 1987,
    "A comparison of the two one-sided tests procedure and the power approach for assessing the equivalence of average
    bioavailability")."""
    opposite = replace(gap, gap=-gap.gap)  # the arms exchanged
    return max(gap.above_p(-margin), opposite.above_p(-margin))


def decide(gap: Estimate, level: float = LEVEL) -> Finding:
    """The verdict on one gap; each of the two one-sided tests runs at 1 - level."""
    low, high = gap.interval(level)
    p = equivalence_p(gap)
    if gap.seeds < MIN_SEEDS:
        verdict = Verdict.TOO_FEW
    elif low > 0:
        verdict = Verdict.BETTER
    elif high < 0:
        verdict = Verdict.WORSE
    else:
        verdict = Verdict.EQUIVALENT if p <= 1 - level else Verdict.OPEN
    return Finding(verdict, gap, level, low, high, p)


def by_domain(cells: Cells) -> dict[str, Finding]:
    """Each domain's finding; the intervals of all domains hold at once with at least LEVEL."""
    level = 1 - (1 - LEVEL) / len(cells.domain_names)
    return {name: decide(estimate(cells, [name]), level) for name in cells.domain_names}


def contrast(
    cells: Cells,
    endpoint: Sequence[str],
    arms: tuple[str, str],
    steps: Sequence[str],
    matched: Cells | None = None,
) -> Contrast:
    """Judge two arms.

    Args:
        cells: first arm against second, as `gaps.tabulate` pairs them.
        endpoint: the domains of the primary endpoint, written in the recipe before the first run.
        arms: what the sentence calls the two.
        steps: the steps in which the two variants differ ("quality", "language", ...); none for an A/A test.
        matched: first arm against matched random, where that control was run.

    Raises:
        UserError: an endpoint that names no domain or an unknown one (of `cells` or `matched`), too many seeds.
    """
    primary = decide(estimate(cells, endpoint))
    control = None if matched is None else decide(estimate(matched, endpoint))
    because = (
        tuple(steps) == (QUALITY,)
        and primary.verdict in (Verdict.BETTER, Verdict.WORSE)
        and control is not None
        and control.verdict == primary.verdict
    )
    parts = [_said(primary, arms), *_numbers(primary), *_caveats(primary, steps, control, because)]
    return Contrast(primary, by_domain(cells), tuple(steps), because, "; ".join(parts))


def _said(finding: Finding, arms: tuple[str, str]) -> str:
    first, second = arms
    match finding.verdict:
        case Verdict.BETTER | Verdict.WORSE:
            small = f", by less than {MARGIN:g} bits per byte" if finding.within_margin else ""
            return f"{first} {finding.verdict} than {second}{small}"
        case Verdict.EQUIVALENT:
            return f"{first} and {second} equivalent within {MARGIN:g} bits per byte"
        case Verdict.OPEN:
            return f"{first} against {second} not resolved"
        case Verdict.TOO_FEW:
            return f"{finding.verdict}: {finding.estimate.seeds} of at least {MIN_SEEDS} paired seeds"


def _numbers(finding: Finding) -> list[str]:
    gap = finding.estimate
    if gap.seeds == 1:
        return [f"gap {gap.gap:+.4f} bits per byte, no interval from one seed"]
    return [f"gap {gap.gap:+.4f} bits per byte, {_interval(finding)}", f"{gap.seeds} seeds, sign-flip p {gap.flip_p():.4g}"]


def _interval(finding: Finding) -> str:
    if finding.low == -float("inf"):
        return "no interval: a domain has one cluster of documents only"
    return f"{finding.level * 100:g} % interval {finding.low:+.4f} to {finding.high:+.4f}"


def _caveats(finding: Finding, steps: Sequence[str], control: Finding | None, because: bool) -> list[str]:
    said = []
    if len(steps) > 1:
        said.append(f"the variants differ in {len(steps)} steps ({', '.join(steps)}), so that none can be named as the cause")
    if ANOTHER_RUN in steps:
        said.append("the variants are of two runs, which may differ in more than one step, so that none can be named as the cause")
    if finding.verdict not in (Verdict.BETTER, Verdict.WORSE) or tuple(steps) != (QUALITY,):
        return said
    if control is None:
        return ["not shown to be because of quality: no run on matched random documents"]
    over = f"gap over matched random documents {control.estimate.gap:+.4f}, {_interval(control)}"
    if because:
        return [f"because of quality: {over}"]
    if control.verdict == Verdict.TOO_FEW:
        few = f"{control.estimate.seeds} of at least {MIN_SEEDS} paired seeds of matched random documents"
        return [f"not shown to be because of quality: {few}"]
    return [f"not shown to be because of quality: {over}"]
