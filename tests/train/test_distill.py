"""train.distill: the loss against torch's, a step against whole logits, the weights taken over, and what a teacher is worth.

Runs and the command are in test_distill_runs.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.errors import UserError
from tests.train import small_runs
from tests.train.models import DENSE, moe, normal, relative, tokens
from tests.train.shards import write_shard, write_variant
from tests.train.small_runs import SPARSE, changed, same
from train import flops, losses, model, presets, weights
from train.corpus import open_corpus
from train.distill import Distiller, Student, student_config, take_weights
from train.loop import Trainer
from train.moe import RoutingOptions
from train.parallel import ALONE

# -- the loss -----------------------------------------------------------------------------------------------------------------


def plain(z_NV, target_N, q_NV, share):
    """The reference: torch's cross-entropy to labels and to probabilities."""
    hard_N = F.cross_entropy(z_NV, target_N, reduction="none", ignore_index=losses.IGNORE)
    soft_N = F.cross_entropy(z_NV, q_NV, reduction="none") * (target_N != losses.IGNORE)
    return (1 - share) * hard_N + share * soft_N, hard_N, soft_N


def inputs(vocab=11):
    """hidden, weight, target, the teacher's hidden and weight (of another width), and a gradient of its own for every token."""
    hidden, weight = normal(20, 8, seed=1).requires_grad_(), normal(vocab, 8, seed=2).requires_grad_()
    target = tokens(20, vocab=vocab)
    target[[0, 5]] = losses.IGNORE
    return hidden, weight, target, normal(20, 6, seed=4), normal(vocab, 6, seed=5), normal(20, seed=3)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_loss_is_torchs_in_chunks_of_any_size(monkeypatch, rows, share):
    monkeypatch.setattr(losses, "_CHUNK_ROWS", rows)
    hidden, weight, target, theirs, their_weight, scale = inputs()
    wanted = plain(hidden @ weight.T, target, (theirs @ their_weight.T).softmax(1), share)
    wanted_grads = torch.autograd.grad((wanted[0] * scale).sum(), (hidden, weight))
    got = losses.taught_cross_entropy(hidden, weight, target, theirs, their_weight, share)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-6, atol=1e-6)
    assert [one.requires_grad for one in got] == [True, False, False]
    for one, other in zip(torch.autograd.grad((got[0] * scale).sum(), (hidden, weight)), wanted_grads, strict=True):
        assert relative(one, other) < 1e-6


def test_the_teacher_gets_no_gradient():
    hidden, weight, target, theirs, their_weight, _ = inputs()
    theirs.requires_grad_(), their_weight.requires_grad_()
    losses.taught_cross_entropy(hidden, weight, target, theirs, their_weight, 0.25)[0].sum().backward()
    assert (theirs.grad, their_weight.grad) == (None, None)


def test_a_student_that_agrees_with_its_teacher_has_no_gradient_at_share_1():
    hidden, weight, target, *_ = inputs()
    loss = losses.taught_cross_entropy(hidden, weight, target, hidden.detach(), weight.detach(), 1.0)[0]
    for gradient in torch.autograd.grad(loss.sum(), (hidden, weight)):
        assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("vocab", [11, 16_001])
def test_without_a_share_it_is_the_cross_entropy_to_the_bit(low, vocab):
    """Gradients too, whatever the teacher says."""
    hidden, weight, target, theirs, their_weight, scale = inputs(vocab)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        wanted = losses.cross_entropy(hidden, weight, target)
        got, hard, _ = losses.taught_cross_entropy(hidden, weight, target, theirs, their_weight, 0.0)
    assert torch.equal(got, wanted)
    assert torch.equal(hard, wanted)
    gradients = [torch.autograd.grad((one * scale).sum(), (hidden, weight)) for one in (got, wanted)]
    assert all(map(torch.equal, *gradients))


def test_under_autocast_it_is_float32_of_bfloat16_logits_of_both():
    hidden, weight, target, theirs, their_weight, scale = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        got = losses.taught_cross_entropy(hidden, weight, target, theirs, their_weight, 0.25)
    z, q = (hidden.bfloat16() @ weight.bfloat16().T).float(), (theirs.bfloat16() @ their_weight.bfloat16().T).float().softmax(1)
    wanted = plain(z, target, q, 0.25)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other.detach(), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad((one[0] * scale).sum(), (hidden, weight)) for one in (got, wanted)]
    for one, other in zip(*gradients, strict=True):
        assert relative(one, other) < 1e-2


