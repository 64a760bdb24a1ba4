"""The mixture: tokens wanted, epochs and bounds against brute force; published tables against their papers; wrong recipes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines import mixture
from pipelines.errors import UserError
from pipelines.mixture_plan import mixture_json, mixture_text
from pipelines.recipe import Mixture
from pipelines.recipe_file import load, parse, resolved
from pipelines.report.mixture import account
from pipelines.shards import blend
from tests.runs import REPOSITORY

RECIPE = """
name: mixed
sources:
  web: {format: jsonl, paths: ["web/*.jsonl"]}
  wiki: {format: jsonl, paths: ["wiki/*.jsonl"]}
variants: {all: {}}
mixture: {tokens: 1000, weights: {web: 67, wiki: 4.5}}
"""
WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e6), min_size=1).filter(lambda found: any(found.values()))


# -- tokens wanted, and epochs ------------------------------------------------------------------------------------------------


@given(WEIGHTS, st.integers(1, 10**13))
def test_tokens_wanted_are_whole_sum_to_all_and_follow_the_weights(weights, tokens):
    wanted = mixture.wanted_tokens(weights, tokens)
    assert sum(wanted.values()) == tokens
    total = sum(weights.values())
    for source, count in wanted.items():
        assert abs(count - tokens * weights[source] / total) < 1 + 1e-9 * tokens
        assert count == 0 or weights[source] > 0
    assert list(wanted) == sorted(weights)


def test_the_scale_of_weights_does_not_matter():
    """Percents and shares, as decimals: 0.045 of a float is not 4.5 hundredths, and must not move a token."""
    percents = {"a": 67.0, "b": 15.0, "c": 4.5, "d": 4.5, "e": 4.5, "f": 2.5, "g": 2.0}
    shares = {"a": 0.67, "b": 0.15, "c": 0.045, "d": 0.045, "e": 0.045, "f": 0.025, "g": 0.02}
    for tokens in (1, 7, 1000, 10**12 + 1, 1_400_000_000_000):
        assert mixture.wanted_tokens(percents, tokens) == mixture.wanted_tokens(shares, tokens)
    assert mixture.wanted_tokens(percents, 1_400_000_000_000)["c"] == 63_000_000_000


def test_what_rounding_leaves_goes_to_the_largest_remainders_then_to_the_first_names():
    assert mixture.wanted_tokens({"a": 1, "b": 1, "c": 1}, 8) == {"a": 3, "b": 3, "c": 2}
    assert mixture.wanted_tokens({"a": 0.5, "b": 0.3, "c": 0.2}, 9) == {"a": 4, "b": 3, "c": 2}  # 4.5, 2.7, 1.8


def test_epochs_by_hand():
    found = mixture.epochs({"a": 3, "b": 1, "c": 0, "d": 0}, 400, {"a": 100, "b": 400, "c": 50, "d": 0})
    assert found == {"a": 3.0, "b": 0.25, "c": 0.0, "d": 0.0}
    assert mixture.epochs({"a": 1}, 10, {"a": 0}) == {"a": None}


@pytest.mark.parametrize(
    ("wanted", "available", "said"),
    [
        (400, 100, None),
        (401, 100, "wiki has 100 tokens of the 401 wanted: 4.0 epochs, over max_epochs (4); give it more text or a smaller weight"),
        (5_000, 0, "wiki has no tokens of the 5,000 wanted; give it text, or mixture.weights.wiki 0"),
        (0, 0, None),
    ],
)
def test_a_source_that_runs_dry_is_warned_of(wanted, available, said):
    assert mixture.warning("wiki", wanted, available, 4.0) == said


# -- documents that a fraction takes ------------------------------------------------------------------------------------------

_DRAWS = st.one_of(st.integers(0, 2**53 - 1), st.integers(0, 40).map(lambda n: n << 45), st.integers(0, 5))
DOCUMENTS = st.lists(st.tuples(_DRAWS, st.integers(1, 2**31)), max_size=40)


def _taken(documents, wanted):
    """Brute force: sorted by draw, taken until the tokens are there, with those that have the draw of the last one."""
    taken, last = 0, -1
    for draw, tokens in sorted(documents):
        if taken >= wanted and draw != last:
            break
        taken, last = taken + tokens, draw
    return taken, {draw for draw, _ in documents if draw <= last}


@given(DOCUMENTS, st.floats(0, 1.2), st.integers(1, 5))
def test_the_bound_is_that_of_sorting_and_taking_whatever_the_parts(documents, fraction, parts):
    available = sum(tokens for _, tokens in documents)
    wanted = int(fraction * available)
    draws, tokens = (np.array([row[i] for row in documents], np.int64) for i in (0, 1))
    places = np.arange(len(documents)) % parts  # the part of each document
    summed = sum(mixture.histogram(draws[places == part] / 2**53, tokens[places == part]) for part in range(parts))
    assert summed.sum() == available
    decided = mixture.deciding_bin(summed, wanted)
    assert (decided.wanted, decided.available) == (wanted, available)
    drawn = np.zeros(0, mixture.DRAWN)
    if decided.bin is not None:
        chosen = mixture.bin_of(draws / 2**53) == decided.bin
        drawn = np.zeros(int(chosen.sum()), mixture.DRAWN)
        drawn["draw"], drawn["tokens"] = draws[chosen][::-1], tokens[chosen][::-1]
    found = mixture.solve(decided, drawn)
    taken, kept = _taken(documents, wanted)
    assert found.taken == taken
    assert {draw for draw in draws.tolist() if draw / 2**53 < found.bound} == kept
    if decided.bin is not None and len(set(draws.tolist())) == len(draws):
        assert wanted <= found.taken < wanted + int(tokens.max())


def test_a_row_that_travels_is_sixteen_bytes_and_a_histogram_thirty_two_thousand():
    assert mixture.DRAWN.itemsize == 16
    assert mixture.histogram(np.zeros(1), np.ones(1, np.int64)).nbytes == 32_768


def test_the_last_and_the_first_possible_draw_have_a_bin():
    assert mixture.bin_of(np.array([0.0, 1 - 2.0**-53])).tolist() == [0, mixture.BINS - 1]


# -- what a trainer is told ---------------------------------------------------------------------------------------------------

SHARDS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**6)), max_size=9)


@given(SHARDS, st.tuples(*[st.integers(0, 10**6)] * 3))
def test_a_blend_sends_a_trainer_through_what_is_wanted(shards, counts):
    """weight x tokens of the run = epochs x tokens, or less where documents were taken; weights sum to 1, as the mixture says."""
    wanted = dict(zip("abc", counts, strict=True))
    shards = [(source, tokens) for source, tokens in shards if wanted[source]]  # of the others the mixture takes nothing
    entries = blend([(str(n), source, tokens, 1) for n, (source, tokens) in enumerate(shards)], wanted)
    in_shards = {source: sum(tokens for other, tokens in shards if other == source) for source in "abc"}
    assert [entry["prefix"] for entry in entries] == [str(n) for n, (_, tokens) in enumerate(shards) if tokens]
    there = sum(wanted[source] for source in "abc" if in_shards[source])
    for entry in entries:
        source, tokens = shards[int(entry["prefix"])]
        assert entry["weight"] == pytest.approx(wanted[source] / there * tokens / in_shards[source])
        assert entry["epochs"] == pytest.approx(max(1.0, wanted[source] / in_shards[source]))
        assert entry["weight"] * there <= entry["epochs"] * tokens * (1 + 1e-9)
    if entries:
        assert sum(entry["weight"] for entry in entries) == pytest.approx(1)


def test_asked_and_got_by_hand():
    """a is cut: 5 over what is wanted; b is gone through 2.5 times; c has nothing."""
    found = account({"a": 100, "b": 50, "c": 50}, {"a": 300, "b": 20, "c": 0}, {"a": 105, "b": 20, "c": 0})
    assert {source: one["trained"] for source, one in found.items()} == {"a": 105, "b": 50, "c": 0}
    assert {source: one["asked"] for source, one in found.items()} == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert {source: one["got"] for source, one in found.items()} == pytest.approx({"a": 105 / 155, "b": 50 / 155, "c": 0.0})
    assert {source: one["epochs"] for source, one in found.items()} == {"a": pytest.approx(1 / 3), "b": 2.5, "c": None}
    assert {source: one["passes"] for source, one in found.items()} == {"a": 1.0, "b": 2.5, "c": 1.0}


# -- published mixtures -------------------------------------------------------------------------------------------------------


def test_llamas_table_agrees_with_itself_and_with_its_text():
    """The paper prints proportions, epochs and disk sizes, not tokens. What can be checked: proportions are a whole; tokens that
    follow from proportion, epochs and 1.4T give bytes a token that are possible, equal for the two English crawls; "each token is
    used only once, with the exception of the Wikipedia and Books domains, over which we perform approximately two epochs"; "roughly
    1.4T tokens after tokenization"."""
    rows = mixture.LLAMA.sources
    assert sum(row.percent for row in rows.values()) == 100
    wanted = mixture.wanted_tokens(mixture.LLAMA.weights, mixture.LLAMA.run_tokens)
    available = {name: round(wanted[name] / row.epochs) for name, row in rows.items()}
    bytes_a_token = {name: row.disk_bytes / available[name] for name, row in rows.items()}
    assert all(2.7 < ratio < 4 for ratio in bytes_a_token.values())
    assert bytes_a_token["c4"] == pytest.approx(bytes_a_token["common_crawl"], rel=0.03)
    assert sum(available.values()) == pytest.approx(1.4e12, rel=0.1)
    assert {name for name, row in rows.items() if row.epochs > 1.5} == {"wikipedia", "books"}
    assert {name for name, row in rows.items() if row.epochs < 1} == {"github"}  # the one of which a fraction is taken
    found = mixture.epochs(mixture.LLAMA.weights, mixture.LLAMA.run_tokens, available)
    assert {name: round(value, 2) for name, value in found.items()} == {name: row.epochs for name, row in rows.items()}


