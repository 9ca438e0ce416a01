"""Log-mel features of recordings of any length, read once, in little memory."""

import functools
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
import soxr

from fastwhisper_jax.audio.constants import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from fastwhisper_jax.audio.files import check_whole, open_audio
from fastwhisper_jax.audio.log_mel import FLOOR_BELOW_LOUDEST, log10_mel
from fastwhisper_jax.errors import InputError

BLOCK_SECONDS = 30
# log10 mel power where there is no sound at all.
_SILENCE = -10.0


class RecordingFeatures:
    """Log-mel features of one recording, kept in an unnamed temporary file.

    The features are clamped below at the loudest bin of the *whole* recording, which is known only
    when all of it has been read; so they are kept unclamped, and a window is clamped when it is
    asked for. An hour takes 115 MB on disk (80 mel bins) and next to nothing in memory.

    Attributes:
        frames: mel frames within the recording.
        seconds: its length.
        loudness: (frames,) float32, log10 of each frame's mean mel power.
    """

    def __init__(self, path: str, n_mels: int, window_frames: int) -> None:
        """Reads a recording; one shorter than a window is followed by silence.

        Args:
            path: an audio file.
            n_mels: M, mel bins.
            window_frames: L, frames of a window.

        Raises:
            InputError: the file is missing, is no audio, holds no or non-finite samples, or less
                than its header says.
        """
        self._n_mels, self._window_frames = n_mels, window_frames
        self._loudest = -np.inf
        self._stored_frames = 0
        self._block_loudness: list[np.ndarray] = []
        self._file = tempfile.TemporaryFile()
        try:
            self._read(path)
        except BaseException:
            self.close()
            raise

    def _read(self, path: str) -> None:
        samples = 0
        half = WINDOW_SAMPLES // 2
        block = BLOCK_SECONDS * SAMPLE_RATE_HZ
        pending = np.zeros(0, np.float32)
        blocks = _blocks(path)
        while len(pending) <= half and (audio := next(blocks, None)) is not None:
            pending = np.concatenate([pending, audio])
            samples += len(audio)
        # A frame is centred on its first sample: the signal is reflected before its start.
        start = np.pad(pending[: half + 1], (0, max(0, half + 1 - len(pending))))
        pending = np.concatenate([start[:0:-1], pending])
        for audio in blocks:
            pending = np.concatenate([pending, audio])
            samples += len(audio)
            pending = self._store_whole_blocks(pending)
        if not samples:
            raise InputError(
                f"audio {path} is empty; it must hold at least one sample: leave it out"
            )
        self.frames = -(-samples // HOP_SAMPLES)
        self.seconds = samples / SAMPLE_RATE_HZ
        last = max(self.frames, self._window_frames)
        while self._stored_frames < last:
            missing = block + WINDOW_SAMPLES - HOP_SAMPLES - len(pending)
            pending = self._store_whole_blocks(np.pad(pending, (0, max(0, missing))))
        self._stored_frames = last
        self.loudness = np.concatenate(self._block_loudness)[: self.frames]

    def _store_whole_blocks(self, pending: np.ndarray) -> np.ndarray:
        """Turns samples into frames, a block at a time; returns the samples that are left."""
        block = BLOCK_SECONDS * SAMPLE_RATE_HZ
        while len(pending) >= block + WINDOW_SAMPLES - HOP_SAMPLES:
            audio = pending[: block + WINDOW_SAMPLES - HOP_SAMPLES]
            log_mel, loudness = map(np.asarray, _block_features(audio, self._n_mels))
            self._block_loudness.append(loudness)
            self._loudest = max(self._loudest, float(log_mel.max()))
            self._file.write(log_mel.tobytes())
            self._stored_frames += len(log_mel)
            pending = pending[block:]
        return pending

    def window(self, start_frame: int) -> np.ndarray:
        """A window of features from `start_frame` on.

        Returns:
            (L, M) float32. Zeros stand behind the end of a recording that is longer than a window,
            as in openai/whisper and transformers; a shorter one is followed by silence.
        """
        frames = min(self._window_frames, self._stored_frames - start_frame)
        window = np.zeros((self._window_frames, self._n_mels), np.float32)
        window[:frames] = _scaled(self._stored(start_frame, frames), self._loudest)
        return window

    def clip(self, start_frame: int, end_frame: int) -> np.ndarray:
        """The features that frames of at most a window have as a recording of their own.

        Returns:
            (L, M) float32: clamped at the loudest bin of these frames, and followed by silence.
        """
        frames = end_frame - start_frame
        log_mel = np.full((self._window_frames, self._n_mels), _SILENCE, np.float32)
        log_mel[:frames] = self._stored(start_frame, frames)
        return _scaled(log_mel, float(log_mel.max()))

    def _stored(self, start_frame: int, frames: int) -> np.ndarray:
        """(frames, M) float32, neither clamped nor scaled."""
        bytes_per_frame = self._n_mels * 4
        self._file.seek(start_frame * bytes_per_frame)
        stored = np.frombuffer(self._file.read(frames * bytes_per_frame), np.float32)
        return stored.reshape(frames, self._n_mels)

    def close(self) -> None:
        """Deletes the temporary file."""
        self._file.close()


def _scaled(log_mel: np.ndarray, loudest: float) -> np.ndarray:
    return (np.maximum(log_mel, np.float32(loudest - FLOOR_BELOW_LOUDEST)) + 4.0) / 4.0


@functools.partial(jax.jit, static_argnames="n_mels")
def _block_features(audio: jax.Array, n_mels: int) -> tuple[jax.Array, jax.Array]:
    """log10 mel power (L, M) of samples (160 (L - 1) + 400,), and of each frame as a whole (L,)."""
    log_mel = log10_mel(audio[None], n_mels)[0]
    return log_mel, jnp.log10(jnp.mean(10.0**log_mel, axis=1))


def _blocks(path: str) -> Iterator[np.ndarray]:
    """A file's audio as 16 kHz mono, about a block at a time."""
    try:
        with open_audio(path) as file:
            rate = file.samplerate
            frames = 0
            resampler = None
            if rate != SAMPLE_RATE_HZ:
                resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
            while True:
                channels = file.read(BLOCK_SECONDS * rate, dtype="float32", always_2d=True)
                is_last = len(channels) < BLOCK_SECONDS * rate
                frames += len(channels)
                if is_last:
                    check_whole(path, frames, file.frames, rate)
                audio = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
                if not np.isfinite(audio).all():
                    raise InputError(
                        f"audio {path} holds samples that are not finite; audio must be finite "
                        "numbers: record or convert it again"
                    )
                if resampler is not None:
                    audio = resampler.resample_chunk(audio, last=is_last)
                yield audio
                if is_last:
                    return
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise InputError(
            f"{path} cannot be read to its end ({reason}); it must be an undamaged audio file: "
            "convert or copy it again"
        ) from error
