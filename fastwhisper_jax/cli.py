"""The command `fastwhisper`: parse, call, print. Commands are imported only when they run."""

import argparse
import dataclasses
import difflib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastwhisper_jax.commands import prepare_arguments, transcribe_arguments
from fastwhisper_jax.commands.parser import make_parser
from fastwhisper_jax.errors import DONE, FAILED, FORESEEN, InputError, exit_of, interrupt_leaves

# Commands that also take the fields of a recipe.
TAKES_FIELDS = ("train", "plan")

RESUMABLE = "what is complete is kept; give the same command again"
WHOLE_FILES = "what was written is whole; the same command transcribes every file again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 failed, 2 bad input, 75 resumable."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _sigterm_as_interrupt():
            return _dispatch(arguments)
    except FORESEEN as error:
        code, line = exit_of(error)
        print(line, file=sys.stderr)
        return code
    except BrokenPipeError:
        # The reader of a pipe has left; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Ends a command on SIGTERM as on Ctrl-C; a training loop takes both over while it runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    from fastwhisper_jax.files import printable

    print(printable(line), flush=True)


def _dispatch(arguments: Sequence[str]) -> int:
    parser, commands = make_parser(COMMANDS)
    if not arguments:
        parser.print_help()
        raise InputError(f"no command is given; choose one of {', '.join(commands)}")
    # No option of ours stands before the command: the first word is its name.
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    overrides = list[str]()
    if name and name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(commands)}"
        raise InputError(f"no command {name!r}; {hint}")
    if name in TAKES_FIELDS:
        from fastwhisper_jax.config.recipe import split_overrides

        arguments, overrides = split_overrides(arguments)
        if "--help" in arguments or "-h" in arguments:
            commands[name].epilog = f"{commands[name].epilog}{_fields_epilog(arguments)}"
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise InputError(_unknown(unknown[0], name, commands))
    return int(namespace.run(namespace, overrides))


def _unknown(argument: str, name: str, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The line about an argument that a command does not take."""
    option = argument.partition("=")[0]
    options = re.findall(r"--[a-z-]+(?=[ \]])", commands[name].format_usage())
    near = difflib.get_close_matches(option, options, n=1)
    if not near and name in TAKES_FIELDS and option.startswith("-"):
        from fastwhisper_jax.config.recipe import near_field

        near = [f"--{field}" for field in [near_field(option.lstrip("-"))] if field]
    hint = f"did you mean {near[0]}?" if near else f"see fastwhisper {name} --help"
    return f"{name} takes no {option!r}; {hint}"


def _fields_epilog(arguments: Sequence[str]) -> str:
    from fastwhisper_jax.config import Config
    from fastwhisper_jax.config.recipe import field_help, load_recipe

    recipe = next((Path(a) for a in arguments if a.endswith(".py")), None)
    config = load_recipe(recipe) if recipe else Config()
    source = f"value in {recipe}" if recipe else "default"
    return (
        f"\nfields of a recipe, with their type and [{source}]; lengths are updates as int (100), "
        f"fractions of the run as float (0.5):\n{field_help(config)}\n"
    )


def _train(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from fastwhisper_jax.config.recipe import load_recipe, override

    config = override(load_recipe(options.recipe), overrides)
    _quiet()
    from fastwhisper_jax.commands import train
    from fastwhisper_jax.files import path_of
    from fastwhisper_jax.training import distributed as processes

    processes.join()
    with processes.ended_together(), interrupt_leaves(RESUMABLE):
        train.run(config, path_of(options.run_dir), _say)
    return DONE


def _evaluate(options: argparse.Namespace, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import evaluate

    chosen = {
        name: value for name, value in vars(options).items() if name not in ("run", "command")
    }
    report = evaluate.run(evaluate.Options(**chosen))
    _say(evaluate.summary(report, options.report))
    return DONE


def _export(options: argparse.Namespace, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import export
    from fastwhisper_jax.files import path_of

    run_dir = path_of(options.run_dir)
    for line in export.run(run_dir, options.out, options.step, options.dtype):
        _say(line)
    return DONE


def _plan(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from fastwhisper_jax.config.recipe import load_recipe, override

    config = override(load_recipe(options.recipe), overrides)
    _quiet()
    # It compiles for a slice and runs on none, though it may have TPUs of its own.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from fastwhisper_jax.commands import plan as plan_command

    names = [field.name for field in dataclasses.fields(plan_command.Options)]
    chosen = plan_command.Options(**{name: getattr(options, name) for name in names})
    return DONE if plan_command.run(config, chosen, _say) else FAILED


def _demo(options: argparse.Namespace, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import demo

    demo.run(options.out, _say)
    return DONE


def _plot(options: argparse.Namespace, _: Sequence[str]) -> int:
    from fastwhisper_jax.commands import plot
    from fastwhisper_jax.files import path_of

    plot.run([path_of(run_dir) for run_dir in options.run_dirs], options.out)
    _say(f"written: {options.out}")
    return DONE


def _transcribe(options: argparse.Namespace, _: Sequence[str]) -> int:
    _quiet()
    from fastwhisper_jax.commands import transcribe

    with interrupt_leaves(WHOLE_FILES):
        done = transcribe.run(transcribe_arguments.options_from(options), _say)
    return DONE if done else FAILED


def _prepare(options: argparse.Namespace, _: Sequence[str]) -> int:
    from fastwhisper_jax.commands import prepare

    with interrupt_leaves(RESUMABLE):
        done = prepare.run(prepare_arguments.options_from(options), _say)
    return DONE if done else FAILED


def _quiet() -> None:
    """Keeps libraries from printing what a user of this command cannot act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "plan": _plan,
    "demo": _demo,
    "plot": _plot,
    "transcribe": _transcribe,
    "prepare": _prepare,
}
