"""What a request may name: against the recipe's own structure, so that a new key that names a file cannot slip through."""

import dataclasses
import json
import re
import shutil
import sys
import types
import typing

import pydantic
import pytest
import yaml

from pipelines.errors import UserError
from pipelines.recipe import Recipe
from pipelines.recipe_compare import Compare
from pipelines.recipe_compare_default import default_compare
from pipelines.recipe_file import dump, parse
from pipelines.strict import Strict
from quality.service import requests
from quality.service.jobs import Job
from quality.service.requests import BuildRequest, CompareRequest
from quality.service.settings import Settings
from tests import corpus

# Texts below the changeable keys that name no file: languages, families of rules, sources, variants' kinds of copies.
NAMES = {
    "fit.quality.cited_in", "fit.quality.curated", "fit.quality.judge_curated", "fit.quality.judge_web", "fit.quality.web",
    "fit.perplexity.sources", "fit.tokenizer.digits", "mixture.weights", "sources.*.clean", "sources.*.form",
    "variants.*.dedup", *(f"variants.*.{policy}.{key}" for policy in ("default", "sources.*") for key in (
        "languages.keep", "languages", "perplexity", "rules", "quality", "quality.draw")),
}  # fmt: skip
# Texts elsewhere: names that decide nothing of where is read, and everything that names a file or a run.
FILES = {
    "against.run", "bad_words", "evaluations.*", "fit.tokenizer.file", "remove", "sources.*.blocklist", "sources.*.fields",
    "sources.*.paths", "sources.*.root", "terms.*",
}  # fmt: skip
OTHERS = {"against.variant", "name", "sources.*.format", "sources.*.license"}


@pytest.fixture
def settings(tmp_path):
    for name in ("runs", "state", "recipes"):
        (tmp_path / name).mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(corpus.recipe(tmp_path), "utf-8")
    (tmp_path / "recipes" / "Not A Name.yaml").write_text("", "utf-8")
    return Settings(tmp_path / "runs", tmp_path / "state", tmp_path / "recipes")


