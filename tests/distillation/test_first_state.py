"""Where a run's arrays lie before its first update, and what is said of its data."""

import functools
import gc

import jax
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.pair import place_params
from fastwhisper_jax.distillation.run import languages
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import make_mesh, tree_shardings
from fastwhisper_jax.training.state import abstract_state, first_state


@pytest.fixture
def begin():
    """A function of a mesh to what training begins with: student on the host, teacher, state."""
    config = tiny.make_config()
    schedule = make_run_schedule(config.objective, config.optimizer, tiny.STEPS)

    def begin(mesh):
        teacher = tiny.random_params(tiny.TEACHER)
        student = tiny.first_student(teacher)
        task = make_task(config, tiny.pair_shapes(), schedule, mesh, lambda: student)
        shapes = abstract_state(task, schedule.optimizer, mesh)
        shardings = jax.tree.map(lambda x: x.sharding, shapes)
        placed = place_params(teacher, "float32", mesh)
        return student, placed, first_state(task, schedule.optimizer, shardings)

    return begin


def test_a_device_holds_its_part_of_the_teacher_and_of_the_state_and_nothing_else(
    begin, bytes_per_device
):
    gc.collect()
    before = {id(array) for array in jax.live_arrays()}
    mesh = make_mesh(1, 8)
    student, *placed = begin(mesh)
    gc.collect()
    held = dict.fromkeys(jax.devices(), 0)
    for array in jax.live_arrays():
        if id(array) not in before:
            for shard in array.addressable_shards:
                held[shard.device] += shard.data.nbytes
    part = sum(bytes_per_device(tree, tree_shardings(tree, RULES, mesh)) for tree in placed)
    assert set(held.values()) == {part}
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(student))


@pytest.mark.parametrize("count", [1, 8])
def test_the_state_is_the_students_and_its_updates_leave_the_host_as_it_was(begin, count):
    """On a CPU an array may lie in the host's memory, and an update reuses what it is given."""
    student, _, state = begin(make_mesh(1, count, devices=jax.devices()[:count]))
    before = jax.tree.map(np.copy, student)
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(state.params["decoder"]["layers"], student["decoder"]["layers"])
    same(state.self_teacher_params, state.params)
    add = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    jax.block_until_ready(add(add(state)))
    same(student, before)


def test_languages_are_those_of_the_utterances_and_the_most_frequent_comes_first():
    utterances = tuple(
        Utterance(id=str(number), audio="a.wav", text="a", language=language)
        for number, language in enumerate(("en", "es", None, "es"))
    )
    assert languages(Corpus(utterances, (), (), "")) == ["es", "en"]
