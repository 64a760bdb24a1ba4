"""What a training run is: one strict tree of settings, completed from a preset, printed before the run and stored with it.

A run is described by a preset's name or a YAML file, and by overrides (run_file.py). Some settings change a weight: a run that
goes on must have them unchanged. The others say how it is run (micro-batch, processes, checkpointing, compilation, how
often to save and to look) and may be changed at any time; they move results by rounding at most.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import UserError
from train import presets
from train.config import ModelConfig

_BIG_BATCH = 1 << 22  # tokens of a batch where no preset says: LLaMA's

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataSettings(_Strict):
    """Which shards, and how they are cut."""

    path: str | None = None  # tokens/VARIANT of a winnow run, a blend.json, or the prefix of a .bin/.idx pair
    tokenizer: str | None = None  # default: the run's own models/tokenizer.json
    vocab_size: Count | None = None  # for shards without a tokenizer
    masked: bool = False  # attention stays within documents
    epochs: Annotated[float, Field(gt=0)] | None = None  # how often a shard may be gone through; default: as the blend says


class TeacherSettings(_Strict):
    """A sparse model that a dense one learns from (train.distill)."""

    checkpoint: str  # its folder
    share: Annotated[float, Field(ge=0, le=1)] = 0.25  # of its distribution in the loss; the labels have the rest (Switch)
    initialise: bool = True  # begin with its weights, but for experts and routers


class OptimiserSettings(_Strict):
    """train.optim; the defaults are LLaMA's and GLaM's, the peak and the batch a preset's own."""

    kind: Literal["adamw", "adafactor"] | None = None  # default: the preset's
    peak: Annotated[float, Field(gt=0)] | None = None  # learning rate; of Adafactor relative to a parameter's size
    beta1: Annotated[float, Field(ge=0, lt=1)] | None = None
    beta2: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Amount | None = None
    clip: Annotated[float, Field(gt=0)] | Literal["none"] | None = None  # norm of the gradients


class ScheduleSettings(_Strict):
    """train.schedule."""

    kind: Literal["cosine", "inverse_sqrt"] | None = None  # default: cosine for AdamW, inverse_sqrt for Adafactor
    warmup: Annotated[int, Field(ge=0)] | None = None  # updates; default: 2,000 for a cosine, at most a tenth of the run
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1  # where a cosine ends, as a share of the peak
    hold: Count = 10_000  # updates at the peak before inverse_sqrt falls


class ValidationSettings(_Strict):
    """Losses of the sources' validation shards."""

    every: Count = 100  # updates; also after the last one
    sequences: Count = 32  # of a source, at most


class SavingSettings(_Strict):
    """Checkpoints."""

    every: Count = 100  # updates; also after the last one
    keep: Count = 3


class FaultSettings(_Strict):
    """Gradients that are not finite: the update is skipped; so many in a row go back to the last checkpoint (GLaM)."""

    rollback_after: Count = 3


class EnergySettings(_Strict):
    """The estimate, where nothing is measured."""

    watts: Annotated[float, Field(gt=0)] | None = None  # of one process; default: 10 W a CPU thread, 400 W an accelerator
    pue: Annotated[float, Field(ge=1)] = 1.1


