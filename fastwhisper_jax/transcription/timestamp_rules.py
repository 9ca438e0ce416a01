"""Which timestamps a model may write, and where: rules on its logits.

A timestamp is a token: `timestamp_begin + i` stands for 0.02 i seconds from the window's start.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

SECONDS_PER_TIMESTAMP = 0.02
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


class TimestampState(NamedTuple):
    """What the rules must know of each row's tokens so far; each (B,).

    Attributes:
        last_is_timestamp: whether the last token is one; False before the first token.
        before_is_timestamp: whether the token before it is one; True where there is none.
        last_timestamp: the last timestamp token; one below 0.00 s before the first.
    """

    last_is_timestamp: jax.Array
    before_is_timestamp: jax.Array
    last_timestamp: jax.Array


def initial_state(rules: TimestampRules, batch: int) -> TimestampState:
    """The state before any token is emitted."""
    return TimestampState(
        jnp.zeros((batch,), bool),
        jnp.ones((batch,), bool),
        jnp.full((batch,), rules.timestamp_begin - 1, jnp.int32),
    )


def next_state(
    rules: TimestampRules, state: TimestampState, tokens: jax.Array, is_first: bool
) -> TimestampState:
    """The state after each row has emitted one of `tokens` (B,)."""
    is_timestamp = tokens >= rules.timestamp_begin
    # A row of one token counts as if a timestamp stood before it.
    before = jnp.ones_like(state.last_is_timestamp) if is_first else state.last_is_timestamp
    last_timestamp = jnp.where(is_timestamp, tokens, state.last_timestamp)
    return TimestampState(is_timestamp, before, last_timestamp)


def apply_timestamp_rules(
    logits: jax.Array, rules: TimestampRules, state: TimestampState, is_first: bool
) -> jax.Array:
    """Sets the logits of forbidden tokens to minus infinity.

    The first token is a timestamp of at most 1.0 s. Timestamps come in pairs (the end of one
    segment, the start of the next), except right before the end of text; they never decrease, and
    a segment never ends where it starts. Where all timestamps together are likelier than the
    likeliest other token, a timestamp is emitted.

    Args:
        logits: (B, V) float32; forbidden tokens may be minus infinity already.
        rules: the tokens.
        state: of each row's tokens so far.
        is_first: whether no token has been emitted yet.

    Returns:
        (B, V) float32.

    Source: openai/whisper `decoding.py`, `ApplyTimestampRules`; transformers
    `WhisperTimeStampLogitsProcessor`.
    """
    token = jnp.arange(logits.shape[1])[None]
    begin = rules.timestamp_begin
    is_timestamp = token >= begin
    forbidden = (token == rules.no_timestamps) | (token > begin + rules.last_timestamp)
    if is_first:
        initial = round(MAX_INITIAL_TIMESTAMP_SECONDS / SECONDS_PER_TIMESTAMP)
        forbidden |= ~is_timestamp | (token > begin + initial)
    else:
        closes_segment = state.last_is_timestamp & ~state.before_is_timestamp
        opens_segment = state.last_is_timestamp & state.before_is_timestamp
        forbidden |= opens_segment[:, None] & is_timestamp
        forbidden |= closes_segment[:, None] & (token < rules.end_of_text)
        # The start of a segment may repeat the end of the one before; its own end must lie later.
        earliest = jnp.where(closes_segment, state.last_timestamp, state.last_timestamp + 1)
        forbidden |= is_timestamp & (token < earliest[:, None])
    logits = jnp.where(forbidden, -jnp.inf, logits)
    likeliest_other = jnp.max(logits[:, :begin], axis=1)
    all_timestamps = jax.nn.logsumexp(logits[:, begin:], axis=1)
    is_timestamp_due = (all_timestamps > likeliest_other)[:, None]
    return jnp.where(is_timestamp_due & ~is_timestamp, -jnp.inf, logits)
