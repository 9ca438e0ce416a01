"""The ASKD losses of some tokens and their gradient with respect to the logits, in closed form.

`askd.askd_losses` defines the losses. This module computes them in fewer passes over the
vocabulary: it normalises each set of logits once per temperature, and it forms the gradient from
arrays that exist already instead of differentiating the loss.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fastwhisper_jax.losses.askd import Weights


class TokenLosses(NamedTuple):
    """The losses and counts of each token; every field is float32.

    Attributes:
        loss: the objective.
        ce: cross-entropy with the label.
        kl_teacher: squared temperature x divergence from the teacher; 0 without one.
        kl_self: squared temperature x divergence from the self teacher; 0 without one.
        correct: 1 where the label is the student's best token, or one of several equal ones.
        teacher_correct: 1 where the label is the teacher's best token; 0 without a teacher.
    """

    loss: Float[Array, "*B"]
    ce: Float[Array, "*B"]
    kl_teacher: Float[Array, "*B"]
    kl_self: Float[Array, "*B"]
    correct: Float[Array, "*B"]
    teacher_correct: Float[Array, "*B"]


class _Softmax(NamedTuple):
    """softmax(logits / t), kept as logits that are not divided by t, to save one array.

    Attributes:
        logits: (..., V).
        temperature: t.
        top: (...), the greatest logit.
        label_logit: (...), the logit of the label.
        normaliser: (...), t log sum exp(logits / t).
    """

    logits: jax.Array
    temperature: float
    top: jax.Array
    label_logit: jax.Array
    normaliser: jax.Array


def losses_and_gradient(
    student_logits: Float[Array, "*B V"],
    teacher_logits: Float[Array, "*B V"] | None,
    self_teacher_logits: Float[Array, "*B V"] | None,
    labels: Int[Array, "*B"],
    weights: Weights,
    *,
    temperature: float,
    adaptive: bool,
    gradient_scale: Float[Array, "*B"] | None = None,
) -> tuple[TokenLosses, Float[Array, "*B V"] | None]:
    """Returns the losses of each token, and the gradient of `sum(gradient_scale * loss)`.

        dL/dz_S = c (p_S(1) - y) + a t (p_S(t) - p_T(t)) + m t (p_S(t) - p_self(t))

    with p(t) the softmax at temperature t, c, a, m the token's weights and y its one-hot label.
    The factor t is the loss's t^2 times the 1/t of the chain rule. Only the adaptive gate makes a
    token's weights differ from those of the step.

    Args:
        student_logits: (..., V) float32.
        teacher_logits: (..., V) float32, or None.
        self_teacher_logits: (..., V) float32, or None.
        labels: (...), integers in [0, V).
        weights: c, a, m.
        temperature: t, above 0.
        adaptive: the gate of `askd.askd_losses`.
        gradient_scale: (...) float32, 0 where masked; None to compute no gradient.

    Returns:
        The losses, and the gradient (..., V), float32, or None.
    """
    zeros = jnp.zeros(labels.shape, jnp.float32)
    ce_weight, teacher_weight = zeros + weights.ce, zeros + weights.teacher
    self_weight = zeros + weights.self_teacher

    student = _normalise(student_logits, labels, 1.0)
    soft_student = student
    if temperature != 1.0 and not (teacher_logits is None and self_teacher_logits is None):
        soft_student = _normalise(student_logits, labels, temperature)
    ce = student.normaliser - student.label_logit
    kl_teacher, kl_self, teacher_correct = zeros, zeros, zeros
    soft_teacher = soft_self = None
    if teacher_logits is not None:
        soft_teacher = _normalise(teacher_logits, labels, temperature)
        kl_teacher = _divergence(soft_teacher, soft_student)
        teacher_correct = _is_best(soft_teacher)
        if adaptive:
            ce_weight = ce_weight + (1.0 - teacher_correct) * teacher_weight
            teacher_weight = teacher_correct * teacher_weight
    if self_teacher_logits is not None:
        soft_self = _normalise(self_teacher_logits, labels, temperature)
        kl_self = _divergence(soft_self, soft_student)
    loss = ce_weight * ce + teacher_weight * kl_teacher + self_weight * kl_self
    losses = TokenLosses(loss, ce, kl_teacher, kl_self, _is_best(student), teacher_correct)
    if gradient_scale is None:
        return losses, None

    tokens = jax.lax.broadcasted_iota(labels.dtype, student_logits.shape, labels.ndim)
    is_label = (tokens == labels[..., None]).astype(jnp.float32)
    gradient = (gradient_scale * ce_weight)[..., None] * (_probabilities(student) - is_label)
    for target, weight in ((soft_teacher, teacher_weight), (soft_self, self_weight)):
        if target is not None:
            scale = (gradient_scale * weight * temperature)[..., None]
            gradient = gradient + scale * (_probabilities(soft_student) - _probabilities(target))
    return losses, gradient


def _normalise(logits: jax.Array, labels: jax.Array, temperature: float) -> _Softmax:
    top = jnp.max(logits, axis=-1)
    label_logit = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    total = jnp.sum(_exp(logits, top, temperature), axis=-1)
    return _Softmax(logits, temperature, top, label_logit, top + temperature * jnp.log(total))


def _exp(logits: jax.Array, offset: jax.Array, temperature: float) -> jax.Array:
    return jnp.exp((logits - offset[..., None]) * (1.0 / temperature))


def _probabilities(softmax: _Softmax) -> jax.Array:
    return _exp(softmax.logits, softmax.normaliser, softmax.temperature)


def _divergence(target: _Softmax, prediction: _Softmax) -> jax.Array:
    """Returns squared temperature x KL(target || prediction)."""
    # The logits of two models may differ by a large constant. Subtracting the normalisers inside
    # the sum cancels it early; cancelling it after the sum would lose digits.
    offset = target.normaliser - prediction.normaliser
    log_ratio = target.logits - prediction.logits - offset[..., None]
    return target.temperature * jnp.sum(_probabilities(target) * log_ratio, axis=-1)


def _is_best(softmax: _Softmax) -> jax.Array:
    return (softmax.label_logit >= softmax.top).astype(jnp.float32)
