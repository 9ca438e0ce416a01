"""The arguments of every command. Nothing slow is imported here, so help answers at once.

Each command has a frozen dataclass, whose docstring is its help. A field is annotated with its
type, its name in the help, and what it means. Positional fields are positional arguments;
keyword-only fields are options. A flag that is true by default is turned off by --no-NAME.
"""

import dataclasses
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Annotated, Any, Literal

from fastwhisper_jax.errors import InputError

Task = Literal["transcribe", "translate"]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Distil a student by a recipe; the same command goes on after an interruption.

    example:
      fastwhisper train configs/askd_base_en.py --run-dir runs/askd \\
          --teacher.path openai/whisper-base --data.train train.jsonl --data.eval test.jsonl
    """

    recipe: Annotated[str, "RECIPE.py", "a recipe, see configs/"]
    _: KW_ONLY
    run_dir: Annotated[str, "RUN", "folder of the run, made if absent; may be gs://BUCKET/FOLDER"]


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Transcribe a data set with a model and report error rates and speed.

    example:
      fastwhisper evaluate my-student --data test.jsonl --report report.json
    """

    model: Annotated[str, "MODEL", "Hugging Face folder or hub id"]
    _: KW_ONLY
    data: Annotated[str, "MANIFEST", "manifest or data set"]
    report: Annotated[Path | None, "OUT.json", "where to write the report"] = None
    batch_size: Annotated[int, "N", "utterances decoded together"] = 8
    limit: Annotated[int | None, "N", "only the first N utterances"] = None
    max_new_tokens: Annotated[int, "N", "the most tokens of a text"] = 224
    window: Annotated[
        float | None, "SECONDS", "hear everything in this one of the model's windows"
    ] = None
    beam: Annotated[int, "N", "hypotheses searched together; 1 is greedy decoding"] = 1
    normalizer: Annotated[
        Literal["english", "basic", "digits", "none"] | None,
        None,
        "applied to both sides before scoring; default: english for English texts and "
        "translations, else basic",
    ] = None
    strip_diacritics: Annotated[bool, None, "drop accents on both sides"] = False
    language: Annotated[str, "LANGUAGE", "language of utterances that name none"] = "en"
    task: Annotated[Task, None, "translate: into English"] = "transcribe"
    dtype: Annotated[Dtype, None, "dtype to compute in"] = "float32"

    def __post_init__(self) -> None:
        _check_counts(self, "batch_size", "limit", "max_new_tokens", "beam")


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write a run's student as Hugging Face weights (PyTorch and Flax).

    example:
      fastwhisper export runs/askd --out my-student
    """

    run_dir: Annotated[str, "RUN", "folder of a run"]
    _: KW_ONLY
    out: Annotated[Path, "DIR", "folder to write"]
    step: Annotated[int | None, "N", "checkpoint; default: the newest good one"] = None
    best: Annotated[
        bool,
        None,
        "the checkpoint that training.keep_best has kept, with the weights of that metric: of "
        "ema/... the EMA's, else the student's",
    ] = False
    ema: Annotated[bool, None, "the EMA of the student, where the run's self teacher is one"] = (
        False
    )
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], None, "dtype of the weights"] = (
        "float32"
    )

    def __post_init__(self) -> None:
        for option, is_given in (("--step", self.step is not None), ("--ema", self.ema)):
            if self.best and is_given:
                raise InputError(
                    f"--best chooses the checkpoint and its weights, and {option} is given too; "
                    "give one of them"
                )


@dataclasses.dataclass(frozen=True)
class PlanArguments:
    """Compile a recipe for a TPU slice that need not be there (needs the extra plan).

    It prints the memory, the work and the roofline of every phase of a run.

    example:
      fastwhisper plan configs/askd_large_v3.py --topology v5e:4x4 --report plan.json
    """

    recipe: Annotated[str, "RECIPE.py", "a recipe, see configs/"]
    _: KW_ONLY
    topology: Annotated[str, "NAME", "generation and shape of the slice: v5e:2x4, v4:2x2x2"]
    slices: Annotated[int, "N", "number of slices, joined by the data centre's network"] = 1
    batch_size: Annotated[int | None, "N", "global batch size; default: the recipe's"] = None
    target_tokens: Annotated[
        int | None, "T", "length of the labels; default: the recipe's longest bucket"
    ] = None
    window: Annotated[
        float | None, "SECONDS", "one of the student's windows; default: its longest"
    ] = None
    report: Annotated[Path | None, "OUT.json", "where to write the report"] = None
    steps_only: Annotated[
        bool, None, "leave out the largest batch and decoding, which take half of the time"
    ] = False


@dataclasses.dataclass(frozen=True)
class DemoArguments:
    """Run the whole job in minutes, offline (needs the extra demo).

    example:
      fastwhisper demo --out demo/
    """

    _: KW_ONLY
    out: Annotated[Path, "DIR", "empty or new folder"] = Path("fastwhisper-demo")


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draw losses, weights, learning rate and error rates of runs (needs the extra plot).

    example:
      fastwhisper plot runs/askd runs/distil --out runs.png
    """

    run_dirs: Annotated[tuple[str, ...], "RUN", "folder of a run"]
    _: KW_ONLY
    out: Annotated[Path, "FILE", "picture to write: .png, .svg or .pdf"]


