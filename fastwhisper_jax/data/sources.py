"""Reads utterances from any source: a manifest, prepared shards, or a Hugging Face data set."""

import dataclasses
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastwhisper_jax.audio.files import AudioSource, audio_name, audio_seconds
from fastwhisper_jax.data import hugging_face
from fastwhisper_jax.data.manifest import Dropped, Utterance, read_manifest
from fastwhisper_jax.data.shards import is_prepared, read_prepared
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import check_reachable, is_remote, path_of

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_HEADER_THREADS = 8
_ERRORS_NAMED = 3

# Manifests round durations, so a duration may exceed its file by this much.
_END_TOLERANCE_SECONDS = 0.05


def read_source(source: str | os.PathLike[str], split: str | None = None) -> list[Utterance]:
    """Reads the utterances of a manifest or a data set, and checks their audio.

    Reads the header of every audio file on a local disk, so that a missing or unreadable file is
    found before a run begins. Opens other audio only if its duration is unknown.

    Args:
        source: a JSONL manifest, a folder that `fastwhisper prepare` made (either may be in an
            object store), a parquet file, a folder that `datasets` saved to disk or that holds
            parquet files, or the id of a data set on the Hugging Face hub.
        split: which split to read, such as "train"; None if the source has only one.

    Returns:
        Utterances, all with a duration. Those for which the source has a transcript have text.

    Raises:
        InputError: there is no such source, it cannot be read, it has several splits and `split`
            is None, or some audio cannot be read.
    """
    utterances, faults = read_usable(source, split)
    if not faults:
        return utterances
    reasons = list(dict.fromkeys(fault.reason for fault in faults))
    if len(reasons) == 1:
        raise InputError(reasons[0])
    more = len(reasons) - _ERRORS_NAMED
    raise InputError(
        f"{len(reasons)} errors in {source}: {'; '.join(reasons[:_ERRORS_NAMED])}"
        + (f"; and {more} more" if more > 0 else "")
    )


def read_usable(
    source: str | os.PathLike[str], split: str | None = None
) -> tuple[list[Utterance], list[Dropped]]:
    """Reads a source as `read_source` does, but returns what cannot be used instead of raising.

    Args:
        source: see `read_source`.
        split: see `read_source`.

    Returns:
        The utterances that can be used, and those that cannot, with the reason.

    Raises:
        InputError: there is no such source, it cannot be read, or it has several splits and
            `split` is None.
    """
    path = path_of(source)
    if is_remote(path):
        check_reachable("data", path)
    if is_prepared(path):
        return read_prepared(path), []
    if path.is_dir() or path.suffix == ".parquet" and path.is_file():
        if is_remote(path):
            raise InputError(
                f"{source} is not a prepared folder; data in an object store must be a manifest "
                "(.jsonl) or a folder that fastwhisper prepare made: prepare it"
            )
        utterances, faults = hugging_face.read_local(Path(path), split, str(source))
    elif path.exists() or path.suffix in (".jsonl", ".json"):
        utterances, faults = read_manifest(path), []
    elif _HUB_ID.fullmatch(str(source)) and path.suffix != ".parquet":
        utterances, faults = hugging_face.read_hub(str(source), split)
    else:
        raise InputError(
            f"no such path: {source}; data must be a manifest (.jsonl), a parquet file, a folder "
            "saved by datasets, or a data set's id on the Hugging Face hub: correct the path"
        )
    usable, unreadable = _with_durations(utterances)
    return usable, faults + unreadable


def _with_durations(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Dropped]]:
    """Fills in missing durations from the headers of the audio, and checks the others.

    Returns:
        The utterances that can be used, and those that cannot, with the reason.
    """
    opened = list({u.audio for u in utterances if _is_on_disk(u.audio) or u.duration is None})
    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        lengths = dict(zip(opened, threads.map(_seconds_or_error, opened), strict=True))
    usable, faults = list[Utterance](), list[Dropped]()
    for utterance in utterances:
        length = lengths.get(utterance.audio)
        if isinstance(length, InputError):
            faults.append(Dropped(utterance.id, str(length)))
        elif length is None:
            usable.append(utterance)
        else:
            end = utterance.offset + (utterance.duration or 0.0)
            if utterance.offset >= length or end > length + _END_TOLERANCE_SECONDS:
                reason = (
                    f"utterance {utterance.id} ends at {end:.3f} s and its audio "
                    f"{audio_name(utterance.audio)} at {length:.3f} s; it must be within its "
                    'audio: correct "offset" and "duration"'
                )
                faults.append(Dropped(utterance.id, reason))
                continue
            left = length - utterance.offset
            duration = left if utterance.duration is None else min(utterance.duration, left)
            usable.append(dataclasses.replace(utterance, duration=duration))
    return usable, faults


def _is_on_disk(audio: AudioSource) -> bool:
    return isinstance(audio, str) and not is_remote(audio)


def _seconds_or_error(audio: AudioSource) -> float | InputError:
    try:
        return audio_seconds(audio)
    except InputError as error:
        return error
