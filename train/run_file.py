"""Where the settings of a run come from: a preset's name or a YAML file, with overrides `a.b=c`; and the file they are kept in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import UserError
from train import presets
from train.run_config import Settings

SETTINGS = "train.yaml"  # in a run's folder: the settings in force, with every default written out
_MAX_BYTES = 1 << 20
_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


class _Loader(yaml.SafeLoader):
    """3e-4 is a number to everybody but YAML 1.1."""


class _Dumper(yaml.SafeDumper):
    """What _Loader reads back."""


_Loader.add_implicit_resolver(*_EXPONENT)
_Dumper.add_implicit_resolver(*_EXPONENT)


def load(name: str, overrides: Iterable[str] = ()) -> Settings:
    """Settings from a YAML file, or from the name of a preset, with overrides. Nothing is completed yet."""
    if Path(name).suffix in (".yaml", ".yml"):
        tree = _read(name)
    else:
        presets.get(name)
        tree = {"preset": name}
    for override in overrides:
        _override(tree, override)
    return Settings.of(tree, name)


def _read(name: str) -> dict[str, Any]:
    try:
        content = Path(name).read_bytes()
        if len(content) > _MAX_BYTES:
            raise UserError(f"{name}: {len(content)} bytes of settings; the limit is {_MAX_BYTES}")
        tree = yaml.load(content, _Loader)  # noqa: S506  (a safe one)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; give a YAML file or the name of a preset") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{name}: settings are a mapping with preset or model, steps, batch and data")
    return tree


def _override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"--set {override}: write it as a.b=value")
    try:
        parsed = yaml.load(value, _Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not YAML: {' '.join(str(error).split())}") from error
    *parents, last = dotted.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {parent!r} is a value, not a section")
    node[last] = parsed


def dump(settings: Settings) -> str:
    """The settings as YAML that `load` reads back to equal ones."""
    return str(yaml.dump(settings.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=100))
