"""What a comparison runs: arms, the contrasts between them, and the training runs in the order in which they are worth most.

A run is an arm with a seed; the seed fixes initialisation, order and jitter, and is paired over arms. Runs go by seed, and within a
seed by the rank of the contrast that needs them, so that whatever stops a comparison leaves whole pairs: a smaller valid result.
A budget leaves out whole contrasts, the last ranks first.

| contrast           | rank | first           | second         | seeds | what it asks                                              |
|--------------------|------|-----------------|----------------|-------|-----------------------------------------------------------|
| primary            | 0    | first arm       | second arm     | all   | is the filter worth anything?                             |
| matched            | 1    | first arm       | matched        | 5     | is it the choice of documents?                            |
| sources            | 1    | matched         | second arm     | 5     | is it the choice of sources and lengths?                  |
| aa                 | 2    | random          | second arm     | 5     | a gap where there is none? of repeated pools: the price   |
| cut                | 3    | first arm       | cut            | 5     | does the draw gain over a hard cut?                       |
| second             | 4    | 2nd classifier  | second arm     | 5     | does a classifier of other positives do it too?           |
| positives          | 4    | first arm       | 2nd classifier | 5     | how much hangs on the positives?                          |
| glam               | 5    | first arm, 42 % | second, 42 %   | 5     | is it seen beside curated text, as GLaM has it?           |
| sweep_N            | 6    | first arm / N   | second arm     | 3     | is a smaller pool, repeated, still better?                |
| sweep_N_matched    | 6    | first arm / N   | matched / N    | 3     | at equal repetition, is it the choice of documents?       |
| ladder_VARIANT     | 7    | VARIANT         | the one before | 3     | what does each step of the pipeline give?                 |
| rate_half, _twice  | 8    | first arm       | second arm     | 2     | does the gap hold at another learning rate?               |
| doubled            | 9    | first arm       | second arm     | 3     | does it hold at twice the tokens?                         |
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipelines.errors import UserError
from pipelines.recipe_compare import Compare
from train.compare.pool_files import GLAM, WEB_ONLY

CONTROL_SEEDS, SWEEP_SEEDS, RATE_SEEDS = 5, 3, 2
SWEEP = "sweep_"  # how its contrasts' names begin
PILOT_SEED = 0  # of no other run
MOST_MORE = 3  # rates that a pilot tries beyond those of the recipe


@dataclass(frozen=True, slots=True)
class Arm:
    """A pool and how it is trained on; times are factors of the comparison's rate and tokens. redrawn: every seed has a pool of its
    own, drawn anew."""

    name: str
    pool: str
    blend: str = WEB_ONLY
    rate_times: float = 1.0
    tokens_times: int = 1
    redrawn: bool = False

    def pool_of(self, seed: int) -> str:
        """The pool of the run with this seed."""
        return f"{self.pool}_draw{seed}" if self.redrawn else self.pool


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two arms, and the question that they answer. `steps`: in which the variants behind them differ; none for a control."""

    name: str
    rank: int
    first: Arm
    second: Arm
    seeds: int
    question: str
    steps: tuple[str, ...] = ()

    @property
    def estimand(self) -> str:
        """Of which text the gap tells what the arms' documents are worth."""
        return "GLaM's mixture" if self.first.blend == GLAM else "web only"


@dataclass(frozen=True, slots=True)
class Job:
    """One training run."""

    arm: Arm
    seed: int
    rate: float
    tokens: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-s{self.seed}"


def arm_name(given: str) -> str:
    """What an arm of the recipe, VARIANT or RUN:VARIANT, is called: `other_VARIANT` where it is another run's."""
    run, colon, variant = given.rpartition(":")
    return f"other_{variant}" if colon and run else variant


