"""Beam search of a batch, with cached keys and values.

The beams of a row are fed as alternatives of one text (`cached_decoder.extend`): the audio's keys
and values and the prompt's are kept once a row, and every beam attends to its own ancestors among
all tokens fed so far, by a mask. So choosing among beams moves no keys and values.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.decoding import hypotheses
from fastwhisper_jax.decoding.rules import DecodingRules, new_token_room
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params

# (log_probs (B, G, V), tokens (B, G, T), step) -> log_probs: what may follow the first `step`
# tokens of each hypothesis; `step` is a Python 0 before the first token, when G is 1.
Constrain = Callable[[jax.Array, jax.Array, jax.Array | int], jax.Array]


def beam_decode(
    params: Params,
    dims: ModelDimensions,
    options: ModelOptions,
    encoder_states: jax.Array,
    prompt: jax.Array,
    rules: DecodingRules,
    max_new_tokens: int,
    beams: int,
    length_penalty: float = 1.0,
    row_mask: jax.Array | None = None,
) -> jax.Array:
    """Emits the best of the hypotheses that a search over `beams` at a time has finished.

    Call it under `jax.jit`; it compiles once per batch size, prompt length, max_new_tokens and
    beams. A row's tokens do not depend on the other rows.

    Args:
        params: parameters; only `params["decoder"]` is read.
        dims: sizes of the model.
        options: how to compute; log-probabilities and scores are float32 in any case.
        encoder_states: (B, S, D), the output of `encode`.
        prompt: (B, P) int32, the forced tokens of each row.
        rules: the end-of-text token and the suppressed ones.
        max_new_tokens: the most tokens to emit a row, >= 1; where prompt and new tokens exceed
            n_text_ctx, decoding stops there.
        beams: G >= 1. One beam is not quite greedy decoding: when its likeliest token ends the
            text, it goes on with the next likeliest while a longer text may score better.
        length_penalty: the power of the length that a hypothesis' score is divided by; > 0
            favours long texts, 0 compares sums.
        row_mask: (B,) bool, False for rows that only fill the batch up: they emit nothing and are
            not waited for.

    Returns:
        (B, max_new_tokens) int32: the emitted tokens of each row, without the prompt; end_of_text
        from the row's end on.

    Raises:
        InputError: beams < 1, or not a single token can be emitted.
    """
    if beams < 1:
        raise InputError(f"beams={beams} must be at least 1")
    batch, prompt_length = prompt.shape
    new_tokens = new_token_room(dims, prompt_length, max_new_tokens)
    decoder = cached_decoder.unstack_layers(params, dims, options)
    length = cache_length(prompt_length, new_tokens, beams)
    cache = cached_decoder.start(decoder, dims, encoder_states, options, length)
    states, cache = cached_decoder.extend(decoder, dims, cache, prompt, options)
    limits = jnp.full(batch, new_tokens)
    if row_mask is not None:
        limits = jnp.where(row_mask, limits, 0)
    found = beam_search(
        decoder,
        dims,
        options,
        cache,
        states[:, -1],
        jnp.full(batch, prompt_length),
        rules,
        limits,
        new_tokens,
        beams,
        length_penalty,
    )
    rest = ((0, 0), (0, max_new_tokens - new_tokens))
    return jnp.pad(found.tokens[:, 0], rest, constant_values=rules.end_of_text)


def cache_length(prompt_width: int, new_tokens: int, beams: int) -> int:
    """K, the places that a search needs: the last tokens emitted are never fed back."""
    return prompt_width + (new_tokens - 1) * beams


def beam_search(
    decoder: dict[str, Any],
    dims: ModelDimensions,
    options: ModelOptions,
    cache: cached_decoder.Cache,
    last_states: jax.Array,
    prompt_lengths: jax.Array,
    rules: DecodingRules,
    limits: jax.Array,
    new_tokens: int,
    beams: int,
    length_penalty: float = 1.0,
    constrain: Constrain | None = None,
) -> hypotheses.Hypotheses:
    """Searches on from prompts that the cache holds.

    Args:
        decoder: the result of `unstack_layers`.
        dims: sizes of the model.
        options: how to compute.
        cache: of `cache_length` places, the first `cache.position` of which hold the prompts.
        last_states: (B, D), the decoder's states at each prompt's last token.
        prompt_lengths: (B,) int32, the prompts' own lengths; what the cache holds of a row behind
            its own is not attended to.
        rules: the end-of-text token and the suppressed ones.
        limits: (B,) int32, the most tokens to emit in each row; 0 for rows that only fill the
            batch up: they emit nothing and are not waited for.
        new_tokens: T, the largest of the limits at most.
        beams: G.
        length_penalty: see `beam_decode`.
        constrain: further rules; None for none.

    Returns:
        The finished hypotheses, the best first.

    Source: transformers 5 `GenerationMixin._beam_search` with early_stopping=False and
    do_sample=False.
    """
    batch, length = last_states.shape[0], cache.layers[0].keys.shape[2]
    # A few queries a row: one head at a time does not pay.
    options = dataclasses.replace(options, attention="xla")
    advance = functools.partial(
        hypotheses.advance,
        limits=limits,
        end_of_text=rules.end_of_text,
        length_penalty=length_penalty,
        rows=options.activations,
    )

    def log_probs_of(
        states: jax.Array, banned: np.ndarray, tokens: jax.Array, step: jax.Array | int
    ) -> jax.Array:
        logits = jnp.einsum(
            "BGD,VD->BGV", states, decoder["embed_tokens"], preferred_element_type=jnp.float32
        )
        # Suppressed after the softmax: what they leave is not shared out among the others.
        log_probs = jax.nn.log_softmax(logits) + banned[None, None]
        return log_probs if constrain is None else constrain(log_probs, tokens, step)

    def is_running(carry: tuple[Any, ...]) -> jax.Array:
        step, _, _, state = carry
        return (step < new_tokens) & state.is_open.any()

    def emit(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, cache, ancestors, state = carry
        # Every token fed attends to itself.
        itself = jnp.broadcast_to(jnp.eye(beams, dtype=bool)[None], (batch, beams, beams))
        ancestors = jax.lax.dynamic_update_slice(ancestors, itself, (0, 0, cache.position))
        tokens = state.running.tokens
        last = jax.lax.dynamic_index_in_dim(tokens, step - 1, axis=2, keepdims=False)
        places = jnp.broadcast_to((prompt_lengths + step - 1)[:, None], (batch, beams))
        states, cache = cached_decoder.extend(
            decoder, dims, cache, last, options, places, ancestors[:, None]
        )
        scores = log_probs_of(states, rules.banned(dims.n_vocab), tokens, step)
        state, parents = advance(state, scores, step)
        return step + 1, cache, hypotheses.pick(ancestors, parents), state

    is_prompt = jnp.arange(length)[None, None] < prompt_lengths[:, None, None]
    ancestors = jnp.broadcast_to(is_prompt, (batch, beams, length))
    state = hypotheses.init_beams(batch, beams, new_tokens, rules.end_of_text, limits > 0)
    first_banned = rules.banned_first(dims.n_vocab)
    scores = log_probs_of(last_states[:, None], first_banned, state.running.tokens[:, :1], 0)
    state, _ = advance(state, scores, jnp.int32(0))
    state = jax.lax.while_loop(is_running, emit, (jnp.int32(1), cache, ancestors, state))[-1]
    return state.finished