class Largest(TorchDispatchMode):
    """The most numbers that any operation gave."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.most = max(self.most, one.numel())
        return out


def test_of_no_model_more_logits_are_held_than_a_chunk(monkeypatch):
    """64 tokens by 500 ids, four tokens at once: no operation, forward or backward, gives more than the weights' 500 x 8."""
    monkeypatch.setattr(losses, "_CHUNK_ROWS", 4)
    hidden, weight = normal(64, 8).requires_grad_(), normal(500, 8).requires_grad_()
    with Largest() as largest:
        found = losses.taught_cross_entropy(hidden, weight, tokens(64, vocab=500), normal(64, 6), normal(500, 6), 0.25)
        found[0].sum().backward()
    assert largest.most == 500 * 8
    with Largest() as whole:
        plain(hidden @ weight.T, tokens(64, vocab=500), torch.full((64, 500), 1 / 500), 0.25)[0].sum().backward()
    assert whole.most == 64 * 500


# -- the student's shape and first weights --------------------------------------------------------------------------------------


def of_experts(name: str) -> bool:
    return "router" in name or "experts" in name


@pytest.mark.parametrize("name", ["glam-tiny", "switch-tiny"])
def test_a_student_has_the_shape_of_its_teachers_dense_layers(name):
    teacher = presets.get(name)
    assert teacher.moe is not None
    made = student_config(teacher)
    assert made == dataclasses.replace(teacher, moe=None)
    if name == "switch-tiny":  # there a dense layer has an expert's shape, so that both cost the same but for the router
        router = 2 * teacher.n_sparse * teacher.moe.experts * teacher.d_model
        assert flops.matmul_forward(made, 256) == flops.matmul_forward(teacher, 256) - router


def test_where_all_layers_are_sparse_a_student_has_layers_of_an_experts_shape():
    """Switch-C: 2,048 experts of 6,144 in every layer."""
    teacher = dataclasses.replace(presets.get("switch-c"), d_ff=8, ffn="geglu")
    made = student_config(teacher)
    assert (made.moe, made.d_ff, made.ffn, made.n_layers) == (None, 6144, "relu", 30)


@pytest.mark.parametrize("every", [1, 2])
def test_a_student_begins_with_all_weights_but_those_of_routers_and_experts_to_the_bit(every):
    """By name; what replaces the sparse layers begins as in a model that has no teacher."""
    config = dataclasses.replace(moe(every=every, d_ff=24, ffn="geglu"), bias=True, norm="layernorm", positions="learned")
    teacher = model.build(config, 3)
    student = model.build(student_config(config), 4)
    fresh = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    taken = take_weights(student, teacher)
    theirs, got = teacher.state_dict(), student.state_dict()
    assert taken == [name for name in theirs if not of_experts(name)]
    sparse = [0, 1] if every == 1 else [1]
    new = {f"blocks.{layer}.ffn.{part}.{kind}" for layer in sparse for part in ("w_in", "w_out") for kind in ("weight", "bias")}
    assert set(got) == {*taken, *new}
    for name, tensor in got.items():
        assert torch.equal(tensor, fresh[name] if name in new else theirs[name]), name
    assert all(map(torch.equal, teacher.state_dict().values(), model.build(config, 3).state_dict().values()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_model": 24}, r"embedding\.weight \[61, 16\] of the teacher is \[61, 24\] in the student"),
        ({"n_layers": 1}, r"blocks\.1\.attention_norm\.weight \[16\] of the teacher has no place in the student"),
    ],
)
def test_a_student_of_another_shape_cannot_take_the_weights(change, says):
    student = model.build(dataclasses.replace(DENSE, **change), 0)
    with pytest.raises(UserError, match=says + r"; give it the teacher's shape, or set teacher\.initialise=false"):
        take_weights(student, model.build(moe(), 0))


# -- a step ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_variant(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """A checkpoint of a sparse model after six steps. Its routing in training is noisy and drops tokens."""
    made = small_runs.trainer(changed(SPARSE, model__moe__every=2, model__moe__capacity_train=0.5), data)
    for _ in range(6):
        made.step()
    folder = tmp_path_factory.mktemp("teacher") / "checkpoint"
    tokenizer = (data.parent.parent / "models" / "tokenizer.json").read_bytes()
    weights.write_checkpoint(str(folder), made.config, made.model.state_dict(), tokenizer)
    return folder


