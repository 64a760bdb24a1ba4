"""What may be asked of a job, and the command that it becomes. No path and no URL is taken from a request.

Recipes are named, and looked up among those of --recipes and the shipped ones; corpora are named, and looked up among the runs. A
request changes keys of a recipe that name no file (`CHANGEABLE`). A comparison's keys are laid over the `compare` of the run's own
recipe, or over the default; files that stand there are the operator's. All is checked before a job is made of it.

    build    winnow build RECIPE --run DIR [--set A.B=C ...]
    compare  winnow compare DIR --recipe STATE/jobs/ID/recipe.yaml [--budget TIME]
"""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import yaml
from pydantic import Field

from pipelines.errors import UserError
from pipelines.recipe import NAME_PATTERN, Name, Recipe
from pipelines.recipe_compare import Compare, Control, Group
from pipelines.recipe_compare_default import default_compare
from pipelines.recipe_file import RECIPE, dump, load, parse
from pipelines.strict import Strict
from quality.service.jobs import Job, job_folder
from quality.service.settings import Settings

ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"

CorpusId = Annotated[str, Field(pattern=ID_PATTERN, description="The name of a run.")]
_Names = list[Name]
_Request = TypeVar("_Request", bound=Strict)
_Override = Annotated[str, Field(max_length=2000)]

# The keys that --set may name, and all below them; none of them names a file.
_BELOW = ("limits", "near", "fit.quality", "fit.perplexity", "variants", "tokens", "mixture", "language_characters", "seed")
_ALONE = ("fit.tokenizer.vocab_size", "fit.tokenizer.digits", "fit.tokenizer.sample_mb")
_OF_A_SOURCE = ("clean", "form", "mask", "near", "paragraphs", "priority")
CHANGEABLE = re.compile(
    rf"(?:{'|'.join(map(re.escape, _BELOW))})(?:\.[^.=]+)*"
    rf"|{'|'.join(map(re.escape, _ALONE))}"
    rf"|sources\.[a-z0-9_]+\.(?:{'|'.join(_OF_A_SOURCE)})(?:\.[^.=]+)*"
)


class BuildRequest(Strict):
    """A build of a recipe into a run: a new one, or one that the same recipe made."""

    model_config = pydantic.ConfigDict(json_schema_extra={"examples": [{"recipe": "sample", "run": "sample-2"}]})

    recipe: Annotated[str, Field(pattern=NAME_PATTERN, description="The name of a recipe that the service offers.")]
    run: CorpusId
    overrides: Annotated[
        list[_Override], Field(default_factory=list, max_length=64, description="Changed keys of the recipe, as `a.b=c`.")
    ]


class ModelRequest(Strict):
    """The model that is trained; what is not given is as the comparison has it by itself."""

    preset: Annotated[str, Field(max_length=64)] | None = None
    context: Annotated[int, Field(ge=8, le=1 << 16, description="Tokens of a sequence.")] | None = None
    batch: Annotated[int, Field(ge=1, le=1 << 16, description="Sequences of a step.")] | None = None
    precision: Literal["bf16", "fp32"] | None = None


class CompareRequest(Strict):
    """A comparison of two variants of a corpus; every key but `corpus` may be left out, see docs/comparison.md."""

    model_config = pydantic.ConfigDict(
        json_schema_extra={"examples": [{"corpus": "sample", "seeds": 2, "tokens": 200_000, "controls": [], "budget": "45m"}]}
    )

    corpus: CorpusId
    arms: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = None  # of this corpus
    web: _Names | None = None
    model: ModelRequest | None = None
    tokens: Annotated[int, Field(ge=1, le=10**13)] | None = None
    seeds: Annotated[int, Field(ge=1, le=40)] | None = None
    rates: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=16)] | None = None
    sets: Annotated[dict[Name, Group], Field(min_length=1, max_length=64, description="Sources by what they are.")] | None = None
    set_bytes: Annotated[int, Field(ge=1, le=10**9)] | None = None
    endpoint: Group | Annotated[_Names, Field(min_length=1)] | None = None
    controls: list[Control] | None = None
    second: _Names | None = None
    sweep: Annotated[list[Annotated[int, Field(ge=2)]], Field(max_length=16)] | None = None
    ladder: _Names | None = None
    max_epochs: Annotated[float, Field(gt=0)] | None = None
    budget: Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?(s|m|min|h)$")] | None = None


def recipes(settings: Settings) -> dict[str, str]:
    """The recipes that a build may name, with what `winnow build` takes for each: a file of --recipes, or a shipped name."""
    shipped = (one.name for one in (resources.files("beam_config") / "recipes").iterdir())
    found = {name.removesuffix(".yaml"): name.removesuffix(".yaml") for name in shipped if name.endswith(".yaml")}
    if settings.recipes is not None:
        found |= {path.stem: str(path) for path in settings.recipes.glob("*.yaml") if path.is_file()}
    return {name: found[name] for name in sorted(found) if re.fullmatch(NAME_PATTERN, name)}


