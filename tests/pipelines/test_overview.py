"""What the command prints: columns that align, a plan that says which judgement touches which source, accounts that add up."""

from __future__ import annotations

from collections import Counter

from pipelines import overview
from pipelines.conservation import Accounts, SourceAccount, VariantAccount
from pipelines.plan import make_plan
from pipelines.recipe_file import parse
from tests import corpus


def test_a_table_aligns_numbers_right_and_names_left():
    printed = overview.table(["name", "count", "note"], [("web", 1234567, "x"), ("a longer name", 8, "yy")])
    assert printed.splitlines() == [
        "name               count  note",
        "------------------------------",
        "web            1,234,567  x",
        "a longer name          8  yy",
    ]


def test_a_table_without_rows_is_its_head():
    assert overview.table(["a", "b"], []).splitlines() == ["a  b", "----"]


def test_a_plan_says_what_touches_which_source(inputs):
    recipe = parse(corpus.recipe(inputs), "tiny")
    made = make_plan(recipe, ".")
    text = overview.plan_text(recipe, made, {})
    assert "variant filtered (dedup: exact, near)" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["wiki", "en", "(score", ">=", "0.3)", "none", "none"] in lines  # curated: never judged by quality
    assert ["web", "en", "(score", ">=", "0.3)", "gopher", "pareto(9),", "keep", "50%", "of", "tokens"] in lines
    found = overview.plan_json(recipe, made, {})
    assert list(found) == ["recipe", "sources", "blocklists", "tasks"]
    web = next(one for one in found["sources"] if one["source"] == "web")
    files = [path for path in (inputs / "web").rglob("*") if path.is_file()]
    assert (web["inputs"], web["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert len(found["tasks"]) == sum(one["tasks"] for one in found["sources"])


def test_accounts_are_printed_with_every_reason_that_occurs():
    source = SourceAccount(records=12, documents=9, merged=1, rejects=Counter(malformed_json=2))
    variant = VariantAccount(kept=7, dropped=Counter(language=2), tokens=Counter(train=1000, validation=50))
    text = overview.accounts_text(Accounts({"web": source}, {"all": {"web": variant}}))
    lines = [line.split() for line in text.splitlines()]
    assert ["web", "12", "9", "2", "1"] in lines
    assert ["language", "2"] in lines
    assert text.index("rejected records") < text.index("malformed_json") < text.index("variant all")
    assert ["malformed_json", "2"] in lines
    assert ["train", "tokens", "1,000"] in lines
    assert "variant all" in text
    whole = Accounts({"web": SourceAccount(records=1, documents=1)}, {})
    assert "rejected records" not in overview.accounts_text(whole)
