"""train.run_config, run_file: defaults of the papers, round trips, what belongs to a run's identity, one-line errors."""

from __future__ import annotations

import pytest

from pipelines.errors import UserError
from train import presets, run_config
from train.run_config import Settings, complete, differences
from train.run_file import dump, load


def completed(name, *overrides, vocab=257):
    return complete(load(name, overrides), name, vocab)


def test_llamas_recipe():
    """Touvron et al. 2023, section 2.3 and table 2: AdamW .9/.95, decay .1, clip 1, cosine to 10 %, 2,000 steps up, 4M tokens."""
    made = completed("llama-7b", "steps=250000", vocab=32_000)
    chosen = made.optimiser
    assert (chosen.kind, chosen.peak, chosen.beta1, chosen.beta2, chosen.weight_decay, chosen.clip) == (
        "adamw", 3e-4, 0.9, 0.95, 0.1, 1.0
    )  # fmt: skip
    assert (made.schedule.kind, made.schedule.warmup, made.schedule.floor) == ("cosine", 2000, 0.1)
    assert made.batch * made.context == 1 << 22
    assert made.model_config_of_run() == presets.get("llama-7b")


def test_glams_recipe():
    """Du et al. 2022, section 5.1: Adafactor, no first moment, .99, 0.01 for 10,000 steps, then inverse square root."""
    made = completed("glam-0.1b-64e", "steps=100")
    assert (made.optimiser.kind, made.optimiser.peak, made.optimiser.beta1, made.optimiser.beta2) == ("adafactor", 0.01, 0.0, 0.99)
    assert (made.optimiser.weight_decay, made.optimiser.clip) == (0.0, "none")
    assert (made.schedule.kind, made.schedule.warmup, made.schedule.hold) == ("inverse_sqrt", 0, 10_000)
    assert made.model["vocab_size"] == 257


@pytest.mark.parametrize(
    ("name", "peak", "sequences"),
    [
        ("llama-13b", 3e-4, 2048), ("llama-33b", 1.5e-4, 2048), ("llama-65b", 1.5e-4, 2048),
        ("gpt3-125m", 6e-4, 256), ("gpt3-350m", 3e-4, 256), ("gpt3-760m", 2.5e-4, 256), ("gpt3-1.3b", 2e-4, 512),
        ("gpt3-2.7b", 1.6e-4, 512), ("gpt3-6.7b", 1.2e-4, 1024), ("gpt3-13b", 1e-4, 1024), ("gpt3-175b", 6e-5, 1638),
        ("gopher-280b", 4e-5, 1536), ("chinchilla-70b", 1e-4, 768), ("glam-64b-64e", 0.01, 1024), ("switch-c", 0.01, 2048),
    ],
)  # fmt: skip
def test_rates_and_batches_are_the_papers(name, peak, sequences):
    """LLaMA table 2; GPT-3 table 2.1; Chinchilla table 4, before the batch doubles; GLaM section 5.1; Switch: 2^20 tokens."""
    made = completed(name, "steps=100")
    assert (made.optimiser.peak, made.batch) == (peak, sequences)
    assert completed(name, "steps=100", "optimiser.peak=0.5", "batch=8").optimiser.peak == 0.5
    other = {"adamw": ("adafactor", 0.01), "adafactor": ("adamw", 3e-4)}[made.optimiser.kind]
    assert completed(name, "steps=100", f"optimiser.kind={other[0]}").optimiser.peak == other[1]  # a rate of another optimiser


def test_a_short_run_warms_up_for_a_tenth():
    assert completed("llama-tiny", "steps=150").schedule.warmup == 15


def test_settings_survive_their_file(tmp_path):
    made = completed("switch-tiny", "steps=7", "optimiser.peak=3e-3", "model.moe.experts=4", "optimiser.clip=none", "data.path=x")
    file = tmp_path / "train.yaml"
    file.write_text(dump(made))
    assert load(str(file)) == made
    assert complete(load(str(file)), "x", 257) == made
    assert made.optimiser.peak == 3e-3
    assert made.model["moe"]["experts"] == 4
    assert made.model["moe"]["jitter"] == 0.01


def test_overrides_may_take_the_experts_away():
    assert completed("glam-tiny", "model.moe=null").model_config_of_run().moe is None


@pytest.mark.parametrize("number", ["3e-4", "3E-4", "0.3e-3", ".3e-3", "3.e-4", "+3e-4", "0.0003"])
def test_a_number_is_one_without_a_point_too_in_a_file_as_in_an_override(number, tmp_path):
    """YAML 1.1 takes only the last for a number."""
    file = tmp_path / "train.yaml"
    file.write_text(f"preset: llama-tiny\noptimiser: {{peak: {number}}}\n")
    assert load(str(file)).optimiser.peak == load("llama-tiny", [f"optimiser.peak={number}"]).optimiser.peak == 3e-4


