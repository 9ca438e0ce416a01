"""The hypotheses of a beam search: which go on and which have ended, token after token."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding


class Hypotheses(NamedTuple):
    """Hypotheses without their prompt: tokens (B, G, T) int32, filled up with end_of_text, and the
    log-probability (B, G, T) float32 of each token, 0 where it is filled up."""

    tokens: jax.Array
    log_probs: jax.Array


class Beams(NamedTuple):
    """The hypotheses of each row, likeliest first; a score of minus infinity marks an empty place.

    Attributes:
        running: hypotheses that go on.
        scores: (B, G) float32, the sums of their log-probabilities.
        finished: hypotheses that have ended.
        finished_scores: (B, G) float32, their sums / length ** length_penalty, where the length
            counts the end_of_text, but not the prompt.
        is_open: (B,) bool, False once a row's search is over.
    """

    running: Hypotheses
    scores: jax.Array
    finished: Hypotheses
    finished_scores: jax.Array
    is_open: jax.Array


def init_beams(
    batch: int, beams: int, new_tokens: int, end_of_text: int, is_open: jax.Array
) -> Beams:
    """One beam a row, which has emitted nothing."""
    tokens = jnp.full((batch, beams, new_tokens), end_of_text, jnp.int32)
    texts = Hypotheses(tokens, jnp.zeros(tokens.shape, jnp.float32))
    nothing = jnp.full((batch, beams), -jnp.inf, jnp.float32)
    return Beams(texts, nothing.at[:, 0].set(0.0), texts, nothing, is_open)


def advance(
    beams: Beams,
    log_probs: jax.Array,
    step: jax.Array,
    limits: jax.Array,
    end_of_text: int,
    length_penalty: float,
    rows: NamedSharding | None,
) -> tuple[Beams, jax.Array]:
    """Extends the hypotheses by one token, and keeps the best that go on and that have ended.

    Args:
        beams: before.
        log_probs: (B, G, V), or (B, 1, V) for the same for every beam, of the next token.
        step: how many tokens the running hypotheses have.
        limits: (B,), hypotheses that reach as many tokens end there.
        end_of_text: ends a hypothesis.
        length_penalty: the power of the length that a finished hypothesis' score is divided by.
        rows: where the rows lie on a mesh.

    Returns:
        The beams, and which of the earlier ones each running one goes on from, (B, G).
    """
    (batch, count), n_vocab = beams.scores.shape, log_probs.shape[-1]
    sums = (beams.scores[..., None] + log_probs).reshape(batch, -1)
    # Each beam offers the end of text once, so of 2 G candidates at least G go on.
    sums, flat = _top_k(sums, 2 * count, rows)
    parents, last = flat // n_vocab, flat % n_vocab
    of_last = pick(log_probs.reshape(batch, -1), flat % (log_probs.shape[1] * n_vocab))
    tokens, token_log_probs = (
        jax.lax.dynamic_update_slice(pick(earlier, parents), new[..., None], (0, 0, step))
        for earlier, new in zip(beams.running, (last, of_last), strict=True)
    )
    candidates = Hypotheses(tokens, token_log_probs)
    ends = (last == end_of_text) | (step + 1 >= limits)[:, None]
    penalty = (step + 1.0) ** length_penalty

    # Candidates beyond the first G are there to go on, not to end.
    has_ended = ends & (jnp.arange(2 * count) < count)[None] & beams.is_open[:, None]
    ended_scores = jnp.where(has_ended, sums / penalty, -jnp.inf)
    merged_scores = jnp.concatenate([beams.finished_scores, ended_scores], axis=1)
    finished_scores, best = _top_k(merged_scores, count, rows)
    finished = Hypotheses(
        *(
            pick(jnp.concatenate(pair, axis=1), best)
            for pair in zip(beams.finished, candidates, strict=True)
        )
    )

    scores, best = _top_k(jnp.where(ends, -jnp.inf, sums), count, rows)
    # It goes on while a place is empty, or while the likeliest, ended now, would take one.
    is_open = beams.is_open & (scores[:, 0] / penalty > finished_scores[:, -1])
    running = Hypotheses(*(pick(candidate, best) for candidate in candidates))
    return Beams(running, scores, finished, finished_scores, is_open), pick(parents, best)


def _top_k(x: jax.Array, count: int, rows: NamedSharding | None) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` of x (B, I), on a mesh by each device for its own rows.

    Left to itself, XLA collects the rows of all devices first.
    """
    top_k = functools.partial(jax.lax.top_k, k=count)
    if rows is not None:
        top_k = jax.shard_map(top_k, mesh=rows.mesh, in_specs=rows.spec, out_specs=rows.spec)
    return top_k(x)


def pick(x: jax.Array, indices: jax.Array) -> jax.Array:
    """Of x (B, G, ...), the entries of each row at indices (B, I)."""
    indices = indices.reshape(indices.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, indices, axis=1)
