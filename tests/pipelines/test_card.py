"""The dataset card and Croissant on statistics made by hand: what they state, what a corpus cannot do to them, and their sums."""

from __future__ import annotations

import copy
import json

import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.report.card import card
from pipelines.report.croissant import croissant
from pipelines.report.markdown import quoted, table
from pipelines.report.shift import distance
from pipelines.report.stated import hub_licenses, languages, licenses, size_category, spdx
from pipelines.report.statistics import _licenses, top_licenses

RECIPE = """
name: tiny
sources:
  books: {format: books, paths: [b/*], mask: true}
  web: {format: warc, paths: [w/*]}
fit: {quality: {curated: [books], web: [web]}, perplexity: {sources: [books]}}
variants: {unfiltered: {}, filtered: {default: {rules: [gopher]}}}
"""
HOSTILE = "\n\n# Big\n[x](http://e.vil) <b>&lt; ![i](j) `c` | \\| a@b.example \u202egnp ***"


def _profile(languages, quality, emails=0, addresses=0):
    """`languages`: label -> documents, each of 1,024 to 2,047 bytes; `quality`: how many of them are of 0.5 or more."""
    documents = sum(languages.values())
    return {
        "documents": documents, "bytes": 1500 * documents, "lengths": [0] * 10 + [documents] + [0] * 21, "languages": languages,
        "quality": [documents - quality] + [0] * 24 + [quality] + [0] * 24, "emails": emails, "ip_addresses": addresses,
    }  # fmt: skip


def _source(everything, filtered, licenses, tokens):
    return {
        "documents": everything["documents"], "text_bytes": everything["bytes"], "judged_bytes": everything["bytes"],
        "tokens": sum(tokens.values()), "dropped_paragraphs": 0, "licenses": licenses, "all": everything,
        "without_perplexity": {key: n for key, n in everything["languages"].items() if key != "en"},
        "variants": {
            "unfiltered": {"kept": everything, "tokens": {"keep": sum(tokens.values())}},
            "filtered": {"kept": filtered, "tokens": tokens},
        },
    }  # fmt: skip


def _decided(kept, dropped, tokens):
    return {"kept": kept, "dropped": dropped, "documents": {"train": kept, "validation": 0}, "tokens": tokens}


def stats():
    """books: 40 documents, none dropped; web: 160 of which the filter keeps 1, two rejected records."""
    books, web = _profile({"en": 40}, 40, 3, 1), _profile({"en": 120, "no": 30, "und": 10}, 20, 7, 2)
    few = _profile({"en": 1}, 1, 1, 0)
    auc = {"auc": 0.9, "low": 0.8, "high": 0.97, "curated_documents": 50, "web_documents": 60}
    return {
        "name": "tiny", "seed": 1, "variants": ["unfiltered", "filtered"], "recipe": RECIPE, "mixture": None,
        "evaluations": {}, "terms": [],
        "accounts": {
            "sources": {
                "books": {"records": 40, "documents": 40, "merged": 0, "rejects": {}, "unknown_rests": 0},
                "web": {"records": 162, "documents": 160, "merged": 0, "rejects": {"http_status": 2}, "unknown_rests": 1},
            },
            "variants": {
                "unfiltered": {
                    "books": _decided(40, {}, {"train": 4000, "validation": 0}),
                    "web": _decided(160, {}, {"train": 5500, "validation": 500}),
                },
                "filtered": {
                    "books": _decided(40, {}, {"train": 4000, "validation": 0}),
                    "web": _decided(1, {"gopher_words": 159}, {"train": 50, "validation": 0}),
                },
            },
        },
        "alarms": ["filtered keeps 1 of 160 documents of web; 159 are dropped by gopher_words"],
        "inputs": {"books": {"files": 1, "bytes": 1024}, "web": {"files": 2, "bytes": 1024}},
        "sources": {
            "books": _source(books, books, {"largest": {"CC0-1.0": 39, "cc-by-4.0": 1}, "others": 0, "without": 0}, {"keep": 3960}),
            "web": _source(
                web, few, {"largest": {HOSTILE: 2}, "others": 3, "without": 155}, {"keep": 49, "gopher_words": 5791}
            ),
        },
        "rules": {"unfiltered": {}, "filtered": {"gopher_words": {"signal": "words", "bounds": [[50, 100_000]]}}},
        "classifier": {
            "metrics": {"converged": False, "held_out_slice": auc, "leave_one_source_out": [], "judged_only": []}
        },
    }  # fmt: skip


