"""Distillation of a sparse teacher into a dense student (Switch: Fedus et al. 2022, on distillation, table 6).

* **The student** is the teacher without experts: of the same width and depth, each sparse layer replaced by one dense layer of the
  shape of the model's dense ones, which in Switch is an expert's. A model without dense layers gives it an expert's shape.
* **It begins** with the teacher's weights, name by name and bit by bit, but for those of routers and experts, which have no place
  in it; the layers that replace them begin as those of any model do, by the seed. The paper keeps about 20 % of the teacher's gain
  over a dense model with these weights.
* **It learns** from .75 x cross-entropy to the labels + .25 x cross-entropy to the teacher's probabilities (losses.py). The paper
  keeps about 29 % with this mixture too.
* **The teacher** reads the same sequences with the same view of documents, routes without capacity and without jitter, in the
  run's precision, and gets no gradient. Validation losses are the student's alone, to the labels.

Departures: the paper's models are T5 encoder-decoders, here both are decoders; the student's schedule begins anew with the
teacher's settings, unless told otherwise; GLaM's models may be teachers as well, whose experts have two matrices where their dense
layers have three, so that the student's new layers are larger than an expert.

Under fsdp every process holds the whole teacher. Not run on a GPU yet.

Shape suffixes: B sequences, T positions, D student's width, C teacher's width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pipelines.errors import UserError
from train import checkpoint, flops, losses, run_file, weights
from train.config import ModelConfig
from train.corpus import Corpus, Vocabulary
from train.loop import Trainer
from train.metrics import Tally
from train.model import Decoder, KVCache, Outputs
from train.moe import DROPLESS, RoutingOptions
from train.parallel import World, own_rows
from train.run_config import Settings, TeacherSettings, filled


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained model; not a module, so that it is no part of the student. `digest`: sha256 of the file of its weights."""

    model: Decoder
    digest: str


@dataclass(frozen=True, slots=True)
class Taught(Outputs):
    """In training loss_BT mixes hard_BT, to the labels, and soft_BT, to the teacher's distribution: float32, without gradients."""

    hard_BT: Tensor
    soft_BT: Tensor


# -- settings -----------------------------------------------------------------------------------------------------------------


def settings_of_student(teacher: str, overrides: Iterable[str] = ()) -> Settings:
    """Those of the teacher's own run, with a dense model in place of the sparse one; `teacher` is a checkpoint of that run.

    Raises UserError where it is none, where its run's settings are not beside it, or the model is dense.
    """
    config = weights.read_config(teacher)
    if config.moe is None:
        raise UserError(
            f"{teacher}: a dense model: distill makes a dense student of a sparse one; for another pair give winnow train run a "
            "file of settings with model and teacher"
        )
    file = Path(os.path.abspath(teacher)).parent.parent / run_file.SETTINGS
    if not file.is_file():
        raise UserError(
            f"{file}: missing: the student takes the settings of its teacher's run; give a checkpoint within its run, or give "
            "winnow train run a file of settings with model and teacher"
        )
    fields = student_config(config).to_dict()
    del fields["vocab_size"]  # the data's
    model_there = yaml.safe_dump(fields, default_flow_style=True, width=1 << 20)
    fixed = ["preset=null", f"model={model_there}", f"teacher={json.dumps({'checkpoint': teacher})}"]
    if run_file.load(str(file)).parallel == "experts":
        fixed.append("parallel=ddp")
    settings = run_file.load(str(file), [*fixed, *overrides])
    if settings.preset is not None:
        raise UserError(f"--set preset={settings.preset}: the student has its teacher's shape; override it by model.* instead")
    return settings


def student_config(teacher: ModelConfig) -> ModelConfig:
    """The dense model that takes all of the teacher's weights but those of routers and experts."""
    moe = teacher.moe
    if moe is not None and moe.every == 1:
        return dataclasses.replace(teacher, moe=None, ffn=moe.ffn, d_ff=moe.d_ff)
    return dataclasses.replace(teacher, moe=None)


def read_teacher(told: TeacherSettings, vocabulary: Vocabulary, device: torch.device) -> Teacher:
    """The teacher in float32. Raises UserError where there is none, it is damaged, or it knows other tokens than the data."""
    folder = Path(told.checkpoint)
    config = weights.read_config(told.checkpoint)
    if config.vocab_size != vocabulary.size:
        raise UserError(
            f"{folder}: a teacher of {config.vocab_size} ids, but the data's vocabulary has {vocabulary.size}; give a teacher of "
            "the data's tokenizer"
        )
    tokenizer = folder / weights.TOKENIZER
    if tokenizer.is_file() and vocabulary.sha256 not in (None, hashlib.sha256(tokenizer.read_bytes()).hexdigest()):
        raise UserError(
            f"{tokenizer}: the teacher's tokenizer is not that of the data, {vocabulary.path}: its ids are other tokens; give a "
            "teacher of the data's tokenizer"
        )
    if (folder / checkpoint.STATE).is_file():
        checkpoint.verify(folder)
    loaded = weights.load_model(told.checkpoint, device).float().requires_grad_(False)
    with open(folder / weights.WEIGHTS, "rb") as file:
        return Teacher(loaded, hashlib.file_digest(file, "sha256").hexdigest())


