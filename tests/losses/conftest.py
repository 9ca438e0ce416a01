"""The objective once more, from its formula, in float64 NumPy; and batches to compute it on."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest


class Reference(NamedTuple):
    """The objective of each token in float64, and its gradient by the student's logits."""

    loss: np.ndarray
    ce: np.ndarray
    kl_teacher: np.ndarray
    kl_self: np.ndarray
    gradient: np.ndarray


def _log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _reference(student, teacher, earlier, labels, weights, temperature=1.0, adaptive=False):
    student = np.asarray(student, np.float64)
    ce_weight, teacher_weight, self_weight = (
        np.full(labels.shape, np.float64(weight)) for weight in weights
    )
    hard, soft = _log_softmax(student), _log_softmax(student / temperature)
    one_hot = np.arange(student.shape[-1]) == labels[..., None]
    ce = -np.sum(hard * one_hot, axis=-1)
    if teacher is not None and adaptive:
        is_right = np.argmax(teacher, axis=-1) == labels
        ce_weight = ce_weight + np.where(is_right, 0.0, teacher_weight)
        teacher_weight = np.where(is_right, teacher_weight, 0.0)
    loss = ce_weight * ce
    gradient = ce_weight[..., None] * (np.exp(hard) - one_hot)
    divergences = []
    for target, weight in ((teacher, teacher_weight), (earlier, self_weight)):
        if target is None:
            divergences.append(np.zeros(labels.shape))
            continue
        log_target = _log_softmax(np.asarray(target, np.float64) / temperature)
        divergence = temperature**2 * np.sum(np.exp(log_target) * (log_target - soft), axis=-1)
        loss = loss + weight * divergence
        gradient += (weight * temperature)[..., None] * (np.exp(soft) - np.exp(log_target))
        divergences.append(divergence)
    return Reference(loss, ce, *divergences, gradient)


@pytest.fixture(scope="session")
def reference():
    """reference(student, teacher, earlier, labels, weights, temperature, adaptive) -> Reference."""
    return _reference


def _batch(rows, length, width, vocabulary, seed=0, teacher_width=None):
    """Arguments of distillation_sums; about 3 of 4 tokens are targets, half as the teacher says."""
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    widths = {"student": width, "teacher": teacher_width or width, "self": width}
    arrays = {}
    for who, size in widths.items():
        arrays[f"{who}_states"] = normal(rows, length, size)
        arrays[f"{who}_embedding"] = 2 * normal(vocabulary, size) / np.sqrt(size)
    best = jnp.argmax(arrays["teacher_states"] @ arrays["teacher_embedding"].T, axis=-1)
    other = jnp.asarray(generator.integers(0, vocabulary, (rows, length)))
    is_best = jnp.asarray(generator.random((rows, length)) < 0.5)
    mask = jnp.asarray(generator.random((rows, length)) < 0.75, jnp.float32).at[0, 0].set(1.0)
    labels = jnp.where(is_best, best, other).astype(jnp.int32)
    return arrays, {"labels": labels, "label_mask": mask}


@pytest.fixture(scope="session")
def make_batch():
    """make_batch(rows, length, width, vocabulary) -> arrays and tokens of distillation_sums."""
    return _batch
