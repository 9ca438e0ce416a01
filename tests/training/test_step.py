"""The update as a compiled program: what is donated, and what travels between devices."""

import re

import jax
import numpy as np
import pytest
from support.toy_family import make_toy_run

from fastwhisper_jax.errors import TrainingError
from fastwhisper_jax.training.loop import LogInterval, PhasedStep
from fastwhisper_jax.training.sharding import make_mesh, put_batch
from fastwhisper_jax.training.state import abstract_state, first_state
from fastwhisper_jax.training.step import jitted_step
from fastwhisper_jax.training.task import Phase


def shardings_of(run):
    shapes = abstract_state(run.task, run.step_config.optimizer, run.mesh)
    return jax.tree.map(lambda x: x.sharding, shapes)


def first_batch(run):
    return run.task.collate(run.layouts[0], range(16))


def test_the_state_is_donated_and_the_teacher_is_not():
    run = make_toy_run(make_mesh(1, 1, devices=jax.devices()[:1]))
    shardings = shardings_of(run)
    state = first_state(run.task, run.step_config.optimizer, shardings)
    train_step = PhasedStep(run.task, run.step_config, shardings)
    train_step(0, state, run.teacher_params, put_batch(first_batch(run), run.mesh))
    # Frozen leaves pass through unchanged, and may keep their buffers.
    assert state.params["weight"].is_deleted()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.opt_state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(run.teacher_params))


def test_no_row_changes_its_device_when_a_batch_is_split_into_micro_batches():
    run = make_toy_run(make_mesh(8, 1), accumulation_steps=2)
    state = abstract_state(run.task, run.step_config.optimizer, run.mesh)
    step = jitted_step(run.task, Phase(True, False), run.step_config, shardings_of(run))
    batch = put_batch(first_batch(run), run.mesh)
    program = step.lower(state, run.teacher_params, batch).compile().as_text()
    collectives = set(re.findall(r"all-gather|all-to-all|collective-permute|all-reduce", program))
    assert collectives == {"all-reduce"}


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_loss_or_a_gradient_that_is_not_finite_is_found(name):
    interval = LogInterval()
    metrics = {"loss": 1.0, "grad_norm": 2.0} | {name: np.nan}
    interval.add({key: (np.float32(value), np.float32(1.0)) for key, value in metrics.items()})
    with pytest.raises(TrainingError, match=f"{name} is nan in steps 7 to 7"):
        interval.reduce(7, global_batch_size=8)
