"""Loads a recipe: finds the YAML file, applies overrides, validates the result, and explains errors.

YAML and pydantic do the work. OmegaConf was weighed: it would replace `merge` and `parse_overrides`, but it evaluates
`${...}` inside values and expands YAML aliases, and recipes also come from untrusted checkpoints.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import operator
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.schema import Config, ConfigError

MAX_RECIPE_BYTES = 1 << 20
_RECIPES_IN_WHEEL = Path(__file__).resolve().parent / "recipes"
_RECIPES_IN_CLONE = Path(__file__).resolve().parents[2] / "launch/recipes"


def fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields (dotted key, field) of every value of a recipe, e.g. ``objective.kernel.name``."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def flat_values(config: Config) -> dict[str, Any]:
    """Returns every value of a configuration under its dotted key."""
    plain = config.plain()
    return {key: functools.reduce(operator.getitem, key.split("."), plain) for key, _ in fields()}


def changed_values(before: Config, after: Config) -> dict[str, tuple[Any, Any, bool]]:
    """Returns (old value, new value, may change on resume) of each key that differs."""
    old, new = flat_values(before), flat_values(after)
    return {key: (old[key], new[key], is_resumable(field)) for key, field in fields() if old[key] != new[key]}


def is_resumable(field: FieldInfo) -> bool:
    """Whether a resumed run may change this field."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("resumable"))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``base`` with the values of ``changes``; mappings are merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def build_config(tree: Any, origin: str) -> Config:
    """Validates nested plain values, as read from YAML or from a checkpoint; ``origin`` names their source in errors.

    Raises:
        ConfigError: When a value cannot be used; names the key, the value and, for an unknown key, the nearest one.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first error in words; unknown keys come first, because they often cause the others."""
    errors = error.errors(include_url=False, include_context=False)
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    known = [name for name, _ in fields()]
    if first["type"] == "extra_forbidden":
        inner = first["input"]
        while isinstance(inner, Mapping) and inner and key.count(".") < 4:  # a misspelled section: show a whole key
            key, inner = f"{key}.{next(iter(inner))}", next(iter(inner.values()))
        short = key[:80]  # comparing a long text with every key would take minutes
        if key in known:
            return f"the key '{key}' must be nested: {' '.join(f'{name}:' for name in key.split('.'))} …"
        nearest = difflib.get_close_matches(short, known, n=1, cutoff=0.0)[0]
        return f"unknown key '{short}'; did you mean '{nearest}'?"
    if first["type"] == "invalid_key":
        return f"the key {reprlib.repr(first['loc'][-1])} is not text"
    if first["type"] == "model_type":
        inside = [name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}.")]
        return f"'{key}' takes no value, only keys: {', '.join(inside[:3])}, …"
    message = first["msg"].removeprefix("Value error, ").replace("tuple", "list")[:300]
    given = "" if isinstance(first["input"], BaseModel | Mapping) else f" (given: {reprlib.repr(first['input'])})"
    return f"{key or 'the recipe'}: {message}{given}"


class _StrictLoader(yaml.SafeLoader):
    """YAML without duplicate keys, where plain YAML keeps the last, and without aliases.

    A few lines of nested aliases can expand to more values than fit into memory.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"duplicate key '{key.value[:80]}' (line {key.start_mark.line + 1})")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported: write the value out")
        return super().compose_node(parent, index)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader


def recipe_names() -> dict[str, Path]:
    """Returns the recipes that come with the project, by name."""
    folder = _RECIPES_IN_WHEEL if _RECIPES_IN_WHEEL.is_dir() else _RECIPES_IN_CLONE
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Returns the file of a recipe that is given by name (``celeba64``) or by path.

    Raises:
        ConfigError: When neither a file nor a known recipe has this name.
    """
    path, known = Path(name), recipe_names()
    if path.is_file():
        return path
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"give a YAML file or one of: {', '.join(known)}"
    reason = "is a folder" if path.is_dir() else "does not exist"
    raise ConfigError(f"the recipe {name} {reason}; {hint}")


def read_recipe(path: Path) -> dict[str, Any]:
    """Returns the values of a YAML recipe.

    Raises:
        ConfigError: When it cannot be read or is not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RECIPE_BYTES + 1)
        if len(content) > MAX_RECIPE_BYTES:
            raise ValueError(f"more than {MAX_RECIPE_BYTES:,} bytes")
        tree = _read_yaml(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        raise ConfigError(f"the recipe {path} is empty")
    if not isinstance(tree, Mapping):
        raise ConfigError(f"the recipe {path} must hold 'key: value' lines, not a {type(tree).__name__}")
    return dict(tree)


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Returns the values of ``key.path=value`` words, nested; each value is YAML.

    Raises:
        ConfigError: When a word has another form, or its value is not YAML.
    """
    tree: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is neither an option nor a key.path=value override")
        try:
            value = _read_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ConfigError(f"the value of the override '{word}' is not valid YAML") from None
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-3 as text
            value = float(value) if isinstance(value, str) else value
        tree = merge(tree, nested(key, value))
    return tree


def nested(key: str, value: Any) -> dict[str, Any]:
    """Returns ``{"a": {"b": value}}`` for the key ``a.b``."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def resolve(recipe: Path | str, overrides: Mapping[str, Any]) -> Config:
    """Returns the recipe with overrides (nested) applied, validated.

    Raises:
        ConfigError: When the recipe cannot be read, or a value cannot be used.
    """
    path = find_recipe(str(recipe))
    base = read_recipe(path)
    build_config(base, f"recipe {path}")
    return build_config(merge(base, overrides), "override")


def to_yaml(config: Config) -> str:
    """Returns the configuration as YAML that `read_recipe` reads back."""
    return yaml.safe_dump(config.plain(), sort_keys=False, allow_unicode=True)
