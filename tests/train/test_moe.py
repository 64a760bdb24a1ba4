"""train.moe: routing by hand, capacity in its order, noise, and the layers of transformers."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tests.train.models import moe, normal, relative, tokens
from train.layers import FeedForward
from train.model import build
from train.moe import MoE, RoutingOptions, choose, group_capacity, within_capacity
from train.noise import noise_keys

NOISY = {"jitter": 0.1, "expert_dropout": 0.3}


def layer(**changes):
    """A sparse layer with weights of ordinary size, so that routing is decided and unequal."""
    made = MoE(moe(every=1, **changes), 0)
    for number, parameter in enumerate(made.parameters()):
        parameter.data = normal(*parameter.shape, seed=number) / 2
    return made


def test_capacity_takes_tokens_in_order_for_one_choice():
    """Switch, section 2.2: of five tokens for expert 0 the first two find room, in each group anew."""
    expert_GMK = torch.tensor([[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]])[..., None]
    kept = within_capacity(expert_GMK, 2, 2)[..., 0]
    assert kept.tolist() == [[True, True, True, False, False], [True, True, True, False, False]]


def test_capacity_takes_all_first_choices_before_any_second():
    """GShard, algorithm 1: the last token's first choice evicts the first token's second."""
    expert_GMK = torch.tensor([[[1, 0], [2, 0], [0, 1], [0, 2]]])
    kept = within_capacity(expert_GMK, 3, 2)
    assert kept.tolist() == [[[True, False], [True, False], [True, True], [True, True]]]
    kept = within_capacity(expert_GMK, 3, 3)  # room for one second choice: the first token's
    assert kept.tolist() == [[[True, True], [True, False], [True, True], [True, True]]]


def test_padding_takes_no_capacity():
    expert_GMK = torch.tensor([[0, 0, 0]])[..., None]
    valid = torch.tensor([[False, True, True]])
    assert within_capacity(expert_GMK, 2, 2, valid)[..., 0].tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("tokens_", "factor", "experts", "least", "wanted"), [(64, 1.25, 8, 4, 10), (64, 1.0, 32, 4, 4), (3, 9.0, 2, 1, 3)]
)
def test_capacity_is_counted_as_by_mesh_tensorflow(tokens_, factor, experts, least, wanted):
    """max(min(group, int(group x factor / experts)), least)."""
    assert group_capacity(moe(experts=experts, min_capacity=least).moe, tokens_, factor) == wanted


def test_choices_are_a_stable_sort_of_the_logits():
    """Python's sort, with many ties."""
    logits = tokens(1, 40, 6, vocab=4).float()
    wanted = [sorted(range(6), key=lambda expert, row=row: -row[expert])[:3] for row in logits[0].tolist()]
    assert choose(logits, 3)[0].tolist() == wanted


def test_gates_are_the_probabilities_for_switch_and_renormalised_for_glam():
    x = normal(1, 6, 16, seed=9)
    for top_k, renormalise in ((1, False), (2, True), (2, False)):
        made = layer(top_k=top_k, renormalise=renormalise)
        routing, _ = made.route(x, RoutingOptions())
        p = F.softmax(x[0] @ made.router_ED.T, dim=1)
        wanted, experts = p.sort(dim=1, descending=True)
        wanted, experts = wanted[:, :top_k], experts[:, :top_k]
        if renormalise:
            wanted = wanted / (wanted.sum(1, keepdim=True) + 1e-9)
        assert torch.equal(routing.expert_NK, experts)
        torch.testing.assert_close(routing.gate_NK, wanted)


def test_gates_are_renormalised_before_anything_is_dropped():
    """mesh-tensorflow's _top_2_gating: a token that lost its second expert keeps g1 / (g1 + g2)."""
    made, x = layer(capacity_train=0.5, renormalise=True), normal(1, 12, 16, seed=9)
    free, _ = made.route(x, RoutingOptions())
    full, statistics = made.route(x, RoutingOptions("train"))
    assert statistics.dropped == (~full.kept_NK).sum() > 0
    assert torch.equal(full.gate_NK, free.gate_NK * full.kept_NK)


