"""Finds when each token is spoken, from the cross-attention of the alignment heads.

Dynamic time warping turns the attention into one time for each token.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_TIMESTAMP
from fastwhisper_jax.decoding.prefill import WhisperModel
from fastwhisper_jax.models.whisper.cached_decoder import unstack_layers
from fastwhisper_jax.models.whisper.decoder import DecoderLayer

MEDIAN_WIDTH = 7


def cross_attention(
    model: WhisperModel,
    tokens: jax.Array,
    encoder_states: jax.Array,
    heads: Sequence[tuple[int, int]],
) -> jax.Array:
    """The cross-attention of chosen heads while the decoder reads tokens.

    Args:
        model: the model; the attention's softmax is float32 in any case.
        tokens: (B, T) int32, what the decoder reads.
        encoder_states: (B, S, D), the output of `encode`.
        heads: (layer, head) pairs, both from 0.

    Returns:
        (B, len(heads), T, S) float32; each row over S sums to 1.
    """
    dims, options = model.dims, model.options
    decoder = unstack_layers(model.params, dims, options)
    layer = DecoderLayer(dims.n_state, dims.n_text_head, dims.n_text_mlp, options)
    dtype = options.compute_dtype
    x = decoder["embed_tokens"][tokens] + decoder["positions"][None, : tokens.shape[1]]
    encoder_states = encoder_states.astype(dtype)
    attended: dict[tuple[int, int], jax.Array] = {}
    # Layers above the last chosen head are not needed.
    for index in range(max(layer_index for layer_index, _ in heads) + 1):
        weights = {"params": decoder["layers"][index]}
        output: Any = layer.apply(weights, x, encoder_states, method=_with_attention)
        x, attention = output
        chosen = [head for layer_index, head in heads if layer_index == index]
        attended |= {(index, head): attention[:, head] for head in chosen}
    return jnp.stack([attended[pair] for pair in heads], axis=1)


def _with_attention(
    layer: DecoderLayer, x: jax.Array, encoder_states: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The layer's output for x (B, T, D), and its cross-attention (B, N, T, S)."""
    normed = layer.attn_norm(x)
    causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    x = x + layer.attn(normed, *layer.attn.keys_values(normed), causal)
    normed = layer.cross_attn_norm(x)
    keys, values = layer.cross_attn.keys_values(encoder_states)
    query = layer.cross_attn.query(normed).reshape(*x.shape[:2], layer.heads, keys.shape[-1])
    scores = jnp.einsum("BTNH,BNSH->BNTS", query, keys, preferred_element_type=jnp.float32)
    attention = jax.nn.softmax(scores * keys.shape[-1] ** -0.5, axis=-1)
    x = x + layer.cross_attn(normed, keys, values)
    return x + layer.mlp(layer.mlp_norm(x)), attention


def token_times(
    attention: np.ndarray, seconds_per_position: float = SECONDS_PER_TIMESTAMP
) -> np.ndarray:
    """The end of each token: when the attention moves on to the next one.

    Each head's attention is normalised over the tokens and smoothed along time. Dynamic time
    warping finds the path of highest attention through the mean over heads. A token's time is the
    position at which the path enters the token's row.

    Args:
        attention: (heads, T, S) of T emitted tokens, and S positions within the recording.
        seconds_per_position: seconds between two positions of the encoder.

    Returns:
        (T,) seconds from the window's start, never decreasing.

    Source: transformers `WhisperGenerationMixin._extract_token_timestamps`. The row of a token
    says when the *next* one is spoken, so a token starts at the time of the one before it.
    """
    if not attention.size:
        return np.zeros((attention.shape[1],))
    mean = attention.mean(axis=1, keepdims=True)
    deviation = attention.std(axis=1, keepdims=True)
    # With a single token the deviation is 0.
    normalised = (attention - mean) / np.where(deviation == 0, 1.0, deviation)
    gains = median_filter(normalised, MEDIAN_WIDTH).mean(axis=0)
    tokens, positions = time_warping_path(-gains.astype(np.float64))
    is_new = np.concatenate([[True], np.diff(tokens) > 0])
    return positions[is_new] * seconds_per_position


def median_filter(x: np.ndarray, width: int) -> np.ndarray:
    """The median of each `width` neighbours along the last axis, which is reflected at its ends.

    An axis that is too short to reflect is left unchanged, as in openai/whisper `timing.py`.

    Args:
        x: (..., S).
        width: an odd number.
    """
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    return np.partition(windows, half, axis=-1)[..., half]


def time_warping_path(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest monotonic path through costs (T, S), from the first cell to the last.

    A step goes to the next row, the next column, or both. A cell depends only on the two
    anti-diagonals before its own, so each anti-diagonal is computed at once.

    Returns:
        The rows and the columns of the path's cells, in order.

    Source: openai/whisper `timing.py`, `dtw_cpu`, ties included.
    """
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    total[0, 0] = 0.0
    # Where the path to a cell comes from: 0 is the diagonal, 1 the row above, 2 the column before.
    origin = np.full((rows + 1, columns + 1), 2, np.int8)
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, above, before = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        from_both = (both < above) & (both < before)
        from_above = ~from_both & (above < both) & (above < before)
        origin[i, j] = np.where(from_both, 0, np.where(from_above, 1, 2))
        least = np.where(from_both, both, np.where(from_above, above, before))
        total[i, j] = costs[i - 1, j - 1] + least
    origin[0, :], origin[:, 0] = 2, 1
    path = []
    row, column = rows, columns
    while row > 0 or column > 0:
        path.append((row - 1, column - 1))
        step = origin[row, column]
        row -= step != 2
        column -= step != 1
    cells = np.array(path[::-1])
    return cells[:, 0], cells[:, 1]
