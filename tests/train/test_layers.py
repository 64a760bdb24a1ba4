"""train.layers against brute force: norms, rotations as complex numbers, attention in loops; and against T5's buckets."""

import cmath
import dataclasses
import math

import pytest
import torch

from tests.train.models import DENSE, normal, relative
from train.layers import Attention, LayerNorm, RMSNorm, angles, make_view, relative_bucket, rotate, sinusoid


def test_rms_norm_by_its_formula():
    norm, x = RMSNorm(DENSE), normal(3, 16)
    norm.weight.data = normal(16, seed=1)
    for row, got in zip(x.double(), norm(x), strict=True):
        wanted = row / math.sqrt(sum(float(v) ** 2 for v in row) / 16 + DENSE.norm_eps) * norm.weight
        torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-6, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_layer_norm_is_torchs():
    norm, x = LayerNorm(DENSE), normal(3, 16)
    norm.weight.data, norm.bias.data = normal(16, seed=1), normal(16, seed=2)
    reference = torch.nn.LayerNorm(16, eps=DENSE.norm_eps)
    reference.weight.data, reference.bias.data = norm.weight.data, norm.bias.data
    torch.testing.assert_close(norm(x), reference(x))


def test_rotation_is_multiplication_by_unit_complex_numbers():
    """Su et al. 2021, section 3.2: pair i of position m turns by m theta^(-2 i / d)."""
    x = normal(1, 1, 5, 8)
    got = rotate(x, angles(torch.tensor([[0, 1, 2, 7, 300]]), 8, 10_000.0))
    for row, position in enumerate([0, 1, 2, 7, 300]):
        for pair in range(4):
            turned = complex(x[0, 0, row, pair], x[0, 0, row, pair + 4]) * cmath.exp(1j * position * 10_000 ** (-2 * pair / 8))
            assert abs(complex(got[0, 0, row, pair], got[0, 0, row, pair + 4]) - turned) < 1e-4


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20)])
def test_buckets_are_t5s(buckets, furthest):
    """transformers' T5, causal; and monotone, with one distance each in the lower half."""
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    distance = torch.arange(-3, 400)
    got = relative_bucket(distance, buckets, furthest)
    wanted = t5._relative_position_bucket(-distance, bidirectional=False, num_buckets=buckets, max_distance=furthest)
    assert torch.equal(got, wanted)
    assert got[3 : 3 + buckets // 2].tolist() == list(range(buckets // 2))


def naive_attention(attention, x, allowed):
    """One query, one head at a time; scores of each kind of positions by their papers' formulas."""
    config = attention.config
    heads, width = config.n_heads, config.d_head
    n = len(x)
    q, k, v = (part.view(n, heads, width).double() for part in attention.qkv(x).chunk(3, dim=1))
    out = torch.zeros(n, heads, width, dtype=torch.float64)
    for head in range(heads):
        for i in range(n):
            scores = []
            keys = [j for j in range(n) if allowed[i][j]]
            for j in keys:
                query, key = q[i, head], k[j, head]
                score = query @ key
                if config.positions == "rope":
                    a, b = (torch.complex(*vector.chunk(2)) for vector in (query, key))
                    rates = [config.rope_theta ** (-2 * pair / width) for pair in range(width // 2)]
                    turn = torch.tensor([cmath.exp(1j * (i - j) * rate) for rate in rates])
                    score = (a * turn * b.conj()).real.sum()
                elif config.positions == "transformer_xl":
                    r = attention.relative(sinusoid(n, config.d_model, x.device)[i - j]).view(heads, width)[head].double()
                    score = (query + attention.content_bias[head]) @ key + (query + attention.position_bias[head]) @ r
                score = score / width**0.5
                if config.positions == "relative_bias":
                    bucket = relative_bucket(torch.tensor(i - j), config.relative_buckets, config.relative_max_distance)
                    score = score + attention.relative_bias[bucket, head]
                scores.append(score)
            out[i, head] = torch.stack(scores).softmax(0).double() @ v[keys, head]
    return attention.out(out.flatten(1).float())


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("positions", ["rope", "relative_bias", "transformer_xl", "none"])
def test_attention_is_a_loop_over_queries_and_keys(positions, documents):
    config = dataclasses.replace(DENSE, positions=positions, relative_buckets=6, relative_max_distance=7)
    attention = Attention(config)
    for number, parameter in enumerate(attention.parameters()):
        parameter.data = normal(*parameter.shape, seed=number) / 2
    starts = torch.zeros(1, 10, dtype=torch.bool)
    starts[0, [0, 4, 5]] = True
    document = starts[0].cumsum(0)
    allowed = [[j <= i and (not documents or document[i] == document[j]) for j in range(10)] for i in range(10)]
    x = normal(1, 10, 16, seed=50)
    with torch.no_grad():
        got = attention(x, make_view(config, 10, 0, starts if documents else None, x.device))
        wanted = naive_attention(attention, x[0], allowed)
    torch.testing.assert_close(got[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", ["rope", "relative_bias", "transformer_xl", "none"])
def test_attention_of_bfloat16_weights_is_near_that_of_float32(positions):
    """Weights that are loaded in bf16, without autocast: the same to bf16's 8 bits (2e-2 of the norm)."""
    config = dataclasses.replace(DENSE, positions=positions, relative_buckets=6, relative_max_distance=7)
    attention = Attention(config)
    for number, parameter in enumerate(attention.parameters()):
        parameter.data = normal(*parameter.shape, seed=number) / 4
    x = normal(2, 10, 16, seed=50)
    with torch.no_grad():
        wanted = attention(x, make_view(config, 10, 0, None, x.device))
        got = attention.to(torch.bfloat16)(x.to(torch.bfloat16), make_view(config, 10, 0, None, x.device))
    assert relative(got, wanted) < 2e-2
