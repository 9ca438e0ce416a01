"""The hypotheses of a beam search: which of them go on and which have ended, at each token."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding


class Hypotheses(NamedTuple):
    """G texts for each row, without their prompt.

    Attributes:
        tokens: (B, G, T) int32; each text ends with end_of_text, which also fills the rest. A text
            that reaches its limit has no end_of_text of its own.
        log_probs: (B, G, T) float32, the log-probability of each token, that of the first
            end_of_text included; 0 after it.
    """

    tokens: jax.Array
    log_probs: jax.Array


class Beams(NamedTuple):
    """The hypotheses of each row, the likeliest first.

    A score of minus infinity says that there is no hypothesis at its index.

    Attributes:
        running: hypotheses that go on.
        scores: (B, G) float32, the sums of their log-probabilities.
        finished: hypotheses that have ended.
        finished_scores: (B, G) float32, their sums / length ** length_penalty. The length counts
            the end_of_text, but not the prompt.
        is_open: (B,) bool, False once a row's search is over.
    """

    running: Hypotheses
    scores: jax.Array
    finished: Hypotheses
    finished_scores: jax.Array
    is_open: jax.Array


def init_beams(limits: jax.Array, beams: int, max_new_tokens: int, end_of_text: int) -> Beams:
    """One empty hypothesis a row; rows with a limit of 0 are closed."""
    tokens = jnp.full((len(limits), beams, max_new_tokens), end_of_text, jnp.int32)
    empty = Hypotheses(tokens, jnp.zeros(tokens.shape, jnp.float32))
    no_scores = jnp.full(tokens.shape[:2], -jnp.inf, jnp.float32)
    return Beams(empty, no_scores.at[:, 0].set(0.0), empty, no_scores, limits > 0)


def advance_beams(
    beams: Beams,
    log_probs: jax.Array,
    step: jax.Array,
    limits: jax.Array,
    end_of_text: int,
    length_penalty: float,
    rows: NamedSharding | None,
) -> tuple[Beams, jax.Array]:
    """Extends the hypotheses by one token, and keeps the best of those that go on and that end.

    Args:
        beams: the hypotheses before.
        log_probs: (B, G, V) of the next token; (B, 1, V) where all beams of a row share them.
        step: how many tokens the running hypotheses have.
        limits: (B,) int32, a hypothesis with as many tokens ends there.
        end_of_text: the token that ends a hypothesis.
        length_penalty: the power of the length that a finished hypothesis' score is divided by.
        rows: how the rows are divided over a mesh; None without one.

    Returns:
        The beams, and (B, G) the index of the earlier beam that each running one extends.
    """
    (batch, count), n_vocab = beams.scores.shape, log_probs.shape[-1]
    sums = (beams.scores[..., None] + log_probs).reshape(batch, -1)
    # Each beam can end in one way only, so at least G of the 2 G best candidates go on.
    sums, flat = _top_k(sums, 2 * count, rows)
    parents, last = flat // n_vocab, flat % n_vocab
    last_log_probs = pick(log_probs.reshape(batch, -1), flat % (log_probs.shape[1] * n_vocab))
    tokens, token_log_probs = (
        jax.lax.dynamic_update_slice(pick(earlier, parents), new[..., None], (0, 0, step))
        for earlier, new in zip(beams.running, (last, last_log_probs), strict=True)
    )
    candidates = Hypotheses(tokens, token_log_probs)
    ends = (last == end_of_text) | (step + 1 >= limits)[:, None]
    penalty = (step + 1.0) ** length_penalty

    # Only the first G candidates may end; the others are there to replace those that do.
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
    # A search goes on while it has fewer than G finished hypotheses, or while its likeliest running
    # hypothesis would be among the best G if it ended now.
    is_open = beams.is_open & (scores[:, 0] / penalty > finished_scores[:, -1])
    running = Hypotheses(*(pick(candidate, best) for candidate in candidates))
    return Beams(running, scores, finished, finished_scores, is_open), pick(parents, best)


def _top_k(x: jax.Array, count: int, rows: NamedSharding | None) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` of x (B, I); on a mesh, each device computes it for its own rows.

    Without `shard_map`, XLA would gather the rows of all devices first.
    """
    top_k = functools.partial(jax.lax.top_k, k=count)
    if rows is not None:
        top_k = jax.shard_map(top_k, mesh=rows.mesh, in_specs=rows.spec, out_specs=rows.spec)
    return top_k(x)


def pick(x: jax.Array, indices: jax.Array) -> jax.Array:
    """The entries of x (B, G, ...) at each row's own indices (B, I): (B, I, ...)."""
    indices = indices.reshape(indices.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, indices, axis=1)
