"""pipelines.recipe: what a recipe says, and the one line for each way to get it wrong."""

import pytest

from pipelines.errors import UserError
from pipelines.recipe import Draw
from pipelines.recipe_file import load, parse, resolved

RECIPE = """
name: tiny
sources:
  web: {format: jsonl, paths: ["web/*.jsonl"]}
  wiki: {format: jsonl, paths: ["wiki/*.jsonl"], paragraphs: true}
fit: {quality: {curated: [wiki], web: [web]}}
variants:
  unfiltered: {dedup: [exact]}
  filtered:
    dedup: [exact, near]
    default: {languages: {keep: [en]}, rules: [gopher], quality: {draw: pareto, keep_rate: 0.3}}
    sources: {wiki: {rules: none}}
"""


def test_policies_take_the_sources_own_keys_over_the_default():
    recipe = parse(RECIPE, "r")
    web, wiki = recipe.policy("filtered", "web"), recipe.policy("filtered", "wiki")
    assert (web.rules, wiki.rules) == (["gopher"], "none")
    assert web.languages == wiki.languages
    assert web.quality == Draw(draw="pareto", keep_rate=0.3)
    assert (web.min_bytes, wiki.min_bytes) == (0, 1)


def test_a_curated_source_is_never_quality_filtered_unless_the_variant_says_so():
    assert parse(RECIPE, "r").policy("filtered", "wiki").quality == "none"
    own = parse(RECIPE, "r", ["variants.filtered.sources.wiki.quality={draw: cut, threshold: 0.5}"])
    assert own.policy("filtered", "wiki").quality == Draw(draw="cut", threshold=0.5)


def test_the_resolved_recipe_is_a_recipe_that_resolves_to_itself():
    import yaml

    first = parse(RECIPE, "r")
    assert parse(yaml.safe_dump(dict(resolved(first))), "again") == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("variants.filtered.defualt={}", "unknown key variants.filtered.defualt; did you mean 'default'"),
        ("sources.web.formt=jsonl", "unknown key sources.web.formt; did you mean 'format'"),
        ("fit.quality.web=[wep]", "fit.quality.web names the source 'wep'; did you mean 'web'"),
        ("fit.quality.web=[wiki]", "the source 'wiki' stands under fit.quality.curated and fit.quality.web"),
        ("variants.filtered.default.quality.keep_rat=1", "keep_rat; did you mean 'keep_rate'"),
        ("variants.filtered.default.quality.keep_rate=3", "keep_rate: Input should be less than or equal to 1"),
        ("near.bands=3", "near: give both bands and rows, or neither"),
        ("near={bands: 20, rows: 10}", "bands x rows is 200, over permutations (112)"),
        ("name=A b", "name: a name is of a-z, 0-9 and _"),
        ("sources.web.paths=7", "sources.web.paths: Input should be a valid list"),
        ("variants.filtered.default.languages=[en]", "default.languages: give it as {key: value, ...} (got ['en'])"),
        ("sources.wiki={format: warc, paths: [x], fields: {text: b}}", "sources.wiki: fields are for jsonl, parquet, datasets"),
        ("seed=" + "[" * 3000, "the value is not YAML"),
        # a key that stands elsewhere, with the place next to where it was written
        ("dedup=[exact]", "unknown key dedup; it belongs under variants.NAME"),
        ("variants.filtered.rules=[gopher]", "unknown key variants.filtered.rules; it belongs under variants.filtered.default"),
        ("variants.filtered.languages=any", "variants.filtered.languages; it belongs under variants.filtered.default"),
        ("variants.filtered.sources.wiki.keep_rate=1", "it belongs under variants.filtered.sources.wiki.quality"),
        ("sources.web.min_jaccard=0.9", "unknown key sources.web.min_jaccard; it belongs under sources.web.near"),
        ("sources.web.text=body", "unknown key sources.web.text; it belongs under sources.web.fields"),
        ("sources.web.name=tiny", "unknown key sources.web.name; it belongs at the top"),
        ("tokens.weights={web: 1}", "unknown key tokens.weights; it belongs under mixture"),
        ("compare.seed=1", "unknown key compare.seed; did you mean 'seeds'"),
        ("against=[{rn: x}]", "unknown key against.0.rn; did you mean 'run'"),
        ("zzzz=1", "unknown key zzzz; see docs/recipe.md for the keys"),
        ("sources={}", "sources"),
        ("fit={}", "variants.filtered draws by quality but fit.quality is missing"),
        ("variants.filtered.sources.wikki={}", "names the source 'wikki'; did you mean 'wiki'"),
        ("variants.filtered.default.quality={draw: cut}", "a cut takes either threshold or keep_rate"),
        ("variants.unfiltered.dedup=[exact, exact]", "variants.unfiltered: dedup names a kind twice"),
        ("sources.default={format: jsonl, paths: [x]}", "a source cannot be called 'default'"),
        ("sources.web.priority=3000000000", "sources.web.priority: Input should be less than or equal to 1000000"),
        ("variants.filtered.default.quality.alpha=.inf", "alpha: Input should be a finite number"),
        ("variants.filtered.default.rules={gopher: {words.low: .nan}}", "words.low: Input should be a finite number"),
        ("nonsense", "write it as a.b=value"),
        ("name.x=1", "'name' is a value, not a section"),
    ],
)
def test_every_fault_is_one_line_that_names_the_key(change, message):
    with pytest.raises(UserError) as error:
        parse(RECIPE, "recipe.yaml", [change])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["7", "format"])
