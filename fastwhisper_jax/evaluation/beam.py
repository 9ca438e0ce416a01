"""Beam search of a batch, with cached keys and values.

The beams of a row are fed as alternatives of one text (`cached_decoder.extend`): the audio's keys
and values and the prompt's are kept once a row, and every beam attends to its own ancestors among
all tokens fed so far, by a mask. So choosing among beams moves no keys and values.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.rules import DecodingRules, new_token_room
from fastwhisper_jax.models import cached_decoder
from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions
from fastwhisper_jax.models.whisper import Params


class Beams(NamedTuple):
    """The hypotheses of each row, likeliest first; a score of minus infinity marks an empty place.

    Attributes:
        tokens: (B, G, T) int32, hypotheses that go on, without the prompt.
        scores: (B, G) float32, the sums of their log-probabilities.
        finished: (B, G, T) int32, hypotheses that have ended, filled up with end_of_text.
        finished_scores: (B, G) float32, their sums / length ** length_penalty, where the length
            counts the end_of_text, but not the prompt.
        is_open: (B,) bool, False once a row's search is over.
    """

    tokens: jax.Array
    scores: jax.Array
    finished: jax.Array
    finished_scores: jax.Array
    is_open: jax.Array


def beam_decode(
    params: Params,
    dims: ModelDimensions,
    options: ModelOptions,
    hidden: jax.Array,
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
        hidden: (B, S, D), the output of `encode`.
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

    Source: transformers 5 `GenerationMixin._beam_search` with early_stopping=False and
    do_sample=False.
    """
    if beams < 1:
        raise InputError(f"beams={beams} must be at least 1")
    batch, prompt_length = prompt.shape
    new_tokens = new_token_room(dims, prompt_length, max_new_tokens)
    # A few queries a row: one head at a time does not pay.
    options = dataclasses.replace(options, attention="together")
    decoder = cached_decoder.unstack_layers(params, dims, options)

    advance = functools.partial(
        _advance,
        end_of_text=rules.end_of_text,
        length_penalty=length_penalty,
        rows=options.activations,
    )

    def log_probs(states: jax.Array, banned: np.ndarray) -> jax.Array:
        logits = jnp.einsum(
            "BGD,VD->BGV", states, decoder["embed_tokens"], preferred_element_type=jnp.float32
        )
        # Suppressed after the softmax: what they leave is not shared out among the others.
        return jax.nn.log_softmax(logits) + banned[None, None]

    def is_running(carry: tuple[Any, ...]) -> jax.Array:
        step, _, _, state = carry
        return (step < new_tokens) & state.is_open.any()

    def emit(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, cache, ancestors, state = carry
        # Every token fed attends to itself.
        itself = jnp.broadcast_to(jnp.eye(beams, dtype=bool)[None], (batch, beams, beams))
        ancestors = jax.lax.dynamic_update_slice(ancestors, itself, (0, 0, cache.position))
        last = jax.lax.dynamic_index_in_dim(state.tokens, step - 1, axis=2, keepdims=False)
        places = jnp.full(beams, prompt_length + step - 1)
        states, cache = cached_decoder.extend(
            decoder, dims, cache, last, options, places, ancestors[:, None]
        )
        scores = log_probs(states, rules.banned(dims.n_vocab))
        state, parents = advance(state, scores, step)
        return step + 1, cache, _pick(ancestors, parents), state

    # The last emitted tokens are never fed back, so the cache needs no place for them.
    length = prompt_length + (new_tokens - 1) * beams
    cache = cached_decoder.start(decoder, dims, hidden, options, length)
    states, cache = cached_decoder.extend(decoder, dims, cache, prompt, options)
    ancestors = jnp.broadcast_to(jnp.arange(length) < prompt_length, (batch, beams, length))
    scores = log_probs(states[:, -1:], rules.banned_first(dims.n_vocab))
    state = _no_beams(batch, beams, new_tokens, rules.end_of_text, row_mask)
    state, _ = advance(state, scores, jnp.int32(0))
    state = jax.lax.while_loop(is_running, emit, (jnp.int32(1), cache, ancestors, state))[-1]
    rest = ((0, 0), (0, max_new_tokens - new_tokens))
    return jnp.pad(state.finished[:, 0], rest, constant_values=rules.end_of_text)


def _no_beams(
    batch: int, beams: int, new_tokens: int, end_of_text: int, row_mask: jax.Array | None
) -> Beams:
    """One beam a row, which has emitted nothing."""
    tokens = jnp.full((batch, beams, new_tokens), end_of_text, jnp.int32)
    nothing = jnp.full((batch, beams), -jnp.inf, jnp.float32)
    is_open = jnp.ones(batch, bool) if row_mask is None else jnp.asarray(row_mask)
    return Beams(tokens, nothing.at[:, 0].set(0.0), tokens, nothing, is_open)


def _advance(
    beams: Beams,
    log_probs: jax.Array,
    step: jax.Array,
    end_of_text: int,
    length_penalty: float,
    rows: NamedSharding | None,
) -> tuple[Beams, jax.Array]:
    """Extends the hypotheses by one token, and keeps the best that go on and that have ended.

    Args:
        beams: before.
        log_probs: (B, G, V), or (B, 1, V) for the same for every beam, of the next token.
        step: how many tokens the running hypotheses have; those that reach T end there.
        end_of_text: ends a hypothesis.
        length_penalty: see `beam_decode`.
        rows: where the rows lie on a mesh.

    Returns:
        The beams, and which of the earlier ones each running one goes on from, (B, G).
    """
    (batch, count, most), n_vocab = beams.tokens.shape, log_probs.shape[-1]
    sums = (beams.scores[..., None] + log_probs).reshape(batch, -1)
    # Each beam offers the end of text once, so of 2 G candidates at least G go on.
    sums, flat = _top_k(sums, 2 * count, rows)
    parents, last = flat // n_vocab, flat % n_vocab
    tokens = jax.lax.dynamic_update_slice(
        _pick(beams.tokens, parents), last[..., None], (0, 0, step)
    )
    ends = (last == end_of_text) | (step + 1 == most)
    penalty = (step + 1.0) ** length_penalty

    # Candidates beyond the first G are there to go on, not to end.
    has_ended = ends & (jnp.arange(2 * count) < count)[None] & beams.is_open[:, None]
    ended_scores = jnp.where(has_ended, sums / penalty, -jnp.inf)
    merged_scores = jnp.concatenate([beams.finished_scores, ended_scores], axis=1)
    finished_scores, best = _top_k(merged_scores, count, rows)
    finished = _pick(jnp.concatenate([beams.finished, tokens], axis=1), best)

    scores, best = _top_k(jnp.where(ends, -jnp.inf, sums), count, rows)
    # It goes on while a place is empty, or while the likeliest, ended now, would take one.
    is_open = beams.is_open & (scores[:, 0] / penalty > finished_scores[:, -1])
    tokens, parents = _pick(tokens, best), _pick(parents, best)
    return Beams(tokens, scores, finished, finished_scores, is_open), parents


def _top_k(x: jax.Array, count: int, rows: NamedSharding | None) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` of x (B, I), on a mesh by each device for its own rows.

    Left to itself, XLA collects the rows of all devices first.
    """
    top_k = functools.partial(jax.lax.top_k, k=count)
    if rows is not None:
        top_k = jax.shard_map(top_k, mesh=rows.mesh, in_specs=rows.spec, out_specs=rows.spec)
    return top_k(x)


def _pick(x: jax.Array, indices: jax.Array) -> jax.Array:
    """Of x (B, G, ...), the entries of each row at indices (B, I)."""
    indices = indices.reshape(indices.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, indices, axis=1)