@pytest.mark.parametrize("dispatch", ["grouped", "padded", "einsum"])
def test_overflow_passes_through_the_residual(dispatch):
    """Where all choices of a token are dropped the layer adds exactly nothing, and the token's gradient is the residual's."""
    made, x = layer(top_k=1, capacity_train=0.5, dispatch=dispatch), normal(2, 8, 16, seed=9).requires_grad_()
    routing, _ = made.route(x, RoutingOptions("train"))
    y, statistics = made(x, RoutingOptions("train"))
    lost = ~routing.kept_NK[:, 0].view(2, 8)
    assert 0 < lost.sum() == statistics.dropped < 16
    assert (y[lost] == 0).all()
    assert (y[~lost] != 0).any(-1).all()
    (gradient,) = torch.autograd.grad((x + y).sum(), x)
    assert (gradient[lost] == 1).all()


@pytest.mark.parametrize("ffn", ["swiglu", "geglu", "gelu", "relu"])
@pytest.mark.parametrize("top_k_one", ["switch", "glam"])
def test_one_expert_is_a_dense_layer_of_the_same_kind(ffn, top_k_one):
    made = layer(experts=1, top_k=1, ffn=ffn, renormalise=top_k_one == "glam")
    dense = FeedForward(dataclasses.replace(moe(), ffn=ffn, d_ff=24))
    dense.w_in.weight.data, dense.w_out.weight.data = made.experts.w_in_EFD.data[0], made.experts.w_out_EDF.data[0]
    x = normal(2, 8, 16, seed=9).requires_grad_()
    y, statistics = made(x, RoutingOptions())
    torch.testing.assert_close(y, dense(x), rtol=1e-6, atol=1e-6)
    got = torch.autograd.grad(y.square().sum(), [x, made.experts.w_in_EFD, made.experts.w_out_EDF])
    wanted = torch.autograd.grad(dense(x).square().sum(), [x, dense.w_in.weight, dense.w_out.weight])
    for one, other in zip(got, wanted, strict=True):
        assert relative(one.view_as(other), other) < 1e-6
    assert statistics.balance_G.tolist() == [1.0]
    assert statistics.entropy == 0


@pytest.mark.parametrize(("balance", "wanted"), [("first_choice", 4.0), ("all_choices", 2.0)])
def test_a_collapsed_router_costs_e_by_first_choices_and_e_by_k_by_all(balance, wanted):
    made, x = layer(balance=balance), torch.ones(1, 8, 16)
    made.router_ED.data = torch.tensor([9.0, 1.0, 0.0, 0.0])[:, None].expand(4, 16)
    _, statistics = made(x, RoutingOptions("train"))
    torch.testing.assert_close(statistics.balance_G, torch.tensor([wanted]))
    assert statistics.load_E.tolist() == [8, 8, 0, 0]


def test_a_uniform_router_costs_1_for_every_k():
    for top_k in (1, 2, 4):
        for balance in ("first_choice", "all_choices"):
            made = layer(top_k=top_k, balance=balance)
            made.router_ED.data.zero_()
            _, statistics = made(normal(1, 8, 16), RoutingOptions("train"))
            torch.testing.assert_close(statistics.balance_G, torch.ones(1))
            torch.testing.assert_close(statistics.entropy, 8 * torch.log(torch.tensor(4.0)))


