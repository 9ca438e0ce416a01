"""The distance between hidden states of student and teacher, layer by layer. It reads no label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Keeps the gradient finite at a position whose teacher states are all 0.
EPSILON = 1e-6


class HiddenSums(NamedTuple):
    """Sums over the rows of the global batch, float32 scalars. Their quotient is the mean distance.

    Attributes:
        distance: the mean distance of each row times its weight; it carries a gradient.
        weight: the weights.
    """

    distance: Float[Array, ""]
    weight: Float[Array, ""]


@jax.checkpoint
def hidden_distances(
    student: Float[Array, "layers B S D"], teacher: Float[Array, "layers B S D"]
) -> Float[Array, "B S"]:
    """Returns the distance of each position, summed over the layers.

        d = sum_l  mean_D (h_S - h_T)^2 / (mean_D h_T^2 + epsilon)

    with h hidden states of the student and the teacher at one position of layer l. The gradient
    reaches the student only. The backward pass computes the differences again.

    Args:
        student: (layers, B, S, D), any float dtype. T may stand for S.
        teacher: (layers, B, S, D), the states to come near to.

    Returns:
        (B, S), float32; 0 where the states are equal, and 1 for each layer of zeros.
    """
    teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    squares = jnp.square(student.astype(jnp.float32) - teacher).mean(axis=-1)
    return jnp.sum(squares / (jnp.square(teacher).mean(axis=-1) + EPSILON), axis=0)


def hidden_sums(
    distances: Float[Array, "B S"], mask: Float[Array, "B S"], row_weights: Float[Array, " B"]
) -> HiddenSums:
    """Returns the sums of each row's mean distance over the positions of its mask.

        distance = sum_b w_b  sum_s m_bs d_bs / sum_s m_bs        weight = sum_b w_b

    A row's mean and its weight are its own. So the sums of micro-batches and of devices add up to
    those of the global batch.

    Args:
        distances: (B, S) float32.
        mask: (B, S) float32, 1 for the positions that count.
        row_weights: (B,) float32, the number of targets of each row. A row without a position must
            have none.
    """
    means = jnp.sum(mask * distances, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1.0)
    return HiddenSums(jnp.sum(row_weights * means), jnp.sum(row_weights))
