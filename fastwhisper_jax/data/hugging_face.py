"""Hugging Face data sets as utterances: saved folders, parquet files and ids on the hub."""

import collections
import functools
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from fastwhisper_jax.audio.files import EmbeddedAudio
from fastwhisper_jax.data.manifest import Dropped, Utterance, check_seconds
from fastwhisper_jax.errors import InputError

TEXT_COLUMNS = ("text", "sentence", "transcription")

T = TypeVar("T")

# The words by which the hub knows a split in the name of a file or folder.
_SPLIT_WORDS = frozenset(
    ("train", "training", "validation", "valid", "val", "dev")
    + ("test", "testing", "eval", "evaluation")
)
# How the hub numbers the files of a split.
_NUMBERED = re.compile(r"(.+)-\d{5}-of-\d{5}")


def read_local(path: Path, split: str | None, name: str) -> tuple[list[Utterance], list[Dropped]]:
    """Reads a parquet file, or a folder that `datasets` saved to disk or that holds parquet files.

    Args:
        path: on a local disk.
        split: of a data set that has several; None where it has one.
        name: what the user called it; rows without an id are named after it.

    Returns:
        The utterances, and the rows that are none.

    Raises:
        InputError: it holds no data set or not this split, or cannot be read.
    """
    return _utterances(_local_dataset(path, split), name)


def read_hub(hub_id: str, split: str | None) -> tuple[list[Utterance], list[Dropped]]:
    """Reads a data set of the Hugging Face hub.

    Args:
        hub_id: such as "owner/name".
        split: of a data set that has several; None where it has one.

    Returns:
        The utterances, and the rows that are none.

    Raises:
        InputError: there is none of that id, it has not this split, or it cannot be read.
    """
    return _utterances(_hub_dataset(hub_id, split), hub_id)


def split_name(file: Path) -> str | None:
    """The split that a parquet file is part of by its name or folder; None where neither says.

    As on the hub, a word such as "train" or "test" in a name is a split's, and whatever stands
    before the numbers of a file such as clean-00000-of-00002.parquet.

    Args:
        file: relative to the data set's folder.
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


def _local_dataset(path: Path, split: str | None) -> Any:
    datasets = _datasets()

    try:
        if path.is_file():
            return _parquet([path])
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return _one_split(datasets.load_from_disk(str(path)), split, str(path))
        files = sorted(path.rglob("*.parquet"))
    except InputError:
        raise
    except Exception as error:  # arrow's and datasets' own errors are many
        raise InputError(_unreadable(str(path), error)) from error
    if not files:
        raise InputError(
            f"folder {path} holds no data set; it must be one that datasets saved to disk, or hold "
            "parquet files: give the manifest (.jsonl) itself, or correct the path"
        )
    splits = collections.defaultdict[str | None, list[Path]](list)
    for file in files:
        splits[split_name(file.relative_to(path))].append(file)
    return _parquet(_chosen(splits, split, str(path)))


def _parquet(files: Sequence[Path]) -> Any:
    datasets = _datasets()

    try:
        return datasets.Dataset.from_parquet([str(file) for file in files])
    except Exception as error:  # arrow's and datasets' own errors are many
        raise InputError(_unreadable(str(files[0]), error)) from error


def _hub_dataset(hub_id: str, split: str | None) -> Any:
    datasets = _datasets()

    try:
        return _one_split(datasets.load_dataset(hub_id, split=split), split, hub_id)
    except InputError:
        raise
    except Exception as error:  # network, authorisation, parsing: many classes
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{hub_id} is no local path, and no data set of that id could be loaded from the "
            f"Hugging Face hub ({type(error).__name__}: {reason}); correct the path or the id, or "
            "check the network"
        ) from error


def _datasets() -> ModuleType:
    import datasets  # 1 s to import: only for those who read data sets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _one_split(dataset: Any, split: str | None, name: str) -> Any:
    datasets = _datasets()

    is_divided = isinstance(dataset, datasets.DatasetDict)
    return _chosen(dataset, split, name) if is_divided else dataset


def _chosen(splits: Mapping[Any, T], split: str | None, name: str) -> T:
    """The split of that name, or the only one; what belongs to no split has the name None."""
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
    datasets = _datasets()

    columns = dataset.column_names
    if "audio" not in columns:
        raise InputError(
            f"{name} has the columns {', '.join(columns)}; it must have one named audio: rename it"
        )
    if not len(dataset):
        raise InputError(f"{name} is empty; it must hold at least one utterance")
    if isinstance(dataset.features["audio"], datasets.Audio):
        # Undecoded: decoding in datasets needs torch.
        dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    audio = dataset.select_columns(["audio"])
    text = next((column for column in TEXT_COLUMNS if column in columns), None)
    facts = [c for c in ("id", "language", "duration", text) if c is not None and c in columns]
    for column in facts:
        _check_type(dataset.features[column], column, name)
    values: dict[str | None, list[Any]] = collections.defaultdict(lambda: [None] * len(dataset))
    values.update({column: _column(dataset, column, name) for column in facts})
    usable, faults = list[Utterance](), list[Dropped]()
    for row in range(len(dataset)):
        place = f"{name} row {row}"
        row_id = str(values["id"][row]) if values["id"][row] is not None else f"{name}:{row}"
        try:
            duration = check_seconds(values["duration"][row], "duration", place, is_length=True)
        except InputError as error:
            faults.append(Dropped(row_id, str(error)))
            continue
        usable.append(
            Utterance(
                id=row_id,
                audio=EmbeddedAudio(place, functools.partial(_read_row, audio, row)),
                text=values[text][row],
                language=values["language"][row],
                duration=duration,
            )
        )
    return usable, faults


def _column(dataset: Any, column: str, name: str) -> list[Any]:
    try:
        return list(dataset[column][:])
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: column {column} holds text that is not UTF-8 ({error.reason}); it must be: "
            "write the data set again"
        ) from error


def _check_type(feature: Any, column: str, name: str) -> None:
    kind = str(getattr(feature, "dtype", feature))
    numeric = kind.startswith(("int", "uint", "float"))
    if not (numeric if column == "duration" else column == "id" or "string" in kind):
        wanted = "a number of seconds" if column == "duration" else "text"
        raise InputError(
            f"{name}: column {column} holds {kind}; it must be {wanted}: convert or rename it"
        )


def _read_row(dataset: Any, row: int) -> bytes:
    """Encoded bytes of one row, which holds them, or the path of a file that does."""
    audio = dataset[row]["audio"]
    held = audio if isinstance(audio, dict) else {"path": audio}
    if held.get("bytes"):
        return held["bytes"]
    path = held.get("path")
    if not path or not Path(path).is_file():
        raise InputError(
            f"audio of row {row} holds no bytes, and its file {path} does not exist; it must have "
            "one of the two: save the data set with its audio embedded"
        )
    return Path(path).read_bytes()


def _unreadable(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"{name} cannot be read as a data set ({type(error).__name__}: {reason}); it must be "
        "parquet or a folder saved by datasets: make it again"
    )
