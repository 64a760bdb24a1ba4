"""What defines a model: frozen values that turn into a plain dictionary (JSON) and back, strictly.

Everything that changes a parameter or an output stands here; how a model is run (precision, checkpointing, devices) does not.
A checkpoint stores `to_dict()`, so that a run can tell whether it goes on with the same model. No torch in this module.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pipelines.errors import UserError

Ffn = Literal["swiglu", "geglu", "gelu", "relu"]  # the first two are gated: three matrices, the others two
Norm = Literal["rmsnorm", "layernorm"]
Positions = Literal["rope", "relative_bias", "transformer_xl", "learned", "none"]
Dispatch = Literal["grouped", "padded", "einsum"]
GATED: frozenset[str] = frozenset({"swiglu", "geglu"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEConfig:
    """The sparse layers. An expert is a feed-forward layer of kind `ffn` with `d_ff` hidden units.

    Capacity is int(tokens of a routing group x factor / experts), at least `min_capacity`, as in mesh-tensorflow: the factor is
    not multiplied by top_k. A factor of None is dropless. A routing group is `group` whole sequences: the unit of capacity and
    of the auxiliary losses, whatever the micro-batch.
    """

    experts: int
    top_k: int
    d_ff: int
    ffn: Ffn
    every: int = 2  # layers every - 1, 2 every - 1, ... (from 0) are sparse
    renormalise: bool = False  # divide the chosen gates by their sum: GLaM yes, Switch no
    capacity_train: float | None = None
    capacity_eval: float = 2.0
    min_capacity: int = 4
    group: int = 1
    dispatch: Dispatch = "grouped"
    jitter: float = 0.0  # the router's input is multiplied by U(1 - jitter, 1 + jitter) in training
    expert_dropout: float = 0.0  # on the experts' hidden units in training
    balance: Literal["first_choice", "all_choices"] = "first_choice"  # which choices the load f counts; all: divided by top_k
    balance_coefficient: float = 0.01
    z_coefficient: float = 0.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "experts", "top_k", "d_ff", "every", "group", "min_capacity")
        _choices(self)
        if self.top_k > self.experts:
            raise UserError(f"moe.top_k {self.top_k} is above moe.experts {self.experts}: choose at most as many as there are")
        if not 0 <= self.jitter < 1 or not 0 <= self.expert_dropout < 1:
            raise UserError("moe.jitter and moe.expert_dropout must be at least 0 and below 1")
        for name in ("capacity_train", "capacity_eval"):
            factor = getattr(self, name)
            if factor is not None and factor <= 0:
                raise UserError(f"moe.{name} must be above 0, not {factor}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer. `context` is the longest sequence; only learned positions make it a limit."""

    vocab_size: int
    context: int
    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_ff: int
    ffn: Ffn = "swiglu"
    norm: Norm = "rmsnorm"
    norm_place: Literal["pre", "post"] = "pre"  # post: x = norm(x + f(x)), and no norm at the end
    norm_eps: float = 1e-6
    positions: Positions = "rope"
    rope_theta: float = 10_000.0
    relative_buckets: int = 32  # T5's relative bias
    relative_max_distance: int = 128
    bias: bool = False  # in every linear layer but the router and the output
    tied_embeddings: bool = False
    init_scale: float = 1.0  # truncated normal of deviation sqrt(init_scale / fan_in)
    moe: MoEConfig | None = None

    def __post_init__(self) -> None:
        _at_least(self, 1, "vocab_size", "context", "d_model", "n_layers", "n_heads", "d_head", "d_ff")
        _choices(self)
        if self.positions == "rope" and self.d_head % 2:
            raise UserError(f"d_head {self.d_head} is odd: rotary positions turn pairs, choose an even one")
        if self.positions == "transformer_xl" and self.d_model % 2:
            raise UserError(f"d_model {self.d_model} is odd: Transformer-XL positions are sines and cosines, choose an even one")
        if self.positions == "relative_bias" and not 2 <= self.relative_buckets < self.relative_max_distance * 2:
            raise UserError("relative_buckets must be at least 2 and below twice relative_max_distance")
        if self.init_scale <= 0 or self.norm_eps <= 0 or self.rope_theta <= 0:
            raise UserError("init_scale, norm_eps and rope_theta must be above 0")
        if self.moe is not None and self.moe.every > self.n_layers:
            raise UserError(f"moe.every {self.moe.every} is above n_layers {self.n_layers}: no layer would be sparse")

    def is_sparse(self, layer: int) -> bool:
        """Whether the layer (from 0) holds experts."""
        return self.moe is not None and (layer + 1) % self.moe.every == 0

    @property
    def n_sparse(self) -> int:
        """The number of layers that hold experts."""
        return 0 if self.moe is None else self.n_layers // self.moe.every

    @property
    def d_attention(self) -> int:
        """Width of the queries, keys and values of all heads together."""
        return self.n_heads * self.d_head

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary of JSON values with every field, defaults too."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; absent fields take their defaults. Raises UserError on an unknown key or a wrong type."""
        values = dict(values)
        if values.get("moe") is not None:
            values["moe"] = _build(MoEConfig, values["moe"], "moe.")
        return _build(cls, values, "")


def _build(cls: type[Any], values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{prefix.rstrip('.') or 'model'}: expected an object of fields, not {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    kinds = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            raise UserError(f"{prefix}{key}: no such field" + (f"; did you mean {prefix}{near[0]}?" if near else ""))
        if not _fits(value, kinds[key]):
            raise UserError(f"{prefix}{key}: {value!r} is not {_kind_name(kinds[key])}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise UserError(f"{prefix}{missing[0]}: missing; a model needs it")
    return cls(**values)


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(kind, types.UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _kind_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if isinstance(kind, types.UnionType):
        return " or ".join("null" if one is types.NoneType else one.__name__ for one in get_args(kind))
    return str(kind.__name__)


def _at_least(config: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise UserError(f"{name} must be at least {least}, not {getattr(config, name)}")


def _choices(config: Any) -> None:
    for name, kind in typing.get_type_hints(type(config)).items():
        if typing.get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            raise UserError(f"{name}: {getattr(config, name)!r} is not {_kind_name(kind)}")
