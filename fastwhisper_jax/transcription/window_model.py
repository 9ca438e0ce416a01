"""A model as the long-form loop uses it: four functions of batches of windows."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.decoding.beam import beam_search
from fastwhisper_jax.decoding.greedy import Sampling, greedy_decode
from fastwhisper_jax.decoding.language import detect_language
from fastwhisper_jax.decoding.prefill import (
    Prefill,
    Prompts,
    WhisperModel,
    no_speech_probability,
    prefill,
)
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.models import whisper
from fastwhisper_jax.transcription.prompt_format import PromptFormat
from fastwhisper_jax.transcription.word_timestamps import cross_attention

# NumPy arrays outside of `jax.jit`, JAX arrays in it.
Array = Any

Heads = tuple[tuple[int, int], ...]


class WindowPrompts(NamedTuple):
    """What the windows of a batch are decoded with.

    Attributes:
        tokens: (B, P) int32; each row holds its own prompt, then any tokens up to P.
        lengths: (B,) int32, the prompts' own lengths.
        temperatures: (B,) float32, one for all windows that are decoded.
        seeds: (B,) uint32, of the draws at temperatures above 0.
        row_mask: (B,) bool, False for windows that are not decoded.
    """

    tokens: Array
    lengths: Array
    temperatures: Array
    seeds: Array
    row_mask: Array


class WindowTokens(NamedTuple):
    """The tokens of a batch of windows.

    Attributes:
        tokens: (B, T) int32 emitted tokens; end of text from a row's end on.
        log_probs: (B, T) float32 of each token at temperature 1, that of the first end of text
            included; 0 after it.
        counts: (B,) int32, how many tokens were emitted, without end of text.
        no_speech: (B,) float32, the probability that nobody speaks.
    """

    tokens: Array
    log_probs: Array
    counts: Array
    no_speech: Array


@dataclasses.dataclass(frozen=True)
class WindowModel:
    """The questions that a batch of windows can be asked; each function compiles once per shape.

    Attributes:
        encode: log_mel (B, L, M) to encoder_states (B, S, D).
        detect_language: encoder_states to (B,), indices into the model's languages.
        decode: (encoder_states, prompts) to the tokens of the windows.
        attend: (encoder_states, row, tokens (T,)) to the cross-attention (heads, T, S) of the
            alignment heads in one row of the batch.
    """

    encode: Callable[[np.ndarray], Any]
    detect_language: Callable[[Any], np.ndarray]
    decode: Callable[[Any, WindowPrompts], WindowTokens]
    attend: Callable[[Any, int, np.ndarray], np.ndarray]


def make_window_model(
    model: WhisperModel,
    prompt_format: PromptFormat,
    rules: DecodingRules,
    max_new_tokens: int,
    beams: int = 1,
    alignment_heads: Heads = (),
) -> WindowModel:
    """Makes the four functions; each compiles when it is first called.

    Args:
        model: the model, on the device, in the compute dtype.
        prompt_format: the tokens of prompts.
        rules: what may be emitted.
        max_new_tokens: the most tokens a window.
        beams: how many hypotheses are searched at temperature 0; 1 decodes greedily.
        alignment_heads: (layer, head) pairs; none where word timestamps are not wanted.
    """

    def with_params(params: whisper.Params) -> WhisperModel:
        # jit takes the parameters as an argument: as constants they would be compiled in.
        return model._replace(params=params)

    @jax.jit
    def encode(params: whisper.Params, log_mel: jax.Array) -> jax.Array:
        return whisper.encode(params, model.dims, log_mel, model.options)

    @jax.jit
    def detect(params: whisper.Params, encoder_states: jax.Array) -> jax.Array:
        languages = tuple(prompt_format.languages.values())
        return detect_language(with_params(params), encoder_states, prompt_format.start, languages)

    @functools.partial(jax.jit, static_argnames="beams")
    def decode(
        params: whisper.Params, encoder_states: jax.Array, prompts: WindowPrompts, *, beams: int
    ) -> WindowTokens:
        tokens, lengths, temperatures, seeds, row_mask = prompts
        batch = Prompts(tokens, lengths, prompt_format.start_length, row_mask)
        start = prefill(with_params(params), encoder_states, batch, max_new_tokens, beams)
        sampling = Sampling(temperatures, jax.vmap(jax.random.key)(seeds))
        no_speech = no_speech_probability(start, prompt_format.no_speech)
        return _window_tokens(start, rules, sampling, beams, no_speech)

    def decode_windows(encoder_states: Any, prompts: WindowPrompts) -> WindowTokens:
        # Only windows at temperature 0 are searched; the others draw their tokens.
        used_beams = 1 if np.any(prompts.temperatures) else beams
        return jax.device_get(decode(model.params, encoder_states, prompts, beams=used_beams))

    @jax.jit
    def attend(
        params: whisper.Params, encoder_states: jax.Array, row: jax.Array, tokens: jax.Array
    ) -> jax.Array:
        states = jax.lax.dynamic_slice_in_dim(encoder_states, row, 1)
        return cross_attention(with_params(params), tokens[None], states, alignment_heads)[0]

    return WindowModel(
        encode=lambda log_mel: encode(model.params, jnp.asarray(log_mel)),
        detect_language=lambda encoder_states: np.asarray(detect(model.params, encoder_states)),
        decode=decode_windows,
        attend=lambda encoder_states, row, tokens: np.asarray(
            attend(model.params, encoder_states, jnp.int32(row), tokens)
        ),
    )


def _window_tokens(
    start: Prefill, rules: DecodingRules, sampling: Sampling, beams: int, no_speech: jax.Array
) -> WindowTokens:
    """Decodes a batch of windows: a beam search if there are several beams, else greedily."""
    if beams > 1:
        hypotheses = beam_search(start, rules)
    else:
        hypotheses = greedy_decode(start, rules, sampling)
    tokens = hypotheses.tokens[:, 0]
    counts = (tokens != rules.end_of_text).sum(axis=1).astype(jnp.int32)
    return WindowTokens(tokens, hypotheses.log_probs[:, 0], counts, no_speech)
