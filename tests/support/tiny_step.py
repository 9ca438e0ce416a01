"""A compiled train step on tiny models, the updates that it makes, and how to compare them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import own_params
from fastwhisper_jax.distillation.sums import AskdConfig, askd_metrics, make_sums
from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.chunked import ChunkSettings
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.student import student_params
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES, WIDTH_AXES
from fastwhisper_jax.training.optimizer import make_optimizer
from fastwhisper_jax.training.sharding import (
    BATCH_AXES,
    TOKEN_AXIS,
    make_mesh,
    put_batch,
    tree_shardings,
)
from fastwhisper_jax.training.state import init_state
from fastwhisper_jax.training.step import StepConfig, jitted_step
from fastwhisper_jax.training.task import Phase, SelfTeacher, Task
from support import tiny_run

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


class Case(NamedTuple):
    """A student and its objective, trained on one of several meshes.

    The teacher is tiny_run's; `frozen` are paths of the student's parameters.
    """

    frozen: tuple[str, ...]
    student: ModelDimensions = tiny_run.STUDENT
    options: ModelOptions = ModelOptions()
    shares_encoder: bool = True
    chunk_tokens: int = 256
    temperature: float = 1.0
    adaptive: bool = False
    self_teacher: SelfTeacher = SelfTeacher(BEGIN, ema_decay=0.9)
    accumulation_steps: int = 1
    phase: Phase = BOTH

    def askd_config(self, mesh):
        """What is static in the sums, on a mesh."""
        options = model_options(
            mesh, self.options.dtype, self.options.rematerialise, self.options.dropout
        )
        return AskdConfig(
            teacher_dims=tiny_run.TEACHER,
            student_dims=self.student,
            teacher_options=model_options(mesh, self.options.dtype),
            student_options=options,
            shares_encoder=self.shares_encoder,
            loss=ChunkSettings(
                chunk_tokens=self.chunk_tokens,
                temperature=self.temperature,
                adaptive=self.adaptive,
                mesh=mesh,
                batch_axes=BATCH_AXES,
                token_axis=TOKEN_AXIS,
                width_axes=WIDTH_AXES,
            ),
        )

    def task(self, mesh, teacher):
        """A task without data."""
        layers = range(self.student.n_audio_layer), (0, tiny_run.TEACHER.n_text_layer - 1)
        student = student_params(teacher, self.student, *map(tuple, layers))
        parts = own_params(student, self.frozen, self.shares_encoder)
        return Task(
            initial_params=lambda: parts,
            param_shapes=parts,
            sharding_rules=RULES,
            sums=make_sums(self.askd_config(mesh)),
            target_count=lambda batch: batch["label_mask"].sum(),
            weights_at=weights_at,
            phase_at=lambda step: self.phase,
            metrics=askd_metrics,
            collate=None,
            featurise=None,
            score=None,
            self_teacher=self.self_teacher,
        )


class Trainer:
    """A compiled step with what it starts from; keeps host copies, for states are donated."""

    def __init__(self, case, teacher, shape=(1, 1, 1)):
        self.case = case
        self.mesh = make_mesh(*shape, devices=jax.devices()[: math.prod(shape)])
        self.task = case.task(self.mesh, teacher)
        state = jax.tree.map(np.asarray, init_state(*self.task.initial_params(), OPTIMIZER, True))
        # Training is at step BEGIN already, and the self teacher holds what must not be used.
        garbage = jax.tree.map(lambda x: np.full_like(x, 7.0), state.self_teacher_params)
        self.first = state.replace(step=np.int32(BEGIN), self_teacher_params=garbage)
        self.shardings = tree_shardings(state, RULES, self.mesh)
        self.teacher = jax.device_put(teacher, tree_shardings(teacher, RULES, self.mesh))
        config = StepConfig(OPTIMIZER, lambda step: 1e-2, case.accumulation_steps)
        self.step = jitted_step(self.task, case.phase, config, self.shardings)

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