# -- the student --------------------------------------------------------------------------------------------------------------


def take_weights(student: Decoder, teacher: Decoder) -> list[str]:
    """Sets the student's weights to the teacher's, but for routers and experts; returns their names.

    Raises UserError where one of them has no place in the student.
    """
    sparse = tuple(f"blocks.{layer}.ffn." for layer in range(teacher.config.n_layers) if teacher.config.is_sparse(layer))
    own = student.state_dict()
    taken = {name: tensor for name, tensor in teacher.state_dict().items() if not name.startswith(sparse)}
    for name, tensor in taken.items():
        if name not in own or own[name].shape != tensor.shape:
            place = f"is {list(own[name].shape)} in the student" if name in own else "has no place in the student"
            raise UserError(
                f"teacher.initialise: {name} {list(tensor.shape)} of the teacher {place}; give it the teacher's shape, or set "
                "teacher.initialise=false"
            )
        mine, rows = own_rows(own[name])
        mine.copy_(tensor[rows])
    return list(taken)


class Student(Decoder):
    """A decoder that learns from a teacher too; without gradients it is a decoder like any other."""

    teacher: Teacher
    share: float

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        starts_BT: Tensor | None = None,
        valid_BT: Tensor | None = None,
        routing: RoutingOptions = DROPLESS,
        cache: KVCache | None = None,
    ) -> Outputs:
        """As Decoder's; in training what it gives is Taught."""
        seen: dict[str, Any] = {"starts_BT": starts_BT, "valid_BT": valid_BT}
        if targets_BT is None or not torch.is_grad_enabled():
            return super().forward(tokens_BT, targets_BT, routing=routing, cache=cache, **seen)
        with torch.no_grad():
            theirs_BTC, _ = self.teacher.model.hidden(tokens_BT, routing=DROPLESS, **seen)
        hidden_BTD, _ = self.hidden(tokens_BT, **seen)
        found = losses.taught_cross_entropy(
            hidden_BTD.flatten(0, 1),
            self.output_weight,
            targets_BT.flatten(),
            theirs_BTC.flatten(0, 1),
            self.teacher.model.output_weight,
            self.share,
        )
        mixed_BT, hard_BT, soft_BT = (one_N.view_as(targets_BT) for one_N in found)
        return Taught(mixed_BT, None, None, hard_BT, soft_BT)


class TaughtTally(Tally):
    """Sums of one step: the loss to the labels, targets, and the loss to the teacher's distribution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.values = torch.zeros(3, dtype=torch.float64)

    def add(self, outputs: Outputs, n_targets: int) -> None:
        """Takes in one call of the student."""
        assert isinstance(outputs, Taught)
        hard, soft = (one_BT.double().sum().cpu() for one_BT in (outputs.hard_BT, outputs.soft_BT))
        self.values += torch.stack([hard, torch.tensor(n_targets, dtype=torch.float64), soft])

    @property
    def soft_loss(self) -> float:
        """Mean over targets, nats: cross-entropy to the teacher's distribution."""
        return float(self.values[2] / self.values[1])


class Distiller(Trainer):
    """A trainer of a student. `settings.teacher` is there, the model dense (run_config.complete)."""

    def __init__(self, settings: Settings, corpus: Corpus, world: World, begins: bool = True) -> None:
        """As Trainer's. Raises UserError where teacher, data and student do not fit."""
        self.told_teacher = filled(settings.teacher)
        self.teacher = read_teacher(self.told_teacher, corpus.vocabulary, world.device)
        super().__init__(settings, corpus, world, begins)

    def build(self) -> Decoder:
        """The student on the meta device, with its teacher."""
        with torch.device("meta"):
            student = Student(self.config, self.settings.checkpointing)
        student.teacher, student.share = self.teacher, self.told_teacher.share
        return student

    def initialise(self) -> None:
        """Sets the initial weights: the seed's, and over them the teacher's where they are wanted."""
        super().initialise()
        if self.told_teacher.initialise:
            take_weights(self.model, self.teacher.model)

    @property
    def flops_per_token(self) -> int:
        """Of a step: the student's, and the teacher's forward pass."""
        return super().flops_per_token + flops.matmul_forward(self.teacher.model.config, filled(self.settings.context))

    def tally(self) -> Tally:
        """Nothing added up yet."""
        return TaughtTally(self.config)

    def told(self, tally: Tally) -> dict[str, Any]:
        """What the log says beside the loss to the labels: that to the teacher's distribution."""
        assert isinstance(tally, TaughtTally)
        return {"soft_loss": tally.soft_loss}

    def save(self, root: Path, extra: dict[str, Any]) -> Path:
        """Writes a checkpoint, which names its teacher by the digest of its weights."""
        return super().save(root, {**extra, "teacher": self.teacher.digest})

    def load(self, folder: Path) -> dict[str, Any]:
        """Goes to a checkpoint. Raises UserError where it is another teacher's student."""
        state = super().load(folder)
        if state.get("teacher") != self.teacher.digest:
            raise UserError(
                f"{self.told_teacher.checkpoint}: not the teacher that the run in {folder.parent.parent} began with (other "
                "weights); give that one, or another folder"
            )
        return state
