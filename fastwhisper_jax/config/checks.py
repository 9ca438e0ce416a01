"""Checks of a config section: first the types of its fields, then its own rules."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from fastwhisper_jax.errors import InputError

LENGTH_RULE = "must be a count of updates (int) or a fraction of the run (float, 0.0 to 1.0)"


def check_types(section: Any) -> None:
    """Checks that every field of a dataclass holds what its annotation says.

    A float field also takes an int. Only a bool field takes a bool. Floats must be finite.

    Raises:
        InputError: a field has another type; the message names every such field.
    """
    annotations = {field.name: field.type for field in dataclasses.fields(section)}
    check_rules(
        section,
        {
            name: (_has_type(getattr(section, name), annotation), f"must be {_python(annotation)}")
            for name, annotation in annotations.items()
        },
    )


def check_rules(section: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raises one error for all broken rules of a section.

    Args:
        section: a dataclass.
        rules: for each field, whether its rule holds, and the rule in words.

    Raises:
        InputError: a rule does not hold; the message names every such field.
    """
    broken = [
        f"{name}={getattr(section, name)!r} {must}"
        for name, (holds, must) in rules.items()
        if not holds
    ]
    if broken:
        raise InputError(f"{type(section).__name__}: " + "; ".join(broken))


def is_length(value: int | float) -> bool:
    """Whether a value obeys `LENGTH_RULE`."""
    return value >= 0 and (isinstance(value, int) or value <= 1.0)


def _has_type(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is types.UnionType:
        return any(_has_type(value, member) for member in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, arguments[0]) for item in value)
    if isinstance(value, bool):
        return annotation is bool
    if annotation is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, annotation)


def _python(annotation: Any) -> str:
    """An annotation as the author of a recipe writes it."""
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (types.UnionType, tuple):
        return str(annotation)
    return "a finite float" if annotation is float else annotation.__name__
