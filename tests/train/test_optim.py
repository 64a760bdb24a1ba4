"""train.optim: transformers' Adafactor while its decay is below the cap, plain Python beyond it; torch's AdamW and clipping."""

import math

import pytest
import torch

from tests.train.models import SPARSE, normal
from train import memory, model
from train.config import ModelConfig
from train.optim import Adafactor, clip_gradients, gradient_norm, make_optimiser

SHAPES = ((6, 4), (5,), (3, 4, 8), (1,))


def parameters(scale=1.0):
    return [torch.nn.Parameter(scale * normal(*shape, seed=number)) for number, shape in enumerate(SHAPES)]


def run(optimiser, chosen, steps, rate=0.01):
    for step in range(steps):
        for number, parameter in enumerate(chosen):
            parameter.grad = normal(*parameter.shape, seed=100 + 10 * step + number) * (1 + step % 5)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    return chosen


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_adafactor_is_transformers_until_the_cap(scale):
    """The decay 1 - t^-0.8 is below 0.99 up to update 316; matrices, vectors, stacked experts; tiny parameters meet the eps."""
    theirs = pytest.importorskip("transformers.optimization").Adafactor
    wanted, got = parameters(scale), parameters(scale)
    reference = theirs(wanted, lr=0.01, relative_step=False, warmup_init=False, scale_parameter=True, beta1=None)
    run(reference, wanted, 12)
    run(Adafactor(got), got, 12)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * scale)


def by_hand(weights, gradients, rate, beta2):
    """Algorithm 4 for one matrix in double precision, sums written out."""
    rows, columns = len(weights), len(weights[0])
    row, column = [0.0] * rows, [0.0] * columns
    for step, gradient in enumerate(gradients, 1):
        decay = min(beta2, 1 - step**-0.8)
        square = [[value * value + 1e-30 for value in line] for line in gradient]
        row = [decay * old + (1 - decay) * sum(line) / columns for old, line in zip(row, square, strict=True)]
        sums = [sum(line[c] for line in square) / rows for c in range(columns)]
        column = [decay * old + (1 - decay) * new for old, new in zip(column, sums, strict=True)]
        mean = sum(row) / rows
        update = [[gradient[r][c] / math.sqrt(row[r] * column[c] / mean) for c in range(columns)] for r in range(rows)]
        size = math.sqrt(sum(value * value for line in update for value in line) / (rows * columns))
        own = math.sqrt(sum(value * value for line in weights for value in line) / (rows * columns))
        scale = rate * max(own, 1e-3) / max(1.0, size)
        weights = [[weights[r][c] - scale * update[r][c] for c in range(columns)] for r in range(rows)]
    return weights


def test_beyond_the_cap_the_decay_is_constant():
    """Plain Python. With a cap of 0.7 (reached at update 5) 20 updates differ from the uncapped ones."""
    start = normal(4, 3).tolist()
    gradients = [normal(4, 3, seed=100 + 10 * step).mul(1 + step % 5).tolist() for step in range(20)]
    (got,) = run_one(start, beta2=0.7)
    torch.testing.assert_close(got.detach(), torch.tensor(by_hand(start, gradients, 0.01, 0.7)), rtol=1e-5, atol=1e-6)
    (free,) = run_one(start, beta2=1.0)
    assert not torch.allclose(got, free, rtol=1e-3)


def run_one(start, beta2):
    chosen = [torch.nn.Parameter(torch.tensor(start))]
    return run(Adafactor(chosen, beta2=beta2), chosen, 20)


def test_adafactors_state_is_as_small_as_the_memory_table_says():
    made = model.build(SPARSE, 0)
    optimiser = make_optimiser(made, "adafactor", (0.0, 0.99), 0.0)
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    states = optimiser.state.values()
    held = sum(value.numel() * 4 for state in states for name, value in state.items() if name != "step")
    assert held == memory.optimiser_bytes(SPARSE, "adafactor")


def test_a_rate_of_zero_changes_nothing():
    for kind in ("adamw", "adafactor"):
        made = model.build(SPARSE, 0)
        before = [parameter.detach().clone() for parameter in made.parameters()]
        run(make_optimiser(made, kind, (0.9, 0.95), 0.1), list(made.parameters()), 2, rate=0.0)
        assert all(map(torch.equal, before, made.parameters()))


def test_adamw_decays_matrices_and_embeddings_only():
    """With gradients of 0 a decayed weight shrinks by rate x decay, others stay."""
    config = ModelConfig(
        vocab_size=11, context=8, d_model=8, n_layers=2, n_heads=2, d_head=4, d_ff=8, ffn="gelu", norm="layernorm", bias=True,
        positions="transformer_xl", tied_embeddings=True, moe=SPARSE.moe,
    )  # fmt: skip
    made = model.build(config, 0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    optimiser = make_optimiser(made, "adamw", (0.9, 0.95), 0.1)
    for group in optimiser.param_groups:
        group["lr"] = 0.5
    optimiser.step()
    shrunk = {".".join(name.split(".")[-2:]) for name, value in made.state_dict().items() if float(value.max()) < 1}
    assert shrunk == {
        "embedding.weight", "qkv.weight", "out.weight", "relative.weight", "w_in.weight", "w_out.weight", "ffn.router_ED",
        "experts.w_in_EFD", "experts.w_out_EDF",
    }  # fmt: skip
    assert float(made.embedding.weight.detach().max()) == pytest.approx(0.95)


def test_adamw_is_adam_with_llamas_numbers():
    """One update by hand: bias correction makes the first step rate x sign(gradient), after decay."""
    made = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
    made.weight.grad = torch.tensor([[0.5, -0.25], [1.0, -3.0]])
    optimiser = make_optimiser(made, "adamw", (0.9, 0.95), 0.1)
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    wanted = torch.tensor([[1.0, -2.0], [3.0, 4.0]]) * 0.99 - 0.1 * torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    torch.testing.assert_close(made.weight.detach(), wanted, rtol=1e-6, atol=0)


def test_clipping_is_torchs_and_sees_what_is_not_finite():
    chosen, reference = parameters(), parameters()
    for one, other in zip(chosen, reference, strict=True):
        one.grad, other.grad = torch.ones_like(one) * 3, torch.ones_like(other) * 3
    norm = gradient_norm(chosen)
    numbers = sum(one.numel() for one in chosen)
    assert float(norm) == pytest.approx(3 * math.sqrt(numbers), rel=1e-6)
    clip_gradients(chosen, norm, 1.0)
    torch.nn.utils.clip_grad_norm_(reference, 1.0)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(chosen, reference, strict=True))
    assert float(gradient_norm(chosen)) == pytest.approx(1.0, rel=1e-5)
    clip_gradients(chosen, gradient_norm(chosen), 5.0)  # already below
    assert float(gradient_norm(chosen)) == pytest.approx(1.0, rel=1e-5)
    for bad in (math.nan, math.inf):
        chosen[2].grad[0, 0, 0] = bad
        assert not torch.isfinite(gradient_norm(chosen))