def texts(kind, place):
    """Places of all texts below a type, as dotted keys with * for names."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Strict):
        for name, field in kind.model_fields.items():
            yield from texts(field.annotation, f"{place}.{name}" if place else name)
    elif kind is str or origin is typing.Literal:
        yield place
    elif origin in (dict,):
        if typing.get_origin(inner[1]) is dict or (isinstance(inner[1], type) and issubclass(inner[1], (Strict, float))):
            yield from texts(inner[1], f"{place}.*" if inner[1] is not float else place)
        else:
            yield from texts(inner[1], f"{place}.*" if inner[0] is not str and "Literal" not in str(inner[0]) else place)
    elif origin in (list, typing.Union, types.UnionType) or origin is typing.Annotated:
        for one in inner[:1] if origin is typing.Annotated else inner:
            yield from texts(one, place)


def test_every_text_of_a_recipe_is_known_to_name_a_file_or_not():
    """A new key makes this fail until somebody has said which it is."""
    found = {one for name, field in Recipe.model_fields.items() if name != "compare" for one in texts(field.annotation, name)}
    assert found - NAMES - FILES - OTHERS == set()
    assert FILES - found == set()


@pytest.mark.parametrize(
    "place", sorted(FILES | OTHERS | {"compare.sets", "compare", "sources", "sources.web", "fit", "evaluations"})
)
def test_no_key_that_names_a_file_is_changed_by_a_request(place, settings):
    key = place.replace("*", "web")
    assert not requests.CHANGEABLE.fullmatch(key)
    with pytest.raises(UserError, match=rf"overrides: '{re.escape(key)}' is not changed by a request.*write it in the recipe"):
        requests.check_build(BuildRequest(recipe="tiny", run="a", overrides=[f"{key}=/etc/passwd"]), settings)


@pytest.mark.parametrize(
    "override",
    [
        "", "=", "a", "variants", "near..x=1", "limits.=1", "fit=1", "fit.tokenizer=1", "fit.tokenizer={file: /etc/passwd}",
        " tokens.shards=1", "tokens.shards\n=1", "sources.web={format: text, paths: [/etc/passwd]}",
        "sources.new.paths=[/etc/passwd]", "sources.web.near.x.=1", "tokens.shards", "against=[/etc]", "compare.tasks.folder=/etc",
    ],
)  # fmt: skip
def test_odd_overrides(override, settings):
    with pytest.raises(UserError):
        requests.check_build(BuildRequest(recipe="tiny", run="a", overrides=[override]), settings)


def test_overrides_that_are_good_become_arguments(settings):
    overrides = ["tokens.shards=3", "variants.filtered.default.quality.keep_rate=0.2", "fit.tokenizer.vocab_size=700"]
    asked = BuildRequest(recipe="tiny", run="new-run", overrides=overrides)
    requests.check_build(asked, settings)
    argv = requests.command(job("build", asked), settings)
    assert argv[:5] == [sys.executable, "-P", "-m", "pipelines.cli", "build"]
    assert argv[5] == str(settings.recipes / "tiny.yaml")
    assert argv[6:] == ["--run", str(settings.runs / "new-run"), *(text for one in overrides for text in ("--set", one))]


def test_recipes_are_those_of_the_folder_and_the_shipped_ones(settings, tmp_path):
    shipped = requests.recipes(Settings(settings.runs, settings.state))
    assert {"sample", "llama"} <= set(shipped)
    assert all(name == found for name, found in shipped.items())
    assert requests.recipes(settings) == {**shipped, "tiny": str(settings.recipes / "tiny.yaml")} | {}
    with pytest.raises(UserError, match=r"none is called 'nothing'; there are .*llama.*sample"):
        requests.check_build(BuildRequest(recipe="nothing", run="a"), settings)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (BuildRequest, {"recipe": "../tiny", "run": "a"}),
        (BuildRequest, {"recipe": "tiny", "run": "../a"}),
        (BuildRequest, {"recipe": "tiny", "run": "a/b"}),
        (BuildRequest, {"recipe": "tiny", "run": ".hidden"}),
        (BuildRequest, {"recipe": "tiny", "run": "a\n"}),
        (BuildRequest, {"recipe": "tiny", "run": "a", "engine": "/etc/passwd"}),
        (BuildRequest, {"recipe": "tiny", "run": "a", "overrides": ["x" * 2001]}),
        (BuildRequest, {"recipe": "tiny", "run": "a", "overrides": ["seed=1"] * 65}),
        (BuildRequest, {"recipe": "tiny", "run": 7}),
        (CompareRequest, {"corpus": "https://example.org/run"}),
        (CompareRequest, {"corpus": "a", "arms": ["/other/run:filtered", "unfiltered"]}),
        (CompareRequest, {"corpus": "a", "arms": ["gs://bucket/run:filtered", "unfiltered"]}),
        (CompareRequest, {"corpus": "a", "sets": {"web": {"group": "web", "files": ["/etc/passwd"]}}}),
        (CompareRequest, {"corpus": "a", "tasks": {"folder": "/etc", "names": ["x"]}}),
        (CompareRequest, {"corpus": "a", "bias": {"words": "/etc/passwd"}}),
        (CompareRequest, {"corpus": "a", "model": {"data": {"path": "/etc/passwd"}}}),
        (CompareRequest, {"corpus": "a", "model": {"preset": "x", "model": {}}}),
        (CompareRequest, {"corpus": "a", "budget": "3h --recipe /etc/passwd"}),
        (CompareRequest, {"corpus": "a", "budget": "for ever"}),
        (CompareRequest, {"corpus": "a", "seeds": 0}),
        (CompareRequest, {"corpus": "a", "rates": [float("nan")]}),
    ],
)
def test_requests_with_paths_urls_or_nonsense_are_refused(kind, given):
    with pytest.raises(pydantic.ValidationError):
        kind.model_validate(given)


@pytest.mark.parametrize("made", ["folder", "link", "file"])
def test_a_folder_that_is_no_run_is_not_built_into(made, settings, tmp_path):
    run = settings.runs / "photos"
    if made == "folder":
        run.mkdir()
        (run / "cat.jpg").write_bytes(b"")
    elif made == "link":
        run.symlink_to(tmp_path / "elsewhere")
    else:
        run.write_bytes(b"")
    with pytest.raises(UserError, match="'photos' is there and no run; give another name"):
        requests.check_build(BuildRequest(recipe="tiny", run="photos"), settings)
    (settings.runs / "begun").mkdir()  # a build that was killed at once
    requests.check_build(BuildRequest(recipe="tiny", run="begun"), settings)


# -- comparisons ------------------------------------------------------------------------------------------------------------


def job(kind, asked):
    request = asked.model_dump(mode="json", exclude_none=True)
    return Job("0" * 32, kind, "a", request, None, "running", 0.0, 0.0, None, None, None, False, 0, "", None)


def run_with(settings, **compare):
    """A folder with what a comparison's request reads of a run: its recipe, and what it held out."""
    run = settings.runs / "a"
    shutil.rmtree(run, ignore_errors=True)
    for variant in ("filtered", "unfiltered"):
        (run / "tokens" / variant).mkdir(parents=True)
        entries = [{"prefix": f"validation/{source}-00000-of-00001"} for source in ("web", "wiki")]
        (run / "tokens" / variant / "blend.json").write_text(json.dumps({"validation": entries}))
    recipe = parse(corpus.recipe(settings.runs), "tiny", [f"compare.{key}={json.dumps(value)}" for key, value in compare.items()])
    (run / "recipe.yaml").write_text(dump(recipe), "utf-8")
    return recipe


