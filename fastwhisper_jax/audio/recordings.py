"""Log-mel features of a recording of any length, read once and kept on disk."""

import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.audio.constants import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from fastwhisper_jax.audio.files import audio_blocks
from fastwhisper_jax.audio.log_mel import FLOOR_BELOW_LOUDEST, log10_mel

# A recording is read, and its features are computed, in blocks of this length.
_BLOCK_SECONDS = 30
# The last window of a block reaches into the next block.
_BLOCK_SAMPLES = _BLOCK_SECONDS * SAMPLE_RATE_HZ
_BLOCK_WITH_OVERLAP = _BLOCK_SAMPLES + WINDOW_SAMPLES - HOP_SAMPLES

# log10 of the mel power of digital silence.
_SILENCE = -10.0


class RecordingFeatures:
    """Log-mel features of one recording, kept in an unnamed temporary file.

    Features are clamped relative to the loudest bin of the *whole* recording. That bin is known
    only after the last sample is read, so the file holds unclamped features, and each window is
    clamped when it is requested. The file takes 115 MB for an hour of audio with 80 mel bins.

    Attributes:
        frames: number of mel frames within the recording.
        seconds: length of the recording.
        loudness: (frames,) float32, log10 of the mean mel power of each frame.
    """

    def __init__(self, path: str, n_mels: int, window_frames: int) -> None:
        """Reads a recording. A recording shorter than a window is followed by silence.

        Args:
            path: an audio file.
            n_mels: M, mel bins.
            window_frames: L, frames of a window.

        Raises:
            InputError: see `audio_blocks`.
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
        pending = np.zeros(0, np.float32)
        blocks = audio_blocks(path, _BLOCK_SECONDS)
        while len(pending) <= half and (audio := next(blocks, None)) is not None:
            pending = np.concatenate([pending, audio])
            samples += len(audio)
        # The first frame is centred on the first sample, so reflect the signal before its start.
        start = np.pad(pending[: half + 1], (0, max(0, half + 1 - len(pending))))
        pending = np.concatenate([start[:0:-1], pending])
        for audio in blocks:
            pending = np.concatenate([pending, audio])
            samples += len(audio)
            pending = self._store_complete_blocks(pending)
        self.frames = -(-samples // HOP_SAMPLES)
        self.seconds = samples / SAMPLE_RATE_HZ
        last = max(self.frames, self._window_frames)
        while self._stored_frames < last:
            missing = max(0, _BLOCK_WITH_OVERLAP - len(pending))
            pending = self._store_complete_blocks(np.pad(pending, (0, missing)))
        self._stored_frames = last
        self.loudness = np.concatenate(self._block_loudness)[: self.frames]

    def _store_complete_blocks(self, pending: np.ndarray) -> np.ndarray:
        """Stores the features of all complete blocks; returns the samples that remain."""
        while len(pending) >= _BLOCK_WITH_OVERLAP:
            log_mel, loudness = map(
                np.asarray, _block_features(pending[:_BLOCK_WITH_OVERLAP], self._n_mels)
            )
            self._block_loudness.append(loudness)
            self._loudest = max(self._loudest, float(log_mel.max()))
            self._file.write(log_mel.tobytes())
            self._stored_frames += len(log_mel)
            pending = pending[_BLOCK_SAMPLES:]
        return pending

    def window(self, start_frame: int) -> np.ndarray:
        """Returns one window of features.

        Args:
            start_frame: first frame of the window.

        Returns:
            (L, M) float32. Frames after the end of a recording are zeros if the recording is
            longer than a window, as in openai/whisper and transformers. They are silence if it is
            shorter.
        """
        frames = min(self._window_frames, self._stored_frames - start_frame)
        window = np.zeros((self._window_frames, self._n_mels), np.float32)
        window[:frames] = _scaled(self._stored(start_frame, frames), self._loudest)
        return window

    def clip(self, start_frame: int, end_frame: int) -> np.ndarray:
        """Returns the features of a part, as if it were a recording of its own.

        Args:
            start_frame, end_frame: first frame, and last frame + 1; at most a window apart.

        Returns:
            (L, M) float32, clamped relative to the loudest bin of these frames, then silence.
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
    """Computes log10 mel power and loudness.

    Args:
        audio: (160 (L - 1) + 400,) samples.
        n_mels: M, mel bins.

    Returns:
        (L, M) log10 mel power, and (L,) log10 of the mean mel power of each frame.
    """
    log_mel = log10_mel(audio[None], n_mels)[0]
    return log_mel, jnp.log10(jnp.mean(10.0**log_mel, axis=1))
