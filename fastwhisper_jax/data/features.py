"""Log-mel spectrograms and SpecAugment, computed on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.data.audio import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
# Whisper's features keep what is at most 8 decades of power below the loudest bin.
FLOOR_BELOW_LOUDEST = 8.0


@functools.cache
def mel_filters(n_mels: int) -> np.ndarray:
    """Triangular mel filters, Slaney's scale and area normalisation.

    The scale is linear up to 1 kHz (3 mel per 200 Hz) and logarithmic above it (27 mel per factor
    6.4); each triangle is divided by half of its width in Hz.

    Args:
        n_mels: M, number of filters between 0 and 8 kHz.

    Returns:
        (201, M) float32: weight of each FFT bin in each filter.

    Source: transformers' `mel_filter_bank(norm="slaney", mel_scale="slaney")`, librosa's `mel`.
    """
    linear_end_hz, hz_per_mel, mel_per_log = 1000.0, 200.0 / 3.0, 27.0 / np.log(6.4)
    linear_end_mel = linear_end_hz / hz_per_mel
    highest_mel = linear_end_mel + np.log(SAMPLE_RATE_HZ / 2 / linear_end_hz) * mel_per_log
    mels = np.linspace(0.0, highest_mel, n_mels + 2)
    corners_hz = np.where(
        mels < linear_end_mel,
        mels * hz_per_mel,
        linear_end_hz * np.exp((mels - linear_end_mel) / mel_per_log),
    )
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1)
    widths_hz = np.diff(corners_hz)
    distances_hz = corners_hz[None, :] - bins_hz[:, None]
    rising = -distances_hz[:, :-2] / widths_hz[None, :-1]
    falling = distances_hz[:, 2:] / widths_hz[None, 1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    areas_hz = (corners_hz[2:] - corners_hz[:-2]) / 2.0
    return (triangles / areas_hz[None, :]).astype(np.float32)


def log_mel_spectrogram(audio: jax.Array, n_mels: int) -> jax.Array:
    """Whisper's log-mel spectrogram.

    With x of `log10_mel`: y = (max(x, max(x) - 8) + 4) / 4, the maximum taken over each row, whose
    signal is reflected at both ends.

    Args:
        audio: (B, A) float32 samples at 16 kHz, A a multiple of 160.
        n_mels: M, mel bins (static under jit).

    Returns:
        (B, L, M) float32, L = A / 160 frames.

    Source: transformers' WhisperFeatureExtractor; openai/whisper's `log_mel_spectrogram`.
    """
    half = WINDOW_SAMPLES // 2
    padded = jnp.pad(audio.astype(jnp.float32), ((0, 0), (half, half)), mode="reflect")
    log_mel = log10_mel(padded[:, : audio.shape[1] - HOP_SAMPLES + WINDOW_SAMPLES], n_mels)
    loudest = jnp.max(log_mel, axis=(1, 2), keepdims=True)
    return (jnp.maximum(log_mel, loudest - FLOOR_BELOW_LOUDEST) + 4.0) / 4.0


def log10_mel(audio: jax.Array, n_mels: int) -> jax.Array:
    """log10(max(P W, 1e-10)), with P the power spectrum of windows and W the mel filters.

    Args:
        audio: (B, 160 (L - 1) + 400) float32: Hann windows of 25 ms every 10 ms.
        n_mels: M, mel bins (static under jit).

    Returns:
        (B, L, M) float32, neither clamped nor scaled.
    """
    batch, samples = audio.shape
    frames = (samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    # A window is two and a half hops: cut the signal into hops and lay neighbours side by side,
    # which costs copies where a gather of (L, 400) indices would be slow.
    rest = WINDOW_SAMPLES - 2 * HOP_SAMPLES
    hops = jnp.pad(audio, ((0, 0), (0, HOP_SAMPLES - rest))).reshape(batch, frames + 2, HOP_SAMPLES)
    windows = jnp.concatenate([hops[:, :-2], hops[:, 1:-1], hops[:, 2:, :rest]], axis=-1)
    # Periodic Hann, as torch.hann_window: np.hanning is the symmetric one.
    hann = jnp.asarray(np.hanning(WINDOW_SAMPLES + 1)[:-1], jnp.float32)
    spectrum = jnp.fft.rfft(windows * hann[None, None, :], axis=-1)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # Full precision: a TPU would otherwise multiply in bfloat16, which the logarithm shows.
    mel = jnp.matmul(power, jnp.asarray(mel_filters(n_mels)), precision=jax.lax.Precision.HIGHEST)
    return jnp.log10(jnp.maximum(mel, 1e-10))


def spec_augment(
    log_mel: jax.Array,
    key: jax.Array,
    *,
    time_masks: int,
    time_mask_frames: int,
    freq_masks: int,
    freq_mask_bins: int,
    time_mask_fraction: float = 1.0,
    frames: jax.Array | None = None,
) -> jax.Array:
    """Masks random spans of frames and of mel bins, other ones in each row.

    A masked value becomes the mean of its row's speech frames. That is SpecAugment's own choice
    (zero after mean normalisation); the minimum would be exactly what silence looks like, and
    would teach the model to write words where nobody speaks.

    Args:
        log_mel: (B, L, M).
        key: PRNG key; the same key gives the same masks.
        time_masks: spans of frames to mask in each row.
        time_mask_frames: the longest such span; lengths are uniform from 0 to it.
        freq_masks: spans of mel bins to mask in each row.
        freq_mask_bins: the widest such span.
        time_mask_fraction: no span is longer than this part of its row's speech, in (0, 1].
        frames: (B,) int, speech frames of each row; what lies behind them is padding and stays as
            it is. None takes all L frames as speech.

    Returns:
        (B, L, M), same dtype.

    Source: SpecAugment (arXiv 1904.08779), section 2, without time warping.
    """
    if time_masks == 0 and freq_masks == 0:
        return log_mel
    batch, length, n_mels = log_mel.shape
    if frames is None:
        frames = jnp.full((batch,), length, jnp.int32)
    speech = jnp.arange(length)[None, :] < frames[:, None]
    longest = jnp.minimum(time_mask_frames, (frames * time_mask_fraction).astype(jnp.int32))
    bins = jnp.full((batch,), n_mels, jnp.int32)
    time_key, freq_key = jax.random.split(key)
    in_time = _random_spans(time_key, time_masks, longest, frames, length)
    in_freq = _random_spans(freq_key, freq_masks, jnp.minimum(freq_mask_bins, bins), bins, n_mels)
    masked = (in_time[:, :, None] | in_freq[:, None, :]) & speech[:, :, None]
    total = jnp.sum(jnp.where(speech[:, :, None], log_mel, 0.0), axis=(1, 2), dtype=jnp.float32)
    mean = total / jnp.maximum(frames * n_mels, 1).astype(jnp.float32)
    return jnp.where(masked, mean.astype(log_mel.dtype)[:, None, None], log_mel)


def _random_spans(
    key: jax.Array, count: int, widest: jax.Array, limit: jax.Array, size: int
) -> jax.Array:
    """True inside `count` random spans a row, at most `widest` (B,) and within `limit` (B,)."""
    width_key, start_key = jax.random.split(key)
    shape = (count, *limit.shape)
    widths = jax.random.randint(width_key, shape, 0, jnp.broadcast_to(widest[None] + 1, shape))
    starts = jax.random.randint(start_key, shape, 0, limit[None] - widths + 1)
    places = jnp.arange(size)[None, None, :]
    inside = (places >= starts[..., None]) & (places < (starts + widths)[..., None])
    return jnp.any(inside, axis=0)
