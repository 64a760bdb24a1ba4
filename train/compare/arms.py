"""What a comparison is of: two arms where they stand, the sources whose documents differ, and what keeps them from being compared.

An arm is a variant of the run, or RUN:VARIANT of another run that was made with the same tokenizer. Names that do not exist, and
pools of two kinds under one name, are errors of one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from pipelines import models
from pipelines.errors import UserError
from pipelines.recipe_compare import Compare
from pipelines.select_settings import VariantSettings
from train.compare import jobs
from train.compare.documents import Rows, Run, read_rows, steps_between
from train.compare.pool_files import CURATED
from train.verdict import ANOTHER_RUN


@dataclass(frozen=True, slots=True)
class Arms:
    """The arms as the recipe gives them: `runs`, `variants` and `rows` are by that name. `web`: the sources that are compared."""

    run: Run
    asked: Compare
    runs: Mapping[str, Run]
    variants: Mapping[str, str]
    web: tuple[str, ...]
    rows: Mapping[str, Rows]

    @classmethod
    def open(cls, run: Run, asked: Compare, base: str) -> Arms:
        """Reads both arms; paths of other runs start from `base`. Raises UserError on what does not exist or has no document."""
        runs = {given: _run_of(run, given, base) for given in asked.arms}
        variants = {given: given.rpartition(":")[2] for given in asked.arms}
        first = asked.arms[0]
        web = tuple(asked.web or _drawn_sources(runs[first], variants[first]))
        _check_names(run, runs, asked, web)
        rows = {given: read_rows(runs[given], variants[given], web) for given in asked.arms}
        for given, found in rows.items():
            if not len(found):
                raise UserError(
                    f"compare.arms: {given} keeps no document of {', '.join(web)}; loosen its rules, or name other sources"
                )
        return cls(run, asked, runs, variants, web, rows)

    @property
    def every_run(self) -> list[Run]:
        """This run and those of the arms, each once."""
        return list({id(one): one for one in (self.run, *self.runs.values())}.values())

    @property
    def of_one_run(self) -> bool:
        """Whether both arms are this run's."""
        return all(one is self.run for one in self.runs.values())

    @property
    def curated(self) -> list[str]:
        """What GLaM's mixture has beside web pages: here every source that is not filtered for its quality."""
        quality = self.run.recipe.fit.quality
        return sorted(set(self.run.recipe.sources) - set(self.web) - set(quality.web if quality is not None else ()))

    def steps(self) -> dict[str, tuple[str, ...]]:
        """By contrast, the steps in which its variants differ; `glam` is there where the run has curated sources to mix with."""
        first, last = self.asked.arms
        same = self.runs[first] is self.runs[last]
        found = {"primary": steps_between(self.run, first, last, self.web) if same else (ANOTHER_RUN,)}
        rungs = [*self.asked.ladder, *([last] if self.runs[last] is self.run else [])]
        for before, after in pairwise(rungs):
            found[f"ladder_{after}"] = steps_between(self.run, before, after, self.web)
        if self.curated:
            found["glam"] = found["primary"]
        return found


def _run_of(run: Run, given: str, base: str) -> Run:
    folder, colon, variant = given.rpartition(":")
    if not colon:
        _check_variant(run, variant, "arms")
        return run
    other = Run.open(folder if "://" in folder or folder.startswith("/") else f"{base}/{folder}")
    digests = [one.store.digest(models.TOKENIZER)["sha256"] for one in (run, other)]
    if digests[0] != digests[1]:
        raise UserError(
            f"compare.arms: {given} was made with another tokenizer than {run.store.root}: the arms would not see the same tokens; "
            f"build it with fit.tokenizer.file: {run.store.url(models.TOKENIZER)}"
        )
    _check_variant(other, variant, "arms")
    return other


def _check_variant(run: Run, variant: str, key: str) -> None:
    if variant not in run.recipe.variants:
        there = ", ".join(run.recipe.variants)
        raise UserError(f"compare.{key}: {run.store.root} has no variant {variant!r}; there are {there}")


def _check_names(run: Run, runs: Mapping[str, Run], asked: Compare, web: tuple[str, ...]) -> None:
    """Variants and sources that are named, and pools of two kinds under one name."""
    last = asked.arms[1]
    for name in asked.ladder:
        _check_variant(run, name, "ladder")
    if asked.ladder and (last in asked.ladder or runs[last] is not run):
        raise UserError(f"compare.ladder ends in the second arm, {last}, by itself, which is this run's; leave one of them out")
    there = dict.fromkeys(source for one in (run, *runs.values()) for source in one.recipe.sources)
    for key, sources in (("web", web), ("second", asked.second)):
        if missing := [source for source in sources if source not in there]:
            raise UserError(f"compare.{key}: {run.store.root} has no source {missing[0]!r}; there are {', '.join(there)}")
    for name in (*map(jobs.arm_name, asked.arms), *asked.ladder):
        if name in {*asked.controls, CURATED}:
            raise UserError(f"compare: a pool of a control is called {name} too; give the variant another name")


def _drawn_sources(run: Run, variant: str) -> list[str]:
    drawn = sorted(VariantSettings.of(run.recipe, variant).draws)
    if not drawn:
        raise UserError(f"compare.web is missing: {variant} draws no source by quality; name the sources whose documents differ")
    return drawn
