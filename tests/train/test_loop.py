"""train.loop and train.validation: one step however it is split, faults of gradients, losses held against plain loops."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import pytest
import torch

from pipelines.errors import CheckError
from tests.train import small_runs
from tests.train.models import relative
from tests.train.shards import write_variant
from tests.train.small_runs import DENSE, SPARSE, changed, trainer
from train import run as runs
from train.data import pack, validation_sequences
from train.loop import Trainer
from train.moe import RoutingOptions
from train.noise import noise_keys
from train.run_config import Settings
from train.validation import validate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"))


def gradients(made: Trainer):
    """(the tally, every gradient) of the next step."""
    tally = made._gradients()
    found = [parameter.grad.clone() for parameter in made.model.parameters()]
    made.optimiser.zero_grad()
    return tally, found


@pytest.mark.parametrize("tree", [DENSE, SPARSE, changed(SPARSE, data__masked=True)], ids=["dense", "sparse", "masked"])
def test_gradients_do_not_depend_on_the_micro_batch(data, tree):
    """Reference: the whole batch at once, one with a ragged sequence. Jitter, dropout and capacity are on."""
    whole = trainer(tree, data)
    ragged = next(number for number in range(99) if whole.data.batch(range(8 * number, 8 * number + 8)).valid_BT is not None)
    whole.progress = replace(whole.progress, offset=ragged)
    tally, wanted = gradients(whole)
    assert tally.targets < 8 * 24
    for size in (2, 4, 6):
        made = trainer(changed(tree, micro_batch=size), data)
        made.progress = whole.progress
        got_tally, got = gradients(made)
        torch.testing.assert_close(got_tally.values, tally.values, rtol=1e-6, atol=1e-6)
        assert got_tally.targets == tally.targets
        for one, other in zip(got, wanted, strict=True):
            assert relative(one, other) < 1e-6


def test_the_reported_loss_is_the_mean_over_targets_without_auxiliary_losses(data):
    """Reference: cross-entropy of the model's logits, by torch, and the auxiliary losses of the same call."""
    made = trainer(SPARSE, data)
    tally, _ = gradients(made)
    batch = made.data.batch(range(8))
    keys = noise_keys(made.settings.seed, 0, torch.arange(8))
    tokens, targets = torch.from_numpy(batch.tokens_BT), torch.from_numpy(batch.targets_BT)
    valid = None if batch.valid_BT is None else torch.from_numpy(batch.valid_BT)
    with torch.no_grad():
        out = made.model(tokens, valid_BT=valid, routing=RoutingOptions("train", keys))
    wanted = torch.nn.functional.cross_entropy(out.logits_BTV.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert tally.loss == pytest.approx(float(wanted), rel=1e-6)
    told = tally.routing(made.config, made.groups)
    assert told["balance_loss"] == pytest.approx(out.routing.balance_G.mean(1).tolist(), rel=1e-6)
    assert told["z_loss"] == pytest.approx(out.routing.z_G.mean(1).tolist(), rel=1e-6)
    added = 0.01 * out.routing.balance_G.mean(1).sum() + 0.001 * out.routing.z_G.mean(1).sum()
    assert told["auxiliary_loss"] == pytest.approx(float(added), rel=1e-6)
    assigned = 2 * tally.targets
    for layer in range(2):
        assert told["expert_load"][layer] == pytest.approx((out.routing.load_E[layer] / assigned).tolist())
        assert told["dropped_share"][layer] == pytest.approx(float(out.routing.dropped[layer] / assigned))
        assert sum(told["expert_load"][layer]) == pytest.approx(1)
        assert 0 < told["router_entropy"][layer] < math.log(4)


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_training_learns_and_repeats_to_the_bit(data, kind):
    tree = changed(SPARSE, optimiser__kind=kind, optimiser__peak=0.02)
    first, second = trainer(tree, data), trainer(tree, data)
    losses = [(first.step().tally.loss, second.step().tally.loss) for _ in range(12)]
    assert all(one == other for one, other in losses)
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))
    assert losses[-1][0] < losses[0][0] - 0.3


def test_bfloat16_is_near_float32_and_weights_stay_float32(data):
    low, high = trainer(changed(SPARSE, precision="bf16"), data), trainer(SPARSE, data)
    assert gradients(low)[0].loss == pytest.approx(gradients(high)[0].loss, rel=2e-2)
    for _ in range(3):
        low.step()
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_activation_checkpointing_changes_nothing(data, kind):
    plain, saving = trainer(SPARSE, data), trainer(changed(SPARSE, checkpointing=kind), data)
    for _ in range(2):
        assert plain.step().tally.loss == saving.step().tally.loss
    assert all(map(torch.equal, plain.model.parameters(), saving.model.parameters()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_compiled_blocks_keep_the_names_of_their_weights(data):
    """That compiled code computes the same is tested in test_model.py; here torch is told to leave it uncompiled."""
    with torch.compiler.set_stance("force_eager"):
        plain, compiled = trainer(SPARSE, data), trainer(changed(SPARSE, compile=True), data)
        assert all(block._compiled_call_impl is not None for block in compiled.model.blocks)
        assert [plain.step().tally.loss for _ in range(2)] == [compiled.step().tally.loss for _ in range(2)]
    assert small_runs.same(plain.model.state_dict(), compiled.model.state_dict())


def test_rates_and_clipping_follow_the_settings(data):
    made = trainer(DENSE, data)
    facts = [made.step() for _ in range(12)]
    assert [facts[0].rate, facts[1].rate, facts[-1].rate] == [0.005, 0.01, 0.001]
    clipped = trainer(changed(DENSE, optimiser__clip=0.25), data)
    norms: list[float] = []
    clipped.optimiser.register_step_pre_hook(
        lambda *_: norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in clipped.model.parameters()])))
    )
    assert clipped.step().norm > 0.5
    assert norms == pytest.approx([0.25], rel=1e-4)


