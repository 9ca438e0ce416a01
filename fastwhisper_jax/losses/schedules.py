"""Loss weights as functions of the number of completed updates.

A transition keeps `init_value` up to and including step `transition_begin`. It has exactly
`end_value` from step `transition_begin + transition_steps` on, and moves from one value to the
other in between. It may fall, as the teacher's weight does, or rise, as the self teacher's does.
The step may be a Python int, an array of steps, or traced. The value is float32 and has the
step's shape.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from fastwhisper_jax.errors import InputError

# The weight of a loss term by step; step -> weight.
WeightSchedule = Callable[[ArrayLike], jax.Array]


def constant_schedule(value: float) -> WeightSchedule:
    """Returns the schedule that is `value` at every step."""
    return lambda step: jnp.full(jnp.shape(step), value, jnp.float32)


def linear_schedule(
    init_value: float, end_value: float, transition_begin: int, transition_steps: int
) -> WeightSchedule:
    """Returns the transition along a straight line.

    w(s) = (1 - r) init + r end        r: the fraction of the transition that is done
    """

    def between(done: jax.Array) -> jax.Array:
        return (1.0 - done) * init_value + done * end_value

    return _transition(between, init_value, end_value, transition_begin, transition_steps)


def cosine_schedule(
    init_value: float, end_value: float, transition_begin: int, transition_steps: int
) -> WeightSchedule:
    """Returns the transition along half a cosine, which is slow at both ends.

    w(s) = h init + (1 - h) end,   h = (1 + cos(pi r)) / 2
    """

    def between(done: jax.Array) -> jax.Array:
        left = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return left * init_value + (1.0 - left) * end_value

    return _transition(between, init_value, end_value, transition_begin, transition_steps)


def exponential_schedule(
    init_value: float, end_value: float, transition_begin: int, transition_steps: int
) -> WeightSchedule:
    """Returns the transition that multiplies by the same factor at each step.

        w(s) = init (end / init)^r

    Raises:
        InputError: a value is not positive; no factor leads to 0.
    """
    if init_value <= 0 or end_value <= 0:
        raise InputError(
            f"an exponential schedule from {init_value} to {end_value} does not exist: both values "
            "must be above 0; use a small positive end_value, or a linear or cosine schedule"
        )
    log_ratio = math.log(end_value / init_value)

    def between(done: jax.Array) -> jax.Array:
        return init_value * jnp.exp(log_ratio * done)

    return _transition(between, init_value, end_value, transition_begin, transition_steps)


def piecewise_schedule(boundaries: Sequence[int], values: Sequence[float]) -> WeightSchedule:
    """Returns the schedule that changes to the next of `values` at each of `boundaries`.

        w(s) = values[i]   for   boundaries[i - 1] <= s < boundaries[i]

    Args:
        boundaries: steps, in ascending order.
        values: weights, one more than there are boundaries.

    Raises:
        InputError: the two lengths do not fit, or the boundaries do not ascend.
    """
    if len(values) != len(boundaries) + 1:
        raise InputError(
            f"a piecewise schedule has {len(boundaries)} boundaries and {len(values)} values; "
            "it must have one value more than boundaries"
        )
    if any(later <= earlier for earlier, later in zip(boundaries, boundaries[1:], strict=False)):
        raise InputError(
            f"boundaries {list(boundaries)} of a piecewise schedule must ascend; sort them"
        )
    constants = [constant_schedule(value) for value in values]
    return cast(WeightSchedule, optax.join_schedules(constants, boundaries))


def resolve_steps(length: int | float, total_steps: int, name: str) -> int:
    """Returns a length or position in a run as a count of updates.

    A fraction is rounded to the nearest count, and a tie to the even one. A fraction above 0 is at
    least one update.

    Args:
        length: an int is a count of updates; a float is a fraction of the run, in [0, 1]. So 1 is
            one update and 1.0 is the whole run.
        total_steps: updates of the whole run.
        name: the name under which the user gave the length, for the message.

    Raises:
        InputError: the length is negative, or a float above 1.
    """
    if isinstance(length, float):
        if not 0.0 <= length <= 1.0:
            raise InputError(
                f"{name}={length} is a float, so a fraction of the run, and must be in [0, 1]; "
                "write a count of updates as an integer"
            )
        return max(round(length * total_steps), int(length > 0))
    if isinstance(length, bool) or length < 0:
        raise InputError(
            f"{name}={length} must be a count of updates, an integer of at least 0, or a fraction "
            "of the run, a float in [0, 1]"
        )
    return length


def zero_from(schedule: WeightSchedule, total_steps: int) -> int:
    """Returns the first step from which a schedule is 0 until the end of the run.

    From that step on, the term that the weight multiplies need not be computed. The result is
    total_steps if there is no such step, and 0 if the weight is never positive. It is computed on
    the host, once, before the run.
    """
    (positive,) = np.nonzero(_values(schedule, total_steps))
    return int(positive[-1]) + 1 if positive.size else 0


def positive_from(schedule: WeightSchedule, total_steps: int) -> int:
    """Returns the first step of a run at which a schedule is not 0, or total_steps."""
    (positive,) = np.nonzero(_values(schedule, total_steps))
    return int(positive[0]) if positive.size else total_steps


def _values(schedule: WeightSchedule, total_steps: int) -> np.ndarray:
    return np.asarray(schedule(np.arange(total_steps, dtype=np.int32)))


def _transition(
    between: Callable[[jax.Array], jax.Array],
    init_value: float,
    end_value: float,
    transition_begin: int,
    transition_steps: int,
) -> WeightSchedule:
    if transition_begin < 0 or transition_steps < 0:
        raise InputError(
            f"transition_begin={transition_begin} and transition_steps={transition_steps} of a "
            "schedule count updates and must be at least 0"
        )
    transition_end = transition_begin + transition_steps

    def schedule(step: ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        done = (step - transition_begin).astype(jnp.float32) / max(transition_steps, 1)
        value = between(jnp.clip(done, 0.0, 1.0))
        # Integers decide where the transition ends, so that rounding cannot move the end. A weight
        # that decays to 0 is then 0 in the compiled step from the very step that `zero_from` gives.
        return jnp.where(step >= transition_end, end_value, value)

    return schedule