def test_statistics_by_counting():
    made, x = layer(group=2, capacity_train=1.0), normal(4, 6, 16, seed=9)
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[1, 4:] = False
    y, got = made(x, RoutingOptions("train", record_choices=True), valid)
    p = F.softmax(x @ made.router_ED.T, dim=-1)
    chosen = p.topk(2, dim=-1).indices
    assert torch.equal(got.choices_BTK, chosen)
    assert got.load_E.tolist() == [int((chosen[valid] == expert).sum()) for expert in range(4)]
    assert got.tokens == 22
    torch.testing.assert_close(got.entropy, -(p * p.log()).sum(-1)[valid].sum())
    assert (y[~valid] == 0).all()
    for group in range(2):
        rows = slice(2 * group, 2 * group + 2)
        first, mean = chosen[rows][valid[rows]][:, 0], p[rows][valid[rows]].mean(0)
        f = torch.bincount(first, minlength=4) / len(first)
        torch.testing.assert_close(got.balance_G[group], 4 * (f * mean).sum())


def test_groups_do_not_see_each_other():
    """Two groups in one call are two calls of one group: choices, drops, losses."""
    made, x = layer(group=2, capacity_train=0.75), normal(4, 6, 16, seed=9)
    whole, both = made(x, RoutingOptions("train"))
    for group in range(2):
        alone, one = made(x[2 * group : 2 * group + 2], RoutingOptions("train"))
        torch.testing.assert_close(alone, whole[2 * group : 2 * group + 2], rtol=1e-6, atol=1e-6)
        assert one.balance_G[0] == both.balance_G[group]
    with pytest.raises(ValueError, match=r"3 sequences in a call are no multiple of moe\.group 2"):
        made(x[:3], RoutingOptions("train"))


@pytest.mark.parametrize("dispatch", ["grouped", "padded", "einsum"])
def test_noise_belongs_to_a_sequence(dispatch):
    """Alone or in another order a sequence gets the same jitter and dropout; another step gives others."""
    made, x = layer(dispatch=dispatch, **NOISY), normal(3, 8, 16, seed=9)
    keys = noise_keys(1, 2, torch.tensor([5, 6, 7]))
    whole, _ = made(x, RoutingOptions("train", keys))
    turned, _ = made(x.flip(0), RoutingOptions("train", keys.flip(0)))
    alone, _ = made(x[1:2], RoutingOptions("train", keys[1:2]))
    torch.testing.assert_close(turned.flip(0), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone[0], whole[1], rtol=1e-5, atol=1e-6)
    later, _ = made(x, RoutingOptions("train", noise_keys(1, 3, torch.tensor([5, 6, 7]))))
    assert relative(later, whole) > 0.1
    with pytest.raises(ValueError, match="needs noise_key_B"):
        made(x, RoutingOptions("train"))


def test_every_layer_and_every_choice_has_noise_of_its_own():
    first, x, keys = layer(**NOISY), normal(2, 8, 16, seed=9), noise_keys(1, 2, torch.arange(2))
    second = MoE(moe(every=1, **NOISY), 1)
    second.load_state_dict(first.state_dict())
    options = RoutingOptions("train", keys)
    assert relative(first(x, options)[0], second(x, options)[0]) > 0.1
    dropout_NK = first.route(x, options)[0].key_NK
    assert len(torch.cat([dropout_NK, second.route(x, options)[0].key_NK]).unique()) == 2 * 16 * 2


def test_no_noise_outside_of_training():
    noisy, quiet, x = layer(**NOISY), layer(), normal(2, 8, 16, seed=9)
    for mode in ("dropless", "capacity"):
        assert torch.equal(noisy(x, RoutingOptions(mode))[0], quiet(x, RoutingOptions(mode))[0])