def distiller(data, teacher, tree=small_runs.DENSE, **changes) -> Distiller:
    corpus = open_corpus(str(data))
    told = changed(tree, teacher={"checkpoint": str(teacher)})
    return Distiller(small_runs.settings(changed(told, **changes), corpus), corpus, ALONE)


def gradients(made: Trainer):
    tally = made._gradients()
    found = [parameter.grad.clone() for parameter in made.model.parameters()]
    made.optimiser.zero_grad()
    return tally, found


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_is_that_of_whole_logits(data, teacher, masked):
    """Reference: both models' logits of the whole batch, one sequence of it ragged; the teacher dropless and without noise."""
    made = distiller(data, teacher, data__masked=masked)
    ragged = next(number for number in range(99) if made.data.batch(range(8 * number, 8 * number + 8)).valid_BT is not None)
    made.progress = replace(made.progress, offset=ragged)
    batch = made.data.batch(range(8 * ragged, 8 * ragged + 8))
    ids, targets, valid = (torch.from_numpy(one) for one in (batch.tokens_BT, batch.targets_BT, batch.valid_BT))
    seen = {"valid_BT": valid, "starts_BT": torch.from_numpy(batch.starts_BT) if masked else None}
    pupil = model.build(made.config, 9)
    pupil.load_state_dict(made.model.state_dict())
    z = pupil(ids, **seen).logits_BTV.flatten(0, 1)
    with torch.no_grad():
        q = weights.load_model(str(teacher))(ids, **seen, routing=RoutingOptions("dropless")).logits_BTV.flatten(0, 1).softmax(1)
    mixed, hard, soft = (one.sum() / batch.n_targets for one in plain(z, targets.flatten(), q, 0.25))
    wanted = torch.autograd.grad(mixed, list(pupil.parameters()))
    tally, got = gradients(made)
    assert tally.targets == batch.n_targets < 8 * 24
    assert tally.loss == pytest.approx(float(hard.detach()), rel=1e-6)
    assert made.told(tally) == {"soft_loss": pytest.approx(float(soft.detach()), rel=1e-6)}
    for one, other in zip(got, wanted, strict=True):
        assert relative(one, other) < 1e-5
    for size in (2, 3):
        part_tally, part = gradients(_at(distiller(data, teacher, data__masked=masked, micro_batch=size), made))
        torch.testing.assert_close(part_tally.values, tally.values, rtol=1e-6, atol=1e-6)
        for one, other in zip(part, got, strict=True):
            assert relative(one, other) < 1e-5


def _at(made, other):
    made.progress = other.progress
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_share_it_trains_as_a_run_without_teacher_to_the_bit(data, teacher, precision):
    """The reference begins with the student's weights: the initialisation is all that is left of the teacher."""
    made = distiller(data, teacher, teacher__share=0, precision=precision)
    alone = small_runs.trainer(changed(small_runs.DENSE, precision=precision), data)
    assert not same(made.model.state_dict(), alone.model.state_dict())
    alone.model.load_state_dict(made.model.state_dict())
    taught = distiller(data, teacher, precision=precision)
    for _ in range(5):
        facts = [one.step() for one in (made, alone, taught)]
        assert (facts[0].tally.loss, facts[0].norm) == (facts[1].tally.loss, facts[1].norm)
    assert same(made.model.state_dict(), alone.model.state_dict())
    assert facts[0].tally.loss != facts[2].tally.loss


def test_a_teacher_is_neither_trained_nor_part_of_the_student(data, teacher):
    made = distiller(data, teacher)
    assert isinstance(made.model, Student)
    plain_names = model.build(made.config, 0).state_dict().keys()
    made.step()
    assert made.model.state_dict().keys() == plain_names
    assert same(made.teacher.model.state_dict(), weights.load_model(str(teacher)).state_dict())
    assert all(not one.requires_grad and one.grad is None for one in made.teacher.model.parameters())


def test_initialisation_is_the_seeds_alone_where_it_is_so_set(data, teacher):
    made = distiller(data, teacher, teacher__initialise=False)
    assert same(made.model.state_dict(), small_runs.trainer(small_runs.DENSE, data).model.state_dict())
    taken = distiller(data, teacher).model.state_dict()
    theirs = weights.load_model(str(teacher)).state_dict()
    assert all(torch.equal(taken[name], tensor) for name, tensor in theirs.items() if not of_experts(name))


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_activation_checkpointing_changes_nothing(data, teacher, kind):
    one, other = distiller(data, teacher), distiller(data, teacher, checkpointing=kind)
    assert [one.step().norm for _ in range(2)] == [other.step().norm for _ in range(2)]
    assert same(one.model.state_dict(), other.model.state_dict())


