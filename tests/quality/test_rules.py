"""Rules: inclusive bounds, the first failing rule with its number, changed thresholds, errors that name the nearest name.

The bounds are held to the papers: Rae et al. 2021 (appendix A1.1, table A1), Raffel et al. 2020 (section 2.2), Penedo et al.
2024 (section 3.6), Chen et al. 2021 (section 3.1).
"""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import UserError
from quality import rules
from quality.signals import SIGNAL_FIELDS, Signals

KINDS = {field.name: field.type for field in SIGNAL_FIELDS}
BOUNDS = [
    (family, rule, side)
    for family, members in rules.FAMILIES.items()
    for rule in members
    for side in ("low", "high")
    if getattr(rule, side) is not None
]

PAPERS = {
    "gopher": {
        "words": (50, 100_000),
        "mean_word_length": (3, 10),
        "hash_ratio": (None, 0.1),
        "ellipsis_ratio": (None, 0.1),
        "bullet_lines": (None, 0.9),
        "ellipsis_lines": (None, 0.3),
        "alphabetic_words": (0.8, None),
        "distinct_stop_words": (2, None),
        "duplicate_lines": (None, 0.3),
        "duplicate_paragraphs": (None, 0.3),
        "duplicate_line_characters": (None, 0.2),
        "duplicate_paragraph_characters": (None, 0.2),
        "top_2_gram": (None, 0.2),
        "top_3_gram": (None, 0.18),
        "top_4_gram": (None, 0.16),
        **{f"duplicate_{n}_grams": (None, share) for n, share in enumerate((0.15, 0.14, 0.13, 0.12, 0.11, 0.1), 5)},
    },
    "c4": {"lorem_ipsum": (None, 0), "curly_brackets": (None, 0), "bad_words": (None, 0), "c4_sentences": (3, None)},
    "fineweb": {"terminal_lines": (0.12, None), "duplicate_line_characters": (None, 0.1), "short_lines": (None, 0.67)},
    "code": {"longest_line": (None, 1000), "mean_line_length": (None, 100), "alphanumerics": (0.25, None)},
}


def test_bounds_are_those_of_the_papers():
    found = {name: {rule.signal: (rule.low, rule.high) for rule in members} for name, members in rules.FAMILIES.items()}
    assert found == PAPERS


@pytest.mark.parametrize(("family", "rule", "side"), BOUNDS, ids=[f"{rule.name}.{side}" for _, rule, side in BOUNDS])
def test_a_document_at_a_bound_passes_and_one_beyond_it_fails_by_name(family, rule, side):
    """Every other signal of the family stands at one of its bounds, so that no other rule can be the reason."""
    bound, outwards = getattr(rule, side), -1 if side == "low" else 1
    fraction = KINDS[rule.signal] == pa.float32()
    beyond = np.nextafter(np.float32(bound), np.float32(outwards * np.inf)) if fraction else bound + outwards
    columns = {
        other.signal: pa.array([other.high if other.low is None else other.low] * 2, KINDS[other.signal])
        for other in rules.FAMILIES[family]
    }
    columns[rule.signal] = pa.array([bound, beyond], KINDS[rule.signal])
    failed, value, threshold = rules.judge(pa.table(columns), rules.FAMILIES[family])
    assert failed[0] == -1
    assert np.isnan(value[0])
    assert np.isnan(threshold[0])
    assert rules.FAMILIES[family][failed[1]].name == rule.name
    assert (value[1], threshold[1]) == (float(beyond), bound)


def test_the_first_failing_rule_is_named():
    chosen = rules.resolve({"gopher": {}})
    table = pa.table({name: pa.array([0], kind) for name, kind in KINDS.items()})
    failed, value, threshold = rules.judge(table, chosen)
    assert (chosen[failed[0]].name, value[0], threshold[0]) == ("gopher_words", 0, 50)


def test_texts_are_judged_by_their_signals():
    """Pages that differ from a good one in one thing each."""
    sentence = "Of all the rivers of the north number{0} was the one that people knew best and wrote about with love."
    good = "\n".join(sentence.format(number) for number in range(4))
    texts = {
        good: None,
        sentence: "gopher_words",
        " ".join(["it"] * 60): "gopher_mean_word_length",
        good.replace(" ", " # ", 10): "gopher_hash_ratio",
        good.replace("love.", "love..."): "gopher_ellipsis_lines",
        good.replace("the", "a").replace("of", "in").replace("that", "it").replace("with", "for"): "gopher_stop_words",
        good + f"\n{sentence}" * 4: "gopher_duplicate_lines",
        good + "\n{": "c4_curly_bracket",
        good + "\nLorem ipsum": "c4_lorem_ipsum",
        good.replace(".", ""): "c4_sentences",
    }
    # The sentences repeat each other.
    lenient = [f"top_{n}_gram.high" for n in (2, 3, 4)] + [f"duplicate_{n}_grams.high" for n in range(5, 11)]
    chosen = rules.resolve({"gopher": dict.fromkeys(lenient, 1.0), "c4": {}})
    failed, _, _ = rules.judge(Signals()(pa.array(list(texts), pa.large_string())), chosen)
    assert [None if index < 0 else chosen[index].name for index in failed] == list(texts.values())


def test_a_recipe_changes_single_thresholds():
    words, *others = rules.resolve({"gopher": {"words.low": 30, "words.high": 70}})
    assert (words.low, words.high) == (30, 70)
    assert others == list(rules.GOPHER[1:])
    assert rules.resolve({"c4": {}, "code": {}}) == rules.C4 + rules.CODE


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"gofer": {}}, "rules: no family 'gofer'; did you mean 'gopher'?"),
        ({"zzz": {}}, "rules: no family 'zzz'; known are gopher, c4, fineweb, code"),
        ({"gopher": {"word.low": 1}}, "rules.gopher: no threshold 'word.low'; did you mean 'words.low'?"),
        ({"c4": {"sentences": 1}}, "rules.c4: no threshold 'sentences'; did you mean 'sentences.low'?"),
        ({"gopher": {}, "code": {"gopher_words.low": 1}}, "rules.code: no threshold 'gopher_words.low'; did you mean"),
    ],
)
def test_unknown_names_are_one_line_errors(selection, message):
    with pytest.raises(UserError) as caught:
        rules.resolve(selection)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