def test_dropout_drops_its_share_and_keeps_the_mean():
    """Identity experts of ones: hidden units are 0 or 1 / (1 - p)."""
    made = layer(experts=2, top_k=1, d_ff=16, ffn="relu", expert_dropout=0.25)
    made.experts.w_in_EFD.data = torch.eye(16).expand(2, 16, 16).clone()
    made.experts.w_out_EDF.data = torch.eye(16).expand(2, 16, 16).clone()
    x = torch.ones(4, 64, 16)
    routing, _ = made.route(x, RoutingOptions("train", noise_keys(0, 0, torch.arange(4))))
    units = made.dispatch(made.experts, x.flatten(0, 1), dataclasses.replace(routing, gate_NK=torch.ones_like(routing.gate_NK)))
    assert set(units.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(units.mean() - 1) < 4 * (0.25 / 0.75 / units.numel()) ** 0.5


def test_the_router_stays_in_float32_under_autocast():
    """Choices under bfloat16 autocast are those of float32 inputs, to the last bit."""
    made, x = layer(), normal(2, 8, 16, seed=9)
    routing, _ = made.route(x, RoutingOptions())
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = made.route(x, RoutingOptions())
        y, _ = made(x, RoutingOptions())
    assert cast.gate_NK.dtype == torch.float32
    assert torch.equal(cast.gate_NK, routing.gate_NK)
    assert y.dtype == torch.bfloat16
    assert relative(y, made(x, RoutingOptions())[0]) < 2e-2


def test_switch_is_transformers_switch():
    """SwitchTransformersSparseMLP: top-1, gate not renormalised, capacity of 4 in a sequence of 16, gradients too."""
    switch = pytest.importorskip("transformers.models.switch_transformers.modeling_switch_transformers")
    config = switch.SwitchTransformersConfig(
        d_model=16, d_ff=24, num_experts=4, expert_capacity=4, router_jitter_noise=0.0, dropout_rate=0.0, router_bias=False
    )
    theirs = switch.SwitchTransformersSparseMLP(config)
    ours = layer(top_k=1, renormalise=False, ffn="relu", capacity_eval=1.0)
    theirs.router.classifier.weight.data = ours.router_ED.data
    for expert in range(4):
        one = theirs.experts[f"expert_{expert}"]
        one.wi.weight.data, one.wo.weight.data = ours.experts.w_in_EFD.data[expert], ours.experts.w_out_EDF.data[expert]
    x = normal(2, 16, 16, seed=9)
    y, statistics = ours(x, RoutingOptions("capacity"))
    assert statistics.dropped > 0
    assert relative(y, theirs(x)) < 1e-5
    (wanted,) = torch.autograd.grad(theirs(x).square().sum(), [theirs.router.classifier.weight])
    (got,) = torch.autograd.grad(y.square().sum(), [ours.router_ED])
    assert relative(got, wanted) < 1e-5


def test_top_2_is_transformers_mixtral():
    """MixtralSparseMoeBlock: SwiGLU experts, renormalised top-2 gates, nothing dropped, gradients too."""
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    config = mixtral.MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=4, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    theirs, ours = mixtral.MixtralSparseMoeBlock(config), layer(ffn="swiglu")
    theirs.gate.weight.data = ours.router_ED.data
    theirs.experts.gate_up_proj.data, theirs.experts.down_proj.data = ours.experts.w_in_EFD.data, ours.experts.w_out_EDF.data
    x = normal(2, 16, 16, seed=9)
    y, _ = ours(x, RoutingOptions())
    assert relative(y, theirs(x)) < 1e-5
    wanted = torch.autograd.grad(theirs(x).square().sum(), list(theirs.parameters()))
    got = torch.autograd.grad(y.square().sum(), list(ours.parameters()))
    for one, other in zip(got, wanted, strict=True):
        assert relative(one, other) < 1e-5


@pytest.mark.parametrize("dispatch", ["grouped", "padded"])
def test_a_whole_model_does_not_depend_on_the_way_of_dispatch(dispatch):
    """The einsum is the reference, under capacity and noise."""
    changes = {"capacity_train": 1.0, **NOISY}
    inputs, keys = tokens(2, 16), noise_keys(0, 0, torch.arange(2))
    losses = [
        build(moe(dispatch=way, **changes), 0)(inputs, inputs, routing=RoutingOptions("train", keys)).loss_BT
        for way in (dispatch, "einsum")
    ]
    assert relative(*losses) < 1e-5