class Settings(_Strict):
    """A run. After `complete` nothing but `preset`, `teacher`, paths and limits is None."""

    preset: str | None = None
    model: dict[str, Any] = {}  # fields of train.config.ModelConfig; over the preset's, where there is one
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] = 1
    steps: Count | None = None
    batch: Count | None = None  # sequences an update
    context: Count | None = None  # tokens a sequence; default: the preset's
    precision: Literal["bf16", "fp32"] = "bf16"
    data: DataSettings = DataSettings()
    teacher: TeacherSettings | None = None
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    validation: ValidationSettings = ValidationSettings()
    saving: SavingSettings = SavingSettings()
    faults: FaultSettings = FaultSettings()
    energy: EnergySettings = EnergySettings()
    micro_batch: Count | None = None  # sequences that a process computes at once; default: all of its share
    checkpointing: Literal["none", "full", "selective"] = "none"
    compile: bool = False
    threads: Count = 1  # of a process on a CPU; several processes use several cores better than threads do
    parallel: Literal["ddp", "fsdp", "experts"] = "ddp"  # where there are several processes

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change within a run, as plain values by dotted name."""
        return {name: value for name, value in _flat(self.model_dump(mode="json")).items() if _is_identity(name)}

    def model_config_of_run(self) -> ModelConfig:
        """The model; only after `complete`."""
        return ModelConfig.from_dict(self.model)

    @classmethod
    def of(cls, tree: Mapping[str, Any], name: str) -> Self:
        """The settings that a tree of plain values says. Raises UserError naming `name` and the key."""
        try:
            return cls.model_validate(dict(tree))
        except pydantic.ValidationError as error:
            raise UserError(f"{name}: {_explain(error)}") from error


_IDENTITY = ("model", "seed", "steps", "batch", "context", "precision", "optimiser", "schedule", "data.masked", "teacher")
# A run without a teacher says nothing of one; and a folder may move: checkpoints hold the digest of the teacher's weights.
_APART = ("teacher", "teacher.checkpoint")


def _is_identity(name: str) -> bool:
    return name not in _APART and any(name == one or name.startswith(one + ".") for one in _IDENTITY)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _explain(error: pydantic.ValidationError) -> str:
    """The first fault in one line, with the nearest known key for an unknown one."""
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    where = ".".join(str(step) for step in first["loc"] if not str(step).startswith(("literal[", "constrained-", "function-")))
    if first["type"] == "extra_forbidden":
        sections = (Settings, DataSettings, OptimiserSettings, ScheduleSettings, ValidationSettings, SavingSettings)
        known = {name for one in (*sections, TeacherSettings, FaultSettings, EnergySettings) for name in one.model_fields}
        near = difflib.get_close_matches(str(first["loc"][-1]), sorted(known), 1)
        return f"unknown key {where}" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{where}: {first['msg']} (got {first['input']!r:.60})"


# -- completing -------------------------------------------------------------------------------------------------------------


def complete(given: Settings, name: str, vocab_size: int) -> Settings:
    """The settings with every default written out, for data of this vocabulary. Raises UserError where something is missing."""
    model = _model(given, name, vocab_size)
    tiny = given.preset is not None and given.preset.endswith("-tiny")
    preset = presets.PRESETS[given.preset] if given.preset else None
    kind = given.optimiser.kind or (preset.optimiser if preset else "adamw")
    peak = preset.peak if preset and preset.optimiser == kind else None
    batch_tokens = (preset.batch_tokens if preset else None) or _BIG_BATCH
    steps = given.steps or (250 if tiny else None)
    if steps is None:
        raise UserError(f"{name}: steps is missing: how many updates? set steps=...")
    context = model.context
    schedule = given.schedule.kind or ("cosine" if kind == "adamw" else "inverse_sqrt")
    optimiser = given.optimiser
    adamw = kind == "adamw"
    if not adamw and (optimiser.weight_decay or optimiser.beta1):
        raise UserError(f"{name}: adafactor has neither optimiser.weight_decay nor optimiser.beta1; leave them out, or take adamw")
    filled = {
        "model": model.to_dict(),
        "steps": steps,
        "batch": given.batch or (4 if tiny else max(1, batch_tokens // context)),
        "context": context,
        "optimiser": OptimiserSettings(
            kind=kind,
            peak=optimiser.peak or peak or (3e-4 if adamw else 1e-2),
            beta1=_first(optimiser.beta1, 0.9 if adamw else 0.0),
            beta2=_first(optimiser.beta2, 0.95 if adamw else 0.99),
            weight_decay=_first(optimiser.weight_decay, 0.1 if adamw else 0.0),
            clip=_first(optimiser.clip, 1.0 if adamw else "none"),
        ),
        "schedule": given.schedule.model_copy(
            update={
                "kind": schedule,
                "warmup": _first(given.schedule.warmup, min(2000, steps // 10) if schedule == "cosine" else 0),
            }
        ),
    }
    completed = given.model_copy(update=filled)
    _check(completed, name)
    return completed


def _model(given: Settings, name: str, vocab_size: int) -> ModelConfig:
    if given.preset is None and not given.model:
        raise UserError(f"{name}: neither preset nor model; see winnow train presets")
    base: dict[str, Any] = {"vocab_size": vocab_size}
    if given.preset is not None:
        base = presets.get(given.preset, vocab_size).to_dict()
    fields = _merged(base, given.model)
    if given.context is not None:
        fields["context"] = given.context
    model = ModelConfig.from_dict(fields)
    if model.vocab_size != vocab_size:
        raise UserError(f"{name}: model.vocab_size {model.vocab_size}, but the data's vocabulary has {vocab_size}; leave it out")
    return model


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def filled(value: T | None) -> T:
    """A setting of completed settings: `complete` has seen to it."""
    assert value is not None
    return value


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _check(settings: Settings, name: str) -> None:
    moe = settings.model_config_of_run().moe
    group = 1 if moe is None else moe.group
    if filled(settings.batch) % group or (settings.micro_batch or group) % group:
        raise UserError(f"{name}: batch and micro_batch must be multiples of model.moe.group {group}: groups are whole sequences")
    if settings.teacher is not None and moe is not None:
        raise UserError(
            f"{name}: a student is dense, but model.moe says {moe.experts} experts; set model.moe=null, or leave teacher out"
        )
    if filled(settings.schedule.warmup) > filled(settings.steps):
        raise UserError(f"{name}: schedule.warmup {settings.schedule.warmup} is above steps {settings.steps}")


def differences(stored: Settings, present: Settings) -> list[str]:
    """`key: stored there, present now` of every setting of identity that is not the same."""
    before, now = stored.identity, present.identity
    return [f"{key}: {before.get(key)} there, {now.get(key)} now" for key in {**before, **now} if before.get(key) != now.get(key)]
