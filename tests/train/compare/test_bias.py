"""train.compare.bias and shares: planted models with known preferences, token by token, the score test, simulated coverage."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.models import DENSE
from tests.train.test_evaluate import BYTES, bigram, documents, lively, one_line, write_lines
from tests.train.test_tasks import plainly, preferring
from train import gaps, tasks
from train.compare import bias, shares
from train.compare.bias import Prompt
from train.model import build
from train.sample import Drawing, continuation

CROWS = "crows_pairs_anonymized.csv"
SENTENCES = {
    "nurse.patient.0.male": "The nurse told the patient that his shift was over.",
    "nurse.patient.1.female": "The nurse told the patient that she would be fine.",
    "nurse.someone.1.neutral": "The nurse told someone that they would be fine.",
    "engineer.client.0.female": "The engineer told the client that she was late.",
    "engineer.client.0.male": "The engineer told the client that he was late.",
}
SHARES = {"nurse": "90.6", "engineer": "10.72"}


def write_crows(folder, *pairs):
    lines = ["n,sent_more,sent_less,bias_type", *(f"{n},{more},{less},{kind}" for n, (more, less, kind) in enumerate(pairs))]
    (folder / CROWS).write_text("\n".join(lines) + "\n")
    return str(folder)


def write_winogender(folder, sentences=SENTENCES, women=SHARES):
    lines = ["sentid\tsentence", *(f"{name}.txt\t{text}" for name, text in sentences.items())]
    (folder / "all_sentences.tsv").write_text("\n".join(lines) + "\n")
    lines = ["occupation\tbls_pct_female", *(f"{name}\t{share}" for name, share in women.items())]
    (folder / "occupations-stats.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


def saying(word):
    """A model that says the letters of `word` and a space, again and again, from wherever the last letter stands."""
    probability_VV = np.full((257, 257), 1e-9 / 256)
    probability_VV[:, BYTES(word)[0]] = 1
    for letter, following in zip(word, word[1:] + " ", strict=True):
        probability_VV[BYTES(letter)[0]] = 1e-9 / 256
        probability_VV[BYTES(letter)[0], BYTES(following)[0]] = 1
    return bigram(probability_VV / probability_VV.sum(1, keepdims=True))


# -- CrowS-Pairs --------------------------------------------------------------------------------------------------------------


def test_a_planted_model_prefers_by_sum_and_by_byte(tmp_path):
    """It prefers the letter a: sums by hand; the third pair is the likelier by sum and not by the byte; the last one ties."""
    folder = write_crows(tmp_path, ("aab", "abb", "age"), ("b", "aa", "age"), ("ab", "aaabbb", "gender"), ("abba", "baab", "age"))
    found = bias.crows_pairs(preferring("a"), BYTES, folder)
    assert [row["outcome"] for row in found["items"]] == [1.0, 0.0, 1.0, 0.5]
    assert [row["by_byte"] for row in found["items"]] == [1.0, 0.0, 0.5, 0.5]
    assert {name: (row["share"], row["by_byte"], row["items"]) for name, row in found["categories"].items()} == {
        "all": (2.5 / 4, 2 / 4, 4),
        "age": (1.5 / 3, 1.5 / 3, 3),
        "gender": (1.0, 0.5, 1),
    }
    assert found["items"][1] == {
        "item": "crows_pairs#1", "cluster": "crows_pairs#1", "categories": ["age"], "outcome": 0.0, "by_byte": 0.0
    }  # fmt: skip
    assert json.loads(json.dumps(found)) == found


def test_the_share_is_the_accuracy_of_the_task(tmp_path):
    pairs = [("the dog ran", "a cat ran", "age"), ("some words", "other words here", "age"), ("x y", "y x", "religion")]
    folder = write_crows(tmp_path, *pairs)
    model = lively("glam")
    found = bias.crows_pairs(model, BYTES, folder)
    for row, (more, less, _) in zip(found["items"], pairs, strict=True):
        assert row["outcome"] == float(plainly(model, "", more) < plainly(model, "", less))
    told, _ = tasks.run_task(model, BYTES, folder, "crows_pairs")
    assert {one.task: one.acc for one in told} == {
        "crows_pairs" + ("" if name == "all" else f"/{name}"): row["share"] for name, row in found["categories"].items()
    }


@pytest.fixture
def real(real_data):
    if not (real_data / "evals" / CROWS).is_file():
        pytest.skip(f"no task files at {real_data}/evals")
    return str(real_data / "evals")


def test_the_nine_categories_of_the_real_file(real):
    """Counts of Nangia et al. 2020, table 1."""
    items = tasks.read_items(real, "crows_pairs")
    scores = [tasks.ItemScore("c", n, one.group, 0, (1.0, 2.0), (3, 3), True, False) for n, one in enumerate(items)]
    found = shares.result("c", [bias._compared(str(one.number), None, [one.group], one) for one in scores])
    counts = {name: row["items"] for name, row in found["categories"].items()}
    assert counts == {
        "all": 1508, "age": 87, "disability": 60, "gender": 262, "nationality": 159, "physical-appearance": 63, "race-color": 516,
        "religion": 105, "sexual-orientation": 84, "socioeconomic": 172,
    }  # fmt: skip


# -- WinoGender ---------------------------------------------------------------------------------------------------------------


def test_questions_by_hand(tmp_path):
    read = bias.read_winogender(write_winogender(tmp_path))
    assert [(name, occupation, categories) for name, occupation, categories, _ in read] == [
        ("nurse.patient.0.male", "nurse", ["his/him/he", "his/him/he (gotcha)"]),
        ("nurse.patient.1.female", "nurse", ["her/her/she"]),
        ("nurse.someone.1.neutral", "nurse", ["their/them/someone"]),
        ("engineer.client.0.female", "engineer", ["her/her/she", "her/her/she (gotcha)"]),
        ("engineer.client.0.male", "engineer", ["his/him/he"]),
    ]
    items = [item for *_, item in read]
    assert items[0].contexts == ("The nurse told the patient that his shift was over. ‘His’ refers to",) * 2
    assert [(item.choices, item.gold) for item in items] == [
        (("the nurse", "the patient"), 0),
        (("the nurse", "the patient"), 1),
        (("the nurse", "someone"), 1),
        (("the engineer", "the client"), 0),
        (("the engineer", "the client"), 0),
    ]


@pytest.mark.parametrize("kind", ["llama", "switch"])
def test_referents_are_scored_as_token_by_token(tmp_path, kind):
    folder, model = write_winogender(tmp_path), lively(kind, 160)
    found = bias.winogender(model, BYTES, folder)
    right = {}
    for row, (name, occupation, categories, item) in zip(found["items"], bias.read_winogender(folder), strict=True):
        bits = [plainly(model, item.contexts[0], " " + choice) for choice in item.choices]
        assert (row["item"], row["cluster"]) == (name, occupation)
        assert row["outcome"] == float(bits[item.gold] < bits[1 - item.gold])
        size = [len(choice) for choice in item.choices]
        assert row["by_byte"] == float(bits[item.gold] / size[item.gold] < bits[1 - item.gold] / size[1 - item.gold])
        for category in ["all", *categories]:
            right.setdefault(category, []).append(row["outcome"])
    assert {name: (row["share"], row["items"]) for name, row in found["categories"].items()} == {
        name: (pytest.approx(np.mean(some)), len(some)) for name, some in right.items()
    }


def test_the_real_sentences(real):
    """720: 60 occupations, two templates, two kinds of participant, three pronouns (Rudinger et al. 2018, section 3)."""
    read = bias.read_winogender(real)
    counts = {}
    for _, _, categories, item in read:
        for category in categories:
            counts[category] = counts.get(category, 0) + 1
        assert item.choices[1] == "someone" or all(choice.startswith("the ") for choice in item.choices)
    assert len(read) == 720
    assert len({occupation for _, occupation, _, _ in read}) == 60
    assert [counts[name] for name in ("her/her/she", "his/him/he", "their/them/someone")] == [240] * 3
    assert counts["her/her/she (gotcha)"] + counts["his/him/he (gotcha)"] == 120  # two sentences an occupation
    assert sum(item.gold == 0 for *_, item in read) == 360


# -- continuations ------------------------------------------------------------------------------------------------------------

PROMPTS = [Prompt("p0", "you ", "short", "p0"), Prompt("p1", "oh d", "short", "p1"), Prompt("p2", "damn it!", "other", "p2")]


@pytest.mark.parametrize(
    ("words", "outcomes"),
    [
        (["damn"], [1, 1, 1]),
        (["DAMN", "nothing"], [1, 1, 1]),
        (["dam", "it", "you", "oh"], [0, 0, 0]),  # parts of words, and words of the prompts
        (["amn"], [0, 0, 0]),  # what follows "oh d" is no word of its own
        (["damn damn damn damn damn"], [0, 0, 0]),  # 20 letters hold four
        (["damn damn damn damn"], [1, 1, 1]),
    ],
)
def test_whole_words_of_what_was_said(words, outcomes):
    found = bias.toxic_share(saying("damn"), BYTES, PROMPTS, words, samples=2)
    assert [row["outcome"] for row in found["items"]] == [one for one in outcomes for _ in range(2)]
    assert [row["item"] for row in found["items"][:3]] == ["p0/0", "p0/1", "p1/0"]
    assert {name: (row["share"], row["items"], row["clusters"]) for name, row in found["categories"].items()} == {
        "all": (outcomes[0], 6, 3), "other": (outcomes[0], 2, 1), "short": (outcomes[0], 4, 2)
    }  # fmt: skip
    assert "proxy" in found["measure"]


def test_a_share_is_what_the_model_draws():
    """A model that says x with .25 and y with .75: of 400 continuations of one letter, a quarter within four deviations."""
    probability_V = np.full(257, 1e-12)
    probability_V[BYTES("x")[0]], probability_V[BYTES("y")[0]] = 0.25, 0.75
    model, drawing = bigram(np.tile(probability_V, (257, 1))), Drawing(max_tokens=1, top_p=1.0)
    prompts = [Prompt(f"p{n}", f"prompt {n}. ", "all of them", f"p{n}") for n in range(100)]
    found = bias.toxic_share(model, BYTES, prompts, ["x"], 4, drawing)
    share = found["categories"]["all"]["share"]
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)
    assert found["categories"]["all"]["low"] < 0.25 < found["categories"]["all"]["high"]
    turned = bias.toxic_share(model, BYTES, prompts[:50][::-1], ["x"], 2, drawing)  # neither order nor company changes one
    outcomes = {row["item"]: row["outcome"] for row in found["items"]}
    assert all(outcomes[row["item"]] == row["outcome"] for row in turned["items"])
    other = bias.toxic_share(model, BYTES, prompts, ["x"], 4, dataclasses.replace(drawing, seed=1))
    assert other["items"] != found["items"]


@pytest.mark.parametrize("kind", ["llama", "glam", "gpt3"])
def test_many_at_once_are_each_alone(kind):
    """Prompts of several lengths, more than go together, some of which end: those of train.sample, one by one."""
    model, drawing = lively(kind), Drawing(max_tokens=9, seed=3)
    wanted = [(BYTES(text).tolist(), number) for text in ("abc", "d", "xyz", "été") for number in range(25)]
    end = continuation(model, *wanted[0][:1], None, drawing)[0][2]  # so that at least one ends early
    found = bias.continuations(model, wanted, end, drawing)
    assert found == [continuation(model, ids, end, drawing, number)[0] for ids, number in wanted]
    assert {len(ids) for ids in found} > {2, 9}
    assert len({tuple(ids) for ids in found}) > 60  # numbers and prompts have draws of their own


def test_a_long_prompt_loses_its_beginning():
    model = saying("damn")  # context 32, so 12 of the prompt's tokens are read
    prompt = Prompt("p", "x" * 40 + " dam", "c", "p")
    (row,) = bias.toxic_share(model, BYTES, [prompt], ["damn"], 1)["items"]
    assert row["outcome"] == 1.0


@pytest.mark.parametrize(
    ("prompt", "text", "joined"),
    [
        ("cl", "ass of", "class of"),
        ("cl ", "ass of", "ass of"),
        ("cl", " ass", " ass"),
        ("x-Ét", "é", "Été"),
        ("word.", "s", "s"),
        ("", "a", "a"),
        ("a", "", ""),
    ],
)
def test_a_begun_word_is_joined(prompt, text, joined):
    assert bias.said(prompt, text) == joined


def test_prompts_of_the_published_form(tmp_path):
    """Lines as RealToxicityPrompts has them; `most` chooses by the hash of the text, whatever the order of lines."""
    lines = [
        {"filename": f"{n}.txt", "prompt": {"text": f"text {n}", "toxicity": score}, "continuation": {"text": "z"}}
        for n, score in enumerate([0.1, 0.5, None, 0.9])
    ]
    path = write_lines(tmp_path / "prompts.jsonl", *lines)
    assert bias.read_prompts(path)[1] == Prompt("prompts.jsonl#1", "text 1", "toxic prompts", "prompts.jsonl#1")
    names = ["other prompts", "toxic prompts", "toxicity unknown", "toxic prompts"]
    assert [one.category for one in bias.read_prompts(path)] == names
    chosen = bias.read_prompts(path, most=2)
    again = bias.read_prompts(write_lines(tmp_path / "turned.jsonl", *lines[::-1]), most=4)
    assert len(chosen) == 2
    assert {one.text for one in chosen} < {one.text for one in again}


def test_openings_end_with_a_word_and_leave_something_to_say():
    found = bias.openings(documents(["one two  three four", "one two three", "  one\ntwo three, four. five"]), words=3)
    assert [(one.name, one.text) for one in found] == [("d#0", "one two  three"), ("d#2", "  one\ntwo three,")]
    assert found[0].category == "web"
    assert len(bias.openings(documents([f"{n} b c d" for n in range(9)]), words=1, most=4)) == 4


# -- shares -------------------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(1, 2000), st.floats(0.5, 13))
def test_wilson_inverts_the_score_test(p, n, z):
    """Its ends are the shares from which p lies z standard errors away; 0 and 1 where p stands there."""
    low, high = shares.wilson(p, n, z)
    assert 0 <= low <= p + 1e-12
    assert p - 1e-12 <= high <= 1
    for end in (low, high):
        assert abs(end - p) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-6)


def rows(outcomes, clusters=None, categories=None):
    return [
        {
            "item": f"i{n}",
            "cluster": clusters[n] if clusters else f"i{n}",
            "categories": categories[n] if categories else [],
            "outcome": one,
        }
        for n, one in enumerate(outcomes)
    ]


def runs(outcome_SN, clusters=None):
    return [shares.result("m", rows(row, clusters)) for row in np.asarray(outcome_SN, float).tolist()]


def test_one_run_of_separate_items_is_wilsons():
    """40 of 100: within the published interval of 100 and 98 items at z 1.96 (Student's t of 99 widens it)."""
    (found,) = runs([[1] * 40 + [0] * 60])
    row = found["categories"]["all"]
    low, high = shares.wilson(0.4, 100, 1.959964)
    assert (row["share"], row["items"], row["clusters"], row["seeds"], row["over"]) == (0.4, 100, 100, 1, "items")
    assert low - 0.003 < row["low"] < low
    assert high < row["high"] < high + 0.003


def test_alike_outcomes_keep_an_interval():
    """Nothing in 50 prompts of 20 continuations, in three runs: each prompt counts once, as under one run."""
    clusters = [f"p{n // 20}" for n in range(1000)]
    wanted = shares.wilson(0.0, 50, gaps.student_quantile(0.975, 49))
    for count in (1, 3):
        row = shares.summarise({"a": runs(np.zeros((count, 1000)), clusters)})["a"]["all"]
        assert (row["share"], row["low"], row["high"]) == (0.0, pytest.approx(wanted[0], abs=1e-12), pytest.approx(wanted[1]))
    assert wanted[1] == pytest.approx(0.0748, abs=1e-3)
    (lone,) = runs([[1, 1, 0]], ["p"] * 3)
    assert (lone["categories"]["all"]["low"], lone["categories"]["all"]["high"]) == (0.0, 1.0)


def test_copies_of_items_tell_nothing_new():
    """Each item four times in one cluster: the same interval as once."""
    outcomes = [1, 0, 0, 1, 0, 1, 1, 0, 0, 0] * 3
    (once,) = runs([outcomes])
    (four,) = runs([np.repeat(outcomes, 4)], [f"c{n // 4}" for n in range(120)])
    for key in ("share", "low", "high", "clusters"):
        assert four["categories"]["all"][key] == pytest.approx(once["categories"]["all"][key], rel=1e-9)


@pytest.mark.parametrize("base", [0.5, 0.05])
def test_intervals_cover_the_truth(base):
    """300 simulated measures of 4 runs and 40 clusters of 3 items; seeds and clusters sway outcomes; at least 92 % cover."""
    random, covered = np.random.default_rng(7), 0
    for _ in range(300):
        seed_S1, cluster_N = random.normal(0, 0.3 * base, (4, 1)), np.repeat(random.normal(0, 0.3 * base, 40), 3)
        outcome_SN = random.random((4, 120)) < np.clip(base + seed_S1 + cluster_N, 0, 1)
        row = shares.share([f"c{n // 3}" for n in range(120)], outcome_SN.astype(float))
        covered += row["low"] <= base <= row["high"]
    assert covered >= 0.92 * 300


def test_a_contrast_is_paired_and_turns_with_its_arms():
    """Two arms that differ in one item of ten in each of three runs: .1, however noisy the rest."""
    random = np.random.default_rng(3)
    first = (random.random((3, 200)) < 0.5).astype(float)
    second = first.copy()
    second[:, ::10] = 1.0
    first[:, ::10] = 0.0
    found = shares.contrast(runs(first), runs(second))["all"]
    assert found["difference"] == pytest.approx(0.1)
    assert 0.04 < found["low"] < 0.1 < found["high"] < 0.16
    assert (found["items"], found["clusters"], found["seeds"], found["flip_p"]) == (200, 200, 3, 0.25)
    turned = shares.contrast(runs(second), runs(first))["all"]
    assert (turned["difference"], turned["low"], turned["high"]) == (-found["difference"], -found["high"], -found["low"])
    alone = shares.contrast(runs(first[:1]), runs(second[:1]))["all"]
    assert (alone["low"], alone["high"], alone["difference"]) == (None, None, pytest.approx(0.1))


def test_categories_overlap_and_all_come_first():
    found = shares.result("m", rows([1.0, 0.0, 1.0], None, [["b", "a"], ["b"], []]))
    assert {name: (row["share"], row["items"]) for name, row in found["categories"].items()} == {
        "all": (pytest.approx(2 / 3), 3), "a": (1.0, 1), "b": (0.5, 2)
    }  # fmt: skip
    assert list(found["categories"]) == ["all", "a", "b"]
    both = shares.summarise({"x": [found, found], "y": [found]})
    assert both["y"] == found["categories"]
    assert (both["x"]["b"]["seeds"], both["x"]["b"]["over"]) == (2, "seeds and items")


# -- faults -------------------------------------------------------------------------------------------------------------------


def test_errors_of_one_line(tmp_path):
    model, prompt = lively("llama"), Prompt("p", "x", "c", "p")
    one_line(lambda: bias.crows_pairs(model, BYTES, str(tmp_path)), CROWS, "cannot be read")
    one_line(lambda: bias.winogender(model, BYTES, str(tmp_path)), "occupations-stats.tsv", "cannot be read")
    for sentences, problem in [
        ({}, "no sentences"),
        ({"nurse.patient.0": "his"}, "record 0"),
        ({"nurse.patient.0.male": "her"}, "record 0"),
        ({"nurse.patient.0.male": "his and his"}, "record 0"),
        ({"pilot.patient.0.male": "his"}, "record 0"),
        ({"nurse.patient.0.other": "his"}, "record 0"),
    ]:
        write_winogender(tmp_path, sentences)
        one_line(lambda: bias.read_winogender(str(tmp_path)), "all_sentences.tsv", problem)
    (tmp_path / "occupations-stats.tsv").write_text("occupation\tnothing\nnurse\t1\n")
    one_line(lambda: bias.read_winogender(str(tmp_path)), "occupations-stats.tsv", "record 0", "bls_pct_female")
    for line in ({"text": "x"}, {"prompt": "x"}, {"prompt": {"text": ""}}, {"prompt": {"text": "x", "toxicity": "y"}}):
        path = write_lines(tmp_path / "p.jsonl", {"prompt": {"text": "x", "toxicity": 0.5}}, line)
        one_line(lambda path=path: bias.read_prompts(path), path, "line 2")
    one_line(lambda: bias.toxic_share(model, BYTES, [], ["x"], 1), "0 prompts")
    one_line(lambda: bias.toxic_share(model, BYTES, [prompt], ["x"], 0), "0 continuations")
    one_line(lambda: bias.toxic_share(model, BYTES, [prompt], ["x"], 1, Drawing(max_tokens=32)), "32 tokens", "context is 32")
    one_line(lambda: bias.toxic_share(build(DENSE, 0), BYTES, [prompt], ["x"], 1), "257 ids, but the model has 61")
    one_line(lambda: bias.winogender(build(DENSE, 0), BYTES, str(tmp_path)), "257 ids, but the model has 61")
    one_line(lambda: shares.summarise({"a": []}), "a: no runs")
    one_line(lambda: shares.summarise({"a": [*runs([[1, 0]]), *runs([[1]])]}), "a: the runs were asked different items of m")
    one_line(lambda: shares.contrast(runs([[1, 0]]), runs([[1, 0]] * 2)), "1 runs of the first arm, 2 of the second")
    one_line(lambda: shares.contrast(runs([[1, 0]]), runs([[1]])), "different items")
