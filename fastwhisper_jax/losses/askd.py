"""The definition of the ASKD objective: weights that follow the step, and the loss of each token.

Training uses `chunked.distillation_sums`, which computes the same numbers and never holds a
vocabulary-wide array of the whole batch. It must agree with this module.

Losses are not reduced and are computed in float32. The caller masks, sums and divides.

Source:
    ASKD / FastWhisper (arXiv 2601.19919). The full text was not available: this is our reading of
    the abstracts of its two versions. Distil-Whisper (arXiv 2311.00430) is the special case with
    constant weights 0.8 and 1.0 and temperature 2, as in its released code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.schedules import WeightSchedule


class Weights(NamedTuple):
    """The weights of the terms at step s, float32 scalars.

    Attributes:
        ce: c(s), the weight of the cross-entropy with the labels.
        teacher: a(s), the weight of the divergence from the teacher.
        self_teacher: m(s), the weight of the divergence from the self teacher, which is an earlier
            state of the student (an average or a snapshot).
        hidden: h(s), the weight of the distance between hidden states; None in a run without it.
    """

    ce: ArrayLike
    teacher: ArrayLike
    self_teacher: ArrayLike
    hidden: ArrayLike | None = None


def askd_weights(
    step: ArrayLike,
    teacher_schedule: WeightSchedule,
    self_schedule: WeightSchedule,
    ce_weight: float | None,
    hidden_schedule: WeightSchedule | None = None,
) -> Weights:
    """Returns the weights of the update that follows `step` completed updates.

    Every recipe is a choice of the three weights: CE only (1, 0, 0), constant distillation, decay
    only, self only, and ASKD. In ASKD the teacher's share passes to the labels and to the self
    teacher.

    Args:
        step: completed updates, an integer scalar, traced or not.
        teacher_schedule: a(s).
        self_schedule: m(s).
        ce_weight: a constant c, or None for the complement c(s) = 1 - a(s) - m(s).
        hidden_schedule: h(s), or None for an objective without that term.
    """
    teacher = teacher_schedule(step)
    self_teacher = self_schedule(step)
    ce = 1.0 - teacher - self_teacher if ce_weight is None else jnp.full_like(teacher, ce_weight)
    return Weights(ce, teacher, self_teacher, hidden_schedule and hidden_schedule(step))


def check_weights(
    teacher_schedule: WeightSchedule,
    self_schedule: WeightSchedule,
    ce_weight: float | None,
    total_steps: int,
) -> None:
    """Checks that every weight is finite and not negative at every step of a run.

    Raises:
        InputError: a weight is not; the message names the first such step.
    """
    steps = np.arange(total_steps, dtype=np.int32)
    weights = np.stack(askd_weights(steps, teacher_schedule, self_schedule, ce_weight)[:3])
    # Rounding may leave the complement of weights that add up to 1 slightly below 0.
    is_valid = np.all(np.isfinite(weights) & (weights >= -1e-6), axis=0)
    if not np.all(is_valid):
        step = int(np.argmin(is_valid))
        ce, teacher, self_teacher = (float(weight) for weight in weights[:, step])
        complement = " (the complement of the other two)" if ce_weight is None else ""
        raise InputError(
            f"at step {step} the loss weights are teacher {teacher:.4g}, self {self_teacher:.4g} "
            f"and CE {ce:.4g}{complement}; none may be negative: lower a schedule or set ce_weight"
        )


def cross_entropy(logits: Float[Array, "*B V"], labels: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Returns the negative log-likelihood of each label.

        CE = log sum_v exp(z_v) - z_y        z: logits, y: label

    Args:
        logits: (..., V), any float dtype.
        labels: (...), integers in [0, V).

    Returns:
        (...), float32, at least 0.

    Source:
        `optax.losses.softmax_cross_entropy_with_integer_labels`.
    """
    log_predictions = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.take_along_axis(log_predictions, labels[..., None], axis=-1)[..., 0]


def kl_divergence(
    log_predictions: Float[Array, "*B V"], targets: Float[Array, "*B V"]
) -> Float[Array, "*B"]:
    """Returns the Kullback-Leibler divergence of each prediction from its target distribution.

        KL(p || q) = sum_v p_v (log p_v - log q_v)        p: targets, q: predictions

    A target probability of exactly 0 contributes exactly 0, whatever the prediction is.

    Args:
        log_predictions: (..., V), log-probabilities, any float dtype.
        targets: (..., V), probabilities.

    Returns:
        (...), float32; 0 where the two distributions are the same.

    Source:
        `optax.losses.kl_divergence`.
    """
    targets = targets.astype(jnp.float32)
    is_possible = targets > 0
    log_ratio = jnp.log(jnp.where(is_possible, targets, 1.0)) - log_predictions.astype(jnp.float32)
    return jnp.sum(targets * jnp.where(is_possible, log_ratio, 0.0), axis=-1)


def askd_losses(
    student_logits: Float[Array, "*B V"],
    teacher_logits: Float[Array, "*B V"] | None,
    self_teacher_logits: Float[Array, "*B V"] | None,
    labels: Int[Array, "*B"],
    weights: Weights,
    *,
    temperature: float = 1.0,
    adaptive: bool = False,
) -> Float[Array, "*B"]:
    """Returns the objective of each token.

        L = c CE(y, z_S) + a t^2 KL(softmax(z_T/t) || softmax(z_S/t))
                         + m t^2 KL(softmax(z_self/t) || softmax(z_S/t))

    with c, a, m the weights, t the temperature, z logits, y the label. The gradient reaches the
    student's logits only.

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V), or None to leave the term out.
        self_teacher_logits: (..., V), or None to leave the term out.
        labels: (...), integers in [0, V).
        weights: c, a, m.
        temperature: above 0.
        adaptive: gives a to CE wherever the label is not the teacher's best token (or one of
            several equal ones). This changes nothing where the labels are the same teacher's greedy
            transcript.

    Returns:
        (...), float32.
    """
    ce_weight, teacher_weight = jnp.float32(weights.ce), jnp.float32(weights.teacher)
    log_predictions = jax.nn.log_softmax(student_logits.astype(jnp.float32) / temperature)
    loss = jnp.zeros(labels.shape, jnp.float32)
    if teacher_logits is not None:
        if adaptive:
            label_logits = jnp.take_along_axis(teacher_logits, labels[..., None], axis=-1)[..., 0]
            is_right = label_logits >= jnp.max(teacher_logits, axis=-1)
            ce_weight = ce_weight + jnp.where(is_right, 0.0, teacher_weight)
            teacher_weight = jnp.where(is_right, teacher_weight, 0.0)
        teacher_kl = kl_divergence(log_predictions, _soft_targets(teacher_logits, temperature))
        loss = loss + teacher_weight * temperature**2 * teacher_kl
    if self_teacher_logits is not None:
        self_kl = kl_divergence(log_predictions, _soft_targets(self_teacher_logits, temperature))
        loss = loss + weights.self_teacher * temperature**2 * self_kl
    return loss + ce_weight * cross_entropy(student_logits, labels)


def _soft_targets(logits: jax.Array, temperature: float) -> jax.Array:
    return jax.nn.softmax(jax.lax.stop_gradient(logits).astype(jnp.float32) / temperature)
