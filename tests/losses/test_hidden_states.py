"""The distance between hidden states is its formula, and so is its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.losses.hidden_states import EPSILON, hidden_distances, hidden_sums

LAYERS, ROWS, POSITIONS, WIDTH = 3, 4, 6, 5


@pytest.fixture(scope="module")
def batch():
    """Student and teacher states, a mask that is empty in the last row, and weights of rows."""
    generator = np.random.default_rng(0)
    shape = (LAYERS, ROWS, POSITIONS, WIDTH)
    # Layers of very different sizes, as those of Whisper are.
    scale = np.array([0.1, 1.0, 30.0]).reshape(-1, 1, 1, 1)
    student, teacher = (scale * generator.normal(size=shape) for _ in range(2))
    mask = np.arange(POSITIONS) < np.array([[6], [4], [1], [0]])
    weights = np.array([3.0, 1.0, 7.0, 0.0])
    return tuple(np.asarray(x, np.float32) for x in (student, teacher, mask, weights))


def sums(student, teacher, mask, weights):
    return hidden_sums(hidden_distances(student, teacher), mask, weights)


def by_hand(student, teacher, mask, weights):
    """The sum, the count and the gradient by the student, in float64."""
    student, teacher = student.astype(np.float64), teacher.astype(np.float64)
    size = (teacher**2).mean(-1, keepdims=True) + EPSILON
    distances = (((student - teacher) ** 2) / size).mean(-1).sum(0)
    total, share = 0.0, np.zeros(mask.shape)
    for row in range(ROWS):
        if mask[row].any():
            total += weights[row] * distances[row][mask[row] > 0].mean()
            share[row] = weights[row] * mask[row] / mask[row].sum()
    gradient = share[None, :, :, None] * 2 * (student - teacher) / (WIDTH * size)
    return total, weights.sum(), gradient


def test_distance_and_gradient_are_their_closed_forms(batch):
    total, count, gradient = by_hand(*batch)
    found = jax.jit(sums)(*batch)
    np.testing.assert_allclose(found, (total, count), rtol=1e-6)
    by_student, by_teacher = jax.grad(lambda *x: sums(*x).distance, argnums=(0, 1))(*batch)
    np.testing.assert_allclose(by_student, gradient, rtol=1e-4, atol=1e-6)
    assert np.all(np.asarray(by_student)[:, batch[2] == 0] == 0.0)
    assert not np.any(by_teacher)


def test_the_gradient_is_that_of_finite_differences(batch):
    student, *rest = batch
    direction = np.random.default_rng(1).normal(size=student.shape).astype(np.float32)
    direction *= np.abs(student)
    _, along = jax.jvp(lambda x: sums(x, *rest).distance, (student,), (direction,))
    up, down = (by_hand(student + step * direction, *rest)[0] for step in (1e-3, -1e-3))
    np.testing.assert_allclose(along, (up - down) / 2e-3, rtol=1e-4)


def test_equal_states_are_no_distance_apart_and_zeros_are_1_a_layer(batch):
    _, teacher, *_ = batch
    assert not np.any(hidden_distances(teacher, teacher))
    apart = hidden_distances(np.zeros_like(teacher), 100 * teacher)
    np.testing.assert_allclose(apart, LAYERS, rtol=1e-5)


def test_the_sums_of_parts_of_a_batch_add_up(batch):
    student, teacher, mask, weights = batch
    halves = [
        sums(student[:, rows], teacher[:, rows], mask[rows], weights[rows])
        for rows in (slice(0, 1), slice(1, ROWS))
    ]
    np.testing.assert_allclose(np.sum(halves, axis=0), sums(*batch), rtol=1e-6)


def test_bfloat16_states_are_compared_in_float32(batch):
    student, teacher, mask, weights = batch
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (student, teacher)]
    wide = [np.asarray(x, np.float32) for x in narrow]
    found = sums(*narrow, mask, weights)
    assert found.distance.dtype == jnp.float32
    np.testing.assert_allclose(found, sums(*wide, mask, weights), rtol=1e-6)
