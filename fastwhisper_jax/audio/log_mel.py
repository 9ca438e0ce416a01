"""Computes Whisper's log-mel spectrograms on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fastwhisper_jax.audio.constants import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES

# Whisper's features are clamped at 8 decades of power below the loudest bin.
FLOOR_BELOW_LOUDEST = 8.0


@functools.cache
def mel_filters(n_mels: int) -> Float[np.ndarray, "201 M"]:
    """Returns triangular mel filters, with Slaney's mel scale and area normalisation.

    The scale is linear up to 1 kHz (3 mel per 200 Hz) and logarithmic above it (27 mel per factor
    6.4). Each triangle is divided by half of its width in Hz.

    Args:
        n_mels: M, number of filters between 0 and 8 kHz.

    Returns:
        (201, M) float32, the weight of each FFT bin in each filter.

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


def log_mel_spectrogram(audio: Float[Array, "B A"], n_mels: int) -> Float[Array, "B L M"]:
    """Computes Whisper's log-mel spectrogram.

    y = (max(x, max(x) - 8) + 4) / 4, where x is the `log10_mel` of a row whose signal is reflected
    at both ends. The inner maximum is taken over the whole row.

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


def log10_mel(audio: Float[Array, "B A"], n_mels: int) -> Float[Array, "B L M"]:
    """Computes log10(max(P W, 1e-10)): P is the power spectrum of each window, W the mel filters.

    Args:
        audio: (B, 160 (L - 1) + 400) float32, cut into Hann windows of 25 ms every 10 ms.
        n_mels: M, mel bins (static under jit).

    Returns:
        (B, L, M) float32, neither clamped nor scaled.
    """
    batch, samples = audio.shape
    frames = (samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    # A window is two and a half hops. Cut the signal into hops and concatenate neighbours: copies
    # are faster than a gather with (L, 400) indices.
    rest = WINDOW_SAMPLES - 2 * HOP_SAMPLES
    hops = jnp.pad(audio, ((0, 0), (0, HOP_SAMPLES - rest))).reshape(batch, frames + 2, HOP_SAMPLES)
    windows = jnp.concatenate([hops[:, :-2], hops[:, 1:-1], hops[:, 2:, :rest]], axis=-1)
    # Whisper's Hann window is periodic, as torch.hann_window; np.hanning is symmetric.
    hann = jnp.asarray(np.hanning(WINDOW_SAMPLES + 1)[:-1], jnp.float32)
    spectrum = jnp.fft.rfft(windows * hann[None, None, :], axis=-1)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # Without full precision a TPU multiplies in bfloat16, and the logarithm magnifies the error.
    mel = jnp.matmul(power, jnp.asarray(mel_filters(n_mels)), precision=jax.lax.Precision.HIGHEST)
    return jnp.log10(jnp.maximum(mel, 1e-10))
