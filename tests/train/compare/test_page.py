"""The comparison's page against the result that it is drawn from: every number, every missing part, hostile names, determinism.

The result is constructed: bits with a built-in effect of each arm and noise from hashes of what they belong to. What follows from
bits is taken by `train.compare.result`, as the comparison itself does.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import html
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import svg
from train.compare import page_figures, shares
from train.compare.jobs import Arm, Contrast, jobs
from train.compare.page import headline, render
from train.compare.result import bias_by_arm, judge_all
from train.verdict import MARGIN, Verdict

HOSTILE = "<script>alert(1)</script>\" onload='x' &amp; \u202egnp.exe\x07]]>"
SETS = {"encyclopedia": "positives", "news": "unseen", "questions": "unseen", "latex": "unseen", "crawl": "web", "spam": "junk"}
ENDPOINT = ["latex", "news", "questions"]
ORDER = ["encyclopedia", *ENDPOINT, "crawl", "spam"]  # by group, then name
RATE, TOKENS, EXPERTS, DOCUMENTS = 0.004, 1_499_136, 8, 24
# Bits per byte that each pool is away from the second arm's, on curated sets; junk goes the other way.
EFFECTS = {
    "unfiltered": 0.0, "filtered": -0.045, "matched": -0.012, "random": 0.001, "cut": -0.038, "second": -0.03,
    "glam_unfiltered": -0.1, "glam_filtered": -0.118,
    "filtered_8": -0.02, "filtered_64": 0.11, "matched_8": 0.015, "matched_64": 0.14,
    "raw": 0.09, "deduplicated": 0.055, "language": 0.03,
    "filtered_rate_half": 0.02, "unfiltered_rate_half": 0.06, "filtered_rate_twice": 0.01, "unfiltered_rate_twice": 0.052,
    "filtered_doubled": -0.11, "unfiltered_doubled": -0.07,
}  # fmt: skip
CONTRASTS = [
    ("primary", "filtered", "unfiltered", "What is the filter worth: filtered against unfiltered?", ("quality",), 8),
    ("matched", "filtered", "matched", "Is it the choice of documents, at equal sources and lengths?", (), 5),
    ("sources", "matched", "unfiltered", "Is it the choice of sources and lengths?", (), 5),
    ("aa", "random", "unfiltered", "Does the machinery find a difference where there is none?", (), 5),
    ("cut", "filtered", "cut", "Does GLaM's draw gain over a hard cut at the same keep rate?", (), 5),
    ("second", "second", "unfiltered", "Does a filter whose classifier learned from books do it too?", (), 5),
    ("positives", "filtered", "second", "How much hangs on the positives (against books)?", (), 5),
    ("glam", "glam_filtered", "glam_unfiltered", "Is it seen in GLaM's mixture: 42 % web, 58 % curated?", ("quality",), 5),
    ("sweep_8", "filtered_8", "unfiltered", "Is a pool of one in 8, gone through more often, still better?", (), 3),
    ("sweep_8_matched", "filtered_8", "matched_8", "At one in 8 of both pools, is it the choice of documents?", (), 3),
    ("sweep_64", "filtered_64", "unfiltered", "Is a pool of one in 64, gone through more often, still better?", (), 3),
    ("sweep_64_matched", "filtered_64", "matched_64", "At one in 64 of both pools, is it the choice of documents?", (), 3),
    ("ladder_deduplicated", "deduplicated", "raw", "What does the step from raw to deduplicated give?", ("exact", "near"), 3),
    ("ladder_language", "language", "deduplicated", "What does the step to language give?", ("languages",), 3),
    ("ladder_unfiltered", "unfiltered", "language", "What does the step to unfiltered give?", ("rules",), 3),
    ("rate_half", "filtered_rate_half", "unfiltered_rate_half", "Does the gap hold at half the learning rate?", ("quality",), 2),
    ("rate_twice", "filtered_rate_twice", "unfiltered_rate_twice", "Does it hold at twice the learning rate?", ("quality",), 2),
    ("doubled", "filtered_doubled", "unfiltered_doubled", "Does it hold at twice the tokens?", ("quality",), 3),
]
PRONOUNS = ["all", "her/her/she", "his/him/he"]
CATEGORIES = [
    "all", "age", "disability", "gender", "nationality", "physical-appearance", "race-color", "religion", "socioeconomic",
]  # fmt: skip


def noise(*parts):
    """A number from -1 to 1 that only what it is of decides."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**63 - 1


