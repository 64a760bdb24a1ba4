"""The log of a run: JSON lines as the truth, TensorBoard's own reader for what stands beside them."""

from __future__ import annotations

import json

import pytest
import torch

from train import metrics
from train.metrics import LOG, Log


def test_lines_go_on_behind_what_a_checkpoint_vouches_for(tmp_path):
    log = Log(tmp_path, 0, 0)
    log.write("step", step=1, loss=2.5)
    vouched = log.size
    log.write("step", step=2, loss=float("nan"))
    log.close()
    assert json.loads((tmp_path / LOG).read_text().splitlines()[1])["loss"] is None
    again = Log(tmp_path, vouched, 1)
    again.write("step", step=2, loss=2.25)
    again.close()
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 2.5), (2, 2.25)]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_the_same_numbers(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path, 0, 0)
    log.write("start", precision="bf16")
    for step in range(1, 4):
        routed = {"router_entropy": [1.5, 2.0 + step], "expert_load": [[0.25, 0.75], [0.5 / step, 0.125]], "z_loss": []}
        log.write("step", step=step, loss=1 / step, skipped=False, **routed, energy={"kwh": 0.5, "measured": False})
    log.write("validation", step=3, loss=2.0, sources={"web": {"loss": 2.5, "targets": 7}})
    log.close()
    read = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    found = [(event.step, event.value) for event in read.Scalars("step/loss")]
    assert found == [(step, pytest.approx(1 / step)) for step in range(1, 4)]
    last = {name: read.Scalars(name)[-1].value for name in read.Tags()["scalars"]}
    assert last == {
        "step/loss": pytest.approx(1 / 3), "step/router_entropy/0": 1.5, "step/router_entropy/1": 5.0,
        "step/expert_load/0": 0.75, "step/expert_load/1": pytest.approx(1 / 6), "step/energy/kwh": 0.5,
        "validation/loss": 2.0, "validation/sources/web/loss": 2.5,
    }  # fmt: skip
    again = Log(tmp_path, 0, 2)
    again.write("step", step=3, loss=0.125)
    again.close()
    read.Reload()
    found = [(event.step, event.value) for event in read.Scalars("step/loss")]
    assert found == [(1, 1.0), (2, 0.5), (3, 0.125)]  # a run that went on from step 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_peak_is_the_fastest_of_what_was_timed(monkeypatch, device):
    """By hand, on a clock that says 2 s, then 1 s a reading: on an accelerator a span holds many products of random numbers."""
    clock, made = iter([0, 2, *range(3, 99)]), []

    class Square:
        def __matmul__(self, other):
            made.append(1)

        def __len__(self):
            return 1024 if device == "cpu" else 8192

        def to(self, dtype):
            return self

    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    for name in ("ones", "randn"):
        monkeypatch.setattr(metrics.torch, name, lambda *size, **given: Square())
    monkeypatch.setattr(metrics.torch.cuda, "synchronize", lambda: None)
    peak = metrics.peak_flops(torch.device(device), torch.bfloat16)
    assert peak == (2 * 1024**3 if device == "cpu" else 20 * 2 * 8192**3)
    assert len(made) == (5 if device == "cpu" else 65)
