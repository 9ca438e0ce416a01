"""Beam search of a batch of windows whose prompts differ in length, with timestamps."""

import jax
import jax.numpy as jnp

from fastwhisper_jax.decoding.beam import beam_search, cache_length
from fastwhisper_jax.decoding.timestamps import TimestampRules, apply_timestamp_rules
from fastwhisper_jax.decoding.windows import (
    WindowRules,
    WindowTokens,
    no_speech_probability,
    row_states,
    token_limits,
)
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


def search_windows(
    params: Params,
    dims: ModelDimensions,
    options: ModelOptions,
    rules: WindowRules,
    encoder_states: jax.Array,
    prompt: jax.Array,
    prompt_lengths: jax.Array,
    row_mask: jax.Array,
    beams: int,
) -> WindowTokens:
    """Emits the best text that a search over `beams` hypotheses at a time finds for each window.

    Call it under `jax.jit`; it compiles once per batch size and prompt width. The arguments are
    those of `window_decoding.decode_windows`, and so is the result, but that log-probabilities are
    not shared out anew among the tokens that the rules leave, as in transformers' search.

    Source: transformers 5 `WhisperGenerationMixin.generate` with num_beams and return_timestamps.
    """
    end_of_text = rules.decoding.end_of_text
    room, limits = token_limits(rules, dims, prompt_lengths)
    decoder = cached_decoder.unstack_layers(params, dims, options)
    length = cache_length(prompt.shape[1], room, beams)
    cache = cached_decoder.start(decoder, dims, encoder_states, options, length)
    states, cache = cached_decoder.extend(decoder, dims, cache, prompt, options)

    def constrain(log_probs: jax.Array, tokens: jax.Array, step: jax.Array | int) -> jax.Array:
        if rules.timestamps is None:
            return log_probs
        return _constrained(log_probs, rules.timestamps, tokens, step)

    found = beam_search(
        decoder,
        dims,
        options,
        cache,
        row_states(states, prompt_lengths - 1),
        prompt_lengths,
        rules.decoding,
        jnp.where(row_mask, limits, 0),
        room,
        beams,
        constrain=constrain,
    )
    rest = ((0, 0), (0, rules.max_new_tokens - room))
    tokens = jnp.pad(found.tokens[:, 0], rest, constant_values=end_of_text)
    return WindowTokens(
        tokens,
        jnp.pad(found.log_probs[:, 0], rest),
        (tokens != end_of_text).sum(axis=1).astype(jnp.int32),
        no_speech_probability(decoder, rules, states, prompt_lengths),
    )


def _constrained(
    log_probs: jax.Array, rules: TimestampRules, tokens: jax.Array, step: jax.Array | int
) -> jax.Array:
    """The rules for log_probs (B, G, V) of beams that have emitted tokens (B, G, T)."""
    rows = log_probs.reshape(-1, log_probs.shape[-1])
    emitted = tokens.reshape(-1, tokens.shape[-1])
    return apply_timestamp_rules(rows, rules, emitted, step).reshape(log_probs.shape)