def check_build(asked: BuildRequest, settings: Settings) -> None:
    """Raises UserError for a recipe that is not offered or not good, and for a key that is not changed from here."""
    offered = recipes(settings)
    if asked.recipe not in offered:
        raise UserError(f"recipe: none is called {asked.recipe!r}; there are {', '.join(offered)}")
    for one in asked.overrides:
        if not CHANGEABLE.fullmatch(key := one.partition("=")[0]):
            raise UserError(f"overrides: {key!r:.100} is not changed by a request, since it may name files; write it in the recipe")
    run = settings.runs / asked.run
    if run.is_symlink() or (run.exists() and not _may_be_built(run)):
        raise UserError(f"run: {asked.run!r} is there and no run; give another name")
    load(offered[asked.recipe], asked.overrides)


def check_compare(asked: CompareRequest, settings: Settings) -> None:
    """Raises UserError for a comparison that does not fit its corpus, or that this installation cannot run."""
    if find_spec("torch") is None:
        raise UserError("torch is not installed where the service runs: pip install 'winnow[train]'")
    compare_recipe(asked, settings)


def compare_recipe(asked: CompareRequest, settings: Settings) -> Recipe:
    """The recipe of the corpus with the section `compare` that was asked for. Raises UserError on what does not fit."""
    run = settings.runs / asked.corpus
    recipe = _recipe_of(run)
    given = recipe.compare or default_compare(recipe, lambda name: json.loads((run / name).read_bytes()), asked.corpus)
    changes = asked.model_dump(mode="json", exclude_none=True, exclude={"corpus", "budget", "sets", "model"})
    section: dict[str, Any] = {**_located(given, settings.recipes or Path()), **changes}
    if asked.model is not None:
        section["model"] = {**section["model"], **asked.model.model_dump(exclude_none=True)}
        _check_preset(asked.model.preset)
    if asked.sets is not None:
        section["sets"] = {name: {"group": group} for name, group in asked.sets.items()}
    tree = {**recipe.model_dump(mode="json"), "compare": section}
    return parse(yaml.safe_dump(tree, sort_keys=False), asked.corpus)


def command(job: Job, settings: Settings) -> list[str]:
    """The arguments of a job's process; writes the recipe of a comparison. Raises UserError where it cannot be run any more."""
    winnow = [sys.executable, "-P", "-m", "pipelines.cli"]  # -P: nothing is imported from where the service was started
    if job.kind == "build":
        wanted = _again(BuildRequest, job)
        check_build(wanted, settings)
        changed = [text for one in wanted.overrides for text in ("--set", one)]
        return [*winnow, "build", recipes(settings)[wanted.recipe], "--run", str(settings.runs / wanted.run), *changed]
    asked = _again(CompareRequest, job)
    path = job_folder(settings.state, job.id) / RECIPE
    path.write_text(dump(compare_recipe(asked, settings)), "utf-8")
    budget = [] if asked.budget is None else ["--budget", asked.budget]
    return [*winnow, "compare", str(settings.runs / asked.corpus), "--recipe", str(path), *budget]


def _again(kind: type[_Request], job: Job) -> _Request:
    """The request that a job was made of, maybe by another version of winnow."""
    try:
        return kind.model_validate(job.request)
    except pydantic.ValidationError as error:
        raise UserError(f"its request is one of another version of winnow ({error.errors()[0]['msg']}); ask again") from error


def _may_be_built(folder: Path) -> bool:
    """Whether a build has begun in a folder, or nothing is in it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    return not names or not names.isdisjoint(("manifest.json", ".lock", "plan.json"))


def _recipe_of(run: Path) -> Recipe:
    try:
        return parse((run / RECIPE).read_text("utf-8"), run.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{run.name}: its {RECIPE} cannot be read; build the corpus again") from error


def _located(given: Compare, base: Path) -> dict[str, Any]:
    """The section as plain values, with files where they are: relative paths start from the folder of recipes."""
    tree = given.model_dump(mode="json")

    def placed(path: str) -> str:
        return str((base / path).resolve())

    for one in tree["sets"].values():
        one["files"] = None if one["files"] is None else [placed(path) for path in one["files"]]
    for section, keys in (("tasks", ("folder",)), ("bias", ("crows_pairs", "winogender", "words", "prompts"))):
        for key in keys if tree[section] is not None else ():
            tree[section][key] = None if tree[section][key] is None else placed(tree[section][key])
    tree["arms"] = [_arm(arm, placed) for arm in tree["arms"]]
    return tree


def _arm(arm: str, placed: Any) -> str:
    folder, colon, variant = arm.rpartition(":")
    return arm if not colon or "://" in folder else f"{placed(folder)}:{variant}"


def _check_preset(name: str | None) -> None:
    from train import presets

    if name is not None:
        presets.get(name)
