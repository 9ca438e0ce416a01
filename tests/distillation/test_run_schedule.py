"""Which update runs what: phases and weights at every boundary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.config import ObjectiveConfig, OptimizerConfig, ScheduleConfig
from fastwhisper_jax.distillation.recipe_cost import count_phases
from fastwhisper_jax.distillation.run import make_batch_schedule
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training.state import abstract_state
from fastwhisper_jax.training.task import Phase

TOTAL = 100
ASKD = ObjectiveConfig(
    teacher_weight=ScheduleConfig("linear", 1.0, 0.0, begin=10, steps=20),
    self_weight=ScheduleConfig("linear", 0.0, 0.5, begin=25, steps=10),
)


def schedule_of(objective, optimizer=None, total=TOTAL):
    return make_run_schedule(objective, optimizer or OptimizerConfig(), total)


def test_phases_change_exactly_where_the_weights_do():
    schedule = schedule_of(ASKD)
    assert (schedule.teacher_end, schedule.self_begin, schedule.self_end) == (30, 26, TOTAL)
    expected = {
        0: Phase(True, False),
        25: Phase(True, False),
        26: Phase(True, True),
        27: Phase(True, True),
        29: Phase(True, True),
        30: Phase(False, True),
        31: Phase(False, True),
        99: Phase(False, True),
    }
    assert {step: schedule.phase(step) for step in expected} == expected


def test_the_traced_weight_is_0_wherever_the_host_leaves_its_term_out():
    schedule = schedule_of(ASKD)
    weights = jax.jit(schedule.weights_at)(jnp.arange(TOTAL))
    runs = np.array([schedule.phase(step) for step in range(TOTAL)])
    np.testing.assert_array_equal(np.asarray(weights.teacher) > 0, runs[:, 0])
    np.testing.assert_array_equal(np.asarray(weights.self_teacher) > 0, runs[:, 1])


@pytest.mark.parametrize("boundary", [10, 25, 30, 35])
def test_weights_are_right_around_every_boundary(boundary):
    schedule = schedule_of(ASKD)
    for step in (boundary - 1, boundary, boundary + 1):
        teacher = np.interp(step, [10, 30], [1.0, 0.0])
        self_teacher = np.interp(step, [25, 35], [0.0, 0.5])
        weights = schedule.weights_at(jnp.int32(step))
        np.testing.assert_allclose(weights[:3], (0.8, teacher, self_teacher), atol=1e-6)


def test_hidden_states_are_compared_until_their_weight_is_0_for_good():
    """The other phases are as they were, and the traced weight is 0 where they are left out."""
    hidden = ScheduleConfig("linear", 2.0, 0.0, begin=5, steps=10)
    plan = schedule_of(dataclasses.replace(ASKD, hidden_weight=hidden))
    phases = [plan.phase(step) for step in range(TOTAL)]
    compares = np.array([phase.compares_hidden_states for phase in phases])
    np.testing.assert_array_equal(compares, np.arange(TOTAL) < 15)
    weights = jax.jit(plan.weights_at)(jnp.arange(TOTAL))
    np.testing.assert_array_equal(np.asarray(weights.hidden) > 0, compares)
    expected = np.interp(np.arange(TOTAL), [5, 15], [2, 0])
    np.testing.assert_allclose(weights.hidden, expected, rtol=1e-6)
    without = schedule_of(ASKD)
    assert [phase[:2] for phase in phases] == [without.phase(step)[:2] for step in range(TOTAL)]
    assert without.weights_at(0).hidden is None


def test_a_floor_under_the_teacher_keeps_it_to_the_end():
    objective = ObjectiveConfig(teacher_weight=ScheduleConfig("cosine", 1.0, 0.3, steps=0.5))
    schedule = schedule_of(objective)
    assert schedule.teacher_end == TOTAL
    assert schedule.phase(TOTAL - 1) == Phase(True, False)


def test_a_teacher_that_comes_back_is_run_in_between():
    pulses = ScheduleConfig("piecewise", 1.0, boundaries=(10, 40, 60), values=(0.0, 0.5, 0.0))
    schedule = schedule_of(ObjectiveConfig(teacher_weight=pulses))
    assert schedule.teacher_end == 60
    assert schedule.phase(20).runs_teacher and not schedule.phase(60).runs_teacher


@pytest.mark.parametrize(
    ("self_teacher", "begin", "end"),
    [
        (ScheduleConfig("linear", 0.5, 0.0, begin=10, steps=20), 0, 30),
        (
            ScheduleConfig("piecewise", boundaries=(20, 40, 60, 80), values=(0.5, 0.0, 0.5, 0.0)),
            20,
            80,
        ),
    ],
    ids=["falls", "comes back"],
)
def test_the_earlier_self_is_run_until_its_weight_is_0_for_good(self_teacher, begin, end):
    schedule = schedule_of(ObjectiveConfig(self_weight=self_teacher))
    assert (schedule.self_begin, schedule.self_end) == (begin, end)
    runs = [schedule.phase(step).runs_self_teacher for step in range(TOTAL)]
    assert runs == [begin <= step < end for step in range(TOTAL)]
    phases = dict(count_phases(schedule))
    assert phases == {Phase(True, True): end - begin, Phase(True, False): TOTAL - end + begin}


@pytest.mark.parametrize(
    "teacher, self_teacher, phase",
    [(0.0, 0.0, (False, False)), (1.0, 0.0, (True, False)), (0.0, 0.5, (False, True))],
)
def test_constant_objectives_have_one_phase(teacher, self_teacher, phase):
    objective = ObjectiveConfig(
        teacher_weight=ScheduleConfig(init_value=teacher),
        self_weight=ScheduleConfig(init_value=self_teacher),
    )
    schedule = schedule_of(objective)
    assert {schedule.phase(step) for step in range(TOTAL)} == {Phase(*phase)}


@pytest.mark.parametrize(
    ("weight", "is_ever_positive"),
    [
        (ScheduleConfig(), False),
        (ScheduleConfig(init_value=0.3), True),
        # An end that a constant never reaches does not count, nor one that lies after the run.
        (ScheduleConfig(end_value=0.3), False),
        (ScheduleConfig("linear", end_value=0.3), True),
        (ScheduleConfig("linear", end_value=0.3, begin=TOTAL - 1, steps=50), False),
        (ScheduleConfig("linear", end_value=0.3, begin=TOTAL - 2, steps=50), True),
        (ScheduleConfig("piecewise", boundaries=(5,), values=(0.7,)), True),
        (ScheduleConfig("piecewise", boundaries=(TOTAL,), values=(0.7,)), False),
    ],
)
def test_a_self_teacher_is_kept_where_an_update_of_the_run_learns_from_it(weight, is_ever_positive):
    config = tiny.make_config(objective=ObjectiveConfig(weight, self_weight=weight))
    schedule = schedule_of(config.objective)
    assert (schedule.teacher_end > 0) == schedule.keeps_self_teacher == is_ever_positive
    mesh = tiny.make_mesh_of_one()
    task = make_task(config, tiny.pair_shapes(), schedule, mesh, dict)
    state = abstract_state(task, schedule.optimizer, mesh)
    assert (state.self_teacher_params is not None) == is_ever_positive


@pytest.mark.parametrize(("warmup", "total"), [(TOTAL, TOTAL), (500, TOTAL), (1.0, 10), (1, 1)])
def test_a_warm_up_that_is_not_shorter_than_the_run_is_an_input_error(warmup, total):
    with pytest.raises(InputError, match=f"warmup={warmup} is not shorter than the run of {total}"):
        schedule_of(ASKD, OptimizerConfig(warmup=warmup), total)


@pytest.mark.parametrize(("warmup", "total"), [(TOTAL - 1, TOTAL), (0.05, 1), (0, 1)])
def test_a_fraction_below_1_warms_up_any_run(warmup, total):
    assert (
        schedule_of(ObjectiveConfig(), OptimizerConfig(warmup=warmup), total).total_steps == total
    )


def test_fractions_of_the_run_equal_counts_of_its_updates():
    in_fractions = ObjectiveConfig(
        teacher_weight=ScheduleConfig("linear", 1.0, 0.0, begin=0.1, steps=0.2),
        self_weight=ScheduleConfig("linear", 0.0, 0.5, begin=0.25, steps=0.1),
    )
    by_fraction = schedule_of(in_fractions, OptimizerConfig(warmup=0.05))
    by_count = schedule_of(ASKD, OptimizerConfig(warmup=5))
    assert by_fraction.teacher_end == by_count.teacher_end
    assert by_fraction.self_begin == by_count.self_begin
    steps = jnp.arange(TOTAL)
    for ours, theirs in zip(by_fraction.weights_at(steps), by_count.weights_at(steps), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for step in range(TOTAL):
        assert by_fraction.learning_rate_at(step) == by_count.learning_rate_at(step)


def test_accumulation_changes_no_length(audio):
    corpus = tiny.make_corpus(audio)
    lengths = []
    for accumulation_steps in (1, 4):
        config = tiny.make_config(epochs=3, steps=None, accumulation_steps=accumulation_steps)
        lengths.append(len(make_batch_schedule(config, corpus, tiny.pair_shapes().student.windows)))
    assert lengths[0] == lengths[1] == 9


def test_a_negative_complement_is_an_error_before_the_run():
    objective = dataclasses.replace(
        ASKD, ce_weight=None, self_weight=ScheduleConfig(init_value=0.5)
    )
    with pytest.raises(InputError, match=r"at step 0 the loss weights are .* CE -0\.5"):
        schedule_of(objective)
