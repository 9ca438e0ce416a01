import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.loss_batch import reference

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.askd import (
    Weights,
    askd_losses,
    askd_weights,
    check_weights,
    cross_entropy,
    kl_divergence,
)
from fastwhisper_jax.losses.schedules import constant_schedule, linear_schedule

NEVER = constant_schedule(0.0)
SHAPES = [(), (5,), (2, 3)]


def _inputs(seed, *shape, vocabulary=19):
    generator = np.random.default_rng(seed)
    logits = [
        jnp.asarray(generator.normal(0, 2, (*shape, vocabulary)), jnp.float32) for _ in range(3)
    ]
    labels = np.asarray(jnp.argmax(logits[1], axis=-1)).copy()
    wrong = generator.random(shape) < 0.5
    labels[wrong] = generator.integers(0, vocabulary, shape)[wrong]
    return (*logits, jnp.asarray(labels, jnp.int32))


def _logits(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 3, shape), jnp.float32)


def _labels(seed, shape, vocabulary):
    return jnp.asarray(np.random.default_rng(seed).integers(0, vocabulary, shape), jnp.int32)


@pytest.mark.parametrize("step", [0, 9, 10, 11, 19, 20, 21])
def test_complement_gives_ce_what_the_teacher_and_the_self_teacher_leave(step):
    teacher, self_teacher = linear_schedule(0.8, 0.1, 0, 20), linear_schedule(0.0, 0.5, 10, 10)
    for weights in (
        askd_weights(step, teacher, self_teacher, None),
        jax.jit(lambda s: askd_weights(s, teacher, self_teacher, None))(jnp.int32(step)),
    ):
        a = 0.8 - 0.7 * min(step / 20, 1)
        m = 0.5 * min(max((step - 10) / 10, 0), 1)
        np.testing.assert_allclose(jax.tree.leaves(weights), [1 - a - m, a, m], atol=1e-6)
        assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.float32.dtype}


def test_constant_ce_weight_stays():
    schedule = linear_schedule(1.0, 0.0, 0, 10)
    for step in (0, 5, 10, 11):
        assert askd_weights(step, schedule, NEVER, 0.8).ce == jnp.float32(0.8)


def test_the_weight_of_hidden_states_takes_nothing_from_the_complement():
    schedule = linear_schedule(0.0, 3.0, 0, 10)
    weights = askd_weights(5, constant_schedule(0.4), NEVER, None, schedule)
    np.testing.assert_allclose(weights, [0.6, 0.4, 0.0, 1.5], rtol=1e-6)


def test_weights_that_never_turn_negative_pass():
    check_weights(linear_schedule(1.0, 0.3, 0, 90), linear_schedule(0.0, 0.7, 90, 10), None, 200)
    check_weights(constant_schedule(1.0), constant_schedule(1.0), 0.8, 200)


@pytest.mark.parametrize(
    "teacher,self_teacher,ce_weight,match",
    [
        (constant_schedule(0.6), linear_schedule(0.0, 1.0, 0, 10), None, "step 5 .*complement"),
        (constant_schedule(-0.1), NEVER, 0.8, "step 0 .*teacher -0.1"),
        (constant_schedule(float("nan")), NEVER, 0.8, "step 0 .*teacher nan"),
        (NEVER, NEVER, -1.0, "CE -1"),
    ],
)
def test_negative_weight_is_refused_with_its_first_step(teacher, self_teacher, ce_weight, match):
    with pytest.raises(InputError, match=match):
        check_weights(teacher, self_teacher, ce_weight, 100)


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


def test_the_gradient_of_cross_entropy_is_softmax_minus_label_also_under_jit():
    logits, labels = _logits(9, 6), jnp.int32(2)
    expected = jax.nn.softmax(logits) - jax.nn.one_hot(2, 6)
    for transform in (lambda f: f, jax.jit):
        gradient = transform(jax.grad(cross_entropy))(logits, labels)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.7])
@pytest.mark.parametrize("sources", ["", "teacher", "self", "teacher self"])
def test_the_objective_is_its_formula(shape, adaptive, temperature, sources):
    student, teacher, self_teacher, labels = _inputs(0, *shape)
    teacher = teacher if "teacher" in sources else None
    self_teacher = self_teacher if "self" in sources else None
    weights = Weights(0.3, 0.5, 0.2)
    settings = {"temperature": temperature, "adaptive": adaptive}
    loss = askd_losses(student, teacher, self_teacher, labels, weights, **settings)
    expected = reference(student, teacher, self_teacher, np.asarray(labels), weights, **settings)
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-5)
    assert loss.dtype == jnp.float32
    gradient = jax.grad(
        lambda z: jnp.sum(askd_losses(z, teacher, self_teacher, labels, weights, **settings))
    )(student)
    np.testing.assert_allclose(gradient, expected.gradient, atol=1e-6)


def test_teacher_and_earlier_self_get_exactly_zero_gradient():
    student, teacher, self_teacher, labels = _inputs(1, 3)
    gradients = jax.grad(
        lambda *z: jnp.sum(askd_losses(*z, labels, Weights(0.2, 0.5, 0.3))), argnums=(0, 1, 2)
    )(student, teacher, self_teacher)
    assert np.any(gradients[0])
    assert not np.any(gradients[1]) and not np.any(gradients[2])


def test_adaptive_gate_changes_nothing_where_labels_are_the_teachers_best_tokens():
    student, teacher, self_teacher, _ = _inputs(2, 2, 5)
    arguments = student, teacher, self_teacher, jnp.argmax(teacher, axis=-1), Weights(0.2, 0.5, 0.3)
    np.testing.assert_array_equal(
        askd_losses(*arguments, adaptive=True), askd_losses(*arguments, adaptive=False)
    )


def test_adaptive_gate_turns_a_wrong_teachers_weight_into_cross_entropy():
    student, teacher, _, _ = _inputs(3, 6)
    wrong = jnp.argmin(teacher, axis=-1)
    gated = askd_losses(student, teacher, None, wrong, Weights(0.2, 0.5, 0.0), adaptive=True)
    ce_only = askd_losses(student, None, None, wrong, Weights(0.7, 0.0, 0.0))
    np.testing.assert_allclose(gated, ce_only, rtol=1e-6)
