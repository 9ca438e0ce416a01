"""Changing the fields of a recipe from the command line: `--section.field value ...`."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from fastwhisper_jax.config.recipe import fields
from fastwhisper_jax.config.schema import Config
from fastwhisper_jax.errors import InputError

EMPTY = "none"
# The words for values of a type, in any case.
WORDS: dict[Any, dict[str, Any]] = {
    types.NoneType: {EMPTY: None},
    bool: {"true": True, "false": False},
}


def near_field(name: str) -> str | None:
    """The field that a mistyped name is likely to mean, with or without its section."""
    names = [name for name, _, _ in fields(Config())]
    if near := difflib.get_close_matches(name, names, n=1):
        return near[0]
    lasts = {name.rpartition(".")[2]: name for name in reversed(names)}
    near = difflib.get_close_matches(name.rpartition(".")[2], lasts, n=1)
    return lasts[near[0]] if near else None


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates a command's own arguments from overrides. Only overrides have a dot in their name.

    An override takes the values that follow it. A recipe (.py) is never one of them.
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
        InputError: a field is unknown (the error names the nearest one) or given twice, a value
            has the wrong type, or the new config breaks a rule.
    """
    types_of = {name: annotation for name, annotation, _ in fields(config)}
    texts: dict[str, list[str]] = {}
    name = None
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            if name not in types_of:
                near = near_field(name)
                hint = f"did you mean --{near}?" if near else "see fastwhisper train --help"
                raise InputError(f"unknown field --{name}; {hint}")
            if name in texts:
                raise InputError(f"--{name} is given twice; give all of its values at once")
            texts[name] = [value] if equals else []
        elif name is None:
            raise InputError(f"unexpected argument {argument!r}; fields are given as --field value")
        else:
            texts[name].append(argument)
    return _replace(config, {name: _parse(name, types_of[name], texts[name]) for name in texts})


def _replace(section: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of a section in which the fields of these dotted names have these values."""
    changes = {}
    for field in dataclasses.fields(section):
        name, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replace(value, values, f"{name}.")
        elif name in values:
            changes[field.name] = values[name]
    try:
        return dataclasses.replace(section, **changes)
    except InputError as error:
        given = ", ".join(f"--{name}" for name in map(prefix.__add__, changes) if name in values)
        raise InputError(f"{given}: {error}" if given else str(error)) from error


def _parse(name: str, annotation: Any, texts: Sequence[str]) -> Any:
    try:
        return _parse_as(annotation, texts)
    except ValueError:
        given = repr(" ".join(texts)) if texts else "nothing"
        raise InputError(f"--{name} takes {describe(annotation)}, got {given}") from None


def _parse_as(annotation: Any, texts: Sequence[str]) -> Any:
    """Reads texts as a value of a field's type, or raises ValueError."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        if not texts:
            raise ValueError("no value")
        if list(texts) == [EMPTY]:
            return ()
        return tuple(_parse_as(members[0], [text]) for text in texts)
    if typing.get_origin(annotation) is types.UnionType:
        # None is tried first and str last; an int is tried before a float.
        order = [types.NoneType, int, float]
        for member in sorted(members, key=lambda m: order.index(m) if m in order else len(order)):
            try:
                return _parse_as(member, texts)
            except ValueError:
                continue
        raise ValueError("no member of the union fits")
    (text,) = texts
    if annotation in WORDS:
        if text.lower() not in WORDS[annotation]:
            raise ValueError(text)
        return WORDS[annotation][text.lower()]
    if typing.get_origin(annotation) is typing.Literal:
        if text not in members:
            raise ValueError(text)
        return text
    return annotation(text)


def describe(annotation: Any) -> str:
    """A type in the words of the command line."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) is types.UnionType:
        # The union itself says whether it may be none, so a tuple in it need not.
        return " or ".join(describe(member).split(", or ")[0] for member in members)
    if typing.get_origin(annotation) is tuple:
        return f"one or more of {describe(members[0])}, or {EMPTY}"
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(members)
    if annotation in WORDS:
        return "|".join(WORDS[annotation])
    return "text" if annotation is str else str(annotation.__name__)


def field_help(config: Config) -> str:
    """One line for each field: its name, its type, and its value in the config."""
    lines = []
    for name, annotation, value in fields(config):
        shown = str(value).lower() if isinstance(value, bool | None) else str(value)
        if isinstance(value, tuple):
            shown = " ".join(map(str, value)) or EMPTY
        lines.append(f"  --{name}  {describe(annotation)}  [{shown}]")
    return "\n".join(lines)
