import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.loss_batch import WEIGHTS, reference

from fastwhisper_jax.losses.askd import Weights, askd_losses
from fastwhisper_jax.losses.closed_form import losses_and_gradient


def _logits(seed, scale=2.0, shift=0.0, shape=(3, 4), vocabulary=29):
    values = np.random.default_rng(seed).normal(shift, scale, (*shape, vocabulary))
    return jnp.asarray(values, jnp.float32)


def _labels(teacher):
    """Every other label is the teacher's best token."""
    best, worst = jnp.argmax(teacher, axis=-1), jnp.argmin(teacher, axis=-1)
    return jnp.where(jnp.arange(best.shape[-1])[None, :] % 2 == 0, best, worst)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.7])
@pytest.mark.parametrize("sources", ["", "teacher", "self", "teacher self"])
def test_losses_and_gradient_are_the_formulas(sources, temperature, adaptive):
    student, teacher, self_teacher = _logits(0), _logits(1), _logits(2)
    labels = _labels(teacher)
    teacher = teacher if "teacher" in sources else None
    self_teacher = self_teacher if "self" in sources else None
    scale = jnp.linspace(0.0, 2.0, 12).reshape(3, 4)
    losses, gradient = losses_and_gradient(
        student,
        teacher,
        self_teacher,
        labels,
        WEIGHTS,
        temperature=temperature,
        adaptive=adaptive,
        gradient_scale=scale,
    )
    expected = reference(
        student, teacher, self_teacher, np.asarray(labels), WEIGHTS, temperature, adaptive
    )
    for name in ("loss", "ce", "kl_teacher", "kl_self"):
        np.testing.assert_allclose(
            getattr(losses, name), getattr(expected, name), rtol=1e-5, err_msg=name
        )
    np.testing.assert_allclose(
        gradient, np.asarray(scale)[..., None] * expected.gradient, atol=2e-6
    )
    np.testing.assert_array_equal(losses.correct, jnp.argmax(student, axis=-1) == labels)
    if teacher is not None:
        np.testing.assert_array_equal(losses.teacher_correct, [[1.0, 0.0, 1.0, 0.0]] * 3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradient_is_what_differentiating_the_definition_gives(temperature):
    student, teacher, self_teacher = _logits(3), _logits(4), _logits(5)
    labels = _labels(teacher)
    settings = {"temperature": temperature, "adaptive": True}
    _, gradient = losses_and_gradient(
        student, teacher, self_teacher, labels, WEIGHTS, gradient_scale=jnp.ones((3, 4)), **settings
    )
    expected = jax.grad(
        lambda z: jnp.sum(askd_losses(z, teacher, self_teacher, labels, WEIGHTS, **settings))
    )(student)
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_a_label_that_is_one_of_the_teachers_equal_best_tokens_keeps_the_teacher():
    """Whichever of them it is: in the definition, and as it is computed."""
    student, teacher = _logits(3), _logits(4).at[..., 2:4].set(100.0)
    settings = {"temperature": 2.0, "adaptive": True}
    for best in (2, 3):
        labels = jnp.full((3, 4), best, jnp.int32)
        losses, _ = losses_and_gradient(student, teacher, None, labels, WEIGHTS, **settings)
        expected = askd_losses(student, teacher, None, labels, WEIGHTS, **settings)
        assert np.all(losses.teacher_correct == 1.0)
        np.testing.assert_allclose(losses.loss, expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergence_from_an_equal_student_is_exactly_zero_and_pulls_nowhere(temperature):
    logits = _logits(6, vocabulary=51865)
    losses, gradient = losses_and_gradient(
        logits,
        logits,
        logits,
        jnp.zeros((3, 4), jnp.int32),
        Weights(0.0, 0.5, 0.5),
        temperature=temperature,
        adaptive=False,
        gradient_scale=jnp.ones((3, 4)),
    )
    assert not np.any(losses.kl_teacher) and not np.any(losses.kl_self)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


def test_a_large_constant_between_two_models_logits_costs_no_digits():
    student, teacher = _logits(7, shift=-40.0), _logits(8, shift=40.0)
    labels = _labels(teacher)
    losses, _ = losses_and_gradient(
        student, teacher, None, labels, WEIGHTS, temperature=1.0, adaptive=False
    )
    expected = reference(student, teacher, None, np.asarray(labels), WEIGHTS)
    np.testing.assert_allclose(losses.kl_teacher, expected.kl_teacher, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_logits_stay_finite(scale):
    student, teacher = _logits(9, scale), _logits(10, scale)
    losses, gradient = losses_and_gradient(
        student,
        teacher,
        student,
        _labels(teacher),
        WEIGHTS,
        temperature=0.5,
        adaptive=True,
        gradient_scale=jnp.ones((3, 4)),
    )
    assert all(np.all(np.isfinite(array)) for array in (*losses, gradient))


def test_no_gradient_is_computed_unless_asked_for():
    student = _logits(11)
    _, gradient = losses_and_gradient(
        student, None, None, _labels(student), WEIGHTS, temperature=1.0, adaptive=False
    )
    assert gradient is None
