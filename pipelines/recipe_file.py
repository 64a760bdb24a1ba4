"""A recipe's file: YAML in, one line for each way to get it wrong; the recipe in force out, with every default written out."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pydantic
import yaml

from pipelines.errors import UserError
from pipelines.recipe import NAME_PATTERN, Recipe
from pipelines.sample import sample_folder
from pipelines.strict import Strict

RECIPE = "recipe.yaml"  # in a run directory: the recipe in force
SAMPLE = "sample"  # the shipped recipe whose inputs come out of published packages
_MAX_RECIPE_BYTES = 1 << 20


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases (a few bytes of them expand without bound) and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def load(name: str, overrides: Iterable[str] = ()) -> tuple[Recipe, str]:
    """(recipe, folder that relative paths start from). `name`: a file, or the name of a shipped recipe such as "sample"."""
    path, known = Path(name), shipped()
    if not path.is_file() and name in known:
        return parse(known[name], name, overrides), sample_folder() if name == SAMPLE else "."
    try:
        content = path.read_bytes()
    except OSError as error:
        close = difflib.get_close_matches(name, known, 1)
        way = f"did you mean {close[0]!r}?" if close else f"give a YAML file, or one that is shipped: {', '.join(known)}"
        raise UserError(f"{name}: no such recipe ({error.strerror}); {way}") from error
    if len(content) > _MAX_RECIPE_BYTES:
        raise UserError(f"{name}: a recipe of {len(content)} bytes; the limit is {_MAX_RECIPE_BYTES}")
    try:
        return parse(content.decode("utf-8"), name, overrides), str(path.parent)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 ({error})") from error


def shipped() -> dict[str, str]:
    """The text of every recipe that comes with winnow, by name."""
    files = {one.name: one for one in (resources.files("beam_config") / "recipes").iterdir()}
    return {name.removesuffix(".yaml"): files[name].read_text("utf-8") for name in sorted(files) if name.endswith(".yaml")}


def parse(text: str, name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe that `text` (YAML) says, with `a.b=c` overrides. Every fault is a UserError of one line."""
    try:
        tree = yaml.load(text, _PlainLoader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{name}: not a YAML recipe: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{name}: a recipe is a mapping with name, sources and variants")
    for override in overrides:
        _override(tree, override)
    try:
        return Recipe.model_validate(tree)
    except pydantic.ValidationError as error:
        raise UserError(f"{name}: {_explain(error)}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"--set {override}: write it as a.b=value")
    try:
        parsed = yaml.load(value, _PlainLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--set {override:.80}: the value is not YAML: {' '.join(str(error).split())}") from error
    *parents, last = dotted.split(".")
    node: Any = tree
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {parent!r} is a value, not a section")
    node[last] = parsed


def _explain(error: pydantic.ValidationError) -> str:
    """The first fault of a recipe in one line, with the nearest known key for an unknown one.

    Of what a union's branches say, the deepest is about the branch that was meant.
    """
    first = min(error.errors(), key=lambda fault: (fault["type"] != "extra_forbidden", -len(fault["loc"])))
    place = [step for step in first["loc"] if not _is_branch(str(step))]
    where = ".".join(map(str, place)) or "the recipe"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}{_right_key([step for step in place if isinstance(step, str)])}"
    if first["type"] == "missing":
        return f"the key {where} is missing"
    if first["type"] == "model_type":
        message = "give it as {key: value, ...}"
    elif first.get("ctx", {}).get("pattern") == NAME_PATTERN:
        message = "a name is of a-z, 0-9 and _, at most 64 of them, and does not begin with _"
    else:
        message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + (f" (got {first['input']!r:.60})" if not isinstance(first["input"], dict) else "")


def _is_branch(step: str) -> bool:
    """Whether a step of an error's place is pydantic's name of a union's branch, not a key."""
    return step in ("Draw", "Languages", "[key]") or step.startswith(("literal[", "list[", "dict[", "function-after["))


def _right_key(place: Sequence[str]) -> str:
    """For an unknown key: the nearest one of its section, else the section that has such a key and is next to where it stands."""
    *parents, last = place
    known = sorted(set(_keys(Recipe)))
    here = [key for section, key in known if len(section) == len(parents) == _shared(section, parents)]
    if close := difflib.get_close_matches(last, here, 1, 0.6):
        return f"; did you mean {close[0]!r}?"
    there = [section for section, key in known if key == last]
    if not there:
        return "; see docs/recipe.md for the keys"
    section = min(there, key=lambda one: (-_shared(one, parents), len(one)))
    named = [*parents[: _shared(section, parents)], *section[_shared(section, parents) :]]
    return f"; it belongs under {'.'.join(named)}" if named else "; it belongs at the top"


def _keys(kind: Any, section: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(section, key) of all keys below a type; what a user names, such as a source, stands in a section as NAME."""
    if isinstance(kind, type) and issubclass(kind, Strict):
        for key, field in kind.model_fields.items():
            yield section, key
            yield from _keys(field.annotation, (*section, key))
    elif get_origin(kind) is dict:
        named, value = get_args(kind)
        yield from ((section, key) for key in (get_args(named) if get_origin(named) is Literal else ()))
        yield from _keys(value, (*section, "NAME"))
    else:
        for one in get_args(kind):
            yield from _keys(one, section)


def _shared(section: Sequence[str], parents: Sequence[str]) -> int:
    """How many steps a section and a place begin with together; any name is NAME."""
    pairs = zip(section, parents, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] in (pair[1], "NAME"), pairs)))


def resolved(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe with every default written out, as plain values."""
    return recipe.model_dump(mode="json")


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `parse` reads back to an equal recipe."""
    return str(yaml.safe_dump(dict(resolved(recipe)), sort_keys=False, allow_unicode=True, width=100))