def test_bfloat16_is_near_float32(data, teacher):
    low, high = (gradients(distiller(data, teacher, precision=one))[0] for one in ("bf16", "fp32"))
    assert low.values.tolist() == pytest.approx(high.values.tolist(), rel=2e-2)


def test_flops_count_the_teachers_forward_pass(data, teacher):
    """Three times the student's products, once the teacher's: by hand, the matrices of the small models over 24 positions."""
    made = distiller(data, teacher)
    attention, dense, head, scores = 4 * 16 * 16, 3 * 16 * 24, 257 * 16, 2 * 24 * 16
    student = 2 * (2 * (attention + dense) + head) + 2 * 2 * scores
    sparse = 4 * 16 + 2 * (2 * 16 * 24)  # the router, and two experts of two matrices
    theirs = 2 * (2 * attention + dense + sparse + head) + 2 * 2 * scores
    assert made.flops_per_token == 3 * student + theirs
    assert small_runs.trainer(small_runs.DENSE, data).flops_per_token == 3 * student


# -- what a teacher is worth ----------------------------------------------------------------------------------------------------

V = 24
DRAWN = {
    **small_runs.DENSE,
    "model": {"context": 24, "d_model": V, "n_layers": 1, "n_heads": 1, "d_head": V, "d_ff": V, "ffn": "gelu"},
    "steps": 120,
}


def drawn(table_VV, length: int, seed: int) -> list[int]:
    """Ids of which each depends on the one before it alone."""
    draw = np.random.Generator(np.random.PCG64(seed))
    ids = [0]
    while len(ids) < length:
        ids.append(int(draw.choice(V, p=table_VV[ids[-1]])))
    return ids


def test_a_teacher_that_knows_the_source_makes_a_better_student_at_equal_steps(tmp_path):
    """A constructed case in which it must be so: tokens are drawn by a table of probabilities given the token before. The teacher
    is that table, written into a sparse model whose layers add nothing. The student goes over 400 tokens again and again: without a
    teacher it tends to their frequencies, with one to a mean of these and the table, which is nearer to the table, since the
    divergence is convex. Both begin with the same weights and read the same batches.
    """
    table_VV = np.random.Generator(np.random.PCG64(0)).dirichlet(np.full(V, 0.5), V) * 0.98 + 0.02 / V
    write_shard(tmp_path / "drawn", [drawn(table_VV, 400, 1)], 0, V)
    corpus = open_corpus(str(tmp_path / "drawn"), vocab_size=V)
    experts = {"experts": 2, "top_k": 1, "d_ff": V, "ffn": "gelu", "every": 1}
    knowing = model.build(small_runs.settings(changed(DRAWN, model__moe=experts), corpus).model_config_of_run(), 0)
    with torch.no_grad():
        knowing.embedding.weight.copy_(torch.eye(V))  # which the last norm multiplies by sqrt(V)
        knowing.blocks[0].attention.out.weight.zero_()
        knowing.blocks[0].ffn.experts.w_out_EDF.zero_()
        knowing.head.weight.copy_(torch.from_numpy(table_VV).log().T / V**0.5)
    weights.write_checkpoint(str(tmp_path / "teacher"), knowing.config, knowing.state_dict())
    fresh_BT = torch.tensor(drawn(table_VV, 480, 2)).view(20, 24)
    q_BTV = torch.from_numpy(table_VV).float()[fresh_BT]
    torch.testing.assert_close(knowing(fresh_BT).logits_BTV.softmax(2), q_BTV, rtol=1e-3, atol=1e-6)

    def divergence(share: float) -> float:
        """Of the table from what the student says on fresh tokens, nats a token."""
        told = {"checkpoint": str(tmp_path / "teacher"), "share": share, "initialise": False}
        made = Distiller(small_runs.settings(changed(DRAWN, teacher=told), corpus), corpus, ALONE)
        for _ in range(120):
            made.step()
        with torch.no_grad():
            log_p_BTV = made.model(fresh_BT).logits_BTV.log_softmax(2)
        return float((q_BTV * (q_BTV.log() - log_p_BTV)).sum(2).mean())

    without, quarter, whole = divergence(0.0), divergence(0.25), divergence(1.0)
    assert whole < quarter < 0.9 * without
