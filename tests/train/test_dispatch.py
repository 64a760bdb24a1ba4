"""train.dispatch: the fast ways against the one-hot einsum, values and gradients, and grouped products against a loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from tests.train.models import moe, normal, relative
from train import dispatch
from train.grouped import grouped_mm
from train.moe import Experts

FAST = ["grouped", "padded"]


def setting(seed, n_tokens, n_experts, top_k, d_model, d_ff, ffn, drop, dropout=0.0, dtype=torch.float32):
    """(experts, x, gates, routing from gates): random choices, some of them dropped."""
    config = moe(experts=n_experts, top_k=top_k, d_ff=d_ff, ffn=ffn, expert_dropout=dropout).moe
    experts = Experts(d_model, config)
    for number, parameter in enumerate(experts.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed + number).to(dtype) / 4
    generator = torch.Generator().manual_seed(seed)
    expert_NK = torch.rand(n_tokens, n_experts, generator=generator).topk(top_k, dim=1).indices
    kept_NK = torch.rand(n_tokens, top_k, generator=generator) >= drop if drop else None
    key_NK = torch.randint(2**62, (n_tokens, top_k), generator=generator) if dropout else None
    x = normal(n_tokens, d_model, seed=seed + 9).to(dtype)
    gate_NK = torch.rand(n_tokens, top_k, generator=generator)

    def routing(gates):
        return dispatch.Routing(expert_NK, gates if kept_NK is None else gates * kept_NK, kept_NK, None, key_NK)

    return experts, x, gate_NK, routing


def run(name, experts, x, gates, routing):
    """(output, gradients by x, gates and weights) of a function of all outputs."""
    x, gates = x.clone().requires_grad_(), gates.clone().requires_grad_()
    y = dispatch.DISPATCHERS[name](experts, x, routing(gates))
    weighted = (y.float() * normal(*y.shape, seed=77)).sum()
    return [y.detach(), *torch.autograd.grad(weighted, [x, gates, *experts.parameters()])]


@pytest.mark.parametrize("name", FAST)
@settings(max_examples=25)
@given(
    st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.sampled_from([4, 8, 20]),
    st.sampled_from([8, 12]), st.sampled_from(["swiglu", "geglu", "gelu", "relu"]), st.sampled_from([0, 0.3]),
    st.sampled_from([0.0, 0.4]),
)  # fmt: skip
def test_ways_agree_with_the_oracle_in_float32(name, seed, n_tokens, n_experts, top_k, d_model, d_ff, ffn, drop, dropout):
    """1e-5 relative to the norm, also with dropped assignments and dropout."""
    made = setting(seed, n_tokens, n_experts, min(top_k, n_experts), d_model, d_ff, ffn, drop, dropout)
    for got, wanted in zip(run(name, *made), run("einsum", *made), strict=True):
        assert (got - wanted).norm() <= 1e-5 * wanted.norm() + 1e-7


@pytest.mark.parametrize("name", FAST)
@settings(max_examples=10)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.sampled_from(["swiglu", "gelu"]))
def test_ways_agree_with_the_oracle_in_bfloat16(name, seed, n_tokens, n_experts, top_k, ffn):
    made = setting(seed, n_tokens, n_experts, min(top_k, n_experts), 16, 24, ffn, 0, dtype=torch.bfloat16)
    for got, wanted in zip(run(name, *made), run("einsum", *made), strict=True):
        assert (got.float() - wanted.float()).norm() <= 2e-2 * wanted.float().norm() + 1e-6


@pytest.mark.parametrize("name", FAST)
def test_the_oracle_is_a_loop_over_tokens(name):
    """The plainest form there is: every token, every choice, one at a time."""
    experts, x, gates, routing = setting(1, 9, 4, 2, 8, 12, "swiglu", 0.3)
    settled = routing(gates)
    wanted = torch.zeros_like(x)
    for token in range(len(x)):
        for choice in range(2):
            expert = settled.expert_NK[token, choice]
            if settled.kept_NK[token, choice]:
                gate, value = (experts.w_in_EFD[expert] @ x[token]).chunk(2)
                wanted[token] += gates[token, choice] * (experts.w_out_EDF[expert] @ (torch.nn.functional.silu(gate) * value))
    for way in (name, "einsum"):
        assert relative(dispatch.DISPATCHERS[way](experts, x, settled), wanted) < 1e-6


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(sum), st.integers(0, 100))
def test_grouped_products_are_a_loop_of_products(sizes, seed):
    """Reference: x[group] @ w[group].T, and torch's gradients of that."""
    x, w = normal(sum(sizes), 8, seed=seed).requires_grad_(), normal(len(sizes), 12, 8, seed=seed + 1).requires_grad_()
    got = grouped_mm(x, w, torch.tensor(sizes).cumsum(0).to(torch.int32))
    wanted = torch.cat([rows @ one.T for rows, one in zip(x.split(sizes), w, strict=True)])
    scale = normal(*wanted.shape, seed=seed + 2)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad((got * scale).sum(), (x, w)), torch.autograd.grad((wanted * scale).sum(), (x, w)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rows_bits_do_not_depend_on_its_groups_size(dtype):
    """The reference is the row in a group of 64; torch's own product differs for groups of 1 to 3 rows in float32."""
    x, w = normal(64, 128).to(dtype), normal(2, 48, 128, seed=1).to(dtype)
    many = grouped_mm(x, w, torch.tensor([64, 64], dtype=torch.int32))
    for rows in range(1, 9):
        few = grouped_mm(x[:rows], w, torch.tensor([rows, rows], dtype=torch.int32))
        assert torch.equal(few, many[:rows])


@pytest.mark.parametrize(("dtype", "width", "step"), [(torch.bfloat16, 172, 8), (torch.float32, 10, 4)])
def test_a_width_that_grouped_products_cannot_take_is_an_error_of_one_line(dtype, width, step):
    offsets = torch.tensor([4], dtype=torch.int32)
    with pytest.raises(UserError, match=f"width {width}: grouped multiplication in .* needs multiples of {step}; choose"):
        grouped_mm(torch.zeros(4, 8, dtype=dtype), torch.zeros(1, width, 8, dtype=dtype), offsets)
