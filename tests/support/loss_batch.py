"""The objective computed from its formula in float64 NumPy, and random batches to compute it on."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.chunked import (
    ChunkSettings,
    LogitFactors,
    Sums,
    Targets,
    distillation_sums,
)

WEIGHTS = Weights(0.3, 0.5, 0.2)


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


def reference(student, teacher, self_teacher, labels, weights, temperature=1.0, adaptive=False):
    """Returns the `Reference` of logits (..., V) and labels (...)."""
    student = np.asarray(student, np.float64)
    ce_weight, teacher_weight, self_weight = (
        np.full(labels.shape, np.float64(weight)) for weight in weights[:3]
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
    for target, weight in ((teacher, teacher_weight), (self_teacher, self_weight)):
        if target is None:
            divergences.append(np.zeros(labels.shape))
            continue
        log_target = _log_softmax(np.asarray(target, np.float64) / temperature)
        divergence = temperature**2 * np.sum(np.exp(log_target) * (log_target - soft), axis=-1)
        loss = loss + weight * divergence
        gradient += (weight * temperature)[..., None] * (np.exp(soft) - np.exp(log_target))
        divergences.append(divergence)
    return Reference(loss, ce, *divergences, gradient)


class Models(NamedTuple):
    """What the logits of each model are made of; None for a model that is not run."""

    student: LogitFactors
    teacher: LogitFactors | None
    self_teacher: LogitFactors | None


def make_batch(rows, length, width, vocabulary, teacher_width=None):
    """Returns `Models`, and labels with their mask.

    About 3 of 4 tokens are targets. About half of the labels are the teacher's best token.
    """
    generator = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    def factors(size):
        return LogitFactors(
            normal(rows, length, size), 2 * normal(vocabulary, size) / np.sqrt(size)
        )

    models = Models(factors(width), factors(teacher_width or width), factors(width))
    best = jnp.argmax(logits_of(models.teacher), axis=-1)
    other = jnp.asarray(generator.integers(0, vocabulary, (rows, length)))
    is_best = jnp.asarray(generator.random((rows, length)) < 0.5)
    mask = jnp.asarray(generator.random((rows, length)) < 0.75, jnp.float32).at[0, 0].set(1.0)
    labels = jnp.where(is_best, best, other).astype(jnp.int32)
    return models, {"labels": labels, "label_mask": mask}


def logits_of(factors):
    """Returns the logits (B, T, V) of `LogitFactors`, or None of None."""
    return None if factors is None else factors.states @ factors.embedding.T


def batch_sums(models, labels, label_mask, weights=WEIGHTS, chunk_tokens=8, **settings) -> Sums:
    """Returns `distillation_sums` of a batch."""
    student, *teachers = models
    targets = Targets(labels, label_mask, weights, *teachers)
    return distillation_sums(student, targets, ChunkSettings(chunk_tokens, **settings))
