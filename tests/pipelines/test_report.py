"""The report's numbers against the tables' accounts, its size on the worst corpus, its escaping, its determinism."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import distributions, figures, lists, mixture, words
from pipelines.report.page import LEVELS, LIMIT, draw, draw_with
from pipelines.schema import KEEP, Reason, RejectReason, Stage, stage_of
from quality.rules import FAMILIES

HOSTILE = "<script>alert(1)</script>\" onload='x' &amp; \u202egnp.exe\x07]]>"
_RULES = [rule for family in FAMILIES.values() for rule in family]


def stats(variants=("unfiltered", "filtered"), sources=("books", "web"), text="Some text.", scale=1, rejects=True):
    """A stats.json by hand: `scale` documents of every reason and variant; each text and name holds `text`."""
    reasons = [str(reason) for reason in Reason] + [rule.name for rule in _RULES]
    documents = 3 * scale + len(reasons) * scale
    sample = {"order": 5, "doc_id": "0" * 32, "locator": f"{text}#1", "title": text, "text": text, "cut": True}
    judged = {**sample, "value": 0.25, "threshold": None}
    profile = {
        "documents": documents,
        "bytes": 100 * documents,
        "lengths": [0] * 6 + [documents] + [0] * 25,
        "languages": {"en": documents - scale, "und": scale},
        "quality": [0] * 49 + [documents],
        "overlapping": 5 * scale,
        "contaminated": {"mmlu": 4 * scale, "squad": 3 * scale},
        "terms": [9 * scale, 0],
    }
    kept = {**profile, "documents": 3 * scale, "lengths": [0] * 6 + [3 * scale] + [0] * 25, "languages": {"en": 3 * scale}}
    kept |= {"overlapping": scale, "contaminated": {"mmlu": scale}, "terms": [2 * scale, 0]}
    account = {
        "records": documents + (2 * scale if rejects else 0),
        "documents": documents,
        "merged": 0,
        "rejects": {"not_text": scale, "http_status": scale} if rejects else {},
        "unknown_rests": 0,
    }
    decided = {
        "kept": 3 * scale,
        "dropped": dict.fromkeys(reasons, scale),
        "documents": {"train": 2 * scale, "validation": scale},
        "tokens": {"train": 20 * scale, "validation": 10 * scale},
    }
    one = {
        "documents": documents,
        "text_bytes": 100 * documents,
        "judged_bytes": 90 * documents,
        "tokens": 9 * documents,
        "dropped_paragraphs": 7 * scale,
        "hosts": {"largest": {f"{text}{n}.example": scale for n in range(30)}, "others": 0, "without": 1},
        "clusters": {kind: [0, 4 * scale] + [0] * 22 for kind in ("exact", "near")},
        "clustered": dict.fromkeys(("exact", "near"), 9 * scale),
        "largest": {kind: [{**sample, "size": 3}] for kind in ("exact", "near")},
        "all": profile,
        "variants": {
            variant: {
                "kept": kept,
                "tokens": {KEEP: 27 * scale, **dict.fromkeys(reasons, 9 * scale)},
                "samples": {reason: [judged, judged] for reason in [KEEP, *reasons]},
            }
            for variant in variants
        },
    }
    draw_of = {
        "draw": "pareto", "alpha": 9.0, "keep_rate": 0.3, "threshold": None, "shift": 1.5, "solved_threshold": 0.0,
        "expected_keep_rate": 0.3, "tokens": 1000, "sources": list(sources), "kept_tokens": 290,
    }  # fmt: skip
    mixed = mixture.account(*(dict.fromkeys(sources, tokens * scale) for tokens in (40, 30, 20)))
    auc = {"auc": 0.9, "low": 0.8, "high": 0.99, "curated_documents": 50, "web_documents": 60}
    measured = [{"source": source, "curated": True, **auc} for source in sources]
    return {
        "name": "tiny",
        "seed": 1,
        "variants": list(variants),
        "recipe": f"name: tiny\n# {text}\n",
        "accounts": {
            "sources": dict.fromkeys(sources, account),
            "variants": {variant: dict.fromkeys(sources, decided) for variant in variants},
        },
        "alarms": [],
        "inputs": {source: {"files": 2, "bytes": 12345} for source in sources},
        "rejects": {source: {"not_text": [{"locator": text, "detail": text, "count": 4}]} for source in sources},
        "sources": dict.fromkeys(sources, one),
        "draws": {variant: {"default": draw_of} for variant in variants},
        "removal": {source: {"host": 3, "url": 1} for source in sources},
        "against": {variant: {"duplicate_near": {f"{run}{text}"[:255]: 7 for run in range(9)}} for variant in variants},
        "mixture": {"tokens": 40 * scale * len(sources), "max_epochs": 4.0, "variants": dict.fromkeys(variants, mixed)},
        "rules": {
            variant: {rule.name: {"signal": rule.signal, "bounds": [[rule.low, rule.high]]} for rule in _RULES}
            for variant in variants
        },
        "evaluations": {name: {"texts": 1200, "too_short": 34} for name in ("arc", "mmlu", "squad")},
        "terms": [{"name": "rude", "phrases": 50, "wordless": 0}, {"name": "identity", "phrases": 1, "wordless": 1}],
        "classifier": {
            "metrics": {
                "l2": 1e-5,
                "converged": True,
                "held_out_slice": auc,
                "leave_one_source_out": measured,
                "judged_only": [],
                "documents": dict.fromkeys(sources, 50),
            }
        },
    }


class _Page(HTMLParser):
    """What a browser would see: elements with their attributes, and text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(page)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open[-1:]:
            self.words.append(data)


