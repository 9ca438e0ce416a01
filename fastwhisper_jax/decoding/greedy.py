"""Greedy decoding of a batch: the likeliest token at each step, or one drawn by temperature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastwhisper_jax.decoding.hypotheses import Hypotheses
from fastwhisper_jax.decoding.prefill import (
    Prefill,
    extend_texts,
    last_states,
    next_logits,
    prompt_mask,
)
from fastwhisper_jax.decoding.rules import DecodingRules, apply_rules
from fastwhisper_jax.models.whisper import cached_decoder


class Sampling(NamedTuple):
    """How rows draw their tokens.

    Attributes:
        temperatures: (B,) float32; 0 takes the likeliest token, others draw from
            softmax(logits / temperature).
        keys: (B,) PRNG keys of the rows that draw.
    """

    temperatures: jax.Array
    keys: jax.Array


class _Carry(NamedTuple):
    """The state of the loop after `step` tokens; `ended` is (B,) bool."""

    step: jax.Array
    cache: cached_decoder.Cache
    ended: jax.Array
    tokens: jax.Array
    log_probs: jax.Array


def greedy_decode(
    start: Prefill, rules: DecodingRules, sampling: Sampling | None = None
) -> Hypotheses:
    """Emits token after token until every row has ended.

    Call it under `jax.jit`, after `prefill`. A row's result does not depend on the other rows.

    Args:
        start: what was computed from the prompts, for one beam.
        rules: what may be emitted.
        sampling: how to draw; None takes the likeliest token, the lower one of two that are
            equally likely.

    Returns:
        One hypothesis a row. The log-probabilities are those under the rules at temperature 1:
        they are shared out among the tokens that the rules leave.

    Source: transformers `WhisperForConditionalGeneration.generate` with num_beams=1;
    openai/whisper `decoding.py`, `DecodingTask` with one sample and no beam.
    """
    rows, width = start.prompts.tokens.shape
    is_prompt = prompt_mask(start)
    cache_positions = jnp.arange(is_prompt.shape[1])

    def emit(carry: _Carry, states: jax.Array, step: jax.Array | int) -> _Carry:
        """Adds the token that follows states (B, D); `step` is a Python 0 for the first one."""
        scores = apply_rules(next_logits(start, states), rules, carry.tokens, step)
        token = jnp.argmax(scores, axis=1).astype(jnp.int32)
        if sampling is not None:
            token = _drawn(scores, token, sampling, start.prompts.row_mask, step)
        score = jnp.take_along_axis(scores, token[:, None], axis=1)[:, 0]
        log_prob = score - jax.nn.logsumexp(scores, axis=1)
        ended = carry.ended | (step >= start.limits)
        token = jnp.where(ended, rules.end_of_text, token)[:, None]
        log_prob = jnp.where(ended, 0.0, log_prob)[:, None]
        return _Carry(
            carry.step + 1,
            carry.cache,
            ended | (token[:, 0] == rules.end_of_text),
            jax.lax.dynamic_update_slice_in_dim(carry.tokens, token, step, axis=1),
            jax.lax.dynamic_update_slice_in_dim(carry.log_probs, log_prob, step, axis=1),
        )

    def is_running(carry: _Carry) -> jax.Array:
        return (carry.step < start.max_new_tokens) & ~carry.ended.all()

    def advance(carry: _Carry) -> _Carry:
        is_emitted = (cache_positions >= width) & (cache_positions <= carry.cache.position)
        mask = (is_prompt | is_emitted[None])[:, None]
        last = jax.lax.dynamic_slice_in_dim(carry.tokens, carry.step - 1, 1, axis=1)
        states, cache = extend_texts(start, carry.cache, last, carry.step, mask)
        return emit(carry._replace(cache=cache), states[:, 0], carry.step)

    tokens = jnp.full((rows, start.max_new_tokens), rules.end_of_text, jnp.int32)
    log_probs = jnp.zeros(tokens.shape, jnp.float32)
    carry = _Carry(jnp.int32(0), start.cache, jnp.zeros(rows, bool), tokens, log_probs)
    carry = jax.lax.while_loop(is_running, advance, emit(carry, last_states(start), 0))
    return Hypotheses(carry.tokens[:, None], carry.log_probs[:, None])


def _drawn(
    scores: jax.Array,
    likeliest: jax.Array,
    sampling: Sampling,
    row_mask: jax.Array,
    step: jax.Array | int,
) -> jax.Array:
    """The next token (B,) of each row: drawn, or the likeliest where the temperature is 0."""
    draws = sampling.temperatures > 0

    def draw() -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(sampling.keys, step)
        scaled = scores / jnp.where(draws, sampling.temperatures, 1.0)[:, None]
        drawn = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
        return jnp.where(draws, drawn, likeliest)

    # Random numbers for the whole vocabulary are computed only if some row needs them.
    return jax.lax.cond(jnp.any(draws & row_mask), draw, lambda: likeliest)