def contrasts(settings: Compare, steps: dict[str, tuple[str, ...]]) -> list[Contrast]:
    """All contrasts that the recipe asks for. steps: by contrast's name, where two variants differ in more than the draw.

    Raises UserError where a variant is called as an arm is that is made of another.
    """
    first, second = (Arm(arm_name(given), arm_name(given)) for given in settings.arms)
    wanted = set(settings.controls)
    few, some, two = (min(settings.seeds, most) for most in (CONTROL_SEEDS, SWEEP_SEEDS, RATE_SEEDS))
    said = f"{first.name} against {second.name}"
    found = [Contrast("primary", 0, first, second, settings.seeds, f"What is the filter worth: {said}?", steps["primary"])]
    matched = Arm("matched", "matched", redrawn=True)
    if "matched" in wanted:
        found += [
            Contrast("matched", 1, first, matched, few, "Is it the choice of documents, at equal sources and lengths?"),
            Contrast("sources", 1, matched, second, few, "Is it the choice of sources and lengths?"),
        ]
    if "random" in wanted:
        question = (
            "Is a difference found where there is none: a random subset of the same size? Where runs go through it more than once: "
            "what does repeating cost?"
        )
        found.append(Contrast("aa", 2, Arm("random", "random", redrawn=True), second, few, question))
    if "cut" in wanted:
        question = "Does GLaM's draw gain over a hard cut at the same keep rate?"
        found.append(Contrast("cut", 3, first, Arm("cut", "cut"), few, question))
    if "second" in wanted and settings.second:
        other = Arm("second", "second")
        positives = ", ".join(settings.second)
        found += [
            Contrast("second", 4, other, second, few, f"Does a filter whose classifier learned from {positives} do it too?"),
            Contrast("positives", 4, first, other, few, f"How much hangs on the positives (against {positives})?"),
        ]
    if "glam" in wanted and "glam" in steps:
        arms = [Arm(f"glam_{arm.name}", arm.pool, GLAM) for arm in (first, second)]
        question = "Is it seen in GLaM's mixture: 42 % web, 58 % the same curated documents in both arms?"
        found.append(Contrast("glam", 5, arms[0], arms[1], few, question, steps["primary"]))
    if "sweep" in wanted:
        for divisor in settings.sweep:
            part = Arm(f"{first.name}_{divisor}", f"{first.name}_{divisor}", redrawn=True)
            question = f"Is a pool of one in {divisor}, gone through more often, still better?"
            found.append(Contrast(f"{SWEEP}{divisor}", 6, part, second, some, question))
            if "matched" in wanted:
                like = Arm(f"matched_{divisor}", f"matched_{divisor}", redrawn=True)
                question = f"At one in {divisor} of both pools, is it the choice of documents?"
                found.append(Contrast(f"{SWEEP}{divisor}_matched", 6, part, like, some, question))
    rungs = [Arm(name, name) for name in settings.ladder] + [second]
    for before, after in pairwise(rungs):
        name, question = f"ladder_{after.name}", f"What does the step from {before.name} to {after.name} give?"
        found.append(Contrast(name, 7, after, before, some, question, steps[name]))
    if "rates" in wanted:
        for name, times, told in (("half", 0.5, "half"), ("twice", 2.0, "twice")):
            arms = [Arm(f"{arm.name}_rate_{name}", arm.pool, rate_times=times) for arm in (first, second)]
            question = f"Does the gap hold at {told} the learning rate?"
            found.append(Contrast(f"rate_{name}", 8, arms[0], arms[1], two, question, steps["primary"]))
    if "doubled" in wanted:
        arms = [Arm(f"{arm.name}_doubled", arm.pool, tokens_times=2) for arm in (first, second)]
        found.append(Contrast("doubled", 9, arms[0], arms[1], some, "Does it hold at twice the tokens?", steps["primary"]))
    _check_names(found)
    return found


def _check_names(found: Iterable[Contrast]) -> None:
    """Runs and pools go by the arm's name: two arms of one name would share them."""
    named: dict[str, Arm] = {}
    for arm in (arm for contrast in found for arm in (contrast.first, contrast.second)):
        if named.setdefault(arm.name, arm) != arm:
            raise UserError(f"compare: an arm of a control is called {arm.name} too; give the variant another name")


def jobs(found: Iterable[Contrast], rate: float, tokens: int) -> list[Job]:
    """The training runs that the contrasts need, each once, in the order in which they are run."""
    ranked: dict[tuple[str, int], tuple[int, int, Job]] = {}
    for place, contrast in enumerate(found):
        for arm in (contrast.first, contrast.second):
            for seed in range(1, contrast.seeds + 1):
                job = Job(arm, seed, rate * arm.rate_times, tokens * arm.tokens_times)
                ranked.setdefault((arm.name, seed), (contrast.rank, place, job))
    order = sorted(ranked.values(), key=lambda one: (one[2].seed, *one[:2]))
    return [job for _, _, job in order]


def draws(found: Iterable[Contrast]) -> dict[str, int]:
    """How many seeds each pool is needed for, by pool: as many draws of it where its arms are redrawn."""
    needed: dict[str, int] = {}
    for contrast in found:
        for arm in (contrast.first, contrast.second):
            needed[arm.pool] = max(contrast.seeds, needed.get(arm.pool, 0))
    return needed


def pilot(settings: Compare, tokens: int) -> list[Job]:
    """Runs of the second arm that choose the learning rate; none where the recipe gives one rate."""
    return [_pilot_run(settings, rate, tokens) for rate in sorted(settings.rates)] if len(settings.rates) > 1 else []


def _pilot_run(settings: Compare, rate: float, tokens: int) -> Job:
    return Job(Arm(f"pilot_{rate:g}", arm_name(settings.arms[1])), PILOT_SEED, rate, tokens)


def beyond(settings: Compare, runs: Sequence[Job], best: float) -> Job | None:
    """One more run of the pilot where the best rate is at an end of those tried: twice the highest, or half the lowest; none where
    it is within them, or MOST_MORE were added."""
    rates = sorted(run.rate for run in runs)
    if len(rates) < 2 or best not in (rates[0], rates[-1]) or len(rates) >= len(settings.rates) + MOST_MORE:
        return None
    return _pilot_run(settings, best * 2 if best == rates[-1] else best / 2, runs[0].tokens)


def within(
    found: Sequence[Contrast], tokens: int, afforded: float, done: Collection[str] = (), scoring: int = 0
) -> tuple[list[Contrast], list[Contrast]]:
    """(contrasts that fit into so many tokens of training, those that do not): ranks are taken whole, the primary always. done:
    names of runs that cost nothing more; scoring: what a run costs beside its training, in tokens of training."""
    taken: list[Contrast] = []
    for rank in sorted({contrast.rank for contrast in found}):
        more = [*taken, *(contrast for contrast in found if contrast.rank == rank)]
        todo = sum(job.tokens + scoring for job in jobs(more, 1.0, tokens) if job.name not in done)
        if rank and todo and todo > afforded:
            break
        taken = more
    return taken, [contrast for contrast in found if contrast not in taken]
