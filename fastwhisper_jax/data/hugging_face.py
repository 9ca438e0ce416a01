"""Reads Hugging Face data sets: folders saved by `datasets`, parquet files, and ids on the hub."""

import collections
import functools
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from fastwhisper_jax.audio.files import EmbeddedAudio
from fastwhisper_jax.data.manifest import Dropped, Utterance, check_seconds
from fastwhisper_jax.errors import InputError

TEXT_COLUMNS = ("text", "sentence", "transcription")

T = TypeVar("T")

# The words that mark a split in the name of a file or folder, as on the hub.
_SPLIT_WORDS = frozenset(
    ("train", "training", "validation", "valid", "val", "dev")
    + ("test", "testing", "eval", "evaluation")
)
# The hub's names for the numbered files of a split.
_NUMBERED = re.compile(r"(.+)-\d{5}-of-\d{5}")


def read_local(path: Path, split: str | None, name: str) -> tuple[list[Utterance], list[Dropped]]:
    """Reads a parquet file, a folder that `datasets` saved, or a folder of parquet files.

    Args:
        path: on a local disk.
        split: which split to read; None if the data set has only one.
        name: what the user called the data set. Rows without an id are named after it.

    Returns:
        The utterances, and the rows that cannot be used.

    Raises:
        InputError: there is no data set or no such split, or it cannot be read.
    """
    datasets = _import_datasets()
    remedy = "it must be parquet or a folder saved by datasets: make it again"
    if any((path / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")):
        with _errors_in_one_line(f"{path} cannot be read as a data set", remedy):
            dataset = datasets.load_from_disk(str(path))
        return _utterances(_one_split(dataset, split, str(path)), name)
    files = [path] if path.is_file() else _parquet_files(path, split)
    with _errors_in_one_line(f"{files[0]} cannot be read as a data set", remedy):
        dataset = datasets.Dataset.from_parquet([str(file) for file in files])
    return _utterances(dataset, name)


def read_hub(hub_id: str, split: str | None) -> tuple[list[Utterance], list[Dropped]]:
    """Reads a data set of the Hugging Face hub.

    Args:
        hub_id: such as "owner/name".
        split: which split to read; None if the data set has only one.

    Returns:
        The utterances, and the rows that cannot be used.

    Raises:
        InputError: there is no data set with this id or no such split, or it cannot be read.
    """
    datasets = _import_datasets()
    fault = (
        f"{hub_id} is not a local path, and no data set of that id could be loaded from the "
        "Hugging Face hub"
    )
    with _errors_in_one_line(fault, "correct the path or the id, or check the network"):
        dataset = datasets.load_dataset(hub_id, split=split)
    return _utterances(_one_split(dataset, split, hub_id), hub_id)


def split_name(file: Path) -> str | None:
    """Tells from its name or folder which split a parquet file belongs to.

    The rules are the hub's. A word such as "train" or "test" names a split. In the name of a
    numbered file, such as clean-00000-of-00002.parquet, the text before the numbers names it.

    Args:
        file: path relative to the folder of the data set.

    Returns:
        The split; None if neither the name nor a folder says.
    """
    numbered = _NUMBERED.fullmatch(file.stem)
    if numbered and _split_word(numbered[1]):
        return numbered[1]
    for part in (file.stem, *reversed(file.parent.parts)):
        if word := _split_word(part):
            return word
    return numbered[1] if numbered else None


def _split_word(name: str) -> str | None:
    return next((word for word in re.split("[^a-z]+", name.lower()) if word in _SPLIT_WORDS), None)


def _import_datasets() -> ModuleType:
    import datasets  # imported late because it takes 1 s

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


@contextmanager
def _errors_in_one_line(fault: str, remedy: str) -> Iterator[None]:
    """Turns the errors of datasets, arrow and the network, which have many classes, into one."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{fault} ({type(error).__name__}: {reason}); {remedy}") from error


def _parquet_files(folder: Path, split: str | None) -> list[Path]:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise InputError(
            f"folder {folder} holds no data set; it must be one that datasets saved to disk, or "
            "hold parquet files: give the manifest (.jsonl) itself, or correct the path"
        )
    splits = collections.defaultdict[str | None, list[Path]](list)
    for file in files:
        splits[split_name(file.relative_to(folder))].append(file)
    return _choose_split(splits, split, str(folder))


def _one_split(dataset: Any, split: str | None, name: str) -> Any:
    """The split of a `DatasetDict`, which is a dict; a data set without splits as it is."""
    return _choose_split(dataset, split, name) if isinstance(dataset, dict) else dataset


def _choose_split(splits: Mapping[Any, T], split: str | None, name: str) -> T:
    """Returns the split of that name, or the only one. The key None holds files of no split."""
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    named = [key for key in splits if key is not None]
    if split is not None and split in named:
        return splits[split]
    held = f"has the splits {', '.join(named)}" if named else "holds files of no split"
    if named and None in splits:
        held += " and files of none"
    if split is not None:
        raise InputError(f"{name} {held}, and split is {split!r}; name a split that it has")
    example = "train" if "train" in named else next(iter(named), "NAME")
    raise InputError(
        f"{name} {held}; only one can be read at a time: make one a folder of its own with "
        f"fastwhisper prepare {shlex.quote(name)} --split {example} --out DIR, and give DIR"
    )


def _utterances(dataset: Any, name: str) -> tuple[list[Utterance], list[Dropped]]:
    """Makes utterances of the rows of a data set.

    Args:
        dataset: a `datasets.Dataset`.
        name: what the user called it.

    Returns:
        The utterances, and the rows that cannot be used.

    Raises:
        InputError: there is no audio column or no row, or a column has a wrong type.
    """
    datasets = _import_datasets()
    columns = dataset.column_names
    if "audio" not in columns:
        raise InputError(
            f"{name} has the columns {', '.join(columns)}; it must have one named audio: rename it"
        )
    if not len(dataset):
        raise InputError(f"{name} is empty; it must hold at least one utterance")
    if isinstance(dataset.features["audio"], datasets.Audio):
        # Do not let datasets decode the audio: it needs torch for that.
        dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    audio = dataset.select_columns(["audio"])
    text = next((column for column in TEXT_COLUMNS if column in columns), TEXT_COLUMNS[0])
    values: dict[str, list[Any]] = collections.defaultdict(lambda: [None] * len(dataset))
    for column in ("id", "language", "duration", text):
        if column is not None and column in columns:
            values[column] = _column(dataset, column, name)
    usable, faults = list[Utterance](), list[Dropped]()
    for row in range(len(dataset)):
        where = f"{name} row {row}"
        row_id = str(values["id"][row]) if values["id"][row] is not None else f"{name}:{row}"
        try:
            duration = check_seconds(values["duration"][row], "duration", where, is_length=True)
        except InputError as error:
            faults.append(Dropped(row_id, str(error)))
            continue
        usable.append(
            Utterance(
                id=row_id,
                audio=EmbeddedAudio(where, functools.partial(_read_row, audio, row)),
                text=values[text][row],
                language=values["language"][row],
                duration=duration,
            )
        )
    return usable, faults


def _column(dataset: Any, column: str, name: str) -> list[Any]:
    """The values of a column, whose type must fit its name."""
    feature = dataset.features[column]
    kind = str(getattr(feature, "dtype", feature))
    is_number = kind.startswith(("int", "uint", "float"))
    wanted = "a number of seconds" if column == "duration" else "text"
    if column != "id" and not (is_number if column == "duration" else "string" in kind):
        raise InputError(
            f"{name}: column {column} holds {kind}; it must be {wanted}: convert or rename it"
        )
    try:
        return list(dataset[column][:])
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: column {column} holds text that is not UTF-8 ({error.reason}); it must be: "
            "write the data set again"
        ) from error


def _read_row(dataset: Any, row: int) -> bytes:
    """The encoded bytes of a row, which holds either the bytes or the path of a file."""
    audio = dataset[row]["audio"]
    content = audio if isinstance(audio, dict) else {"path": audio}
    if content.get("bytes"):
        return content["bytes"]
    path = content.get("path")
    if not path or not Path(path).is_file():
        raise InputError(
            f"audio of row {row} holds no bytes, and its file {path} does not exist; it must have "
            "one of the two: save the data set with its audio embedded"
        )
    return Path(path).read_bytes()