def test_the_page_is_self_contained_and_its_policy_allows_only_its_own_style():
    page = draw(stats())
    seen = _Page(page)
    tags = {tag for tag, _ in seen.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "form", "base", "style" if page.count("<style") > 1 else ""}
    for _, attributes in seen.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "src")}
        assert attributes.get("href", "#").startswith("#")
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(a["content"] for _, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style
    assert "@import" not in style


def test_every_element_is_closed():
    """Balanced by a stack, so that a phone's browser repairs nothing."""
    stack, void = [], {"meta", "br", "path", "rect", "circle", "line"}
    page = re.sub(r"<!doctype html>", "", draw(stats()))
    for closing, tag, rest in re.findall(r"<(/?)([a-zA-Z0-9]+)((?:\"[^\"]*\"|[^>\"])*)>", page):
        if closing:
            assert stack.pop() == tag
        elif not rest.endswith("/") and not (tag in void and tag not in ("path", "rect")):
            stack.append(tag)
    assert stack == []


def test_numbers_of_the_first_screen_are_the_accounts():
    given_stats = stats(scale=1000)
    text = _Page(draw(given_stats)).text
    account = given_stats["accounts"]["sources"]["web"]
    assert f"{2 * account['records']:,} records read = {2 * account['documents']:,} documents + 4,000 rejected" in text
    assert "6,000 documents kept" in text  # 3,000 of each source
    assert "60,000 tokens" in text


def test_a_funnel_adds_up_whatever_is_left_out():
    """By stage, by source, and with the smallest sources in one row: records and documents in equal records and documents out."""
    found = stats(sources=[f"s{n:02d}" for n in range(30)])
    for limit in (1, 2, 10, 30, 99):
        rows, total = figures.funnel(found, "filtered", limit)
        assert len(rows) == min(limit, 30)
        for row in [*rows, total]:
            assert row.records == row.documents + row.rejects + row.merged
            assert row.documents == row.kept + sum(row.dropped.values())
            assert row.kept == sum(row.kept_documents.values())
        for field in ("records", "documents", "kept"):
            assert sum(getattr(row, field) for row in rows) == getattr(total, field)
        steps = figures.steps(found, "filtered", total)
        assert steps[0]["documents"] == total.documents
        assert steps[-1]["documents"] == total.kept
        assert steps[-1]["tokens"] == 30 * 27
        assert all(a["documents"] - b["lost"] == b["documents"] for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("where", ["title", "text", "locator", "host", "detail", "recipe", "name"])
def test_hostile_text_shows_as_text_wherever_it_stands(where):
    found = stats()
    web = found["sources"]["web"] = copy.deepcopy(found["sources"]["web"])
    sample = web["variants"]["filtered"]["samples"]["language"][0]
    if where in ("title", "text", "locator"):
        sample.update({where: HOSTILE, "order": 0})  # the first to be shown
    elif where == "host":
        web["hosts"]["largest"] = {HOSTILE: 5}
    elif where == "detail":
        found["rejects"]["web"]["not_text"][0]["detail"] = HOSTILE
    else:
        found[where] = HOSTILE
    page = draw(found)
    seen = _Page(page)
    assert "script" not in {tag for tag, _ in seen.elements}
    assert all(not name.startswith("on") for _, attributes in seen.elements for name in attributes)
    assert "<script>alert(1)</script>" in seen.text
    if where not in ("recipe", "name"):
        assert "\u202e" not in page
        assert "\x07" not in page


@given(st.text())
def test_visible_leaves_no_character_that_changes_how_a_page_reads(text):
    seen = words.visible(text)
    assert len(seen) == len(text)
    assert all(c in "\n\t" or not (ord(c) < 32 or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069") for c in seen)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_share_is_nothing_or_everything_only_where_it_is(part, whole):
    part = min(part, whole)
    said = words.share(part, whole)
    assert (said == "0 %") == (part == 0)
    assert (said == "100 %") == (part == whole)


@pytest.mark.parametrize("text", ["Some text.", "&\"<>'" * 200, "\U0001f600" * 300, "\x00" * 300])
def test_the_worst_corpus_still_gives_a_page_under_200_kb(text):
    """Many variants, sources, reasons, hosts, languages; names of 64 characters; texts that grow fivefold when escaped."""
    names = [f"{n:02d}".ljust(64, "x") for n in range(40)]
    found = stats([f"v{n:02d}".ljust(64, "y") for n in range(30)], names, text, 10**12)
    one = next(iter(found["sources"].values()))
    one["hosts"]["largest"] = {text * 3 + str(n): 10**12 + n for n in range(200)}
    one["hosts"]["others"] = 10**12
    one["all"]["languages"] = {f"l{n:02d}": 10**12 for n in range(176)}
    one["all"]["lengths"] = [10**12 + n for n in range(32)]
    one["all"]["quality"] = [10**12 + n for n in range(50)]
    one["clusters"] = {kind: [10**12] * 24 for kind in ("exact", "near")}
    found["recipe"] = text * 5000
    for mine in found["accounts"]["sources"].values():
        mine["rejects"] = {str(reason): 10**12 for reason in RejectReason}
    found["alarms"] = [f"{n} ".ljust(250, "x") for n in range(1000)]  # bounded too; of names, counts and our own words
    found["mixture"]["max_epochs"] = 0.1  # warnings likewise
    named = [f"e{n:02d}".ljust(64, "z") for n in range(64)]
    found["evaluations"] = {name: {"texts": 10**12, "too_short": 10**12} for name in named}
    found["terms"] = [{"name": name, "phrases": 10**12, "wordless": 10**12} for name in named]
    for mine in found["sources"].values():
        for profile in (mine["all"], *(decided["kept"] for decided in mine["variants"].values())):
            profile |= {"contaminated": dict.fromkeys(named, 10**12), "terms": [10**12] * 64}
    page = draw(found)
    assert len(page.encode()) < LIMIT
    seen = _Page(page).text
    assert "994 more, in the tables below" in seen
    assert "33 others" in seen  # of 40 sources, 7 by name
    assert "27 more variants in stats.json" in seen
    assert "63 more sets in stats.json" in seen
    assert "63 more lists in stats.json" in seen


def test_an_ordinary_page_is_drawn_in_full():
    found = stats()
    assert draw(found) == draw_with(found, LEVELS[0])


def test_levels_only_ever_show_less():
    for fuller, leaner in itertools.pairwise(LEVELS):
        for field in fuller.__dataclass_fields__:
            assert getattr(leaner, field) <= getattr(fuller, field)


def test_a_page_does_not_depend_on_the_order_of_keys():
    """stats.json is written with sorted keys: drawing from values and from the file is the same."""
    found = stats(("zeta", "alpha"))
    again = json.loads(json.dumps(found, sort_keys=True))
    assert draw(again) == draw(json.loads(json.dumps(again)))
    text = _Page(draw(again)).text
    assert text.index("zeta") < text.index("alpha")


def _account(records, documents, merged=0, **rejects):
    return {"records": records, "documents": documents, "merged": merged, "rejects": rejects}


def _of(web):
    """Accounts of one variant: what it did with web, beside a source of which it keeps all."""
    web = {"tokens": {"train": 0}, **web}
    other = {"kept": 5, "dropped": {}, "tokens": {"train": 50}}
    read = _account(5, 5)
    return {"sources": {"other": read, "web": read}, "variants": {"v": {"other": other, "web": web}}}


@pytest.mark.parametrize(
    ("kept", "dropped", "said"),
    [
        (0, {"language": 70, "c4_sentences": 30}, ["v keeps 0 of 100 documents of web; 70 are dropped by language"]),
        (1, {"language": 70, "c4_sentences": 30}, ["v keeps 1 of 101 documents of web; 70 are dropped by language"]),
        (2, {"language": 70, "c4_sentences": 30}, []),  # 2 of 102: not under 1 %
        (0, {"language": 99}, []),  # too few documents to say so
        (0, {"language": 50, "mixture": 500}, []),  # good documents that the mixture has no room for
        (0, {"removed": 500, "language": 4}, []),  # taken back by the user
        (0, {"language": 500, "mixture": 5}, ["v keeps 5 of 505 documents of web; 500 are dropped by language"]),
    ],
)
def test_a_source_that_a_variant_wipes_out_almost_whole_raises_the_alarm(kept, dropped, said):
    accounts = _of({"kept": kept, "dropped": dropped})
    assert figures.alarms(accounts, {}) == said
    assert figures.alarms(accounts, {"web": {"alarm": True}}) == said
    assert figures.alarms(accounts, {"web": {"alarm": False}}) == []


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (
            _account(200, 0, missing_text=200),
            "0 documents came of 200 records of web; 200 are rejected as missing_text; name the field of the text under"
            " sources.web.fields",
        ),
        (_account(3, 0, malformed_json=2, too_large=1), "0 documents came of 3 records of web; 2 are rejected as malformed_json"),
        (_account(301, 3, malformed_json=298), "3 documents came of 301 records of web; 298 are rejected as malformed_json"),
        (_account(300, 3, malformed_json=297), None),  # 1 %
        (_account(300, 1, merged=2, malformed_json=297), None),  # answers in their question
        (_account(500, 1, redirect=499), None),  # a wiki has them
        (_account(500, 0, redirect=500), "0 documents came of 500 records of web; 500 are rejected as redirect"),
        (_account(0, 0), None),  # an empty file
    ],
)
def test_a_source_that_gives_almost_no_document_raises_the_alarm_whatever_its_size(account, said):
    accounts = {"sources": {"web": account}, "variants": {}}
    assert figures.alarms(accounts, {}) == ([] if said is None else [said])
    assert figures.alarms(accounts, {"web": {"alarm": False}}) == []


def test_a_variant_with_nothing_to_train_on_raises_the_alarm_whatever_its_size():
    accounts = _of({"kept": 0, "dropped": {"language": 50}})
    accounts["variants"]["v"]["other"] = {"kept": 0, "dropped": {"mixture": 5}, "tokens": {"train": 0}}
    said = "v has nothing to train on; of 55 documents 50 are dropped by language"
    assert figures.alarms(accounts, {}) == figures.alarms(accounts, {"web": {"alarm": False}}) == [said]
    assert figures.alarms(accounts, {name: {"alarm": False} for name in ("other", "web")}) == []
    for mine in accounts["variants"]["v"].values():
        mine.update(kept=1, dropped={})
    assert figures.alarms(accounts, {}) == ["v has nothing to train on; of 2 documents all are held out"]
    for mine in accounts["variants"]["v"].values():
        mine.update(kept=0)
    assert figures.alarms(accounts, {}) == []  # a corpus without a document


def test_alarms_stand_on_the_page_before_the_numbers():
    found = {**stats(), "alarms": ["v keeps <0>"]}
    page = draw(found)
    assert 0 < page.index('class="alarm"') < page.index("v keeps &lt;0&gt;") < page.index('class="proof"')
    assert 'class="alarm"' not in draw(stats())


def test_keep_rates_are_shown_as_asked_expected_and_got():
    (row, _) = distributions.draws(stats(), ["unfiltered", "filtered"])
    assert (row["asked"], row["expected"], row["got"]) == ("30.00%", "30.00%", "29.00%")
    assert row["law"] == "Pareto draw, alpha 9, scores moved by +1.50 on the logit scale"
    text = _Page(draw(stats())).text
    assert "30.00% 30.00% 29.00%" in re.sub(r"(?<=%)(?=\d)", " ", text)


def test_a_mixture_is_shown_as_asked_and_got_and_adds_up_whatever_is_left_out():
    found = stats(sources=[f"s{n:02d}" for n in range(30)])
    for variant in found["mixture"]["variants"]:
        told = {f"s{n:02d}": (n + 1) * 1000 for n in range(30)}
        found["mixture"]["variants"][variant] = mixture.account(told, dict.fromkeys(told, 4000), dict.fromkeys(told, 4000))
    for limit in (2, 10, 30, 99):
        rows = mixture.shown(found, "filtered", limit)["rows"]
        assert len(rows) == min(limit, 30)
        assert [sum(row[key] for row in rows) for key in ("wanted", "available")] == [465_000, 120_000]
    rows = mixture.shown(found, "filtered", 3)["rows"]
    assert [row["source"] for row in rows] == ["s28", "s29", "28 others"]  # those with the largest share by name
    assert (rows[0]["asked"], rows[0]["epochs"], rows[2]["epochs"]) == ("6.2 %", "7.25", "")
    warnings = mixture.shown(found, "filtered", 3)["warnings"]
    assert len(warnings) == 14  # 17,000 wanted of 4,000 and more: over 4 epochs
    text = _Page(draw(found)).text
    assert "What a training run of 1,200 tokens asks" in text
    assert warnings[0] in text
    assert f"{14 - 6} more in stats.json" in text


def test_a_run_without_a_mixture_has_no_such_section():
    found = stats()
    assert 'href="#mixture"' in draw(found)
    found["mixture"] = None
    assert "Mixture" not in draw(found)


def test_evaluation_sets_are_shown_by_documents_that_overlap_and_add_up():
    found = stats(sources=[f"s{n:02d}" for n in range(30)])
    sets, left_out = lists.evaluations(found, ["unfiltered", "filtered"], LEVELS[0])
    assert [one["name"] for one in sets] == ["mmlu", "squad", "arc"]
    assert left_out == 0
    assert (sets[0]["total"]["overlapping"], sets[0]["total"]["kept"], sets[2]["rows"]) == (120, [30, 30], [])
    for limit in LEVELS:
        shown, left_out = lists.evaluations(found, ["filtered"], limit)
        assert len(shown) + left_out == 3
        for one in shown[:2]:
            assert len(one["rows"]) == limit.sources // 2
            for key in ("documents", "overlapping"):
                assert sum(row[key] for row in one["rows"]) == one["total"][key]
    text = _Page(draw(stats())).text
    assert "1,200 texts, 34 of them too short to look for. No document overlaps." in text
    found["evaluations"] = {}
    assert "Evaluation sets" not in draw(found)


def test_terms_are_shown_per_million_tokens_before_and_after():
    found = stats(sources=["web"])
    (rude, identity), left_out = lists.terms(found, ["filtered"], LEVELS[0])
    (row,) = rude["rows"]
    tokens = found["sources"]["web"]["tokens"]
    assert row["before"] == pytest.approx(9e6 / tokens)
    assert row["after"] == [(pytest.approx(2e6 / 27), f"{round(100 * 2 / 27 * tokens / 9) - 100:+d} %")]
    assert (identity["rows"][0]["before"], identity["rows"][0]["after"], left_out) == (0, [(0, "")], 0)
    assert lists.terms(found, ["filtered"], LEVELS[-1])[1] == 1
    text = _Page(draw(found)).text
    assert text.index("rude") < text.index("identity")  # the recipe's order
    assert "1 word or phrase, 1 of them without a letter or number." in text
    found["terms"] = []
    assert 'id="terms"' not in draw(found)


def test_a_source_of_which_nothing_is_kept_has_no_rate():
    found = stats(sources=["web"])
    web = found["sources"]["web"]["variants"]["filtered"]
    web["kept"], web["tokens"] = {**web["kept"], "terms": []}, {"language": 3}
    assert lists.terms(found, ["filtered"], LEVELS[0])[0][0]["rows"][0]["after"] == [(None, "")]


def test_hosts_are_called_lower_bounds_only_where_they_are():
    found = stats()
    assert "lower bounds" not in draw(found)
    found["sources"]["web"]["hosts"]["others"] = 3
    assert "lower bounds" in draw(found)


def test_every_reason_has_plain_words():
    for reason in [*Reason, *RejectReason]:
        assert words.gloss(reason, {}), reason
    rules = stats()["rules"]["filtered"]
    assert words.gloss("gopher_words", rules) == "words outside 50 to 100,000"
    assert words.gloss("c4_sentences", rules) == "c4 sentences under 3"
    both = {"c4_sentences": {"signal": "c4_sentences", "bounds": [[3, None], [5, None]]}}
    assert words.gloss("c4_sentences", both) == "c4 sentences under 3 or under 5"


def test_every_stage_has_a_colour_of_its_own():
    page = draw(stats())
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", page.split("@media")[0]))
    for stage in Stage:
        assert f".s-{stage} {{ fill: var(--{stage}); background: var(--{stage}); }}" in page
    assert len({colours[stage] for stage in Stage}) == len(Stage)
    assert {stage_of(reason) for reason in Reason} | {Stage.RULES} == set(Stage)


@pytest.mark.parametrize(
    ("auc", "low", "documents", "said"),
    [
        (0.3, 0.2, 500, "worse than a guess: it takes these curated texts for web text"),
        (0.99, 0.98, 500, "almost always right"),
        (0.9, 0.8, 500, "mostly right"),
        (0.75, 0.7, 500, "right more often than not"),
        (0.6, 0.55, 500, "little better than a guess"),
        (0.9, 0.5, 500, "not shown to be better than a guess"),
        (1.0, 1.0, 7, "almost always right, but on few documents"),
        (None, None, 0, "not measured: one side has no document"),
    ],
)
def test_an_auc_is_said_in_words(auc, low, documents, said):
    one = {"auc": auc, "low": low, "high": auc and 2 * auc - low, "curated_documents": documents, "web_documents": 500}
    assert words.verdict_of_auc(one) == said


def test_an_empty_corpus_has_a_page_too():
    found = stats(rejects=False, scale=0)
    found["sources"] = dict.fromkeys(found["sources"])
    found["classifier"], found["rejects"] = None, {}
    found["draws"] = {variant: {} for variant in found["variants"]}
    text = _Page(draw(found)).text
    assert "0 records read = 0 documents + 0 rejected + 0 merged" in text
    assert "No near duplicates." in text


def test_samples_are_cut_and_say_so():
    found = stats(text="word " * 50)
    page = html.unescape(draw_with(found, LEVELS[1]))
    shown = re.findall(r'<pre dir="auto">(.*?)</pre>', page, re.S)
    assert shown
    assert all(len(one) <= LEVELS[1].excerpt + len(" <i>[…]</i>") and one.endswith("[…]</i>") for one in shown)
