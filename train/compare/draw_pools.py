"""Which pools a comparison draws from its arms, each written once: the arms, the ladder's variants, and the controls of `pools`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.judge import PURPOSE
from pipelines.select_settings import VariantSettings
from train.compare import jobs, pool_files, pools, second
from train.compare.arms import Arms
from train.compare.documents import Rows, Run, is_within, read_rows


def write_pools(
    arms: Arms, wanted: Mapping[str, int], context: int, glam: bool, root: Path
) -> tuple[dict[str, pool_files.Pool], tuple[str, ...]]:
    """(pools by name, what a reader must know of them).

    wanted: by pool, for how many seeds it is needed (`jobs.draws`); glam: whether curated documents are mixed with them. Raises
    UserError where controls are wanted of arms of two runs.
    """
    run, asked, web, found = arms.run, arms.asked, arms.web, arms.rows
    first, last = asked.arms
    one, two = found[first], found[last]
    seed = run.recipe.seed
    called = {given: jobs.arm_name(given) for given in asked.arms}
    written: dict[str, pool_files.Pool] = {}
    limits: list[str] = []

    def write(name: str, made: str, draw: Callable[..., Rows], *given: Any, of: Run = run, curated: bool = False) -> None:
        standing = pool_files.read_pool(root, name)
        written[name] = standing or pool_files.write_pool(root, name, of, draw(*given), context, made, curated)

    if glam:
        sources = arms.curated
        variant = arms.variants[last if arms.runs[last] is run else first]
        write(pool_files.CURATED, f"all that {variant} keeps of {', '.join(sources)}", read_rows, run, variant, sources)
    for given in asked.arms:
        made = f"all that {arms.variants[given]} keeps of {', '.join(web)}"
        write(called[given], made, found.__getitem__, given, of=arms.runs[given], curated=glam)
    for name in asked.ladder:
        if name not in written:
            write(name, f"all that {name} keeps of {', '.join(web)}", read_rows, run, name, web)
    drawn = wanted.keys() - written.keys()
    if drawn and not arms.of_one_run:
        raise UserError("compare.controls: they are drawn from one run's documents, but an arm is another run's; set controls: []")
    if not drawn:
        return written, tuple(limits)
    policy = VariantSettings.of(run.recipe, first)
    if not is_within(one, two):
        limits.append(f"{first} has documents that {last} has not: controls are drawn from {last} alone")
    for number in range(1, wanted.get("matched", 0) + 1):
        made = f"per source and length decile as many tokens as {first}, drawn at random from {last}"
        write(f"matched_draw{number}", made, pools.matched, one, two, seed, number)
    for number in range(1, wanted.get("random", 0) + 1):
        made = f"as many tokens as {first}, drawn at random from {last}"
        write(f"random_draw{number}", made, pools.random, one, two, seed, number)
    if "cut" in wanted:
        made = f"the documents of highest quality of {last}, as many tokens as {first}"
        write("cut", made, pools.cut, one, two, policy, seed)
    if "second" in wanted:

        def by_second() -> Rows:
            classifier, _ = second.fit_second(run, last, asked.second)
            return pools.second_draw(one, second.judged(run, two, classifier), policy, seed, PURPOSE)

        write("second", f"the draw of {first} with a classifier that learned from {', '.join(asked.second)}", by_second)

    def part_of_matched(divisor: int, number: int) -> Rows:
        return pools.fraction(pools.matched(one, two, seed, number), divisor, seed, number)

    for divisor in asked.sweep:
        made = f"one part in {divisor} of {{}}, by tokens, drawn at random"
        for number in range(1, wanted.get(f"{called[first]}_{divisor}", 0) + 1):
            name = f"{called[first]}_{divisor}_draw{number}"
            write(name, made.format(first), pools.fraction, one, divisor, seed, number)
        for number in range(1, wanted.get(f"matched_{divisor}", 0) + 1):
            write(f"matched_{divisor}_draw{number}", made.format("matched"), part_of_matched, divisor, number)
    return written, tuple(limits)
