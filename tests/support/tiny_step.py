"""A compiled train step on tiny models, the updates that it makes, and how to compare them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.models.student import student_params
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.optimizer import make_optimizer
from fastwhisper_jax.training.sharding import make_mesh, put_batch, tree_shardings
from fastwhisper_jax.training.state import init_state, split_params
from fastwhisper_jax.training.step import Phase, make_train_step

BEGIN, UPDATES, ROWS, LENGTH = 2, 5, 8, 10
BOTH = Phase(runs_teacher=True, runs_self_teacher=True)

# c, a, m after s completed updates: all three, the labels alone, the teacher, the self teacher.
TABLE = [(9.0, 9.0, 9.0)] * BEGIN + [(0.8, 1.0, 0.3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
TABLE += [(0.0, 0.0, 1.0), (0.5, 0.2, 0.7)]


def weights_at(step):
    return Weights(*jnp.asarray(TABLE, jnp.float32)[step])


def remembering(optimizer):
    """The optimiser, whose state also holds the gradient of the update that it has just made."""
    return optax.chain(
        optax.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params),
            lambda grads, _, params: (grads, grads),
        ),
        optimizer,
    )


OPTIMIZER = remembering(
    make_optimizer(
        lambda step: 1e-2,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.5,
        clip_norm=1.0,
    )
)


class Trainer:
    """A compiled step with what it starts from; keeps host copies, for states are donated."""

    def __init__(self, setup, teacher, frozen, shape=(1, 1, 1), phase=BOTH):
        self.mesh = make_mesh(*shape, devices=jax.devices()[: math.prod(shape)])
        given = setup.student_options
        setup = dataclasses.replace(
            setup,
            teacher_options=model_options(self.mesh, "float32"),
            student_options=model_options(self.mesh, "float32", given.rematerialise, given.dropout),
        )
        layers = range(setup.student_dims.n_audio_layer), (0, setup.teacher_dims.n_text_layer - 1)
        self.student = student_params(teacher, setup.student_dims, *map(tuple, layers))
        params, frozen_params = split_params(self.student, frozen)
        if setup.shares_encoder:
            frozen_params.pop("encoder")
        state = jax.tree.map(np.asarray, init_state(params, frozen_params, OPTIMIZER, True))
        # Training is at step BEGIN already, and the earlier self holds what must not be used.
        garbage = jax.tree.map(lambda x: np.full_like(x, 7.0), state.self_teacher_params)
        self.first = state.replace(step=np.int32(BEGIN), self_teacher_params=garbage)
        self.shardings = tree_shardings(state, RULES, self.mesh)
        self.teacher = jax.device_put(teacher, tree_shardings(teacher, RULES, self.mesh))
        self.step = jax.jit(
            make_train_step(setup, phase, weights_at, lambda step: 1e-2, OPTIMIZER, self.mesh),
            donate_argnums=0,
            out_shardings=(self.shardings, None),
        )

    def update(self, state, batch):
        """One update of a host state."""
        placed = jax.device_put(state, self.shardings)
        return jax.device_get(self.step(placed, self.teacher, put_batch(batch, self.mesh)))

    def run(self, batches):
        """(states, metrics): the first state and the one after each batch; metrics as means."""
        states, rows = [self.first], []
        state = jax.device_put(self.first, self.shardings)
        for batch in batches:
            state, metrics = self.step(state, self.teacher, put_batch(batch, self.mesh))
            states.append(jax.device_get(state))
            rows.append({n: float(total / count) for n, (total, count) in metrics.items()})
        return states, rows


def gradient(state):
    return state.opt_state[0]


def assert_trees_close(ours, theirs, relative):
    """Every leaf within `relative` of its own largest value."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    with_paths = jax.tree_util.tree_flatten_with_path(theirs)[0]
    for ours_leaf, (path, leaf) in zip(jax.tree.leaves(ours), with_paths, strict=True):
        apart, largest = np.abs(ours_leaf - leaf).max(), np.abs(leaf).max()
        assert apart <= relative * largest, f"{path}: {apart} of {largest}"


def assert_same_bits(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