# -- gradients that are not finite ----------------------------------------------------------------------------------------------


def poison(made: Trainer, batches, value: float = math.nan) -> None:
    """Makes the gradient of one weight not finite while one of these batches is learned from."""

    def hook(gradient):
        number = made.progress.step + made.progress.offset
        return torch.full_like(gradient, value) if number in batches else gradient

    made.model.blocks[0].attention.out.weight.register_hook(hook)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_skips_the_update_and_counts(data, value):
    made = trainer(SPARSE, data)
    poison(made, {2}, value)
    for _ in range(2):
        made.step()
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    moments = [state["exp_avg"].clone() for state in made.optimiser.state.values()]
    facts = made.step()
    assert facts.skipped
    assert not math.isfinite(facts.norm)
    assert math.isfinite(facts.tally.loss)
    assert all(map(torch.equal, before, made.model.parameters()))
    assert all(map(torch.equal, moments, (state["exp_avg"] for state in made.optimiser.state.values())))
    assert (made.progress.step, made.progress.skipped, made.progress.streak) == (3, 1, 1)
    assert not made.step().skipped
    assert (made.progress.skipped, made.progress.streak) == (1, 0)


class Poisoned(Trainer):
    """Learns from batches 6, 7 and 8 in vain."""

    batches: frozenset[int] = frozenset({6, 7, 8})

    def __init__(self, *arguments):
        super().__init__(*arguments)
        poison(self, self.batches)


def run_here(monkeypatch, tree, data, folder, kind=Trainer):
    """A whole run in this process."""
    monkeypatch.setattr(runs, "Trainer", kind)
    lines: list[dict] = []
    return runs.train(Settings.of(changed(tree, data__path=str(data)), "test"), "test", folder, lines.append), lines


def test_repeated_faults_go_back_to_the_last_checkpoint_and_leave_the_window_out(data, tmp_path, monkeypatch):
    """Reference: five steps, then the seven from batch 9 on, by hand."""
    summary, lines = run_here(monkeypatch, SPARSE, data, tmp_path / "run", Poisoned)
    assert (summary["steps"], summary["skipped"], summary["rollbacks"]) == (12, 3, 1)
    (rollback,) = [line for line in lines if line["event"] == "rollback"]
    assert rollback == {"event": "rollback", "step": 5, "from_step": 9, "batches_left_out": [5, 8]}
    by_hand = trainer(SPARSE, data)
    for _ in range(5):
        by_hand.step()
    by_hand.progress = replace(by_hand.progress, offset=4)
    wanted = [by_hand.step().tally.loss for _ in range(7)]
    assert [line["loss"] for line in lines if line["event"] == "step"][9:] == wanted
    assert small_runs.same(small_runs.weights(tmp_path / "run"), by_hand.model.state_dict())
    told = [line["skipped"] for line in lines if line["event"] == "step"]
    assert told == [False] * 6 + [True] * 3 + [False] * 7


def test_a_second_window_is_left_out_besides_the_first(data, tmp_path, monkeypatch):
    """Batches 5 to 8 are left out after checkpoint 5, 14 to 16 after checkpoint 10: reference by hand."""

    class Twice(Poisoned):
        batches = frozenset({6, 7, 8, 14, 15, 16})

    tree = changed(SPARSE, steps=16)
    summary, lines = run_here(monkeypatch, tree, data, tmp_path / "run", Twice)
    windows = [line["batches_left_out"] for line in lines if line["event"] == "rollback"]
    assert windows == [[5, 8], [14, 16]]
    assert (summary["skipped"], summary["rollbacks"]) == (6, 2)
    by_hand = trainer(tree, data)
    for batch in [*range(5), *range(9, 14), *range(17, 23)]:
        by_hand.progress = replace(by_hand.progress, offset=batch - by_hand.progress.step)
        by_hand.step()
    assert small_runs.same(small_runs.weights(tmp_path / "run"), by_hand.model.state_dict())


def test_no_checkpoint_is_written_while_gradients_are_not_finite(data, tmp_path, monkeypatch):
    """Saving is due at step 7, within the window, which the run left alone."""
    run_here(monkeypatch, changed(SPARSE, saving__every=7, saving__keep=9), data, tmp_path / "run", Poisoned)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000000", "step-00000007", "step-00000012"]
    lines = small_runs.log(tmp_path / "run")
    assert [line["step"] for line in lines if line["event"] == "rollback"] == [0]


