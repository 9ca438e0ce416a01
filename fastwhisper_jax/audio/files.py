"""Reading audio: any file that libsndfile knows, any rate, any channel count, to 16 kHz mono."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable

import numpy as np
import soundfile
import soxr

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, is_remote

# Manifests round durations: a part that ends this close to the end of its file reads to the end.
_END_TOLERANCE_SECONDS = 0.01

# The header of a lossy format may count a frame of its codec too many: at most 72 ms in mp3.
_HEADER_TOLERANCE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class EmbeddedAudio:
    """An encoded audio file that lies inside a data set rather than on disk.

    Attributes:
        name: what error messages call it, e.g. "train.parquet row 12".
        read: returns the encoded file's bytes; called only when the audio is wanted.
        sha256: of those bytes, where it is known without reading them.
    """

    name: str
    read: Callable[[], bytes] = dataclasses.field(repr=False, compare=False)
    sha256: str | None = dataclasses.field(default=None, repr=False, compare=False)


AudioSource = str | EmbeddedAudio


def load_audio(
    source: AudioSource, offset_seconds: float = 0.0, duration_seconds: float | None = None
) -> np.ndarray:
    """Reads audio, or a part of it, as 16 kHz mono.

    Channels are averaged, other rates resampled by soxr.

    Args:
        source: path of an audio file, or audio embedded in a data set.
        offset_seconds: where to start.
        duration_seconds: how much to read; None reads to the end.

    Returns:
        (A,) float32 samples, in [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, is no audio, holds no samples or non-finite ones, ends
            before `offset_seconds`, or holds less than its header says.
    """
    name = audio_name(source)
    with open_audio(source) as file:
        rate = file.samplerate
        first = round(offset_seconds * rate)
        left = file.frames - first
        if left <= 0:
            raise InputError(_too_short(name, file.frames / rate, offset_seconds))
        wanted = left if duration_seconds is None else round(duration_seconds * rate)
        if left - wanted <= _END_TOLERANCE_SECONDS * rate:
            wanted = left
        try:
            file.seek(first)
            channels = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise InputError(_not_audio(name, error)) from error
        check_whole(name, first + len(channels), first + wanted, rate)
    audio = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if rate != SAMPLE_RATE_HZ:
        audio = soxr.resample(audio, rate, SAMPLE_RATE_HZ)
    if not audio.size:
        raise InputError(_too_short(name, 0.0, offset_seconds))
    if not np.isfinite(audio).all():
        raise InputError(
            f"audio {name} holds samples that are not finite; audio must be finite numbers: "
            "record or convert it again, or remove it from the data"
        )
    return np.ascontiguousarray(audio, np.float32)


def audio_seconds(source: AudioSource) -> float:
    """Length of an audio file in seconds, read from its header.

    Raises:
        InputError: the file is missing, is no audio or holds no samples.
    """
    with open_audio(source) as file:
        seconds = float(file.frames / file.samplerate)
    if seconds <= 0:
        raise InputError(_too_short(audio_name(source), 0.0, 0.0))
    return seconds


def open_audio(source: AudioSource) -> soundfile.SoundFile:
    """Opens an audio file for reading; the caller closes it.

    Raises:
        InputError: the file is missing or is no audio.
    """
    name = audio_name(source)
    if isinstance(source, str) and is_remote(source):
        source = EmbeddedAudio(source, Path(source).read_bytes)
    if isinstance(source, str) and not os.path.isfile(source):
        raise InputError(
            f"no audio file {name}; every utterance's audio must exist (paths are relative to the "
            "manifest): correct the path or remove the line"
        )
    try:
        # A path, not a Python file object, so that libsndfile reads without the interpreter lock.
        # In bytes, for a name need not be UTF-8.
        if isinstance(source, str):
            return soundfile.SoundFile(os.fsencode(source))
        return soundfile.SoundFile(io.BytesIO(source.read()))
    except (soundfile.SoundFileError, FileNotFoundError, TypeError) as error:
        # TypeError: headerless .raw files
        raise InputError(_not_audio(name, error)) from error


def check_whole(name: str, frames: int, expected_frames: int, rate_hz: int) -> None:
    """Refuses audio that ends before its header says: a cut mp3 decodes without an error.

    Args:
        name: of the audio.
        frames: where it ended.
        expected_frames: where it should have, by its header.
        rate_hz: frames a second.

    Raises:
        InputError: more is missing than the header of a whole file may count too many.
    """
    if expected_frames - frames > _HEADER_TOLERANCE_SECONDS * rate_hz:
        raise InputError(
            f"audio {name} ends before {expected_frames / rate_hz:.2f} s, though its header says "
            "that it goes on; it must be whole: copy it again, or, if it is whole and its header "
            "wrong, convert it, e.g. ffmpeg -i IN OUT.flac"
        )


def audio_name(source: AudioSource) -> str:
    """What error messages call an audio source."""
    return source.name if isinstance(source, EmbeddedAudio) else str(source)


def audio_sha256(source: AudioSource) -> str:
    """The digest of the encoded file."""
    if isinstance(source, EmbeddedAudio):
        return source.sha256 or hashlib.sha256(source.read()).hexdigest()
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def pad_or_trim(audio: np.ndarray, samples: int) -> np.ndarray:
    """Fits audio to a window: zeros after its end, or cut at the window's end.

    Args:
        audio: (A,) samples.
        samples: length of the window.

    Returns:
        (samples,), of the same dtype.
    """
    if len(audio) >= samples:
        return audio[:samples]
    return np.pad(audio, (0, samples - len(audio)))


def _not_audio(name: str, error: Exception) -> str:
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return (
        f"{name} cannot be read as audio ({reason}); it must be a file that libsndfile reads, such "
        f"as wav, flac, ogg, opus or mp3: convert it, e.g. ffmpeg -i IN OUT.flac"
    )


def _too_short(name: str, seconds: float, offset_seconds: float) -> str:
    if seconds <= 0:
        return f"audio {name} is empty; it must hold at least one sample: remove it from the data"
    return (
        f"audio {name} is {seconds:.3f} s long and offset is {offset_seconds:g} s; the offset must "
        "lie within the file: correct the offset or remove the line"
    )