def construct(seeds=8, names=(), rename=str):
    """(result.json, costs.json) of a comparison with so many seeds of the primary contrast. names: contrasts, default all;
    rename: what every domain and arm is called."""
    taken = [
        Contrast(name, rank, *(Arm(rename(arm), rename(arm)) for arm in arms), min(most, seeds), question, steps)
        for rank, (name, *arms, question, steps, most) in enumerate(CONTRASTS)
        if not names or name in names
    ]
    documents = [
        {
            "domain": rename(domain),
            "doc": f"{domain}#{n}",
            "cluster": f"{domain}{n // 2}",
            "bytes": 900 + 37 * n,
            "leaked": {5: "ngram", 11: "jaccard"}.get(n),
        }
        for domain in SETS
        for n in range(DOCUMENTS)
    ]
    called = {rename(arm): arm for arm in EFFECTS}
    runs = [_run(called[job.arm.name], job.seed, documents, job.arm.name) for job in jobs(taken, RATE, TOKENS)]
    scores = {(run["arm"], run["seed"]): run for run in runs}
    endpoint = [rename(name) for name in ENDPOINT]
    contrasts = judge_all(taken, scores, documents, endpoint)
    pair = [rename("filtered"), rename("unfiltered")]
    result = {
        "format": 1,
        "id": "c-7f3a",
        "recipe": "sample",
        "settings": {"arms": pair, "tokens": 1_500_000, "seeds": seeds},
        "primary": pair,
        "endpoint": endpoint,
        "verdict": contrasts[0]["sentence"],
        "model": {
            "preset": "glam-tiny", "parameters": 3_412_736, "active_parameters": 1_290_368, "flops_per_token": 7_742_208,
            "context": 256, "vocab_size": 8192,
        },
        "rate": {"chosen": RATE, "pilot": [{"rate": one, "loss": 4.1 + 5e3 * (one - RATE) ** 2} for one in (0.008, 0.002, RATE)]},
        "pools": {run["arm"]: _pool(called[run["arm"]]) for run in runs},
        "sets": {rename(domain): _set(rename(domain), group, documents) for domain, group in SETS.items()},
        "contrasts": contrasts,
        "experts": {
            "mean": [{key: value for key, value in _information(arm, 0).items() if key != "layer"} for arm in pair],
            "layers": [_information(arm, layer) for arm in pair for layer in (0, 1)],
            "routing": {arm: {rename(name): [_routing(arm, name, layer) for layer in (0, 1)] for name in SETS} for arm in pair},
        },
        "tasks": {
            task: {arm: _task(task, arm, chance) for arm in pair}
            for task, chance in (("piqa", 0.5), ("arc_easy", 0.25), ("lambada_openai", None), ("arc_easy, 5 shots", 0.25))
        },
        "task_differences": {"piqa": _difference("piqa", "all")},
        "bias": {
            test: {
                "arms": {arm: {one: _bias(test, arm, one, middle) for one in of} for arm in pair},
                "differences": {one: _difference(test, one) for one in of},
            }
            for test, of, middle in (("crows_pairs", CATEGORIES, 0.55), ("toxic", ["all"], 0.03), ("winogender", PRONOUNS, 0.5))
        },
        "limits": ["A model of 3 M parameters: what a larger one makes of the filter is not shown.", "English only."],
        "documents": documents,
        "runs": runs,
    }  # fmt: skip
    lengths = {"pilot_0.004-s0": TOKENS, **{run["job"]: run["tokens"] for run in runs}}
    return result, {"runs": {job: _costs(job, tokens) for job, tokens in lengths.items()}}