def told(asked, settings):
    compare = requests.compare_recipe(CompareRequest(corpus="a", **asked), settings).compare
    assert isinstance(compare, Compare)
    return compare


def test_a_request_of_nothing_is_the_default_comparison(settings):
    recipe = run_with(settings)
    blend = json.loads((settings.runs / "a/tokens/unfiltered/blend.json").read_text())
    assert told({}, settings) == default_compare(recipe, lambda name: blend, "a")
    assert {name: one.group for name, one in told({}, settings).sets.items()} == {"web": "web", "wiki": "positives"}


def test_a_request_changes_its_keys_and_no_others(settings):
    run_with(settings)
    before = told({}, settings).model_dump()
    given = {"seeds": 3, "rates": [1e-5, 0.02], "controls": ["random"], "sets": {"wiki": "unseen"}, "endpoint": ["wiki"]}
    after = told({**given, "model": {"context": 64}}, settings).model_dump()
    assert {key for key in before if before[key] != after[key]} == {*given, "model"}
    assert after["rates"] == [1e-5, 0.02]  # as numbers, whatever YAML takes `1e-05` for
    assert after["model"] == {"preset": "glam-tiny", "context": 64}
    assert after["sets"] == {"wiki": {"group": "unseen", "files": None}}


def test_files_of_the_runs_own_recipe_are_the_operators_and_stay_where_they_are(settings):
    sets = {"essays": {"group": "unseen", "files": ["sets/essays.jsonl", "/data/more.jsonl"]}}
    run_with(settings, sets=sets, tasks={"folder": "tasks", "names": ["x"]}, arms=["../b:filtered", "unfiltered"])
    found = told({"seeds": 2}, settings)
    assert found.sets["essays"].files == [str(settings.recipes / "sets/essays.jsonl"), "/data/more.jsonl"]
    assert found.tasks.folder == str(settings.recipes / "tasks")
    assert found.arms == [f"{settings.recipes.parent}/b:filtered", "unfiltered"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"arms": ["filtered", "nothing"]}, "a: .*compare names the variant 'nothing'"),
        ({"arms": ["filtered", "filtered"]}, "a: compare: arms names 'filtered' twice"),
        ({"web": ["nowhere"]}, "a: .*compare names the source 'nowhere'"),
        ({"sets": {"nowhere": "unseen"}, "endpoint": "unseen"}, "a: .*compare.sets without files names the source 'nowhere'"),
        ({"endpoint": "junk"}, "a: compare: endpoint is 'junk', a group that no set is of"),
        ({"model": {"preset": "glam-tin"}}, "glam-tin: no such preset; did you mean glam-tiny"),
    ],
)
def test_what_does_not_fit_is_told_before_there_is_a_job(asked, message, settings):
    run_with(settings)
    with pytest.raises(UserError, match=message):
        told(asked, settings)


def test_the_command_names_a_recipe_that_says_what_was_asked(settings):
    run_with(settings)
    asked = CompareRequest(corpus="a", seeds=2, budget="45m")
    (settings.state / "jobs" / ("0" * 32)).mkdir(parents=True)
    argv = requests.command(job("compare", asked), settings)
    recipe = settings.state / "jobs" / ("0" * 32) / "recipe.yaml"
    assert argv[4:] == ["compare", str(settings.runs / "a"), "--recipe", str(recipe), "--budget", "45m"]
    assert parse(recipe.read_text("utf-8"), "x").compare == told({"seeds": 2}, settings)
    assert yaml.safe_load(recipe.read_text("utf-8"))["compare"]["seeds"] == 2


def test_a_job_of_another_version_whose_request_is_none_any_more(settings):
    old = dataclasses.replace(job("build", BuildRequest(recipe="tiny", run="a")), request={"recipe": "tiny", "folder": "a"})
    with pytest.raises(UserError, match=r"its request is one of another version of winnow .*; ask again"):
        requests.command(old, settings)


def test_a_run_whose_recipe_is_gone(settings):
    run_with(settings)
    (settings.runs / "a/recipe.yaml").unlink()
    with pytest.raises(UserError, match=r"a: its recipe\.yaml cannot be read; build the corpus again"):
        told({}, settings)
