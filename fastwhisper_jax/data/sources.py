"""Where utterances come from: a manifest, prepared shards, or a Hugging Face data set."""

import collections
import dataclasses
import functools
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from fastwhisper_jax.data.audio import AudioSource, EmbeddedAudio, audio_name, audio_seconds
from fastwhisper_jax.data.manifest import Utterance, read_manifest
from fastwhisper_jax.data.shards import is_prepared, read_prepared
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import check_reachable, is_remote, path_of

TEXT_COLUMNS = ("text", "sentence", "transcription")

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_HEADER_THREADS = 8
_ERRORS_NAMED = 3

# A duration may name this much more than the file holds: manifests round.
_END_TOLERANCE_SECONDS = 0.05


class Fault(NamedTuple):
    """An utterance that cannot be used: its id, and why."""

    id: str
    reason: str


def read_source(source: str | os.PathLike[str], split: str | None = None) -> list[Utterance]:
    """Reads the utterances of a manifest or a data set, and checks that their audio is there.

    Every audio file on a local disk is opened and its header read, so that a missing or unreadable
    one is found now. Other audio is opened here only where its duration is not known.

    Args:
        source: a JSONL manifest, a folder that `fastwhisper prepare` made (either may lie in an
            object store), a parquet file, a folder that `datasets` saved to disk or that holds
            parquet files, or a data set's id on the Hugging Face hub.
        split: of a data set that has several, such as "train".

    Returns:
        Utterances with text where the source has any, all with a duration.

    Raises:
        InputError: no such source, it cannot be read, or some audio cannot.
    """
    utterances, faults = read_usable(source, split)
    if faults:
        raise InputError(_joined_errors(list(dict.fromkeys(f.reason for f in faults)), str(source)))
    return utterances


def read_usable(
    source: str | os.PathLike[str], split: str | None = None
) -> tuple[list[Utterance], list[Fault]]:
    """What `read_source` reads, without the utterances whose audio cannot be used, and those.

    Raises:
        InputError: no such source, or it cannot be read.
    """
    path = path_of(source)
    if is_remote(path):
        check_reachable("data", path)
    if is_prepared(path):
        return read_prepared(path), []
    if path.is_dir() or path.suffix == ".parquet" and path.is_file():
        if is_remote(path):
            raise InputError(
                f"{source} is no prepared folder; data in an object store must be a manifest "
                "(.jsonl) or a folder that fastwhisper prepare made: prepare it"
            )
        utterances = _from_dataset(_local_dataset(Path(path), split), str(source))
    elif path.exists() or path.suffix in (".jsonl", ".json"):
        utterances = read_manifest(path)
    elif _HUB_ID.fullmatch(str(source)) and path.suffix != ".parquet":
        utterances = _from_dataset(_hub_dataset(str(source), split), str(source))
    else:
        raise InputError(
            f"no such path: {source}; data must be a manifest (.jsonl), a parquet file, a folder "
            "saved by datasets, or a data set's id on the Hugging Face hub: correct the path"
        )
    return _with_durations(utterances)


def _with_durations(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Fault]]:
    """Fills in missing durations from the audio's headers; all that cannot be used is named."""
    unknown = {u.audio for u in utterances if _is_on_disk(u.audio) or u.duration is None}
    # Order of first use, so that the errors named are the first in the source.
    sources = list(dict.fromkeys(u.audio for u in utterances if u.audio in unknown))
    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        seconds = dict(zip(sources, threads.map(_seconds_or_error, sources), strict=True))
    checked, faults = list[Utterance](), list[Fault]()
    for utterance in utterances:
        length = seconds.get(utterance.audio)
        if isinstance(length, InputError):
            faults.append(Fault(utterance.id, str(length)))
        elif length is None:
            checked.append(utterance)
        else:
            end = utterance.offset + (utterance.duration or 0.0)
            if utterance.offset >= length or end > length + _END_TOLERANCE_SECONDS:
                reason = (
                    f"utterance {utterance.id} ends at {end:.3f} s and its audio "
                    f"{audio_name(utterance.audio)} at {length:.3f} s; it must lie within: correct "
                    '"offset" and "duration"'
                )
                faults.append(Fault(utterance.id, reason))
                continue
            left = length - utterance.offset
            duration = left if utterance.duration is None else min(utterance.duration, left)
            checked.append(dataclasses.replace(utterance, duration=duration))
    return checked, faults


def _is_on_disk(audio: AudioSource) -> bool:
    return isinstance(audio, str) and not is_remote(audio)


def _seconds_or_error(audio: AudioSource) -> float | InputError:
    try:
        return audio_seconds(audio)
    except InputError as error:
        return error


def _joined_errors(errors: list[str], source: str) -> str:
    if len(errors) == 1:
        return errors[0]
    named = "; ".join(errors[:_ERRORS_NAMED])
    more = len(errors) - _ERRORS_NAMED
    return f"{len(errors)} errors in {source}: {named}" + (f"; and {more} more" if more > 0 else "")


def _local_dataset(path: Path, split: str | None) -> Any:
    datasets = _datasets()

    try:
        if path.is_file():
            return _parquet([path])
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return _one_split(datasets.load_from_disk(str(path)), split, str(path))
        files = sorted(path.rglob("*.parquet"))
        if split is not None:
            files = [file for file in files if split in file.stem or split in file.parts]
    except InputError:
        raise
    except Exception as error:  # arrow's and datasets' own errors are many
        raise InputError(_unreadable(str(path), error)) from error
    if files:
        return _parquet(files)
    wanted = "" if split is None else f" for split {split!r}"
    raise InputError(
        f"folder {path} holds no data set{wanted}; it must be one that datasets saved to disk, or "
        "hold parquet files: give the manifest (.jsonl) itself, or correct the path"
    )


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

    if not isinstance(dataset, datasets.DatasetDict):
        return dataset
    if split is None and len(dataset) == 1:
        return next(iter(dataset.values()))
    if split not in dataset:
        raise InputError(
            f"{name} has the splits {', '.join(dataset)} and split is {split!r}; choose one of them"
        )
    return dataset[split]


def _from_dataset(dataset: Any, name: str) -> list[Utterance]:
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
    values.update({column: dataset[column][:] for column in facts})
    return [
        Utterance(
            id=str(values["id"][row]) if values["id"][row] is not None else f"{name}:{row}",
            audio=EmbeddedAudio(f"{name} row {row}", functools.partial(_read_row, audio, row)),
            text=values[text][row],
            language=values["language"][row],
            duration=values["duration"][row],
        )
        for row in range(len(dataset))
    ]


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
