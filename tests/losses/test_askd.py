import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.loss_batch import reference

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.askd import Weights, askd_losses, askd_weights, check_weights
from fastwhisper_jax.losses.schedules import constant_schedule, linear_schedule

NEVER = constant_schedule(0.0)


def _inputs(seed, *shape, vocabulary=19):
    generator = np.random.default_rng(seed)
    logits = [
        jnp.asarray(generator.normal(0, 2, (*shape, vocabulary)), jnp.float32) for _ in range(3)
    ]
    labels = np.asarray(jnp.argmax(logits[1], axis=-1)).copy()
    wrong = generator.random(shape) < 0.5
    labels[wrong] = generator.integers(0, vocabulary, shape)[wrong]
    return (*logits, jnp.asarray(labels, jnp.int32))


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


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.7])
@pytest.mark.parametrize("sources", ["", "teacher", "self", "teacher self"])
def test_is_its_formula(shape, adaptive, temperature, sources):
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
