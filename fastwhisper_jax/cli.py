"""The command `fastwhisper`: parse, call, print. Commands are imported only when they run."""

import difflib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastwhisper_jax import arguments
from fastwhisper_jax.config import Config
from fastwhisper_jax.config.overrides import field_help, near_field, override, split_overrides
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.errors import DONE, FAILED, FORESEEN, InputError, exit_of, interrupt_leaves
from fastwhisper_jax.parser import Parser, arguments_of, make_parser, near_option

# Commands that take the fields of a recipe beside their own arguments.
TAKES_FIELDS = ("train", "plan")

RESUMABLE = "what is complete is kept; give the same command again"
WHOLE_FILES = "what was written is whole; the same command transcribes every file again"


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 failed, 2 bad input, 75 resumable."""
    words = sys.argv[1:] if words is None else list(words)
    try:
        with _sigterm_as_interrupt():
            return _dispatch(words)
    except FORESEEN as error:
        code, line = exit_of(error)
        print(line, file=sys.stderr)
        return code
    except BrokenPipeError:
        # The reader of a pipe has left. Without this, the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Ends a command on SIGTERM as on Ctrl-C. A training loop handles both signals itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(words: Sequence[str]) -> int:
    parser, commands = make_parser({name: made_of for name, (made_of, _) in COMMANDS.items()})
    if not words:
        parser.print_help()
        raise InputError(f"no command is given; choose one of {', '.join(commands)}")
    # `fastwhisper` itself has no option but --help, so the first plain word names the command.
    name = next((word for word in words if not word.startswith("-")), "")
    if name and name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(commands)}"
        raise InputError(f"no command {name!r}; {hint}")
    overrides = list[str]()
    if name in TAKES_FIELDS:
        words, overrides = split_overrides(words)
        _describe_fields(commands[name], words)
    namespace, unknown = parser.parse_known_args(words)
    made_of, run = COMMANDS[name]
    if unknown:
        raise InputError(_unknown(unknown[0], name, made_of))
    return run(arguments_of(namespace, made_of), overrides)


def _describe_fields(parser: Parser, words: Sequence[str]) -> None:
    """Adds the fields of a recipe to the help of a command that takes them."""
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    parser.usage = f"{usage} [--section.field VALUE ...]"
    if not {"-h", "--help"} & {*words}:
        return
    recipe = next((Path(word) for word in words if word.endswith(".py")), None)
    source = f"value in {recipe}" if recipe else "default"
    parser.epilog = (
        f"{parser.epilog}\nfields of a recipe, with their type and [{source}]; a length counts "
        "updates as an int (100), and is a fraction of the run as a float (0.5):\n"
        f"{field_help(load_recipe(recipe) if recipe else Config())}\n"
    )


def _unknown(argument: str, name: str, made_of: type) -> str:
    """The error line for an argument that a command does not take."""
    option = argument.partition("=")[0]
    near = near_option(option, made_of)
    if near is None and name in TAKES_FIELDS and option.startswith("-"):
        field = near_field(option.lstrip("-"))
        near = f"--{field}" if field else None
    hint = f"did you mean {near}?" if near else f"see fastwhisper {name} --help"
    return f"{name} takes no {option!r}; {hint}"


def _log(line: str) -> None:
    from fastwhisper_jax.files import printable

    print(printable(line), flush=True)


def _train(given: arguments.TrainArguments, overrides: Sequence[str]) -> int:
    config = override(load_recipe(Path(given.recipe)), overrides)
    _quiet()
    from fastwhisper_jax.commands import train
    from fastwhisper_jax.files import path_of
    from fastwhisper_jax.training import distributed

    distributed.join()
    with distributed.ended_together(), interrupt_leaves(RESUMABLE):
        train.run(config, path_of(given.run_dir), _log)
    return DONE


def _evaluate(given: arguments.EvaluateArguments, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import evaluate

    report = evaluate.run(given)
    _log(evaluate.summary(report, given.report))
    return DONE


def _export(given: arguments.ExportArguments, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import export

    for line in export.run(given):
        _log(line)
    return DONE


def _plan(given: arguments.PlanArguments, overrides: Sequence[str]) -> int:
    config = override(load_recipe(Path(given.recipe)), overrides)
    _quiet()
    # It compiles for a slice that need not be there, so it leaves TPUs of this machine alone.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from fastwhisper_jax.commands import plan

    return DONE if plan.run(config, given, _log) else FAILED


def _demo(given: arguments.DemoArguments, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import demo

    demo.run(given.out, _log)
    return DONE


def _plot(given: arguments.PlotArguments, _: Sequence[str]) -> int:
    from fastwhisper_jax.commands import plot
    from fastwhisper_jax.files import path_of

    plot.run([path_of(run_dir) for run_dir in given.run_dirs], given.out)
    _log(f"written: {given.out}")
    return DONE


def _transcribe(given: arguments.TranscribeArguments, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import transcribe

    with interrupt_leaves(WHOLE_FILES):
        is_complete = transcribe.run(given, _log)
    return DONE if is_complete else FAILED


def _prepare(given: arguments.PrepareArguments, _: Sequence[str]) -> int:
    from fastwhisper_jax.commands import prepare

    with interrupt_leaves(RESUMABLE):
        is_complete = prepare.run(given, _log)
    return DONE if is_complete else FAILED


def _quiet() -> None:
    """Keeps libraries from printing what a user of this command cannot act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# The arguments of each command, and the function that runs it.
COMMANDS: dict[str, tuple[type, Callable[[Any, Sequence[str]], int]]] = {
    "train": (arguments.TrainArguments, _train),
    "evaluate": (arguments.EvaluateArguments, _evaluate),
    "export": (arguments.ExportArguments, _export),
    "plan": (arguments.PlanArguments, _plan),
    "demo": (arguments.DemoArguments, _demo),
    "plot": (arguments.PlotArguments, _plot),
    "transcribe": (arguments.TranscribeArguments, _transcribe),
    "prepare": (arguments.PrepareArguments, _prepare),
}
