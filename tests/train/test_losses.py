"""train.losses against torch's cross-entropy, hand-computed auxiliary losses, and the whole batch."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from tests.train.models import moe, normal, relative, tokens
from train import losses
from train.model import build
from train.moe import RoutingOptions
from train.noise import noise_keys


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_cross_entropy_is_torchs_in_chunks_of_any_size(monkeypatch, rows):
    monkeypatch.setattr(losses, "_CHUNK_ROWS", rows)
    hidden, weight = normal(20, 8, seed=1).requires_grad_(), normal(11, 8, seed=2).requires_grad_()
    target = tokens(20, vocab=11)
    target[[0, 5]] = losses.IGNORE
    scale = normal(20, seed=3)  # every token with a gradient of its own
    wanted = F.cross_entropy(F.linear(hidden, weight), target, reduction="none", ignore_index=losses.IGNORE)
    wanted_grads = torch.autograd.grad((wanted * scale).sum(), (hidden, weight))
    got = losses.cross_entropy(hidden, weight, target)
    grads = torch.autograd.grad((got * scale).sum(), (hidden, weight))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    for one, other in zip(grads, wanted_grads, strict=True):
        assert relative(one, other) < 1e-6


def test_cross_entropy_under_autocast_is_float32_of_bfloat16_logits():
    hidden, weight, target = normal(6, 8), normal(11, 8, seed=1), tokens(6, vocab=11)
    with torch.autocast("cpu", torch.bfloat16):
        got = losses.cross_entropy(hidden, weight, target)
    wanted = F.cross_entropy((hidden.bfloat16() @ weight.bfloat16().T).float(), target, reduction="none")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_balance_loss_by_hand():
    """Three tokens, two experts: (.8 .2) (.6 .4) (.3 .7), first choices 0, 0, 1: f = (2/3, 1/3), P = (17/30, 13/30)."""
    p = torch.tensor([[[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]])
    wanted = 2 * (2 / 3 * 17 / 30 + 1 / 3 * 13 / 30)
    torch.testing.assert_close(losses.balance_loss(p, torch.tensor([[2, 1]])), torch.tensor([wanted]))
    valid = torch.tensor([[True, True, False]])  # without the third: f = (1, 0), P = (.7, .3)
    torch.testing.assert_close(losses.balance_loss(p, torch.tensor([[2, 0]]), valid), torch.tensor([2 * 0.7]))


@pytest.mark.parametrize("experts", [2, 8])
def test_balance_loss_is_1_when_uniform_and_e_when_collapsed(experts):
    """Switch, equation 4 and the remark below it; GShard's f of first choices alone has the same ends."""
    uniform = torch.full((1, 6, experts), 1 / experts)
    for load in (torch.full((1, experts), 6 / experts), torch.eye(experts)[:1] * 6):  # 1 for any f
        torch.testing.assert_close(losses.balance_loss(uniform, load), torch.tensor([1.0]))
    collapsed = torch.zeros(1, 6, experts)
    collapsed[..., 0] = 1
    torch.testing.assert_close(losses.balance_loss(collapsed, torch.eye(experts)[:1] * 6), torch.tensor([float(experts)]))


def test_z_loss_by_hand():
    """ST-MoE, equation 5: two tokens of two logits."""
    logits = torch.tensor([[[0.0, 0.0], [1.0, 3.0]]])
    first, second = math.log(2) ** 2, math.log(math.e + math.e**3) ** 2
    normaliser = logits.logsumexp(-1)
    torch.testing.assert_close(losses.z_loss(normaliser), torch.tensor([(first + second) / 2]))
    torch.testing.assert_close(losses.z_loss(normaliser, torch.tensor([[True, False]])), torch.tensor([first]))


@pytest.mark.parametrize("split", [[4, 4], [2, 6], [2, 2, 2, 2]])
def test_gradients_do_not_depend_on_the_split_into_micro_batches(split):
    """The whole global batch in one call is the reference: capacity, jitter, dropout, both auxiliary losses, ragged targets."""
    config = moe(capacity_train=1.0, jitter=0.05, expert_dropout=0.2, z_coefficient=1e-2, group=2)
    model = build(config, 3)
    inputs, targets = tokens(8, 16), tokens(8, 16, seed=1)
    targets[0, 3:], targets[5, :9] = losses.IGNORE, losses.IGNORE
    valid = int((targets != losses.IGNORE).sum())

    def gradients(sizes):
        model.zero_grad()
        total, dropped = 0.0, 0
        for rows in torch.arange(8).split(sizes):
            out = model(inputs[rows], targets[rows], routing=RoutingOptions("train", noise_keys(1, 2, rows)))
            loss = losses.training_loss(out, config, valid, 4)
            loss.backward()
            total, dropped = total + float(loss.detach()), dropped + out.routing.dropped
        return total, dropped, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole, parts = gradients([8]), gradients(split)
    assert whole[1].sum() > 0
    assert torch.equal(whole[1], parts[1])
    assert abs(whole[0] / parts[0] - 1) < 1e-6
    assert relative(parts[2], whole[2]) < 1e-6


def test_the_training_loss_is_cross_entropy_plus_every_layers_auxiliary_losses():
    config = dataclasses.replace(moe(every=1, z_coefficient=0.5, balance_coefficient=0.25), n_layers=2)
    out = build(config, 0)(tokens(3, 8), tokens(3, 8, seed=1), routing=RoutingOptions("train"))
    routed = out.routing
    extra = sum(0.25 * routed.balance_G[layer].mean() + 0.5 * routed.z_G[layer].mean() for layer in (0, 1))
    wanted = out.loss_BT.mean() + extra
    torch.testing.assert_close(losses.training_loss(out, config, 24, 3), wanted)
