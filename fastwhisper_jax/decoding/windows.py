"""Decoding a batch of windows whose prompts differ in length, with timestamps, by temperature."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.decoding.timestamps import TimestampRules, apply_timestamp_rules
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


@dataclasses.dataclass(frozen=True)
class WindowRules:
    """What is decoded; hashable, so that it can be static under `jax.jit`.

    Attributes:
        decoding: end of text and suppressed tokens.
        timestamps: the rules of timestamps; None decodes plain text.
        no_speech: the token whose probability after start of transcript tells silence.
        start_tokens: how many tokens every prompt ends with: start of transcript and what follows.
        max_new_tokens: the most tokens to emit a window.
    """

    decoding: DecodingRules
    timestamps: TimestampRules | None
    no_speech: int
    start_tokens: int
    max_new_tokens: int


class WindowTokens(NamedTuple):
    """What a batch of windows was decoded to.

    Attributes:
        tokens: (B, T) int32 emitted tokens; end of text from a row's end on.
        log_probabilities: (B, T) float32 of each token, under the rules, at temperature 1; that of
            the first end of text included, 0 behind it.
        counts: (B,) int32 emitted tokens, without end of text.
        no_speech: (B,) float32 probability that nobody speaks.
    """

    tokens: jax.Array
    log_probabilities: jax.Array
    counts: jax.Array
    no_speech: jax.Array


class _Carry(NamedTuple):
    step: jax.Array
    last: jax.Array
    cache: cached_decoder.Cache
    ended: jax.Array
    tokens: jax.Array
    log_probabilities: jax.Array


def decode_windows(
    params: Params,
    dims: ModelDimensions,
    options: ModelOptions,
    rules: WindowRules,
    encoder_states: jax.Array,
    prompt: jax.Array,
    prompt_lengths: jax.Array,
    temperatures: jax.Array,
    keys: jax.Array,
    row_mask: jax.Array,
) -> WindowTokens:
    """Emits tokens for each window until all have ended.

    Call it under `jax.jit`; it compiles once per batch size and prompt width. A row's result does
    not depend on the other rows.

    Args:
        params: parameters; only `params["decoder"]` is read.
        dims: sizes of the model.
        options: how to compute; logits are float32 in any case.
        rules: what to decode.
        encoder_states: (B, S, D), the output of `encode`.
        prompt: (B, P) int32, each row's prompt, filled up behind its end with any token.
        prompt_lengths: (B,) int32, the prompts' own lengths, at least `rules.start_tokens`.
        temperatures: (B,) float32; 0 takes the likeliest token, others draw from
            softmax(logits / temperature).
        keys: (B,) PRNG keys, for rows that draw.
        row_mask: (B,) bool, False for rows that are only there to fill the batch.

    Source: openai/whisper `decoding.py`, `DecodingTask` with one sample and no beam.
    """
    end_of_text = rules.decoding.end_of_text
    batch, width = prompt.shape
    room, limits = token_limits(rules, dims, prompt_lengths)
    decoder = cached_decoder.unstack_layers(params, dims, options)
    banned = jnp.asarray(rules.decoding.banned(dims.n_vocab))
    banned_first = jnp.asarray(rules.decoding.banned_first(dims.n_vocab))
    is_drawing = jnp.any((temperatures > 0) & row_mask)

    logits_of = functools.partial(_logits, decoder)

    def pick(
        logits: jax.Array, tokens: jax.Array, step: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        is_first = isinstance(step, int)
        logits = logits + (banned_first if is_first else banned)[None]
        if rules.timestamps is not None:
            logits = apply_timestamp_rules(logits, rules.timestamps, tokens, step)
        likeliest = jnp.argmax(logits, axis=1)

        def draw() -> jax.Array:
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
            scaled = logits / jnp.where(temperatures > 0, temperatures, 1.0)[:, None]
            drawn = jax.vmap(jax.random.categorical)(step_keys, scaled)
            return jnp.where(temperatures > 0, drawn, likeliest)

        # Random numbers for the whole vocabulary are drawn only where a row wants them.
        token = jax.lax.cond(is_drawing, draw, lambda: likeliest).astype(jnp.int32)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
        return token, chosen - jax.nn.logsumexp(logits, axis=1)

    def is_running(carry: _Carry) -> jax.Array:
        return (carry.step < room) & ~carry.ended.all()

    def emit(carry: _Carry) -> _Carry:
        states, cache = _extend_rows(decoder, dims, carry.cache, carry.last[:, None], options)
        token, log_probability = pick(logits_of(states[:, 0]), carry.tokens, carry.step)
        ended = carry.ended | (carry.step >= limits)
        token = jnp.where(ended, end_of_text, token)
        log_probability = jnp.where(ended, 0.0, log_probability)
        at = (jnp.int32(0), carry.step)
        return _Carry(
            carry.step + 1,
            token,
            cache,
            ended | (token == end_of_text),
            jax.lax.dynamic_update_slice(carry.tokens, token[:, None], at),
            jax.lax.dynamic_update_slice(carry.log_probabilities, log_probability[:, None], at),
        )

    # The last emitted token is never fed back, so the cache needs no place for it.
    length = min(width + room - 1, dims.n_text_ctx)
    cache = cached_decoder.start(decoder, dims, encoder_states, options, length)
    states, cache = cached_decoder.extend(decoder, dims, cache, prompt, options)
    # What was written behind a row's own prompt is overwritten token by token before it is seen.
    cache = cache._replace(position=prompt_lengths)
    no_speech = no_speech_probability(decoder, rules, states, prompt_lengths)
    empty = jnp.full((batch, rules.max_new_tokens), end_of_text, jnp.int32)
    last_states = row_states(states, prompt_lengths - 1)
    first, log_probability = pick(logits_of(last_states), empty, 0)
    first = jnp.where(row_mask, first, end_of_text)
    log_probability = jnp.where(row_mask, log_probability, 0.0)
    carry = _Carry(
        jnp.int32(1),
        first,
        cache,
        first == end_of_text,
        empty.at[:, 0].set(first),
        jnp.zeros(empty.shape, jnp.float32).at[:, 0].set(log_probability),
    )
    done = jax.lax.while_loop(is_running, emit, carry)
    counts = (done.tokens != end_of_text).sum(axis=1).astype(jnp.int32)
    return WindowTokens(done.tokens, done.log_probabilities, counts, no_speech)


def token_limits(
    rules: WindowRules, dims: ModelDimensions, prompt_lengths: jax.Array
) -> tuple[int, jax.Array]:
    """The most tokens to emit in any window, and in each (B,): no more than the context holds."""
    room = min(rules.max_new_tokens, dims.n_text_ctx - rules.start_tokens)
    return room, jnp.minimum(room, dims.n_text_ctx - prompt_lengths)


def no_speech_probability(
    decoder: dict[str, Any], rules: WindowRules, states: jax.Array, prompt_lengths: jax.Array
) -> jax.Array:
    """(B,): of the no-speech token right after start of transcript, from the prompts' states."""
    at_start = row_states(states, prompt_lengths - rules.start_tokens)
    return jax.nn.softmax(_logits(decoder, at_start), axis=1)[:, rules.no_speech]


