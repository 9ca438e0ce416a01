"""Reading a recipe, its fields by name, and the JSON that a run directory keeps of it."""

import dataclasses
import difflib
import json
import runpy
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastwhisper_jax.config.schema import Config
from fastwhisper_jax.errors import InputError


def load_recipe(path: Path) -> Config:
    """Runs a recipe and returns the `config` that it binds.

    Raises:
        InputError: the file is absent, fails, or binds no Config.
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
        bound = "nothing of that name" if config is None else f"a {type(config).__name__}"
        raise InputError(
            f"recipe {path} must bind `config = Config(...)`, found {bound}; see the recipes in "
            "configs/"
        )
    return config


def fields(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the dotted name, the type and the value of every field of a config.

    The fields of a section come in its place.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type, value


def to_json(config: Config) -> str:
    """The resolved config as a run directory keeps it."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`, also for earlier versions: fields that they lack have defaults.

    Raises:
        InputError: the text is not JSON, or has fields that this version does not know.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON ({error})") from error
    config: Config = _from_dict(Config, _renamed(values))
    return config


def _renamed(values: Any) -> Any:
    """The values of an earlier version's config, changed to today's names."""
    sections = values if isinstance(values, dict) else {}
    student, data = sections.get("student"), sections.get("data")
    if isinstance(student, dict) and "context_seconds" in student:
        seconds = student.pop("context_seconds")
        student["windows_seconds"] = None if seconds is None else [seconds]
    if isinstance(data, dict) and "encoder_cache" in data:
        data["cache"] = data.pop("encoder_cache")
    return values


def _from_dict(section: type, values: Any) -> Any:
    annotations = {field.name: field.type for field in dataclasses.fields(section)}
    if not isinstance(values, dict) or set(values) - set(annotations):
        different = sorted(set(values) - set(annotations)) if isinstance(values, dict) else values
        raise InputError(
            f"{section.__name__} has other fields than in this version ({different}); use the "
            "version that wrote it"
        )
    arguments = {}
    for name, value in values.items():
        annotation = annotations[name]
        if dataclasses.is_dataclass(annotation):
            value = _from_dict(typing.cast(type, annotation), value)
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return section(**arguments)