def test_glams_table_agrees_with_itself_and_with_its_text():
    """Mixture weights are a whole, and the components are the 1.6 trillion tokens that the paper names."""
    rows = mixture.GLAM.sources
    assert sum(row.percent for row in rows.values()) == 100
    assert sum(row.tokens for row in rows.values()) == pytest.approx(1.6e12, rel=0.01)
    available = {name: row.tokens for name, row in rows.items()}
    at_600 = mixture.epochs(mixture.GLAM.weights, 600_000_000_000, available)
    assert {name for name, epochs in at_600.items() if epochs > 1} == {"filtered_webpages", "wikipedia"}
    assert at_600["wikipedia"] == 12.0


def test_the_docs_print_the_published_tables_and_every_key():
    """docs/recipe.md, row by row."""
    text = (REPOSITORY / "docs" / "recipe.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    llama, glam = mixture.LLAMA.sources.values(), mixture.GLAM.sources.values()
    assert ["weight", *(f"{row.percent}" for row in llama)] in rows
    assert ["epochs", *(f"{row.epochs:.2f}" for row in llama)] in rows
    assert ["weight", *(f"{row.percent / 100:.2f}" for row in glam)] in rows
    assert ["tokens", *(f"{row.tokens // 10**9}B" for row in glam)] in rows
    in_yaml = yaml.safe_load(next(block for block in text.split("```yaml") if "mixture:" in block).split("```")[0])["mixture"]
    assert in_yaml == {"tokens": mixture.LLAMA.run_tokens, "weights": mixture.LLAMA.weights}
    assert {f"`{key}`" for key in Mixture.model_fields} <= {row[0] for row in rows}


# -- recipes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mixture.weights.wiki=-1", "mixture.weights.wiki: Input should be greater than or equal to 0"),
        ("mixture.weights.wikki=1", "mixture.weights names the source 'wikki'; did you mean 'wiki'"),
        ("mixture.weights={web: 1}", "mixture.weights does not name the source 'wiki'; give it a weight, or 0 to leave it out"),
        ("mixture.weights={web: 0, wiki: 0}", "weights leave every source out"),
        ("mixture.tokens=0", "mixture.tokens: Input should be greater than or equal to 1"),
        ("mixture.tokens=1.5", "mixture.tokens: Input should be a valid integer"),
        ("mixture.max_epochs=0", "mixture.max_epochs: Input should be greater than 0"),
        ("mixture.weight={web: 1}", "unknown key mixture.weight; did you mean 'weights'"),
        ("mixture={weights: {web: 1, wiki: 1}}", "the key mixture.tokens is missing"),
        ("sources.web.weight=3", "unknown key sources.web.weight"),
    ],
)
def test_every_fault_of_a_mixture_is_one_line_that_names_the_key(change, message):
    with pytest.raises(UserError) as error:
        parse(RECIPE, "recipe.yaml", [change])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mixture_is_read_and_written_and_wants_nothing_where_there_is_none():
    recipe = parse(RECIPE, "r")
    assert recipe.wanted_tokens() == {"web": 937, "wiki": 63}
    assert recipe.mixture.max_epochs == 4.0
    assert parse(yaml.safe_dump(dict(resolved(recipe))), "again") == recipe
    assert parse(RECIPE, "r", ["mixture=null"]).wanted_tokens() == {}