def row_states(states: jax.Array, positions: jax.Array) -> jax.Array:
    """The state (B, D) of each row at its own position."""
    return jnp.take_along_axis(states, positions[:, None, None], axis=1)[:, 0]


def _logits(decoder: dict[str, Any], states: jax.Array) -> jax.Array:
    """(B, V) float32 of states (B, D)."""
    # As VD,BD->VB the embedding is streamed as it lies in memory, a third faster on CPU.
    embedding = decoder["embed_tokens"]
    return jnp.einsum("VD,BD->VB", embedding, states, preferred_element_type=jnp.float32).T


def _extend_rows(
    decoder: dict[str, Any],
    dims: ModelDimensions,
    cache: cached_decoder.Cache,
    tokens: jax.Array,
    options: ModelOptions,
) -> tuple[jax.Array, cached_decoder.Cache]:
    """`cached_decoder.extend` where every row stands at its own position (B,)."""

    def extend_row(
        position: jax.Array, layers: Any, row: jax.Array
    ) -> tuple[jax.Array, cached_decoder.Cache]:
        lone = jax.tree.map(lambda x: x[None], layers)
        one = cached_decoder.Cache(position, lone)
        states, one = cached_decoder.extend(decoder, dims, one, row[None], options)
        return states[0], one._replace(layers=jax.tree.map(lambda x: x[0], one.layers))

    return jax.vmap(extend_row)(cache.position, cache.layers, tokens)
