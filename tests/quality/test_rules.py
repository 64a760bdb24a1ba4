"""Rules: inclusive bounds by their papers, first failing rule, changed thresholds, errors that name the nearest known name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import UserError
from quality import rules
from quality.signals import SIGNAL_FIELDS

KINDS = {field.name: field.type for field in SIGNAL_FIELDS}
ALL = [rule for family in rules.FAMILIES.values() for rule in family]


def _signals(name, values):
    return pa.table({name: pa.array(values, KINDS[name])})


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_a_document_at_a_bound_passes_and_one_beyond_it_fails(rule):
    for bound, outwards in ((rule.low, -np.inf), (rule.high, np.inf)):
        if bound is None:
            continue
        beyond = np.nextafter(np.float32(bound), np.float32(outwards)) if KINDS[rule.signal] == pa.float32() else bound + np.sign(outwards)
        table = _signals(rule.signal, [bound, beyond] if KINDS[rule.signal] == pa.float32() else [int(bound), int(beyond)])
        failed, value, threshold = rules.judge(table, [rule])
        assert failed.tolist() == [-1, 0]
        assert np.isnan(value[0])
        assert (value[1], threshold[1]) == (float(np.float32(beyond)), bound)


def test_the_first_failing_rule_is_named():
    chosen = rules.resolve({"gopher": {}})
    table = pa.table({name: pa.array([0], kind) for name, kind in KINDS.items()})
    failed, value, threshold = rules.judge(table, chosen)
    assert (chosen[failed[0]].name, value[0], threshold[0]) == ("gopher_words", 0, 50)


def test_a_recipe_changes_single_thresholds():
    (words, *others) = rules.resolve({"gopher": {"words.low": 30}})
    assert (words.low, words.high) == (30, 100_000)
    assert others == list(rules.GOPHER[1:])


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"gofer": {}}, "rules: no family 'gofer'; did you mean 'gopher'?"),
        ({"gopher": {"word.low": 1}}, "rules.gopher: no threshold 'word.low'; did you mean 'words.low'?"),
    ],
)
def test_unknown_names_are_one_line_errors(selection, message):
    with pytest.raises(UserError) as caught:
        rules.resolve(selection)
    assert str(caught.value) == message