def _run(arm, seed, documents, name):
    curated = {"positives": 1.4, "unseen": 1.0, "web": -0.3, "junk": -1.2}
    bits = []
    for place, one in enumerate(documents):
        domain = one["doc"].partition("#")[0]
        effect = EFFECTS[arm] * curated[SETS[domain]] + (0.05 if one["leaked"] and arm == "unfiltered" else 0)
        level = 2.1 + 0.2 * noise(domain) + effect + 0.012 * noise(arm, seed) + 0.02 * noise(seed) + 0.1 * noise(place)
        bits.append(one["bytes"] * (level + 0.03 * noise(arm, seed, place)))
    tokens = TOKENS * (2 if arm.endswith("doubled") else 1)
    curve = [[tokens * n // 100, 3.6 + 5.4 * math.exp(-n / 9) + EFFECTS[arm] + 0.05 * noise(arm, seed, n)] for n in range(1, 101)]
    rate = RATE * (0.5 if arm.endswith("half") else 2 if arm.endswith("twice") else 1)
    return {
        "job": f"{name}-s{seed}", "arm": name, "pool": name, "seed": seed, "rate": rate, "tokens": tokens,
        "flops": 7_742_208 * tokens, "epochs": 0.7 * _divisor(arm), "bits": bits, "curve": curve,
    }  # fmt: skip


def _divisor(arm):
    return int(arm.rpartition("_")[2]) if arm[-1].isdigit() else 1


def _pool(arm):
    tokens = 2_100_000 // _divisor(arm)
    parts = {"mail": tokens // 3, "pages": tokens - tokens // 3}
    sources = {source: {"documents": part // 800, "tokens": part} for source, part in parts.items()}
    documents = sum(one["documents"] for one in sources.values())
    return {"tokens": tokens, "documents": documents, "sources": sources, "made": f"Documents as {arm} takes them."}


def _set(name, group, documents):
    mine = [one for one in documents if one["domain"] == name]
    left = [one for one in mine if one["leaked"] is None]
    return {
        "group": group, "documents": len(left), "bytes": sum(one["bytes"] for one in left),
        "clusters": len({one["cluster"] for one in left}),
        "removed": {kind: sum(one["leaked"] == kind for one in mine) for kind in ("ngram", "jaccard")},
        "removed_bytes": sum(one["bytes"] for one in mine if one["leaked"]),
    }  # fmt: skip


def _information(arm, layer):
    shuffled = 0.01 + 0.002 * noise(arm, layer)
    found = {"information_bits": 0.11 + 0.03 * noise(layer, arm), "shuffled_mean": shuffled, "shuffled_95": 1.4 * shuffled}
    return {"layer": layer, "arm": arm, **found, "p": 1 / 201, "seeds": 8, "above": 8}


def _routing(arm, domain, layer):
    weights = [1 + 0.5 * noise(arm, domain, layer, n) for n in range(EXPERTS)]
    return [weight / sum(weights) for weight in weights]


def _task(task, arm, chance):
    acc = (chance or 0.1) + 0.04 + 0.03 * noise(task, arm)
    margin = None if chance is None else noise(task, arm)
    return {"acc": acc, "low": acc - 0.03, "high": acc + 0.03, "chance": chance, "margin": margin, "items": 1838}


def _bias(test, arm, category, middle):
    share = middle * (1 + 0.2 * noise(test, arm, category))
    wide = 0.01 if test == "toxic" else 0.08
    return {"share": share, "low": max(0.0, share - wide), "high": share + wide, "items": 1000 if test == "toxic" else 160}


def _difference(test, category):
    middle, items = 0.02 * noise(test, category), 1000 if test == "toxic" else 160
    ends = {"low": middle - 0.03, "high": middle + 0.03, "flip_p": 0.25}
    return {"difference": middle, **ends, "items": items, "clusters": 80, "seeds": 8}


def _costs(job, tokens):
    seconds = tokens / (4200 + 300 * noise(job))
    energy = {"kwh": 10 * seconds * 1.1 / 3.6e6, "watts": 10.0, "pue": 1.1, "measured": False, "basis": "estimate"}
    return {"seconds": seconds, **energy, "tokens_per_second": tokens / seconds}


class Page(HTMLParser):
    """What a browser would see: elements, and by section (its h2's id, "" before the first) text, tables and figures."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.at = [], [], ""
        self.words, self.tables, self.figures = {"": []}, {"": []}, {"": []}
        self.feed(page)
        self.text = {name: " ".join("".join(words).split()) for name, words in self.words.items()}

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        self.open.append(tag)
        if tag == "h2" and "id" in attributes:
            self.at = attributes["id"]
            for found in (self.words, self.tables, self.figures):
                found[self.at] = []
        elif tag == "table":
            self.tables[self.at].append([])
        elif tag == "tr":
            self.tables[self.at][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.at][-1][-1].append("")
        elif tag == "svg":
            self.figures[self.at].append({"title": "", "desc": "", "text": "", **attributes, "parts": []})
        elif "svg" in self.open:
            self.figures[self.at][-1]["parts"].append((tag, attributes))
        if tag in ("br", "p", "div", "span"):
            self.words[self.at].append(" ")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass
        if tag in ("td", "th", "p", "div", "li"):
            self.words[self.at].append(" ")

    def handle_data(self, data):
        if "svg" in self.open:
            kind = self.open[-1] if self.open[-1] in ("title", "desc", "text") else None
            if kind:
                self.figures[self.at][-1][kind] += f"{data}|" if kind == "text" else data
            return
        if self.open[-1:] == ["style"]:
            return
        self.words[self.at].append(data)
        if "table" in self.open and ("td" in self.open or "th" in self.open):
            self.tables[self.at][-1][-1][-1] += data

    def rows(self, section, number=0):
        """The body of a table: cells with their blanks joined."""
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[section][number][1:]]


@pytest.fixture(scope="module")
def made():
    return construct()


@pytest.fixture(scope="module")
def page(made):
    return Page(render(*made))


def named(result, name):
    return next(one for one in result["contrasts"] if one["name"] == name)


def ends(finding):
    return f"{finding['low']:+.4f} to {finding['high']:+.4f}"


def over(result, first, second, seeds):
    """The finding of two arms that no contrast has, by the comparison's own judge."""
    contrast = Contrast("x", 0, Arm(first, first), Arm(second, second), seeds, "")
    scores = {(run["arm"], run["seed"]): run for run in result["runs"]}
    return judge_all([contrast], scores, result["documents"], result["endpoint"])[0]["endpoint"]


# -- every number is the result's ---------------------------------------------------------------------------------------------


def test_the_first_screen_says_verdict_gap_interval_and_seeds(made, page):
    result = made[0]
    finding = named(result, "primary")["endpoint"]
    assert finding["verdict"] == Verdict.BETTER  # the constructed effect is found
    first = page.text[""]
    assert f"filtered is better than unfiltered: it needs {finding['gap']:.4f} fewer bits for each byte of text." in first
    assert f"Gap {finding['gap']:+.4f} bits per byte, 95 % interval {ends(finding)}; 8 paired seeds, 36 clusters" in first
    assert f"sign-flip p {finding['flip_p']:.4g}" in first
    assert "Because of the documents' quality: see the controls." in first
    assert result["verdict"] in first
    for name in ("primary", "matched", "sources", "aa"):
        one = named(result, name)["endpoint"]
        assert f"{one['gap']:+.4f} {ends(one)}, {one['seeds']} paired seeds" in first


def test_gaps_by_domain_stand_by_group_with_the_endpoint_first(made, page):
    primary = named(made[0], "primary")
    expected = [("Primary endpoint", primary["endpoint"]), *((name, primary["domains"][name]) for name in ORDER)]
    assert page.rows("gaps") == [
        [
            name,
            f"{one['gap']:+.4f}",
            ends(one),
            f"{100 * one['level']:.4g} %",
            f"{one['flip_p']:.4g}",
            str(one["clusters"]),
            " ".join(f"{gap:+.4f}" for gap in one["seed_gaps"]),
        ]
        for name, one in expected
    ]


def test_bits_per_byte_of_an_arm_are_means_over_its_runs_without_leaked_documents(made, page):
    result = made[0]
    header, *_ = page.tables["gaps"][1]
    assert [cell.strip() for cell in header] == ["arm", "runs", "endpoint", *ORDER]
    rows = {row[0]: row[1:] for row in page.rows("gaps", 1)}
    assert set(rows) == set(EFFECTS)
    for arm, (count, endpoint, *cells) in rows.items():
        runs = [run for run in result["runs"] if run["arm"] == arm]
        found = {}
        for domain in SETS:
            at = [n for n, one in enumerate(result["documents"]) if one["domain"] == domain and one["leaked"] is None]
            size = sum(result["documents"][n]["bytes"] for n in at)
            found[domain] = sum(sum(run["bits"][n] for n in at) / size for run in runs) / len(runs)
        assert count == str(len(runs))
        assert float(endpoint) == pytest.approx(sum(found[name] for name in ENDPOINT) / 3, abs=6e-5)
        assert list(map(float, cells)) == pytest.approx([found[cell.strip()] for cell in header[3:]], abs=6e-5)


def test_points_intervals_and_seeds_are_drawn_where_their_numbers_are(made, page):
    """The axis' labels give the scale; every row of the gap plot is measured with it."""
    primary = named(made[0], "primary")
    axis, *rows = page.figures["gaps"][:8]
    places = [float(part["x"].rstrip("%")) for tag, part in axis["parts"] if tag == "text"]
    labels = list(map(float, axis["text"].strip("|").split("|")))
    slope = (labels[-1] - labels[0]) / (places[-1] - places[0])

    def value(place):
        return labels[0] + slope * (float(place.rstrip("%")) - places[0])

    findings = [primary["endpoint"], *(primary["domains"][name] for name in ORDER)]
    for figure, finding in zip(rows, findings, strict=True):
        parts = figure["parts"]
        (point,) = [one for _, one in parts if one.get("class") == "point"]
        (bar,) = [one for _, one in parts if one.get("class") == "whisker"]
        (band,) = [one for _, one in parts if one.get("class") == "band"]
        seeds = [value(one["cx"]) for _, one in parts if one.get("class") == "seed"]
        assert value(point["cx"]) == pytest.approx(finding["gap"], abs=2e-5)
        assert [value(bar["x1"]), value(bar["x2"])] == pytest.approx([finding["low"], finding["high"]], abs=2e-5)
        assert seeds == pytest.approx(finding["seed_gaps"], abs=2e-5)
        assert value(band["x"]) == pytest.approx(-MARGIN, abs=2e-5)
        assert float(band["width"].rstrip("%")) * slope == pytest.approx(2 * MARGIN, abs=4e-5)
        assert f"gap {finding['gap']:+.4f}, {ends(finding)}" in figure["title"]
        assert all(f"{gap:+.4f}" in figure["desc"] for gap in finding["seed_gaps"])


def finding_row(one, endpoint=None):
    found = endpoint or one["endpoint"]
    numbers = [f"{found['gap']:+.4f}", ends(found), "95 %", str(found["seeds"]), f"{found['flip_p']:.4g}", found["verdict"]]
    return [one["first"], one["second"], *numbers]


def test_controls_ask_their_questions_and_show_their_findings(made, page):
    controls = [named(made[0], name) for name in ("primary", "matched", "sources", "aa", "cut", "second", "positives", "glam")]
    assert page.rows("controls") == [finding_row(one) for one in controls]
    for one in controls:
        assert f"{one['first']} against {one['second']} {one['question']}" in page.text["controls"]
    for one in made[0]["contrasts"]:
        assert one["sentence"] in page.text["controls"]
    by_domain = {row[0]: row[1:] for row in page.rows("controls", 1)}
    cut = named(made[0], "cut")["domains"]
    assert by_domain["cut"] == [f"{cut[name]['gap']:+.4f}{ends(cut[name])}" for name in ORDER]
    pools = {row[0]: row[1:] for row in page.rows("controls", 2)}
    assert pools["filtered_8"] == ["327", "262,500", "mail 87,500, pages 175,000", "Documents as filtered_8 takes them."]


def test_the_ladder_stands_on_the_step_before_and_on_its_foot(made, page):
    result = made[0]
    steps = [named(result, f"ladder_{name}") for name in ("deduplicated", "language", "unfiltered")] + [named(result, "primary")]
    assert page.rows("ladder", 0) == [finding_row(one) for one in steps]
    assert page.rows("ladder", 1) == [
        finding_row({"first": one["first"], "second": "raw"}, over(result, one["first"], "raw", 3)) for one in steps
    ]


def test_the_pool_sweep_holds_the_first_arm_and_matched_random_in_parts(made, page):
    result = made[0]
    expected = []
    for whole, pairs in (
        ("primary", [named(result, "sweep_8"), named(result, "sweep_64")]),
        ("sources", [{"first": f"matched_{n}", "second": "unfiltered"} for n in (8, 64)]),
        ("matched", [named(result, "sweep_8_matched"), named(result, "sweep_64_matched")]),
    ):
        for part, one in zip((1, 8, 64), [named(result, whole), *pairs], strict=True):
            found = one.get("endpoint") or over(result, one["first"], one["second"], 3)
            tokens, epochs = f"{2_100_000 // part:,}", f"{0.7 * part:.4g}"
            numbers = [f"{found['gap']:+.4f}", ends(found), str(found["seeds"])]
            expected.append([one["first"], one["second"], f"1/{part}" if part > 1 else "whole", tokens, epochs, *numbers])
    assert page.rows("sweep") == expected
    (chart,) = page.figures["sweep"]
    assert len([one for _, one in chart["parts"] if one.get("class", "").startswith("spot")]) == 9


def test_curves_end_where_the_runs_do(made, page):
    rows = {row[0]: row[1:] for row in page.rows("curves")}
    assert set(rows) == set(EFFECTS)
    for arm, cells in rows.items():
        last = [run["curve"][-1] for run in made[0]["runs"] if run["arm"] == arm]
        losses = [loss for _, loss in last]
        numbers = [f"{value:.4f}" for value in (math.fsum(losses) / len(losses), min(losses), max(losses))]
        assert cells == [str(len(last)), f"{last[0][0]:,}", *numbers]


def test_a_mean_curve_has_the_points_of_all_runs_only():
    runs = [{"curve": [[10, 4.0], [20, 3.0], [30, 2.0]]}, {"curve": [[10, 5.0], [20, 3.5]]}]
    group = page_figures.Group("a", "a", 0.1, 30, tuple(runs))
    assert page_figures.mean_curve(group) == [(10, 4.5, 4.0, 5.0), (20, 3.25, 3.0, 3.5)]


def test_pilot_rates_and_doubled_budget(made, page):
    result = made[0]
    losses = {one["rate"]: one["loss"] for one in result["rate"]["pilot"]}
    assert page.rows("rates") == [
        [f"{rate:g}", f"{losses[rate]:.4f}", "chosen" if rate == RATE else ""] for rate in (0.002, 0.004, 0.008)
    ]
    assert page.rows("rates", 1) == [finding_row(named(result, name)) for name in ("rate_half", "rate_twice", "doubled")]
    assert "at the end of those" not in page.text["rates"]
    edged = {**result, "rate": {**result["rate"], "chosen": 0.008}}
    assert "at the end of those that were tried" in Page(render(edged, {})).text["rates"]


def test_evaluation_sets_and_the_gap_before_removal(made, page):
    result = made[0]
    for row, name in zip(page.rows("sets"), ORDER, strict=True):
        one = result["sets"][name]
        assert row[0] == name + (" *" if name in ENDPOINT else "")
        assert row[1] == page_figures.GROUPS[one["group"]]
        left = [one[key] for key in ("documents", "bytes", "clusters")]
        removed = [one["removed"][kind] for kind in ("ngram", "jaccard")]
        assert row[2:] == [f"{number:,}" for number in (*left, *removed, one["removed_bytes"])]
    assert page.rows("sets", 1) == [
        [one["name"], *(cell for key in ("endpoint", "before_removal") for cell in (f"{one[key]['gap']:+.4f}", ends(one[key])))]
        for one in result["contrasts"]
    ]
    assert named(result, "primary")["before_removal"]["gap"] > named(result, "primary")["endpoint"]["gap"]  # the leak flatters


def test_experts_show_every_share_and_their_information(made, page):
    experts = made[0]["experts"]
    assert page.rows("experts") == [
        [arm, str(layer), name, " ".join(f"{100 * share:.1f}" for share in experts["routing"][arm][name][layer])]
        for arm in ("filtered", "unfiltered")
        for layer in (0, 1)
        for name in ORDER
    ]
    assert page.rows("experts", 1) == [
        [
            one["arm"],
            str(one["layer"]),
            *(f"{one[key]:.4f}" for key in ("information_bits", "shuffled_mean", "shuffled_95")),
            "8 of 8",
            f"{one['p']:.4g}",
        ]
        for one in [*({**one, "layer": "mean"} for one in experts["mean"]), *experts["layers"]]
    ]
    first = page.figures["experts"][0]
    cells = [float(one["fill-opacity"]) for _, one in first["parts"] if "fill-opacity" in one]
    most = max(share for by in experts["routing"].values() for rows in by.values() for row in rows for share in row)
    drawn = [share / most for name in ORDER for share in experts["routing"]["filtered"][name][0]]
    assert cells == pytest.approx(drawn, abs=5.1e-3)


def test_tasks_and_bias_show_shares_intervals_and_chance(made, page):
    result = made[0]
    rows = page.rows("tasks")
    (one,) = result["task_differences"].values()
    paired = ["piqa", "filtered less unfiltered", f"{one['difference']:+.4f}", ends(one), "", "", f"{one['items']:,}"]
    assert rows[rows.index(paired) - 1][:2] == ["piqa", "unfiltered"]
    assert [row for row in rows if row != paired] == [
        [
            task,
            arm,
            f"{one['acc']:.4f}",
            f"{one['low']:.4f} to {one['high']:.4f}",
            "–" if one["chance"] is None else f"{one['chance']:.4f}",
            "–" if one["margin"] is None else f"{one['margin']:+.4f}",
            f"{one['items']:,}",
        ]
        for task in sorted(result["tasks"])
        for arm, one in result["tasks"][task].items()
    ]
    for number, test in enumerate(sorted(result["bias"])):
        arms, differences = result["bias"][test]["arms"], result["bias"][test]["differences"]
        order = sorted(differences, key=lambda one: (one != "all", one))
        assert page.rows("bias", 2 * number) == [
            [category, arm, f"{one['share']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}", f"{one['items']:,}"]
            for category in order
            for arm, one in ((arm, arms[arm][category]) for arm in ("filtered", "unfiltered"))
        ]
        assert page.rows("bias", 2 * number + 1) == [
            [name, f"{one['difference']:+.4f}", ends(one), f"{one['flip_p']:.4g}", f"{one['items']:,}", str(one["seeds"])]
            for name, one in ((category, differences[category]) for category in order)
        ]


def test_tasks_that_are_tests_of_bias_stand_under_bias_where_nothing_else_is_told(made):
    result = {**made[0], "bias": {}, "tasks": {**made[0]["tasks"]}}
    one = {"acc": 0.61, "low": None, "high": None, "chance": 0.5, "margin": 0.2, "items": 1508}
    for task in ("crows_pairs", "crows_pairs/age", "winogender_female"):
        result["tasks"][task] = {"filtered": one}
    seen = Page(render(result, {}))
    assert not {"crows_pairs", "winogender_female"} & {row[0] for row in seen.rows("tasks")}
    assert seen.rows("bias", 0) == [[name, "filtered", "0.6100", "no interval", "1,508"] for name in ("all", "age")]
    assert seen.rows("bias", 1) == [["female", "filtered", "0.6100", "no interval", "1,508"]]


def test_bias_is_read_as_the_comparison_tells_it(made):
    """Through `bias_by_arm`: two seeds an arm, four items in two categories, counted by hand."""

    def run(*outcomes):
        kinds = ["age", "age", "gender", "gender"]
        rows = [
            {"item": str(n), "cluster": str(n), "categories": [kind], "outcome": outcome}
            for n, (kind, outcome) in enumerate(zip(kinds, outcomes, strict=True))
        ]
        return {"bias": {"crows_pairs": shares.result("crows_pairs", rows)}}

    scores = {("filtered", 1): run(1, 0, 1, 0), ("filtered", 2): run(1, 0, 0, 0)}
    scores |= {("unfiltered", 1): run(1, 1, 1, 0), ("unfiltered", 2): run(1, 1, 1, 1)}
    told = bias_by_arm(("filtered", "unfiltered"), scores)
    seen = Page(render({**made[0], "bias": told}, {}))
    assert [row[:3] for row in seen.rows("bias", 0)] == [
        ["all", "filtered", "0.3750"],
        ["all", "unfiltered", "0.8750"],
        ["age", "filtered", "0.5000"],
        ["age", "unfiltered", "1.0000"],
        ["gender", "filtered", "0.2500"],
        ["gender", "unfiltered", "0.7500"],
    ]
    assert [row[:2] for row in seen.rows("bias", 1)] == [["all", "+0.5000"], ["age", "+0.5000"], ["gender", "+0.5000"]]


def test_costs_add_up_with_the_pilot(made, page):
    result, costs = made
    *rows, other, total = page.rows("costs")
    for row in rows:
        runs = [run for run in result["runs"] if run["arm"] == row[0]]
        spent = [costs["runs"][run["job"]] for run in runs]
        tokens, flops = sum(run["tokens"] for run in runs), sum(run["flops"] for run in runs)
        assert row[1:5] == [str(len(runs)), f"{tokens:,}", f"{flops:.3e}", f"{sum(one['seconds'] for one in spent):,.0f}"]
        assert row[6] == f"{math.fsum(one['kwh'] for one in spent):.4g}"
        assert row[8:] == ["estimate", "10", "1.1"]
    pilot = costs["runs"]["pilot_0.004-s0"]
    assert other[:5] == ["pilot", "1", "–", "–", f"{pilot['seconds']:,.0f}"]
    assert other[6] == f"{pilot['kwh']:.4g}"
    assert total[1] == str(len(costs["runs"]))
    assert total[4] == f"{math.fsum(one['seconds'] for one in costs['runs'].values()):,.0f}"
    assert total[6] == f"{math.fsum(one['kwh'] for one in costs['runs'].values()):.4g}"
    measured = {job: {**one, "measured": True, "watts": None} for job, one in costs["runs"].items() if job.startswith("filtered-")}
    mixed = Page(render(result, {"runs": {**costs["runs"], **measured}})).rows("costs")
    assert mixed[0][8:] == ["measured", "–", "1.1"]
    assert mixed[-1][8] == "both"


def test_no_signed_number_is_on_the_page_that_the_result_does_not_have(made, page):
    """Of the form +0.1234: all floats of the result, and the findings that the page takes from its runs."""
    result = made[0]
    taken = [over(result, arm, "raw", 3) for arm in ("deduplicated", "language", "unfiltered", "filtered")]
    taken += [over(result, arm, "unfiltered", 3) for arm in ("matched_8", "matched_64")]
    told = {key: value for key, value in result.items() if key not in ("runs", "documents")}
    known = {f"{value:+.4f}" for value in _floats([told, taken])}
    figures = [one[key] for found in page.figures.values() for one in found for key in ("title", "desc")]
    shown = set(re.findall(r"[+-][0-9]+[.][0-9]{4}\b", " ".join([*page.text.values(), *figures])))
    assert len(shown) > 200
    assert shown <= known


def _floats(value):
    if isinstance(value, float):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _floats(one)


def test_the_program_on_the_page_takes_the_primary_gap_again(made, tmp_path, monkeypatch):
    result = made[0]
    source = re.search(r"<pre>(import json.*?)</pre>", render(*made), re.S).group(1)
    (tmp_path / "result.json").write_text(json.dumps(result))
    monkeypatch.chdir(tmp_path)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(html.unescape(source), {})
    finding = named(result, "primary")["endpoint"]
    expected = [finding[key] for key in ("gap", "low", "high", "flip_p")]
    assert list(map(float, output.getvalue().split())) == pytest.approx(expected, rel=1e-12)


# -- what is missing, what is hostile, what must not change ---------------------------------------------------------------------


def bare(seeds=2):
    """What `winnow demo` ends with: the primary contrast of so many seeds and nothing else."""
    result, costs = construct(seeds, ["primary"])
    result.update(experts={"layers": [], "routing": {}}, tasks={}, bias={}, limits=[], rate={"chosen": RATE, "pilot": []})
    return result, costs


MISSING = {
    "ladder": "The ladder from raw text to the filter was not run.",
    "sweep": "The pool sweep was not run.",
    "rates": "No pilot of the learning rate was run. The rate is 0.004. "
    "The gap was not taken again at half and twice the learning rate, nor at twice the tokens.",
    "experts": "Expert use by domain was not measured.",
    "tasks": "No task was run.",
    "bias": "No test of bias was run.",
    "limits": "No limit was stated.",
}


def test_what_was_not_run_is_said_in_a_sentence_and_never_drawn():
    seen = Page(render(*bare()))
    for section, sentence in MISSING.items():
        assert seen.text[section].endswith(sentence)
        assert seen.figures[section] == []
        assert seen.tables[section] == []
    assert "Not run: matched (choice of documents), sources (choice of sources), aa (nothing (A/A))" in seen.text["controls"]
    assert seen.text[""].count("Not run.") == 3


def test_two_seeds_are_too_few_whatever_they_show():
    result, costs = bare()
    finding = named(result, "primary")["endpoint"]
    seen = Page(render(result, costs)).text[""]
    assert "Too few runs for a verdict: 2 paired seeds of at least 5." in seen
    assert f"Gap {finding['gap']:+.4f} bits per byte, 95 % interval {ends(finding)}" in seen
    assert "is better than" not in seen


def test_one_seed_has_a_gap_and_no_interval():
    result, costs = bare(1)
    page = render(result, costs)
    seen = Page(page)
    gap = named(result, "primary")["endpoint"]["gap"]
    assert f"Gap {gap:+.4f} bits per byte, no interval; 1 paired seed," in seen.text[""]
    assert all(row[2] == "no interval" for row in seen.rows("gaps"))
    assert not any("whisker" in str(one["parts"]) for one in seen.figures["gaps"])
    assert not re.search(r"\b(nan|inf|None|null)\b", " ".join(text for name, text in seen.text.items() if name != "recompute"))


def test_a_comparison_without_a_finished_pair_says_so():
    result, _ = bare()
    result.update(contrasts=[], runs=[], verdict="no pair of runs is finished")
    seen = Page(render(result, {"runs": {}}))
    assert "No verdict: no pair of runs of filtered and unfiltered has finished." in seen.text[""]
    assert seen.text["gaps"].endswith("The primary contrast was not run: there is no gap to show.")
    assert seen.text["curves"].endswith("No run has left a loss curve.")
    assert seen.text["costs"].endswith("No run has finished.")
    assert all(found == [] for found in seen.figures.values())
    assert "import json" not in seen.text["recompute"]


def test_a_set_that_is_empty_after_removal_stands_with_nothing_left(made):
    result = copy.deepcopy(made[0])
    for one in result["documents"]:
        if one["domain"] == "spam":
            one["leaked"] = "ngram"
    seen = Page(render(result, {}))
    assert seen.rows("sets")[-1][:5] == ["spam", "junk", "0", "0", "0"]
    assert all(row[-1] == "–" for row in seen.rows("gaps", 1))


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict.BETTER, "a is better than b: it needs 0.0100 fewer bits for each byte of text."),
        (Verdict.WORSE, "a is worse than b: it needs 0.0100 more bits for each byte of text."),
        (Verdict.EQUIVALENT, "a and b are equivalent: the gap is under 0.02 bits per byte, whichever is ahead."),
        (Verdict.OPEN, "Not resolved: these runs do not tell whether a or b is better."),
        (Verdict.TOO_FEW, "Too few runs for a verdict: 3 paired seeds of at least 5."),
    ],
)
def test_each_verdict_has_its_plain_words(verdict, said):
    finding = {"verdict": str(verdict), "gap": -0.01 if verdict == Verdict.WORSE else 0.01, "seeds": 3}
    assert headline(["a", "b"], {"endpoint": finding})[1] == said


def test_exchanging_the_arms_turns_the_verdict(made):
    result = copy.deepcopy(made[0])
    for run in result["runs"]:
        run["arm"] = {"filtered": "unfiltered", "unfiltered": "filtered"}.get(run["arm"], run["arm"])
    contrast = Contrast("primary", 0, Arm("filtered", "f"), Arm("unfiltered", "u"), 8, "?", ("quality",))
    scores = {(run["arm"], run["seed"]): run for run in result["runs"]}
    result["contrasts"] = judge_all([contrast], scores, result["documents"], result["endpoint"])
    gap = named(made[0], "primary")["endpoint"]["gap"]
    first = Page(render(result, {})).text[""]
    assert f"filtered is worse than unfiltered: it needs {gap:.4f} more bits" in first
    assert f"Gap {-gap:+.4f}" in first


def test_arms_that_differ_in_more_than_one_step_are_called_so(made):
    result = copy.deepcopy(made[0])
    assert "more than one step" not in Page(render(result, {})).text[""]
    named(result, "primary")["steps"] = ["languages", "quality"]
    assert "The arms differ in more than one step (languages, quality):" in Page(render(result, {})).text[""]


def test_hostile_names_and_sentences_are_text_wherever_they_stand():
    result, costs = construct(5, ["primary", "matched", "sweep_8", "ladder_unfiltered"], rename=lambda name: f"{name}{HOSTILE}")
    result.update(id=HOSTILE, recipe=HOSTILE, limits=[HOSTILE], verdict=HOSTILE, settings={HOSTILE: HOSTILE})
    result["model"]["preset"] = HOSTILE
    result["tasks"][HOSTILE] = result["tasks"].pop("piqa")
    crows = result["bias"].pop("crows_pairs")
    arms = {arm: {HOSTILE: by["age"]} for arm, by in crows["arms"].items()}
    result["bias"][HOSTILE] = {"arms": arms, "differences": {HOSTILE: crows["differences"]["age"]}}
    for one in result["contrasts"]:
        one.update(question=HOSTILE, sentence=HOSTILE)
    for one in result["pools"].values():
        one.update(made=HOSTILE, sources={HOSTILE: {"documents": 1, "tokens": 1}})
    page = render(result, costs)
    seen = Page(page)
    tags = {tag for tag, _ in seen.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "form", "base"}
    assert all(not name.startswith("on") and name != "style" for _, attributes in seen.elements for name in attributes)
    assert "\u202e" not in page
    assert "\x07" not in page
    for section in ("", "gaps", "controls", "ladder", "curves", "sets", "tasks", "bias", "costs", "limits", "recompute"):
        assert "<script>alert(1)" in seen.text[section]


def test_the_page_is_self_contained_and_its_policy_lets_only_its_own_style_in(made):
    page = render(*made)
    seen = Page(page)
    assert not {tag for tag, _ in seen.elements} & {"script", "img", "link", "iframe", "object", "form", "base"}
    for _, attributes in seen.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "src", "xlink:href")}
        assert attributes.get("href", "#").startswith("#")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(one["content"] for _, one in seen.elements if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    targets = {one["id"] for tag, one in seen.elements if "id" in one}
    assert {one["href"][1:] for tag, one in seen.elements if tag == "a"} <= targets


def test_every_element_is_closed(made):
    stack, void = [], {"meta", "br"}
    page = render(*made).replace("<!doctype html>", "")
    for closing, tag, rest in re.findall(r"<(/?)([a-zA-Z0-9]+)((?:\"[^\"]*\"|[^>\"])*)>", page):
        if closing:
            assert stack.pop() == tag
        elif not rest.endswith("/") and tag not in void:
            stack.append(tag)
    assert stack == []


def test_every_figure_that_is_more_than_a_shape_has_a_title_and_a_description(page):
    figures = [one for found in page.figures.values() for one in found if one.get("role") == "img"]
    assert len(figures) > 60
    assert all(one["title"] and one["desc"] for one in figures)
    others = [one for found in page.figures.values() for one in found if one.get("role") != "img"]
    assert all(one.get("aria-hidden") == "true" or "overflow" in one for one in others)


def test_the_same_content_gives_the_same_bytes_whatever_the_order_of_keys(made):
    result, costs = made
    page = render(result, costs)
    assert render(*json.loads(json.dumps([result, costs]))) == page
    assert render(*json.loads(json.dumps([_reversed(result), _reversed(costs)]))) == page


def _reversed(value):
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(one) for one in value] if isinstance(value, list) else value


