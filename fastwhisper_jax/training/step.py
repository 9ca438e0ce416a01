"""One update as a pure function: the task's sums are differentiated, and the optimiser steps.

    train_step(state, teacher_params, batch) -> (state, metrics)

There is one step. A static `Phase` leaves out of the compiled program what the update does not need
to run: the teacher after its weight has become 0, the self teacher before and after its phase.
Everything else follows the traced `state.step`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastwhisper_jax.training.random_keys import DROPOUT, step_key
from fastwhisper_jax.training.state import TrainState
from fastwhisper_jax.training.task import (
    Batch,
    Metrics,
    Params,
    Phase,
    SelfTeacher,
    Sums,
    Task,
)

TrainStep = Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]


class StepConfig(NamedTuple):
    """What is static about an update, beside its task.

    Attributes:
        optimizer: updates `state.params`.
        learning_rate_at: the optimiser's schedule, for the metrics.
        accumulation_steps: micro-batches of an update.
        seed: of the key that the task draws from.
    """

    optimizer: optax.GradientTransformation
    learning_rate_at: optax.Schedule
    accumulation_steps: int = 1
    seed: int = 0


def make_train_step(task: Task, phase: Phase, config: StepConfig) -> TrainStep:
    """Builds the update of one phase; `jax.jit` it with the state donated.

    The batch is a dict of global arrays whose rows are divided over `sharding.BATCH_AXES`. The loss
    is the sum over the targets of the global batch, divided by their count. So sharding changes no
    result, and neither does accumulation where the task draws nothing at random: each micro-batch
    has its own key.

    Metrics are pairs (sum, count).
    """

    def train_step(
        state: TrainState, teacher_params: Params, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        weights = task.weights_at(state.step)
        self_teacher_params = None
        if phase.runs_self_teacher:
            assert task.self_teacher is not None
            self_teacher_params = _renewed_self_teacher(task.self_teacher, state)
        target_count = task.target_count(batch)

        def mean_loss(params: Params, micro_batch: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
            sums = task.sums(
                params,
                state.frozen_params,
                teacher_params,
                self_teacher_params,
                micro_batch,
                weights,
                key,
                phase,
            )
            return sums.loss / target_count, sums

        grads, sums = _accumulate(
            jax.grad(mean_loss, has_aux=True),
            state.params,
            batch,
            step_key(config.seed, DROPOUT, state.step),
            config.accumulation_steps,
        )
        updates, opt_state = config.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = dataclasses.replace(
            state, step=state.step + 1, params=params, opt_state=opt_state
        )
        if self_teacher_params is not None and task.self_teacher is not None:
            decay = task.self_teacher.ema_decay
            if decay is not None:
                self_teacher_params = optax.incremental_update(
                    params, self_teacher_params, 1.0 - decay
                )
            new_state = dataclasses.replace(new_state, self_teacher_params=self_teacher_params)
        one = jnp.ones(())
        metrics = task.metrics(sums, weights, phase) | {
            "loss": (sums.loss, target_count),
            "learning_rate": (config.learning_rate_at(state.step), one),
            "grad_norm": (optax.tree.norm(grads), one),
        }
        return new_state, metrics

    return train_step


def jitted_step(task: Task, phase: Phase, config: StepConfig, shardings: TrainState) -> Any:
    """The update of one phase under `jax.jit`: what trains, and what a plan compiles."""
    step = make_train_step(task, phase, config)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _renewed_self_teacher(rule: SelfTeacher, state: TrainState) -> Params:
    """The self teacher of this update: copied from the student if that is due, else unchanged."""
    assert state.self_teacher_params is not None
    since = state.step - rule.begin_step
    is_due = since == 0 if rule.ema_decay is not None else since % rule.snapshot_steps == 0
    return jax.tree.map(
        lambda x, old: jnp.where(is_due, x, old), state.params, state.self_teacher_params
    )


def _accumulate(
    grad_fn: Callable[..., tuple[Any, Sums]],
    params: Params,
    batch: Batch,
    key: jax.Array,
    accumulation_steps: int,
) -> tuple[Any, Sums]:
    """Adds up the gradients and sums of micro-batches that are computed one after the other."""
    if accumulation_steps == 1:
        return grad_fn(params, batch, key)

    def split(x: jax.Array) -> jax.Array:
        # Row r goes to micro-batch r % accumulation_steps, so that every device keeps its rows.
        rows = x.shape[0] // accumulation_steps
        return x.reshape(rows, accumulation_steps, *x.shape[1:]).swapaxes(0, 1)

    def body(total: Any, micro: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        micro_batch, index = micro
        part = grad_fn(params, micro_batch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, part), None

    micro_batches = (jax.tree.map(split, batch), jnp.arange(accumulation_steps))
    first = jax.tree.map(lambda x: x[0], micro_batches[0])
    shapes = jax.eval_shape(grad_fn, params, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(body, zeros, micro_batches)
    return total
