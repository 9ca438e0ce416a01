"""The command `fastwhisper`: parse, call, print. Commands are imported only when they run."""

import argparse
import dataclasses
import difflib
import os
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fastwhisper_jax.commands import prepare_arguments, transcribe_arguments
from fastwhisper_jax.errors import DONE, FAILED, FORESEEN, InputError, exit_of

# Commands that also take the fields of a recipe.
TAKES_FIELDS = ("train", "plan")

EXAMPLE = """
example:
  fastwhisper train configs/askd_base_en.py --run-dir runs/askd \\
      --teacher.path openai/whisper-base --data.train train.jsonl --data.eval test.jsonl
  fastwhisper export runs/askd --out my-student
  fastwhisper evaluate my-student --data test.jsonl
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


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
    print(line, flush=True)


def _dispatch(arguments: Sequence[str]) -> int:
    parser, commands = _parser()
    if not arguments:
        parser.print_help()
        raise InputError(f"no command is given; choose one of {', '.join(commands)}")
    name, overrides = arguments[0], list[str]()
    if name not in commands and not name.startswith("-"):
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(commands)}"
        raise InputError(f"no command {name!r}; {hint}")
    if name in TAKES_FIELDS:
        from fastwhisper_jax.recipe import split_overrides

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
        from fastwhisper_jax.recipe import near_field

        near = [f"--{field}" for field in [near_field(option.lstrip("-"))] if field]
    hint = f"did you mean {near[0]}?" if near else f"see fastwhisper {name} --help"
    return f"{name} takes no {option!r}; {hint}"


def _fields_epilog(arguments: Sequence[str]) -> str:
    from fastwhisper_jax.config import Config
    from fastwhisper_jax.recipe import field_help, load_recipe

    recipe = next((Path(a) for a in arguments if a.endswith(".py")), None)
    config = load_recipe(recipe) if recipe else Config()
    source = f"value in {recipe}" if recipe else "default"
    return (
        f"\nfields of a recipe, with their type and [{source}]; lengths are updates as int (100), "
        f"fractions of the run as float (0.5):\n{field_help(config)}\n"
    )


def _train(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from fastwhisper_jax.recipe import load_recipe, override

    config = override(load_recipe(options.recipe), overrides)
    _quiet()
    from fastwhisper_jax.commands import train
    from fastwhisper_jax.files import path_of
    from fastwhisper_jax.training import processes

    processes.join()
    with processes.ended_together():
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
    from fastwhisper_jax.recipe import load_recipe, override

    config = override(load_recipe(options.recipe), overrides)
    _quiet()
    # It compiles for a slice and runs on none, though it may have TPUs of its own.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from fastwhisper_jax.commands import plan_command

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

    return DONE if transcribe.run(transcribe_arguments.options_from(options), _say) else FAILED


def _prepare(options: argparse.Namespace, _: Sequence[str]) -> int:
    from fastwhisper_jax.commands import prepare

    return DONE if prepare.run(prepare_arguments.options_from(options), _say) else FAILED


def _quiet() -> None:
    """Keeps libraries from printing what a user of this command cannot act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _parser() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    parser = Parser(
        prog="fastwhisper",
        description="Distil Whisper into a small, fast student, kept as Hugging Face weights.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="example:\n" + textwrap.indent(textwrap.dedent(example).strip(), "  ") + "\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    train = add(
        "train",
        "distil a student by a recipe; the same command goes on after an interruption",
        """
        fastwhisper train configs/askd_base_en.py --run-dir runs/askd \\
            --teacher.path openai/whisper-base --data.train train.jsonl --data.eval test.jsonl
        """,
    )
    train.add_argument("recipe", type=Path, metavar="RECIPE.py", help="a recipe, see configs/")
    train.add_argument(
        "--run-dir",
        required=True,
        metavar="RUN",
        help="folder of the run, made if absent; may be gs://BUCKET/FOLDER",
    )
    train.usage = "fastwhisper train RECIPE.py --run-dir RUN [--section.field VALUE ...]"
    train.set_defaults(run=_train)

    evaluate = add(
        "evaluate",
        "transcribe a data set with a model and report error rates and speed",
        "fastwhisper evaluate my-student --data test.jsonl --report report.json",
    )
    evaluate.add_argument("model", metavar="MODEL", help="Hugging Face folder or hub id")
    evaluate.add_argument("--data", required=True, metavar="MANIFEST", help="manifest or data set")
    evaluate.add_argument(
        "--report", type=Path, metavar="OUT.json", help="where to write the report"
    )
    evaluate.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    evaluate.add_argument("--limit", type=int, metavar="N", help="only the first N utterances")
    evaluate.add_argument(
        "--max-new-tokens",
        type=int,
        default=224,
        metavar="N",
        help="most tokens a text; default: 224",
    )
    evaluate.add_argument(
        "--beam",
        type=int,
        default=1,
        metavar="N",
        help="hypotheses searched at a time; default: 1, greedy decoding",
    )
    evaluate.add_argument(
        "--normalizer",
        choices=("english", "basic", "digits", "none"),
        help="of both sides before scoring; default: english for English, else basic",
    )
    evaluate.add_argument(
        "--strip-diacritics", action="store_true", help="drop accents on both sides"
    )
    evaluate.add_argument(
        "--language", default="en", help="of utterances that name none; default: en"
    )
    evaluate.add_argument("--task", choices=("transcribe", "translate"), default="transcribe")
    evaluate.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    evaluate.set_defaults(run=_evaluate)

    export = add(
        "export",
        "write a run's student as Hugging Face weights (PyTorch and Flax)",
        "fastwhisper export runs/askd --out my-student",
    )
    export.add_argument("run_dir", metavar="RUN", help="folder of a run")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    export.add_argument(
        "--step", type=int, metavar="N", help="checkpoint; default: the newest good one"
    )
    export.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights; default: float32",
    )
    export.set_defaults(run=_export)

    plan = add(
        "plan",
        "compile a recipe for a TPU slice that need not be there (needs the extra plan): memory, "
        "work, roofline",
        "fastwhisper plan configs/askd_large_v3.py --topology v5e:4x4 --report plan.json",
    )
    plan.add_argument("recipe", type=Path, metavar="RECIPE.py", help="a recipe, see configs/")
    plan.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="generation and shape of the slice: v5e:2x4, v4:2x2x2",
    )
    plan.add_argument(
        "--batch-size", type=int, metavar="N", help="global batch; default: the recipe's"
    )
    plan.add_argument(
        "--target-tokens",
        type=int,
        metavar="T",
        help="length of the labels; default: the recipe's longest bucket",
    )
    plan.add_argument("--report", type=Path, metavar="OUT.json", help="where to write the report")
    plan.usage = "fastwhisper plan RECIPE.py --topology NAME [--section.field VALUE ...]"
    plan.set_defaults(run=_plan)

    demo = add(
        "demo",
        "all of it in minutes, offline (needs the extra demo)",
        "fastwhisper demo --out demo/",
    )
    folder, about = Path("fastwhisper-demo"), "empty or new folder; default: fastwhisper-demo"
    demo.add_argument("--out", type=Path, default=folder, metavar="DIR", help=about)
    demo.set_defaults(run=_demo)

    plot = add(
        "plot",
        "draw losses, weights, learning rate and error rates of runs (needs the extra plot)",
        "fastwhisper plot runs/askd runs/distil --out runs.png",
    )
    plot.add_argument("run_dirs", nargs="+", metavar="RUN", help="folder of a run")
    plot.add_argument("--out", type=Path, required=True, metavar="FILE", help=".png, .svg or .pdf")
    plot.set_defaults(run=_plot)

    transcribe = add("transcribe", transcribe_arguments.SUMMARY, transcribe_arguments.EXAMPLE)
    transcribe_arguments.add_arguments(transcribe)
    transcribe.set_defaults(run=_transcribe)

    prepare = add("prepare", prepare_arguments.SUMMARY, prepare_arguments.EXAMPLE)
    prepare_arguments.add_arguments(prepare)
    prepare.set_defaults(run=_prepare)
    return parser, dict(commands.choices)