# -- scales -------------------------------------------------------------------------------------------------------------------

numbers = st.floats(-10, 10).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(st.lists(numbers, min_size=1, max_size=20), st.lists(st.none() | st.floats(-1e6, 1e6), max_size=20))
def test_a_scale_holds_all_points_and_the_margin(points, reaches):
    on = svg.scale(points, reaches, MARGIN)
    assert all(on.least < value < on.most for value in (*points, -MARGIN, MARGIN))
    places = [on.percent(value) for value in sorted(points)]
    assert places == sorted(places)
    assert 2 <= len(on.ticks) <= 8
    assert on.most - on.least < 40 * max(MARGIN, *map(abs, points))  # no interval dwarfs the points


def test_an_interval_that_leaves_the_scale_ends_in_an_arrow():
    on = svg.scale([0.01, 0.02], [-5.0, 0.03], MARGIN)
    assert str(svg.row(on, 0.01, (-5.0, 0.03), "t", "d")).count('class="cut"') == 1
    assert str(svg.row(on, 0.01, (-5.0, 5.0), "t", "d")).count('class="cut"') == 2
    assert 'class="cut"' not in str(svg.row(on, 0.01, (0.0, 0.03), "t", "d"))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_take_in_both_ends_at_even_round_steps(least, wide):
    most = least + wide
    if most - least < 1e-9 * max(abs(least), abs(most)):
        return
    ticks = svg.round_ticks(least, most)
    step = (ticks[-1] - ticks[0]) / (len(ticks) - 1)
    assert ticks[0] <= least + 1e-6 * step
    assert ticks[-1] >= most - 1e-6 * step
    assert f"{step:.6e}"[0] in "1259"


