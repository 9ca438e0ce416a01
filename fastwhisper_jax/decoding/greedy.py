"""From inputs to tokens: greedy decoding of a batch, or beam search, behind an encoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.decoding.beam import beam_decode
from fastwhisper_jax.decoding.rules import DecodingRules, new_token_room
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


def make_transcribe(
    encode: Callable[[Params, Any], jax.Array],
    dims: ModelDimensions,
    options: ModelOptions,
    rules: DecodingRules,
    max_new_tokens: int = 224,
    beams: int = 1,
) -> jax.stages.Wrapped:
    """Joins an encoder and a decoding into one jitted function.

    Make it once and keep it: it compiles once per shape of its arguments, so that an evaluation
    every thousand steps of training compiles nothing but the first time.

    Args:
        encode: (params, inputs) -> encoder_states (B, S, D), traced. Inputs are whatever the batches hold:
            audio, log-mel, or the encoder's own output, which is then passed through.
        dims: sizes of the model.
        options: how to compute.
        rules: the end-of-text token and the suppressed ones.
        max_new_tokens: the most tokens to emit a row.
        beams: 1 decodes greedily, more search with as many.

    Returns:
        (params, inputs, prompt (B, P), row_mask (B,)) -> tokens (B, max_new_tokens) int32, under
        `jax.jit`; see `greedy_decode` and `beam_decode`.
    """

    @jax.jit
    def transcribe(
        params: Params, inputs: Any, prompt: jax.Array, row_mask: jax.Array
    ) -> jax.Array:
        encoder_states = encode(params, inputs)
        shared = (params, dims, options, encoder_states, prompt, rules, max_new_tokens)
        if beams == 1:
            return greedy_decode(*shared, row_mask)
        return beam_decode(*shared, beams, row_mask=row_mask)

    return transcribe


def greedy_decode(
    params: Params,
    dims: ModelDimensions,
    options: ModelOptions,
    encoder_states: jax.Array,
    prompt: jax.Array,
    rules: DecodingRules,
    max_new_tokens: int,
    row_mask: jax.Array | None = None,
) -> jax.Array:
    """Emits the likeliest token after the likeliest token, until every row has ended.

    Call it under `jax.jit`; it compiles once per batch size, prompt length and max_new_tokens.

    Args:
        params: parameters; only `params["decoder"]` is read.
        dims: sizes of the model.
        options: how to compute; logits and argmax are float32 in any case.
        encoder_states: (B, S, D), the output of `encode`.
        prompt: (B, P) int32, the forced tokens of each row.
        rules: the end-of-text token and the suppressed ones.
        max_new_tokens: the most tokens to emit a row, >= 1; where prompt and new tokens exceed
            n_text_ctx, decoding stops there.
        row_mask: (B,) bool, False for rows that only fill the batch up: they emit nothing and are
            not waited for.

    Returns:
        (B, max_new_tokens) int32: the emitted tokens of each row, without the prompt; end_of_text
        from the row's end on.

    Raises:
        InputError: not a single token can be emitted.

    Source: transformers `WhisperForConditionalGeneration.generate` with num_beams=1 and no
    timestamps; ties go to the lower token.
    """
    batch, prompt_length = prompt.shape
    new_tokens = new_token_room(dims, prompt_length, max_new_tokens)
    decoder = cached_decoder.unstack_layers(params, dims, options)

    def pick(states: jax.Array, banned: np.ndarray) -> jax.Array:
        # (V, B), not (B, V): the embedding is streamed as it lies in memory, a third faster on CPU.
        logits = jnp.einsum(
            "VD,BD->VB", decoder["embed_tokens"], states, preferred_element_type=jnp.float32
        )
        return jnp.argmax(logits + banned[:, None], axis=0).astype(jnp.int32)

    def is_running(carry: tuple[Any, ...]) -> jax.Array:
        step, _, _, ended, _ = carry
        return (step < new_tokens) & ~ended.all()

    def emit(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, last, cache, ended, tokens = carry
        states, cache = cached_decoder.extend(decoder, dims, cache, last[:, None], options)
        token = jnp.where(ended, rules.end_of_text, pick(states[:, 0], rules.banned(dims.n_vocab)))
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, step))
        return step + 1, token, cache, ended | (token == rules.end_of_text), tokens

    # The last emitted token is never fed back, so the cache needs no place for it.
    length = prompt_length + new_tokens - 1
    cache = cached_decoder.start(decoder, dims, encoder_states, options, length)
    states, cache = cached_decoder.extend(decoder, dims, cache, prompt, options)
    first = pick(states[:, -1], rules.banned_first(dims.n_vocab))
    if row_mask is not None:
        first = jnp.where(row_mask, first, rules.end_of_text)
    tokens = jnp.full((batch, max_new_tokens), rules.end_of_text, jnp.int32).at[:, 0].set(first)
    carry = (jnp.int32(1), first, cache, first == rules.end_of_text, tokens)
    return jax.lax.while_loop(is_running, emit, carry)[-1]
