"""The run schedule: weights, learning rate and phases by step, and the optimiser."""

import dataclasses
from collections.abc import Callable

import jax
import optax

from fastwhisper_jax.config import ObjectiveConfig, OptimizerConfig, ScheduleConfig
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses import schedules
from fastwhisper_jax.losses.askd import Weights, askd_weights, check_weights
from fastwhisper_jax.training.optimizer import learning_rate_schedule, make_optimizer
from fastwhisper_jax.training.task import Phase


@dataclasses.dataclass(frozen=True)
class RunSchedule:
    """What depends on the step, over a whole run.

    Attributes:
        total_steps: updates of the run.
        weights_at: step -> the loss weights of the update after `step` completed ones.
        learning_rate_at: step -> the learning rate of that update.
        optimizer: uses that learning rate.
        teacher_end: the first step from which the teacher's weight stays 0.
        self_begin: the first step with a self weight above 0; total_steps if there is none.
        self_end: the first step from which the self weight stays 0; 0 if it is never above 0.
        hidden_end: the first step from which the weight of hidden states stays 0.
    """

    total_steps: int
    weights_at: Callable[[jax.Array], Weights]
    learning_rate_at: optax.Schedule
    optimizer: optax.GradientTransformation
    teacher_end: int
    self_begin: int
    self_end: int
    hidden_end: int

    @property
    def keeps_self_teacher(self) -> bool:
        """Whether any update of the run learns from the self teacher."""
        return self.self_begin < self.total_steps

    def phase(self, step: int) -> Phase:
        """What the update after `step` completed ones has to run."""
        return Phase(
            runs_teacher=step < self.teacher_end,
            runs_self_teacher=self.self_begin <= step < self.self_end,
            compares_hidden_states=step < self.hidden_end,
        )


def make_run_schedule(
    objective: ObjectiveConfig, optimizer: OptimizerConfig, total_steps: int
) -> RunSchedule:
    """Resolves every length of a recipe against the run's number of updates.

    A weight may change after the run's end: the run then holds only the part before it.

    Raises:
        InputError: the warm-up is not shorter than the run, a length or a curve is impossible, or a
            weight would be negative.
    """
    teacher = make_schedule(objective.teacher_weight, total_steps, "objective.teacher_weight")
    self_teacher = make_schedule(objective.self_weight, total_steps, "objective.self_weight")
    check_weights(teacher, self_teacher, objective.ce_weight, total_steps)
    hidden = None
    if not objective.hidden_weight.is_zero:
        hidden = make_schedule(objective.hidden_weight, total_steps, "objective.hidden_weight")
    rate = learning_rate_schedule(
        optimizer.learning_rate,
        optimizer.end_learning_rate,
        _warmup_steps(optimizer.warmup, total_steps),
        optimizer.decay,
        total_steps,
    )
    return RunSchedule(
        total_steps=total_steps,
        weights_at=lambda step: askd_weights(
            step, teacher, self_teacher, objective.ce_weight, hidden
        ),
        learning_rate_at=rate,
        optimizer=make_optimizer(
            rate,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2,
            epsilon=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            clip_norm=optimizer.clip_norm,
        ),
        teacher_end=schedules.zero_from(teacher, total_steps),
        self_begin=schedules.positive_from(self_teacher, total_steps),
        self_end=schedules.zero_from(self_teacher, total_steps),
        hidden_end=schedules.zero_from(hidden, total_steps) if hidden else 0,
    )


def _warmup_steps(warmup: int | float, total_steps: int) -> int:
    steps = schedules.resolve_steps(warmup, total_steps, "optimizer.warmup")
    # A fraction below 1 is accepted for any run, although it may round up to all of a short one.
    if warmup >= (1.0 if isinstance(warmup, float) else total_steps):
        raise InputError(
            f"optimizer.warmup={warmup} is not shorter than the run of {total_steps} updates: the "
            "learning rate would never reach its peak; set it to fewer updates, or to a fraction "
            "of the run below 1.0"
        )
    return steps


def make_schedule(config: ScheduleConfig, total_steps: int, name: str) -> schedules.WeightSchedule:
    """Makes the schedule that a config section describes."""

    def steps(length: int | float, field: str) -> int:
        return schedules.resolve_steps(length, total_steps, f"{name}.{field}")

    if config.kind == "constant":
        return schedules.constant_schedule(config.init_value)
    if config.kind == "piecewise":
        boundaries = [steps(boundary, "boundaries") for boundary in config.boundaries]
        return schedules.piecewise_schedule(boundaries, [config.init_value, *config.values])
    curves = {
        "linear": schedules.linear_schedule,
        "cosine": schedules.cosine_schedule,
        "exponential": schedules.exponential_schedule,
    }
    return curves[config.kind](
        config.init_value,
        config.end_value,
        steps(config.begin, "begin"),
        steps(config.steps, "steps"),
    )