def test_names_are_told_from_keys_and_from_places_in_lists(source):
    with pytest.raises(UserError, match=f"unknown key sources.{source}.formt; did you mean 'format'"):
        parse(RECIPE, "r", [f"sources.{source}={{formt: jsonl, paths: [x]}}"])


def test_what_is_one_needs_no_list():
    changes = ["sources.web.paths=x", "variants.filtered.dedup=exact", "variants.filtered.default.rules=gopher"]
    lists = ["sources.web.paths=[x]", "variants.filtered.dedup=[exact]", "variants.filtered.default.rules=[gopher]"]
    assert parse(RECIPE, "r", changes) == parse(RECIPE, "r", lists)
    assert parse(RECIPE, "r", ["variants.filtered.default.rules=none"]).policy("filtered", "web").rules == "none"


def test_a_folder_of_its_name_does_not_hide_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    assert load("llama")[0].name == "llama"
    (tmp_path / "llama").rmdir()
    (tmp_path / "llama").write_text(RECIPE)
    assert load("llama")[0].name == "tiny"  # a file is what was named


def test_a_name_that_is_no_recipe_is_told_the_nearest_shipped_one():
    with pytest.raises(UserError, match=r"^sampl: no such recipe \(No such file or directory\); did you mean 'sample'\?$"):
        load("sampl")
    with pytest.raises(UserError, match=r"; give a YAML file, or one that is shipped: glam, llama, sample$"):
        load("nothing.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "aliases are not supported"),
        ("name: a\nname: b", "the key 'name' stands twice"),
        ("- 1", "a recipe is a mapping"),
        ("a: [", "not a YAML recipe"),
        ("a: !!python/object:os.system x", "not a YAML recipe"),
        ("[" * 5000, "not a YAML recipe"),
        ("name: a", "the key sources is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text, message):
    with pytest.raises(UserError, match=r"^r: ") as error:
        parse(text, "r")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "place", "name", "more"),
    [
        ("variants.filtered.default.languages={keep: [de, english]}", "filtered.default", "english", ", which does not exist"),
        ("variants.filtered.default.languages={keep: [eng]}", "filtered.default", "eng", "; did you mean 'en'?"),
        ("variants.filtered.sources.wiki={languages: {keep: [EN]}}", "filtered.sources.wiki", "EN", "; did you mean 'en'?"),
    ],
)
def test_a_language_that_is_no_label_of_the_identifier_is_told(change, place, name, more):
    """Held to the 176 labels of fastText's model."""
    from pipelines import packages
    from quality import language

    try:
        path = packages.language_model()
    except UserError as error:
        pytest.skip(str(error))
    labels = language.labels(language.parse(path.read_bytes(), str(path)))
    assert (len(labels), len(set(labels))) == (176, 176)
    parse(RECIPE, "tiny", ["variants.filtered.default.languages={keep: [en, zh, ceb]}"]).check_languages(labels)
    with pytest.raises(UserError) as caught:
        parse(RECIPE, "tiny", [change]).check_languages(labels)
    where = f"variants.{place}.languages.keep"
    assert str(caught.value) == f"{where} names the language {name!r}{more}; they are codes such as 'en', 'zh'"
