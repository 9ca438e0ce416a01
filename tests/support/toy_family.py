"""A model family that is no Whisper: a linear map on vectors, fitted to a teacher's outputs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import TrainingConfig
from fastwhisper_jax.data.batching import BatchRules, UtteranceSize
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.training.loop import Run
from fastwhisper_jax.training.sharding import put_array, tree_shardings
from fastwhisper_jax.training.step import StepConfig
from fastwhisper_jax.training.task import Phase, SelfTeacher, Task

EXAMPLES, INPUTS, OUTPUTS, STEPS, SELF_BEGIN = 40, 4, 8, 10, 4
RULES = ((r"weight$", P(None, "fsdp")), (r"scale$", P()), (r"(step|count)$", P()))

generator = np.random.default_rng(0)
VECTORS = generator.normal(size=(EXAMPLES, INPUTS)).astype(np.float32)
TEACHER = {"weight": generator.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)}


class Sums(NamedTuple):
    """What the task sums over a batch."""

    loss: jax.Array


def squared_distances(params, frozen, teacher, self_teacher, batch, weights, key, phase):
    """The distance from the teacher's outputs, and from the self teacher's when it is run."""
    outputs = batch["vectors"] @ params["weight"] * frozen["scale"]
    distance = jnp.sum((outputs - batch["vectors"] @ teacher["weight"]) ** 2, axis=1)
    if phase.runs_self_teacher:
        earlier = batch["vectors"] @ self_teacher["weight"] * frozen["scale"]
        distance += weights * jnp.sum((outputs - earlier) ** 2, axis=1)
    return Sums(jnp.sum(distance * batch["mask"]))


def collate(layout, local_rows):
    """The vectors of a batch; an empty row is masked."""
    rows = [layout.rows[row] for row in local_rows]
    vectors = np.array([VECTORS[row[0]] if row else np.zeros(INPUTS, np.float32) for row in rows])
    return {"vectors": vectors, "mask": np.array([bool(row) for row in rows], np.float32)}


def make_toy_run(mesh, accumulation_steps=1):
    """What the loop trains with."""
    start = {"weight": np.zeros((INPUTS, OUTPUTS), np.float32)}, {"scale": np.float32([[2.0]])}
    task = Task(
        initial_params=lambda: start,
        param_shapes=start,
        sharding_rules=RULES,
        sums=squared_distances,
        target_count=lambda batch: batch["mask"].sum(),
        weights_at=lambda step: 0.1 * step,
        phase_at=lambda step: Phase(runs_teacher=True, runs_self_teacher=step >= SELF_BEGIN),
        metrics=lambda sums, weights, phase: {"toy_weight": (weights, 1.0)},
        collate=collate,
        featurise=lambda batch, step: batch,
        score=lambda state, teacher: {"distance": float(jnp.abs(state.params["weight"]).sum())},
        self_teacher=SelfTeacher(SELF_BEGIN, ema_decay=0.9),
    )
    rules = BatchRules(global_batch_size=16, buckets=(1,), windows=Windows((1.0,)))
    schedule = optax.constant_schedule(0.05)
    return Run(
        task=task,
        teacher_params=jax.tree.map(put_array, TEACHER, tree_shardings(TEACHER, RULES, mesh)),
        layouts=BatchSchedule([UtteranceSize(1.0, 1, 0)] * EXAMPLES, rules, steps=STEPS),
        step_config=StepConfig(optax.adam(schedule), schedule, accumulation_steps),
        settings=TrainingConfig(
            global_batch_size=16, log_every=1, save_every=3, eval_every=5, keep_checkpoints=9
        ),
        metadata={"train_data": "vectors", "eval_data": {"": "vectors"}},
        mesh=mesh,
    )
