"""train.tasks: against scoring one token at a time, planted models whose answers are known, and counts of the real files."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines import bpe, bpe_file
from pipelines.errors import UserError
from tests.train.models import DENSE
from tests.train.test_evaluate import BYTES, bigram, lively, one_line, write_lines
from train import tasks
from train.model import build
from train.tasks import Item, ItemScore

ROOM = 160  # tokens of context, enough for the small tasks
QUERIES = [
    {"query": "the dog saw", "choices": ["a cat", "the old cat"], "gold": 0},
    {"query": "rain falls, because", "choices": ["it is wet", "clouds"], "gold": 1},
    {"query": "été", "choices": ["is warm", "is cold", "ça"], "gold": 2},
]


def plainly(model, before, scored):
    """The reference: bits of `scored` behind the end of document and `before`, each token by a call of its own."""
    ids, first = [256, *BYTES(before + scored).tolist()], 1 + len(BYTES(before))
    bits = 0.0
    for place in range(first, len(ids)):
        with torch.no_grad():
            logits_V = model(torch.tensor([ids[:place]])).logits_BTV[0, -1]
        bits -= float(logits_V.double().log_softmax(0)[ids[place]]) / math.log(2)
    return bits


def preferring(letter, probability=0.75):
    """A model that says `letter` with this probability, whatever came before, and all other ids alike."""
    probability_V = np.full(257, (1 - probability) / 256)
    probability_V[BYTES(letter)[0]] = probability
    return bigram(np.tile(probability_V, (257, 1)))


def run(model, folder, name, **chosen):
    return tasks.run_task(model, BYTES, str(folder), name, **chosen)


# -- scores -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "glam", "switch"])
def test_choices_are_scored_as_token_by_token(tmp_path, kind):
    write_lines(tmp_path / "copa.jsonl", *QUERIES)
    model = lively(kind, ROOM)
    _, scores = run(model, tmp_path, "copa")
    for score, record in zip(scores, QUERIES, strict=True):
        wanted = [plainly(model, record["query"], " " + choice) for choice in record["choices"]]
        assert score.bits == pytest.approx(wanted, rel=1e-5)
        assert score.bytes == tuple(len(choice.encode()) for choice in record["choices"])
    assert [score.gold for score in scores] == [0, 1, 2]
    assert not any(score.cut for score in scores)


def test_examples_stand_before_the_context(tmp_path):
    """One example: the item that follows in the ring, answered, and an empty line."""
    write_lines(tmp_path / "arc_easy.jsonl", *QUERIES)
    model = lively("llama", ROOM)
    told, scores = run(model, tmp_path, "arc_easy", shots=1)
    items = tasks.read_items(str(tmp_path), "arc_easy")
    ring = sorted(items, key=lambda item: item.key)
    for item, score in zip(items, scores, strict=True):
        other = ring[(ring.index(item) + 1) % 3]
        before = f"{other.contexts[0]} {other.choices[other.gold]}\n\n{item.contexts[0]}"
        assert before.count("\nAnswer:") == 2
        assert score.bits == pytest.approx([plainly(model, before, " " + choice) for choice in item.choices], rel=1e-5)
    assert told[0].shots == 1


def test_winogrande_scores_one_continuation_behind_two_contexts(tmp_path):
    write_lines(tmp_path / "winogrande.jsonl", {"context_options": ["so Sarah", "so Ann"], "continuation": "won.", "gold": 1})
    model = lively("llama", ROOM)
    _, (score,) = run(model, tmp_path, "winogrande")
    assert score.bits == pytest.approx([plainly(model, before, " won.") for before in ("so Sarah", "so Ann")], rel=1e-5)
    assert (score.bytes, score.gold) == ((4, 4), 1)


def test_a_context_that_fills_the_window_loses_its_beginning(tmp_path):
    record = {"query": "x" * 50, "choices": ["aaaa", "bbbb"], "gold": 0}
    write_lines(tmp_path / "copa.jsonl", record, {**record, "query": "y"})
    model = lively("llama", 32)
    (told,), scores = run(model, tmp_path, "copa")
    assert ([score.cut for score in scores], told.cut) == ([True, False], 1)
    ids = BYTES("x" * 50 + " aaaa").tolist()
    with torch.no_grad():
        loss_BT = model(torch.tensor([ids[-33:-1]]), torch.tensor([ids[-32:]])).loss_BT
    assert scores[0].bits[0] == pytest.approx(float(loss_BT[0, -5:].sum()) / math.log(2), rel=1e-5)


def test_a_planted_model_answers_as_it_was_planted(tmp_path):
    """It prefers the letter a: three items right by bits, the last of them not by the byte, but the fourth; margins by hand."""
    likely, other = -math.log2(0.75), -math.log2(0.25 / 256)
    choices = [["aaa", "bbb"], ["bbb", "aaa"], ["aa", "bb"], ["aab", "b"], ["b", "aaaab"]]
    write_lines(tmp_path / "piqa.jsonl", *({"query": "q\n", "choices": pair, "gold": 0} for pair in choices))
    (told,), scores = run(preferring("a"), tmp_path, "piqa")
    space = other  # before every choice
    wanted = [[space + one.count("a") * likely + one.count("b") * other for one in pair] for pair in choices]
    for score, bits in zip(scores, wanted, strict=True):
        assert score.bits == pytest.approx(bits, rel=1e-4)
    assert (told.items, told.acc, told.acc_norm, told.chance) == (5, 3 / 5, 3 / 5, 0.5)
    assert told.margin == pytest.approx(sum(two - one for one, two in wanted) / 5, rel=1e-3)
    assert told.gold_bits == pytest.approx(sum(one for one, _ in wanted) / 5, rel=1e-4)
    assert [score.number for score in scores] == list(range(5))


def test_a_model_that_knows_nothing_scores_chance(tmp_path):
    """Choices of one length under a uniform model tie, in whatever place gold stands."""
    records = [{"query": "q", "choices": list("abcd"), "gold": gold} for gold in (0, 0, 3)]
    write_lines(tmp_path / "openbook_qa.jsonl", *records, {"query": "r", "choices": list("xy"), "gold": 0})
    items = tasks.read_items(str(tmp_path), "openbook_qa")
    bits = [tuple(1.0 for _ in item.choices) for item in items]
    scores = [
        ItemScore("t", n, None, item.gold, some, some, False, False) for n, (item, some) in enumerate(zip(items, bits, strict=True))
    ]
    told = tasks.summary("t", 0, scores)
    assert (told.acc, told.acc_norm, told.chance, told.margin) == (0.3125, 0.3125, 0.3125, 0.0)


def test_figures_by_hand():
    """acc takes the fewest bits, acc_norm the fewest a byte; the margin is against the best of the distractors."""
    item = [
        ItemScore("t", 0, None, 0, (6.0, 4.0, 9.0), (6, 2, 3), False, False),  # 1, 2 and 3 bits a byte
        ItemScore("t", 1, None, 1, (5.0, 3.0), (5, 1), False, True),
    ]
    told = tasks.summary("t", 2, item)
    assert told == tasks.TaskScore("t", 2, 2, 0.5, 0.5, (1 / 3 + 1 / 2) / 2, (-2.0 + 2.0) / 2, 4.5, 1)
    assert tasks.summary("t", 2, item[:1]).acc_norm == 1.0
    assert tasks.summary("t", 2, item[1:]).acc_norm == 0.0


def test_lambada_asks_whether_every_token_is_the_likeliest(tmp_path):
    """Planted so that a space leads to a, a to b, and all else to a space: after "x" it says " ab ab"."""
    probability_VV = np.full((257, 257), 0.2 / 256)
    space, a, b = (int(BYTES(one)[0]) for one in " ab")
    probability_VV[:, space] = 0.8
    for one, then in ((space, a), (a, b)):
        probability_VV[one], probability_VV[one, then] = 0.2 / 256, 0.8
    write_lines(tmp_path / "lambada_openai.jsonl", *({"context": "x", "continuation": one} for one in ("ab", "aa", "ab a")))
    (told,), scores = run(bigram(probability_VV), tmp_path, "lambada_openai")
    assert [score.greedy for score in scores] == [True, False, True]
    assert (told.acc, told.acc_norm, told.chance, told.margin) == (2 / 3, None, None, None)
    assert scores[0].bits[0] == pytest.approx(-3 * math.log2(0.8), rel=1e-3)
    write_lines(
        tmp_path / "copa.jsonl",
        {"query": "x", "choices": ["aa", "ab"], "gold": 1},
        {"query": "x", "choices": ["ab", "aa"], "gold": 1},
    )
    assert [score.greedy for score in run(bigram(probability_VV), tmp_path, "copa")[1]] == [True, False]  # of gold


def test_crows_pairs_by_category(tmp_path):
    """Whole sentences, the stereotyped one as gold; examples are not put before them."""
    with open(tmp_path / "crows_pairs_anonymized.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"])
        for row in (["aa, b", "bb, b", "age"], ["bb\nb", "aa\nb", "age"], ["a", "b", "religion"]):
            writer.writerow(["0", row[0], row[1], "stereo", row[2]])
    told, scores = run(preferring("a"), tmp_path, "crows_pairs", shots=2)
    assert [(one.task, one.shots, one.items, one.acc) for one in told] == [
        ("crows_pairs", 0, 3, 2 / 3),
        ("crows_pairs/age", 0, 2, 0.5),
        ("crows_pairs/religion", 0, 1, 1.0),
    ]
    assert scores[2].bits == pytest.approx([-math.log2(0.75), -math.log2(0.25 / 256)], rel=1e-4)
    assert [score.bytes for score in scores] == [(5, 5), (4, 4), (1, 1)]


# -- examples -----------------------------------------------------------------------------------------------------------------


def item_of(number):
    return Item((f"q{number}",) * 2, ("a", "b"), number % 2)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=12), st.data())
def test_examples_are_the_others_in_the_order_of_hashes(numbers, data):
    """In any order of the file the same ones, never the item or its double, and each serves as often as any other."""
    items = [item_of(number) for number in numbers]
    others = len(set(numbers)) - 1
    shots = data.draw(st.integers(0, others))
    order, follow = tasks.examples(items, shots)
    assert sorted(order) == list(range(len(items)))
    assert [items[place].key for place in order] == sorted(item.key for item in items)
    assert set(follow) == {item.key for item in items}
    for item in items:
        assert item not in follow[item.key]
        assert len(set(follow[item.key])) == shots
    used = [one for some in follow.values() for one in some]
    assert {used.count(item) for item in items} == {shots}
    shuffled = data.draw(st.permutations(items))
    assert tasks.examples(shuffled, shots)[1] == follow
    one_line(lambda: tasks.examples(items, others + 1), f"{others + 1} examples", f"0 to {others}")


def test_some_of_the_items_score_as_in_the_whole(tmp_path):
    """The first by hash, with the same examples as where all are scored."""
    records = [{"query": f"is {n} odd?", "choices": ["no", "yes"], "gold": n % 2} for n in range(9)]
    write_lines(tmp_path / "boolq.jsonl", *records)
    model = lively("glam", ROOM)
    _, every = run(model, tmp_path, "boolq", shots=2)
    (told,), some = run(model, tmp_path, "boolq", shots=2, most=4)
    items = tasks.read_items(str(tmp_path), "boolq")
    assert [one.number for one in some] == sorted(sorted(range(9), key=lambda place: items[place].key)[:4])
    assert told.items == 4
    for one in some:
        assert one.bits == pytest.approx(every[one.number].bits, rel=1e-6)


# -- the real files -----------------------------------------------------------------------------------------------------------

REAL = {  # items, the mean of 1 / choices, items whose gold is the first choice: counted with plain json and csv
    "lambada_openai": (5153, 1.0, 5153),
    "arc_easy": (2376, 0.25, 565),
    "arc_challenge": (1172, 0.25, 261),
    "piqa": (1838, 0.5, 910),
    "winogrande": (1267, 0.5, 628),
    "copa": (100, 0.5, 55),
    "openbook_qa": (500, 0.25, 138),
    "boolq": (3270, 0.5, 1237),
    "winogender_female": (60, 0.5, 29),
    "winogender_male": (60, 0.5, 31),
    "crows_pairs": (1508, 0.5, 1508),
}


@pytest.fixture
def real_tasks(real_data):
    if not (real_data / "evals" / "copa.jsonl").is_file():
        pytest.skip(f"no task files at {real_data}/evals")
    return str(real_data / "evals")


def test_every_real_file_is_read_whole(real_tasks):
    assert list(REAL) == list(tasks.TASKS)
    for name, (count, chance, first) in REAL.items():
        items = tasks.read_items(real_tasks, name)
        assert len(items) == count, name
        assert math.fsum(1 / len(item.choices) for item in items) / count == pytest.approx(chance), name
        assert sum(item.gold == 0 for item in items) == first, name
    groups = [item.group for item in tasks.read_items(real_tasks, "crows_pairs")]
    assert {group: groups.count(group) for group in groups} == {
        "race-color": 516, "gender": 262, "socioeconomic": 172, "nationality": 159, "religion": 105, "age": 87,
        "sexual-orientation": 84, "physical-appearance": 63, "disability": 60,
    }  # fmt: skip


def test_a_choice_by_itself_has_the_ids_that_it_has_behind_its_context(real_tasks):
    """A trained tokenizer: no piece of its pattern crosses from any real context into the space before the choice."""
    texts = [item.answered for item in tasks.read_items(real_tasks, "copa")]
    encoder = tasks.Encoder(bpe_file.save(bpe.train(iter(texts), 500, "split")), "trained")
    for name in ("copa", "piqa", "arc_challenge", "winogrande", "winogender_male"):
        for item in tasks.read_items(real_tasks, name)[:200]:
            context, choice = item.contexts[item.gold], " " + item.choices[item.gold]
            assert [*encoder(context), *encoder(choice)] == [*encoder(context + choice)]


def test_real_items_are_scored_as_token_by_token(real_tasks):
    """Three items of COPA by hash, an example before each."""
    model = lively("glam", 256)
    (told,), scores = run(model, real_tasks, "copa", shots=1, most=3)
    items = tasks.read_items(real_tasks, "copa")
    ring = sorted(items, key=lambda item: item.key)
    for score in scores:
        item = items[score.number]
        before = ring[ring.index(item) + 1].answered + "\n\n" + item.contexts[0]
        assert score.bits == pytest.approx([plainly(model, before, " " + choice) for choice in item.choices], rel=1e-5)
    assert (told.items, told.cut, told.chance) == (3, 0, 0.5)


# -- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "record", "part"),
    [
        ("copa", {"choices": ["a", "b"], "gold": 0}, "no 'query'"),
        ("copa", {"query": "q", "choices": ["a", "b"], "gold": 2}, "gold 2"),
        ("copa", {"query": "q", "choices": ["a", "b"], "gold": True}, "gold True"),
        ("copa", {"query": "q", "choices": ["a"], "gold": 0}, "no list of two"),
        ("copa", {"query": "q", "choices": ["a", ""], "gold": 0}, "'' is no text"),
        ("copa", {"query": None, "choices": ["a", "b"], "gold": 0}, "None is no text"),
        ("lambada_openai", {"context": "x"}, "no 'continuation'"),
        ("winogrande", {"context_options": "x", "continuation": "y", "gold": 0}, "no list of two"),
    ],
)
def test_bad_records_are_one_line(tmp_path, name, record, part):
    good = {"query": "q", "choices": ["a", "b"], "gold": 0, "context": "x", "continuation": "y", "context_options": ["a", "b"]}
    path = write_lines(tmp_path / tasks.TASKS[name].file, good, record)
    one_line(lambda: tasks.read_items(str(tmp_path), name), path, "record 1", part, f"task {name}")


def test_bad_files_are_one_line(tmp_path):
    one_line(lambda: tasks.read_items(str(tmp_path), "copa"), tmp_path / "copa.jsonl", "cannot be read")
    one_line(lambda: tasks.read_items(str(tmp_path), "crows_pairs"), "crows_pairs_anonymized.csv", "cannot be read")
    one_line(lambda: tasks.read_items(str(tmp_path), "hellaswag"), "hellaswag", "no such task", "openbook_qa")
    write_lines(tmp_path / "copa.jsonl")
    one_line(lambda: tasks.read_items(str(tmp_path), "copa"), tmp_path / "copa.jsonl", "no items")
    (tmp_path / "crows_pairs_anonymized.csv").write_bytes(b"sent_more,sent_less\n\xff,b\n")
    one_line(lambda: tasks.read_items(str(tmp_path), "crows_pairs"), "crows_pairs_anonymized.csv", "cannot be read")
    (tmp_path / "crows_pairs_anonymized.csv").write_text("sent_more,sent_less,bias_type\na\n")
    one_line(lambda: tasks.read_items(str(tmp_path), "crows_pairs"), "record 0", "None is no text")


def test_bad_calls_are_one_line(tmp_path):
    write_lines(tmp_path / "copa.jsonl", *(json.dumps(record) for record in QUERIES))
    model = lively("llama", ROOM)
    one_line(lambda: run(model, tmp_path, "copa", shots=3), "3 examples", "0 to 2")
    one_line(lambda: run(model, tmp_path, "copa", shots=-1), "-1 examples")
    one_line(lambda: run(model, tmp_path, "copa", most=0), "copa", "at least 1")
    with pytest.raises(UserError, match="257 ids, but the model has 61"):
        run(build(DENSE, 0), tmp_path, "copa")
