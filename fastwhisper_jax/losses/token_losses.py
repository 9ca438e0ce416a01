"""Losses of single target tokens, unreduced and in float32: the caller masks, sums and divides."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the negative log-likelihood of each label.

        CE = log sum_v exp(z_v) - z_y        z: logits, y: label

    Args:
        logits: (..., V), any float dtype; computed in float32.
        labels: (...), integers in [0, V).

    Returns:
        (...), float32, at least 0.

    Source:
        `optax.losses.softmax_cross_entropy_with_integer_labels`.
    """
    log_predictions = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.take_along_axis(log_predictions, labels[..., None], axis=-1)[..., 0]


def kl_divergence(log_predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the Kullback-Leibler divergence of each prediction from its target distribution.

        KL(p || q) = sum_v p_v (log p_v - log q_v)        p: targets, q: predictions

    A target probability of exactly 0 contributes exactly 0, whatever was predicted.

    Args:
        log_predictions: (..., V), log-probabilities; computed in float32.
        targets: (..., V), probabilities.

    Returns:
        (...), float32; 0 where the two are the same distribution.

    Source:
        `optax.losses.kl_divergence`.
    """
    targets = targets.astype(jnp.float32)
    is_possible = targets > 0
    log_ratio = jnp.log(jnp.where(is_possible, targets, 1.0)) - log_predictions.astype(jnp.float32)
    return jnp.sum(targets * jnp.where(is_possible, log_ratio, 0.0), axis=-1)
