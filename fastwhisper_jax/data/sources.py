"""Where utterances come from: a manifest, prepared shards, or a Hugging Face data set."""

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

# A duration may name this much more than the file holds: manifests round.
_END_TOLERANCE_SECONDS = 0.05


def read_source(source: str | os.PathLike[str], split: str | None = None) -> list[Utterance]:
    """Reads the utterances of a manifest or a data set, and checks that their audio is there.

    Every audio file on a local disk is opened and its header read, so that a missing or unreadable
    one is found now. Other audio is opened here only where its duration is not known.

    Args:
        source: a JSONL manifest, a folder that `fastwhisper prepare` made (either may lie in an
            object store), a parquet file, a folder that `datasets` saved to disk or that holds
            parquet files, or a data set's id on the Hugging Face hub.
        split: of a data set that has several, such as "train"; None where it has one.

    Returns:
        Utterances with text where the source has any, all with a duration.

    Raises:
        InputError: no such source, it cannot be read, it has several splits and none is named, or
            some audio cannot be read.
    """
    utterances, faults = read_usable(source, split)
    if faults:
        raise InputError(_joined_errors(list(dict.fromkeys(f.reason for f in faults)), str(source)))
    return utterances


def read_usable(
    source: str | os.PathLike[str], split: str | None = None
) -> tuple[list[Utterance], list[Dropped]]:
    """What `read_source` reads without the utterances that cannot be used, and those.

    Raises:
        InputError: no such source, it cannot be read, or it has several splits and none is named.
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
    """Fills in missing durations from the audio's headers; all that cannot be used is named."""
    unknown = {u.audio for u in utterances if _is_on_disk(u.audio) or u.duration is None}
    # Order of first use, so that the errors named are the first in the source.
    sources = list(dict.fromkeys(u.audio for u in utterances if u.audio in unknown))
    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        seconds = dict(zip(sources, threads.map(_seconds_or_error, sources), strict=True))
    checked, faults = list[Utterance](), list[Dropped]()
    for utterance in utterances:
        length = seconds.get(utterance.audio)
        if isinstance(length, InputError):
            faults.append(Dropped(utterance.id, str(length)))
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
                faults.append(Dropped(utterance.id, reason))
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
