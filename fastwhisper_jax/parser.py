"""A parser made of the dataclasses in `arguments`. Its errors are one line."""

import argparse
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fastwhisper_jax.errors import InputError

EXAMPLE = """
example:
  fastwhisper train configs/askd_base_en.py --run-dir runs/askd \\
      --teacher.path openai/whisper-base --data.train train.jsonl --data.eval test.jsonl
  fastwhisper export runs/askd --out my-student
  fastwhisper evaluate my-student --data test.jsonl
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors, each as one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def make_parser(commands: Mapping[str, type]) -> tuple[Parser, dict[str, Parser]]:
    """Builds the parser of `fastwhisper`, and the parser of each command by its name.

    Args:
        commands: the dataclass of each command's arguments.
    """
    parser = Parser(
        prog="fastwhisper",
        description="Distil Whisper into a small, fast student, kept as Hugging Face weights.",
        epilog=EXAMPLE,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, arguments in commands.items():
        description, _, example = (inspect.getdoc(arguments) or "").partition("\n\nexample:\n")
        summary = description.splitlines()[0].rstrip(".")
        command = subparsers.add_parser(
            name,
            help=summary[0].lower() + summary[1:],
            description=description,
            epilog=f"example:\n{example}\n",
        )
        for field in dataclasses.fields(arguments):
            _add_argument(command, field)
    return parser, dict(subparsers.choices)


def arguments_of(namespace: argparse.Namespace, arguments: type) -> Any:
    """The parsed values as the dataclass of the command."""
    values = {field.name: getattr(namespace, field.name) for field in dataclasses.fields(arguments)}
    return arguments(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def near_option(option: str, arguments: type) -> str | None:
    """The option of a command that a mistyped one is likely to mean."""
    options = [_flag(field) for field in dataclasses.fields(arguments) if field.kw_only]
    return next(iter(difflib.get_close_matches(option, options, n=1)), None)


def _flag(field: dataclasses.Field[Any]) -> str:
    turns_off = field.default is True
    return f"--{'no-' if turns_off else ''}{field.name.replace('_', '-')}"


def _add_argument(parser: Parser, field: dataclasses.Field[Any]) -> None:
    annotation, metavar, text = typing.get_args(field.type)
    if types.NoneType in typing.get_args(annotation):
        annotation = typing.get_args(annotation)[0]
    if annotation is bool:
        action = "store_false" if field.default else "store_true"
        parser.add_argument(_flag(field), dest=field.name, action=action, help=text)
        return
    settings: dict[str, Any] = {"metavar": metavar, "help": text}
    if typing.get_origin(annotation) is typing.Literal:
        settings["choices"] = typing.get_args(annotation)
    elif typing.get_origin(annotation) is tuple:
        settings |= {"nargs": "+", "type": typing.get_args(annotation)[0]}
    else:
        settings["type"] = _local_path if annotation is Path else annotation
    if not field.kw_only:
        parser.add_argument(field.name, **settings)
    elif field.default is dataclasses.MISSING:
        parser.add_argument(_flag(field), required=True, **settings)
    else:
        if field.default is not None:
            settings["help"] += f"; default: {field.default}"
        parser.add_argument(_flag(field), default=field.default, **settings)


def _local_path(text: str) -> Path:
    """The local path that an argument names.

    Raises:
        ArgumentTypeError: it names an object in a store. `Path` would make a local folder of that
            name.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is not a local path; write to a local one, then copy what is there, such as "
            "with gcloud storage cp --recursive"
        )
    return Path(text)