class Spoiled(Trainer):
    """Takes a huge step on batch 3: a finite gradient, after which all gradients are not."""

    def _rate(self, update):
        return 1e30 if self.progress.step + self.progress.offset == 3 else super()._rate(update)


@pytest.mark.parametrize("killed_at", [None, 4])
def test_a_checkpoint_that_does_not_help_is_given_up_for_the_one_before(data, tmp_path, monkeypatch, killed_at):
    """Checkpoint 4 is spoiled. Reference: three steps, then the nine from batch 10 on, by hand; also where the run is killed at its
    second step 4."""
    tree = changed(SPARSE, saving__every=1, saving__keep=3)
    monkeypatch.setattr(runs, "Trainer", Spoiled)
    lines: list[dict] = []

    def tell(line):
        lines.append(line)
        if sum(one.get("step") == killed_at and one["event"] == "step" for one in lines) == 2:
            raise KeyboardInterrupt

    whole = Settings.of(changed(tree, data__path=str(data)), "test")
    with contextlib.suppress(KeyboardInterrupt):
        runs.train(whole, "test", tmp_path / "run", tell)
    summary = runs.train(whole, "test", tmp_path / "run", lambda line: None)
    told = [line for line in small_runs.log(tmp_path / "run") if line["event"] == "rollback"]
    assert [(line["step"], line["from_step"], line["batches_left_out"]) for line in told] == [(4, 7, [4, 6]), (3, 7, [3, 9])]
    assert (summary["steps"], summary["skipped"], summary["rollbacks"]) == (12, 6, 2)
    by_hand = trainer(tree, data)
    for batch in [*range(3), *range(10, 19)]:
        by_hand.progress = replace(by_hand.progress, offset=batch - by_hand.progress.step)
        by_hand.step()
    assert small_runs.same(small_runs.weights(tmp_path / "run"), by_hand.model.state_dict())


def test_a_run_that_diverges_wherever_it_begins_ends_in_one_line(data, tmp_path, monkeypatch):
    class Hopeless(Poisoned):
        batches = frozenset(range(6, 1000))

    with pytest.raises(CheckError, match=r"step-00000000: 3 gradients .* not finite, 4 times .* none is before it; lower"):
        run_here(monkeypatch, SPARSE, data, tmp_path / "run", Hopeless)
    told = [(line["step"], line["from_step"]) for line in small_runs.log(tmp_path / "run") if line["event"] == "rollback"]
    assert told == [(5, 9), (0, 8), (0, 3), (0, 3)]


# -- validation -----------------------------------------------------------------------------------------------------------------


def test_validation_is_the_sum_over_single_sequences(data):
    """Reference: every sequence by itself, dropless; and in its routing group of two at the capacity of evaluation."""
    made = trainer(SPARSE, data)
    made.step()
    sources = validation_sequences(made.data.corpus, made.data.context, 7)
    got = validate(made, sources)
    total = targets = 0.0
    for source, sequences in sources.items():
        assert len(sequences) == 7
        found = _sum(made, [[one] for one in sequences], "dropless")
        assert (got["sources"][source]["loss"], got["sources"][source]["targets"]) == (pytest.approx(found[0] / found[1]), found[1])
        pairs = [[*sequences, None][at : at + 2] for at in range(0, 8, 2)]
        capacity = _sum(made, pairs, "capacity")
        assert got["sources"][source]["capacity_loss"] == pytest.approx(capacity[0] / capacity[1])
        total, targets = total + found[0], targets + found[1]
    assert got["loss"] == pytest.approx(total / targets)
    assert got["targets"] == targets
    for size in (2, 6):
        other = validate(trainer_like(made, changed(SPARSE, micro_batch=size), data), sources)
        assert other["loss"] == pytest.approx(got["loss"], rel=1e-12)


def trainer_like(made: Trainer, tree, data) -> Trainer:
    other = trainer(tree, data)
    other.model.load_state_dict(made.model.state_dict())
    return other


def _sum(made: Trainer, calls, mode) -> tuple[float, int]:
    loss, count = 0.0, 0
    for sequences in calls:
        batch = pack(sequences, made.data.context, False, made.data.corpus.vocabulary)
        with torch.no_grad():
            loss += float(made.call(batch, RoutingOptions(mode)).loss_BT.double().sum())
        count += batch.n_targets
    return loss, count


def test_validation_changes_nothing_in_training(data, tmp_path, monkeypatch):
    run_here(monkeypatch, SPARSE, data, tmp_path / "often")
    run_here(monkeypatch, changed(SPARSE, validation__every=1), data, tmp_path / "always")
    assert small_runs.same(small_runs.weights(tmp_path / "often"), small_runs.weights(tmp_path / "always"))
    assert sum(line["event"] == "validation" for line in small_runs.log(tmp_path / "always")) == 12
