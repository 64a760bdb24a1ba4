"""Compiled for real, through inductor and a C++ compiler: a dense block and a layer of experts, beside the same in eager code.

A graph costs the compiler some four CPU seconds, so there are four here; that whole models with noise are one graph is tested in
test_model.py, that the loop compiles its blocks in test_loop.py.
"""

import dataclasses
import os
import shutil
import subprocess

import pytest
import torch

from tests.train.models import DENSE, moe, normal, relative, tokens
from train import losses
from train.model import build
from train.moe import RoutingOptions

# torch's own: inductor uses what Python will drop, and asks every input for its gradient
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.timeout(900),  # half a minute of compiling, on a machine that may do other things
]


@pytest.fixture
def inductor(tmp_path, monkeypatch):
    """Inductor's cache, new and empty. Skips where no C++ compiler makes a program with OpenMP, which inductor's code needs."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: neither CXX, g++ nor clang++")
    source = tmp_path / "probe.cpp"
    source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
    tried = subprocess.run([compiler, "-fopenmp", str(source), "-o", str(tmp_path / "probe")], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"{compiler} does not work: {tried.stderr.strip()[:200]}")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    # No pool of processes that outlives the test, no headers kept elsewhere, no six programs that try out vector instructions.
    # cpp_wrapper puts all kernels of a graph into one C++ file, for half of the time.
    settings = {"compile_threads": 1, "cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": True, "cpp_wrapper": True}
    with torch._inductor.config.patch(settings):
        yield tmp_path / "inductor"
    torch.compiler.reset()


def check(step, module, parts, inductor):
    """Eager code is the reference: values to 1e-5 and each gradient to 1e-4, relative to the norm, in float32."""
    values, gradients = step()
    for part in parts:
        part.compile(fullgraph=True)
    compiled_values, compiled_gradients = step()
    assert len(list(inductor.rglob("*.main.so"))) == 2  # compiled indeed: forward and backward pass
    assert relative(compiled_values, values) < 1e-5
    for (name, _), got, wanted in zip(module.named_parameters(), compiled_gradients, gradients, strict=True):
        assert relative(got, wanted) < 1e-4, name


def test_a_dense_models_block_as_the_loop_compiles_it(inductor):
    model = build(dataclasses.replace(DENSE, n_layers=1, ffn="swiglu", positions="none"), 0)
    inputs, targets = tokens(4, 16, seed=1), tokens(4, 16, seed=2)

    def step():
        outputs = model(inputs, targets)
        loss = losses.training_loss(outputs, model.config, inputs.numel(), len(inputs))
        return outputs.loss_BT, torch.autograd.grad(loss, list(model.parameters()))

    check(step, model, model.blocks, inductor)


def test_experts_with_their_router_and_auxiliary_loss(inductor):
    """GLaM's layer by grouped products, which compiled code sees as operators of ours."""
    model = build(dataclasses.replace(moe(every=1), n_layers=1), 0)
    layer, x_BTD = model.blocks[0].ffn, normal(4, 16, 16)

    def step():
        y_BTD, statistics = layer(x_BTD, RoutingOptions("train"))
        loss = (y_BTD * normal(4, 16, 16, seed=1)).sum() + statistics.balance_G.sum()
        return y_BTD, torch.autograd.grad(loss, list(layer.parameters()))

    check(step, layer, [layer], inductor)
