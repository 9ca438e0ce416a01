"""A model as the long-form loop sees it: four functions of batches of windows."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.decoding import language, window_search
from fastwhisper_jax.decoding import windows as window_decoding
from fastwhisper_jax.decoding.windows import WindowRules, WindowTokens
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.transcription import word_timestamps

Heads = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class WindowModel:
    """What can be asked of a batch of windows; each function is compiled once per shape.

    Attributes:
        encode: log_mel (B, L, M) to encoder_states (B, S, D).
        detect_language: encoder_states to (B,), indices into the language tokens.
        decode: (encoder_states, prompt (B, P), prompt_lengths (B,), temperatures (B,), seeds (B,) uint32,
            row_mask (B,)) to WindowTokens; a batch has one temperature.
        attend: (encoder_states, row, tokens (T,)) to cross-attention (heads, T, S) of the alignment heads
            in one row of the batch.
    """

    encode: Callable[[np.ndarray], Any]
    detect_language: Callable[[Any], np.ndarray]
    decode: Callable[..., WindowTokens]
    attend: Callable[[Any, int, np.ndarray], np.ndarray]


def make_window_model(
    params: whisper.Params,
    dims: ModelDimensions,
    options: ModelOptions,
    rules: WindowRules,
    start_of_transcript: int,
    language_tokens: Sequence[int] = (),
    alignment_heads: Heads = (),
    beams: int = 1,
) -> WindowModel:
    """Binds a model's parameters and compiles nothing yet.

    Args:
        params: on the device, in the compute dtype.
        dims: sizes of the model.
        options: how to compute.
        rules: what to decode.
        start_of_transcript: the token that every prompt's last part begins with.
        language_tokens: one token a language; none for English-only models.
        alignment_heads: (layer, head) pairs; none where word timestamps are not wanted.
        beams: how many hypotheses are searched at temperature 0; 1 decodes greedily.
    """

    @jax.jit
    def encode(params: whisper.Params, log_mel: jax.Array) -> jax.Array:
        return whisper.encode(params, dims, log_mel, options)

    @jax.jit
    def detect(params: whisper.Params, encoder_states: jax.Array) -> jax.Array:
        return language.detect_language(
            params, dims, options, encoder_states, start_of_transcript, language_tokens
        )

    @jax.jit
    def decode(
        params: whisper.Params,
        encoder_states: jax.Array,
        prompt: jax.Array,
        prompt_lengths: jax.Array,
        temperatures: jax.Array,
        seeds: jax.Array,
        row_mask: jax.Array,
    ) -> WindowTokens:
        keys = jax.vmap(jax.random.key)(seeds)
        texts = (prompt, prompt_lengths, temperatures)
        return window_decoding.decode_windows(
            params, dims, options, rules, encoder_states, *texts, keys, row_mask
        )

    @jax.jit
    def search(
        params: whisper.Params,
        encoder_states: jax.Array,
        prompt: jax.Array,
        prompt_lengths: jax.Array,
        row_mask: jax.Array,
    ) -> WindowTokens:
        rows = (encoder_states, prompt, prompt_lengths, row_mask)
        return window_search.search_windows(params, dims, options, rules, *rows, beams)

    def decode_or_search(
        encoder_states: Any,
        prompt: np.ndarray,
        prompt_lengths: np.ndarray,
        temperatures: np.ndarray,
        seeds: np.ndarray,
        row_mask: np.ndarray,
    ) -> WindowTokens:
        if beams > 1 and not temperatures.any():
            return search(params, encoder_states, prompt, prompt_lengths, row_mask)
        return decode(params, encoder_states, prompt, prompt_lengths, temperatures, seeds, row_mask)

    @jax.jit
    def attend(
        params: whisper.Params, encoder_states: jax.Array, row: jax.Array, tokens: jax.Array
    ) -> jax.Array:
        lone = jax.lax.dynamic_slice_in_dim(encoder_states, row, 1)
        return word_timestamps.cross_attention(
            params, dims, options, tokens[None], lone, alignment_heads
        )[0]

    return WindowModel(
        encode=lambda log_mel: encode(params, jnp.asarray(log_mel)),
        detect_language=lambda encoder_states: np.asarray(detect(params, encoder_states)),
        decode=lambda *arrays: jax.device_get(decode_or_search(*arrays)),
        attend=lambda encoder_states, row, tokens: np.asarray(
            attend(params, encoder_states, jnp.int32(row), tokens)
        ),
    )
