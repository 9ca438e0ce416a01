"""Beam search of a batch, with cached keys and values.

The beams of a row are fed as alternatives of one text (`cached_decoder.extend`). The keys and
values of the audio and of the prompt are kept once a row, and a mask tells each beam which of the
tokens fed so far are its own. So choosing among beams moves no keys and values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastwhisper_jax.decoding.hypotheses import (
    Beams,
    Hypotheses,
    advance_beams,
    init_beams,
    pick,
)
from fastwhisper_jax.decoding.prefill import Prefill, extend_texts, last_states, prompt_mask
from fastwhisper_jax.decoding.rules import DecodingRules, apply_rules
from fastwhisper_jax.models.whisper import cached_decoder


class _Carry(NamedTuple):
    """The state of the loop after `step` tokens.

    Attributes:
        step: how many tokens the running hypotheses have.
        cache: keys and values of all tokens fed so far.
        ancestors: (B, G, K) bool, the positions of the cache that belong to each beam's text.
        beams: the hypotheses.
    """

    step: jax.Array
    cache: cached_decoder.Cache
    ancestors: jax.Array
    beams: Beams


def beam_search(start: Prefill, rules: DecodingRules, length_penalty: float = 1.0) -> Hypotheses:
    """Searches for likely texts, G of them at a time.

    Call it under `jax.jit`, after `prefill`. A row's result does not depend on the other rows.

    Args:
        start: what was computed from the prompts, for G beams. One beam is not quite greedy
            decoding: when its likeliest token ends the text, the search goes on with the next
            likeliest as long as a longer text may score better.
        rules: what may be emitted. Unlike in greedy decoding, log-probabilities are not shared out
            anew among the tokens that the rules leave.
        length_penalty: the power of the length that a hypothesis' score is divided by; > 0
            favours long texts, 0 compares sums.

    Returns:
        The finished hypotheses of each row, the best first.

    Source: transformers 5 `GenerationMixin._beam_search` with early_stopping=False and
    do_sample=False.
    """
    beams = start.beams
    settings = (start.limits, rules.end_of_text, length_penalty, start.options.activations)

    def log_probs(states: jax.Array, tokens: jax.Array, step: jax.Array | int) -> jax.Array:
        """(B, G, V) of the token that follows states (B, G, D) of texts (B, G, T)."""
        logits = jnp.einsum(
            "BGD,VD->BGV", states, start.weights["embed_tokens"], preferred_element_type=jnp.float32
        )
        scores = jax.nn.log_softmax(logits)
        texts = tokens.reshape(-1, tokens.shape[-1])
        allowed = apply_rules(scores.reshape(-1, scores.shape[-1]), rules, texts, step)
        return allowed.reshape(scores.shape)

    def is_running(carry: _Carry) -> jax.Array:
        return (carry.step < start.max_new_tokens) & carry.beams.is_open.any()

    def advance(carry: _Carry) -> _Carry:
        tokens = carry.beams.running.tokens
        # Each token attends to itself too.
        own = jnp.broadcast_to(jnp.eye(beams, dtype=bool)[None], (len(tokens), beams, beams))
        ancestors = jax.lax.dynamic_update_slice_in_dim(
            carry.ancestors, own, carry.cache.position, axis=2
        )
        last = jax.lax.dynamic_index_in_dim(tokens, carry.step - 1, axis=2, keepdims=False)
        states, cache = extend_texts(start, carry.cache, last, carry.step, ancestors)
        scores = log_probs(states, tokens, carry.step)
        advanced, parents = advance_beams(carry.beams, scores, carry.step, *settings)
        return _Carry(carry.step + 1, cache, pick(ancestors, parents), advanced)

    is_prompt = prompt_mask(start)[:, None]
    ancestors = jnp.broadcast_to(is_prompt, (is_prompt.shape[0], beams, is_prompt.shape[2]))
    empty = init_beams(start.limits, beams, start.max_new_tokens, rules.end_of_text)
    scores = log_probs(last_states(start)[:, None], empty.running.tokens[:, :1], 0)
    first, _ = advance_beams(empty, scores, jnp.int32(0), *settings)
    carry = _Carry(jnp.int32(1), start.cache, ancestors, first)
    return jax.lax.while_loop(is_running, advance, carry).beams.finished
