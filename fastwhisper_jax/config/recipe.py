"""Reading a recipe, changing its fields from the command line, and its form in a run directory."""

import dataclasses
import difflib
import json
import runpy
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastwhisper_jax.config.schema import Config
from fastwhisper_jax.errors import InputError

BOOLEANS = {"true": True, "false": False}
EMPTY = "none"


def load_recipe(path: Path) -> Config:
    """Runs a recipe and returns the `config` that it binds.

    Raises:
        InputError: there is no such file, it fails, or it binds no Config.
    """
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f"did you mean {path.parent / near[0]}?" if near else "name a recipe's .py file"
        raise InputError(f"no recipe at {path}; {hint}")
    try:
        config = runpy.run_path(str(path)).get("config")
    except InputError as error:
        raise InputError(f"recipe {path}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever a user's own Python file may raise
        raise InputError(
            f"recipe {path} cannot be run ({type(error).__name__}: {error}); it must be Python "
            "that binds `config = Config(...)`: correct it"
        ) from error
    if not isinstance(config, Config):
        found = "nothing of that name" if config is None else f"a {type(config).__name__}"
        raise InputError(
            f"recipe {path} must bind `config = Config(...)`, found {found}; see the recipes in "
            "configs/"
        )
    return config


def fields(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf field of a config: its dotted name, its type and its value."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type, value


def near_field(name: str) -> str | None:
    """The field that a mistyped name is likely to mean, with or without its section."""
    names = [name for name, _, _ in fields(Config())]
    if near := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return near[0]
    lasts = {name.rpartition(".")[2]: name for name in reversed(names)}
    near = difflib.get_close_matches(name.rpartition(".")[2], lasts, n=1, cutoff=0.6)
    return lasts[near[0]] if near else None


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command's own arguments from overrides, whose names alone carry a dot.

    An override takes the values that follow it, but for a recipe (.py), which is never one.
    """
    own: list[str] = []
    overrides: list[str] = []
    target = own
    for argument in arguments:
        if argument.startswith("-") and not argument[1:2].isdigit():
            target = overrides if "." in argument.partition("=")[0] else own
        elif argument.endswith(".py"):
            own.append(argument)
            continue
        target.append(argument)
    return own, overrides


def override(config: Config, arguments: Sequence[str]) -> Config:
    """Applies `--section.field value ...` or `--section.field=value` arguments to a config.

    Raises:
        InputError: an unknown field (the nearest is named), one that is given twice, an ill-typed
            value, or a config that breaks its own rules.
    """
    known = {name: annotation for name, annotation, _ in fields(config)}
    changes: dict[str, list[str]] = {}
    name = None
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            if name not in known:
                near = near_field(name)
                hint = f"did you mean --{near}?" if near else "see fastwhisper train --help"
                raise InputError(f"unknown field --{name}; {hint}")
            if name in changes:
                raise InputError(f"--{name} is given twice; give all of its values at once")
            changes[name] = [value] if equals else []
        elif name is None:
            raise InputError(f"unexpected argument {argument!r}; fields are given as --field value")
        else:
            changes[name].append(argument)
    values = {name: _parse(name, known[name], texts) for name, texts in changes.items()}
    return _replace(config, values)


def _replace(section: Any, values: Mapping[str, Any], prefix: str = "--") -> Any:
    """A copy of a config section with the fields of these dotted names changed."""
    own = {name: value for name, value in values.items() if "." not in name}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = value
    own |= {
        head: _replace(getattr(section, head), rest, f"{prefix}{head}.")
        for head, rest in nested.items()
    }
    try:
        return dataclasses.replace(section, **own)
    except InputError as error:
        given = ", ".join(prefix + name for name in own if name not in nested)
        raise InputError(f"{given}: {error}" if given else str(error)) from error


def _parse(name: str, annotation: Any, texts: Sequence[str]) -> Any:
    try:
        return _parse_as(annotation, texts)
    except ValueError:
        given = repr(" ".join(texts)) if texts else "nothing"
        raise InputError(f"--{name} takes {describe(annotation)}, got {given}") from None


def _parse_as(annotation: Any, texts: Sequence[str]) -> Any:
    if typing.get_origin(annotation) is tuple:
        if not texts:
            raise ValueError("no value")
        if list(texts) == [EMPTY]:
            return ()
        return tuple(_parse_as(typing.get_args(annotation)[0], [text]) for text in texts)
    if typing.get_origin(annotation) is types.UnionType:
        for member in _members(annotation):
            try:
                return _parse_as(member, texts)
            except ValueError:
                continue
        raise ValueError("no member of the union fits")
    (text,) = texts
    if annotation is types.NoneType:
        if text.lower() != EMPTY:
            raise ValueError(text)
        return None
    if annotation is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError(text)
        return BOOLEANS[text.lower()]
    if typing.get_origin(annotation) is typing.Literal:
        if text not in typing.get_args(annotation):
            raise ValueError(text)
        return text
    return annotation(text)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union in the order in which they are tried: None first, str last."""
    order = [types.NoneType, int, float]
    members = typing.get_args(annotation)
    return tuple(sorted(members, key=lambda m: order.index(m) if m in order else len(order)))


def describe(annotation: Any) -> str:
    """A type in the words of the command line."""
    if typing.get_origin(annotation) is types.UnionType:
        members = [describe(member).split(", or ")[0] for member in typing.get_args(annotation)]
        return " or ".join(members)
    if typing.get_origin(annotation) is tuple:
        return f"one or more of {describe(typing.get_args(annotation)[0])}, or {EMPTY}"
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(typing.get_args(annotation))
    names = {types.NoneType: EMPTY, bool: "true|false", str: "text"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def field_help(config: Config) -> str:
    """One line a field for `--help`: name, type, and the default or the recipe's value."""
    lines = []
    for name, annotation, value in fields(config):
        shown = str(value).lower() if isinstance(value, bool | None) else str(value)
        if isinstance(value, tuple):
            shown = " ".join(map(str, value)) or EMPTY
        lines.append(f"  --{name}  {describe(annotation)}  [{shown}]")
    return "\n".join(lines)


def to_json(config: Config) -> str:
    """The resolved config as a run directory keeps it."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`.

    Raises:
        InputError: it is not JSON, or not of this version's fields.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON ({error})") from error
    config: Config = _from_dict(Config, values)
    return config


def _from_dict(section: type, values: Any) -> Any:
    annotations = {field.name: field.type for field in dataclasses.fields(section)}
    if not isinstance(values, dict) or set(values) != set(annotations):
        different = sorted(set(values) ^ set(annotations)) if isinstance(values, dict) else values
        raise InputError(
            f"{section.__name__} has other fields than in this version ({different}); use the "
            "version that wrote it"
        )
    arguments = {}
    for name, annotation in annotations.items():
        value = values[name]
        if dataclasses.is_dataclass(annotation):
            value = _from_dict(typing.cast(type, annotation), value)
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return section(**arguments)