def _parts(text):
    """(the values of the head, the body), cut where the hub cuts."""
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(head), body


def _rows(text, heading):
    """The cells of the tables below a heading."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]


def test_the_head_is_what_the_hub_reads():
    head, body = _parts(card(stats()))
    assert body.startswith("\n# tiny\n")
    assert DatasetCard(card(stats())).data.to_dict() == head  # the hub's own reader
    assert head == {
        "pretty_name": "tiny",
        "language": ["en", "no"],  # not False: YAML 1.1's trap
        "license": ["cc-by-4.0", "cc0-1.0", "other", "unknown"],
        "size_categories": ["n<1K"],
        "task_categories": ["text-generation"],
        "configs": [
            {"config_name": "documents", "data_files": "documents/*/*.parquet", "default": True},
            {"config_name": "decisions-unfiltered", "data_files": "decisions/unfiltered/*/*.parquet"},
            {"config_name": "decisions-filtered", "data_files": "decisions/filtered/*/*.parquet"},
        ],
    }


def test_sums_and_shares():
    text = card(stats())
    assert "202 records read = 200 documents + 2 rejected + 0 merged" in text
    assert _rows(text, "Variants")[2:] == [
        ["unfiltered", "200", "100 %", "9,500", "500"],
        ["filtered", "41", "20.5 %", "4,050", "0"],
    ]
    assert _rows(text, "Sources")[2:] == [
        ["books", "books", "40", "40", "58.6 KiB", "4,000", "4,000"],
        ["web", "warc", "162", "160", "234 KiB", "6,000", "50"],
    ]
    assert _rows(text, "Languages")[2:] == [
        ["`en`", "160", "160", "41"],
        ["`no`", "30", "30", "0"],
        ["*undetermined*", "10", "10", "0"],
    ]
    left_out = _rows(text, "What was left out, and why")
    assert ["`http_status`", "a web response other than 200", "2"] in left_out
    assert left_out[-1] == ["`gopher_words`", "rules", "words outside 50 to 100,000", "159", "79.5 %", "5,791"]
    assert _rows(text, "E-mail and IP addresses")[2:] == [
        ["books", "masked", "3", "3", "3", "1", "1", "1"],
        ["web", "as found", "7", "7", "1", "2", "2", "0"],
    ]
    classifier = ["documents held out of the fit", "50", "60", "0.900", "0.800 to 0.970", "mostly right"]
    assert _rows(text, "Quality classifier")[2:] == [classifier]


def test_the_shift_from_the_first_variant():
    rows = {row[0]: row[1:] for row in _rows(card(stats()), "What filtering shifts: from unfiltered to the others")}
    assert rows["mean length, bytes"] == ["1,500", "1,500"]
    assert rows["median length"] == ["1 KiB to 2 KiB"] * 2
    assert rows["documents of quality 0.5 or more"] == ["30.0 %", "100 %"]  # 60 of 200
    assert rows["language `en`, of documents"] == ["80.0 %", "100 %"]
    assert rows["source books, of tokens"] == ["40.0 %", "98.8 %"]
    assert rows["moved: languages"] == ["", "20.0 %"]
    assert rows["moved: lengths"] == ["", "0 %"]
    assert rows["moved: quality"] == ["", "70.0 %"]
    assert rows["moved: sources"] == ["", "58.8 %"]


def test_limits_are_stated_where_they_hold():
    limits = card(stats()).split("## Known limits\n\n")[1].splitlines()
    assert limits == [
        "* filtered keeps 1 of 160 documents of web; 159 are dropped by gopher_words.",
        "* Inputs that could not be read to their end, and may have held more records: 1.",
        "* Documents without a perplexity, which no cut by perplexity judges: 40. Languages without a model: `no`.",
        "* Documents that state no license: 155.",
        "* Documents whose language could not be told: 10.",
        "* E-mail and IP addresses of web in the shards as they were found: up to 9 in a variant.",
        "* The fit of the quality classifier did not converge.",
        "* Every document has one language, told by a model: of short and mixed texts it is less sure.",
        "* Toxicity and terms of identity are not counted, so what the filters shift in them is not known.",
    ]


def test_a_source_without_documents_one_variant_and_no_models():
    found = stats()
    found["sources"]["web"] = None
    found["variants"] = ["unfiltered"]
    found["classifier"] = None
    found["recipe"] = found["recipe"].replace("fit:", "#").replace(", filtered: {default: {rules: [gopher]}}", "")
    text = card(found)
    for said in ("* The source web has no document.", "There is one variant.", "has a quality score", "No perplexity was computed"):
        assert said in text
    assert "moved:" not in text


def test_one_is_no_plural():
    found = stats()
    assert "from 3 files (2 KiB) of 2 sources." in card(found)
    found["inputs"] = {"books": {"files": 1, "bytes": 1024}, "web": {"files": 0, "bytes": 0}}
    assert "from 1 file (1 KiB) of 2 sources." in card(found)


def test_an_empty_corpus_has_a_card_and_a_description():
    found = stats()
    found["sources"] = dict.fromkeys(found["sources"])
    for by_source in found["accounts"]["variants"].values():
        by_source |= dict.fromkeys(by_source, _decided(0, {}, {"train": 0, "validation": 0}))
    nothing = {"records": 0, "documents": 0, "merged": 0, "rejects": {}, "unknown_rests": 0}
    found["accounts"]["sources"] |= dict.fromkeys(found["sources"], nothing)
    assert "| unfiltered | 0 |  | 0 | 0 |" in card(found)
    assert "configs" not in _parts(card(found))[0]  # there is nothing to load
    assert "recordSet" not in croissant(found, {})


# -- what a corpus says stays text ------------------------------------------------------------------------------------------

_LIVE = {"link_open", "image", "html_inline", "html_block", "em_open", "strong_open", "s_open"}
_markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_odd = st.one_of(st.text(max_size=150), st.text(alphabet="`|\\<>[]()!*_~#&;:/@. \n\r\t\u2028\u202e\x00ab", max_size=60))


def _seen(text):
    """(types of all tokens, contents of code spans) of a document, as CommonMark with tables reads it."""
    tokens = [one for token in _markdown.parse(text) for one in (token, *(token.children or ()))]
    return [token.type for token in tokens], [token.content for token in tokens if token.type == "code_inline"]


@given(_odd)
def test_quoted_text_is_one_code_span_in_its_cell(text):
    kinds, spans = _seen(table(["a", "b"], [[quoted(text), 7]]))
    assert kinds.count("td_open") == kinds.count("th_open") == 2
    assert len(spans) == 1
    assert _LIVE.isdisjoint(kinds)
    assert spans[0].isprintable()
    assert len(spans[0]) <= 100


@settings(max_examples=50)
@given(_odd, _odd)
def test_odd_names_of_licenses_and_languages_change_nothing_around_them(license_, language):
    plain, odd = stats(), stats()
    for found, name, spoken in ((plain, "a license", "xx"), (odd, license_, language)):
        found["sources"]["web"]["licenses"]["largest"] = {name: 2}
        for profile in (found["sources"]["web"]["all"], found["sources"]["books"]["all"]):
            profile["languages"] = {"en": 10, spoken: 30}
        for source in found["sources"].values():
            source["without_perplexity"] = {spoken: 30}
    (_, before), (head, after) = (_parts(card(found)) for found in (plain, odd))
    assert head["language"] == languages(odd)
    assume(language not in ("en", "und"))
    assert _seen(after)[0] == _seen(before)[0]
    json.loads(json.dumps(croissant(odd, {})))


def test_a_hostile_license_is_shown_whole_and_harmless():
    kinds, spans = _seen(_parts(card(stats()))[1])
    assert "# Big [x](http://e.vil) <b>&lt; ![i](j) \u25a1c\u25a1 \u25a1 \\\u25a1 a@b.example \u25a1gnp ***" in spans
    assert (_LIVE - {"em_open"}).isdisjoint(kinds)


# -- names of other catalogues ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "ids"),
    [
        ("mit", ["MIT"]),
        ("MIT OR (Apache-2.0 AND BSD-3-Clause)", ["Apache-2.0", "BSD-3-Clause", "MIT"]),
        ("GPL-3.0-or-later WITH Classpath-exception-2.0", ["GPL-3.0-or-later"]),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", ["CC-BY-NC-SA-4.0"]),
        ("http://creativecommons.org/publicdomain/zero/1.0", ["CC0-1.0"]),
        ("https://creativecommons.org.e.vil/licenses/by/4.0/", []),
        ("Public domain in the USA", []),
        ("", []),
    ],
)
def test_a_statement_is_told_by_its_spdx_ids(statement, ids):
    assert spdx(statement) == ids


def test_the_hubs_ids_say_what_is_not_told():
    found = stats()
    found["sources"]["web"]["licenses"] = {"largest": {"GPL-3.0-or-later": 1, "LicenseRef-BSD": 1}, "others": 0, "without": 0}
    assert hub_licenses(found) == ["cc-by-4.0", "cc0-1.0", "gpl-3.0", "other"]
    assert licenses(found) == ["CC-BY-4.0", "CC0-1.0", "GPL-3.0-or-later"]


@pytest.mark.parametrize(
    ("documents", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**9 - 1, "100M<n<1B"), (10**12 - 1, "100B<n<1T"), (10**12, "n>1T")],
)
def test_sizes_are_the_hubs(documents, category):
    assert size_category(documents) == category


def test_a_language_is_stated_from_a_thousandth_of_a_variant_on():
    found = stats()
    kept = found["sources"]["books"]["variants"]["unfiltered"]["kept"]
    kept["languages"] = {"en": 99_700 - 150, "de": 100, "fr": 99, "und": 201 - 160}
    found["sources"]["web"]["variants"]["unfiltered"]["kept"]["languages"] = {"und": 160}
    found["sources"]["books"]["variants"]["filtered"]["kept"] = found["sources"]["web"]["variants"]["filtered"]["kept"]
    total = sum(kept["languages"].values()) + 160
    assert [name for name in ("de", "fr") if kept["languages"][name] * 1000 >= total] == ["de"]
    assert languages(found) == ["de", "en"]


# -- numbers ----------------------------------------------------------------------------------------------------------------

_counts = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**6), max_size=4)


@given(_counts, _counts)
def test_distance_is_the_total_variation(left, right):
    """Against its definition: the largest difference of the probability of any set."""
    found = distance(left, right)
    if not sum(left.values()) or not sum(right.values()):
        assert found is None
        return
    p, q = ({key: one.get(key, 0) / sum(one.values()) for key in "abcd"} for one in (left, right))
    subsets = [[key for place, key in enumerate("abcd") if number >> place & 1] for number in range(16)]
    assert found == pytest.approx(max(sum(p[key] - q[key] for key in some) for some in subsets), abs=1e-12)
    assert distance(right, left) == found


def test_licenses_of_a_part_are_counted_by_their_statement():
    import pyarrow as pa

    stated = pa.chunked_array([["MIT", None, " MIT\n", "", "   ", "x" * 300, "x" * 200 + "y"]], pa.string())
    assert _licenses(stated) == {"largest": {"MIT": 2, "x" * 200: 2}, "others": 0, "without": 3}


@given(st.dictionaries(st.integers(0, 10**6).map(str), st.integers(1, 99), max_size=150))
def test_licenses_that_are_cut_are_counted_with_the_others(largest):
    found = top_licenses({"largest": largest, "others": 7, "without": 3})
    assert len(found["largest"]) == min(len(largest), 100)
    assert sum(found["largest"].values()) + found["others"] == sum(largest.values()) + 7
    assert found["without"] == 3


def test_no_order_of_keys_shows():
    found = stats()
    shuffled = json.loads(json.dumps(copy.deepcopy(found), sort_keys=True))
    assert card(shuffled) == card(found)
    assert croissant(shuffled, {}) == croissant(found, {})


def test_evaluation_sets_and_terms_with_what_filtering_does_to_them():
    """books: 4 of 40 overlap, all kept; web: 6 of 160, none kept. Terms: 8 places in 3,960 tokens; 30 in 5,840, 1 in 49 kept."""
    found = stats()
    found["evaluations"] = {"mmlu": {"texts": 100, "too_short": 7}}
    found["terms"] = [{"name": "rude", "phrases": 3, "wordless": 0}]
    for name, overlapping, kept, places, left in (("books", 4, 4, 8, 8), ("web", 6, 0, 30, 1)):
        one = found["sources"][name]
        profiles = [one["all"], one["variants"]["unfiltered"]["kept"], one["variants"]["filtered"]["kept"]]
        for profile in profiles:
            profile |= {"contaminated": {"mmlu": overlapping}, "terms": [places]}
        one["variants"]["filtered"]["kept"] = {**profiles[2], "contaminated": {"mmlu": kept}, "terms": [left]}
    written = card(found)
    assert "| `mmlu` | 100 | 7 | 10 | 10 | 4 |" in written
    assert f"| `rude` | `web` | {30e6 / 5840:,.1f} | {30e6 / 5840:,.1f} | {1e6 / 49:,.1f} |" in written
    assert "Toxicity" not in written
    assert "Toxicity" in card(stats())