# -- the plan -----------------------------------------------------------------------------------------------------------------

WIDE = "mixture={tokens: 400000, weights: {web: 10, wiki: 30}}"


def _of_corpus(inputs, *overrides):
    from tests import corpus

    return parse(corpus.recipe(inputs), "tiny", overrides)


def test_a_plan_without_a_run_says_what_is_wanted(inputs, tmp_path):
    recipe = _of_corpus(inputs, WIDE)
    for run in (None, str(tmp_path / "not yet")):
        told = mixture_json(recipe, run)
        assert told["sources"] == {"web": {"share": 0.25, "wanted": 100_000}, "wiki": {"share": 0.75, "wanted": 300_000}}
        assert (told["variants"], told["warnings"]) == ({}, [])
        lines = [line.split() for line in mixture_text(told).splitlines()]
        assert ["web", "25.00%", "100,000"] in lines
        assert ["wiki", "75.00%", "300,000"] in lines
        assert "give --run DIR" in mixture_text(told)
    assert mixture_json(_of_corpus(inputs), None) is None


def test_a_plan_beside_a_run_says_what_is_there_and_warns(inputs, built):
    """Against the counts of the run's tables: a run without a mixture has for training what it keeps."""
    accounts = json.loads((built / "manifest.json").read_bytes())["accounts"]["variants"]
    recipe = _of_corpus(inputs, WIDE, "variants.new={}")
    told = mixture_json(recipe, str(built))
    assert list(told["variants"]) == ["unfiltered", "filtered"]  # in the recipe's order; the run knows nothing of a new one
    for variant, by_source in told["variants"].items():
        for source, one in by_source.items():
            assert one["available"] == accounts[variant][source]["tokens"]["train"]
            assert one["epochs"] == told["sources"][source]["wanted"] / one["available"]
    assert sorted(line.split(" has ")[0] for line in told["warnings"]) == ["filtered: wiki", "unfiltered: wiki"]
    text = mixture_text(told)
    assert sum(line.startswith("WARNING ") for line in text.splitlines()) == 2
    row = next(line.split() for line in text.splitlines() if line.startswith("wiki"))
    assert row[:3] == ["wiki", "75.00%", "300,000"]
    assert f"{told['variants']['filtered']['wiki']['epochs']:.2f}" in row


def test_a_plan_names_a_source_that_the_run_does_not_know(inputs, built):
    books = f"sources.books={{format: jsonl, paths: ['{inputs}/wiki/*']}}"
    recipe = _of_corpus(inputs, books, "mixture={tokens: 1000, weights: {web: 1, wiki: 1, books: 2}}")
    told = mixture_json(recipe, str(built))
    assert told["variants"]["filtered"]["books"] is None
    assert next(line.split() for line in mixture_text(told).splitlines() if line.startswith("books")) == [
        "books", "50.00%", "500", "-", "-", "-", "-",
    ]  # fmt: skip
    assert told["warnings"] == []


def test_the_shipped_recipe_has_llamas_proportions_and_sources():
    recipe, _ = load("llama")
    assert recipe.mixture is not None
    assert recipe.mixture.weights == mixture.LLAMA.weights
    assert recipe.mixture.tokens == mixture.LLAMA.run_tokens
    assert set(recipe.sources) == set(mixture.LLAMA.weights)
    assert recipe.fit.quality is not None
    assert (recipe.fit.quality.cited_in, recipe.fit.quality.web) == (["wikipedia"], ["common_crawl"])  # section 2.1
