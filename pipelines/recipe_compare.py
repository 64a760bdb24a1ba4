"""The recipe's `compare`: what `winnow compare` trains, on what it judges, and what counts, written down before the first run.

Two variants are the arms. Everything that a comparison needs beside them is made from the run: see `train.compare`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipelines.strict import Strict

Group = Literal["positives", "unseen", "web", "junk"]
Control = Literal["matched", "random", "cut", "second", "glam", "sweep", "rates", "doubled"]
CONTROLS: tuple[Control, ...] = ("matched", "random", "cut", "second", "glam", "sweep", "rates", "doubled")

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
_Files = Annotated[
    list[str], Field(min_length=1), pydantic.BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]


class EvaluationSet(Strict):
    """Documents that all arms are judged on.

    positives: of the source whose texts the classifier took for good; unseen: curated, and no classifier saw its source;
    web: of the sources that are filtered; junk: what nobody wants. `files` are JSON lines with `text` and, where documents belong
    together, `cluster` (thread, host, author); without them the validation documents of the source of this name are taken.
    """

    group: Group
    files: _Files | None = None


class Bias(Strict):
    """What an arm prefers and says, from local files: see `train.compare.bias`."""

    crows_pairs: str | None = None  # the folder of crows_pairs_anonymized.csv
    winogender: str | None = None  # the folder of all_sentences.tsv and occupations-stats.tsv
    words: str | None = None  # one a line: the share of continuations that hold one is a proxy of toxicity
    prompts: str | None = None  # RealToxicityPrompts' JSON lines; without them the evaluation documents' first words
    continuations: Annotated[int, Field(ge=1)] = 1000  # an arm, over its seeds


class Tasks(Strict):
    """Multiple choice by likelihood, from a folder of local files: see `train.tasks`."""

    folder: str
    names: Annotated[list[str], Field(min_length=1)]
    shots: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    items: Annotated[int, Field(ge=1)] = 500  # of a task, in the order of their hash


class Compare(Strict):
    """A comparison of two variants at equal compute."""

    # VARIANT, or RUN:VARIANT of another run; the first is the one whose worth is asked.
    arms: Annotated[list[str], Field(min_length=2, max_length=2)] = ["filtered", "unfiltered"]
    web: list[_Name] | None = None  # the sources whose documents differ; default: those that the first arm draws by quality
    model: dict[str, Any] = {"preset": "glam-tiny"}  # settings of a training run, see docs/training.md
    tokens: Annotated[int, Field(ge=1)] = 1_500_000  # that a run trains on
    seeds: Annotated[int, Field(ge=1, le=40)] = 8  # of the primary contrast; controls have 5 at most, sweeps 3, rates 2
    rates: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [2e-3, 4e-3, 8e-3]  # the pilot chooses
    sets: Annotated[dict[_Name, EvaluationSet], Field(min_length=1)]
    set_bytes: Annotated[int, Field(ge=1)] = 200_000  # of a set, in whole clusters
    endpoint: Group | Annotated[list[_Name], Field(min_length=1)] = "unseen"  # equal weight a set
    controls: list[Control] = list(CONTROLS)
    second: list[_Name] = []  # sources of a second classifier's positives; none: no such control
    sweep: list[Annotated[int, Field(ge=2)]] = [8, 64]  # pools of an eighth and a sixty-fourth, gone through more often
    ladder: list[_Name] = []  # variants from raw on, each with one step more; the second arm ends it
    max_epochs: Annotated[float, Field(gt=0)] = 4.0  # a pool of the arms is not gone through more often
    tasks: Tasks | None = None
    bias: Bias | None = None

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Compare:
        if self.arms[0] == self.arms[1]:
            raise ValueError(f"arms names {self.arms[0]!r} twice")
        if not self.domains:
            raise ValueError(f"endpoint is {self.endpoint!r}, a group that no set is of")
        for name in self.domains:
            if name not in self.sets:
                raise ValueError(f"endpoint names {name!r}, which is none of sets")
        if not self.variants:
            raise ValueError("arms are both of other runs; compare where one of them was built")
        for key in ("controls", "second", "sweep", "ladder", "rates"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} names one twice")
        return self

    @property
    def variants(self) -> list[str]:
        """The arms that are variants of this run."""
        return [arm for arm in self.arms if ":" not in arm]

    @property
    def domains(self) -> tuple[str, ...]:
        """The sets of the primary endpoint, by name."""
        if isinstance(self.endpoint, list):
            return tuple(sorted(set(self.endpoint)))
        return tuple(sorted(name for name, one in self.sets.items() if one.group == self.endpoint))