@dataclasses.dataclass(frozen=True)
class TranscribeArguments:
    """Transcribe recordings of any length, with times.

    example:
      fastwhisper transcribe my-student talk.flac interview.mp3 --format srt --out subtitles/
    """

    model: Annotated[str, "MODEL", "Hugging Face folder or hub id"]
    files: Annotated[tuple[str, ...], "FILE", "audio: wav, flac, ogg, opus, mp3, ..."]
    _: KW_ONLY
    format: Annotated[
        Literal["txt", "json", "srt", "vtt"], None, "json, srt and vtt hold times"
    ] = "txt"
    out: Annotated[
        Path | None,
        "DIR",
        "folder that gets one file each, NAME.FORMAT; default: print to standard output",
    ] = None
    language: Annotated[
        str | None, "L", 'such as "en" or "english"; default: detected in each file'
    ] = None
    task: Annotated[Task, None, "translate: into English"] = "transcribe"
    word_timestamps: Annotated[
        bool,
        None,
        "times of words: json gets them beside the text of each segment, srt and vtt get a cue "
        "for each word",
    ] = False
    cut: Annotated[
        Literal["timestamps", "pauses"] | None,
        None,
        "where windows end: at timestamps that the model writes, or at pauses, with the speech "
        "between them decoded without timestamps; default: what the model was trained for",
    ] = None
    previous_text: Annotated[
        bool,
        None,
        "do not show the model the text before a window: the result is less consistent, but "
        "repetition ends sooner (windows that end at pauses never see it)",
    ] = True
    fallback: Annotated[
        bool, None, "do not decode repetitive or unsure windows again at higher temperatures"
    ] = True
    window: Annotated[
        float | None, "SECONDS", "hear everything in this one of the model's windows"
    ] = None
    beam: Annotated[
        int, "N", "hypotheses searched together: slower, a little better; 1 is greedy decoding"
    ] = 1
    batch_size: Annotated[int, "N", "files decoded together, one window of each"] = 8
    max_new_tokens: Annotated[int, "N", "the most tokens of a window"] = 224
    dtype: Annotated[Dtype, None, "dtype to compute in"] = "float32"

    def __post_init__(self) -> None:
        _check_counts(self, "beam", "batch_size", "max_new_tokens")


@dataclasses.dataclass(frozen=True)
class PrepareArguments:
    """Convert data once to checksummed shards of FLAC that training reads from anywhere.

    example:
      fastwhisper prepare train.jsonl --out gs://bucket/speech --workers 16
    """

    sources: Annotated[tuple[str, ...], "M", "manifest or data set"]
    _: KW_ONLY
    out: Annotated[str, "DIR", "folder to make or complete; may be gs://BUCKET/FOLDER"]
    workers: Annotated[int | None, "N", "processes; default: one for each processor"] = None
    shard_seconds: Annotated[float, "S", "seconds of audio in a shard"] = 1800.0
    max_seconds: Annotated[float, "S", "longer utterances are left out"] = 30.0
    split: Annotated[str | None, "NAME", "split of a data set that has several, such as train"] = (
        None
    )


def _check_counts(arguments: Any, *names: str) -> None:
    """Checks that options are counts of at least 1, where they are given.

    Raises:
        InputError: names the first option that is not.
    """
    for name in names:
        count = getattr(arguments, name)
        if count is not None and count < 1:
            raise InputError(f"--{name.replace('_', '-')} {count} must be at least 1")
