"""Prefill: the decoder reads the prompts of a batch. Greedy decoding and beam search start here.

The prompts of a batch may differ in length. All rows still write their new tokens at the same
position of the cache, after the longest prompt, because one shared position is faster than one for
each row. A mask hides what the cache holds between a row's own prompt and that position.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


class WhisperModel(NamedTuple):
    """A model's parameters, its sizes, and how to compute it.

    Attributes:
        params: parameters, best as `decoding_params` returns them; decoding reads only
            `params["decoder"]`.
        dims: sizes of the model.
        options: how to compute; logits and log-probabilities are float32 in any case.
    """

    params: Params
    dims: ModelDimensions
    options: ModelOptions


def decoding_params(params: Params, dims: ModelDimensions, options: ModelOptions) -> Params:
    """Parameters with the decoder's layers unstacked, once for all batches.

    Unstacking copies the decoder. In every call it would cost a short utterance half of its time.

    Args:
        params: parameters on the device, layers stacked.
        dims: sizes of the model.
        options: how to compute.
    """
    unstack = jax.jit(cached_decoder.unstack_layers, static_argnums=(1, 2))
    decoder = unstack({"decoder": params["decoder"]}, dims, options)
    return {"encoder": params["encoder"], "decoder": decoder}


class Prompts(NamedTuple):
    """The prompts of a batch.

    Attributes:
        tokens: (B, P) int32; each row holds its own prompt, then any tokens up to P.
        lengths: (B,) int32, the length of each row's own prompt, at least `start_length`.
        start_length: the number of tokens from start of transcript to the prompt's end, the same
            in all rows. At most n_text_ctx - start_length new tokens are emitted.
        row_mask: (B,) bool, False for rows that only fill the batch up: they emit nothing, and
            decoding does not wait for them.
    """

    tokens: jax.Array
    lengths: jax.Array
    start_length: int
    row_mask: jax.Array


class Prefill(NamedTuple):
    """What the decoder computed from the prompts, and how many tokens each row may emit.

    Attributes:
        weights: the result of `unstack_layers`.
        dims: sizes of the model.
        options: how to compute.
        prompts: what was read.
        states: (B, P, D), the decoder's states at the prompts' tokens.
        cache: holds the prompts in its first P positions; the others are for new tokens.
        limits: (B,) int32, the most tokens to emit in each row; 0 where `row_mask` is False.
        max_new_tokens: T, the most tokens to emit in any row.
        beams: G, how many alternative tokens of a row can be fed at each step.
    """

    weights: dict[str, Any]
    dims: ModelDimensions
    options: ModelOptions
    prompts: Prompts
    states: jax.Array
    cache: cached_decoder.Cache
    limits: jax.Array
    max_new_tokens: int
    beams: int


def prompts_of_one_length(tokens: jax.Array, row_mask: jax.Array) -> Prompts:
    """Prompts (B, P) that all have P tokens, the first of which is start of transcript."""
    rows, length = tokens.shape
    return Prompts(tokens, jnp.full(rows, length, jnp.int32), length, row_mask)


def prefill(
    model: WhisperModel,
    encoder_states: jax.Array,
    prompts: Prompts,
    max_new_tokens: int,
    beams: int = 1,
) -> Prefill:
    """Feeds the prompts to the decoder.

    Call it under `jax.jit`, together with the decoding that follows.

    Args:
        model: the model.
        encoder_states: (B, S, D), the output of `encode`.
        prompts: the prompts.
        max_new_tokens: the most tokens to emit in a row, >= 1; a row also ends where the text
            context of the model is full.
        beams: G >= 1, the hypotheses that a beam search keeps; 1 for greedy decoding.

    Raises:
        InputError: beams < 1, or not a single token can be emitted.
    """
    if beams < 1:
        raise InputError(f"beams={beams} must be at least 1")
    dims, options = model.dims, model.options
    new_tokens = min(max_new_tokens, dims.n_text_ctx - prompts.start_length)
    if new_tokens < 1:
        raise InputError(
            f"max_new_tokens={max_new_tokens} after a prompt of {prompts.start_length} tokens "
            "leaves no token to emit; use at least 1, and a prompt shorter than "
            f"{dims.n_text_ctx} tokens"
        )
    weights = cached_decoder.unstack_layers(model.params, dims, options)
    # The last tokens emitted are never fed back, so the cache needs no position for them.
    length = prompts.tokens.shape[1] + (new_tokens - 1) * beams
    cache = cached_decoder.start(weights, dims, encoder_states, options, length)
    states, cache = cached_decoder.extend(weights, dims, cache, prompts.tokens, options)
    limits = jnp.minimum(new_tokens, dims.n_text_ctx - prompts.lengths)
    limits = jnp.where(prompts.row_mask, limits, 0)
    return Prefill(weights, dims, options, prompts, states, cache, limits, new_tokens, beams)


def prompt_mask(start: Prefill) -> jax.Array:
    """(B, K) bool: the positions of the cache that hold each row's own prompt."""
    positions = jnp.arange(start.cache.layers[0].keys.shape[2])
    return positions[None] < start.prompts.lengths[:, None]


def last_states(start: Prefill) -> jax.Array:
    """The state (B, D) at each prompt's last token, from which the first new token follows."""
    return _states_at(start, start.prompts.lengths - 1)


def extend_texts(
    start: Prefill,
    cache: cached_decoder.Cache,
    tokens: jax.Array,
    step: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, cached_decoder.Cache]:
    """Feeds the latest token of each text.

    Args:
        start: what was computed from the prompts.
        cache: as the step before left it.
        tokens: (B, G) int32, the latest token of each of a row's G texts.
        step: how many tokens each text has emitted, the latest included.
        mask: (B, G, K) bool, the positions of the cache that each token attends to.

    Returns:
        States (B, G, D) of the tokens, and the cache with their keys and values.
    """
    text_positions = jnp.broadcast_to((start.prompts.lengths + step - 1)[:, None], tokens.shape)
    # With a few queries a row, computing one head at a time would be slower.
    options = dataclasses.replace(start.options, attention="xla")
    return cached_decoder.extend(
        start.weights, start.dims, cache, tokens, options, text_positions, mask[:, None]
    )


def next_logits(start: Prefill, states: jax.Array) -> jax.Array:
    """(B, V) float32 logits of the token that follows states (B, D)."""
    # As VD,BD->VB the embedding is read in the order of its memory, which is faster on CPU. Without
    # the barrier, XLA would merge the transposition with the product, and read it otherwise.
    embedding = start.weights["embed_tokens"]
    logits = jnp.einsum("VD,BD->VB", embedding, states, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(logits).T


def no_speech_probability(start: Prefill, no_speech: int) -> jax.Array:
    """(B,) float32: how likely the token `no_speech` follows start of transcript."""
    states = _states_at(start, start.prompts.lengths - start.prompts.start_length)
    return jax.nn.softmax(next_logits(start, states), axis=1)[:, no_speech]


def _states_at(start: Prefill, positions: jax.Array) -> jax.Array:
    """The state (B, D) of each row at its own position (B,)."""
    return jnp.take_along_axis(start.states, positions[:, None, None], axis=1)[:, 0]
