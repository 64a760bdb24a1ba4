"""`winnow train scaling` as a user meets it: words, JSON, the way from a fit to a plan, and bad input in one line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.train.scaling.measured import grid
from tests.train.small_runs import invoke
from train.scaling import kaplan, laws
from train.scaling.laws import BESIROGLU, CLARK


@pytest.fixture
def told(monkeypatch, capsys):
    """(exit code, standard output, standard error) of `winnow train scaling ...`."""

    def run(*words):
        code = invoke(monkeypatch, "train", "scaling", *words)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def write(path, **columns):
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def measured(tmp_path):
    params, tokens = grid(5, 5)
    return write(tmp_path / "runs.csv", N=params, D=tokens, nll=BESIROGLU.loss(params, tokens), kind=["a"] * 25)


NAMED = ("--column", "params=N", "--column", "tokens=D", "--column", "loss=nll")


def test_a_fit_becomes_a_plan(told, measured, tmp_path):
    code, out, _ = told("fit", measured, *NAMED, "--where", "kind=a", "--resamples", "4", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["law"]["beta"] == pytest.approx(BESIROGLU.beta, rel=1e-4)
    assert (found["rows"], found["lost"], len(found["resamples"])) == (25, 0, 4)
    assert found["range"]["flops"] == pytest.approx([6 * 1e7 * 1e9, 6 * 1e10 * 3e11])
    saved = tmp_path / "fit.json"
    saved.write_text(out)
    code, out, _ = told("plan", "--flops", "1e21", "--fit", str(saved), "--serve-tokens", "1e12", "--json")
    plan = json.loads(out)
    assert (code, plan["flops"], plan["given"], plan["repetition"]) == (0, 1e21, None, [])
    own = plan["laws"][-1]
    assert own["law"] == "this fit"
    assert own["params"] == pytest.approx(BESIROGLU.optimum(1e21)[0], rel=1e-3)
    assert own["params_interval"] == pytest.approx([own["params"]] * 2, rel=1e-2)
    assert [row["law"] for row in plan["serving"]] == ["Chinchilla, approach 3", "Besiroglu et al.", "this fit"]


def test_a_fit_in_words(told, measured):
    code, out, _ = told("fit", measured, *NAMED, "--resamples", "0")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{measured}: 25 rows, approach 3"
    assert [line.split() for line in lines[1:7]] == [
        ["e", "1.8172"], ["a", "482.01"], ["b", "2085.4"], ["alpha", "0.3478"], ["beta", "0.3658"], ["exponent", "0.51261"],
    ]  # fmt: skip
    assert lines[-1] == "no resamples, no intervals"


def test_isoflop_envelope_and_routed(told, tmp_path):
    flops = np.repeat(np.geomspace(1e18, 1e21, 4), 5)
    params = 1e8 * (flops / 1e19) ** 0.5 * np.tile([0.25, 0.5, 1, 2, 4], 4)
    loss = 3 + 0.1 * np.log(params / 1e8 / (flops / 1e19) ** 0.5) ** 2
    parabolas = write(tmp_path / "iso.csv", params=params, flops=flops, loss=loss)
    code, out, _ = told("fit", parabolas, "--approach", "2", "--resamples", "3")
    assert code == 0
    assert re.search(r"exponent +0\.5 ", out)
    assert out.splitlines()[-2].startswith("N_opt = params (C / 3.162e+19)^exponent")
    sizes, shares = np.repeat(np.geomspace(1e7, 1e9, 12), 20), np.tile(np.geomspace(1, 400, 20), 12)
    runs, tokens = [f"{size:.0f}" for size in sizes], sizes * shares
    curves = write(tmp_path / "curves.csv", run=runs, params=sizes, tokens=tokens, loss=BESIROGLU.loss(sizes, tokens))
    found = json.loads(told("fit", curves, "--approach", "1", "--resamples", "2", "--json")[1])
    assert found["exponent"] == pytest.approx(BESIROGLU.exponent, abs=0.06)
    law = CLARK["HASH"]
    params, experts = (x.ravel() for x in np.meshgrid([1e7, 1e8, 1e9], [1, 2, 8, 32, 128, 512]))
    loss = [law.loss(n, e) for n, e in zip(params, experts, strict=True)]
    routed = write(tmp_path / "routed.csv", params=params, experts=experts, loss=loss)
    found = json.loads(told("fit", routed, "--approach", "routed", "--resamples", "0", "--json")[1])
    assert found["law"]["a"] == pytest.approx(law.a, abs=1e-4)


def test_a_plan_in_words_names_the_law_of_every_figure(told):
    code, out, _ = told("plan", "--params", "70e9", "--tokens", "1.4e12", "--serve-tokens", "1e13")
    assert code == 0
    assert out.startswith("5.88e+23 training FLOPs: 6 x 7e+10 params x 1.4e+12 tokens\n")
    row = next(line for line in out.splitlines() if line.startswith("Chinchilla, approach 3 "))
    params, tokens = laws.CHINCHILLA.optimum(5.88e23)
    sizes = [f"{params / 1e9:.4g}B", "-", f"{tokens / 1e12:.4g}T", "-", f"{tokens / params:.3g}"]
    assert row.split()[3:] == [*sizes, f"{laws.CHINCHILLA.loss(params, tokens):.4f}", "1.9208"]
    assert "the same loss at the least FLOPs when 10T tokens are served (2 N each):" in out
    assert f"{kaplan.optimum(5.88e23)[0] / 1e9:.4g}B" in out


def test_a_plan_by_hours(told):
    plan = json.loads(told("plan", "--gpu-hours", "1000", "--device", "h100", "--utilisation", "0.4", "--json")[1])
    assert plan["flops"] == pytest.approx(1000 * 3600 * 989e12 * 0.4)
    assert plan["basis"] == "1000 hours x 989 TFLOP/s (h100) x utilisation 0.4"
    plan = json.loads(told("plan", "--gpu-hours", "1", "--device", "a100", "--json")[1])
    assert plan["basis"].endswith("(a100) x utilisation 0.476 (LLaMA's)")


def test_a_plan_for_the_shards_of_a_build(told, built):
    """The unique tokens are those of the training shards, by the blend."""
    data = built / "tokens" / "filtered"
    held = sum(shard["tokens"] for shard in json.loads((data / "blend.json").read_text())["train"] if shard["weight"] > 0)
    plan = json.loads(told("plan", "--flops", "1e16", "--data", str(data), "--json")[1])
    assert plan["unique_tokens"] == held
    assert [row["what"] for row in plan["repetition"]] == ["optimum if all text were new", "optimum with repetition"]
    assert plan["repetition"][0]["passes"] == pytest.approx(laws.MUENNIGHOFF.law.optimum(1e16)[1] / held)
    assert f"{data}: " in told("plan", "--flops", "1e16", "--data", str(data))[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan"], "give one budget: --flops C, --gpu-hours H with --device, or --params N with --tokens D"),
        (["plan", "--flops", "1e20", "--gpu-hours", "1"], "give one budget: --flops C, --gpu-hours H with --device, or"),
        (["plan", "--flops", "0"], "--flops 0: must be a number above 0"),
        (["plan", "--flops", "nan"], "--flops nan: must be a number above 0"),
        (["plan", "--flops", "inf"], "--flops inf: must be a number above 0"),
        (["plan", "--params", "1e9"], "--params and --tokens go together: give both"),
        (["plan", "--flops", "1e20", "--device", "a100"], "--device and --utilisation are said of --gpu-hours: give those"),
        (["plan", "--gpu-hours", "5"], "--device (none): give one of v100, a100, h100, tpu-v4, or the budget as --flops"),
        (["plan", "--gpu-hours", "5", "--device", "abacus"], "--device abacus: give one of v100, a100, h100, tpu-v4"),
        (["plan", "--gpu-hours", "5", "--device", "a100", "--utilisation", "1.5"], "--utilisation 1.5: a share of the peak"),
        (["plan", "--flops", "1e20", "--serve-tokens", "-1"], "--serve-tokens -1: must be a number above 0"),
        (["plan", "--flops", "1e20", "--data", "nowhere"], "nowhere: no such data; give DIR/tokens/VARIANT"),
        (["plan", "--flops", "1e20", "--fit", "none.json"], "none.json: cannot be read (No such file or directory); give what"),
        (["fit", "none.csv"], "none.csv: cannot be read (No such file or directory); give a CSV file with a header line"),
        (["fit", "none.csv", "--column", "params"], "--column params: write NAME=VALUE"),
    ],
)
def test_bad_input_is_one_line(told, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = told(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"winnow: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON ("),
        ("[]", "not a fit of approach 3, which alone has a law of the loss; give what"),
        ('{"approach": "2"}', "not a fit of approach 3"),
        ('{"approach": "3"}', "a damaged fit (KeyError: 'law'); give what"),
        ('{"approach": "3", "law": {"e": 1, "a": 1, "b": 1, "alpha": -1, "beta": 1}}', "a damaged fit (ValueError: a law is five"),
    ],
)
def test_a_fit_that_is_none(told, tmp_path, content, message):
    path = tmp_path / "fit.json"
    path.write_text(content)
    code, _, err = told("plan", "--flops", "1e20", "--fit", str(path))
    assert code == 2
    assert err.startswith(f"winnow: {path}: {message}")
    assert err.count("\n") == 1
