"""SpecAugment: masks random spans of frames and of mel bins, on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def spec_augment(
    log_mel: Float[Array, "B L M"],
    key: jax.Array,
    *,
    time_masks: int,
    time_mask_frames: int,
    freq_masks: int,
    freq_mask_bins: int,
    time_mask_fraction: float = 1.0,
    frames: Int[Array, " B"] | None = None,
) -> Float[Array, "B L M"]:
    """Masks random spans of frames and of mel bins, drawn anew for each row.

    A masked value becomes the mean of its row's speech frames, as in the paper (there it is zero
    after mean normalisation). The minimum would look like silence, and would teach the model to
    write words where nobody speaks.

    Args:
        log_mel: (B, L, M).
        key: PRNG key; the same key gives the same masks.
        time_masks: spans of frames to mask in each row.
        time_mask_frames: length of the longest such span. Lengths are uniform from 0 to this.
        freq_masks: spans of mel bins to mask in each row.
        freq_mask_bins: width of the widest such span. Widths are uniform from 0 to this.
        time_mask_fraction: no span is longer than this fraction of its row's speech, in (0, 1].
        frames: (B,) int, number of speech frames in each row. Frames after them are padding and do
            not change. None: all L frames are speech.

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
    """Draws `count` random spans for each row.

    Args:
        key: PRNG key.
        count: spans in each row.
        widest: (B,) int, the largest width.
        limit: (B,) int, spans end at or before this position.
        size: number of positions.

    Returns:
        (B, size) bool, True inside a span.
    """
    width_key, start_key = jax.random.split(key)
    shape = (count, *limit.shape)
    widths = jax.random.randint(width_key, shape, 0, jnp.broadcast_to(widest[None] + 1, shape))
    starts = jax.random.randint(start_key, shape, 0, limit[None] - widths + 1)
    positions = jnp.arange(size)[None, None, :]
    inside = (positions >= starts[..., None]) & (positions < (starts + widths)[..., None])
    return jnp.any(inside, axis=0)