def test_lines_go_through_their_values_and_stop_at_the_chart():
    """Heights on the chart against the marks of its axis; a whisker that passes the span is cut there."""
    series = [svg.Series("c0", (0.0, 0.5, 1.0), (0.1, 0.3, 0.2), (0.0, 0.25, -9.0), (0.15, 0.35, 9.0))]
    (chart,) = Page(str(svg.lines(series, [(0, "a"), (1, "b")], ("x", "y"), "t", "d", bars=True, span=(0.0, 0.4)))).figures[""]
    marks = [one for tag, one in chart["parts"] if tag == "text" and one.get("class") == "e"]
    labels = list(map(float, chart["text"].split("|")[: len(marks)]))
    low, high = float(marks[0]["y"]) - 3, float(marks[-1]["y"]) - 3

    def value(place):
        return labels[0] + (labels[-1] - labels[0]) * (float(place) - low) / (high - low)

    (line,) = [one["d"] for _, one in chart["parts"] if one.get("class") == "c c0"]
    assert [value(place.split()[1]) for place in line[1:].split("L")] == pytest.approx([0.1, 0.3, 0.2], abs=1e-3)
    caps = [re.findall(r"[\d.]+", one["d"]) for _, one in chart["parts"] if one.get("class") == "cap c0"]
    assert [(round(value(a), 2), round(value(b), 2)) for _, a, b in caps] == [(0.0, 0.15), (0.25, 0.35), (0.0, 0.4)]


@given(st.integers(1, 500), st.integers(2, 60))
def test_thinning_keeps_order_and_both_ends(count, most):
    points = [(n, n * n) for n in range(count)]
    kept = svg.thinned(points, most)
    assert len(kept) == min(count, most)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(set(kept))
