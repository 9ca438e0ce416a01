"""Reads audio files of any rate and channel count, in any format of libsndfile, as 16 kHz mono."""

import dataclasses
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import soundfile
import soxr

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, is_remote

# Manifests round durations. A part that ends this close to the end of its file is read to the end.
_END_TOLERANCE_SECONDS = 0.01

# The header of a lossy format may count one frame of its codec too many: at most 72 ms in mp3.
_HEADER_TOLERANCE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class EmbeddedAudio:
    """An encoded audio file that is part of a data set and has no path of its own.

    Attributes:
        name: what error messages call it, e.g. "train.parquet row 12".
        read: returns the bytes of the encoded file. It is called only when the audio is needed.
        sha256: hash of those bytes, if it is known without reading them.
    """

    name: str
    read: Callable[[], bytes] = dataclasses.field(repr=False, compare=False)
    sha256: str | None = dataclasses.field(default=None, repr=False, compare=False)


AudioSource = str | EmbeddedAudio


def load_audio(
    source: AudioSource, offset_seconds: float = 0.0, duration_seconds: float | None = None
) -> np.ndarray:
    """Reads audio, or a part of it, as 16 kHz mono.

    Args:
        source: path of an audio file, or audio embedded in a data set.
        offset_seconds: where to start.
        duration_seconds: how much to read; None reads to the end.

    Returns:
        (A,) float32 samples, in [-1, 1] for integer formats.

    Raises:
        InputError: see `audio_blocks`.
    """
    (audio,) = audio_blocks(source, sys.maxsize, offset_seconds, duration_seconds)
    return audio


def audio_blocks(
    source: AudioSource,
    block_seconds: int,
    offset_seconds: float = 0.0,
    duration_seconds: float | None = None,
) -> Iterator[np.ndarray]:
    """Reads audio, or a part of it, as 16 kHz mono, one block after the other.

    Channels are averaged. Other rates are resampled by soxr.

    Args:
        source: path of an audio file, or audio embedded in a data set.
        block_seconds: about how much a block holds. The last one may be shorter.
        offset_seconds: where to start.
        duration_seconds: how much to read; None reads to the end.

    Yields:
        (A,) float32 samples at 16 kHz.

    Raises:
        InputError: the file is missing, is not audio, has no samples or non-finite ones, is
            damaged, ends before `offset_seconds`, or ends before its header says.
    """
    name = audio_name(source)
    with _open_audio(source) as file:
        rate = file.samplerate
        position = round(offset_seconds * rate)
        left = file.frames - position
        if left <= 0:
            raise InputError(_too_short(name, file.frames / rate, offset_seconds))
        wanted = left if duration_seconds is None else round(duration_seconds * rate)
        if left - wanted <= _END_TOLERANCE_SECONDS * rate:
            wanted = left
        end = position + wanted
        resampler = None
        if rate != SAMPLE_RATE_HZ:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
        yielded = 0
        is_last = False
        with _damage_named(name):
            file.seek(position)
        while not is_last:
            size = min(block_seconds * rate, end - position)
            with _damage_named(name):
                channels = file.read(size, dtype="float32", always_2d=True)
            position += len(channels)
            is_last = position == end or len(channels) < size
            if is_last:
                _check_complete(name, position, end, rate)
            audio = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
            if not np.isfinite(audio).all():
                raise InputError(
                    f"audio {name} holds samples that are not finite; audio must be finite "
                    "numbers: record or convert it again, or leave it out"
                )
            if resampler is not None:
                audio = resampler.resample_chunk(audio, last=is_last)
            yielded += len(audio)
            yield audio
        if not yielded:
            raise InputError(_too_short(name, 0.0, offset_seconds))


def audio_seconds(source: AudioSource) -> float:
    """Reads the length of an audio file in seconds from its header.

    Raises:
        InputError: the file is missing, is not audio or has no samples.
    """
    with _open_audio(source) as file:
        seconds = float(file.frames / file.samplerate)
    if seconds <= 0:
        raise InputError(_too_short(audio_name(source), 0.0, 0.0))
    return seconds


def audio_name(source: AudioSource) -> str:
    """The name of an audio source in error messages."""
    return source.name if isinstance(source, EmbeddedAudio) else str(source)


def audio_sha256(source: AudioSource) -> str:
    """The SHA-256 hash of the encoded file, in hexadecimal."""
    if isinstance(source, EmbeddedAudio):
        return source.sha256 or hashlib.sha256(source.read()).hexdigest()
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def pad_or_trim(audio: np.ndarray, samples: int) -> np.ndarray:
    """Pads audio with zeros at its end, or cuts its end off, so that it fills a window exactly.

    Args:
        audio: (A,) samples.
        samples: length of the window.

    Returns:
        (samples,), same dtype.
    """
    if len(audio) >= samples:
        return audio[:samples]
    return np.pad(audio, (0, samples - len(audio)))


def _open_audio(source: AudioSource) -> soundfile.SoundFile:
    name = audio_name(source)
    if isinstance(source, str) and is_remote(source):
        source = EmbeddedAudio(source, Path(source).read_bytes)
    if isinstance(source, str) and not os.path.isfile(source):
        raise InputError(
            f"no audio file {name}; every utterance's audio must exist (paths are relative to the "
            "manifest): correct the path or remove the line"
        )
    try:
        # Give libsndfile the path, because reading a Python file object needs the interpreter lock.
        # Give it in bytes, because a file name need not be UTF-8.
        if isinstance(source, str):
            return soundfile.SoundFile(os.fsencode(source))
        return soundfile.SoundFile(io.BytesIO(source.read()))
    except (soundfile.SoundFileError, FileNotFoundError, TypeError) as error:
        # soundfile raises TypeError for .raw files, which have no header.
        raise InputError(
            f"{name} cannot be read as audio ({_reason(error)}); it must be a file that libsndfile "
            "reads, such as wav, flac, ogg, opus or mp3: convert it, e.g. ffmpeg -i IN OUT.flac"
        ) from error


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Turns an error of libsndfile within an open file into one line for the user."""
    try:
        yield
    except soundfile.SoundFileError as error:
        raise InputError(
            f"{name} cannot be read to its end ({_reason(error)}); it must be an undamaged audio "
            "file: copy or convert it again"
        ) from error


def _check_complete(name: str, frames: int, expected_frames: int, rate_hz: int) -> None:
    """Refuses a file that ends before its header says.

    An mp3 that was cut off decodes without an error, so the decoder does not notice.
    """
    if expected_frames - frames > _HEADER_TOLERANCE_SECONDS * rate_hz:
        raise InputError(
            f"audio {name} ends before {expected_frames / rate_hz:.2f} s, but its header says that "
            "it goes on; it must be complete: copy it again, or, if it is complete and its header "
            "is wrong, convert it, e.g. ffmpeg -i IN OUT.flac"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _too_short(name: str, seconds: float, offset_seconds: float) -> str:
    if seconds <= 0:
        return f"audio {name} is empty; it must hold at least one sample: leave it out"
    return (
        f"audio {name} is {seconds:.3f} s long and offset is {offset_seconds:g} s; the offset must "
        "lie within the file: correct the offset or remove the line"
    )
