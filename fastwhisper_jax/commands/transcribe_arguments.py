"""Arguments of `fastwhisper transcribe`; imports nothing that is slow, so that help is quick."""

import argparse
import dataclasses
from pathlib import Path

from fastwhisper_jax.commands.local_path import local_path

SUMMARY = "transcribe recordings of any length, with times"
EXAMPLE = "fastwhisper transcribe my-student talk.flac interview.mp3 --format srt --out subtitles/"
CUTS = ("timestamps", "pauses")
FORMATS = ("txt", "json", "srt", "vtt")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command, as `--help` describes them."""

    model: str
    files: tuple[str, ...]
    format: str = "txt"
    out: Path | None = None
    language: str | None = None
    task: str = "transcribe"
    word_timestamps: bool = False
    cut: str | None = None
    previous_text: bool = True
    fallback: bool = True
    beam: int = 1
    batch_size: int = 8
    max_new_tokens: int = 224
    dtype: str = "float32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="Hugging Face folder or hub id")
    add("files", nargs="+", metavar="FILE", help="audio: wav, flac, ogg, opus, mp3, ...")
    add(
        "--format",
        choices=FORMATS,
        default="txt",
        help="json, srt and vtt hold times; default: txt",
    )
    add(
        "--out",
        type=local_path,
        metavar="DIR",
        help="one file each, NAME.FORMAT, into this folder; default: to standard output",
    )
    add("--language", metavar="L", help='such as "en" or "english"; default: detected in each file')
    add(
        "--task",
        choices=("transcribe", "translate"),
        default="transcribe",
        help="translate: into English; default: transcribe",
    )
    add(
        "--word-timestamps",
        action="store_true",
        help="times of words: in json beside each segment's text, in srt and vtt a cue for each",
    )
    add(
        "--cut",
        choices=CUTS,
        help="where windows end: at timestamps that the model writes, or at pauses, with what is "
        "between them decoded plainly; default: what the model was trained for",
    )
    add(
        "--no-previous-text",
        dest="previous_text",
        action="store_false",
        help="do not show a window the text before it (never done where windows end at pauses): "
        "less consistent, recovers from repetition",
    )
    add(
        "--no-fallback",
        dest="fallback",
        action="store_false",
        help="do not decode repetitive or unsure windows again at higher temperatures",
    )
    add(
        "--beam",
        type=int,
        default=1,
        metavar="N",
        help="hypotheses searched at a time: slower, a little better; default: 1, greedy decoding",
    )
    add(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="files at a time, a window of each; default: 8",
    )
    add(
        "--max-new-tokens",
        type=int,
        default=224,
        metavar="N",
        help="most tokens a window; default: 224",
    )
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")


def options_from(namespace: argparse.Namespace) -> Options:
    """The parsed arguments."""
    names = {field.name for field in dataclasses.fields(Options)}
    chosen = {name: value for name, value in vars(namespace).items() if name in names}
    return Options(**chosen | {"files": tuple(namespace.files)})
