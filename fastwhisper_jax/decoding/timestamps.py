"""Which timestamps a model may write, and where: rules on its logits.

A timestamp is a token: `timestamp_begin + i` stands for 0.02 i seconds from the window's start.
"""

import dataclasses

import jax
import jax.numpy as jnp

from fastwhisper_jax.audio.constants import SECONDS_PER_TIMESTAMP

MAX_INITIAL_TIMESTAMP_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class TimestampRules:
    """The tokens that the rules are about; hashable, so that it can be static under `jax.jit`.

    Attributes:
        end_of_text: ends a transcript; all text tokens are below it.
        no_timestamps: never emitted; the timestamp tokens follow right after it.
        last_timestamp: how many steps of 0.02 s a window has: no later timestamp is emitted.
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
    segment, the start of the next), except right before the end of text; they never decrease, and
    a segment never ends where it starts. Where all timestamps together are likelier than the
    likeliest other token, a timestamp is emitted.

    Args:
        logits: (B, V) float32, logits or log-probabilities; forbidden tokens may be minus infinity
            already.
        rules: the tokens.
        tokens: (B, T) int32, what each row has emitted, with no timestamps behind it.
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
        # A row of one token counts as if a timestamp stood before it.
        before_is_timestamp = (_token_at(tokens, step - 2) >= begin) | (step < 2)
        closes_segment = last_is_timestamp & ~before_is_timestamp
        opens_segment = last_is_timestamp & before_is_timestamp
        forbidden |= opens_segment[:, None] & is_timestamp
        forbidden |= closes_segment[:, None] & (token < rules.end_of_text)
        # The latest is the last, for they never decrease; one below 0.00 s where there is none.
        latest = jnp.max(tokens, axis=1, initial=begin - 1)
        # The start of a segment may repeat the end of the one before; its own end must lie later.
        earliest = jnp.where(closes_segment, latest, latest + 1)
        forbidden |= is_timestamp & (token < earliest[:, None])
    logits = jnp.where(forbidden, -jnp.inf, logits)
    likeliest_other = jnp.max(logits[:, :begin], axis=1)
    all_timestamps = jax.nn.logsumexp(logits[:, begin:], axis=1)
    is_timestamp_due = (all_timestamps > likeliest_other)[:, None]
    return jnp.where(is_timestamp_due & ~is_timestamp, -jnp.inf, logits)


def _token_at(tokens: jax.Array, place: jax.Array | int) -> jax.Array:
    """(B,): tokens[:, place]; the first one for places before it."""
    return jax.lax.dynamic_index_in_dim(tokens, jnp.maximum(place, 0), axis=1, keepdims=False)