def test_a_value_in_quotes_is_a_text(tmp_path):
    """A folder may be called 2024, or 3e-4; also in the file that a run leaves."""
    (tmp_path / "train.yaml").write_text(dump(load("llama-tiny", ['data.path="3e-4"'])))
    assert load(str(tmp_path / "train.yaml")).data.path == "3e-4"
    assert load("llama-tiny", ['data.path="3e-4"']).data.path == "3e-4"
    assert load("llama-tiny", ["optimiser.peak=3e-4"]).optimiser.peak == 3e-4
    with pytest.raises(UserError, match=r"data\.path: .* \(got 2024\)"):
        load("llama-tiny", ["data.path=2024"])


def test_identity_is_what_changes_a_weight():
    one = completed("glam-tiny")
    how = ["micro_batch=2", "checkpointing=full", "compile=true", "parallel=fsdp", "threads=2", "saving.every=3"]
    how += ["validation.every=9", "validation.sequences=9"]
    how += ["data.path=elsewhere", "energy.watts=9", "faults.rollback_after=9", "saving.keep=1"]
    assert differences(one, completed("glam-tiny", *how)) == []
    what = ["steps=9", "seed=2", "batch=8", "context=64", "precision=fp32", "data.masked=true", "optimiser.peak=1", "model.d_ff=8"]
    for override in what:
        found = differences(one, completed("glam-tiny", override, "schedule.warmup=5"))
        assert any(line.startswith(override.partition("=")[0]) for line in found), override
    assert "steps: 250 there, 9 now" in differences(one, completed("glam-tiny", "steps=9"))


BAD = {
    "stepz=3": r"glam-tiny: unknown key stepz; did you mean 'steps'\?",
    "data.pth=x": r"unknown key data\.pth; did you mean 'path'\?",
    "steps=0": r"steps: .* \(got 0\)",
    "seed=9223372036854775808": r"seed: .* less than 9223372036854775808 ",
    "steps=many": r"steps: .* \(got 'many'\)",
    "optimiser.kind=sgd": r"optimiser\.kind: .*'adamw' or 'adafactor' \(got 'sgd'\)",
    "optimiser.peak=-1": r"optimiser\.peak: ",
    "steps": r"--set steps: write it as a\.b=value",
    "steps=[": r"--set steps=\[: the value is not YAML",
    "seed.a=1": r"--set seed\.a=1: 'seed' is a value, not a section",
    "model.dmodel=3": r"dmodel: no such field; did you mean d_model\?",
    "model.d_model=x": r"d_model: 'x' is not int",
    "model.vocab_size=100": r"model\.vocab_size 100, but the data's vocabulary has 257",
    "model.moe.group=3": r"batch and micro_batch must be multiples of model\.moe\.group 3",
    "schedule.warmup=251": r"schedule\.warmup 251 is above steps 250",
    "data=3": r"data: ",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_settings_are_one_line(override):
    with pytest.raises(UserError, match=BAD[override]) as caught:
        completed("glam-tiny", "seed=1", override)
    assert "\n" not in str(caught.value)


def test_bad_files_and_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"no such preset; did you mean llama-7b\?"):
        load("lama-7b")
    with pytest.raises(UserError, match=r"nothing\.yaml: No such file"):
        load(str(tmp_path / "nothing.yaml"))
    for content, says in (("a: [", "not YAML"), ("- 1", "settings are a mapping"), ("#" * (1 << 20) + "\n", "the limit is")):
        file = tmp_path / "bad.yaml"
        file.write_text(content)
        with pytest.raises(UserError, match=says):
            load(str(file))
    with pytest.raises(UserError, match="neither preset nor model"):
        complete(Settings(), "x", 257)
    with pytest.raises(UserError, match="steps is missing"):
        completed("llama-7b")
    with pytest.raises(UserError, match="adafactor has neither"):
        completed("glam-8b", "steps=1", "optimiser.weight_decay=0.1")


def test_every_setting_is_of_the_run_or_of_how_it_is_run():
    """A new key must be put on one of the two sides by hand."""
    how = {"preset", "data", "validation", "saving", "faults", "energy", "micro_batch", "checkpointing", "compile", "parallel"}
    how |= {"threads"}
    assert set(Settings.model_fields) - how == {name for name in run_config._IDENTITY if "." not in name}
