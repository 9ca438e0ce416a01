import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses import schedules

BEGIN, STEPS = 10, 20
END = BEGIN + STEPS
NEAR_BOUNDARIES = [0, BEGIN - 1, BEGIN, BEGIN + 1, END - 1, END, END + 1, 10 * END]

CLOSED_FORMS = {
    "linear": (schedules.linear_schedule, lambda r, a, b: a + (b - a) * r),
    "cosine": (
        schedules.cosine_schedule,
        lambda r, a, b: b + (a - b) * (1 + np.cos(np.pi * r)) / 2,
    ),
    "exponential": (schedules.exponential_schedule, lambda r, a, b: a * (b / a) ** r),
}
FALLING_AND_RISING = [(0.8, 0.1), (0.1, 0.7)]


@pytest.mark.parametrize("step", NEAR_BOUNDARIES)
@pytest.mark.parametrize("values", FALLING_AND_RISING)
@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_transition_is_right_at_and_around_both_boundaries(kind, values, step):
    make, closed_form = CLOSED_FORMS[kind]
    schedule = make(*values, BEGIN, STEPS)
    expected = closed_form(np.clip((step - BEGIN) / STEPS, 0, 1), *values)
    for value in (schedule(step), jax.jit(schedule)(jnp.int32(step)), schedule(np.array([step]))):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize("values", [*FALLING_AND_RISING, (1 / 3, 0.7), (0.7, 1 / 3)])
@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_both_ends_are_exact_when_traced_and_nothing_between_is_flat(kind, values):
    schedule = jax.jit(CLOSED_FORMS[kind][0](*values, BEGIN, STEPS))
    for step, value in ((0, values[0]), (BEGIN, values[0]), (END, values[1]), (END + 1, values[1])):
        assert schedule(step) == jnp.float32(value)
    assert schedule(BEGIN + 1) != jnp.float32(values[0])
    assert schedule(END - 1) != jnp.float32(values[1])
    moves = np.diff(schedule(np.arange(BEGIN, END + 1)))
    assert np.all(np.sign(moves) == np.sign(values[1] - values[0]))


def test_agrees_with_optax():
    steps = np.arange(60)
    pairs = [
        (schedules.constant_schedule(0.3), optax.constant_schedule(0.3)),
        (
            schedules.linear_schedule(0.9, 0.2, BEGIN, STEPS),
            optax.linear_schedule(0.9, 0.2, STEPS, BEGIN),
        ),
        (
            schedules.cosine_schedule(0.9, 0.18, 0, STEPS),
            optax.cosine_decay_schedule(0.9, STEPS, alpha=0.2),
        ),
        (
            schedules.exponential_schedule(0.9, 0.09, BEGIN, STEPS),
            optax.exponential_decay(0.9, STEPS, 0.1, BEGIN, end_value=0.09),
        ),
    ]
    for ours, theirs in pairs:
        expected = [theirs(step) for step in steps]
        np.testing.assert_allclose(ours(steps), expected, rtol=1e-5)


@pytest.mark.parametrize("step,expected", [(0, 1.0), (4, 1.0), (5, 0.3), (6, 0.3), (8, 0.3)])
def test_piecewise_moves_on_at_its_first_boundary(step, expected):
    schedule = schedules.piecewise_schedule([5, 9], [1.0, 0.3, 0.0])
    for value in (schedule(step), jax.jit(schedule)(jnp.int32(step)), schedule(np.array([step]))):
        assert value.dtype == jnp.float32
        assert value == np.float32(expected)


def test_piecewise_ends_in_its_last_value_and_may_have_no_boundary():
    schedule = schedules.piecewise_schedule([5, 9], [1.0, 0.5, 0.0])
    np.testing.assert_array_equal(schedule(np.array([8, 9, 10, 999])), [0.5, 0, 0, 0])
    assert schedules.piecewise_schedule([], [0.25])(3) == 0.25


def test_transition_of_no_steps_is_a_jump_at_its_begin():
    schedule = schedules.linear_schedule(0.0, 0.5, 7, 0)
    np.testing.assert_array_equal(schedule(np.array([6, 7, 8])), [0.0, 0.5, 0.5])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_host_knows_the_first_step_at_which_the_traced_teacher_weight_is_zero(kind):
    schedule = CLOSED_FORMS[kind][0](0.8, 0.0, BEGIN, STEPS)
    assert schedules.zero_from(schedule, total_steps=100) == END
    assert jax.jit(schedule)(END) == 0.0 < jax.jit(schedule)(END - 1)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_host_knows_the_first_step_at_which_the_traced_self_weight_is_positive(kind):
    schedule = CLOSED_FORMS[kind][0](0.0, 0.5, BEGIN, STEPS)
    assert schedules.positive_from(schedule, total_steps=100) == BEGIN + 1
    assert jax.jit(schedule)(BEGIN) == 0.0 < jax.jit(schedule)(BEGIN + 1)


def test_host_facts_of_schedules_that_never_change():
    always, never = schedules.constant_schedule(0.5), schedules.constant_schedule(0.0)
    assert schedules.zero_from(always, 100) == 100
    assert schedules.zero_from(never, 100) == 0
    assert schedules.positive_from(always, 100) == 0
    assert schedules.positive_from(never, 100) == 100
    returns = schedules.piecewise_schedule([10, 20, 30], [0.5, 0.0, 0.5, 0.0])
    assert schedules.zero_from(returns, 100) == 30


@pytest.mark.parametrize("steps", [1_000, 100_000])
def test_dropping_the_teacher_on_the_host_drops_nothing_that_counts(steps):
    schedule = schedules.cosine_schedule(0.8, 0.0, 0, steps)
    first = schedules.zero_from(schedule, total_steps=2 * steps)
    assert first <= steps
    rest = jax.jit(schedule)(np.arange(first, 2 * steps))
    assert np.max(np.abs(rest)) < 1e-6


@pytest.mark.parametrize(
    "length,expected", [(0, 0), (1, 1), (250, 250), (0.0, 0), (0.5, 500), (1.0, 1000), (1e-9, 1)]
)
def test_lengths_are_counts_or_fractions_of_the_run(length, expected):
    assert schedules.resolve_steps(length, 1000, "teacher.steps") == expected


@pytest.mark.parametrize("length,expected", [(0.24, 2), (0.26, 3), (0.25, 2), (0.35, 4), (0.45, 4)])
def test_a_fraction_is_rounded_to_the_nearest_count_and_a_tie_to_the_even_one(length, expected):
    """Of 10 updates; each of int, floor, ceil and rounding ties upwards fails on one of these."""
    assert schedules.resolve_steps(length, 10, "teacher.steps") == expected


@pytest.mark.parametrize("length", [1.5, -0.1, -3, True, float("nan")])
def test_impossible_length_is_named(length):
    with pytest.raises(InputError, match="teacher.steps="):
        schedules.resolve_steps(length, 1000, "teacher.steps")


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.exponential_schedule(1.0, 0.0, 0, 5),
        lambda: schedules.exponential_schedule(0.0, 1.0, 0, 5),
        lambda: schedules.linear_schedule(1.0, 0.0, -1, 5),
        lambda: schedules.linear_schedule(1.0, 0.0, 0, -5),
        lambda: schedules.piecewise_schedule([5], [1.0]),
        lambda: schedules.piecewise_schedule([5, 5], [1.0, 0.5, 0.0]),
    ],
)
def test_impossible_schedule_is_refused(make):
    with pytest.raises(InputError, match="must"):
        make()
