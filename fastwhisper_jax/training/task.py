"""What training is given of a model family and its losses: pure functions, gathered in a `Task`.

Training knows the loop, the update, the state, checkpoints and the mesh. It knows no model. A
`Task` brings what is particular to one: Whisper's ASKD (`distillation/task.py`) is a task.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.training.sharding import ShardingRules

Params = dict[str, Any]
Batch = dict[str, jax.Array]
HostBatch = dict[str, np.ndarray]
Metrics = dict[str, tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]]
Weights = Any


class Phase(NamedTuple):
    """What an update has to run at all. The host chooses it, outside `jax.jit`.

    Attributes:
        runs_teacher: it learns from the teacher's predictions.
        runs_self_teacher: it learns from those of the self teacher.
        compares_hidden_states: it learns from what the teacher computes on the way.
    """

    runs_teacher: bool
    runs_self_teacher: bool
    compares_hidden_states: bool = False


class Sums(Protocol):
    """What a task sums over a batch: a pytree of scalars, of which training reads the loss."""

    @property
    def loss(self) -> jax.Array: ...


class SelfTeacher(NamedTuple):
    """How the self teacher follows the student.

    Attributes:
        begin_step: the step at which it is first copied from the student.
        ema_decay: decay of the exponential moving average; None makes the self teacher a snapshot.
        snapshot_steps: updates between two snapshots.
    """

    begin_step: int
    ema_decay: float | None = 0.999
    snapshot_steps: int = 1


class Task(NamedTuple):
    """A model family with its losses, as pure functions.

    Attributes:
        initial_params: () -> (params, frozen_params), on the host: the student before its first
            update. Called only where there is no checkpoint, and what it returns is not kept.
        param_shapes: the same two trees as shapes and dtypes.
        sharding_rules: how leaves of parameters and of the state are divided over the mesh.
        sums: (params, frozen_params, teacher_params, self_teacher_params, batch, weights, key,
            phase) -> Sums over the targets of a batch. `loss` is differentiated with respect to
            `params`. `self_teacher_params` is None where the phase does not run it.
        target_count: batch -> number of targets, float32 scalar: the loss is a mean over them.
        weights_at: step -> the weights of the loss in the update after `step` completed ones.
        phase_at: step -> the phase of that update; called on the host.
        metrics: (sums, weights, phase) -> name -> (sum, count). Training adds `loss`,
            `learning_rate` and `grad_norm`.
        collate: (layout, rows of the global batch that this process holds) -> host arrays.
        featurise: (batch, step) -> batch: the device's share of the work on a batch.
        score: (state, teacher_params) -> metrics of a state on held-out data, by name.
        self_teacher: how the self teacher follows the student; None if no update learns from it.
    """

    initial_params: Callable[[], tuple[Params, Params]]
    param_shapes: tuple[Params, Params]
    sharding_rules: ShardingRules
    sums: Callable[[Params, Params, Params, Params | None, Batch, Weights, jax.Array, Phase], Sums]
    target_count: Callable[[Batch], jax.Array]
    weights_at: Callable[[jax.Array], Weights]
    phase_at: Callable[[int], Phase]
    metrics: Callable[[Any, Weights, Phase], Metrics]
    collate: Callable[[BatchLayout, Sequence[int]], HostBatch]
    featurise: Callable[[Batch, jax.typing.ArrayLike], Batch]
    score: Callable[[Any, Params], dict[str, float]]
    self_teacher: SelfTeacher | None = None
