import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastwhisper_jax.losses.askd import cross_entropy, kl_divergence

SHAPES = [(), (5,), (2, 3)]


def _logits(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 3, shape), jnp.float32)


def _labels(seed, shape, vocabulary):
    return jnp.asarray(np.random.default_rng(seed).integers(0, vocabulary, shape), jnp.int32)


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_is_its_closed_form(shape):
    logits, labels = _logits(0, *shape, 11), _labels(1, shape, 11)
    exact = np.asarray(logits, np.float64)
    likelihood = np.exp(exact) / np.exp(exact).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(likelihood, np.asarray(labels)[..., None], -1)[..., 0])
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_agrees_with_optax(shape):
    logits, labels = _logits(2, *shape, 7), _labels(3, shape, 7)
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_kl_divergence_is_its_closed_form_and_agrees_with_optax(shape):
    log_predictions = jax.nn.log_softmax(_logits(4, *shape, 11))
    targets = jax.nn.softmax(_logits(5, *shape, 11))
    p, log_q = np.asarray(targets, np.float64), np.asarray(log_predictions, np.float64)
    ours = kl_divergence(log_predictions, targets)
    np.testing.assert_allclose(ours, np.sum(p * (np.log(p) - log_q), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(
        ours, optax.losses.kl_divergence(log_predictions, targets), rtol=1e-6
    )


def test_kl_divergence_of_a_distribution_from_itself_is_zero():
    logits = _logits(6, 4, 51865)
    divergence = kl_divergence(jax.nn.log_softmax(logits), jax.nn.softmax(logits))
    np.testing.assert_allclose(divergence, 0.0, atol=1e-6)


def test_kl_divergence_is_finite_where_a_target_is_zero():
    targets = jnp.asarray([1.0, 0.0])
    log_predictions = jnp.asarray([0.0, -jnp.inf])
    assert kl_divergence(log_predictions, targets) == 0.0
    gradient = jax.grad(lambda log_q: kl_divergence(log_q, targets))(jnp.log(jnp.full(2, 0.5)))
    np.testing.assert_array_equal(gradient, [-1.0, 0.0])


def test_bfloat16_logits_are_reduced_in_float32():
    logits, labels = _logits(7, 3, 1000).astype(jnp.bfloat16), _labels(8, (3,), 1000)
    loss = cross_entropy(logits, labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, cross_entropy(logits.astype(jnp.float32), labels))
    targets = jax.nn.softmax(logits)
    assert kl_divergence(jax.nn.log_softmax(logits), targets).dtype == jnp.float32


def test_gradient_is_softmax_minus_label_also_under_jit():
    logits, labels = _logits(9, 6), jnp.int32(2)
    expected = jax.nn.softmax(logits) - jax.nn.one_hot(2, 6)
    for transform in (lambda f: f, jax.jit):
        gradient = transform(jax.grad(cross_entropy))(logits, labels)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
