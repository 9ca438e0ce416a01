"""Rules on logits that say which timestamps a model may write, and where.

A timestamp is a token: `timestamp_begin + i` means 0.02 i seconds from the window's start.
"""

import dataclasses

import jax
import jax.numpy as jnp

from fastwhisper_jax.audio.constants import SECONDS_PER_TIMESTAMP

MAX_INITIAL_TIMESTAMP_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class TimestampRules:
    """The tokens that the rules name; hashable, so that it can be static under `jax.jit`.

    Attributes:
        end_of_text: the token that ends a transcript; all text tokens are below it.
        no_timestamps: a token that is never emitted; the timestamp tokens follow right after it.
        last_timestamp: the number of 0.02 s steps in a window; no later timestamp is emitted.
    """

    end_of_text: int
    no_timestamps: int
    last_timestamp: int

    @property
    def timestamp_begin(self) -> int:
        """The token of 0.00 s."""
        return self.no_timestamps + 1


def apply_timestamp_rules(
    logits: jax.Array, rules: TimestampRules, tokens: jax.Array, step: jax.Array | int
) -> jax.Array:
    """Sets the logits of forbidden tokens to minus infinity.

    The first token is a timestamp of at most 1.0 s. Timestamps come in pairs (the end of one
    segment, the start of the next), except right before the end of text. They never decrease, and
    a segment never ends at the time at which it starts. If all timestamps together are likelier
    than the likeliest other token, a timestamp is emitted.

    Args:
        logits: (B, V) float32, logits or log-probabilities; tokens that other rules forbid may
            already be minus infinity.
        rules: the tokens.
        tokens: (B, T) int32, what each row has emitted; the rest of a row holds no timestamp.
        step: how many tokens that is; a Python 0 before the first one.

    Returns:
        (B, V) float32.

    Source: openai/whisper `decoding.py`, `ApplyTimestampRules`; transformers
    `WhisperTimeStampLogitsProcessor`.
    """
    token = jnp.arange(logits.shape[1])[None]
    begin = rules.timestamp_begin
    is_timestamp = token >= begin
    forbidden = (token == rules.no_timestamps) | (token > begin + rules.last_timestamp)
    if isinstance(step, int) and step == 0:
        initial = round(MAX_INITIAL_TIMESTAMP_SECONDS / SECONDS_PER_TIMESTAMP)
        forbidden |= ~is_timestamp | (token > begin + initial)
    else:
        last_is_timestamp = _token_at(tokens, step - 1) >= begin
        # A row's only token is treated as if a timestamp came before it.
        before_is_timestamp = (_token_at(tokens, step - 2) >= begin) | (step < 2)
        closes_segment = last_is_timestamp & ~before_is_timestamp
        opens_segment = last_is_timestamp & before_is_timestamp
        forbidden |= opens_segment[:, None] & is_timestamp
        forbidden |= closes_segment[:, None] & (token < rules.end_of_text)
        # Timestamps never decrease, so the last one is the largest. A row without any counts from
        # the token before 0.00 s.
        latest = jnp.max(tokens, axis=1, initial=begin - 1)
        # A segment may start at the end of the one before; its own end must be later.
        earliest = jnp.where(closes_segment, latest, latest + 1)
        forbidden |= is_timestamp & (token < earliest[:, None])
    logits = jnp.where(forbidden, -jnp.inf, logits)
    likeliest_other = jnp.max(logits[:, :begin], axis=1)
    all_timestamps = jax.nn.logsumexp(logits[:, begin:], axis=1)
    is_timestamp_due = (all_timestamps > likeliest_other)[:, None]
    return jnp.where(is_timestamp_due & ~is_timestamp, -jnp.inf, logits)


def _token_at(tokens: jax.Array, index: jax.Array | int) -> jax.Array:
    """tokens[:, index] (B,); the first token of each row where the index is negative."""
    return jax.lax.dynamic_index_in_dim(tokens, jnp.maximum(index, 0), axis=1, keepdims=False)
