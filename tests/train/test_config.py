"""train.config: JSON there and back, and one-line errors."""

import dataclasses
import json

import pytest

from pipelines.errors import UserError
from tests.train.models import DENSE, SPARSE
from train.config import ModelConfig
from train.presets import PRESETS, get


@pytest.mark.parametrize("config", [DENSE, SPARSE, *(preset.config for preset in PRESETS.values())])
def test_a_config_survives_json(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_fields_take_their_defaults():
    values = DENSE.to_dict()
    del values["norm"]
    assert ModelConfig.from_dict(values) == DENSE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_modl": 8}, "d_modl: no such field; did you mean d_model?"),
        ({"d_model": "8"}, "d_model: '8' is not int"),
        ({"d_model": True}, "d_model: True is not int"),
        ({"norm": "batch"}, "norm: 'batch' is not one of rmsnorm, layernorm"),
        ({"d_model": 0}, "d_model must be at least 1, not 0"),
        ({"d_head": 7}, "d_head 7 is odd: rotary positions turn pairs, choose an even one"),
        ({"moe": {"experts": 2}}, "moe.top_k: missing; a model needs it"),
        ({"moe": {"expert": 2}}, "moe.expert: no such field; did you mean moe.experts?"),
        ({"moe": {"experts": 2, "top_k": 3, "d_ff": 8, "ffn": "relu"}}, "top_k 3 is above moe.experts 2"),
        ({"moe": {"experts": 2, "top_k": 1, "d_ff": 8, "ffn": "relu", "every": 9}}, "moe.every 9 is above n_layers 2"),
        ({"moe": {"experts": 2, "top_k": 1, "d_ff": 8, "ffn": "relu", "capacity_train": 0}}, "capacity_train must be above 0"),
        ({"moe": [1]}, r"moe: expected an object of fields, not \[1\]"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, message):
    with pytest.raises(UserError, match=message):
        ModelConfig.from_dict(DENSE.to_dict() | change)


def test_a_missing_field_is_named():
    values = DENSE.to_dict()
    del values["vocab_size"]
    with pytest.raises(UserError, match="vocab_size: missing"):
        ModelConfig.from_dict(values)


def test_sparse_layers_are_the_last_of_each_group():
    config = dataclasses.replace(SPARSE, n_layers=5)
    assert [config.is_sparse(layer) for layer in range(5)] == [False, True, False, True, False]
    assert config.n_sparse == 2


def test_a_preset_takes_the_vocabulary_of_the_data():
    assert get("llama-tiny", vocab_size=100, context=64).vocab_size == 100
    with pytest.raises(UserError, match="did you mean llama-7b"):
        get("lama-7b")
