"""The arguments of every command; imports nothing that is slow, so that help is quick."""

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from fastwhisper_jax.commands import prepare_arguments, transcribe_arguments
from fastwhisper_jax.commands.local_path import local_path
from fastwhisper_jax.errors import InputError

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


def make_parser(
    run: Mapping[str, Callable[[argparse.Namespace, Sequence[str]], int]],
) -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each command by name.

    Args:
        run: what carries out each command, given its arguments and a recipe's overrides; it becomes
            the attribute `run` of what is parsed.
    """
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
    train.set_defaults(run=run["train"])

    evaluate = add(
        "evaluate",
        "transcribe a data set with a model and report error rates and speed",
        "fastwhisper evaluate my-student --data test.jsonl --report report.json",
    )
    evaluate.add_argument("model", metavar="MODEL", help="Hugging Face folder or hub id")
    evaluate.add_argument("--data", required=True, metavar="MANIFEST", help="manifest or data set")
    evaluate.add_argument(
        "--report", type=local_path, metavar="OUT.json", help="where to write the report"
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
        help="of both sides before scoring; default: english for English texts and translations, "
        "else basic",
    )
    evaluate.add_argument(
        "--strip-diacritics", action="store_true", help="drop accents on both sides"
    )
    evaluate.add_argument(
        "--language", default="en", help="of utterances that name none; default: en"
    )
    evaluate.add_argument("--task", choices=("transcribe", "translate"), default="transcribe")
    evaluate.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    evaluate.set_defaults(run=run["evaluate"])

    export = add(
        "export",
        "write a run's student as Hugging Face weights (PyTorch and Flax)",
        "fastwhisper export runs/askd --out my-student",
    )
    export.add_argument("run_dir", metavar="RUN", help="folder of a run")
    export.add_argument(
        "--out", type=local_path, required=True, metavar="DIR", help="folder to write"
    )
    export.add_argument(
        "--step", type=int, metavar="N", help="checkpoint; default: the newest good one"
    )
    export.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights; default: float32",
    )
    export.set_defaults(run=run["export"])

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
        "--slices",
        type=int,
        default=1,
        metavar="N",
        help="so many of them, joined by the data centre's network; default: 1",
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
    plan.add_argument(
        "--report", type=local_path, metavar="OUT.json", help="where to write the report"
    )
    plan.add_argument(
        "--steps-only",
        action="store_true",
        help="neither the largest batch nor decoding: half of the time",
    )
    plan.usage = "fastwhisper plan RECIPE.py --topology NAME [--section.field VALUE ...]"
    plan.set_defaults(run=run["plan"])

    demo = add(
        "demo",
        "all of it in minutes, offline (needs the extra demo)",
        "fastwhisper demo --out demo/",
    )
    folder, about = Path("fastwhisper-demo"), "empty or new folder; default: fastwhisper-demo"
    demo.add_argument("--out", type=local_path, default=folder, metavar="DIR", help=about)
    demo.set_defaults(run=run["demo"])

    plot = add(
        "plot",
        "draw losses, weights, learning rate and error rates of runs (needs the extra plot)",
        "fastwhisper plot runs/askd runs/distil --out runs.png",
    )
    plot.add_argument("run_dirs", nargs="+", metavar="RUN", help="folder of a run")
    plot.add_argument(
        "--out", type=local_path, required=True, metavar="FILE", help=".png, .svg or .pdf"
    )
    plot.set_defaults(run=run["plot"])

    transcribe = add("transcribe", transcribe_arguments.SUMMARY, transcribe_arguments.EXAMPLE)
    transcribe_arguments.add_arguments(transcribe)
    transcribe.set_defaults(run=run["transcribe"])

    prepare = add("prepare", prepare_arguments.SUMMARY, prepare_arguments.EXAMPLE)
    prepare_arguments.add_arguments(prepare)
    prepare.set_defaults(run=run["prepare"])
    return parser, dict(commands.choices)
