"""Arguments of `fastwhisper prepare`; imports nothing that is slow, so that help is quick."""

import argparse
import dataclasses

SUMMARY = "convert data once to checksummed shards of FLAC that training reads from anywhere"
EXAMPLE = "fastwhisper prepare train.jsonl --out gs://bucket/speech --workers 16"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command, as `--help` describes them."""

    sources: tuple[str, ...]
    out: str
    workers: int | None = None
    shard_seconds: float = 1800.0
    max_seconds: float = 30.0
    split: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = parser.add_argument
    add("sources", nargs="+", metavar="M", help="manifest or data set")
    add("--out", required=True, metavar="DIR", help="folder to make or complete; may be gs://")
    add("--workers", type=int, metavar="N", help="processes; default: one a processor")
    add(
        "--shard-seconds",
        type=float,
        default=1800.0,
        metavar="S",
        help="of audio in a shard; default: 1800",
    )
    add(
        "--max-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="longer utterances are left out; default: 30",
    )
    add("--split", metavar="NAME", help="of a data set that has several, such as train")


def options_from(namespace: argparse.Namespace) -> Options:
    """The parsed arguments."""
    names = {field.name for field in dataclasses.fields(Options)}
    chosen = {name: value for name, value in vars(namespace).items() if name in names}
    return Options(**chosen | {"sources": tuple(namespace.sources)})
